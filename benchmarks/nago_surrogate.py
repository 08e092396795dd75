"""Table 1 of NAGO on real trainings: ``python -m benchmarks.nago_surrogate``.

Surrogates predict the validation error and the memory of generators that they have not seen: a
third of the hyperparameters, with all networks of each, is for training, the others for testing.
Every fit is recorded; the same command goes on where it was interrupted. It also draws the spread
of the evaluations and their fronts.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from botorch.models.model import Model
from torch import Tensor

from benchmarks.nago_data import CASES, RESULTS, Evaluations, read_evaluations
from benchmarks.records import recorded
from hotnas_torch.files import write_text
from hotnas_torch.nago import NoisyEnsemblePosterior, Sampling
from hotnas_torch.nago.surrogates import BNNSurrogate, GPSurrogate, Surrogate
from hotnas_torch.plot import plot_fronts, plot_spread, save_figure

__all__ = ["SURROGATES", "TARGETS", "main", "predict", "split"]

SURROGATES: Mapping[str, Surrogate] = {
    "homoscedastic": BNNSurrogate(noise="homoscedastic"),
    "heteroscedastic": BNNSurrogate(),
    "published_steps": BNNSurrogate(sampling=Sampling(step_size=0.1, batch_size=20)),
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
_FIGURES = ("nll", "mixture_nll", "rmse")


def targets(data: Evaluations, name: str) -> Tensor:
    """What is predicted, (n,): the error in percent, or a binary logarithm."""
    if name == "error":
        return data.error
    # An error of 0 counts as half of one image in a thousand.
    return (data.memory if name == "memory" else data.error.clamp_min(_SMALLEST_ERROR)).log2()


def split(theta: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """Splits rows 1:2 so that all rows of one number are on one side.

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
    """Fits a surrogate to a split and compares it with the rest.

    Args:
        name: Name in :data:`SURROGATES`, or ``"constant"``.
        data: Evaluations.
        target: Name in :data:`TARGETS`.
        seed: Of the split and of the surrogate.

    Returns:
        Means over test rows: ``nll`` of the normal distribution with the predicted mean and
        variance, ``mixture_nll`` of the prediction itself where that is a mixture, and ``rmse``.
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
    apart = (Y - mean).square()
    nll = 0.5 * (apart / variance + variance.log() + math.log(2.0 * math.pi))
    mixture = nll if log_density is None else -log_density
    return {
        "nll": nll.mean().item(),
        "mixture_nll": mixture.mean().item(),
        "rmse": apart.mean().sqrt().item(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Fits what is missing, and writes a table.

    Args:
        argv: Arguments without the program's name; None takes those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.nago_surrogate", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--data", type=Path, default=RESULTS, help="%(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS, help="%(default)s")
    parser.add_argument("--records", type=Path, default=Path("runs/bench/nago"), help="%(default)s")
    parser.add_argument("--splits", type=int, default=10, help="%(default)s")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["hnag"])
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    lines = [
        "Predictions of generators that a surrogate has not seen, trained on a third of the"
        f" hyperparameters: median of {arguments.splits} splits. NLL is that of a normal"
        " distribution with the predicted mean and variance, per evaluation; in brackets that of"
        " the predicted mixture.",
    ]
    for case in arguments.cases:
        data = read_evaluations(case, arguments.data)
        found = _measured(case, data, arguments.records, arguments.splits)
        train, test = split(data.theta, seed=0)
        lines += [
            "",
            f"{case.upper()}: {len(data.theta.unique())} hyperparameters, {len(data.theta)}"
            f" evaluations; {len(train)} for training, {len(test)} for testing.",
            "",
            "| target | surrogate | NLL | RMSE | NLL better than homoscedastic |",
            "|---|---|---:|---:|---:|",
        ]
        for target, title in TARGETS.items():
            lines += [_line(found, target, title, name) for name in _TITLES]
    lines += [
        "",
        "Command: `python -m benchmarks.nago_surrogate"
        + ("" if arguments.cases == ["hnag"] else f" --cases {' '.join(arguments.cases)}")
        + f" --splits {arguments.splits}`.",
    ]
    text = "\n".join(lines) + "\n"
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out / "surrogate.md", text)
    _draw(arguments.data, arguments.out)
    print(text)
    return 0


def _draw(folder: Path, out: Path) -> None:
    """The figures 2 and 3 of the paper, of the evaluations there are."""
    spread: dict[str, list[Tensor]] = {}
    for case in CASES:
        if (folder / f"{case}.csv").is_file():
            data = read_evaluations(case, folder)
            points = torch.stack([data.error, data.memory / 1024.0], dim=1)
            spread[case.upper()] = [points[data.theta == number] for number in data.theta.unique()]
    labels = ("validation error, %", "memory per image, KiB")
    save_figure(plot_spread(spread, labels=labels), out / "spread.png")
    fronts = {name: torch.cat(points) for name, points in spread.items()}
    save_figure(plot_fronts(fronts, labels=labels), out / "fronts.png")


def _measured(case: str, data: Evaluations, records: Path, num_splits: int) -> list[dict[str, Any]]:
    wanted = [
        {"surrogate": name, "target": target, "seed": seed}
        for seed in range(num_splits)
        for target in TARGETS
        for name in _TITLES
    ]
    about = {
        "case": case,
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


def _line(found: Sequence[Mapping[str, Any]], target: str, title: str, name: str) -> str:
    rows = {
        surrogate: sorted(
            (row for row in found if (row["target"], row["surrogate"]) == (target, surrogate)),
            key=lambda row: row["seed"],
        )
        for surrogate in (name, "homoscedastic")
    }
    nll, mixture, rmse = (
        statistics.median(row[figure] for row in rows[name]) for figure in _FIGURES
    )
    better = sum(
        own["nll"] < other["nll"]
        for own, other in zip(rows[name], rows["homoscedastic"], strict=True)
    )
    compared = "" if name == "homoscedastic" else f"{better} of {len(rows[name])} splits"
    bracket = f" ({mixture:.2f})" if mixture != nll else ""
    return f"| {title} | {_TITLES[name]} | {nll:.2f}{bracket} | {rmse:.2f} | {compared} |"


if __name__ == "__main__":
    sys.exit(main())
