"""Spaces whose build function returns a model of PyTorch."""

import pytest
import torch
from torch import nn

import hotnas_torch as ht
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import Choices

pytest.importorskip("hotnas_torch.importing", reason="models are read by hotnas_torch.importing")

CHOICES = {"kernel": [1, 3, 5], "width": [8, 16, 32], "activation": ["relu", "gelu"]}
INPUT = torch.empty(1, 3, 16, 16, device="meta")


def model(chosen):
    kernel, width = chosen["kernel"], chosen["width"]
    activation = {"relu": nn.ReLU, "gelu": nn.GELU}[chosen["activation"]]
    with torch.device("meta"):
        return nn.Sequential(
            nn.Conv2d(3, width, kernel, padding=kernel // 2),
            nn.BatchNorm2d(width),
            activation(),
            nn.Conv2d(width, width, kernel, padding=kernel // 2),
        )


def test_models_are_read_and_searched():
    space = Choices(CHOICES, model, example_inputs=INPUT)
    assert space.size() == 18
    generator = torch.Generator().manual_seed(0)
    strategy = ht.search.HOTNAS(space, generator=generator, num_initial=4, pool_size=8)
    result = ht.search.run(strategy, lambda net: float(sum(net.channels)), budget=7, progress=False)
    assert len(result.trials) == 7
    small = space.from_choices({"kernel": 1, "width": 8, "activation": "relu"})
    distance = ht.HOTNN(space=space)
    near, far = (
        space.from_choices({"kernel": kernel, "width": 8, "activation": activation})
        for kernel, activation in ((3, "relu"), (5, "gelu"))
    )
    matrix = distance([small, near, far])
    assert 0.0 < matrix[0, 1] < matrix[0, 2]


def test_models_without_fitting_inputs_are_refused():
    with pytest.raises(TypeError, match="pass example_inputs="):
        Choices(CHOICES, model)
    with pytest.raises(ArchitectureError, match=r"reading the model .*kernel=1,width=8"):
        Choices(CHOICES, model, example_inputs=torch.empty(1, 4, 16, 16, device="meta"))
