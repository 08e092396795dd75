"""Acquisition functions of several objectives, as a search builds them."""

import pytest
import torch
import torch.utils.cpp_extension
from botorch.acquisition.multi_objective import logei

from hotnas_torch.search import HOTNAS
from hotnas_torch.spaces import NASBenchMacro


def test_a_search_compiles_no_kernel_for_which_others_would_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compiled(*_: object, **__: object) -> None:
        raise AssertionError("a kernel was to be compiled")

    monkeypatch.setattr(torch.utils.cpp_extension, "load", compiled)
    monkeypatch.setattr(logei, "_C", None)
    monkeypatch.setattr(logei, "_load_attempted", False)
    strategy = HOTNAS(
        NASBenchMacro(),
        generator=torch.Generator().manual_seed(0),
        objectives=("zeros", "twos"),
        num_initial=4,
        pool_size=20,
    )
    for _ in range(2):
        nets = strategy.ask(4)
        values = [{"zeros": net.spec.count("0"), "twos": net.spec.count("2")} for net in nets]
        strategy.tell(nets, values)
    # BoTorch's own users get what they would have got.
    assert not logei._load_attempted
