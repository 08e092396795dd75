"""Does learning the distance predict unseen networks better than its defaults?

Both fit mean, output scale, lengthscale and noise; one learns lam, eps, the lengths of the
operation tree and, where they are more than a scale, eta and zeta as well.

What was found (benchmarks/results/learned.md): learning pays on NAS-Bench-201 and changes little on
TransNAS macro, where every split ends near the same eps, 0.90 from 0.8, and the same shrunken tree.
That is the priors' doing: a fit maximises the posterior density, and the modes of logit-normal and
log-normal densities are not their medians, which are the defaults. Modes at the defaults were tried
on four splits of TransNAS macro and were neither better nor worse there.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.predictions import Build, predicted
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.statistics import paired, standard_error
from benchmarks.measuring.tables import published
from hotnas_torch.comparison.tasks import TASKS, Task
from hotnas_torch.gp import HOTNNGP

__all__ = ["QUICK", "Settings", "draw", "run"]


SECONDS_TARGET = 1.0
_MODELS: Mapping[str, Build] = {
    "learned": lambda X, Y, space: HOTNNGP(X, Y, space=space),
    "fixed": lambda X, Y, space: HOTNNGP(X, Y, space=space, learn=()),
}
_MEASURES = ("nlpd", "spearman")


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

    tasks: tuple[str, ...] = ("nb201_cifar10", "transnas_class_object", "nasbench_macro")
    splits: int = 20
    train: int = 100
    test: int = 400
    data: str | None = None
    storage: str = "runs/bench/learned"


QUICK = Settings(
    tasks=("nasbench_macro",), splits=3, train=50, test=100, storage="runs/bench/learned-quick"
)


def run(settings: Settings) -> Report:
    """Measure.

    Raises:
        TableError: A file in it is missing or damaged.
    """
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
            describe=_parameters,
        )
        rows.append(_compared(TASKS[name], found))
    report.tables.append(
        Table(
            "models",
            f"{settings.test} networks predicted from {settings.train}: means over"
            f" {settings.splits} splits, standard errors, and Wilcoxon's signed-rank test of the"
            " pairs",
            (
                Column("task", "task"),
                Column("nlpd_learned", "-log p, learned", number(4)),
                Column("nlpd_learned_error", "+-", number(2)),
                Column("nlpd_fixed", "fixed", number(4)),
                Column("nlpd_fixed_error", "+-", number(2)),
                Column("nlpd_gain", "lower by", number(3)),
                Column("nlpd_gain_error", "+-", number(2)),
                Column("nlpd_p", "p", number(2)),
                Column("spearman_learned", "rank, learned", number(4)),
                Column("spearman_learned_error", "+-", number(2)),
                Column("spearman_fixed", "fixed", number(4)),
                Column("spearman_fixed_error", "+-", number(2)),
                Column("spearman_gain", "higher by", number(3)),
                Column("spearman_gain_error", "+-", number(2)),
                Column("spearman_p", "p", number(2)),
                Column("seconds_learned", "s/fit, learned", number(2)),
                Column("seconds_fixed", "fixed", number(2)),
            ),
            rows,
        )
    )
    for row in rows:
        where = row["task"]
        report.claims += [
            Claim(
                f"{where}: negative log predictive density that learning saves",
                ">=",
                0.0,
                row["nlpd_gain"],
            ),
            Claim(f"{where}: rank correlation that learning adds", ">=", 0.0, row["spearman_gain"]),
            Claim(
                f"{where}: median processor seconds of a fit that learns",
                "<=",
                SECONDS_TARGET,
                row["seconds_learned"],
            ),
        ]
    report.notes.append(
        "Targets are logarithms of the published errors, standardised by the training networks."
        " '-log p': mean negative log predictive density of a network's target, noise included;"
        " that of a normal distribution around the training mean is about 1.42. 'rank': Spearman's"
        " correlation between predicted means and targets. Seconds are processor seconds of making"
        " and fitting the model, one thread, the median over splits."
    )
    return report


def _parameters(model: HOTNNGP) -> dict[str, Any]:
    kernel = model.architecture_kernels[0]
    found = {name: getattr(kernel, name).item() for name in ("lam", "eps", "eta", "zeta")}
    return {"parameters": found | {"tree": kernel.tree_lengths.tolist()}}


def _compared(task: Task, records: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means, standard errors and paired tests of one task."""
    row: dict[str, Any] = {"task": task.title, "splits": len(records["learned"])}
    for measure in (*_MEASURES, "seconds"):
        values = {model: [record[measure] for record in found] for model, found in records.items()}
        for model, found in values.items():
            if measure == "seconds":
                row[f"seconds_{model}"] = statistics.median(found)
            else:
                row[f"{measure}_{model}"] = statistics.fmean(found)
                row[f"{measure}_{model}_error"] = standard_error(found)
        if measure == "seconds":
            continue
        sign = -1.0 if measure == "nlpd" else 1.0
        pairs = zip(values["learned"], values["fixed"], strict=True)
        better = [sign * (learned - fixed) for learned, fixed in pairs]
        row[f"{measure}_gains"] = better
        row[f"{measure}_gain"] = statistics.fmean(better)
        row[f"{measure}_gain_error"] = standard_error(better)
        row[f"{measure}_p"] = paired(values["learned"], values["fixed"])
    return row


def draw(report: Report) -> Figure:
    """Draw what learning gains on every split, and the mean."""
    figure, panels = canvas(2)
    rows = report.rows("models")
    titles = ("-log p saved by learning", "rank correlation added by learning")
    for axes, measure, title in zip(panels, _MEASURES, titles, strict=True):
        for place, row in enumerate(rows):
            gains = row[f"{measure}_gains"]
            spread = [place + 0.3 * (k / max(1, len(gains) - 1) - 0.5) for k in range(len(gains))]
            axes.plot(spread, gains, "o", color=COLOURS[place], markersize=4, alpha=0.5)
            axes.errorbar(
                place + 0.3,
                row[f"{measure}_gain"],
                yerr=row[f"{measure}_gain_error"],
                fmt="s",
                color=INK,
                capsize=4,
            )
        axes.axhline(0.0, color=INK, linewidth=1.2, linestyle="--")
        axes.set_xticks(range(len(rows)), [row["task"] for row in rows])
        axes.set_title(f"{title}: splits, mean, standard error")
    return figure
