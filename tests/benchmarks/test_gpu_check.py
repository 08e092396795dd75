"""What `make gpu-check` measures, on the CPU: that it runs, not how fast."""

import json
import re
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check import (
    SIZES,
    Settings,
    beside_peers,
    gram_seconds,
    operator_rates,
    problems,
    rates,
    run,
)
from benchmarks.measuring import solvers
from benchmarks.measuring.report import Unavailable

CPU = torch.device("cpu")


@pytest.mark.ext
def test_every_solver_is_measured() -> None:
    found = rates(CPU, pairs=20)
    assert [row["n"] for row in found] == list(SIZES)
    for row in found:
        assert row["pairs_per_second"] > 0
        assert row["predicted"] is None  # the model knows GPUs only


@pytest.mark.ext
def test_every_operator_is_timed() -> None:
    found = operator_rates(CPU, pairs=20)
    text = (Path(__file__).parents[2] / "csrc" / "operators_list.h").read_text(encoding="utf-8")
    compiled = set(re.findall(r"^  X\(\w+, (\w+)", text, re.MULTILINE))
    assert {row["operator"] for row in found} == compiled
    assert all(row["per_second"] > 0 for row in found)


@pytest.mark.ext
def test_peers_solve_the_same_problems() -> None:
    found = beside_peers(CPU, pairs=10)
    each = 2 + solvers.have_ott()
    assert len(found) == each * len(SIZES)
    for first in range(0, len(found), each):
        ours, *theirs = found[first : first + each]
        for row in theirs:
            assert row["n"] == ours["n"]
            assert row["objective"] == pytest.approx(ours["objective"], rel=0.2)


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
    with pytest.raises(Unavailable, match="no CUDA device: "):
        run(Settings())


def test_a_sanitizer_that_is_not_there_is_said_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = []

    def passes(command: list[str], **variables: str) -> dict[str, object]:
        commands.append((command, variables))
        return {"passed": True, "output": ""}

    monkeypatch.setattr(gpu_check, "_run", passes)
    monkeypatch.setattr(gpu_check, "find_sanitizer", lambda: None)
    log = tmp_path / "log.jsonl"
    found = gpu_check.checked(log)
    assert {name: check["passed"] for name, check in found.items()} == {
        "tests": True, "memcheck": None, "racecheck": None, "synccheck": None,
    }  # fmt: skip
    assert "pip install" in found["memcheck"]["output"]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["what"] for line in lines] == list(found)

    monkeypatch.setattr(gpu_check, "find_sanitizer", lambda: "compute-sanitizer")
    assert all(check["passed"] for check in gpu_check.checked(log).values())
    (caching,) = [said for command, said in commands if "memcheck" in command]
    assert caching == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
