"""Calls become operations: the one place where the table of kinds is applied."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from hotnas_torch.arch.operation import Operation
from hotnas_torch.arguments import shown
from hotnas_torch.importing.aten import ATEN
from hotnas_torch.importing.computation import Computation, Node
from hotnas_torch.importing.kinds import OTHER, Kind
from hotnas_torch.importing.patterns import fused
from hotnas_torch.importing.readers import Reading, plain
from hotnas_torch.importing.values import Call, Role, Shape, Value, values_in

__all__ = ["Recorder"]

INPUT = -1
"""Place of the network's input among the sources of a value."""


class Recorder:
    """Takes the calls of a computation in the order they are made, and keeps the operations.

    Args:
        batch: Examples in the network's input.
        kinds: Kind of a call by its target, which wins over the table.
        sizes: Elements of each parameter by its name.
    """

    def __init__(self, batch: int, kinds: Mapping[str, str | Kind], sizes: Mapping[str, int]):
        self.batch = max(1, batch)
        self.kinds = kinds
        self.sizes = sizes
        self.nodes: list[Node] = []
        self.places: list[tuple[Shape, int]] = []  # shape and width of each network input
        self._unknown: dict[str, str] = {}
        self._counted: set[str] = set()

    def input(self, shape: Shape, floating: bool) -> Value:
        """Return the value of an input of the network."""
        axis = None
        if floating and len(shape) > 1:  # (B, C, H, W) and alike, else (B, C) or (B, L, C)
            axis = 1 if len(shape) > 3 else len(shape) - 1
        width = 1 if axis is None else shape[axis]
        self.places.append((shape, width))
        return Value("data", shape, frozenset({INPUT}), axis=axis, width=width, floating=floating)

    def weight(self, name: str, shape: Shape) -> Value:
        """Return the value of a parameter."""
        return Value("weight", shape, weights=frozenset({name}))

    def constant(self, shape: Shape) -> Value:
        """Return a value that depends on no input and no parameter."""
        return Value("constant", shape)

    def call(
        self,
        target: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        results: list[tuple[Shape, bool]],
        scope: tuple[str, ...],
        *,
        several: bool = False,
    ) -> Value:
        """Record a call.

        Args:
            target: What is called, as in `Call`.
            args: Arguments by place.
            kwargs: Arguments by name.
            results: Shape of each tensor that it returns, and whether it holds floating numbers.
            scope: Modules that it was called in.
            several: Whether it returns a tuple.

        Returns:
            The value of the result.
        """
        shapes = [shape for shape, _ in results]
        given = list(values_in([args, kwargs]))
        weights = frozenset(name for value in given for name in value.weights)
        bare, in_place = target, False
        if target not in ATEN and target.endswith("_") and not target.endswith("__"):
            bare, in_place = target[:-1], True
        call = Call(bare, args, kwargs, shapes, self.batch, [f for _, f in results], scope)
        if not any(value.role == "data" for value in given):
            role: Role = "weight" if any(value.role == "weight" for value in given) else "constant"
            made = [Value(role, shape, weights=weights, floating=f) for shape, f in results]
        else:
            made = self._read(call, weights, results)
        if in_place and given:
            _overwrite(given[0], made[0] if made else given[0])
        if len(made) == 1 and not several:
            return made[0]
        first = made[0] if made else self.constant(())
        return Value(first.role, first.shape, first.sources, weights, parts=tuple(made))

    def _read(
        self, call: Call, weights: frozenset[str], results: list[tuple[Shape, bool]]
    ) -> list[Value]:
        reading = self._reading(call)
        if reading.constant:
            return [Value("constant", shape, floating=f) for shape, f in results]
        sources: dict[int, None] = {}
        for value in call.data:
            if not any(value is other for other in reading.ignored):
                sources.update(dict.fromkeys(sorted(value.sources)))
        made = []
        width = max(1, int(reading.width or 1))
        if reading.kind is not None:
            axis = reading.axis
            if axis is not None and -len(call.out) <= axis < len(call.out):
                width = max(1, call.out[axis])
            elif axis is not None:
                axis = None
            self.nodes.append(self._node(call, reading, tuple(sources), width, weights))
            sources = {len(self.nodes) - 1: None}
            reading.axis, weights = axis, frozenset()
        base = call.data[0] if reading.kind is None else None
        for place, (shape, floating) in enumerate(results):
            axis = reading.axis
            if axis is not None and (axis >= len(shape) or (place and shape != call.out)):
                axis = None if len(shape) != len(call.out) else axis
            wide = max(1, shape[axis]) if axis is not None and axis < len(shape) else width
            made.append(
                Value("data", shape, frozenset(sources), weights, axis, wide, floating, base=base)
            )
        return made

    def _reading(self, call: Call) -> Reading:
        own = self.kinds.get(call.target)
        reader = ATEN.get(call.target)
        if own is not None:
            reading = (reader or plain(OTHER))(call)
            reading.kind = own if isinstance(own, str) else own.name
            reading.constant = False
            if isinstance(own, Kind):
                found = {} if own.numbers is None else own.numbers(call)
                if not isinstance(found, Mapping):
                    raise TypeError(
                        f"numbers of the kind {own.name!r} must return a mapping from names to"
                        f" positive numbers; got {shown(found)} for {call.target!r}"
                    )
                Operation(own.name, **found)  # checks names and numbers
                reading.numbers = dict(found)
            return reading
        if reader is None:
            self._unknown.setdefault(call.target, ".".join(call.scope) or "the root module")
            return plain(OTHER)(call)
        return reader(call)

    def _node(
        self,
        call: Call,
        reading: Reading,
        sources: tuple[int, ...],
        width: int,
        weights: frozenset[str],
    ) -> Node:
        fresh = sorted(weights - self._counted)
        self._counted.update(fresh)
        return Node(
            target=call.target,
            kind=str(reading.kind),
            numbers=dict(reading.numbers),
            inputs=sources,
            scope=call.scope,
            shape=call.out,
            width=width,
            positions=max(1.0, math.prod(call.out) / (width * self.batch)),
            parameters=sum(self.sizes.get(name, 0) for name in fresh),
            multiply_adds=reading.multiply_adds,
            weighted=bool(weights),
        )

    def finish(self, outputs: Sequence[Value], lost: Sequence[str] = ()) -> Computation:
        """Return the computation behind some values.

        Args:
            outputs: Values that the network returns.
            lost: What could not be recorded, in words.
        """
        if self._unknown:
            named = "; ".join(f"{name!r} in {where}" for name, where in self._unknown.items())
            warnings.warn(
                f"operations of no known kind were imported as {OTHER!r}: {named} (say what they"
                " are: kinds={'name': 'conv'}, or a Kind of your own)",
                UserWarning,
                stacklevel=4,
            )
        reached = {source for value in outputs for source in value.sources}
        # Parameters that meet the data only in what is left out, such as a token put into a slice.
        nodes, reached = fused(self.nodes, reached)
        shape, width = max(self.places, key=lambda place: math.prod(place[0]) / place[1])
        return Computation(
            nodes=tuple(nodes),
            outputs=tuple(sorted(reached)),
            batch=self.batch,
            input_width=width,
            input_positions=max(1.0, math.prod(shape) / (width * self.batch)),
            dimensions=max(1, len(shape) - 2) if len(shape) > 3 else 1,
            lost=tuple(lost),
        )


def _overwrite(old: Value, new: Value) -> None:
    """Let a value that an operation wrote into, and what shares its memory, come from there."""
    whole = True
    seen: Value | None = old
    while seen is not None:
        seen.sources = new.sources if whole else seen.sources | new.sources
        seen.role = new.role if new.role == "data" else seen.role
        seen.weights = new.weights if whole else seen.weights | new.weights
        whole = whole and seen.base is not None and seen.base.size == seen.size
        seen = seen.base
