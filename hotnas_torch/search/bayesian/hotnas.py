"""HOTNAS: Bayesian optimisation of architectures with a Gaussian process on HOTNN distances."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from botorch.models.model import Model
from torch import Tensor

from hotnas_torch.arguments import takes
from hotnas_torch.search.bayesian.acquisition import name_of
from hotnas_torch.search.bayesian.averaged import AveragedSurrogate
from hotnas_torch.search.bayesian.recipe import CHOICE, POOL, Recipe, SearchSettings
from hotnas_torch.search.bayesian.surrogates import HOTNNSurrogate, Surrogate
from hotnas_torch.spaces import SearchSpace

__all__ = ["HOTNAS"]

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "hotnn": {},
    "distribution": {"model_options": {"distribution": "product"}},
    "paper": {
        "acquisition": "ucb",
        "random_fraction": 0.0,
        "transform": "none",
        "model_options": {"preset": "paper", "learn": []},
    },
}
"""Settings by name."""

# None leaves them to the preset.
_OF_PRESETS = ("acquisition", "random_fraction", "transform")


class HOTNAS(Recipe):
    """Bayesian optimisation with HOTNN: a Gaussian process, a pool of mutants, one after the other.

    By default, the model averages over kernels of HOTNN and of Weisfeiler-Lehman features
    (`AveragedSurrogate`, `gp.AveragedGP`). What is a setting of the model of HOTNN alone
    (`HOTNNSurrogate`, `gp.HOTNNGP`) chooses that one: `learn_from`, `model_options`, and all
    presets but the default.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        model_options: Settings of `gp.HOTNNGP`, ready for `json.dumps`, for example
            `{"eta": 0.3, "learn": []}`.
        model: Builds another BoTorch model from rows (n, d) and targets (n, 1), larger is better,
            and fits it.
        preset: `"hotnn"` has HOTNN alone in the model. `"paper"` sets what paper and poster print:
            UCB, a pool of mutants only, and the distance as in `HOTNN(preset="paper")`. What they
            leave to a supplement that is not public (trade-offs, the bound's schedule, sizes of
            pool and batch) is ours, see docs/definitions.md. `"distribution"` multiplies the kernel
            of HOTNN alone with one between operation distributions. Arguments that are passed win
            over the preset.
        **settings: Fields of `SearchSettings`, all of which it has. A pool is half random by
            default, which the paper's is not. And `learn_from`: observations from which the model
            of HOTNN alone learns the parameters of the distance as well, >= 0 (50); with fewer,
            they stay at their starts.

    Raises:
        TypeError, ValueError: A setting that is unknown, of the wrong kind or out of range.

    Complexity: one fit of the model per `ask`; one HOTNN distance per pair of a candidate and an
        observation.

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
        ... )
        >>> for num in (4, 2):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [1.0 + net.spec.count("0") for net in nets])
        >>> len(strategy.observations)
        6
    """

    name = "hotnas"

    @takes(*CHOICE, *POOL, "pending", "learn_from")
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        model_options: Mapping[str, Any] | None = None,
        model: Callable[[Tensor, Tensor], Model] | None = None,
        preset: Literal["default", "hotnn", "paper", "distribution"] = "default",
        **settings: Any,
    ) -> None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {preset!r}")
        if not (model is None or callable(model)):
            raise TypeError(f"model must be callable or None; got {model!r}")
        if model is not None and model_options:
            raise ValueError("model_options are settings of HOTNNGP; leave them out")
        chosen = dict(PRESETS[preset])
        of_preset = chosen.pop("model_options", {})
        for name in _OF_PRESETS:
            if name in settings and settings[name] is None:
                del settings[name]
        alone = preset != "default" or model_options is not None or "learn_from" in settings
        learning = {"learn_from": settings.pop("learn_from")} if "learn_from" in settings else {}
        surrogate: Surrogate | Callable[[Tensor, Tensor], Model] = AveragedSurrogate()
        record: dict[str, Any] = {"model": "averaged"}
        if alone or model is not None:
            options = {} if model_options is None else model_options
            given = HOTNNSurrogate(model_options=options, **learning)
            surrogate = HOTNNSurrogate(given.learn_from, of_preset | dict(given.model_options))
            record = surrogate.settings() | {"model": None}
        if model is not None:
            surrogate, record = model, record | {"model": name_of(model)}
        super().__init__(
            space,
            SearchSettings.of(chosen | settings),
            surrogate,
            generator=generator,
            record=record,
        )
