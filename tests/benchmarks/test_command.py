import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks import (
    backward,
    coarse,
    command,
    digits,
    dnas,
    entropic,
    exactness,
    generators,
    gram,
    hierarchy,
    learned,
    metric_quality,
    nested,
    outliers,
    quality,
    relaxed,
    scaling,
    speed,
    spread,
    step,
    supernet,
    threads,
)

TINY = {
    "speed": speed.Settings(
        sizes=((5, 2, 3),), pair_sets=("directed",), square_loss=True, rounds=1, seconds=0.0
    ),
    "threads": threads.Settings(sizes=(5,), rounds=1, seconds=0.0, pot_problems=2),
    "scaling": scaling.Settings(sizes=(8, 10), problems=4, peer_entries=8, rounds=1, seconds=0.0),
    "quality": quality.Settings(pairs=10, random_starts=3, most_starts=4),
    "exactness": exactness.Settings(transports=3, graphs=5),
    "gram": gram.Settings(matrices=(("nasbench201", 10),), darts_networks=2),
    "nested": nested.Settings(networks=4, starts=3, hierarchical=(3, 4), flat=(4, 8), each=2),
    "generators": generators.Settings(networks=1, splits=1, most=6),
    "step": step.Settings(observations=6, pool=8, batch=2, steps=1),
    "spread": spread.Settings(tasks=("nasbench_macro",), encodings=5),
    "coarse": coarse.Settings(tasks=("nasbench_macro",), splits=2, train=8, test=6),
    "dnas": dnas.Settings(seeds=1, epochs=1, every=1, batch=200, channels=2),
    "backward": backward.Settings(matrices=(("transnas_macro", 10), ("transnas_macro", 20))),
    "learned": learned.Settings(tasks=("nasbench_macro",), splits=2, train=8, test=6),
    "relaxed": relaxed.Settings(
        tasks=("nb201_cifar10",), acquisitions=("UCB",), seeds=2, observations=5
    ),
    "metric_quality": metric_quality.Settings(
        tasks=("nasbench_macro",), distances=("hotnn", "path"), splits=1, train=8, test=6
    ),
    "hierarchy": hierarchy.Settings(tasks=("pooling",), budgets=(8,), seeds=1, printed_seeds=1),
    "outliers": outliers.Settings(seeds=1, evaluations=12, pool_size=20),
    "digits": digits.Settings(seeds=1, evaluations=2, batch=2, workers=1),
    "entropic": entropic.Settings(sizes=((4, 2),), batch=4, epsilons=(0.2,), rounds=1, seconds=0.0),
    "supernet": supernet.Settings(
        seeds=1,
        printed_seeds=1,
        truth_seeds=1,
        epochs=1,
        truth_epochs=1,
        pretraining=(0, 1),
        batch=64,
        train=64,
        validation=64,
        width=0.0625,
    ),
}


@pytest.mark.ext
@pytest.mark.parametrize("name", command.BENCHMARKS)
def test_each_benchmark_measures_draws_and_writes(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    module: ModuleType = command.BENCHMARKS[name]
    settings = TINY[name]
    if hasattr(settings, "data"):
        settings = replace(settings, data=str(request.getfixturevalue("data_dir")))
    if hasattr(settings, "storage"):
        settings = replace(settings, storage=str(tmp_path / "storage"))
    monkeypatch.setattr(module, "QUICK", settings)
    before = torch.get_num_threads()
    assert command.main([name, "--quick", "--output", str(tmp_path / "new")]) == 0
    assert torch.get_num_threads() == before
    document = json.loads((tmp_path / "new" / f"{name}.json").read_text())
    assert all(rows for rows in document["tables"].values())
    assert all(set(claim) >= {"target", "measured", "met"} for claim in document["claims"])
    assert (tmp_path / "new" / f"{name}.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert f"## {name}: " in printed
    assert "claims met" in printed


@pytest.mark.ext
def test_check_fails_where_a_claim_is_not_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exactness, "QUICK", TINY["exactness"])
    monkeypatch.setattr(exactness, "OBJECTIVE_TARGET", -1.0)
    arguments = ["exactness", "--quick", "--output", str(tmp_path)]
    assert command.main(arguments) == 0
    assert command.main([*arguments, "--check"]) == 1
    assert "not met: transport: objective off scipy's linprog" in capsys.readouterr().out


def test_help_names_every_benchmark_and_shows_examples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "examples:" in printed
    assert all(f"  {name} " in printed for name in command.BENCHMARKS)


@pytest.mark.ext
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sped"], "no benchmark 'sped'; there are speed, threads"),
        (["--output", "{file}/x"], "cannot make"),
    ],
)
def test_bad_arguments_are_told_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit) as stop:
        command.main([part.format(file=file) for part in arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_exponent_of_a_power_law_is_found() -> None:
    sizes = [8, 11, 20, 32]
    assert scaling.growth(sizes, [0.3 * n**2.5 for n in sizes]) == pytest.approx(2.5)


def test_a_renumbered_cell_is_the_same_cell(rng: torch.Generator) -> None:
    from benchmarks.problems import dag_cells
    from hotnas_torch.spaces import DARTS

    cells = dag_cells(DARTS().tree, 9, 10, rng)
    moved = [quality.renumbered(cell, rng) for cell in cells]
    assert [cell.key for cell in moved] == [cell.key for cell in cells]
    assert moved != cells
