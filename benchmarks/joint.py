"""Does HOTNAS find a network and its hyperparameters together sooner than random search?"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import wilcoxon

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.records import recorded
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.statistics import standard_error
from benchmarks.measuring.tables import published
from hotnas_torch.objectives import NASBench201Table
from hotnas_torch.search import HOTNAS, NASBOWL, RandomSearch, RegularizedEvolution, Strategy
from hotnas_torch.spaces import ConfiguredNetwork, Joint, Log

__all__ = ["QUICK", "Settings", "Task", "draw", "run"]

_CHANCE = 90.0
_CURVATURE = 4.0
# Points that are asked for at once.
_BATCH = 4
_BATCHES = (32, 64, 128, 256)

_METHODS: Mapping[str, Callable[[Joint, torch.Generator], Strategy]] = {
    "HOTNAS": lambda space, generator: HOTNAS(space, generator=generator, pool_size=200),
    "NAS-BOWL": lambda space, generator: NASBOWL(space, generator=generator),
    "evolution": lambda space, generator: RegularizedEvolution(
        space, generator=generator, population=20, tournament=5
    ),
    "random search": lambda space, generator: RandomSearch(space, generator=generator),
}
_MODELS = ("HOTNAS", "NAS-BOWL")


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        seeds: Searches of each method.
        share: A search has found what it looks for when its best value is among this share of the
            best of random points.
        draws: Random points that decide on that value.
        most: Evaluations after which a search with a model ends without it.
        most_without: The same for the others.
        data: Folder of the published tables; None takes `$HOTNAS_DATA`, else `shared/data` beside
            the checkout.
        storage: Where finished searches are kept; the same command goes on from there.
    """

    seeds: int = 20
    share: float = 2e-3
    draws: int = 20_000
    most: int = 100
    most_without: int = 5_000
    data: str | None = None
    storage: str = "runs/bench/joint"


QUICK = Settings(seeds=2, most=30, draws=5_000, storage="runs/bench/joint-quick")

_COLUMNS = (
    Column("method", "method"),
    Column("found", "searches that found it"),
    Column("mean", "evaluations, mean", number(3)),
    Column("error", "standard error", number(2)),
    Column("median", "median", number(3)),
    Column("share", "mean over that of random search", number(2)),
    Column("p", "p against HOTNAS", number(2)),
)


class Task:
    r"""CIFAR-10 errors of NAS-Bench-201, and what a wrong learning rate would add to them.

    The errors are measured; the response to hyperparameters is made up, after what practice
    says. It adds :math:`4 (\log_{10} lr - best)^2` % to the error, up to the 90 % of chance, with

    - best = -1 - log10(parameters / 0.3 M): small networks bear large steps;
    - with Adam 1.5 less, and 0.5 % more error;
    - log10(batch / 128) more, as steps scale with the batch, and 0.2 % more error per doubling.

    Args:
        data: Folder of the published tables.

    Attributes:
        space: NAS-Bench-201 beside `lr`, `batch` and `optimizer`.
        best: The smallest value.
    """

    def __init__(self, data: Path) -> None:
        table = NASBench201Table(data / "nas-bench-201" / "nb201.csv.gz", "cifar10_test")
        self.space = Joint(
            table.space,
            {"lr": Log(1e-4, 1.0), "batch": list(_BATCHES), "optimizer": ["sgd", "adam"]},
        )
        self._table = table
        self.best = table.best_value

    def __call__(self, point: ConfiguredNetwork) -> float:
        """Return the error of a pair, %."""
        network, values = point
        evaluation = self._table(network)
        doublings = math.log2(values["batch"] / _BATCHES[0])
        best = -1.0 - math.log10(evaluation.metrics["params_M_cifar10"] / 0.3)
        best += math.log10(values["batch"] / 128) - 1.5 * (values["optimizer"] == "adam")
        error = evaluation.value + 0.2 * doublings + 0.5 * (values["optimizer"] == "adam")
        return min(error + _CURVATURE * (math.log10(values["lr"]) - best) ** 2, _CHANCE)


def run(settings: Settings) -> Report:
    """Search until it is found."""
    torch.set_num_threads(1)
    report = Report()
    task = Task(published(settings.data))
    generator = torch.Generator().manual_seed(2**20)
    values = sorted(task(one) for one in task.space.sample(settings.draws, generator=generator))
    target = values[max(0, round(settings.share * settings.draws) - 1)]
    keys = [{"method": name, "seed": seed} for seed in range(settings.seeds) for name in _METHODS]
    found = recorded(
        Path(settings.storage) / "searches.jsonl",
        {"target": target, "most": settings.most, "most_without": settings.most_without},
        keys,
        lambda key: {"best": _search(task, target, key, settings)},
        title="joint",
    )
    needed = {
        name: np.array([len(line["best"]) for line in found if line["method"] == name], float)
        for name in _METHODS
    }
    ends = {
        name: [line["best"][-1] for line in found if line["method"] == name] for name in _METHODS
    }
    rows: list[dict[str, Any]] = []
    for name, counts in needed.items():
        hits = sum(value <= target for value in ends[name])
        row = {
            "method": name,
            "found": f"{hits} of {settings.seeds}",
            "mean": float(counts.mean()),
            "error": standard_error(counts),
            "median": float(np.median(counts)),
            "share": float(counts.mean() / needed["random search"].mean()),
            "p": _p(needed["HOTNAS"], counts) if name != "HOTNAS" else None,
            "evaluations": counts.tolist(),
            "best": [line["best"] for line in found if line["method"] == name]
            if name in _MODELS
            else None,
        }
        rows.append(row)
    title = (
        f"Evaluations until a value of {target:.3f} % or less, which {settings.share:.2%} of random"
        f" points have; {settings.seeds} seeds"
    )
    report.tables.append(Table("searches", title, _COLUMNS, rows))
    report.claims.append(
        Claim(
            "evaluations of HOTNAS over those of random search",
            "<=",
            0.5,
            float(needed["HOTNAS"].mean() / needed["random search"].mean()),
        )
    )
    report.notes.append(
        "Errors of networks are those of NAS-Bench-201 on CIFAR-10 (200 epochs). What learning"
        " rate, batch and optimizer add to them is made up: 4 (log10 lr - best)^2, where the best"
        " learning rate depends on the network's parameters, the batch and the optimizer. A search"
        f" with a model that has not found it after {settings.most} evaluations counts as"
        f" {settings.most}, another one after {settings.most_without:,}. Two-sided Wilcoxon tests"
        " of the evaluations, paired by seed."
    )
    return report


def _search(task: Task, target: float, key: Mapping[str, Any], settings: Settings) -> list[float]:
    """Return the best value so far after each evaluation, until it is found."""
    name = key["method"]
    strategy = _METHODS[name](task.space, torch.Generator().manual_seed(key["seed"]))
    best: list[float] = []
    while len(best) < (settings.most if name in _MODELS else settings.most_without):
        points = strategy.ask(_BATCH)
        values = [task(point) for point in points]  # type: ignore[arg-type]  # of the joint space
        strategy.tell(points, values)
        for value in values:
            best.append(min([value, *best[-1:]]))
            if value <= target:
                return best
    return best


def _p(first: np.ndarray, second: np.ndarray) -> float | None:
    if bool((first == second).all()):
        return None
    return float(wilcoxon(first, second).pvalue)


def draw(report: Report) -> Figure:
    """Draw which share of the searches has found it after how many evaluations."""
    figure, (axes,) = canvas(1, width=6.4)
    for row, colour in zip(report.rows("searches"), COLOURS, strict=False):
        hits = int(row["found"].split()[0])
        counts = np.sort(row["evaluations"])[:hits]
        shares = np.arange(1, hits + 1) / len(row["evaluations"])
        axes.step(counts, shares, where="post", color=colour, label=row["method"], linewidth=1.8)
    axes.set_xscale("log")
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel("evaluations", color=INK)
    axes.set_ylabel("share of the searches that found it", color=INK)
    axes.legend(frameon=False, loc="upper left")
    return figure
