"""Optuna's test cases of samplers, on strategies as samplers.

Those of relative sampling are for samplers that choose parameters together; ours returns one
network's values one by one, as Optuna's RandomSampler does.
"""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
import torch
from optuna.samplers import BaseSampler
from optuna.testing import pytest_samplers

from benchmarks.peers.record import reached
from hotnas_torch import spaces
from hotnas_torch.integrations.optuna import StrategySampler
from hotnas_torch.search import HOTNAS, RandomSearch, RegularizedEvolution, Strategy

optuna.logging.set_verbosity(optuna.logging.WARNING)

_STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "RandomSearch": RandomSearch,
    "RegularizedEvolution": RegularizedEvolution,
    "HOTNAS": HOTNAS,
}


class _Counted(StrategySampler):
    """A sampler whose calls count as reaching us."""

    def before_trial(self, *args: Any) -> None:
        reached("StrategySampler")
        super().before_trial(*args)

    def sample_independent(self, *args: Any) -> Any:
        reached("StrategySampler")
        return super().sample_independent(*args)


class _Strategies:
    @pytest.fixture(params=list(_STRATEGIES))
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        """Make a sampler of a strategy with its defaults."""

        def make() -> BaseSampler:
            generator = torch.Generator().manual_seed(0)
            return _Counted(_STRATEGIES[request.param](spaces.NASBenchMacro(), generator=generator))

        return make


class TestBasic(_Strategies, pytest_samplers.BasicSamplerTestCase):
    """What every sampler can do."""


class TestSingleOnly(_Strategies, pytest_samplers.SingleOnlySamplerTestCase):
    """Samplers for one objective refuse several."""
