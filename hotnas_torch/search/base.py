# Over 400 lines: one contract, asking, telling, and a state of both.
"""What every search strategy is: it proposes networks and observes their values."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import boolean, integer
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.search.asking import AskTell
from hotnas_torch.search.draws import Draws
from hotnas_torch.search.goal import Goal
from hotnas_torch.search.goal_settings import Direction
from hotnas_torch.search.measured import Measured, variances_of_means
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.frames import is_frame

__all__ = ["Observation", "Strategy"]


class Observation(NamedTuple):
    """A network whose value a strategy knows.

    Attributes:
        network: The network.
        value: Its value, of several objectives the first; NaN when the evaluation failed.
    """

    network: Network
    value: float


class Strategy(AskTell):
    """A search for the best values by asking and observing; it never evaluates anything itself.

    `ask` proposes networks that it has neither proposed nor observed before, up to what the
    space counts as the same (`space.key`). `tell` records their values, in any order
    and for any network of the space, also one that was not asked for. A value of NaN is a failed
    evaluation: the network is not proposed again and counts for nothing else. A network that was
    evaluated several times has the mean of its values; `enqueue` says what is asked first.

    Everything random comes from `generator`, which only `ask` advances. Two strategies with
    equal settings, equally seeded, that observed the same ask the same.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        **goal: Settings of `Goal`: `direction="maximize"` where large values are good, `objectives`
            by name where there are several, `constraints`, and what is `known` without evaluation.

    Attributes:
        goal: What is sought.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: `generator` is missing, or the strategy can only pursue one objective.
    """

    pursues_several: bool = False
    """Whether there may be several objectives."""

    def __init__(
        self, space: SearchSpace, *, generator: torch.Generator | None, **goal: Any
    ) -> None:
        check_space(space)
        super().__init__(generator)
        self.goal = Goal.of(goal)
        if self.goal.several and not self.pursues_several:
            raise ValueError(
                f"objectives must be one for {type(self).__name__}; got "
                f"{', '.join(self.goal.objectives)} (HOTNAS, ParetoEvolution and RandomSearch take "
                "several)"
            )
        self.space = space
        # What random networks come from.
        self._draws = Draws(space, self._generator)
        # By the space's key, in the order of observing and of asking.
        self._observed: dict[str, Observation] = {}
        self._rows: dict[str, tuple[float, ...]] = {}
        # Only what says more than one row does.
        self._measured: dict[str, Measured] = {}
        self._pending: dict[str, Network] = {}
        self._enqueued: dict[str, Network] = {}

    # --- what a strategy defines ------------------------------------------------------------------

    @abstractmethod
    def _propose(self, num: int) -> list[Network]:
        """Return up to `num` distinct networks whose keys are not in `_taken`.

        Fewer only when the space has no more. Changes nothing but the generator.
        """

    def cost(self, net: Network) -> float:
        """Return what an evaluation costs, in units of one that is not cut short: 1."""
        del net
        return 1.0

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
        taken = self._taken()
        queue = {key: net for key, net in self._enqueued.items() if key not in taken}
        first = dict(list(queue.items())[:num])
        before = self._pending
        self._pending = before | first
        try:
            with self._asking():
                proposed = self._propose(num - len(first)) if len(first) < num else []
        except BaseException:
            self._pending = before
            raise
        self._pending |= {self.space.key(net): net for net in proposed}
        self._enqueued = {key: net for key, net in queue.items() if key not in self._pending}
        return [*first.values(), *proposed]

    def enqueue(self, nets: Sequence[Network]) -> None:
        """Have networks asked for first, in this order, before any that the strategy chooses.

        They count as proposals of the strategy. What is pending or observed by then is passed over.

        Args:
            nets: Networks of the space.

        Raises:
            TypeError: `nets` is no sequence of networks.
            ArchitectureError: A network is not of the space; the message gives the index.
        """
        nets = self._checked(nets)
        self._enqueued |= {self.space.key(net): net for net in nets}

    def expect(self, nets: Sequence[Network]) -> None:
        """Mark networks as pending that somebody else has begun to evaluate.

        Args:
            nets: Networks of the space; those that are pending or observed stay as they are.

        Raises:
            ArchitectureError: A network is not of the space; the message gives the index.
        """
        for net in self._checked(nets):
            key = self.space.key(net)
            if key not in self._observed:
                self._pending.setdefault(key, net)

    def withdraw(self, nets: Sequence[Network]) -> None:
        """Take back networks that were asked for and that nobody is going to evaluate.

        They may be asked for again. What is not pending stays as it is.

        Args:
            nets: Networks of the space.

        Raises:
            ArchitectureError: A network is not of the space; the message gives the index.
        """
        for net in self._checked(nets):
            self._pending.pop(self.space.key(net), None)

    def _checked(self, nets: Sequence[Network]) -> list[Network]:
        """Return networks as a list.

        Raises:
            TypeError: It is no sequence of networks.
            ArchitectureError: One is not of the space; the message gives the index.
        """
        given: object = nets
        if isinstance(given, Network):
            raise TypeError("nets must be a sequence of Network; got a single one (pass [net])")
        if is_frame(given) and hasattr(given, "columns"):
            raise TypeError(
                "nets must be a sequence of Network; got a DataFrame (space.from_string reads the "
                "strings of a column: [space.from_string(text) for text in frame['arch']])"
            )
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            remedy = " (pass [space.from_string(text)])" if isinstance(given, str) else ""
            raise TypeError(f"nets must be a sequence of Network; got {given!r}{remedy}")
        nets = list(nets)
        entries: list[object] = [*nets]
        for place, entry in enumerate(entries):
            if not self.space.contains(entry):
                remedy = " (space.from_string reads strings)" if isinstance(entry, str) else ""
                raise ArchitectureError(
                    f"nets[{place}] must be a network of {self.space!r}; got "
                    f"{entry.spec if isinstance(entry, Network) else repr(entry)}{remedy}"
                )
        return nets

    def tell(
        self,
        nets: Sequence[Network],
        values: Sequence[Any] | Tensor,
        variances: Sequence[Any] | Tensor | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Record values. Either everything is recorded or, on an error, nothing.

        Known noise, and that of repeated evaluations, reaches Gaussian processes on distances
        (`HOTNAS`, `NASBOT`, `BOTW`, `BOEdit`), which infer it otherwise: the variance of a mean is
        that of its evaluations, said or, pooled over all networks that were evaluated several
        times, what these differ by. Other strategies use the means alone.

        Args:
            nets: Networks of the space, none of them observed before.
            values: One number per network; NaN for a failed evaluation. Numbers of
                NumPy and torch, and arrays and tensors of one element, count as such; texts and
                bools do not. Where several count (`goal.names`), their mapping by name, or
                a sequence in this order; one NaN among them is a failed evaluation.
            variances: Variances of the values' noise, in squares of their units, in the same form
                as `values`; NaN or None where one is not known. None: none is.
            again: Let networks that were observed before, or that come several times, count as
                evaluated once more: what is observed then is the mean of all evaluations that did
                not fail.

        Raises:
            TypeError: `nets` or an entry of the wrong kind; the message gives the index.
            ArchitectureError: A network is not of the space.
            ValueError: Lengths differ, a value is infinite or missing, a variance is negative or
                infinite, or a network was observed before; the message gives the index.
        """
        again = boolean("again", again)
        nets, given = self._checked(nets), _each("values", values, plain=self.goal.plain)
        if len(nets) != len(given):
            raise ValueError(
                f"values must hold one number per network, {len(nets)}; got {len(given)}"
            )
        noise: list[Any] = [None] * len(nets)
        if variances is not None:
            noise = _each("variances", variances, plain=self.goal.plain)
        if len(nets) != len(noise):
            raise ValueError(
                f"variances must hold one number per network, {len(nets)}; got {len(noise)}"
            )
        new: dict[str, Network] = {}
        measured: dict[str, Measured] = {}
        for place, (net, one, variance) in enumerate(zip(nets, given, noise, strict=True)):
            key = self.space.key(net)
            if not again and (key in self._observed or key in new):
                raise ValueError(
                    f"nets[{place}] = {net.spec!r} is observed already (a network has one value: "
                    "average several before, or pass again=True, which takes their mean)"
                )
            row = self.goal.row(f"values[{place}]", net, one)
            found = Measured((row,), (self.goal.variances(f"variances[{place}]", variance),))
            earlier = measured.get(key, self._measured_of(key))
            measured[key] = found if earlier is None else earlier.again(found)
            new.setdefault(key, net)
        for key, net in new.items():
            self._rows[key] = measured[key].mean
            self._observed[key] = Observation(
                self._observed[key].network if key in self._observed else net, self._rows[key][0]
            )
            if not measured[key].plain:
                self._measured[key] = measured[key]
            self._pending.pop(key, None)

    def _measured_of(self, key: str) -> Measured | None:
        """Return the evaluations of a network; None of one that was not observed."""
        if key not in self._rows:
            return None
        row = self._rows[key]
        return self._measured.get(key, Measured((row,), ((math.nan,) * len(row),)))

    def _variances(self, keys: Iterable[str], place: int) -> Tensor | None:
        """Return the variances of what was observed, of one number of the goal.

        Args:
            keys: Of observed networks.
            place: Of the number in `goal.names`.

        Returns:
            (n,) float64; None where nothing is known of the noise.
        """
        if not self._measured:
            return None
        found = [one for key in keys if (one := self._measured_of(key)) is not None]
        variances = variances_of_means(found, place)
        return None if variances is None else torch.tensor(variances, dtype=torch.float64)

    @property
    def observations(self) -> tuple[Observation, ...]:
        """Everything that was observed, in order."""
        return tuple(self._observed.values())

    @property
    def pending(self) -> tuple[Network, ...]:
        """Networks that were asked for and are not observed yet, in the order of asking."""
        return tuple(self._pending.values())

    @property
    def enqueued(self) -> tuple[Network, ...]:
        """Networks that are to be asked for first, in order."""
        return tuple(self._enqueued.values())

    @property
    def best(self) -> Observation | None:
        """The observation with the best value, the earliest of equals; None without a value.

        Raises:
            ValueError: There are several objectives, see `front`.
        """
        place = self.goal.best(self.values)
        return None if place is None else self.observations[place]

    @property
    def front(self) -> tuple[Observation, ...]:
        """The observations that keep all bounds and that no other one dominates, in order."""
        observed = self.observations
        return tuple(observed[place] for place in self.goal.front(self.values))

    @property
    def values(self) -> Tensor:
        """All numbers that count of everything observed, (n, len(goal.names)) float64."""
        rows = torch.tensor(list(self._rows.values()), dtype=torch.float64)
        return rows.reshape(-1, len(self.goal.names))

    @property
    def variances(self) -> Tensor:
        """Variances of the noise of `values` as far as they were told, else NaN; same shape."""
        places = range(len(self.goal.names))
        rows = [
            [math.nan if one is None else one.known_variance(place) for place in places]
            for one in map(self._measured_of, self._rows)
        ]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, len(places))

    def aim(self, direction: Direction | Sequence[Direction]) -> None:
        """Say which values are good, where the strategy was made without saying so.

        Args:
            direction: `"minimize"` or `"maximize"`, of several objectives one for each.

        Raises:
            ValueError: It is unknown, or the strategy was made for another one.
        """
        self.goal = self.goal.toward(direction)

    def config(self) -> dict[str, Any]:
        """Return what proposals depend on besides what is observed, ready for `json.dumps`."""
        goal = self.goal.describe()
        return super().config() | ({"goal": goal} if goal else {})

    # --- state ------------------------------------------------------------------------------------

    def _space_description(self) -> dict[str, Any]:
        return self.space.description()

    def _memory(self) -> dict[str, Any]:
        return {
            "observations": [
                [self._observed[key].network.spec, self._written(row)]
                for key, row in self._rows.items()
            ],
            "pending": [net.spec for net in self._pending.values()],
            **self._rarely(),
        }

    def _rarely(self) -> dict[str, Any]:
        """Return what few searches have, so that the states of all others stay as they are."""
        found: dict[str, Any] = {}
        if self._measured:
            found["measured"] = [
                [
                    self._observed[key].network.spec,
                    [self._written(row) for row in one.rows],
                    [[None if math.isnan(x) else x for x in row] for row in one.variances],
                ]
                for key, one in self._measured.items()
            ]
        if self._enqueued:
            found["enqueued"] = [net.spec for net in self._enqueued.values()]
        return found

    def _remembered(self, state: Mapping[str, Any]) -> dict[str, Any]:
        observed: dict[str, Observation] = {}
        rows: dict[str, tuple[float, ...]] = {}
        for spec, written in state["observations"]:
            net = self.space.from_string(str(spec))
            key = self.space.key(net)
            rows[key] = self.goal.row(spec, net, math.nan if written is None else written)
            observed[key] = Observation(net, rows[key][0])
        measured: dict[str, Measured] = {}
        for spec, written_rows, variances in state.get("measured", []):
            net = self.space.from_string(str(spec))
            measured[self.space.key(net)] = Measured(
                tuple(
                    self.goal.row(spec, net, math.nan if one is None else one)
                    for one in written_rows
                ),
                tuple(
                    tuple(math.nan if one is None else float(one) for one in row)
                    for row in variances
                ),
            )
        pending = [self.space.from_string(str(spec)) for spec in state["pending"]]
        enqueued = [self.space.from_string(str(spec)) for spec in state.get("enqueued", [])]
        return {
            "_observed": observed,
            "_rows": rows,
            "_measured": measured,
            "_pending": {self.space.key(net): net for net in pending},
            "_enqueued": {self.space.key(net): net for net in enqueued},
        }

    @staticmethod
    def _written(row: tuple[float, ...]) -> float | list[float] | None:
        if math.isnan(row[0]):
            return None
        return row[0] if len(row) == 1 else list(row)

    # --- for strategies ---------------------------------------------------------------------------

    def _judged(self) -> dict[str, Observation]:
        """Return everything observed by its key, in order, with losses for values.

        A loss is what the goal compares by, smaller being better; NaN is a failed evaluation.
        """
        losses = self.goal.losses(self.values).tolist()
        return {
            key: Observation(found.network, loss)
            for (key, found), loss in zip(self._observed.items(), losses, strict=True)
        }

    def _finite(self) -> list[Observation]:
        """Return the observations that have a value, in order, with losses for values."""
        return [found for found in self._judged().values() if not math.isnan(found.value)]

    def _leading(self) -> Observation | None:
        """Return the observation with the smallest loss, the earliest of equals."""
        return min(self._finite(), key=lambda found: found.value, default=None)

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


def _each(name: str, values: Sequence[Any] | Tensor, *, plain: bool) -> list[Any]:
    dims = 1 if plain else 2
    if (found := getattr(values, "ndim", dims)) != dims:
        raise ValueError(
            f"{name} must have shape {'(N,)' if plain else '(N, k)'}; got "
            f"{tuple(getattr(values, 'shape', ()))} of {found} dimensions"
        )
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(
            f"{name} must be a sequence of numbers; got {values!r} of type {type(values).__name__}"
        )
    return list(values)
