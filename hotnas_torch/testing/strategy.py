"""What every search strategy has to keep, as tests."""

import json
import math
from abc import ABC, abstractmethod

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.arch import Network
from hotnas_torch.search import Strategy
from hotnas_torch.spaces import SearchSpace

__all__ = ["StrategyContract"]


def toy_value(net: Network) -> float:
    """Return a smooth value for NAS-Bench-Macro strings: 0 for `22222222`, at most 16.8."""
    return sum(
        (2 - int(digit)) * (1.0 + 0.01 * place) for place, digit in enumerate(net.spec)
    ) + 0.05 * net.spec.count("1")


class StrategyContract(ABC):
    """Subclass it as `class TestMyStrategy(StrategyContract)` and define `make`.

    Attributes:
        model_free: Whether the strategy ignores values, so that it cannot beat random search.
        least_rank_correlation: Of the predictions of `strategy.model`, of which larger is better,
            with the values of networks that it has not seen; None for strategies without a model.
    """

    # Some of the values here mean nothing, as a search would say.
    pytestmark = pytest.mark.filterwarnings("ignore::hotnas_torch.errors.NoiseWarning")

    model_free: bool = False
    least_rank_correlation: float | None = None

    @abstractmethod
    def make(self, space: SearchSpace, generator: torch.Generator) -> Strategy:
        """Build a strategy whose settings let it learn within 30 evaluations."""

    def space(self) -> SearchSpace:
        """Return the space that is searched, one with NAS-Bench-Macro strings."""
        return spaces.NASBenchMacro()

    def value(self, net: Network) -> float:
        """Return the value of a network of `space`."""
        return toy_value(net)

    def strategy(self, seed: int = 0, space: SearchSpace | None = None) -> Strategy:
        """Build a strategy from a seed."""
        return self.make(
            self.space() if space is None else space, torch.Generator().manual_seed(seed)
        )

    def step(self, strategy: Strategy, num: int) -> list[str]:
        """Ask once, tells the values, and returns the strings of what was asked."""
        nets = strategy.ask(num)
        strategy.tell(nets, [self.value(net) for net in nets])
        return [net.spec for net in nets]

    # --- asking -----------------------------------------------------------------------------------

    def test_asks_for_networks_of_the_space_each_once(self) -> None:
        strategy = self.strategy()
        keys = []
        for num in (1, 4, 3, 4, 4):
            nets = strategy.ask(num)
            assert len(nets) == num
            assert all(strategy.space.contains(net) for net in nets)
            keys += [strategy.space.key(net) for net in nets]
            strategy.tell(nets, [self.value(net) for net in nets])
        assert len(set(keys)) == len(keys)

    def test_does_not_ask_again_for_what_is_pending_or_was_observed_unasked(self) -> None:
        strategy = self.strategy()
        known = strategy.space.sample(8, generator=torch.Generator().manual_seed(5), distinct=True)
        strategy.tell(known, [self.value(net) for net in known])
        asked = strategy.ask(3)
        asked += strategy.ask(3)
        assert strategy.pending == tuple(asked)
        keys = [strategy.space.key(net) for net in (*known, *asked)]
        assert len(set(keys)) == len(keys)

    def test_does_not_ask_for_what_others_evaluate(self) -> None:
        strategy = self.strategy()
        others = strategy.space.sample(6, generator=torch.Generator().manual_seed(5), distinct=True)
        strategy.tell(others[:1], [self.value(others[0])])
        strategy.expect(others)
        asked = strategy.ask(4)
        assert strategy.pending == (*others[1:], *asked)
        keys = [strategy.space.key(net) for net in (*others, *asked)]
        assert len(set(keys)) == len(keys)
        strategy.tell(others[1:], [self.value(net) for net in others[1:]])
        assert strategy.pending == tuple(asked)

    def test_equal_seeds_ask_the_same_and_other_seeds_do_not(self) -> None:
        first, second, other = self.strategy(0), self.strategy(0), self.strategy(1)
        traces = [
            [self.step(strategy, num) for num in (3, 3, 4)] for strategy in (first, second, other)
        ]
        assert traces[0] == traces[1] != traces[2]

    def test_leaves_global_randomness_alone(self) -> None:
        before = torch.get_rng_state()
        strategy = self.strategy()
        for _ in range(4):
            self.step(strategy, 3)
        assert torch.equal(before, torch.get_rng_state())

    def test_observing_draws_no_random_number(self) -> None:
        generator = torch.Generator().manual_seed(0)
        strategy = self.make(self.space(), generator)
        nets = strategy.ask(12)
        before = generator.get_state()
        strategy.tell(nets, [self.value(net) for net in nets])
        assert torch.equal(before, generator.get_state())

    def test_asks_for_every_network_of_a_small_space_and_then_for_none(self) -> None:
        space = spaces.Pooling()
        subset = spaces.Subset(
            space, space.sample(14, generator=torch.Generator().manual_seed(3), distinct=True)
        )
        strategy = self.strategy(space=subset)
        asked = []
        while nets := strategy.ask(4):
            asked += nets
            strategy.tell(nets, [float(sum(net.downsampling)) for net in nets])
        assert {net.spec for net in asked} == {net.spec for net in subset}
        assert len(asked) == 14
        assert strategy.ask(2) == []

    # --- telling ----------------------------------------------------------------------------------

    def test_values_may_come_in_any_order_and_in_parts(self) -> None:
        strategy = self.strategy()
        nets = strategy.ask(6)
        values = [self.value(net) for net in nets[4:]]
        strategy.tell(nets[4:], torch.tensor(values, dtype=torch.float64))
        assert strategy.pending == tuple(nets[:4])
        strategy.tell(nets[:4][::-1], [self.value(net) for net in nets[:4][::-1]])
        assert not strategy.pending
        assert len(strategy.observations) == 6
        best = strategy.best
        assert best is not None
        assert best.value == min(self.value(net) for net in nets)

    def test_failed_evaluations_are_recorded_and_survived(self) -> None:
        strategy = self.strategy()
        asked = []
        for round_ in range(6):
            nets = strategy.ask(4)
            asked += [net.spec for net in nets]
            values = [
                math.nan if (place + round_) % 2 else self.value(net)
                for place, net in enumerate(nets)
            ]
            strategy.tell(nets, values)
        assert len(set(asked)) == len(asked) == 24
        assert sum(math.isnan(found.value) for found in strategy.observations) == 12
        assert strategy.best is not None
        assert math.isfinite(strategy.best.value)

    def test_survives_that_everything_fails(self) -> None:
        strategy = self.strategy()
        for _ in range(5):
            nets = strategy.ask(4)
            strategy.tell(nets, [math.nan] * 4)
        assert strategy.best is None
        assert len(strategy.ask(4)) == 4

    def test_survives_equal_values(self) -> None:
        strategy = self.strategy()
        for _ in range(5):
            nets = strategy.ask(4)
            strategy.tell(nets, [1.0] * 4)
        assert len(strategy.ask(4)) == 4

    def test_survives_values_of_any_size(self) -> None:
        strategy = self.strategy()
        sizes = [1e300, 1e-300, 1e9, -95.0, 3.0, -1e300, math.nan, 2.0, 5e-324, -1e-300]
        for first in range(0, 16, 4):
            nets = strategy.ask(4)
            strategy.tell(nets, [sizes[(first + place) % len(sizes)] for place in range(4)])
        asked = strategy.ask(2)
        assert len({net.spec for net in asked}) == 2
        model = getattr(strategy, "model", None)
        if model is not None:
            mean = model.posterior(strategy.space.encode(asked)).mean
            assert bool(torch.isfinite(mean).all())

    @pytest.mark.parametrize(("offset", "unit"), [(2.3026, 1e-7), (0.0, 1e-13), (1e9, 1.0)])
    def test_survives_values_that_hardly_differ(self, offset: float, unit: float) -> None:
        strategy = self.strategy()
        for num in (6, 8):
            nets = strategy.ask(num)
            strategy.tell(nets, [offset + unit * self.value(net) for net in nets])
        asked = strategy.ask(2)
        assert len({net.spec for net in asked}) == 2

    def test_refuses_what_is_wrong_and_keeps_what_it_has(self) -> None:
        strategy = self.strategy()
        nets = strategy.ask(3)
        strategy.tell(nets[:1], [1.0])
        state = json.dumps(strategy.state_dict())
        foreign = spaces.Pooling().from_string("[7,1,2]")
        for nets_, values, kind, message in (
            (nets, [1.0, 2.0], ValueError, "one number per network, 3"),
            (nets[1:], [1.0, math.inf], ValueError, r"values\[1\] must be finite"),
            (nets[:1], [2.0], ValueError, "observed already"),
            ([nets[1], nets[1]], [1.0, 1.0], ValueError, r"nets\[1\] .* observed already"),
            ([foreign], [1.0], ValueError, r"nets\[0\] must be a network of"),
            (nets[1:2], ["a"], TypeError, r"values\[0\] must be a number"),
            (nets[1:], [1.0, "0.3"], TypeError, r"values\[1\] must be a number; got '0.3'"),
            (nets[1:2], [True], TypeError, r"values\[0\] must be a number; got True"),
            (nets[1:2], 3.0, TypeError, "values must be a sequence of numbers; got 3.0"),
            (nets[1], [1.0], TypeError, r"pass \[net\]"),
        ):
            with pytest.raises(kind, match=message):
                strategy.tell(nets_, values)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="num must be at least 1"):
            strategy.ask(0)
        with pytest.raises(TypeError, match="num must be an int"):
            strategy.ask(2.0)  # type: ignore[arg-type]
        assert json.dumps(strategy.state_dict()) == state

    # --- state ------------------------------------------------------------------------------------

    @pytest.mark.parametrize("num", [0, 3, 13])
    def test_a_continuation_equals_the_uninterrupted_search(self, num: int) -> None:
        whole = self.strategy()
        if num:
            self.step(whole, num)
        pending = whole.ask(3)
        text = json.dumps(whole.state_dict(), allow_nan=False)
        resumed = self.strategy(seed=9)
        resumed.load_state_dict(json.loads(text))
        assert json.dumps(resumed.state_dict()) == text
        for strategy in (whole, resumed):
            assert strategy.pending == tuple(pending)
            strategy.tell(pending, [self.value(pending[0]), math.nan, self.value(pending[2])])
        for num in (4, 3):
            assert self.step(resumed, num) == self.step(whole, num)
        assert resumed.observations[:num] == whole.observations[:num]
        assert json.dumps(resumed.state_dict()) == json.dumps(whole.state_dict())

    def test_refuses_the_state_of_another_search(self) -> None:
        strategy = self.strategy()
        self.step(strategy, 3)
        state = strategy.state_dict()
        elsewhere = self.strategy(space=spaces.Pooling())
        another = r"another (space: its 'name'|strategy: its 'surrogate')"
        with pytest.raises(ValueError, match=another):
            elsewhere.load_state_dict(state)
        assert elsewhere.observations == ()
        for changes, message in (
            ({"version": 99}, "newer hotnas_torch"),
            ({"config": state["config"] | {"strategy": "other"}}, "its 'strategy' is 'other'"),
            ({"observations": [["nowhere", 1.0]]}, "nowhere"),
            ({"generator": {}}, "damaged"),
        ):
            with pytest.raises(ValueError, match=message):
                self.strategy().load_state_dict(state | changes)

    # --- searching --------------------------------------------------------------------------------

    def test_proposes_better_networks_for_values_that_mean_something(self) -> None:
        """Than for the same values shuffled; 24 random ones differ by 1.8 once in a hundred."""
        gains = []
        for seed in range(2):
            strategies = [self.informed(seed, shuffled=shuffled) for shuffled in (False, True)]
            asked = [strategy.ask(12) for strategy in strategies]
            if self.model_free:
                assert asked[0] == asked[1]
                return
            own, other = (sum(self.value(net) for net in nets) / 12 for nets in asked)
            gains.append(other - own)
        assert sum(gains) / 2 > 1.8

    def test_the_model_ranks_networks_that_it_has_not_seen(self) -> None:
        if self.least_rank_correlation is None:
            pytest.skip("the strategy has no model")
        strategy = self.informed(0)
        strategy.ask(1)
        known = {strategy.space.key(found.network) for found in strategy.observations}
        drawn = strategy.space.sample(60, generator=torch.Generator().manual_seed(9), distinct=True)
        new = [net for net in drawn if strategy.space.key(net) not in known]
        with torch.no_grad():
            mean = strategy.model.posterior(strategy.space.encode(new)).mean  # type: ignore[attr-defined]
        values = torch.tensor([-self.value(net) for net in new], dtype=torch.float64)
        ranks = torch.stack([mean.flatten(), values]).argsort(dim=1).argsort(dim=1).double()
        assert float(torch.corrcoef(ranks)[0, 1]) >= self.least_rank_correlation

    def informed(self, seed: int, *, shuffled: bool = False) -> Strategy:
        """Build a strategy that has observed 24 networks, perhaps with their values shuffled."""
        strategy = self.strategy(seed)
        generator = torch.Generator().manual_seed(50 + seed)
        nets = strategy.space.sample(24, generator=generator, distinct=True)
        values = [self.value(net) for net in nets]
        if shuffled:
            # The best networks get what the middle ones have, as a draw might leave them theirs.
            ordered = sorted(values)
            values = [ordered[(ordered.index(value) + 12) % 24] for value in values]
        strategy.tell(nets, values)
        return strategy

    def test_beats_random_search(self) -> None:
        if self.model_free:
            pytest.skip("the strategy does not look at values")
        wins = []
        for seed in range(3):
            strategy = self.strategy(seed)
            for _ in range(5):
                self.step(strategy, 6)
            draws = self.space().sample(
                30, generator=torch.Generator().manual_seed(100 + seed), distinct=True
            )
            best = strategy.best
            assert best is not None
            wins.append(best.value < min(self.value(net) for net in draws))
        assert sum(wins) >= 2
