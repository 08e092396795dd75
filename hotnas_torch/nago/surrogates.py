"""What a multi-objective search fits to its values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.model import Model
from botorch.models.model_list_gp_regression import ModelListGP
from gpytorch.mlls import SumMarginalLogLikelihood
from torch import Tensor

from hotnas_torch.arguments import integer, number
from hotnas_torch.nago.bnn import BNN, Sampling
from hotnas_torch.search.randomness import draw_seed, seeded

__all__ = ["BNNSurrogate", "GPSurrogate", "Surrogate"]

Surrogate = Callable[[Tensor, Tensor, torch.Generator], Model]
"""Builds and fits a BoTorch model of rows (n, d) and targets (n, m), larger is better."""


@dataclass(frozen=True, slots=True)
class BNNSurrogate:
    """Bayesian networks, see `BNN`.

    Attributes:
        noise: Whether noise depends on the point.
        num_layers: Hidden layers.
        width: Units per hidden layer.
        sampling: How networks are drawn.
        weight_scale: How steep functions may be a priori, > 0.
    """

    noise: Literal["heteroscedastic", "homoscedastic"] = "heteroscedastic"
    num_layers: int = 3
    width: int = 10
    sampling: Sampling = field(default_factory=Sampling)
    weight_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.noise not in ("heteroscedastic", "homoscedastic"):
            raise ValueError(
                f"noise must be 'heteroscedastic' or 'homoscedastic'; got {self.noise!r}"
            )
        for name in ("num_layers", "width"):
            object.__setattr__(self, name, integer(name, getattr(self, name), least=1))
        if not isinstance(self.sampling, Sampling):
            raise TypeError(f"sampling must be a Sampling; got {self.sampling!r}")
        number("weight_scale", self.weight_scale, above=0.0)

    def __call__(self, X: Tensor, Y: Tensor, generator: torch.Generator) -> Model:
        """Draw networks from their posterior."""
        return BNN(
            X,
            Y,
            noise=self.noise,
            num_layers=self.num_layers,
            width=self.width,
            weight_scale=self.weight_scale,
            sampling=self.sampling,
            generator=generator,
        )


@dataclass(frozen=True, slots=True)
class GPSurrogate:
    """BoTorch's Gaussian process with its default kernel, one for each objective."""

    def __call__(self, X: Tensor, Y: Tensor, generator: torch.Generator) -> Model:
        """Maximise the marginal likelihood."""
        model = _processes(X, Y)
        seed = draw_seed(generator)
        try:
            with seeded(seed):
                fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        except ModelFittingError:
            # The starting values are a usable model, too.
            model = _processes(X, Y)
        return model.eval()


def _processes(X: Tensor, Y: Tensor) -> ModelListGP:
    return ModelListGP(*(SingleTaskGP(X, targets[:, None]) for targets in Y.unbind(dim=1)))
