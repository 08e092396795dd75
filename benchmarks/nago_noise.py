"""How well does a Bayesian network learn noise that depends on the input?"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring.records import Key, recorded
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from hotnas_torch.comparison.code import code_version
from hotnas_torch.nago import BNN, Sampling

__all__ = ["QUICK", "Settings", "run"]

_MODELS: Mapping[str, dict[str, Any]] = {
    "BNN()": {},
    "BNN(weight_scale=2)": {"weight_scale": 2.0},
}
_PLACES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
_INSIDE = (0.1, 0.95)
_PROMISED = "BNN()"

CHOICES = {"models": tuple(_MODELS)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        models: Names in the table.
        observations: Of the function, uniform in [0, 1].
        seeds: Data sets, each with chains of its own.
        burn_in: Steps of a chain that do not count; None takes the default.
        storage: Where finished fits are kept; the same command goes on from there.
    """

    models: tuple[str, ...] = tuple(_MODELS)
    observations: int = 400
    seeds: int = 5
    burn_in: int | None = None
    storage: str = "runs/bench/nago_noise"


QUICK = Settings(
    models=("BNN()",),
    observations=100,
    seeds=1,
    burn_in=200,
    storage="runs/bench/nago_noise-quick",
)


def deviation(X: Tensor) -> Tensor:
    """Return the true deviation of the noise."""
    return 0.04 + 0.3 * X


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    places = torch.tensor(_PLACES, dtype=torch.float64)[:, None]

    def measure(key: Key) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(key["seed"])
        X = torch.rand(settings.observations, 1, generator=generator, dtype=torch.float64)
        drawn = torch.randn(X.shape, generator=generator, dtype=torch.float64)
        Y = torch.sin(6.0 * X) + deviation(X) * drawn
        options = dict(_MODELS[key["model"]])
        if settings.burn_in is not None:
            options["sampling"] = Sampling(num_burn_in=settings.burn_in)
        model = BNN(X, Y, generator=torch.Generator().manual_seed(key["seed"] + 1), **options)
        found = model.noise_variance(places).mean(0).sqrt() / deviation(places)
        return {"ratios": found.flatten().tolist()}

    wanted: list[Key] = [
        {"model": name, "seed": seed} for name in settings.models for seed in range(settings.seeds)
    ]
    about = {
        "observations": settings.observations,
        "burn_in": settings.burn_in,
        "code": code_version("gp", "nago"),
    }
    found = recorded(
        Path(settings.storage) / "fits.jsonl", about, wanted, measure, title="nago_noise"
    )
    report = Report()
    rows: list[dict[str, Any]] = []
    for name in settings.models:
        ratios = [line["ratios"] for line in found if line["model"] == name]
        for place, of_place in zip(_PLACES, zip(*ratios, strict=True), strict=True):
            rows.append(
                {
                    "model": name,
                    "x": place,
                    "truth": float(deviation(torch.tensor(place))),
                    "ratio": statistics.fmean(of_place),
                    "least": min(of_place),
                    "most": max(of_place),
                }
            )
        if name == _PROMISED:
            inside = [row for row in rows if row["model"] == name and _within(row["x"])]
            off = max(max(row["most"] - 1.0, 1.0 - row["least"]) for row in inside)
            report.claims.append(
                Claim(f"{name}: largest error from {_INSIDE[0]} to {_INSIDE[1]}", "<=", 0.3, off)
            )
    report.tables.append(
        Table(
            "noise",
            f"Root of the mean predicted variance over the true deviation, {settings.observations}"
            f" observations of sin 6x, {settings.seeds} seeds",
            (
                Column("model", "model"),
                Column("x", "x", number(2)),
                Column("truth", "true deviation", number(3)),
                Column("ratio", "ratio, mean", number(3)),
                Column("least", "least", number(3)),
                Column("most", "most", number(3)),
            ),
            rows,
        )
    )
    report.notes.append("The noise has the deviation 0.04 + 0.3 x; x is uniform in [0, 1].")
    return report


def _within(x: float) -> bool:
    return _INSIDE[0] <= x <= _INSIDE[1]
