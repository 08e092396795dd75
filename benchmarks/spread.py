"""How much of an architecture's error does its operation distribution decide?"""

import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.tables import published
from hotnas_torch.comparison.tasks import TASKS
from hotnas_torch.spaces.encodings import encoding_of

__all__ = ["QUICK", "Settings", "draw", "run"]


_SHOWN = 100


CHOICES = {"tasks": tuple(TASKS)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        tasks: Columns of complete tables, by their names in `hotnas_torch.comparison`.
        encodings: Encodings drawn uniformly from the simplex, as in Fig. 2 of ANASOD.
        networks: Distinct networks of each that has as many; of the others all.
        seed: Of the draws.
        data: Folder of the tables, see `published`.
    """

    tasks: tuple[str, ...] = ("nb201_cifar10", "nb201_cifar100", "nasbench_macro")
    encodings: int = 200
    networks: int = 5
    seed: int = 0
    data: str | None = None


QUICK = Settings(tasks=("nasbench_macro",), encodings=40)


def run(settings: Settings) -> Report:
    """Measure."""
    report = Report()
    folder = published(settings.data)
    rows = [_measure(name, folder, settings) for name in settings.tasks]
    report.tables.append(
        Table(
            "spread",
            f"standard deviations of the error, percentage points: {settings.encodings} random"
            f" encodings with {settings.networks} networks each, and the whole table",
            (
                Column("task", "task"),
                Column("overall", "all networks drawn", number(3)),
                Column("within", "inside an encoding, median", number(3)),
                Column("within_best", "of the better half", number(3)),
                Column("ratio", "overall / inside", number(3)),
                Column("explained", "share of variance between encodings, whole table", number(3)),
                Column("encodings", "encodings", str),
            ),
            rows,
        )
    )
    for row in rows:
        report.claims.append(
            Claim(
                f"{row['task']}: overall over median spread inside an encoding",
                ">=",
                2.0,
                row["ratio"],
            )
        )
        report.claims.append(
            Claim(
                f"{row['task']}: better encodings spread less (median, all less better half)",
                ">=",
                0.0,
                row["within"] - row["within_best"],
            )
        )
    report.notes.append(
        "The share of variance is that of the mean of an encoding among all networks of the table"
        " (eta squared). NB301's rows are too few for this: nearly all have an encoding to"
        " themselves."
    )
    return report


def _measure(name: str, folder: Path, settings: Settings) -> dict[str, object]:
    table = TASKS[name].open(folder)
    nets, values = table.networks(), table.values
    encoding = encoding_of(table.space)
    _, place = torch.unique(encoding.encode(nets), dim=0, return_inverse=True)
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = encoding.snap(encoding.draw(settings.encodings, generator=generator))
    known = {encoding.key(p): i for i, p in zip(place.tolist(), encoding.encode(nets), strict=True)}
    groups = []
    for point in drawn:
        among = values[place == known[encoding.key(point)]]
        order = torch.randperm(len(among), generator=generator)[: settings.networks]
        groups.append(among[order])
    several = [group for group in groups if len(group) > 1]
    several.sort(key=lambda group: float(group.mean()))
    spreads = [float(group.std()) for group in several]
    overall = float(torch.cat(groups).std())
    within = statistics.median(spreads)
    return {
        "task": TASKS[name].title,
        "overall": overall,
        "within": within,
        "within_best": statistics.median(spreads[: len(spreads) // 2]),
        "ratio": overall / within,
        "explained": _explained(values, place),
        "encodings": int(place.max()) + 1,
        "means": [float(group.mean()) for group in several],
        "spreads": spreads,
    }


def _explained(values: Tensor, place: Tensor) -> float:
    """Variance of the groups' means, each weighing as its size, over the variance of all."""
    counts = place.bincount().double()
    means = torch.zeros_like(counts).index_add_(0, place, values) / counts
    return float((means[place] - values.mean()).square().mean() / values.var(correction=0))


def draw(report: Report) -> Figure:
    """Draw the mean and spread of the best encodings that were drawn, beside the spread of all."""
    rows = report.rows("spread")
    figure, panels = canvas(max(len(rows), 1), width=4.6, height=3.4)
    for axes, row in zip(panels, rows, strict=False):
        means, spreads = row["means"][:_SHOWN], row["spreads"][:_SHOWN]
        axes.errorbar(
            range(1, len(means) + 1),
            means,
            yerr=spreads,
            fmt=".",
            color=COLOURS[0],
            ecolor=COLOURS[5],
            elinewidth=1.0,
            markersize=3,
            label="inside an encoding",
        )
        centre = statistics.fmean(row["means"])
        for place, sign in enumerate((-1.0, 1.0)):
            axes.axhline(
                centre + sign * row["overall"],
                color=COLOURS[1],
                linewidth=1.2,
                label="all networks" if place == 0 else None,
            )
        axes.set_title(row["task"])
        axes.set_xlabel("encodings, best first", color=INK)
        axes.set_ylabel("error, %: mean ± standard deviation", color=INK)
        axes.legend(frameon=False, loc="upper left")
    return figure
