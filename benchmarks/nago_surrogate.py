"""Does noise that depends on the input predict generators of networks better?

Table 1 of NAGO on real trainings. Surrogates predict the validation error and the memory of
generators that they have not seen: a third of the hyperparameters, with all networks of each, is
for training, the others for testing. Every fit is recorded; the same command goes on where it was
interrupted. It also draws the spread of the evaluations and their fronts.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from botorch.models.model import Model
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.measuring.records import recorded
from benchmarks.measuring.report import Column, Report, Row, Table, Unavailable
from benchmarks.measuring.statistics import surprise
from benchmarks.nago_data import CASES, RESULTS, Evaluations, read_evaluations
from hotnas_torch.comparison.code import code_version
from hotnas_torch.nago import NoisyEnsemblePosterior, Sampling
from hotnas_torch.nago.surrogates import BNNSurrogate, GPSurrogate, Surrogate
from hotnas_torch.plot import plot_fronts, plot_spread

__all__ = [
    "ON_REQUEST", "QUICK", "SURROGATES", "TARGETS", "Settings", "predict", "run", "split",
]  # fmt: skip

ON_REQUEST = "takes hours"
CHOICES = {"cases": tuple(CASES)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        cases: Names in `benchmarks.nago_data.CASES`.
        splits: Splits of the hyperparameters.
        trainings: Folder of the evaluations that `benchmarks.nago_data` made.
        storage: Where finished fits are kept.
    """

    cases: tuple[str, ...] = ("hnag",)
    splits: int = 10
    trainings: str = str(RESULTS)
    storage: str = "runs/bench/nago"


QUICK = Settings(splits=1, storage="runs/bench/nago-quick")

SURROGATES: Mapping[str, Surrogate] = {
    "homoscedastic": BNNSurrogate(noise="homoscedastic"),
    "heteroscedastic": BNNSurrogate(),
    "published_steps": BNNSurrogate(sampling=Sampling(step_size=0.1, batch_size=20, num_descent=0)),
    "gp": GPSurrogate(),
}
_TITLES = {
    "homoscedastic": "Bayesian network, homoscedastic",
    "heteroscedastic": "Bayesian network, heteroscedastic",
    "published_steps": "the same, steps of 0.1 on batches of 20",
    "gp": "Gaussian process",
    "constant": "mean and variance of the training data",
}
TARGETS = {
    "error": "validation error, %",
    "log_error": "log2 of validation error",
    "memory": "log2 of memory",
}
_SMALLEST_ERROR = 0.05
_COLUMNS = (
    Column("target_title", "target"),
    Column("title", "surrogate"),
    Column("nll", "NLL", "{:.2f}".format),
    Column("mixture_nll", "of the mixture", "{:.2f}".format),
    Column("rmse", "RMSE", "{:.2f}".format),
    Column("better", "NLL better than homoscedastic"),
)


def targets(data: Evaluations, name: str) -> Tensor:
    """Return what is predicted, (n,): the error in percent, or a binary logarithm."""
    if name == "error":
        return data.error
    # An error of 0 counts as half of one image in a thousand.
    return (data.memory if name == "memory" else data.error.clamp_min(_SMALLEST_ERROR)).log2()


def split(theta: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows 1:2 so that all rows of one number are on one side.

    Args:
        theta: Numbers of the hyperparameters, (n,).
        seed: Of the split.

    Returns:
        Places of the training rows and of the test rows.
    """
    numbers = theta.unique()
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed))
    chosen = torch.isin(theta, numbers[order[: len(numbers) // 3]])
    return chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1)


def predict(name: str, data: Evaluations, target: str, *, seed: int) -> dict[str, float]:
    """Fit a surrogate to a split and compares it with the rest.

    Args:
        name: Name in `SURROGATES`, or `"constant"`.
        data: Evaluations.
        target: Name in `TARGETS`.
        seed: Of the split and of the surrogate.

    Returns:
        Means over test rows: `nll` of the normal distribution with the predicted mean and
        variance, `mixture_nll` of the prediction itself where that is a mixture, and `rmse`.
    """
    train, test = split(data.theta, seed=seed)
    Y = targets(data, target)[:, None]
    if name == "constant":
        mean, variance = Y[train].mean().expand(len(test), 1), Y[train].var().expand(len(test), 1)
        return _compared(Y[test], mean, variance, None)
    model: Model = SURROGATES[name](data.X[train], Y[train], torch.Generator().manual_seed(seed))
    with torch.no_grad():
        posterior: Any = model.posterior(data.X[test], observation_noise=True)
    mixture = posterior.log_prob(Y[test]) if isinstance(posterior, NoisyEnsemblePosterior) else None
    return _compared(Y[test], posterior.mean, posterior.variance, mixture)


def _compared(
    Y: Tensor, mean: Tensor, variance: Tensor, log_density: Tensor | None
) -> dict[str, float]:
    nll = surprise(mean, variance, Y)
    mixture = nll if log_density is None else -log_density
    return {
        "nll": nll.mean().item(),
        "mixture_nll": mixture.mean().item(),
        "rmse": (Y - mean).square().mean().sqrt().item(),
    }


def run(settings: Settings) -> Report:
    """Fit what is missing, and compare.

    Raises:
        Unavailable: A case has no evaluations.
    """
    torch.set_num_threads(1)
    trainings = Path(settings.trainings)
    report = Report()
    for case in settings.cases:
        if not (trainings / f"{case}.csv").is_file():
            raise Unavailable(f"{trainings} has no {case}.csv (python -m benchmarks nago_data)")
        data = read_evaluations(case, trainings)
        found = _measured(case, data, Path(settings.storage), settings.splits)
        train, test = split(data.theta, seed=0)
        title = (
            f"{case.upper()}: {len(data.theta.unique())} hyperparameters, {len(data.theta)}"
            f" evaluations; {len(train)} for training, {len(test)} for testing; medians of"
            f" {settings.splits} splits"
        )
        rows = [_row(found, target, name) for target in TARGETS for name in _TITLES]
        report.tables.append(Table(case, title, _COLUMNS, rows))
    report.notes.append(
        "Predictions of generators that a surrogate has not seen, trained on a third of the"
        " hyperparameters. NLL is that of a normal distribution with the predicted mean and"
        " variance, per evaluation."
    )
    report.figures |= _drawn(trainings)
    return report


def _drawn(folder: Path) -> dict[str, Figure]:
    """The figures 2 and 3 of the paper, of the evaluations there are."""
    spread: dict[str, list[Tensor]] = {}
    for case in CASES:
        if (folder / f"{case}.csv").is_file():
            data = read_evaluations(case, folder)
            points = torch.stack([data.error, data.memory / 1024.0], dim=1)
            spread[case.upper()] = [points[data.theta == number] for number in data.theta.unique()]
    labels = ("validation error, %", "memory per image, KiB")
    fronts = {name: torch.cat(points) for name, points in spread.items()}
    return {
        "spread": plot_spread(spread, labels=labels),
        "fronts": plot_fronts(fronts, labels=labels),
    }


def _measured(case: str, data: Evaluations, records: Path, num_splits: int) -> list[dict[str, Any]]:
    wanted = [
        {"surrogate": name, "target": target, "seed": seed}
        for seed in range(num_splits)
        for target in TARGETS
        for name in _TITLES
    ]
    about = {
        "case": case,
        "code": code_version("gp", "nago"),
        "num_evaluations": len(data.theta),
        "surrogates": {name: repr(surrogate) for name, surrogate in SURROGATES.items()},
    }
    return recorded(
        records / "surrogate.jsonl",
        about,
        wanted,
        lambda key: predict(key["surrogate"], data, key["target"], seed=key["seed"]),
        title=case,
    )


def _row(found: Sequence[Mapping[str, Any]], target: str, name: str) -> Row:
    fits = {
        surrogate: sorted(
            (row for row in found if (row["target"], row["surrogate"]) == (target, surrogate)),
            key=lambda row: row["seed"],
        )
        for surrogate in (name, "homoscedastic")
    }
    pairs = zip(fits[name], fits["homoscedastic"], strict=True)
    better = sum(own["nll"] < other["nll"] for own, other in pairs)
    return {
        "target": target,
        "target_title": TARGETS[target],
        "surrogate": name,
        "title": _TITLES[name],
        **{
            figure: statistics.median(row[figure] for row in fits[name])
            for figure in ("nll", "mixture_nll", "rmse")
        },
        "better": "" if name == "homoscedastic" else f"{better} of {len(fits[name])} splits",
    }
