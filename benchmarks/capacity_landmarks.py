"""How well do landmarks stand for the full matrix?"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring.report import Column, Report, Table, number
from hotnas_torch.gp.psd import landmark_features, whitener
from hotnas_torch.matrices.landmarks import farthest_points, k_medoids

__all__ = ["ON_REQUEST", "QUICK", "Settings", "run"]

ON_REQUEST = "takes hours"


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        matrices: Spaces of the full matrices.
        networks: Networks of each.
        nums: Numbers of landmarks that are compared.
        repeats: Choices of landmarks at each number.
        seed: Of everything.
    """

    matrices: tuple[str, ...] = ("nasbench_macro", "nasbench101")
    networks: int = 5000
    nums: tuple[int, ...] = (50, 100, 200, 500, 1000)
    repeats: int = 2
    seed: int = 0


QUICK = Settings(matrices=("nasbench_macro",), networks=300, nums=(10, 50))


def run(settings: Settings) -> Report:
    """Measure the error of the kernel on landmarks against the full matrix."""
    report = Report()
    for name in settings.matrices:
        _compare(name, settings, report)
    return report


def _compare(name: str, settings: Settings, report: Report) -> None:
    """Add a table and a note about one space."""
    num = settings.networks
    space = ht.spaces.get(name)
    generator = torch.Generator().manual_seed(settings.seed)
    networks = space.sample(num, generator=generator, distinct=True)
    distances = ht.HOTNN(space=space)(networks).double()
    lengthscale = float(distances.flatten()[::97].median())
    kernel = torch.exp(-distances / lengthscale)
    eigenvalues = torch.linalg.eigvalsh(kernel)
    size = float(kernel.norm())
    floor = float(eigenvalues.clamp_max(0.0).norm()) / size
    rows: list[dict[str, Any]] = []
    ways = {
        "random": lambda count, g: torch.randperm(num, generator=g)[:count],
        "farthest points": lambda count, g: (
            farthest_points(_block(distances), num, count, generator=g).indices
        ),
        "k-medoids": lambda count, g: k_medoids(_block(distances), num, count, generator=g).indices,
    }
    for count in settings.nums:
        for way, choose in ways.items():
            errors = []
            for repeat in range(settings.repeats):
                chosen = choose(count, torch.Generator().manual_seed(settings.seed + repeat))
                errors.append(
                    (*_errors(kernel, chosen), float(distances[:, chosen].min(1).values.max()))
                )
            relative, mean, radius = (
                sum(column) / len(errors) for column in zip(*errors, strict=True)
            )
            rows.append(
                {
                    "landmarks": count,
                    "way": way,
                    "relative_percent": 100 * relative,
                    "mean": mean,
                    "radius": radius / lengthscale,
                }
            )
    report.tables.append(
        Table(
            f"errors-{name}",
            f"Kernel exp(-d / median d) of {num:,} {name} networks by landmarks, means over"
            f" {settings.repeats} choices",
            (
                Column("landmarks", "landmarks", number()),
                Column("way", "chosen"),
                Column("relative_percent", "error, % of the norm", number()),
                Column("mean", "mean absolute error of an entry", number(2)),
                Column("radius", "farthest from a landmark, length scales", number(2)),
            ),
            rows,
        )
    )
    negative = int((eigenvalues < 0).sum())
    between = float((kernel.sum() - num) / (num * (num - 1)))
    report.notes.append(
        f"{name}: no positive semi-definite kernel is closer to the full matrix than"
        f" {100 * floor:.3g} % of its norm: that much lies in its {negative} negative eigenvalues,"
        f" down to {float(eigenvalues[0]):.2g}. The mean entry off the diagonal is {between:.3f}."
    )


def _block(distances: Tensor) -> Any:
    return lambda rows, cols: distances[rows[:, None], cols]


def _errors(kernel: Tensor, chosen: Tensor) -> tuple[float, float]:
    """Of the kernel on landmarks with its residual diagonal: relative norm, mean absolute."""
    features = landmark_features(kernel[:, chosen], whitener(kernel[chosen][:, chosen]))
    difference = features @ features.T - kernel
    # The residual makes the diagonal exact.
    difference.fill_diagonal_(0.0)
    return float(difference.norm() / kernel.norm()), float(difference.abs().mean())
