"""BANANAS: an ensemble of neural networks on paths, and Thompson sampling."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from hotnas_torch.arguments import takes
from hotnas_torch.search.bayesian.recipe import (
    CHOICE,
    POOL,
    Recipe,
    SearchSettings,
    network_encoding,
)
from hotnas_torch.search.bayesian.surrogates import EnsembleSurrogate
from hotnas_torch.spaces import SearchSpace

__all__ = ["BANANAS"]

_DEFAULTS: dict[str, Any] = {
    "acquisition": "its",
    "transform": "none",
    "pool_size": 100,
    "num_parents": 1,
    "random_fraction": 0.0,
    "pending": "acquisition",
}


class BANANAS(Recipe):
    """Search with an ensemble of neural networks in place of a Gaussian process.

    Defaults are those of the method's code: five networks of ten layers, independent Thompson
    sampling, a pool of 100 mutants of the single best network, plain values. The method asks for 10
    networks at once: `ask(10)` trains the ensemble once and takes the largest draws.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        encoding: `"path"` or `"adjacency"`, by `PathEncoding` or `AdjacencyEncoding`.
        max_length: Most operations of an encoded path; None takes what `PathEncoding` does.
        model_options: Fields of `EnsembleSettings` by name, for example `{"epochs": 50}`.
        **settings: Of `SearchSettings`: all but `pending`.

    Raises:
        TypeError, ValueError: A setting that is unknown, of the wrong kind or out of range.

    Reference: White, Neiswanger and Savani, BANANAS: Bayesian Optimization with Neural
        Architectures for Neural Architecture Search, AAAI 2021.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = BANANAS(
        ...     ht.spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0)
        ... )
        >>> for _ in range(3):
        ...     nets = strategy.ask(10)
        ...     strategy.tell(nets, [float(net.spec.count("0")) for net in nets])
        >>> strategy.best.value
        0.0
    """

    name = "bananas"

    @takes(*CHOICE, *POOL)
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        encoding: Literal["path", "adjacency"] = "path",
        max_length: int | None = None,
        model_options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        encode = network_encoding(space, encoding, max_length)
        surrogate = EnsembleSurrogate(encode, {} if model_options is None else model_options)
        super().__init__(
            space,
            SearchSettings.of(_DEFAULTS | settings),
            surrogate,
            generator=generator,
            record={
                "encoding": encoding,
                "max_length": None if max_length is None else int(max_length),
                "model_options": surrogate.settings()["model_options"],
            },
        )
