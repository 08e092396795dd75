"""Does a shared operation distribution find good cells, and keep them?"""

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.records import Key, recorded
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.statistics import standard_error
from hotnas_torch.comparison.code import code_version
from hotnas_torch.nn import (
    DifferentiableSearch,
    DifferentiableSettings,
    NASBench201Supernet,
    Skeleton,
    digits,
)
from hotnas_torch.objectives import Training
from hotnas_torch.objectives.training import seeded_generator
from hotnas_torch.spaces import NASBench201

__all__ = ["QUICK", "Settings", "draw", "run"]


_TITLES = {"anasod": "ANASOD-DNAS", "gaea": "GAEA-DARTS", "darts": "DARTS"}
_SKIP = "skip_connect"


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        seeds: Searches of each method; a seed also splits the digits.
        epochs: Of each search.
        every: Every so many epochs, the network that the search would end with is trained by
            itself, as is the last.
        batch: Images per step of the supernet.
        channels: Of the supernet and of the networks that are trained.
        learning_rate: Of the supernet's weights at the start.
        darts_rate: Adam's rate on digits: 3e-4 times the steps that DARTS takes on CIFAR-10 over
            those that are taken here.
        storage: Where checkpoints and finished measurements are kept; the same command goes on.
    """

    seeds: int = 5
    epochs: int = 12
    every: int = 4
    batch: int = 25
    channels: int = 8
    learning_rate: float = 0.1
    darts_rate: float = 0.025
    storage: str = "runs/bench/dnas"


QUICK = Settings(seeds=1, epochs=2, every=1, storage="runs/bench/dnas-quick")


def run(settings: Settings) -> Report:
    """Search, and train what was found."""
    torch.set_num_threads(1)
    report = Report()
    folder = Path(settings.storage)
    wanted: list[Key] = [
        {"seed": seed, "method": method} for seed in range(settings.seeds) for method in _TITLES
    ]
    found = recorded(
        folder / "searches.jsonl",
        # More seeds are added to those that there are.
        {k: v for k, v in asdict(settings).items() if k not in ("seeds", "storage")}
        | {"code": code_version("nn", "objectives", "spaces")},
        wanted,
        lambda key: _measure(settings, folder, key["method"], key["seed"]),
        title="searches",
    )
    rows = []
    for method, title in _TITLES.items():
        runs = [one for one in found if one["method"] == method]
        last = [one["accuracy"][-1] for one in runs]
        rows.append(
            {
                "method": title,
                "accuracy": statistics.fmean(last),
                "error": standard_error(last),
                "best_epoch": statistics.fmean(max(one["accuracy"]) for one in runs),
                "drop": statistics.fmean(
                    max(one["accuracy"]) - one["accuracy"][-1] for one in runs
                ),
                "test": statistics.fmean(one["test"][-1] for one in runs),
                "skips": statistics.fmean(one["skips"][-1] for one in runs),
                "share": statistics.fmean(one["share"][-1] for one in runs),
                "seconds": statistics.fmean(one["seconds"] for one in runs),
                "seeds": ", ".join(f"{one:.1f}" for one in last),
                "epochs": runs[0]["epochs"],
                "curves": [one["accuracy"] for one in runs],
                "shares": [one["share"] for one in runs],
            }
        )
    report.tables.append(
        Table(
            "searches",
            f"the network of the last of {settings.epochs} epochs, trained by itself on digits,"
            f" {settings.seeds} seeds",
            (
                Column("method", "method"),
                Column("accuracy", "validation accuracy, %", number(4)),
                Column("error", "standard error", number(2)),
                Column("best_epoch", "best epoch's", number(4)),
                Column("drop", "lost since", number(2)),
                Column("test", "test accuracy, %", number(4)),
                Column("skips", "skip connections of 6", number(3)),
                Column("share", "mean share of skips", number(3)),
                Column("seconds", "processor seconds", number(2)),
                Column("seeds", "by seed", str),
            ),
            rows,
        )
    )
    by_name = {row["method"]: row for row in rows}
    own = by_name["ANASOD-DNAS"]
    for other in ("GAEA-DARTS", "DARTS"):
        report.claims.append(
            Claim(
                f"ANASOD-DNAS over {other}: points of validation accuracy",
                ">=",
                0.0,
                own["accuracy"] - by_name[other]["accuracy"],
            )
        )
    report.claims.append(
        Claim("skip connections that ANASOD-DNAS ends with, of 6", "<=", 4.0, own["skips"])
    )
    report.notes.append(
        "Operations are skip, two convolutions and pooling; 'none' is left out, as GAEA does."
        " Weights train on 500 images, distributions on 800 others, and cells are compared by"
        " trainings of their own on the same split. ANASOD-DNAS ends with a sample, the others with"
        " their most probable cell."
    )
    return report


def _measure(settings: Settings, folder: Path, method: str, seed: int) -> Mapping[str, Any]:
    started = time.process_time()
    skeleton = Skeleton(
        channels=settings.channels, num_stages=2, cells_per_stage=1, input_channels=1
    )
    data = digits(generator=seeded_generator(seed, "data"))
    search = DifferentiableSearch(
        NASBench201Supernet(skeleton, generator=seeded_generator(seed, "parameters")),
        data,
        DifferentiableSettings(
            method=method,  # type: ignore[arg-type]
            epochs=settings.epochs,
            batch_size=settings.batch,
            learning_rate=settings.learning_rate,
            architecture_rate=settings.darts_rate if method == "darts" else None,
        ),
        generator=seeded_generator(seed, "order"),
        checkpoint=folder / f"{method}-{seed}.pt",
    )
    epochs = search.run()
    skip = search.supernet.operations.index(_SKIP)
    training, space = Training(data, skeleton=skeleton, seed=seed), NASBench201()
    chosen = [*range(0, settings.epochs, settings.every), settings.epochs - 1]
    chosen = sorted(set(chosen))
    accuracy, test = [], []
    cache: dict[str, tuple[float, float]] = {}
    for place in chosen:
        spec = epochs[place].network
        if spec not in cache:
            metrics = training(space.from_string(spec)).metrics
            cache[spec] = metrics["validation_accuracy"], metrics["test_accuracy"]
        accuracy.append(100.0 * cache[spec][0])
        test.append(100.0 * cache[spec][1])
    return {
        "seconds": time.process_time() - started,
        "epochs": [place + 1 for place in chosen],
        "networks": [epochs[place].network for place in chosen],
        "accuracy": accuracy,
        "test": test,
        "skips": [epoch.network.count(_SKIP) for epoch in epochs],
        "share": [epoch.probabilities[skip] for epoch in epochs],
    }


def draw(report: Report) -> Figure:
    """Draw the accuracy of the networks and share of skip connections over the epochs."""
    figure, (left, right) = canvas(2, width=4.8, height=3.6)
    for row, colour in zip(report.rows("searches"), COLOURS, strict=False):
        for axes, places, curves in (
            (left, row["epochs"], row["curves"]),
            (right, range(1, len(row["shares"][0]) + 1), row["shares"]),
        ):
            numbers = np.array(curves, dtype=np.float64)
            mean = numbers.mean(0)
            axes.plot(places, mean, color=colour, label=row["method"], linewidth=1.8)
            if len(numbers) > 1:
                error = numbers.std(0, ddof=1) / math.sqrt(len(numbers))
                axes.fill_between(
                    places, mean - error, mean + error, color=colour, alpha=0.15, lw=0
                )
    left.set_ylabel("validation accuracy of the network, %", color=INK)
    right.set_ylabel("mean probability of skip connections", color=INK)
    for axes in (left, right):
        axes.set_xlabel("epoch of the search", color=INK)
    left.legend(frameon=False, loc="lower right")
    return figure
