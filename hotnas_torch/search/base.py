"""What every search strategy is: it proposes networks and is told their values."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import finite, integer
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.search.randomness import decode_state, describe_state
from hotnas_torch.spaces import SearchSpace, Subset

__all__ = ["Observation", "Strategy", "describe_space", "read_state", "refuse_difference"]

_STATE_VERSION = 1
# Draws in a row that meet seen networks before the space is enumerated.
_SPARE_DRAWS = 256
# Mutations of one network before the walk moves on to its last mutant, and moves before it ends.
_MUTATIONS = 16
_MOVES = 8


class Observation(NamedTuple):
    """A network that a strategy was told of.

    Attributes:
        network: The network.
        value: Its value; NaN when the evaluation failed.
    """

    network: Network
    value: float


class Strategy(ABC):
    """A search that minimises by asking and being told; it never evaluates anything itself.

    :meth:`ask` proposes networks that it has neither proposed nor been told of before, up to what
    the space counts as the same (``space.key``). :meth:`tell` records their values, in any order
    and for any network of the space, also one that was not asked for. A value of NaN is a failed
    evaluation: the network is not proposed again and counts for nothing else.

    Everything random comes from ``generator``, which only :meth:`ask` advances. Two strategies with
    equal settings, equally seeded and told the same, ask the same.

    Args:
        space: What is searched.
        generator: Source of all randomness.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: ``generator`` is missing.
    """

    name: ClassVar[str]
    """What the strategy is called in records and on the command line."""

    def __init__(self, space: SearchSpace, *, generator: torch.Generator | None) -> None:
        if not isinstance(space, SearchSpace):
            raise TypeError(f"space must be a SearchSpace, got {space!r}.")
        if generator is None:
            raise ValueError(
                "generator must be given: randomness comes from the caller only "
                "(pass generator=torch.Generator().manual_seed(0))."
            )
        if not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator, got {generator!r} "
                "(pass generator=torch.Generator().manual_seed(0))."
            )
        self.space = space
        self._generator = generator
        self._seed = generator.initial_seed()
        # By the space's key, in the order of telling and of asking.
        self._told: dict[str, Observation] = {}
        self._pending: dict[str, Network] = {}

    # --- what a strategy defines ------------------------------------------------------------------

    @abstractmethod
    def _propose(self, num: int) -> list[Network]:
        """Returns up to ``num`` distinct networks whose keys are not in :meth:`_taken`.

        Fewer only when the space has no more. Changes nothing but the generator.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Returns the strategy's own settings, ready for ``json.dumps``."""

    # --- asking and telling -----------------------------------------------------------------------

    def ask(self, num: int = 1) -> list[Network]:
        """Proposes networks to evaluate.

        Args:
            num: How many, >= 1.

        Returns:
            ``num`` distinct networks, never proposed or told of before; fewer when the space has
            no more, and none when it is exhausted. They are pending until told.

        Raises:
            TypeError: ``num`` is not an int.
            ValueError: ``num`` is below 1.
        """
        num = integer("num", num, least=1)
        before = self._generator.get_state()
        try:
            # Models are fitted by gradients, whatever the caller is in the middle of.
            with torch.inference_mode(False), torch.enable_grad():
                proposed = self._propose(num)
        except BaseException:
            # An interrupted question was not asked: the next one must not depend on it.
            self._generator.set_state(before)
            raise
        self._pending |= {self.space.key(net): net for net in proposed}
        return proposed

    def expect(self, nets: Sequence[Network]) -> None:
        """Marks networks as pending that somebody else has begun to evaluate.

        Args:
            nets: Networks of the space; those that are pending or told already stay as they are.

        Raises:
            ArchitectureError: A network is not of the space; the message gives the index.
        """
        for place, net in enumerate(nets):
            if not self.space.contains(net):
                raise ArchitectureError(
                    f"nets[{place}] must be a network of {self.space!r}, got {net!r}."
                )
        for net in nets:
            key = self.space.key(net)
            if key not in self._told:
                self._pending.setdefault(key, net)

    def tell(self, nets: Sequence[Network], values: Sequence[float] | Tensor) -> None:
        """Records values. Either everything is recorded or, on an error, nothing.

        Args:
            nets: Networks of the space, none of them told before.
            values: One number per network, to be minimised; NaN for a failed evaluation. Numbers of
                NumPy and torch, and arrays and tensors of one element, count as such; texts and
                bools do not.

        Raises:
            TypeError: ``nets`` or an entry of the wrong kind; the message gives the index.
            ArchitectureError: A network is not of the space.
            ValueError: Lengths differ, a value is infinite, or a network was told before; the
                message gives the index.
        """
        if isinstance(nets, Network):
            raise TypeError("nets must be a sequence of Network, got a single one (pass [net]).")
        nets, numbers = list(nets), _numbers(values)
        if len(nets) != len(numbers):
            raise ValueError(
                f"values must hold one number per network, {len(nets)}, got {len(numbers)}."
            )
        new: dict[str, Observation] = {}
        for place, (net, value) in enumerate(zip(nets, numbers, strict=True)):
            if not self.space.contains(net):
                raise ArchitectureError(
                    f"nets[{place}] must be a network of {self.space!r}, got "
                    f"{net.spec if isinstance(net, Network) else net!r}."
                )
            key = self.space.key(net)
            if key in self._told or key in new:
                raise ValueError(
                    f"nets[{place}] = {net.spec!r} has been told already (a network has one value)."
                )
            new[key] = Observation(net, value)
        self._told |= new
        for key in new:
            self._pending.pop(key, None)

    @property
    def observations(self) -> tuple[Observation, ...]:
        """Everything that was told, in the order of telling."""
        return tuple(self._told.values())

    @property
    def pending(self) -> tuple[Network, ...]:
        """Networks that were asked for and not told yet, in the order of asking."""
        return tuple(self._pending.values())

    @property
    def best(self) -> Observation | None:
        """The observation with the smallest value, the earliest of equals; None without a value."""
        return min(self._finite(), key=lambda observation: observation.value, default=None)

    # --- state ------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Returns what the proposals depend on besides what is told, ready for ``json.dumps``."""
        return {"strategy": self.name, "seed": self._seed, **self.settings()}

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a continuation needs, ready for ``json.dumps``.

        ``json`` writes a float so that it reads the same bits back; NaN is written as null.
        """
        return {
            "version": _STATE_VERSION,
            "config": self.config(),
            "space": describe_space(self.space),
            "generator": describe_state(self._generator),
            "observations": [
                [net.spec, None if math.isnan(value) else value]
                for net, value in self._told.values()
            ],
            "pending": [net.spec for net in self._pending.values()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where :meth:`state_dict` was taken: the proposals from there on are the same.

        The seed is taken over from the state. Nothing changes when an error is raised.

        Args:
            state: What :meth:`state_dict` of an equally configured strategy returned.

        Raises:
            TypeError: ``state`` is not a mapping.
            ValueError: It is incomplete, of a newer version, of another strategy, of other settings
                or of another space; the message names the difference.
        """
        seed, generator_state = read_state(
            state,
            newest=_STATE_VERSION,
            config=self.config(),
            space=describe_space(self.space),
            generator=self._generator,
        )
        try:
            told = [
                (str(spec), math.nan if value is None else float(value))
                for spec, value in state["observations"]
            ]
            asked = [str(spec) for spec in state["pending"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"state is incomplete or damaged: {error!r}.") from error
        observations = [Observation(self.space.from_string(spec), value) for spec, value in told]
        pending = [self.space.from_string(spec) for spec in asked]
        self._generator.set_state(generator_state)
        self._seed = seed
        self._told = {self.space.key(found.network): found for found in observations}
        self._pending = {self.space.key(net): net for net in pending}

    # --- for strategies ---------------------------------------------------------------------------

    def _finite(self) -> list[Observation]:
        """Returns the observations that have a value, in the order of telling."""
        return [found for found in self._told.values() if not math.isnan(found.value)]

    def _taken(self) -> set[str]:
        """Returns the keys of everything told or pending, as a set of the caller's own."""
        return {*self._told, *self._pending}

    def _sample_unseen(self, num: int, taken: set[str]) -> list[Network]:
        """Draws networks whose keys are not in ``taken``, and adds their keys to it.

        One at a time, so that what is drawn does not depend on how many are asked for at once.
        """
        found: list[Network] = []
        misses = 0
        while len(found) < num and misses < _SPARE_DRAWS:
            net = self.space.sample_one(generator=self._generator)
            key = self.space.key(net)
            if key in taken:
                misses += 1
            else:
                taken.add(key)
                found.append(net)
                misses = 0
        if len(found) < num:
            left: dict[str, Network] = {}
            for net in self.space:
                if (key := self.space.key(net)) not in taken:
                    left.setdefault(key, net)
            order = torch.randperm(
                len(left), generator=self._generator, device=self._generator.device
            )
            keys = list(left)
            for place in order[: num - len(found)].tolist():
                taken.add(keys[place])
                found.append(left[keys[place]])
        return found

    def _mutate_unseen(self, parent: Network, taken: set[str]) -> Network | None:
        """Draws a mutant whose key is not in ``taken``, and adds its key to it.

        Where the neighbourhood is used up, the walk goes on from a mutant; None when that finds
        nothing, either.
        """
        if self.space.size() == 1:
            return None
        for _ in range(_MOVES):
            mutant = parent
            for _ in range(_MUTATIONS):
                mutant = self.space.mutate(parent, generator=self._generator)
                if (key := self.space.key(mutant)) not in taken:
                    taken.add(key)
                    return mutant
            parent = mutant
        return None

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({', '.join(filter(None, (repr(self.space), settings)))})"


def describe_space(space: SearchSpace) -> dict[str, Any]:
    """Returns what tells a space from others, ready for ``json.dumps``: name, options, members."""
    described = {"name": space.name, "space": repr(space)}
    if isinstance(space, Subset):
        members = hashlib.sha256("\n".join(sorted(net.spec for net in space)).encode())
        described["members"] = members.hexdigest()
    return described


def read_state(
    state: Mapping[str, Any],
    *,
    newest: int,
    config: Mapping[str, Any],
    space: dict[str, Any],
    generator: torch.Generator,
) -> tuple[int, Tensor]:
    """Reads what the states of all searches have in common, and refuses those of others.

    Args:
        state: With the entries ``version``, ``config``, ``space`` and ``generator``.
        newest: Version that the caller writes.
        config: Of the search that reads; its ``seed`` may differ.
        space: Description of its space.
        generator: Its generator, which is left as it is.

    Returns:
        The seed of the state, and what to give to ``generator.set_state``.

    Raises:
        TypeError: ``state`` is not a mapping.
        ValueError: It is incomplete, of a newer version, of another strategy, of other settings or
            of another space; the message names the difference.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping, got {type(state).__name__}.")
    version = state.get("version")
    if type(version) is not int or not 1 <= version <= newest:
        raise ValueError(
            f"state must be of version {newest} or older, got version {version!r} "
            "(it comes from a newer hotnas_torch, or is no strategy's state)."
        )
    try:
        found = dict(state["config"])
        seed = int(found.pop("seed"))
        described = dict(state["space"])
        randomness = dict(state["generator"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"state is incomplete or damaged: {error!r}.") from error
    own = {name: value for name, value in config.items() if name != "seed"}
    refuse_difference("state", found, own, "strategy")
    refuse_difference("state", described, space, "space")
    return seed, decode_state(randomness, generator)


def refuse_difference(what: str, found: dict[str, Any], expected: dict[str, Any], of: str) -> None:
    """Raises a ValueError that names the first entry in which two descriptions differ."""
    # Through JSON, as one of them came from there.
    expected = json.loads(json.dumps(expected))
    found = json.loads(json.dumps(found))
    for name in [*expected, *found]:
        # Compared as texts: NaN is equal to itself there.
        here, there = (json.dumps(part.get(name), sort_keys=True) for part in (expected, found))
        if name not in found or name not in expected or here != there:
            raise ValueError(
                f"{what} belongs to another {of}: its {name!r} is {found.get(name)!r}, here it is "
                f"{expected.get(name)!r}."
            )


def _numbers(values: Sequence[float] | Tensor) -> list[float]:
    if (dims := getattr(values, "ndim", 1)) != 1:
        raise ValueError(
            f"values must have shape (N,), got {tuple(getattr(values, 'shape', ()))} of {dims} "
            "dimensions."
        )
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(
            f"values must be a sequence of numbers, got {values!r} of type {type(values).__name__}."
        )
    return [finite(f"values[{place}]", value) for place, value in enumerate(values)]
