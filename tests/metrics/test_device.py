"""Distances stay on the device on which they are computed."""

import pytest
import torch
from torch import Tensor

import hotnas_torch as ht


def test_no_distances_are_moved(monkeypatch: pytest.MonkeyPatch, rng: torch.Generator) -> None:
    networks = ht.spaces.NASBenchMacro().sample(12, generator=rng)
    expected = ht.HOTNN(space=ht.spaces.NASBenchMacro())(networks)
    moved = Tensor.cpu

    def cpu(self: Tensor) -> Tensor:
        if self.is_floating_point():
            pytest.fail("a tensor of numbers was moved to the CPU")
        return moved(self)

    monkeypatch.setattr(Tensor, "cpu", cpu)
    distance = ht.HOTNN(space=ht.spaces.NASBenchMacro())
    assert torch.equal(distance(networks), expected)
    assert torch.equal(distance(networks[:5], networks), expected[:5])
