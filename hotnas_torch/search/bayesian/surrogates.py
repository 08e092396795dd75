# Over 400 lines: a surrogate each, beside each other.
"""What a search fits to the values that it observed: frozen parts of a search."""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models.model import Model
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import (
    checked_options,
    choice,
    integer,
    known_settings,
    number,
    refused_by,
)
from hotnas_torch.distances import NetworkDistance
from hotnas_torch.gp import HOTNNGP, DistanceGP, FeatureGP, PairMemory
from hotnas_torch.gp.memory import NumberedAnew
from hotnas_torch.gp.weisfeiler_lehman import WeisfeilerLehmanGP
from hotnas_torch.search.bayesian.acquisition import name_of
from hotnas_torch.search.bayesian.ensemble import EnsembleSettings, MLPEnsemble
from hotnas_torch.spaces import Joint, SearchSpace

__all__ = [
    "DistanceSurrogate",
    "EnsembleSurrogate",
    "FeatureSurrogate",
    "Fit",
    "FunctionSurrogate",
    "HOTNNSurrogate",
    "Surrogate",
    "WeisfeilerLehmanSurrogate",
]

Fit = Callable[[Tensor, Tensor, int, Tensor | None], Model]
"""Builds and fits a BoTorch model of rows (n, d) and targets (n, 1), larger is better. The third
argument is how many of the first observations its hyperparameters are to depend on, the last the
variances of the targets' noise, (n, 1), for models that take them; None is not known."""

Fitted = TypeVar("Fitted", bound=Model)

_LEAST_NOISE = 1e-5
# All but what the search itself passes.
_HOTNN_SETTINGS = known_settings(HOTNNGP, without=("train_X", "train_Y", "train_Yvar", "space"))
FIT_OPTIONS = {"maxiter": 60, "ftol": 1e-6, "gtol": 1e-4}
# Fits of distance kernels that are remembered: as many as one choice makes.
_LAST_FITS = 4
# Range of the lengthscale of ANASOD-BO, for points of the simplex, whose diameter is sqrt(2).
_LENGTHSCALE = (0.01, 0.5)


class Surrogate(ABC):
    """A model of the objective, described: `bind` makes what fits it in one search."""

    @abstractmethod
    def bind(self, space: SearchSpace, generator: torch.Generator) -> Fit:
        """Check the settings and return what fits the model, with a memory of its own.

        Args:
            space: What is searched.
            generator: Source of all randomness.

        Raises:
            TypeError, ValueError: A setting of the wrong kind or out of range.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return all settings, ready for `json.dumps`."""

    def num_learned(self, num: int, num_initial: int) -> int:
        """Return of how many of the first of `num` observations hyperparameters depend."""
        del num_initial
        return num


@dataclass(frozen=True)
class FunctionSurrogate(Surrogate):
    """Whatever a callable builds and fits.

    Attributes:
        function: Builds a BoTorch model from rows (n, d) and targets (n, 1), larger is better, and
            fits it.

    Raises:
        TypeError: It is not callable.
    """

    function: Callable[[Tensor, Tensor], Model]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"surrogate must be a Surrogate or a callable; got {self.function!r}")

    def bind(self, space: SearchSpace, generator: torch.Generator) -> Fit:
        """Return the callable."""
        del space, generator
        return lambda X, Y, *_: self.function(X, Y)

    def settings(self) -> dict[str, Any]:
        """Return the callable's name."""
        return {"function": name_of(self.function)}


@dataclass(frozen=True)
class HOTNNSurrogate(Surrogate):
    """A Gaussian process on HOTNN distances, `gp.HOTNNGP`, fitted by marginal likelihood.

    Attributes:
        learn_from: Observations from which the model learns the parameters of the distance as well
            (those that `model_options["learn"]` names, by default all that are not mere scales);
            with fewer, they stay at their starts, as few observations mislead them.
        model_options: Settings of `gp.HOTNNGP`, ready for `json.dumps`, for example
            `{"eta": 0.3, "learn": []}`.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.
    """

    learn_from: int = 50
    model_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "learn_from", integer("learn_from", self.learn_from, least=0))
        options = checked_options("model_options", self.model_options, _HOTNN_SETTINGS)
        object.__setattr__(self, "model_options", options)

    def bind(self, space: SearchSpace, generator: torch.Generator) -> Fit:
        """Return what fits the model."""
        del generator

        def build(X: Tensor, Y: Tensor, **options: Any) -> HOTNNGP:
            return HOTNNGP(X, Y, space=space, **(dict(self.model_options) | options))

        def fit(X: Tensor, Y: Tensor, _: int, noise: Tensor | None) -> Model:
            options: dict[str, Any] = {"learn": []} if len(X) < self.learn_from else {}
            return fit_model(lambda: build(X, Y, train_Yvar=noise, **options))

        # A model of any two networks says now what would be wrong later.
        X, Y = two_networks(space)
        if not X[0].equal(X[1]):
            with refused_by("model_options", self.model_options):
                build(X, Y)
        return fit

    def settings(self) -> dict[str, Any]:
        """Return all settings."""
        return {"learn_from": self.learn_from, "model_options": dict(self.model_options)}


@dataclass(frozen=True)
class DistanceSurrogate(Surrogate):
    """A Gaussian process on a distance that has no parameters to learn, `gp.DistanceGP`.

    Attributes:
        distance: Distance between networks of the space that is searched.
        refit_every: The kernel is fitted after the initial networks, and then after this many
            observations each time, >= 1; it has the same parameters in between.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.
    """

    distance: NetworkDistance
    refit_every: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.distance, NetworkDistance):
            raise TypeError(f"distance must be a NetworkDistance; got {self.distance!r}")
        object.__setattr__(self, "refit_every", integer("refit_every", self.refit_every, least=1))

    def num_learned(self, num: int, num_initial: int) -> int:
        """Return the number of observations at the last fit of the kernel."""
        # The first ones alone, so that a continued search has the same.
        return num - max(0, num - num_initial) % self.refit_every

    def bind(self, space: SearchSpace, generator: torch.Generator) -> Fit:
        """Return what fits the model, with one memory of distances."""
        del generator
        joint = space if isinstance(space, Joint) else None
        memory = PairMemory(self.distance)

        def build(X: Tensor, Y: Tensor, noise: Tensor | None) -> DistanceGP:
            # Numbered by the model's own rows, so that a continued search has the same roundings.
            own = NumberedAnew(memory)
            return DistanceGP(X, Y, noise, distance=self.distance, space=joint, memory=own)

        return refitted(build)

    def settings(self) -> dict[str, Any]:
        """Return the distance with its settings, and how often the kernel is fitted."""
        described = {"name": type(self.distance).__name__}
        if callable(config := getattr(self.distance, "config", None)):
            described |= config()
        return {"distance": described, "refit_every": self.refit_every}


@dataclass(frozen=True)
class WeisfeilerLehmanSurrogate(Surrogate):
    """A Gaussian process on Weisfeiler-Lehman features, `gp.WeisfeilerLehmanGP`.

    Attributes:
        levels: Levels of the kernel to choose from; None: see `gp.WeisfeilerLehmanGP`.
        aggregation: `"histogram"` or `"assignment"`; None: the one that fits the space.
        max_noise: Largest variance of the noise of standardised targets, > 1e-5.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.
    """

    levels: Sequence[int] | None = None
    aggregation: Literal["histogram", "assignment"] | None = None
    max_noise: float = 0.01

    def __post_init__(self) -> None:
        if self.levels is not None:
            if not isinstance(self.levels, list | tuple | range):
                raise TypeError(f"levels must be a sequence of int or None; got {self.levels!r}")
            levels = tuple(
                integer(f"levels[{n}]", level, least=0) for n, level in enumerate(self.levels)
            )
            if not levels:
                raise ValueError("levels must hold at least one level; got none")
            object.__setattr__(self, "levels", levels)
        if self.aggregation is not None:
            choice("aggregation", self.aggregation, ("histogram", "assignment"))
        object.__setattr__(self, "max_noise", number("max_noise", self.max_noise))
        if not _LEAST_NOISE < self.max_noise < math.inf:
            raise ValueError(
                f"max_noise must be finite and above {_LEAST_NOISE:g}; got {self.max_noise:g}"
            )

    def bind(self, space: SearchSpace, generator: torch.Generator) -> Fit:
        """Return what fits the model."""
        del generator

        def build(X: Tensor, Y: Tensor) -> WeisfeilerLehmanGP:
            return WeisfeilerLehmanGP(
                X,
                Y,
                space=space,
                levels=self.levels,
                aggregation=self.aggregation,
                noise_bounds=(_LEAST_NOISE, self.max_noise),
            )

        def fit(X: Tensor, Y: Tensor, *_: object) -> Model:
            model = build(X, Y)
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            return model

        # A model of any two networks says now what would be wrong later.
        build(*two_networks(space))
        return fit

    def settings(self) -> dict[str, Any]:
        """Return all settings."""
        return {
            "levels": None if self.levels is None else list(self.levels),
            "aggregation": self.aggregation,
            "max_noise": self.max_noise,
        }


@dataclass(frozen=True)
class EnsembleSurrogate(Surrogate):
    """An ensemble of neural networks on encoded architectures, `MLPEnsemble`.

    Its members train on batches of their own, so that it cannot observe its own mean: use the batch
    rule `PendingAware`.

    Attributes:
        encoding: Maps N networks to inputs (N, P).
        model_options: Fields of `EnsembleSettings` by name, for example `{"epochs": 50}`.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.
    """

    encoding: Callable[[Sequence[Network]], Tensor]
    model_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not callable(self.encoding):
            raise TypeError(f"encoding must be a callable; got {self.encoding!r}")
        options = checked_options(
            "model_options", self.model_options, known_settings(EnsembleSettings)
        )
        with refused_by("model_options", options):
            EnsembleSettings(**options)
        object.__setattr__(self, "model_options", options)

    def bind(self, space: SearchSpace, generator: torch.Generator) -> Fit:
        """Return what trains the ensemble."""

        def fit(X: Tensor, Y: Tensor, *_: object) -> Model:
            return MLPEnsemble(
                X,
                Y,
                space=space,
                encoding=self.encoding,
                generator=generator,
                **self.model_options,
            )

        return fit

    def settings(self) -> dict[str, Any]:
        """Return all settings; the encoding by its name."""
        return {"encoding": called(self.encoding), "model_options": dict(self.model_options)}


@dataclass(frozen=True)
class FeatureSurrogate(Surrogate):
    r"""A Gaussian process with a Matern-5/2 kernel on features of networks, `gp.FeatureGP`.

    The ranges of its hyperparameters are those of ANASOD-BO. That of the lengthscale, [0.01, 0.5]
    on the simplex, whose diameter is :math:`\sqrt 2`, grows in proportion to the largest distance
    between observed features, unless these are points of the simplex.

    Attributes:
        features: Maps rows (..., d) of the space to features (..., k), for example
            `gp.NetworkFeatures`.
        on_simplex: Whether features are points of the simplex.

    Raises:
        TypeError: `features` is not callable.

    Reference: Wan et al., ANASOD, CVPR 2022, Appendix A.1.
    """

    features: Callable[[Tensor], Tensor]
    on_simplex: bool = False

    def __post_init__(self) -> None:
        if not callable(self.features):
            raise TypeError(f"features must be a callable; got {self.features!r}")

    def bind(self, space: SearchSpace, generator: torch.Generator) -> Fit:
        """Return what fits the model."""
        del space, generator

        def fit(X: Tensor, Y: Tensor, *_: object) -> Model:
            ranges: dict[str, Any] = {}
            if not self.on_simplex:
                spread = float(torch.pdist(self.features(X)).max()) / 2.0**0.5
                ranges = {"lengthscale": tuple(edge * (spread or 1.0) for edge in _LENGTHSCALE)}
            return fit_model(lambda: FeatureGP(X, Y, self.features, **ranges))

        return fit

    def settings(self) -> dict[str, Any]:
        """Return all settings; the features by their name."""
        return {"features": called(self.features), "on_simplex": self.on_simplex}


def fit_model(build: Callable[[], Fitted], **options: Any) -> Fitted:
    """Build a model and maximise its marginal likelihood; where that fails, keep its start."""
    model = build()
    try:
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model), **options)
    except ModelFittingError:
        # The starting values are a usable model, too.
        model = build()
    model.eval()
    return model


def refitted(build: Callable[[Tensor, Tensor, Tensor | None], Fitted]) -> Fit:
    """Return what builds models with the parameters that suit the first observations.

    Args:
        build: Builds a model from rows, targets and variances of their noise.
    """
    # With their data, the latest last.
    last: deque[tuple[tuple[Tensor | None, ...], Fitted]] = deque(maxlen=_LAST_FITS)

    def learned(X: Tensor, Y: Tensor, noise: Tensor | None) -> Fitted:
        data = (X, Y, noise)
        for known, fitted in last:
            if all(map(_same, data, known)):
                return fitted
        model = fit_model(lambda: build(X, Y, noise), optimizer_kwargs={"options": FIT_OPTIONS})
        last.append((data, model))
        return model

    def fit(X: Tensor, Y: Tensor, num_learned: int, noise: Tensor | None) -> Model:
        first = num_learned
        if first < 2 or bool((Y[:first] == Y[0]).all()):
            first = len(X)
        fitted = learned(X[:first], Y[:first], None if noise is None else noise[:first])
        if first == len(X):
            return fitted
        model = build(X, Y, noise)
        with torch.no_grad():
            for own, found in zip(model.parameters(), fitted.parameters(), strict=True):
                own.copy_(found)
        model.eval()
        return model

    return fit


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


def two_networks(space: SearchSpace) -> tuple[Tensor, Tensor]:
    """Rows and targets of any two networks."""
    nets = space.sample(2, generator=torch.Generator().manual_seed(0))
    return space.encode(nets), torch.tensor([[0.0], [1.0]], dtype=torch.float64)


def called(function: Callable[..., object]) -> str:
    """Return the name of a function, or of the kind of a callable object."""
    return str(getattr(function, "__qualname__", type(function).__name__))
