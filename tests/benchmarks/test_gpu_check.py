"""What `make gpu-check` measures, on the CPU: that it runs, not how fast."""

import pytest
import torch

from benchmarks.gpu_check import SIZES, Settings, gram_seconds, problems, rates, run
from benchmarks.measuring import solvers
from benchmarks.measuring.report import Unavailable

CPU = torch.device("cpu")


@pytest.mark.ext
def test_every_solver_is_measured() -> None:
    found = rates(CPU, pairs=20, others=3)
    assert [row["n"] for row in found] == list(SIZES)
    for row in found:
        assert row["pairs_per_second"] > 0
        assert row["pot_pairs_per_second"] > 0
        assert row["predicted"] is None  # the model knows GPUs only
        assert (row["ott_pairs_per_second"] is None) or solvers.have_ott()


@pytest.mark.ext
def test_the_gram_is_measured() -> None:
    assert gram_seconds(20, CPU) > 0


def test_problems_suit_the_solver() -> None:
    directed, symmetric = problems(8, 3), problems(8, 3, "l2")
    assert (directed.loss, directed.pairs) == ("l1", "directed")
    assert (symmetric.loss, symmetric.pairs) == ("l2", "all")
    assert torch.equal(symmetric.struct_x, symmetric.struct_x.mT)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Unavailable, match="no CUDA device"):
        run(Settings())
