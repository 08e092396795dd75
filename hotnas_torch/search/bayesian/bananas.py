"""BANANAS: an ensemble of neural networks on paths, and Thompson sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.models.model import Model
from torch import Tensor

from hotnas_torch.arguments import integer
from hotnas_torch.search.bayesian.acquisition import Acquisition, AcquisitionInputs
from hotnas_torch.search.bayesian.base import BayesianSearch
from hotnas_torch.search.bayesian.ensemble import MLPEnsemble
from hotnas_torch.search.bayesian.options import checked_options, refused_by, settings_of
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.encodings import AdjacencyEncoding, PathEncoding

__all__ = ["BANANAS", "ThompsonSampling"]


@dataclass(frozen=True, slots=True)
class ThompsonSampling:
    """Independent Thompson sampling: a draw from N(mean, variance) for each candidate by itself.

    The largest draw wins. Draws come from torch's global source, which
    :class:`~hotnas_torch.search.BayesianSearch` seeds for the time of a choice.
    """

    def __call__(self, model: Model, inputs: AcquisitionInputs) -> AcquisitionFunction:
        """Builds the acquisition function."""
        del inputs
        return _Draw(model)


class _Draw(AcquisitionFunction):
    def forward(self, X: Tensor) -> Tensor:
        """Draws for rows (N, 1, d), (N,)."""
        posterior: Any = self.model.posterior(X)
        mean: Tensor = posterior.mean.flatten()
        deviation: Tensor = posterior.variance.sqrt().flatten()
        return mean + deviation * torch.randn_like(mean)


class BANANAS(BayesianSearch):
    """Search with an ensemble of neural networks in place of a Gaussian process.

    The model is :class:`~hotnas_torch.search.bayesian.ensemble.MLPEnsemble` on encoded networks,
    everything else is described with :class:`BayesianSearch`. Defaults are those of the method's
    code: five networks of ten layers, independent Thompson sampling, a pool of 100 mutants of the
    single best network, plain values. The method asks for 10 networks at once: ``ask(10)`` trains
    the ensemble once and takes the largest draws.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        num_initial: Random networks at the start, >= 2.
        acquisition: ``"its"``, or what `BayesianSearch` takes.
        pool_size: Candidates per choice of a batch, >= 1.
        num_parents: How many of the best networks are mutated, >= 1.
        random_fraction: Share of the pool that is drawn at random, in [0, 1].
        transform: See `BayesianSearch`.
        encoding: ``"path"`` or ``"adjacency"``, see `PathEncoding` and `AdjacencyEncoding`.
        max_length: Most operations of an encoded path; None: see `PathEncoding`.
        model_options: Settings of the ensemble, for example ``{"epochs": 50}``.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.

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

    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        num_initial: int = 10,
        acquisition: Literal["its", "log_ei", "ucb"] | Acquisition = "its",
        pool_size: int = 100,
        num_parents: int = 1,
        random_fraction: float = 0.0,
        transform: Literal["none", "log"] = "none",
        encoding: Literal["path", "adjacency"] = "path",
        max_length: int | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            space,
            generator=generator,
            num_initial=num_initial,
            acquisition=ThompsonSampling() if acquisition == "its" else acquisition,
            pool_size=pool_size,
            num_parents=num_parents,
            random_fraction=random_fraction,
            transform=transform,
            pending="acquisition",
        )
        if encoding not in ("path", "adjacency"):
            raise ValueError(f"encoding must be 'path' or 'adjacency', got {encoding!r}.")
        if encoding == "adjacency" and max_length is not None:
            raise ValueError("max_length is a setting of encoding='path'; leave it out.")
        self.encoding = encoding
        self.max_length = None if max_length is None else integer("max_length", max_length)
        self.model_options = checked_options(
            "model_options", model_options, settings_of(MLPEnsemble)
        )
        self._encode = (
            PathEncoding(space, max_length=self.max_length)
            if encoding == "path"
            else AdjacencyEncoding(space)
        )
        # An untrained ensemble says now what would be wrong later.
        nets = space.sample(2, generator=torch.Generator().manual_seed(0))
        values = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        with refused_by("model_options", self.model_options):
            self._ensemble(space.encode(nets), values, torch.Generator(), {})

    def settings(self) -> dict[str, Any]:
        """Returns all settings; a callable by its name."""
        return super().settings() | {
            "encoding": self.encoding,
            "max_length": self.max_length,
            "model_options": self.model_options,
        }

    def _fit(self, X: Tensor, Y: Tensor) -> Model:
        return self._ensemble(X, Y, self._generator, {})

    def _ensemble(
        self, X: Tensor, Y: Tensor, generator: torch.Generator, options: dict[str, Any]
    ) -> MLPEnsemble:
        return MLPEnsemble(
            X,
            Y,
            space=self.space,
            encoding=self._encode,
            generator=generator,
            **(self.model_options | options),
        )
