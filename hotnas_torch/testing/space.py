"""What every search space has to keep, as tests."""

import copy
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hotnas_torch.arch import Cell, Network
from hotnas_torch.errors import ArchitectureError, SizeError
from hotnas_torch.search import RandomSearch, RegularizedEvolution, Strategy
from hotnas_torch.spaces import SearchSpace

__all__ = ["SearchSpaceContract"]

# A space of at most so many networks is listed as a whole.
_MOST_LISTED = 3000


class SearchSpaceContract(ABC):
    """Subclass it as `class TestMySpace(SearchSpaceContract)` and define `make`.

    Attributes:
        least_varied: How many of 50 random networks have to be different.
    """

    least_varied: int = 15

    @abstractmethod
    def make(self) -> SearchSpace:
        """Build the space, from nothing."""

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> SearchSpace:
        """Return one space for all tests that do not need a fresh one."""
        return cls().make()

    @pytest.fixture(scope="class")
    @classmethod
    def nets(cls, space: SearchSpace) -> list[Network]:
        """Return 50 random networks."""
        return space.sample(50, generator=_seeded(0))

    # --- drawing ----------------------------------------------------------------------------------

    def test_samples_lie_in_the_space_and_vary(
        self, space: SearchSpace, nets: list[Network]
    ) -> None:
        assert len(nets) == 50
        assert all(space.contains(net) and net in space for net in nets)
        assert len({space.key(net) for net in nets}) >= self.least_varied

    def test_sampling_is_decided_by_the_generator_alone(self, space: SearchSpace) -> None:
        before = torch.get_rng_state()
        first, again, other = (space.sample(20, generator=_seeded(seed)) for seed in (5, 5, 6))
        assert first == again
        assert first != other
        assert space.sample_one(generator=_seeded(5)) in space
        assert torch.equal(before, torch.get_rng_state())

    def test_distinct_samples_are_distinct(self, space: SearchSpace) -> None:
        most = space.size_bound()
        for num in {min(30, most // 3), *([most] if most <= 200 and _is_counted(space) else [])}:
            nets = space.sample(num, generator=_seeded(1), distinct=True)
            assert len({space.key(net) for net in nets}) == num

    def test_mutants_are_other_networks_of_the_space(
        self, space: SearchSpace, nets: list[Network]
    ) -> None:
        generator, fresh = _seeded(2), self.make()
        for net in nets[:25]:
            mutant = space.mutate(net, generator=generator)
            # One that has not made it itself has to read its string.
            assert all(one.contains(mutant) for one in (space, fresh))
            assert mutant != net
            assert space.key(mutant) != space.key(net)
        assert space.mutate(nets[0], generator=_seeded(3)) == space.mutate(
            nets[0], generator=_seeded(3)
        )

    def test_mutation_reaches_several_networks(
        self, space: SearchSpace, nets: list[Network]
    ) -> None:
        generator = _seeded(4)
        assert len({space.mutate(nets[0], generator=generator) for _ in range(40)}) >= 2

    def test_neighbors_are_distinct_others_of_the_space(
        self, space: SearchSpace, nets: list[Network]
    ) -> None:
        fresh = self.make()
        for net in nets[:8]:
            neighbors = space.neighbors(net)
            keys = [space.key(other) for other in neighbors]
            assert len(keys) == len(set(keys)) > 0
            assert space.key(net) not in keys
            assert all(map(space.contains, neighbors))
            assert all(map(fresh.contains, neighbors[:50]))
            assert space.neighbors(net) == neighbors

    # --- counting ---------------------------------------------------------------------------------

    def test_its_size_is_the_number_of_networks(self, space: SearchSpace) -> None:
        bound = space.size_bound()
        assert bound >= 1
        if not _is_counted(space):
            with pytest.raises(SizeError, match="size_bound"):
                space.size()
            return
        assert space.size() == bound
        if bound <= _MOST_LISTED:
            nets = list(space)
            assert len(nets) == bound
            assert len({space.key(net) for net in nets}) == bound
            assert list(space) == nets
        else:
            nets = list(itertools.islice(space, 200))
            assert len({space.key(net) for net in nets}) == 200
        assert all(map(space.contains, nets[:200]))

    def test_counts_are_checked(self, space: SearchSpace) -> None:
        assert space.sample(0, generator=_seeded(0)) == []
        with pytest.raises(ValueError, match="num must be at least 0; got -1"):
            space.sample(-1, generator=_seeded(0))
        with pytest.raises(TypeError, match=r"num must be an integer >= 0; got 2\.0"):
            space.sample(2.0, generator=_seeded(0))  # type: ignore[arg-type]
        bound = space.size_bound()
        most = f"{bound} when distinct" if bound < 2**63 - 1 else str(2**63 - 1)
        with pytest.raises(ValueError, match=f"num must be at most {most}"):
            space.sample(bound + 1, generator=_seeded(0), distinct=True)

    def test_randomness_needs_a_generator(self, space: SearchSpace, nets: list[Network]) -> None:
        with pytest.raises(ValueError, match="generator must be given"):
            space.sample(3)
        with pytest.raises(ValueError, match=r"torch.Generator\(\).manual_seed\(0\)"):
            space.mutate(nets[0])
        with pytest.raises(TypeError, match=r"generator must be a torch.Generator; got 0"):
            space.sample(3, generator=0)  # type: ignore[arg-type]

    # --- writing and reading ----------------------------------------------------------------------

    def test_rows_give_the_networks_back(self, space: SearchSpace, nets: list[Network]) -> None:
        rows = space.encode(nets)
        assert rows.shape == (50, space.dim)
        assert rows.dtype == torch.float64
        assert len(space.columns) == len(set(space.columns)) == space.dim
        assert space.decode(rows) == nets
        assert space.decode(rows.float()) == nets
        assert space.decode(rows.long()) == nets
        assert space.encode([]).shape == (0, space.dim)
        assert space.decode(rows[:0]) == []
        for values, column in zip(space.values, rows.T, strict=True):
            assert values.start <= column.min()
            assert column.max() < values.stop

    def test_strings_give_the_networks_back(self, space: SearchSpace, nets: list[Network]) -> None:
        for net in nets:
            text = space.to_string(net)
            assert text == net.spec
            assert space.from_string(text) == net
        assert len({net.spec for net in nets}) == len(set(nets))

    def test_strings_and_rows_mean_the_same_in_a_fresh_space(
        self, space: SearchSpace, nets: list[Network]
    ) -> None:
        fresh = self.make()
        assert fresh.description() == space.description()
        assert json.loads(json.dumps(fresh.description())) == space.description()
        assert [fresh.from_string(net.spec) for net in nets] == nets
        assert fresh.decode(space.encode(nets)) == nets
        assert all(map(fresh.contains, nets))

    def test_json_and_copies_stay_in_the_space(
        self, space: SearchSpace, nets: list[Network]
    ) -> None:
        for net in nets[:5]:
            assert space.contains(Network.from_json(json.loads(json.dumps(net.to_json()))))
            assert space.contains(copy.deepcopy(net))
        assert copy.deepcopy({"space": space})["space"] is space

    def test_cells_are_shared_between_networks(
        self, space: SearchSpace, nets: list[Network]
    ) -> None:
        again = space.decode(space.encode(nets))
        assert all(
            a is b
            for x, y in zip(nets, again, strict=True)
            for a, b in zip(x.cells, y.cells, strict=True)
        )
        cells = [cell for net in nets for cell in net.cells]
        assert len({id(cell) for cell in cells}) == len(set(cells))

    def test_canonical_is_idempotent_and_keys_follow_it(
        self, space: SearchSpace, nets: list[Network]
    ) -> None:
        for net in nets[:20]:
            canonical = space.canonical(net)
            assert space.canonical(canonical) == canonical
            assert space.key(canonical) == space.key(net)
            assert canonical.key == net.key

    def test_cells_fit_the_tree_and_the_stated_sizes(
        self, space: SearchSpace, nets: list[Network]
    ) -> None:
        for net in nets:
            for cell in net.cells:
                assert cell.num_nodes <= space.max_nodes
                for label in cell.ops:
                    space.tree.check(label)
        assert all(divisor > 0.0 for divisor in space.state_scale)
        assert space.name
        assert space.operations
        unreachable = space.unreachable_cost(0.8)
        assert unreachable >= 0.8 * space.tree.largest_cost().item()

    # --- what is wrong ----------------------------------------------------------------------------

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_rows_must_be_finite(
        self, space: SearchSpace, nets: list[Network], value: float
    ) -> None:
        rows = space.encode(nets)
        rows[7, -1] = value
        with pytest.raises(ArchitectureError, match=r"X\[7, \d+\].*must be finite") as error:
            space.decode(rows)
        assert space.columns[-1] in str(error.value)

    @pytest.mark.parametrize("value", [0.25, -7.0, 1e5, 1e300])
    def test_rows_must_be_whole_and_in_range(
        self, space: SearchSpace, nets: list[Network], value: float
    ) -> None:
        rows = space.encode(nets)
        rows[3, 0] = value
        expected = "must be a whole number" if value == 0.25 else "describes no network of"
        with pytest.raises(ArchitectureError, match=rf"X\[3(, 0)?\] .*{expected}"):
            space.decode(rows)

    def test_rows_must_have_the_width_of_the_space(
        self, space: SearchSpace, nets: list[Network]
    ) -> None:
        rows = space.encode(nets)
        with pytest.raises(ValueError, match=rf"X must have shape \(N, {space.dim}\)"):
            space.decode(rows[:, :-1])
        with pytest.raises(ValueError, match="X must have shape"):
            space.decode(rows[0])
        with pytest.raises(TypeError, match="X must be a torch Tensor"):
            space.decode(rows.tolist())  # type: ignore[arg-type]

    @pytest.mark.parametrize("text", ["", "|", "nonsense \0", "64-11-basic)", "3,1,", "[1,2]", "("])
    def test_malformed_strings_are_named(self, space: SearchSpace, text: str) -> None:
        with pytest.raises(ArchitectureError) as error:
            space.from_string(text)
        assert repr(text) in str(error.value)

    def test_changed_strings_are_refused_or_of_the_space(
        self, space: SearchSpace, nets: list[Network]
    ) -> None:
        text = nets[0].spec
        step = max(1, len(text) // 40)
        changed = [text[:end] for end in range(0, len(text), step)]
        changed += [text + more for more in ("0", "|", ",", "x", ")")]
        for place in range(0, len(text), step):
            changed += [text[:place] + junk + text[place + 1 :] for junk in ("\ud800", "(", "9")]
        for other in changed:
            try:
                found = space.from_string(other)
            except ArchitectureError:
                continue
            assert space.contains(found)
            assert other == text or found != nets[0] or space.from_string(found.spec) == found

    def test_strings_must_be_strings(self, space: SearchSpace) -> None:
        with pytest.raises(TypeError, match="text must be a str; got 5"):
            space.from_string(5)  # type: ignore[arg-type]

    def test_foreign_networks_are_refused(self, space: SearchSpace, nets: list[Network]) -> None:
        cell = Cell(("input", "a foreign operation", "output"), ((0, 1), (1, 2)))
        unknown = Network.chain((cell,), (1,), (1,), spec="nonsense")
        # The right string on the wrong cells.
        forged = Network.chain((cell,), (1,), (1,), spec=nets[0].spec)
        calls: tuple[Callable[[Network], Any], ...] = (
            space.neighbors,
            space.to_string,
            space.key,
            space.canonical,
            lambda net: space.mutate(net, generator=_seeded(0)),
        )
        for foreign in (unknown, forged):
            assert not space.contains(foreign)
            for call in calls:
                with pytest.raises(ArchitectureError, match="is not a network of"):
                    call(foreign)
            with pytest.raises(ArchitectureError, match=r"nets\[2\] with spec"):
                space.encode([*nets[:2], foreign])
        assert not space.contains(nets[0].spec)
        with pytest.raises(TypeError, match="net must be a Network; got '"):
            space.to_string(nets[0].spec)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="pass \\[net\\]"):
            space.encode(nets[0])  # type: ignore[arg-type]

    # --- searching --------------------------------------------------------------------------------

    def test_strategies_search_it_and_go_on_where_they_stopped(self) -> None:
        for make in (
            lambda space, seed: RandomSearch(space, generator=_seeded(seed)),
            lambda space, seed: RegularizedEvolution(
                space, generator=_seeded(seed), population=4, tournament=2
            ),
        ):
            whole, resumed = make(self.make(), 0), make(self.make(), 1)
            _step(whole, 6)
            resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
            assert [_step(resumed, 3) for _ in range(2)] == [_step(whole, 3) for _ in range(2)]


def _step(strategy: Strategy, num: int) -> list[str]:
    nets = strategy.ask(num)
    strategy.tell(nets, [float(sum(net.channels)) + len(net.cells[0].ops) for net in nets])
    return [net.spec for net in nets]


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _is_counted(space: SearchSpace) -> bool:
    try:
        space.size()
    except SizeError:
        return False
    return True
