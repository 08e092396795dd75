"""Values that a recorded computation passes on: shapes and origins, no numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Call", "Role", "Shape", "Value", "tracked_axis", "values_in"]

Shape = tuple[int, ...]
Role = Literal["data", "weight", "constant"]


@dataclass(slots=True, eq=False)
class Value:
    """A tensor of which only the shape is known.

    Attributes:
        role: `"data"` depends on the network's inputs, `"weight"` on parameters alone,
            `"constant"` on neither.
        shape: Its shape.
        sources: Nodes that it was computed by, by their places; -1 is the network's input.
        weights: Names of the parameters in it, where no node has them.
        axis: Which dimension counts channels; None where none does.
        width: Channels, >= 1.
        floating: Whether it holds floating or complex numbers.
        parts: Values of which it is a tuple.
        base: Value whose memory it shares.
    """

    role: Role
    shape: Shape
    sources: frozenset[int] = frozenset()
    weights: frozenset[str] = frozenset()
    axis: int | None = None
    width: int = 1
    floating: bool = True
    parts: "tuple[Value, ...] | None" = None
    base: "Value | None" = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def values_in(item: Any) -> Iterator[Value]:
    """Yield all values in arguments, in order."""
    if isinstance(item, Value):
        if item.parts is None:
            yield item
        else:
            for part in item.parts:
                yield from values_in(part)
    elif isinstance(item, Mapping):
        for part in item.values():
            yield from values_in(part)
    elif isinstance(item, list | tuple):
        for part in item:
            yield from values_in(part)


@dataclass(slots=True)
class Call:
    """An operation as it was called.

    Attributes:
        target: Name of what was called: of ATen without prefix, overload and trailing underscore,
            of another library `"library::name"`.
        args: Arguments by place; a `Value` stands for each tensor.
        kwargs: Arguments by name.
        shapes: Shape of each tensor that it returns.
        batch: Examples in the network's input.
        floating: Whether each result holds floating numbers.
        scope: Modules that it was called in, the outermost first.
    """

    target: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    shapes: list[Shape]
    batch: int = 1
    floating: list[bool] = field(default_factory=list)
    scope: tuple[str, ...] = ()

    @property
    def out(self) -> Shape:
        """Shape of the first result."""
        return self.shapes[0] if self.shapes else ()

    @property
    def data(self) -> list[Value]:
        """Arguments that depend on the network's inputs."""
        return [v for v in values_in([self.args, self.kwargs]) if v.role == "data"]

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument by its place or name."""
        if place < len(self.args):
            return self.args[place]
        return self.kwargs.get(name, default)

    def shape(self, place: int, name: str = "") -> Shape:
        """Return the shape of an argument, () where it is no tensor."""
        found = self.get(place, name)
        return found.shape if isinstance(found, Value) else ()


def tracked_axis(axis: int | None, before: Shape, after: Shape) -> int | None:
    """Return which dimension counts channels after a change of shape, None if none does.

    The dimension with the same size and as many elements behind it, else before it.
    """
    if axis is None:
        return None
    if len(before) == len(after) and before[axis] == after[axis]:
        return axis
    size = before[axis]
    behind, ahead = math.prod(before[axis + 1 :]), math.prod(before[:axis])
    alike = [d for d in range(len(after)) if after[d] == size]
    for d in alike:
        if math.prod(after[d + 1 :]) == behind:
            return d
    for d in alike:
        if math.prod(after[:d]) == ahead:
            return d
    return None
