"""BOHB: Hyperband whose points come from densities of good and of bad ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from hotnas_torch.arguments import integer, number, takes
from hotnas_torch.nago.box import Box
from hotnas_torch.nago.hyperband import Hyperband

__all__ = ["BOHB", "ProductDensity"]

_SMALLEST_DENSITY = 1e-32


@dataclass(frozen=True, slots=True)
class ProductDensity:
    r"""A kernel density estimate with a kernel of its own width in every column.

    p(x) = 1/n sum_i prod_j k_j(x_j; x_ij), with a Gaussian N(x_j; x_ij, h_j^2), or, where a column
    is one of c categories, Aitchison and Aitken's 1 - h_j for the same and h_j / (c - 1) for each
    other one; h_j is at most (c - 1) / c there, at which all are as likely.

    Attributes:
        points: Points x_i, (n, d) float64; a category by the middle of one of c equal bins.
        bandwidth: Widths h, (d,), > 0.
        categories: How many categories a column has, 0 where it is a number; empty: all are.
    """

    points: Tensor
    bandwidth: Tensor
    categories: tuple[int, ...] = ()

    @classmethod
    def fit(cls, points: Tensor, *, min_bandwidth: float, categories: Sequence[int] = ()) -> Self:
        """Take h_j = 1.06 s_j n^(-1 / (4 + d)), s_j the deviation of column j, or the minimum.

        Args:
            points: Shape (n, d).
            min_bandwidth: Smallest width, > 0.
            categories: How many a column has, 0 where it is a number; empty: all are numbers.
        """
        num, dim = points.shape
        spread = points.std(dim=0, correction=0)
        width = (1.06 * spread * num ** (-1.0 / (4 + dim))).clamp_min(min_bandwidth)
        most = [1.0 - 1.0 / count if count > 1 else math.inf for count in categories]
        return cls(points, width.minimum(width.new_tensor(most)) if most else width, (*categories,))

    def log_prob(self, rows: Tensor) -> Tensor:
        """Return log p at rows (N, d), (N,)."""
        gaps = rows[:, None] - self.points
        scaled = gaps / self.bandwidth
        kernels = -0.5 * scaled.square() - self.bandwidth.log() - 0.5 * math.log(2.0 * math.pi)
        for column, count in enumerate(self.categories):
            if count:
                same, width = gaps[..., column].abs() * count < 0.5, self.bandwidth[column]
                # Where there is but one category, all are the same.
                stays = 1.0 - width if count > 1 else torch.ones_like(width)
                chances = torch.where(same, stays, width / max(1, count - 1))
                kernels[..., column] = chances.log()
        return kernels.sum(-1).logsumexp(-1) - math.log(len(self.points))

    def sample(self, num: int, *, factor: float, generator: torch.Generator) -> Tensor:
        """Draw rows in [0, 1] from the estimate with kernels `factor` times as wide, (num, d).

        Every Gaussian is cut off at the borders and scaled to a whole there, by inversion of its
        distribution function. A category stays what it is, or, with a chance of h, is drawn anew.
        """
        places = torch.randint(
            len(self.points), (num,), generator=generator, device=generator.device
        )
        uniform = torch.rand(
            num,
            self.points.shape[1],
            generator=generator,
            dtype=torch.float64,
            device=generator.device,
        )
        centres = self.points[places.to(self.points.device)]
        width = factor * self.bandwidth
        low = torch.special.ndtr((0.0 - centres) / width)
        high = torch.special.ndtr((1.0 - centres) / width)
        inside = low + uniform.to(centres) * (high - low)
        drawn: Tensor = (centres + width * torch.special.ndtri(inside)).clamp(0.0, 1.0)
        # A number below h, over h, is uniform again.
        again = uniform.to(centres) / self.bandwidth
        for column, count in enumerate(self.categories):
            if count:
                bins = ((again[:, column] * count).floor() + 0.5) / count
                kept = again[:, column] >= 1.0
                drawn[:, column] = torch.where(kept, centres[:, column], bins)
        return drawn


class BOHB(Hyperband):
    """Hyperband that draws new points where good ones are dense and bad ones are not.

    Of the largest budget with enough values, the best `top_fraction` are the good points and the
    others the bad ones, at least `min_points` each. Of `num_samples` points drawn from the
    widened density of the good ones, the one with the largest ratio of both densities is asked. A
    share of the points is drawn from the space instead, and all of them until there is a model.
    Failed evaluations are bad.

    Args:
        space: What is searched; a box whose columns are categories says so, see `NetworkBox`.
        top_fraction: Share of good points, in (0, 1).
        num_samples: Points that are compared by their ratio of densities, >= 1.
        random_fraction: Share of points drawn from the space, in [0, 1].
        bandwidth_factor: How much wider the kernels are from which points are drawn, > 0.
        min_bandwidth: Smallest width of a kernel, > 0.
        min_points: Smallest number of good and of bad points, > d; None: d + 1.
        generator: Source of all randomness.
        **settings: Those of `Hyperband`: `min_budget`, `max_budget`, `eta`, `asynchronous`,
            `num_brackets`.

    Raises:
        TypeError: An argument that is unknown or of the wrong kind.
        ValueError: A number out of range.

    Complexity: O(num_samples n d) per new point.

    Reference: Falkner, Klein and Hutter, BOHB: Robust and Efficient Hyperparameter Optimization at
        Scale, ICML 2018; the details and defaults are those of HpBandSter.

    Example:
        >>> from hotnas_torch.nago import UnitBox
        >>> generator = torch.Generator().manual_seed(0)
        >>> search = BOHB(UnitBox(2), min_budget=1, max_budget=9, generator=generator)
        >>> for _ in range(60):
        ...     job = search.ask()
        ...     search.tell(job, (job.row[0] - 0.3) ** 2 + (job.row[1] - 0.7) ** 2)
        >>> min(result.value for result in search.results) < 0.02
        True
    """

    name = "bohb"

    @takes("min_budget", "max_budget", "eta", "asynchronous", "num_brackets")
    def __init__(
        self,
        space: Box,
        *,
        generator: torch.Generator | None,
        top_fraction: float = 0.15,
        num_samples: int = 64,
        random_fraction: float = 1.0 / 3.0,
        bandwidth_factor: float = 3.0,
        min_bandwidth: float = 1e-3,
        min_points: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(space, generator=generator, **settings)
        min_points = space.dim + 1 if min_points is None else integer("min_points", min_points)
        num_samples = integer("num_samples", num_samples)
        top_fraction = number("top_fraction", top_fraction)
        random_fraction = number("random_fraction", random_fraction)
        bandwidth_factor = number("bandwidth_factor", bandwidth_factor)
        min_bandwidth = number("min_bandwidth", min_bandwidth)
        for argument, value, valid, expected in (
            ("top_fraction", top_fraction, 0.0 < top_fraction < 1.0, "in (0, 1)"),
            ("num_samples", num_samples, num_samples >= 1, "at least 1"),
            ("random_fraction", random_fraction, 0.0 <= random_fraction <= 1.0, "in [0, 1]"),
            ("bandwidth_factor", bandwidth_factor, 0.0 < bandwidth_factor < math.inf, "positive"),
            ("min_bandwidth", min_bandwidth, 0.0 < min_bandwidth < math.inf, "positive"),
            (
                "min_points",
                min_points,
                min_points > space.dim,
                f"more than the {space.dim} columns",
            ),
        ):
            if not valid:
                raise ValueError(f"{argument} must be {expected}; got {value!r}")
        self.top_fraction = top_fraction
        self.num_samples = num_samples
        self.random_fraction = random_fraction
        self.bandwidth_factor = bandwidth_factor
        self.min_bandwidth = min_bandwidth
        self.min_points = min_points

    def settings(self) -> dict[str, Any]:
        """Return the strategy's settings, ready for `json.dumps`."""
        return super().settings() | {
            "top_fraction": self.top_fraction,
            "num_samples": self.num_samples,
            "random_fraction": self.random_fraction,
            "bandwidth_factor": self.bandwidth_factor,
            "min_bandwidth": self.min_bandwidth,
            "min_points": self.min_points,
        }

    def densities(self) -> tuple[ProductDensity, ProductDensity] | None:
        """Return the densities of good and bad points that new ones are chosen by, None without."""
        by_budget: dict[float, list[tuple[float, tuple[float, ...]]]] = {}
        for job, value in self.results:
            worst = math.inf if math.isnan(value) else value
            by_budget.setdefault(job.budget, []).append((worst, job.row))
        for budget in sorted(by_budget, reverse=True):
            found = sorted(by_budget[budget], key=lambda pair: pair[0])
            num_good = max(self.min_points, math.floor(self.top_fraction * len(found)))
            if len(found) - num_good < self.min_points:
                continue
            rows = torch.tensor([row for _, row in found], dtype=torch.float64)
            good, bad = (
                ProductDensity.fit(
                    part,
                    min_bandwidth=self.min_bandwidth,
                    categories=getattr(self.space, "categories", ()),
                )
                for part in (rows[:num_good], rows[num_good:])
            )
            return good, bad
        return None

    def _propose(self) -> Tensor:
        models = self.densities()
        if models is None or self._uniform() < self.random_fraction:
            return super()._propose()
        good, bad = models
        drawn = good.sample(
            self.num_samples, factor=self.bandwidth_factor, generator=self._generator
        )
        smallest = math.log(_SMALLEST_DENSITY)
        rows = self.space.round(drawn)
        ratio = good.log_prob(rows).clamp_min(smallest) - bad.log_prob(rows).clamp_min(smallest)
        return rows[int(ratio.argmax())]

    def _uniform(self) -> float:
        return float(
            torch.rand(
                (), generator=self._generator, dtype=torch.float64, device=self._generator.device
            )
        )
