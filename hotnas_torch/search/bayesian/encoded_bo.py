"""Bayesian optimisation with a Gaussian process on exact encodings, to compare with."""

from typing import Any, Literal

import torch

from hotnas_torch.arguments import takes
from hotnas_torch.gp import NetworkFeatures
from hotnas_torch.search.bayesian.recipe import (
    CHOICE,
    POOL,
    Recipe,
    SearchSettings,
    network_encoding,
)
from hotnas_torch.search.bayesian.surrogates import FeatureSurrogate
from hotnas_torch.spaces import SearchSpace

__all__ = ["EncodedBO"]


class EncodedBO(Recipe):
    """Bayesian optimisation as in ANASOD-BO, with an encoding that tells all networks apart.

    The model is a `FeatureSurrogate`, as that of `ANASODBO`; networks are what is proposed. As
    nothing can be drawn around a point of such an encoding, the paper's pool is random. A
    `random_fraction` below 1 adds mutants of the best networks.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        encoding: `"adjacency"` or `"path"`, by `AdjacencyEncoding` or `PathEncoding`.
        max_length: Most operations of an encoded path; None takes what `PathEncoding` does.
        **settings: Of `SearchSettings`: all but `pending`; `random_fraction` is 1 by default.

    Raises:
        TypeError, ValueError: A setting that is unknown, of the wrong kind or out of range.

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

    @takes(*CHOICE, *POOL)
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        encoding: Literal["adjacency", "path"] = "adjacency",
        max_length: int | None = None,
        **settings: Any,
    ) -> None:
        encode = network_encoding(space, encoding, max_length)
        super().__init__(
            space,
            SearchSettings.of({"random_fraction": 1.0} | settings),
            FeatureSurrogate(NetworkFeatures(space, encode)),
            generator=generator,
            record={
                "encoding": encoding,
                "max_length": None if max_length is None else int(max_length),
            },
        )
