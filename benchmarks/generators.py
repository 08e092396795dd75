"""Do a generator's networks predict its error better than its hyperparameters do?"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.predictions import fit
from benchmarks.measuring.report import Column, Report, Row, Table, number
from benchmarks.measuring.statistics import surprise
from benchmarks.nago_data import CASES, Evaluations, read_evaluations
from hotnas_torch.nago import GeneratorGP, GeneratorSamples

__all__ = ["QUICK", "Settings", "draw", "run"]


MODELS: Mapping[str, dict[str, Any]] = {
    "Theta (Matern)": {"by": "theta"},
    "networks (transport of HOTNN)": {"by": "networks"},
    "product": {"by": "product"},
    "sum": {"by": "additive"},
}


CHOICES = {"case": tuple(CASES)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        case: Which generator, a name in `benchmarks.nago_data.CASES`.
        networks: Networks that stand for a generator.
        splits: Random splits of the hyperparameters into a third to learn from and the rest.
        most: At most so many hyperparameters.
        seed: Of the splits and of the networks.
    """

    case: str = "hnag"
    networks: int = 3
    splits: int = 10
    most: int = 1000
    seed: int = 0


QUICK = Settings(networks=1, splits=2, most=12)

_COLUMNS = (
    Column("model", "model"),
    Column("nll", "NLL", number()),
    Column("rmse", "RMSE", number()),
    Column("nll_better", "NLL better than Theta", number()),
    Column("rmse_better", "RMSE better than Theta", number()),
)


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    case = CASES[settings.case]
    data = read_evaluations(settings.case)
    kept = data.theta < settings.most
    samples = GeneratorSamples(
        case.generator, case.space, size=settings.networks, seed=settings.seed
    )
    started = time.process_time()
    numbers = torch.unique(samples(data.X[kept]))
    samples.distances(numbers, numbers)
    seconds = time.process_time() - started
    report = Report()
    for name, values in (("error", data.error), ("memory", data.memory)):
        rows = _compare(settings, samples, data, kept, values.log())
        report.tables.append(
            Table(
                name,
                f"log {name}, medians over {settings.splits} splits of"
                f" {len(data.theta[kept].unique())} {settings.case.upper()} generators,"
                f" {int(kept.sum())} evaluations",
                _COLUMNS,
                rows,
            )
        )
    report.notes.append(
        f"All distances between the samples took {seconds:.1f} processor seconds. A third of the"
        " generators is learned from; evaluations of one generator stay together. Better: in how"
        " many splits."
    )
    return report


def _compare(
    settings: Settings,
    samples: GeneratorSamples,
    data: Evaluations,
    kept: Tensor,
    targets: Tensor,
) -> list[Row]:
    """A row per model."""
    generator = torch.Generator().manual_seed(settings.seed)
    thetas = data.theta[kept].unique()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in MODELS}
    for _ in range(settings.splits):
        order = thetas[torch.randperm(len(thetas), generator=generator)]
        learned = kept & torch.isin(data.theta, order[: max(2, len(thetas) // 3)])
        tested = kept & ~learned
        for name, options in MODELS.items():
            model = GeneratorGP(data.X[learned], targets[learned, None], samples=samples, **options)
            fit(model)
            with torch.no_grad():
                posterior = model.posterior(data.X[tested], observation_noise=True)
                scores = _scores(posterior.mean, posterior.variance, targets[tested, None])
            found[name].append(scores)
    theta = found["Theta (Matern)"]
    return [
        {
            "model": name,
            "nll": statistics.median(nll for nll, _ in scores),
            "rmse": statistics.median(rmse for _, rmse in scores),
            "nll_better": sum(a[0] < b[0] for a, b in zip(scores, theta, strict=True)),
            "rmse_better": sum(a[1] < b[1] for a, b in zip(scores, theta, strict=True)),
            "splits": scores,
        }
        for name, scores in found.items()
    ]


def _scores(mean: Tensor, variance: Tensor, target: Tensor) -> tuple[float, float]:
    """Negative log density per evaluation, and root mean square error."""
    error = (target - mean).square().mean().sqrt()
    return float(surprise(mean, variance, target).mean()), float(error)


def draw(report: Report) -> Figure:
    """Draw NLL of the error by model, a point per split."""
    figure, (axes,) = canvas(1)
    rows = report.rows("error")
    for place, row in enumerate(rows):
        values = [nll for nll, _ in row["splits"]]
        axes.plot([place] * len(values), values, "o", color=COLOURS[place], alpha=0.6)
        axes.plot([place - 0.2, place + 0.2], [row["nll"]] * 2, color=INK)
    axes.set_xticks(range(len(rows)), [row["model"].partition(" ")[0] for row in rows])
    axes.set_ylabel("negative log density of log error", color=INK)
    return figure
