"""Settings of the wrong kind are refused when they are made, not hours later."""

import math

import pytest

from hotnas_torch.hierarchy import Schedule
from hotnas_torch.nago import GeneratedSkeleton
from hotnas_torch.nn import (
    DARTSSkeleton,
    DifferentiableSettings,
    LearnedHierarchySettings,
    Skeleton,
    SupernetSettings,
    TrainingSettings,
)

COUNTS = {
    TrainingSettings: ("epochs", "batch_size"),
    SupernetSettings: ("epochs", "batch_size", "num_final", "reward_batch_size"),
    DifferentiableSettings: ("epochs", "batch_size", "num_samples"),
    LearnedHierarchySettings: ("num_images",),
    DARTSSkeleton: ("channels", "num_cells", "input_channels", "num_classes"),
    Skeleton: ("channels", "num_stages", "num_classes"),
    GeneratedSkeleton: ("input_channels", "num_classes", "head_channels"),
}
NUMBERS = {
    TrainingSettings: ("learning_rate", "momentum", "weight_decay"),
    SupernetSettings: ("learning_rate", "momentum", "weight_decay"),
    DifferentiableSettings: ("learning_rate", "clip", "architecture_rate", "architecture_decay"),
    LearnedHierarchySettings: ("beta", "exploration", "initial"),
    GeneratedSkeleton: ("dropout",),
    Schedule: ("uniform", "warm_up", "start", "end"),
}


@pytest.mark.parametrize("value", ["8", 2.5, math.nan, True])
@pytest.mark.parametrize(
    ("settings", "name"), [(kind, name) for kind, names in COUNTS.items() for name in names]
)
def test_what_counts_must_be_an_integer(settings, name, value):
    with pytest.raises(TypeError, match=f"{name} must be an int"):
        settings(**{name: value})


@pytest.mark.parametrize(("value", "error"), [("0.1", TypeError), (math.nan, ValueError)])
@pytest.mark.parametrize(
    ("settings", "name"), [(kind, name) for kind, names in NUMBERS.items() for name in names]
)
def test_what_is_measured_must_be_a_number(settings, name, value, error):
    with pytest.raises(error, match=f"{name} must be"):
        settings(**{name: value})


def test_a_hierarchy_is_made_by_a_linkage_that_exists():
    with pytest.raises(ValueError, match=r"linkage must be one of 'average', .*; got 'averge'"):
        LearnedHierarchySettings(linkage="averge")
    with pytest.raises(TypeError, match="check_euclidean must be True or False"):
        LearnedHierarchySettings(check_euclidean="no")
