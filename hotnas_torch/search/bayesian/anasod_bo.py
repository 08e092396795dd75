"""ANASOD-BO: Bayesian optimisation over operation distributions."""

from typing import Any, Literal

import torch
from torch import Tensor

from hotnas_torch.arguments import takes
from hotnas_torch.search.bayesian.batches import Believer, PendingAware
from hotnas_torch.search.bayesian.pools import EncodingPool
from hotnas_torch.search.bayesian.recipe import CHOICE, Recipe, SearchSettings
from hotnas_torch.search.bayesian.surrogates import EnsembleSurrogate, FeatureSurrogate, Surrogate
from hotnas_torch.search.bayesian.trust_region import DirichletTrustRegion
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.encodings import encoding_of

__all__ = ["ANASODBO"]


class ANASODBO(Recipe):
    """Bayesian optimisation over encodings, each standing for the networks that share it.

    A model from encodings to values, and an `EncodingPool`: candidate encodings around the best
    one, one network of each, not seen before.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        num_candidates: Encodings drawn per choice, >= 1; None takes min(100 k, 5000) for k
            operations.
        optimizer: `"sample"`: the candidates as they were drawn; `"gradient"`: the most promising
            of them also ascend the acquisition function before they are rounded.
        trust_region: How closely candidates keep to the best; None draws them from the whole
            simplex at all times.
        surrogate: `"gp"`: a Gaussian process with a Matern-5/2 kernel in the paper's ranges;
            `"ensemble"`: the neural networks of `BANANAS`, for which pending networks count for
            nothing.
        **settings: Of `SearchSettings`: `num_initial`, `transform`, `acquisition`. By default, the
            latter is `"log_ei"` with a Gaussian process, whose maximum is that of the paper's
            expected improvement, and `"its"` with an ensemble.

    Raises:
        TypeError, ValueError: A setting that is unknown, of the wrong kind or out of range; the
            space has no operation encoding; `optimizer="gradient"` with an ensemble.

    Complexity: one fit in O(n^3) for n observations and O(c n^2) for c candidates per `ask`.

    Reference: Wan et al., ANASOD, CVPR 2022, Algorithm 2 and Appendix A.1.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = ANASODBO(
        ...     ht.spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0), num_initial=5
        ... )
        >>> for num in (5, 4, 4):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [1.0 + net.spec.count("0") for net in nets])
        >>> strategy.best.value
        1.0
    """

    name = "anasod_bo"

    @takes(*CHOICE)
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        num_candidates: int | None = None,
        optimizer: Literal["sample", "gradient"] = "sample",
        trust_region: DirichletTrustRegion | None = DirichletTrustRegion(),  # noqa: B008 - frozen
        surrogate: Literal["gp", "ensemble"] = "gp",
        **settings: Any,
    ) -> None:
        if surrogate not in ("gp", "ensemble"):
            raise ValueError(f"surrogate must be 'gp' or 'ensemble'; got {surrogate!r}")
        if optimizer == "gradient" and surrogate == "ensemble":
            raise ValueError("optimizer must be 'sample' with an ensemble; got 'gradient'")
        self.encoding = encoding = encoding_of(check_space(space))
        pool = EncodingPool(num_candidates, optimizer, trust_region, encoding)
        model: Surrogate = FeatureSurrogate(encoding.of_rows, on_simplex=True)
        if surrogate == "ensemble":
            model = EnsembleSurrogate(encoding.encode)
        if settings.get("acquisition") is None:
            settings["acquisition"] = None if surrogate == "gp" else "its"
        super().__init__(
            space,
            SearchSettings.of(settings),
            model,
            generator=generator,
            pool=pool,
            batch=Believer() if surrogate == "gp" else PendingAware(),
            record={
                "num_candidates": pool.size(encoding.num_operations),
                "surrogate": surrogate,
            },
        )
        del self._record["pending"]

    @property
    def best_encoding(self) -> Tensor | None:
        """The encoding of the best network so far, (k,) float64; None without a value."""
        best = self._leading()
        return None if best is None else self.encoding.encode([best.network])[0]

    @property
    def beta(self) -> float:
        """How closely candidates keep to the best encoding; 0 is not at all."""
        assert isinstance(self.pool, EncodingPool)
        return self.pool.beta(list(self._judged().values()), self.num_initial)
