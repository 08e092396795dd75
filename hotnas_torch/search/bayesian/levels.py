"""Levels of fidelity as models see them: on one scale, with an offset of each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.search.bayesian.targets import target_variances, targets

__all__ = ["Level", "Offsets", "aligned"]

# How closely neighbouring levels are taken to be correlated over all networks, when values of one
# are brought to the scale of the other; and for how many networks it counts that they vary alike.
_CORRELATION = 0.8
_PRIOR_NETWORKS = 3.0


@dataclass(frozen=True, slots=True)
class Level:
    """The level of a pair, as a number that is known without evaluation."""

    name: str

    def __call__(self, net: Network) -> float:
        """Return it."""
        values: Mapping[str, Any] = getattr(net, "values", {})
        return float(values[self.name])


@dataclass(frozen=True, slots=True)
class Offsets:
    """Indicators of all levels but the first, whose weights in a prior mean are offsets.

    Attributes:
        num_levels: How many levels there are; their places are the last column of rows.
    """

    num_levels: int

    def __call__(self, rows: Tensor) -> Tensor:
        """Return them of rows (..., d), (..., num_levels - 1)."""
        places = torch.arange(1, self.num_levels, device=rows.device)
        return (rows[..., -1:] == places).to(rows.dtype)


def aligned(
    losses: Tensor,
    places: Tensor,
    networks: Sequence[str],
    *,
    transform: Literal["none", "log"] = "none",
    noise: Tensor | None = None,
    num_reference: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    r"""Return targets of all levels on one scale, that of the lowest with mean 0 and deviation 1.

    Networks that reach a level are a selection, so that mean and deviation of their values are not
    those of all networks. With t the targets of the same networks at the level below (0 where there
    is none, with a variance of 1), and y the targets of a level,

    .. math:: y = a + b (\rho t + \sqrt{1 - \rho^2} e)

    for e of mean 0 and variance 1 gives a and b by the moments of both; few networks move b little
    from the deviation of the level below.

    Args:
        losses: (n,) float64, finite, smaller is better.
        places: Of the levels, (n,) int.
        networks: What tells the networks apart.
        transform: As for `targets`, within each level.
        noise: Variances of the losses' noise, (n,).
        num_reference: How many of the first losses decide on the scales; None takes all, as where
            a level has none of these.

    Returns:
        Targets, larger is better, and variances of their noise, (n,) each.
    """
    found = torch.zeros_like(losses)
    variances = None if noise is None else torch.zeros_like(losses)
    below: dict[str, float] = {}
    scale = 1.0
    for order, place in enumerate(places.unique().tolist()):
        own = (places == place).nonzero().flatten()
        first = int((own < len(losses) if num_reference is None else own < num_reference).sum())
        first = first or len(own)
        every = targets(losses[own], transform=transform, num_reference=first)
        y, names = every[:first], [networks[n] for n in own.tolist()]
        deviation = float(y.std(correction=0))
        if order == 0:
            centre, scale = y.mean(), deviation or 1.0
        else:
            # 0 and a variance of 1 where nothing is known at the level below.
            t = torch.tensor([below.get(name, 0.0) for name in names[:first]], dtype=y.dtype)
            unknown = sum(name not in below for name in names[:first]) / first
            spread = float(t.var(correction=0)) + unknown
            expected = _CORRELATION**2 * spread + 1.0 - _CORRELATION**2
            weight = (first - 1) / (first - 1 + _PRIOR_NETWORKS)
            scale = math.sqrt(weight * deviation**2 / expected + (1.0 - weight) * scale**2)
            centre = y.mean() - scale * _CORRELATION * t.mean()
        found[own] = (every - centre) / scale
        if variances is not None and noise is not None:
            of_level = target_variances(
                noise[own], losses[own], transform=transform, num_reference=first
            )
            variances[own] = of_level / scale**2
        below |= dict(zip(names, found[own].tolist(), strict=True))
    return found, variances
