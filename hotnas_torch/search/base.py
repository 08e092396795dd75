"""What every search strategy is: it proposes networks and observes their values."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import finite, integer
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.search.asking import AskTell
from hotnas_torch.search.draws import Draws
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space

__all__ = ["Observation", "Strategy"]


class Observation(NamedTuple):
    """A network whose value a strategy knows.

    Attributes:
        network: The network.
        value: Its value; NaN when the evaluation failed.
    """

    network: Network
    value: float


class Strategy(AskTell):
    """A search that minimises by asking and observing; it never evaluates anything itself.

    `ask` proposes networks that it has neither proposed nor observed before, up to what the
    space counts as the same (`space.key`). `tell` records their values, in any order
    and for any network of the space, also one that was not asked for. A value of NaN is a failed
    evaluation: the network is not proposed again and counts for nothing else.

    Everything random comes from `generator`, which only `ask` advances. Two strategies with
    equal settings, equally seeded, that observed the same ask the same.

    Args:
        space: What is searched.
        generator: Source of all randomness.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: `generator` is missing.
    """

    def __init__(self, space: SearchSpace, *, generator: torch.Generator | None) -> None:
        check_space(space)
        super().__init__(generator)
        self.space = space
        # What random networks come from.
        self._draws = Draws(space, self._generator)
        # By the space's key, in the order of observing and of asking.
        self._observed: dict[str, Observation] = {}
        self._pending: dict[str, Network] = {}

    # --- what a strategy defines ------------------------------------------------------------------

    @abstractmethod
    def _propose(self, num: int) -> list[Network]:
        """Return up to `num` distinct networks whose keys are not in `_taken`.

        Fewer only when the space has no more. Changes nothing but the generator.
        """

    # --- asking and telling -----------------------------------------------------------------------

    def ask(self, num: int = 1) -> list[Network]:
        """Propose networks to evaluate.

        Args:
            num: How many, >= 1.

        Returns:
            `num` distinct networks, never proposed or observed before; fewer when the space
            has no more, and none when it is exhausted. They are pending until observed.

        Raises:
            TypeError: `num` is not an int.
            ValueError: `num` is below 1.
        """
        num = integer("num", num, least=1)
        with self._asking():
            proposed = self._propose(num)
        self._pending |= {self.space.key(net): net for net in proposed}
        return proposed

    def expect(self, nets: Sequence[Network]) -> None:
        """Mark networks as pending that somebody else has begun to evaluate.

        Args:
            nets: Networks of the space; those that are pending or observed stay as they are.

        Raises:
            ArchitectureError: A network is not of the space; the message gives the index.
        """
        for place, net in enumerate(nets):
            if not self.space.contains(net):
                raise ArchitectureError(
                    f"nets[{place}] must be a network of {self.space!r}; got {net!r}"
                )
        for net in nets:
            key = self.space.key(net)
            if key not in self._observed:
                self._pending.setdefault(key, net)

    def tell(self, nets: Sequence[Network], values: Sequence[float] | Tensor) -> None:
        """Record values. Either everything is recorded or, on an error, nothing.

        Args:
            nets: Networks of the space, none of them observed before.
            values: One number per network, to be minimised; NaN for a failed evaluation. Numbers of
                NumPy and torch, and arrays and tensors of one element, count as such; texts and
                bools do not.

        Raises:
            TypeError: `nets` or an entry of the wrong kind; the message gives the index.
            ArchitectureError: A network is not of the space.
            ValueError: Lengths differ, a value is infinite, or a network was observed before; the
                message gives the index.
        """
        if isinstance(nets, Network):
            raise TypeError("nets must be a sequence of Network; got a single one (pass [net])")
        nets, numbers = list(nets), _numbers(values)
        if len(nets) != len(numbers):
            raise ValueError(
                f"values must hold one number per network, {len(nets)}; got {len(numbers)}"
            )
        new: dict[str, Observation] = {}
        for place, (net, value) in enumerate(zip(nets, numbers, strict=True)):
            if not self.space.contains(net):
                raise ArchitectureError(
                    f"nets[{place}] must be a network of {self.space!r}; got "
                    f"{net.spec if isinstance(net, Network) else net!r}"
                )
            key = self.space.key(net)
            if key in self._observed or key in new:
                raise ValueError(
                    f"nets[{place}] = {net.spec!r} is observed already (a network has one value)"
                )
            new[key] = Observation(net, value)
        self._observed |= new
        for key in new:
            self._pending.pop(key, None)

    @property
    def observations(self) -> tuple[Observation, ...]:
        """Everything that was observed, in order."""
        return tuple(self._observed.values())

    @property
    def pending(self) -> tuple[Network, ...]:
        """Networks that were asked for and are not observed yet, in the order of asking."""
        return tuple(self._pending.values())

    @property
    def best(self) -> Observation | None:
        """The observation with the smallest value, the earliest of equals; None without a value."""
        return min(self._finite(), key=lambda observation: observation.value, default=None)

    # --- state ------------------------------------------------------------------------------------

    def _space_description(self) -> dict[str, Any]:
        return self.space.description()

    def _memory(self) -> dict[str, Any]:
        return {
            "observations": [
                [net.spec, None if math.isnan(value) else value]
                for net, value in self._observed.values()
            ],
            "pending": [net.spec for net in self._pending.values()],
        }

    def _remembered(self, state: Mapping[str, Any]) -> dict[str, Any]:
        found = [
            Observation(
                self.space.from_string(str(spec)), math.nan if value is None else float(value)
            )
            for spec, value in state["observations"]
        ]
        pending = [self.space.from_string(str(spec)) for spec in state["pending"]]
        return {
            "_observed": {self.space.key(one.network): one for one in found},
            "_pending": {self.space.key(net): net for net in pending},
        }

    # --- for strategies ---------------------------------------------------------------------------

    def _finite(self) -> list[Observation]:
        """Return the observations that have a value, in order."""
        return [found for found in self._observed.values() if not math.isnan(found.value)]

    def _taken(self) -> set[str]:
        """Return the keys of everything observed or pending, as a set of the caller's own."""
        return {*self._observed, *self._pending}

    def _sample_unseen(self, num: int, taken: set[str]) -> list[Network]:
        """Draw networks whose keys are not in `taken`, and add their keys to it."""
        return self._draws.sample(num, taken)

    def _mutate_unseen(self, parent: Network, taken: set[str]) -> Network | None:
        """Draw a mutant whose key is not in `taken`, and add its key to it; None without one."""
        return self._draws.mutate(parent, taken)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({', '.join(filter(None, (repr(self.space), settings)))})"


def _numbers(values: Sequence[float] | Tensor) -> list[float]:
    if (dims := getattr(values, "ndim", 1)) != 1:
        raise ValueError(
            f"values must have shape (N,); got {tuple(getattr(values, 'shape', ()))} of {dims} "
            "dimensions"
        )
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(
            f"values must be a sequence of numbers; got {values!r} of type {type(values).__name__}"
        )
    return [finite(f"values[{place}]", value) for place, value in enumerate(values)]
