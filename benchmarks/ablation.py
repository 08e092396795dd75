"""What does each part of HOTNN contribute to predictions, and to searches?"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from matplotlib.figure import Figure

import hotnas_torch as ht
from benchmarks import metric_quality
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.records import recorded
from benchmarks.measuring.report import Column, Report, Table, number
from benchmarks.measuring.statistics import paired, standard_error
from benchmarks.measuring.tables import published
from benchmarks.metric_quality import Distance
from hotnas_torch.comparison.code import code_version
from hotnas_torch.comparison.tasks import TASKS
from hotnas_torch.search import HOTNAS
from hotnas_torch.spaces import SearchSpace

__all__ = ["QUICK", "VARIANTS", "Settings", "draw", "run"]

_WHOLE = "as it is"
_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
_WORDS = {
    ("lam", 0.0): "pairs of nodes alone",
    ("lam", 1.0): "nodes alone",
    ("eps", 0.0): "locations alone",
    ("eps", 1.0): "operations alone",
    ("eta", 0.0): "no position of cells",
    ("eta", 1.0): "positions of cells alone",
}

VARIANTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {_WHOLE: {}}
    | {f"{name} = {value:g}": {name: value} for name in ("lam", "eps", "eta") for value in _GRID}
)
"""Settings of HOTNN by the name that records and tables use: one differs from the space's own."""

_SEARCHED = (_WHOLE, *(f"{name} = {value:g}" for name, value in _WORDS))

CHOICES = {"tasks": tuple(TASKS), "searched": tuple(TASKS)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        tasks: Columns of published tables that are predicted, by names in `comparison.TASKS`.
        splits: Draws of networks of each space.
        train: Networks that predictions are made from, per split.
        test: Networks that are predicted, per split.
        searched: Columns that are searched.
        seeds: Searches of each variant on each.
        evaluations: Of a search; the first ten are random networks, then four at a time.
        data: Folder of the published tables; None takes `$HOTNAS_DATA`, else `shared/data` beside
            the checkout.
        storage: Where finished measurements are kept; the same command goes on from there.
    """

    tasks: tuple[str, ...] = (
        "nb201_cifar10",
        "nb201_cifar100",
        "nasbench101",
        "transnas_class_object",
        "transnas_class_scene",
        "transnas_micro_class_object",
        "nasbench301",
    )
    splits: int = 5
    train: int = 100
    test: int = 100
    searched: tuple[str, ...] = ("nb201_cifar10", "nasbench101", "transnas_class_object")
    seeds: int = 10
    evaluations: int = 50
    data: str | None = None
    storage: str = "runs/bench/ablation"


QUICK = Settings(
    tasks=("nb201_cifar10",),
    splits=1,
    train=30,
    test=30,
    searched=("nb201_cifar10",),
    seeds=1,
    evaluations=14,
    storage="runs/bench/ablation-quick",
)


def run(settings: Settings) -> Report:
    """Measure.

    Raises:
        TableError: A file of a table is missing or damaged.
    """
    torch.set_num_threads(1)
    report = Report()
    report.tables.append(_predictions(settings))
    report.tables.append(_searches(settings))
    report.notes.append(
        "One setting of HOTNN differs from the space's own: lam weighs nodes against pairs of nodes"
        ", eps operations against locations, eta positions of cells against their insides. 'GP':"
        " exp(-distance / lengthscale), lengthscale, scale and noise by marginal likelihood, as in"
        " `metric_quality`, where the measures are explained; '+-': standard error over splits and"
        " tasks of the difference to HOTNN as it is; 'p': two-sided Wilcoxon test over them."
        " Searches are HOTNAS with these settings held (`learn=()`), pool of 200; regret is what"
        " the best network found lacks to the best of the table. Nothing was chosen by these."
    )
    return report


# --- predictions ----------------------------------------------------------------------------------


def _built(options: Mapping[str, float]) -> Distance:
    def build(space: SearchSpace, nets: Any, targets: Any) -> ht.HOTNN:
        del nets, targets
        return ht.HOTNN(space=space, **options)  # type: ignore[arg-type]

    return Distance("HOTNN", build)


def _predictions(settings: Settings) -> Table:
    found = metric_quality.measured(
        metric_quality.Settings(
            tasks=settings.tasks,
            distances=tuple(VARIANTS),
            splits=settings.splits,
            train=settings.train,
            test=settings.test,
            data=settings.data,
            storage=f"{settings.storage}/predictions",
        ),
        {name: _built(options) for name, options in VARIANTS.items()},
    )
    scores: dict[str, dict[str, list[float]]] = {}
    for variant in VARIANTS:
        of_variant = scores.setdefault(variant, {"nlpd": [], "rank": [], "correlation": []})
        for task in settings.tasks:
            for record in found[TASKS[task].path, variant]:
                for measure, values in of_variant.items():
                    values.append(record["tasks"][task][measure])
    rows: list[dict[str, Any]] = []
    for variant, of_variant in scores.items():
        more = [
            one - whole
            for one, whole in zip(of_variant["nlpd"], scores[_WHOLE]["nlpd"], strict=True)
        ]
        rows.append(
            {"variant": variant, "meaning": _meaning(variant)}
            | {measure: statistics.fmean(values) for measure, values in of_variant.items()}
            | {
                task: statistics.fmean(
                    record["tasks"][task]["nlpd"] for record in found[TASKS[task].path, variant]
                )
                for task in settings.tasks
            }
            | {
                "more": None if variant == _WHOLE else statistics.fmean(more),
                "error": None if variant == _WHOLE else standard_error(more),
                "p": paired(of_variant["nlpd"], scores[_WHOLE]["nlpd"]),
            }
        )
    return Table(
        "predictions",
        f"Predictions of {settings.test} networks from {settings.train}, means over"
        f" {len(settings.tasks)} tasks and {settings.splits} splits; at the right -log p by task",
        (
            Column("variant", "HOTNN"),
            Column("meaning", ""),
            Column("correlation", "correlation", number(2)),
            Column("rank", "GP rank", number(3)),
            Column("nlpd", "GP -log p", number(3)),
            Column("more", "more than as it is", number(2)),
            Column("error", "+-", number(1)),
            Column("p", "p", number(1)),
            *(Column(task, TASKS[task].title, number(3)) for task in settings.tasks),
        ),
        rows,
    )


def _meaning(variant: str) -> str:
    return next((_WORDS[key] for key in _WORDS if VARIANTS[variant] == dict([key])), "")


# --- searches -------------------------------------------------------------------------------------


def _searches(settings: Settings) -> Table:
    folder = published(settings.data)
    regrets: dict[str, dict[str, list[float]]] = {}
    for name in settings.searched:
        table = TASKS[name].open(folder)
        lines = recorded(
            Path(settings.storage) / "searches" / f"{name}.jsonl",
            {"evaluations": settings.evaluations, "code": code_version()},
            [
                {"variant": variant, "seed": seed}
                for seed in range(settings.seeds)
                for variant in _SEARCHED
            ],
            lambda key, table=table: {
                "regret": _regret(
                    table, VARIANTS[key["variant"]], key["seed"], settings.evaluations
                )
            },
            title=name,
        )
        for line in lines:
            regrets.setdefault(line["variant"], {}).setdefault(name, []).append(line["regret"])
    rows: list[dict[str, Any]] = []
    for variant, of_variant in regrets.items():
        row: dict[str, Any] = {"variant": variant, "meaning": _meaning(variant)}
        wins = losses = 0
        for name, values in of_variant.items():
            row[name] = statistics.fmean(values)
            row[f"{name}_error"] = standard_error(values)
            row[f"{name}_regrets"] = values
            wins += sum(map(float.__gt__, values, regrets[_WHOLE][name]))
            losses += sum(map(float.__lt__, values, regrets[_WHOLE][name]))
        row["record"] = "" if variant == _WHOLE else f"{wins} - {losses}"
        rows.append(row)
    columns = [Column("variant", "HOTNN"), Column("meaning", "")]
    for name in settings.searched:
        columns.append(Column(name, TASKS[name].title, number(3)))
        columns.append(Column(f"{name}_error", "+-", number(1)))
    columns.append(Column("record", "seeds worse - better than as it is"))
    return Table(
        "searches",
        f"Mean regret after {settings.evaluations} evaluations, {settings.seeds} seeds",
        tuple(columns),
        rows,
    )


def _regret(table: Any, options: Mapping[str, float], seed: int, evaluations: int) -> float:
    strategy = HOTNAS(
        table.space,
        generator=torch.Generator().manual_seed(seed),
        num_initial=10,
        pool_size=200,
        model_options={"learn": [], **options},
    )
    best, num = math.inf, 0
    while num < evaluations:
        nets = strategy.ask(min(4, evaluations - num) if num else 10)
        if not nets:
            break
        values = [table(net).value for net in nets]
        strategy.tell(nets, values)
        num += len(nets)
        best = min(best, *values)
    return best - float(table.best_value)


# --- picture --------------------------------------------------------------------------------------


def draw(report: Report) -> Figure:
    """Draw predictive densities along each setting."""
    figure, (axes,) = canvas(1, width=6.4)
    nlpd = {row["variant"]: row["nlpd"] for row in report.rows("predictions")}
    for name, colour in zip(("lam", "eps", "eta"), COLOURS, strict=False):
        axes.plot(
            _GRID,
            [nlpd[f"{name} = {value:g}"] for value in _GRID],
            color=colour,
            marker="o",
            linewidth=1.8,
            label={
                "lam": "nodes against pairs, lam",
                "eps": "operations against locations, eps",
                "eta": "positions of cells against insides, eta",
            }[name],
        )
    axes.axhline(nlpd[_WHOLE], color=INK, linewidth=0.8, linestyle="--")
    axes.text(1.0, nlpd[_WHOLE], "as it is", color=INK, ha="right", va="bottom", fontsize=8)
    axes.set_xlabel("value of the setting", color=INK)
    axes.set_ylabel("GP, mean -log p of a network", color=INK)
    axes.legend(frameon=False)
    return figure
