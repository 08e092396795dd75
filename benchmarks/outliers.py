"""Does HOTNAS bear evaluations that went wrong and return a number all the same?"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.records import recorded
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.statistics import standard_error
from hotnas_torch.arch import Network
from hotnas_torch.search import HOTNAS, RandomSearch, Strategy
from hotnas_torch.spaces import NASBenchMacro

__all__ = ["QUICK", "Settings", "draw", "run"]


_SHARE = 0.08
_FAILED = "failed (NaN)"
_ARMS: Mapping[str, float] = {
    _FAILED: math.nan,
    "chance level, 100": 100.0,
    "1e4": 1e4,
    "1e6": 1e6,
}
_RANDOM = "random search, failed (NaN)"
_LAST = 12
_CALLED = {"best": "best error", "last": f"mean of the last {_LAST}"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        seeds: Searches of each kind; a seed also decides which evaluations go wrong.
        first_seed: Of these; the constants that bound bad values were chosen on seeds 0 to 9.
        evaluations: Of each search, 10 of which are of random networks.
        pool_size: Candidates of HOTNAS per choice.
        storage: Where finished searches are kept; the same command goes on from there.
    """

    seeds: int = 10
    first_seed: int = 0
    evaluations: int = 40
    pool_size: int = 200
    storage: str = "runs/bench/outliers"


QUICK = Settings(seeds=1, evaluations=14, pool_size=50, storage="runs/bench/outliers-quick")

_COLUMNS = (
    Column("arm", "what went wrong is"),
    Column("best", "best error", number(3)),
    Column("best_error", "standard error", number(2)),
    Column("best_difference", "that less the failed ones'", number(2)),
    Column("best_difference_error", "standard error", number(2)),
    Column("last", f"mean of the last {_LAST}", number(3)),
    Column("last_error", "standard error", number(2)),
    Column("last_difference", "that less the failed ones'", number(2)),
    Column("last_difference_error", "standard error", number(2)),
)


class Landscape:
    """Errors from 5 to 60 on all networks of NAS-Bench-Macro, smooth in their layers.

    Each layer adds its share and each pair of neighbouring layers half as much, drawn once; the
    sum is scaled to the range.
    """

    def __init__(self) -> None:
        self.space = NASBenchMacro()
        generator = torch.Generator().manual_seed(7)
        single = torch.rand(8, 3, generator=generator, dtype=torch.float64)
        pairs = torch.rand(7, 3, 3, generator=generator, dtype=torch.float64)
        sums = {}
        for net in self.space:
            layers = [int(digit) for digit in net.spec]
            sums[net.spec] = float(
                sum(single[place, layer] for place, layer in enumerate(layers))
                + 0.5 * sum(pairs[place, layers[place], layers[place + 1]] for place in range(7))
            )
        low, high = min(sums.values()), max(sums.values())
        self.errors = {
            spec: 5.0 + 55.0 * (each - low) / (high - low) for spec, each in sums.items()
        }

    def goes_wrong(self, net: Network, seed: int) -> bool:
        """Return whether the evaluation of a network is one of the 8 %, each by itself."""
        digest = hashlib.sha256(f"{seed} {net.spec}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < _SHARE * 2**64


def run(settings: Settings) -> Report:
    """Search."""
    report = Report()
    landscape = Landscape()
    keys = [
        {"arm": arm, "seed": settings.first_seed + seed}
        for seed in range(settings.seeds)
        for arm in (*_ARMS, _RANDOM)
    ]
    found = recorded(
        Path(settings.storage) / "searches.jsonl",
        {"evaluations": settings.evaluations, "pool_size": settings.pool_size},
        keys,
        lambda key: {"errors": _search(landscape, key, settings)},
        title="outliers",
    )
    errors = {
        arm: np.array([line["errors"] for line in found if line["arm"] == arm], dtype=np.float64)
        for arm in (*_ARMS, _RANDOM)
    }
    bests = {arm: np.nanmin(values, axis=1) for arm, values in errors.items()}
    ends = {arm: np.nanmean(values[:, -_LAST:], axis=1) for arm, values in errors.items()}
    rows: list[dict[str, Any]] = []
    for arm, values in errors.items():
        compared = arm != _FAILED
        differences = {"best": bests[arm] - bests[_FAILED], "last": ends[arm] - ends[_FAILED]}
        row: dict[str, Any] = {"arm": arm}
        for name, found in (("best", bests[arm]), ("last", ends[arm])):
            row[name] = float(found.mean())
            row[f"{name}_error"] = standard_error(found)
            row[f"{name}_difference"] = float(differences[name].mean()) if compared else None
            row[f"{name}_difference_error"] = (
                standard_error(differences[name]) if compared else None
            )
            if arm in _ARMS and compared:
                report.claims.append(
                    Claim(
                        f"{arm}: {_CALLED[name]}, paired difference from the failed ones, in "
                        "standard errors",
                        "<=",
                        2.0,
                        row[f"{name}_difference"] / (row[f"{name}_difference_error"] or math.inf),
                    )
                )
        row["errors"] = [[None if math.isnan(one) else one for one in each] for each in values]
        rows.append(row)
    report.tables.append(
        Table(
            "searches",
            f"{settings.evaluations} evaluations, {settings.seeds} seeds from "
            f"{settings.first_seed}",
            _COLUMNS,
            rows,
        )
    )
    report.notes.append(
        f"NAS-Bench-Macro with smooth errors from 5 to 60; {_SHARE:.0%} of the networks return the "
        "number of the row instead. Best and mean are of true errors, what went wrong left out."
    )
    return report


def _search(landscape: Landscape, key: Mapping[str, Any], settings: Settings) -> list[float | None]:
    """True errors in the order of asking; None where the evaluation went wrong."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(key["seed"])
    strategy: Strategy = (
        RandomSearch(landscape.space, generator=generator)
        if key["arm"] == _RANDOM
        else HOTNAS(landscape.space, generator=generator, pool_size=settings.pool_size)
    )
    errors: list[float | None] = []
    for _ in range(settings.evaluations):
        (net,) = strategy.ask()
        wrong = landscape.goes_wrong(net, key["seed"])
        value = _ARMS.get(key["arm"], math.nan) if wrong else landscape.errors[net.spec]
        strategy.tell([net], [value])
        errors.append(None if wrong else landscape.errors[net.spec])
    return errors


def draw(report: Report) -> Figure:
    """Draw the mean of the best error so far."""
    figure, (axes,) = canvas(1, width=6.4)
    for row, colour in zip(report.rows("searches"), COLOURS, strict=False):
        best = np.fmin.accumulate(np.array(row["errors"], dtype=np.float64), axis=1)
        places = np.arange(1, best.shape[1] + 1)
        axes.step(
            places,
            np.nanmean(best, axis=0),
            where="post",
            color=colour,
            label=row["arm"],
            linewidth=1.8,
        )
    axes.set_xlabel("evaluations", color=INK)
    axes.set_ylabel("best true error so far, %", color=INK)
    axes.legend(frameon=False, loc="upper right")
    return figure
