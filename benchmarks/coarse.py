"""Does the operation distribution as a coarse level add to HOTNN?"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from botorch.models import SingleTaskGP
from gpytorch.kernels import ScaleKernel
from gpytorch.priors import LogNormalPrior
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.predictions import Build, predicted
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.statistics import paired, standard_error
from benchmarks.measuring.tables import published
from hotnas_torch.comparison.tasks import TASKS, Task
from hotnas_torch.gp import HOTNNGP, distribution_kernel
from hotnas_torch.spaces import SearchSpace

__all__ = ["QUICK", "Settings", "draw", "run"]


CHOICES = {"tasks": tuple(TASKS)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        tasks: Columns of published tables, by their names in `hotnas_torch.comparison`.
        splits: Draws of networks of each space.
        train: Networks that the models are fitted to, per split.
        test: Networks that are predicted, per split.
        data: Folder of the tables, see `published`.
        storage: Where finished measurements are kept, a line each; the same command goes on there.
    """

    tasks: tuple[str, ...] = ("nb201_cifar100", "nasbench_macro")
    splits: int = 10
    train: int = 60
    test: int = 300
    data: str | None = None
    storage: str = "runs/bench/coarse"


QUICK = Settings(
    tasks=("nasbench_macro",), splits=2, train=30, test=60, storage="runs/bench/coarse-quick"
)


def _distribution(X: Tensor, Y: Tensor, space: SearchSpace) -> SingleTaskGP:
    kernel = ScaleKernel(
        distribution_kernel(space), outputscale_prior=LogNormalPrior(0.0, 1.0)
    ).double()
    return HOTNNGP(X, Y, space=space, covar_module=kernel)


_MODELS: Mapping[str, Build] = {
    "distribution": _distribution,
    "hotnn": lambda X, Y, space: HOTNNGP(X, Y, space=space, learn=()),
    "product": lambda X, Y, space: HOTNNGP(X, Y, space=space, learn=(), distribution="product"),
    "additive": lambda X, Y, space: HOTNNGP(X, Y, space=space, learn=(), distribution="additive"),
}
_TITLES = {
    "distribution": "distribution alone",
    "hotnn": "HOTNN alone",
    "product": "product",
    "additive": "sum",
}


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    report = Report()
    rows: list[dict[str, Any]] = []
    data = published(settings.data)
    for name in settings.tasks:
        found = predicted(
            TASKS[name],
            _MODELS,
            splits=settings.splits,
            train=settings.train,
            test=settings.test,
            data=data,
            storage=Path(settings.storage),
        )
        rows += _compared(TASKS[name], found)
    report.tables.append(
        Table(
            "models",
            f"{settings.test} networks predicted from {settings.train}: means over"
            f" {settings.splits} splits, standard errors, and Wilcoxon's signed-rank test against"
            " HOTNN alone",
            (
                Column("task", "task"),
                Column("model", "kernel"),
                Column("nlpd", "-log p", number(3)),
                Column("nlpd_error", "+-", number(2)),
                Column("nlpd_p", "p", number(2)),
                Column("spearman", "rank correlation", number(3)),
                Column("spearman_error", "+-", number(2)),
                Column("spearman_p", "p", number(2)),
            ),
            rows,
        )
    )
    for task in {row["task"]: None for row in rows}:
        own = {row["model"]: row for row in rows if row["task"] == task}
        alone = max(own[_TITLES[name]]["spearman"] for name in ("distribution", "hotnn"))
        report.claims.append(
            Claim(
                f"{task}: rank correlation of the product over the better kernel alone",
                ">=",
                0.0,
                own["product"]["spearman"] - alone,
            )
        )
    report.notes.append(
        "Targets are logarithms of the published errors. HOTNN's trade-offs are the defaults, not"
        " learned; lengthscales, output scales and noise are fitted."
    )
    return report


def _compared(task: Task, by_model: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows = []
    for name, found in by_model.items():
        row: dict[str, Any] = {"task": task.title, "model": _TITLES[name]}
        for measure in ("nlpd", "spearman"):
            numbers = [one[measure] for one in found]
            reference = [one[measure] for one in by_model["hotnn"]]
            row[measure] = statistics.fmean(numbers)
            row[f"{measure}_error"] = standard_error(numbers)
            row[f"{measure}_p"] = paired(numbers, reference)
        rows.append(row)
    return rows


def draw(report: Report) -> Figure:
    """Draw the rank correlation of each kernel, with standard errors."""
    rows = report.rows("models")
    tasks = list({row["task"]: None for row in rows})
    figure, panels = canvas(max(len(tasks), 1), width=4.2, height=3.2)
    for axes, task in zip(panels, tasks, strict=False):
        own = [row for row in rows if row["task"] == task]
        for place, (row, colour) in enumerate(zip(own, COLOURS, strict=False)):
            axes.errorbar(
                [place],
                [row["spearman"]],
                yerr=[row["spearman_error"] or 0.0],
                fmt="o",
                color=colour,
                capsize=4,
            )
        axes.set_xticks(range(len(own)), [row["model"] for row in own], rotation=20)
        axes.set_xlim(-0.5, len(own) - 0.5)
        axes.set_title(task)
        axes.set_ylabel("rank correlation", color=INK)
    return figure
