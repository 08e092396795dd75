import itertools
import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from benchmarks import (
    ablation,
    against,
    anasod,
    backward,
    barycenters,
    baselines,
    beside_pot,
    capacity_costs,
    capacity_landmarks,
    checkouts,
    cluster_overhead,
    cluster_recovery,
    cluster_search,
    coarse,
    digits,
    dnas,
    entropic,
    exactness,
    fidelity,
    generators,
    gpu_check,
    gpu_model,
    gpu_occupancy,
    gpu_queue,
    gram,
    grammar,
    hierarchy,
    imagenet_scale,
    importing,
    joint,
    learned,
    metric_quality,
    multi_objective,
    nago_data,
    nago_noise,
    nago_search,
    nago_surrogate,
    neighbors,
    nested,
    outliers,
    partial,
    peers,
    predictors,
    quality,
    relaxed,
    scaling,
    segments,
    small_cells,
    speed,
    spread,
    step,
    supernet,
    templates,
    threads,
    zoo,
)
from benchmarks.measuring import command
from benchmarks.measuring.benchmark import benchmarks
from benchmarks.measuring.problems import dag_cells
from benchmarks.measuring.report import Report, Unavailable
from hotnas_torch.spaces import DARTS

ROOT = Path(__file__).parents[3]

TINY = {
    "against": against.Settings(
        sizes=(4,),
        graph_sizes=(3,),
        masses=("uniform",),
        costs=("tied",),
        problems=1,
        entries=32,
        rounds=1,
        seconds=0.0,
        compiled=0,
    ),
    "capacity_landmarks": capacity_landmarks.Settings(networks=20, nums=(4,), repeats=1),
    "checkouts": checkouts.Settings(
        against=str(ROOT), rounds=2, seconds=0.0, only="transport, n = 8"
    ),
    "gpu_model": gpu_model.Settings(),
    "gpu_queue": gpu_queue.Settings(spaces=("nasbench201",), sides=(10,)),
    "segments": segments.Settings(graphs=(5,), rounds=1, seconds=0.0),
    "small_cells": small_cells.Settings(sizes=((7, 8),), pairs=4, rounds=1, seconds=0.0),
    "speed": speed.Settings(
        sizes=((5, 2, 3),), pair_sets=("directed",), square_loss=True, rounds=1, seconds=0.0
    ),
    "partial": partial.Settings(sizes=((4, 3),), rounds=1, seconds=0.0),
    "beside_pot": beside_pot.Settings(problems=3, dear=2, most=4, most_unbalanced=4),
    "barycenters": barycenters.Settings(graphs=3, nodes=4, groups=1, rounds=1),
    "templates": templates.Settings(
        graphs=8, nodes=(5, 6), templates=2, template_nodes=3, epochs=1, batch=4, seeds=1
    ),
    "threads": threads.Settings(sizes=(5,), rounds=1, seconds=0.0, pot_problems=2),
    "scaling": scaling.Settings(sizes=(8, 10), problems=4, peer_entries=8, rounds=1, seconds=0.0),
    "quality": quality.Settings(pairs=10, random_starts=3, most_starts=4),
    "exactness": exactness.Settings(transports=3, graphs=5),
    "gram": gram.Settings(matrices=(("nasbench201", 10),), darts_networks=2),
    "neighbors": neighbors.Settings(spaces=("nasbench201",), networks=8, added=3, whole=False),
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
    "predictors": predictors.Settings(
        tasks=("nasbench_macro",),
        models=("HOTNN averaged", "GRAF", "GRAF, forest"),
        splits=2,
        train=12,
        test=6,
    ),
    "ablation": ablation.Settings(
        tasks=("nasbench_macro",),
        splits=2,
        train=8,
        test=6,
        searched=("nasbench_macro",),
        seeds=1,
        evaluations=11,
    ),
    "baselines": baselines.Settings(
        tasks=("nasbench_macro",), methods=("evolution", "NAS-BOWL"), seeds=1, evaluations=12
    ),
    "nago_noise": nago_noise.Settings(models=("BNN()",), observations=20, seeds=1, burn_in=20),
    "grammar": grammar.Settings(networks=6, epochs=1, train=(3,), test=3, seeds=1),
    "hierarchy": hierarchy.Settings(tasks=("pooling",), budgets=(8,), seeds=1, printed_seeds=1),
    "imagenet_scale": imagenet_scale.Settings(
        networks=20, steps=5, seeds=1, rejected=50, image_size=32, budget=6.0
    ),
    "fidelity": fidelity.Settings(seeds=1, trainings=2, pool_size=20),
    "multi_objective": multi_objective.Settings(seeds=1, evaluations=11, pool_size=20),
    "outliers": outliers.Settings(seeds=1, evaluations=12, pool_size=20),
    "joint": joint.Settings(seeds=1, share=0.05, draws=100, most=16, most_without=40),
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


ELSEWHERE = {
    "anasod": anasod,
    "capacity_costs": capacity_costs,
    "cluster_overhead": cluster_overhead,
    "cluster_recovery": cluster_recovery,
    "cluster_search": cluster_search,
    "gpu_check": gpu_check,
    "gpu_occupancy": gpu_occupancy,
    "importing": importing,
    "nago_data": nago_data,
    "nago_search": nago_search,
    "nago_surrogate": nago_surrogate,
    "peers": peers,
    "zoo": zoo,
}
"""What takes long or needs what is not here; each has tests of its own parts."""


def test_every_module_of_the_folder_is_a_benchmark_of_one_shape() -> None:
    assert set(command.BENCHMARKS) == {*TINY, *ELSEWHERE}
    for benchmark in command.BENCHMARKS.values():
        module = benchmark.module
        assert benchmark.question.endswith("?"), benchmark
        assert isinstance(module.QUICK, module.Settings)
        assert module.Settings() == module.Settings()  # whose fields all have defaults
        assert callable(module.run)
        assert benchmark.on_request == getattr(module, "ON_REQUEST", "")
        documented = re.findall(r"^        (\w+): ", module.Settings.__doc__, re.MULTILINE)
        assert documented == [field.name for field in fields(module.Settings)], benchmark
        for field, choices in benchmark.choices.items():
            given = getattr(module.Settings(), field) or ()
            given = (given,) if isinstance(given, str) else given
            assert set(given) <= set(choices)


def test_every_benchmark_and_option_that_the_documentation_names_exists() -> None:
    pages = [ROOT / "Makefile", *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    pages += ROOT.glob("benchmarks/**/*.md")
    seen = set()
    for page in pages:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for said in re.findall(r"python -m benchmarks((?:\s+(?:[\w./$()-]+|\.\.\.))*)", text):
            words = said.split()
            names = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
            for name in names if words else ():
                # The rest of a sentence that goes on without a mark.
                if name in command.BENCHMARKS:
                    seen.add(name)
            one = command.BENCHMARKS.get(names[0]) if names else None
            assert one or not names or names[0].isupper(), (page, said)
            options = {"--help", "--quick", "--check", "--output"}
            if one is not None:
                settings = fields(one.module.Settings)
                options |= {f"--{field.name.replace('_', '-')}" for field in settings}
            given = {word for word in words if word.startswith("--")}
            assert given <= options, (page, said)
    assert {"speed", "peers", "gpu_check", "cluster_search"} <= seen


def test_a_module_is_found_by_being_there_and_not_imported(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text('"""Is it there?\n\nMore."""\nON_REQUEST = "slow"\nraise 1\n')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__init__.py").write_text('"""And this?"""\n')
    (tmp_path / "results").mkdir()
    found = benchmarks(tmp_path)
    assert [(one.name, one.question, one.on_request) for one in found.values()] == [
        ("folder", "And this?", ""),
        ("new", "Is it there?", "slow"),
    ]


# A quarter of a minute each and more, though they measure next to nothing.
LONG = (
    "backward", "checkouts", "digits", "dnas", "entropic", "fidelity", "generators", "grammar",
    "imagenet_scale", "multi_objective", "supernet", "threads",
)  # fmt: skip


@pytest.mark.ext
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in TINY],
)
def test_each_benchmark_measures_draws_and_writes(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if name == "templates":
        pytest.importorskip("torch_geometric", reason="POT's layer needs torch_geometric")
    if name == "segments":
        pytest.importorskip("torch_scatter", reason="torch_scatter is not installed")
    module = command.BENCHMARKS[name].module
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
    assert document["revision"]
    if hasattr(module, "draw"):
        assert (tmp_path / "new" / f"{name}.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert f"## {name}: " in printed
    assert (tmp_path / "new" / f"{name}.md").read_text() in printed
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
        (["sped"], "no benchmark 'sped'; there are ablation, "),
        (["speed", "quality", "--seed", "1"], "unrecognized arguments: --seed 1"),
        (["learned", "--tasks", "cifar"], "argument --tasks: invalid choice: 'cifar'"),
        (["learned", "--splits", "many"], "argument --splits: invalid int value: 'many'"),
        (["--output", "{file}/x"], "cannot make"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
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


@pytest.mark.ext
def test_settings_are_options_of_their_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def run(settings: object) -> None:
        seen.append(settings)
        raise Unavailable("enough")

    for module in (quality, entropic, speed, hierarchy):
        monkeypatch.setattr(module, "run", run)
    where = ["--output", str(tmp_path)]
    assert command.main(["quality", "--pairs", "7", "--quick", *where]) == 2
    assert command.main(["entropic", "--epsilons", "0.2", "0.3", "--tol", "1e-3", *where]) == 2
    assert command.main(["speed", "--sizes", "((5, 2, 3),)", "--no-square-loss", *where]) == 2
    assert command.main(["hierarchy", "--trees", "--data", "/x", *where]) == 2
    assert seen == [
        replace(quality.QUICK, pairs=7),
        entropic.Settings(epsilons=(0.2, 0.3), tol=1e-3),
        speed.Settings(sizes=((5, 2, 3),), square_loss=False),
        hierarchy.Settings(trees=True, data="/x"),
    ]


def test_help_of_one_has_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["learned", "--help"])
    printed = capsys.readouterr().out
    assert "--splits SPLITS" in printed
    assert "train: Networks that the models are fitted to" in printed


@pytest.mark.ext
def test_without_tables_the_command_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    for name in ("learned", "relaxed", "coarse", "spread", "hierarchy", "metric_quality"):
        assert command.main([name, "--data", str(nowhere), "--output", str(tmp_path)]) == 2
        message = f"{name}: nothing is measured: {nowhere} is no folder (set HOTNAS_DATA"
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_exponent_of_a_power_law_is_found() -> None:
    sizes = [8, 11, 20, 32]
    assert scaling.growth(sizes, [0.3 * n**2.5 for n in sizes]) == pytest.approx(2.5)


def test_a_renumbered_cell_is_the_same_cell(rng: torch.Generator) -> None:
    cells = dag_cells(DARTS().tree, 9, 10, rng)
    moved = [quality.renumbered(cell, rng) for cell in cells]
    assert [cell.key for cell in moved] == [cell.key for cell in cells]
    assert moved != cells


def test_a_report_says_nothing_of_where_things_lie_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from benchmarks import peers

    monkeypatch.setattr(peers, "run", lambda _: Report())
    given = replace(peers.QUICK, only="test_ot", botorch=str(tmp_path / "botorch"))
    kept = command.BENCHMARKS["peers"].measure(given).settings
    assert kept["only"] == "test_ot"
    assert str(tmp_path) not in json.dumps(kept)
