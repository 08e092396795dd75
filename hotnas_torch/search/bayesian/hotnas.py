"""HOTNAS: Bayesian optimisation of architectures with a Gaussian process on HOTNN distances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models.model import Model
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from hotnas_torch.arguments import integer
from hotnas_torch.gp import HOTNNGP, ModelSettings
from hotnas_torch.search.bayesian.acquisition import Acquisition, name_of
from hotnas_torch.search.bayesian.base import BayesianSearch
from hotnas_torch.search.bayesian.options import checked_options, refused_by, settings_of
from hotnas_torch.spaces import SearchSpace

__all__ = ["HOTNAS"]

ModelFactory = Callable[[Tensor, Tensor], Model]

_MODEL_SETTINGS = settings_of(HOTNNGP) + tuple(ModelSettings.__annotations__)

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "distribution": {"model_options": {"distribution": "product"}},
    "paper": {
        "acquisition": "ucb",
        "random_fraction": 0.0,
        "transform": "none",
        "model_options": {
            "pairs": "ordered",
            "linear_term": "literal",
            "normalize": False,
            "mass": "channels",
            "zeta": 0.0,
            "learn": [],
        },
    },
}
"""Settings by name; ``"paper"`` is as printed, as far as the paper says."""

_DEFAULTS: dict[str, Any] = {
    "acquisition": "log_ei",
    "random_fraction": 0.5,
    "transform": "log",
    "model_options": {},
}


class HOTNAS(BayesianSearch):
    """Bayesian optimisation with HOTNN: fit, build a pool around the best, take the most promising.

    The first ``num_initial`` networks are random. After them, each :meth:`ask` fits a Gaussian
    process to everything told, draws a pool of unseen networks (mutants of the best ones, and
    random ones), and takes from it the network with the largest acquisition value. For a batch, and
    for networks that are pending, the model is told its own mean as if it had been observed
    (kriging believer), and the next network is taken.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        num_initial: Random networks at the start, >= 2.
        acquisition: ``"log_ei"``, ``"ucb"``, or a callable that builds a BoTorch acquisition
            function, see :data:`~hotnas_torch.search.bayesian.acquisition.Acquisition`.
        pool_size: Candidates per choice of a batch, >= 1.
        num_parents: How many of the best networks are mutated, >= 1.
        random_fraction: Share of the pool that is drawn at random, in [0, 1]; 0 is the paper.
        transform: ``"log"``: the model sees the logarithm of the values, when all of them are
            positive (errors and losses are); ``"none"``: the values themselves.
        pending: ``"believer"``: see above; ``"acquisition"``: the model is left alone and the
            acquisition function gets the pending rows, for those of BoTorch that take
            ``X_pending``.
        learn_from: Observations from which the model learns the parameters of the distance as well
            (those that ``model_options["learn"]`` names, by default all that are not mere scales);
            with fewer, they stay at their starts, as few observations mislead them.
        model_options: Settings of :class:`~hotnas_torch.gp.HOTNNGP`, ready for ``json.dumps``, for
            example ``{"eta": 0.3, "learn": []}``.
        model: Builds another BoTorch model from rows (n, d) and targets (n, 1), larger is better,
            and fits it; None builds and fits a ``HOTNNGP``.
        preset: ``"paper"`` sets what the paper prints: UCB with its schedule, a pool of mutants
            only, and the distance as in ``HOTNN(preset="paper")`` with fixed trade-offs. Arguments
            that are passed win over the preset. ``"distribution"`` multiplies the kernel with one
            between operation distributions, see :class:`~hotnas_torch.gp.HOTNNGP`.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.

    Complexity: one fit of the model per :meth:`ask`; one HOTNN distance per pair of a candidate and
        an observation.

    Reference: Yang, Liu and Xu, HOTNAS: Hierarchical Optimal Transport for Neural Architecture
        Search, CVPR 2023, Algorithm 1 of the poster.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBenchMacro()
        >>> strategy = HOTNAS(
        ...     space,
        ...     generator=torch.Generator().manual_seed(0),
        ...     num_initial=4,
        ...     pool_size=20,
        ...     model_options={"learn": []},
        ... )
        >>> for num in (4, 2):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [1.0 + net.spec.count("0") for net in nets])
        >>> len(strategy.observations)
        6
    """

    name = "hotnas"

    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        num_initial: int = 10,
        acquisition: Literal["log_ei", "ucb"] | Acquisition | None = None,
        pool_size: int = 500,
        num_parents: int = 10,
        random_fraction: float | None = None,
        transform: Literal["none", "log"] | None = None,
        pending: Literal["believer", "acquisition"] = "believer",
        learn_from: int = 50,
        model_options: Mapping[str, Any] | None = None,
        model: ModelFactory | None = None,
        preset: Literal["default", "paper", "distribution"] = "default",
    ) -> None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
        chosen = _DEFAULTS | PRESETS[preset]
        for argument, passed in (
            ("acquisition", acquisition),
            ("random_fraction", random_fraction),
            ("transform", transform),
        ):
            if passed is not None:
                chosen[argument] = passed
        super().__init__(
            space,
            generator=generator,
            num_initial=num_initial,
            acquisition=chosen["acquisition"],
            pool_size=pool_size,
            num_parents=num_parents,
            random_fraction=chosen["random_fraction"],
            transform=chosen["transform"],
            pending=pending,
        )
        self.learn_from = integer("learn_from", learn_from, least=0)
        if not (model is None or callable(model)):
            raise TypeError(f"model must be callable or None, got {model!r}.")
        if model is not None and model_options:
            raise ValueError("model_options are settings of the default model; leave them out.")
        given = checked_options("model_options", model_options, _MODEL_SETTINGS)
        self.model_options = chosen["model_options"] | given
        self._factory = model
        # A model of any two networks says now what would be wrong later.
        probe = space.sample(2, generator=torch.Generator().manual_seed(0))
        if model is None and len({space.key(net) for net in probe}) == 2:
            with refused_by("model_options", given):
                self._model(space.encode(probe), torch.tensor([[0.0], [1.0]], dtype=torch.float64))

    def settings(self) -> dict[str, Any]:
        """Returns all settings; a callable by its name."""
        return super().settings() | {
            "learn_from": self.learn_from,
            "model_options": self.model_options,
            "model": None if self._factory is None else name_of(self._factory),
        }

    def _fit(self, X: Tensor, Y: Tensor) -> Model:
        if self._factory is not None:
            return self._factory(X, Y)
        options: dict[str, Any] = {"learn": []} if len(X) < self.learn_from else {}
        model = self._model(X, Y, **options)
        try:
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        except ModelFittingError:
            # The starting values are a usable model, too.
            model = self._model(X, Y, **options)
        return model.eval()

    def _model(self, X: Tensor, Y: Tensor, **options: Any) -> HOTNNGP:
        return HOTNNGP(X, Y, space=self.space, **(self.model_options | options))
