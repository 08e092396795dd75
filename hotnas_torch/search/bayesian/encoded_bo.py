"""Bayesian optimisation with a Gaussian process on exact encodings, to compare with."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from botorch.models.model import Model
from torch import Tensor

from hotnas_torch.arguments import integer
from hotnas_torch.gp import NetworkFeatures
from hotnas_torch.search.bayesian.acquisition import Acquisition
from hotnas_torch.search.bayesian.anasod_bo import fit_feature_gp
from hotnas_torch.search.bayesian.base import BayesianSearch
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.encodings import AdjacencyEncoding, PathEncoding

__all__ = ["EncodedBO"]

# Of ANASOD-BO, for points of the simplex.
_LENGTHSCALE = (0.01, 0.5)


class EncodedBO(BayesianSearch):
    r"""Bayesian optimisation as in ANASOD-BO, with an encoding that tells all networks apart.

    The Gaussian process is that of :class:`~hotnas_torch.search.ANASODBO`; networks are what is
    proposed. The range of its lengthscale, [0.01, 0.5] on the simplex, whose diameter is
    :math:`\sqrt 2`, grows in proportion to the largest distance between observed encodings, which
    lie further apart. As nothing can be drawn around a point of such an encoding, the paper's pool
    is random. A ``random_fraction`` below 1 adds mutants of the best networks.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        encoding: ``"adjacency"`` or ``"path"``, see
            :class:`~hotnas_torch.spaces.encodings.AdjacencyEncoding` and
            :class:`~hotnas_torch.spaces.encodings.PathEncoding`.
        max_length: Most operations of an encoded path; None: see ``PathEncoding``.
        num_initial: Random networks at the start, >= 2.
        acquisition: As for :class:`~hotnas_torch.search.HOTNAS`.
        pool_size: Candidates per choice of a batch, >= 1.
        num_parents: How many of the best networks are mutated, >= 1.
        random_fraction: Share of the pool that is drawn at random, in [0, 1].
        transform: As for :class:`~hotnas_torch.search.HOTNAS`.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.

    Reference: Wan et al., ANASOD, CVPR 2022, Fig. 3: Adj-BO and Path-BO.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = EncodedBO(
        ...     ht.spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0), num_initial=5
        ... )
        >>> for num in (5, 4):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [1.0 + net.spec.count("0") for net in nets])
        >>> len(strategy.observations)
        9
    """

    name = "encoded_bo"

    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        encoding: Literal["adjacency", "path"] = "adjacency",
        max_length: int | None = None,
        num_initial: int = 10,
        acquisition: Literal["log_ei", "ucb"] | Acquisition = "log_ei",
        pool_size: int = 500,
        num_parents: int = 10,
        random_fraction: float = 1.0,
        transform: Literal["none", "log"] = "log",
    ) -> None:
        super().__init__(
            space,
            generator=generator,
            num_initial=num_initial,
            acquisition=acquisition,
            pool_size=pool_size,
            num_parents=num_parents,
            random_fraction=random_fraction,
            transform=transform,
        )
        if encoding not in ("adjacency", "path"):
            raise ValueError(f"encoding must be 'adjacency' or 'path', got {encoding!r}.")
        if encoding == "adjacency" and max_length is not None:
            raise ValueError("max_length is a setting of encoding='path'; leave it out.")
        self.encoding = encoding
        self.max_length = None if max_length is None else integer("max_length", max_length)
        encode = (
            PathEncoding(space, max_length=self.max_length)
            if encoding == "path"
            else AdjacencyEncoding(space)
        )
        self._features = NetworkFeatures(space, encode)

    def settings(self) -> dict[str, Any]:
        """Returns all settings; a callable by its name."""
        return super().settings() | {"encoding": self.encoding, "max_length": self.max_length}

    def _fit(self, X: Tensor, Y: Tensor) -> Model:
        spread = float(torch.pdist(self._features(X)).max()) / math.sqrt(2.0)
        low, high = (edge * (spread or 1.0) for edge in _LENGTHSCALE)
        return fit_feature_gp(X, Y, self._features, lengthscale=(low, high))
