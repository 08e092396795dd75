"""Training as an objective on a generator: figures, budgets, reproducibility, what is refused."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from hotnas_torch.errors import ArchitectureError
from hotnas_torch.nago import (
    HNAG,
    RNAG,
    ErdosRenyi,
    FlatTheta,
    GeneratedModule,
    GeneratedSkeleton,
    GeneratorTraining,
    Theta,
    WattsStrogatz,
    memory_per_sample,
)
from hotnas_torch.nn import TrainingSettings, digits, image_folder

FLAT = FlatTheta((WattsStrogatz(3, 2, 0.5),) * 3)
NESTED = Theta(WattsStrogatz(3, 2, 0.5), ErdosRenyi(1, 0.5), WattsStrogatz(3, 2, 0.9))
SETTINGS = TrainingSettings(epochs=2)


@pytest.fixture(scope="module")
def data():
    return digits(generator=torch.Generator().manual_seed(0), num_train=100, num_validation=200)


def test_figures_are_those_of_the_network_that_was_trained(data):
    objective = GeneratorTraining(RNAG(), data, settings=SETTINGS, parameter_limit=9_000)
    epochs = []
    result = objective(FLAT, every_epoch=epochs.append)
    net = objective.network(FLAT)
    module = GeneratedModule(net, objective.skeleton, generator=torch.Generator())
    assert len(epochs) == result.metrics["epochs"] == 2
    assert result.value == 100.0 * (1.0 - epochs[-1].validation_accuracy)
    assert result.metrics["parameters"] == module.num_parameters() <= 9_000
    assert result.metrics["memory"] == memory_per_sample(module, data.input_shape)
    assert result.metrics["operations"] == 9
    assert result.cost > 0.0


@pytest.mark.parametrize(("sampler", "theta"), [(RNAG(), FLAT), (HNAG(), NESTED)], ids=repr)
def test_an_evaluation_is_reproduced_and_samples_differ(data, sampler, theta):
    results = {}
    for seed, sample in ((0, 0), (0, 1), (1, 0)):
        first, second = (
            GeneratorTraining(sampler, data, settings=SETTINGS, seed=seed)(
                theta, epochs=1, sample=sample
            )
            for _ in range(2)
        )
        assert first.value == second.value
        assert first.metrics == second.metrics
        results[seed, sample] = first.metrics["validation_loss"]
    assert len(set(results.values())) == 3


def test_the_network_depends_on_seed_hyperparameters_and_sample(data):
    wide, other = (FlatTheta((WattsStrogatz(9, 4, p),) * 3) for p in (0.5, 0.4))
    drawn = [
        GeneratorTraining(RNAG(), data, seed=seed).network(theta, sample=sample).key
        for seed, theta, sample in (
            (0, wide, 0),
            (0, wide, 0),
            (1, wide, 0),
            (0, other, 0),
            (0, wide, 1),
        )
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


def test_a_budget_is_a_training_of_its_own_of_the_same_network(data):
    objective = GeneratorTraining(RNAG(), data, settings=SETTINGS)
    assert objective(FLAT, epochs=1).metrics["epochs"] == 1
    assert objective(FLAT).metrics["epochs"] == 2
    curves = {}
    for epochs in (1, 2):
        curves[epochs] = []
        objective(FLAT, epochs=epochs, every_epoch=curves[epochs].append)
    # The learning rate falls faster in the shorter one.
    assert curves[1][0] != curves[2][0]


def test_a_training_that_diverges_is_a_failed_evaluation(data):
    settings = TrainingSettings(epochs=2, learning_rate=1e18)
    result = GeneratorTraining(RNAG(), data, settings=settings)(FLAT)
    assert result.failed
    assert "non-finite in epoch 1" in result.error
    assert math.isfinite(result.cost)


def test_trains_on_a_folder_of_images(tmp_path):
    random = np.random.default_rng(0)
    for part, num in (("train", 8), ("val", 2)):
        for label, name in enumerate(("cold", "warm")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(num):
                pixels = random.integers(0, 60, size=(12, 10, 3), dtype=np.uint8)
                pixels[..., 2 - 2 * label] += 150
                Image.fromarray(pixels).save(folder / f"{index}.png")
    files = image_folder(tmp_path, generator=torch.Generator().manual_seed(0), size=8, num_train=12)
    settings = TrainingSettings(epochs=8, batch_size=6, learning_rate=0.02)
    objective = GeneratorTraining(RNAG(), files, settings=settings)
    assert objective.skeleton.input_channels == 3
    result = objective(FLAT)
    assert result.metrics["train_loss"] < 0.4  # 0.69 by chance
    assert result.metrics["epochs"] == 8


def test_what_the_values_depend_on_is_described(data):
    described = GeneratorTraining(RNAG(), data, settings=SETTINGS).describe()
    for changed in (
        GeneratorTraining(RNAG(first_downsampling=2), data, settings=SETTINGS),
        GeneratorTraining(RNAG(), data, settings=TrainingSettings(epochs=3)),
        GeneratorTraining(RNAG(), data, settings=SETTINGS, parameter_limit=10_000),
        GeneratorTraining(RNAG(), data, settings=SETTINGS, seed=1),
        GeneratorTraining(
            RNAG(), data, settings=SETTINGS, skeleton=GeneratedSkeleton(input_channels=1)
        ),
    ):
        assert changed.describe() != described


def test_refuses(data):
    with pytest.raises(ValueError, match="parameter_limit must be at least 1; got 0"):
        GeneratorTraining(RNAG(), data, parameter_limit=0)
    with pytest.raises(ValueError, match="num_threads must be at least 1"):
        GeneratorTraining(RNAG(), data, num_threads=0)
    with pytest.raises(ValueError, match=r"skeleton\.input_channels must be 1 for 'digits'; got 3"):
        GeneratorTraining(RNAG(), data, skeleton=GeneratedSkeleton())
    with pytest.raises(ArchitectureError, match="parameter_limit must be at least"):
        GeneratorTraining(RNAG(), data, parameter_limit=10)(FLAT)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"parameter_limit": 2.5}, "parameter_limit must be an int"),
        ({"seed": "a"}, "seed must be an int"),
        ({"num_threads": 2.5}, "num_threads must be an int"),
        ({"mixed_precision": "yes"}, "mixed_precision must be True or False"),
        ({"settings": {"epochs": 1}}, "settings must be a TrainingSettings or None"),
        ({"skeleton": 8}, "skeleton must be a GeneratedSkeleton or None"),
    ],
)
def test_settings_of_the_wrong_kind_are_refused_at_once(given, message):
    with pytest.raises(TypeError, match=message):
        GeneratorTraining(RNAG(), **given)
