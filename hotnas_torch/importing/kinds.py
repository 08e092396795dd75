"""Kinds of operations in imported networks, and the tree of what exchanging them costs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hotnas_torch.arch import OperationTree
from hotnas_torch.arguments import number, shown
from hotnas_torch.errors import ArchitectureError

if TYPE_CHECKING:
    from hotnas_torch.importing.values import Call

__all__ = ["FAMILIES", "NUMBER_WEIGHTS", "OTHER", "Kind", "kind_names", "operation_tree"]

OTHER = "other"
"""Kind of an operation that no table knows."""

# Family -> (length of the edge above it, {kind: length of the edge above it}); a family may lie in
# another one. Two kinds of one family are near each other, two of different ones about 2 apart.
FAMILIES: dict[str, tuple[str | None, float, dict[str, float]]] = {
    "ends": (None, 1.0, {"input": 0.5, "output": 0.5}),
    # What mixes channels or places by learned weights.
    "mixing": (None, 0.5, {"fourier": 0.5}),
    "dense": ("mixing", 0.3, {"linear": 0.05, "pointwise_conv": 0.05}),
    "convolution": (
        "mixing",
        0.3,
        {
            "conv": 0.1,
            "grouped_conv": 0.1,
            "depthwise_conv": 0.2,
            "transposed_conv": 0.2,
            "deformable_conv": 0.2,
        },
    ),
    "attention_like": ("mixing", 0.4, {"attention": 0.2, "matmul": 0.3}),
    "recurrence": ("mixing", 0.4, {"lstm": 0.1, "gru": 0.1, "rnn": 0.2, "scan": 0.3}),
    "lookup": ("mixing", 0.4, {"embedding": 0.3, "gather": 0.4}),
    "normalization": (
        None,
        0.8,
        {
            "batch_norm": 0.2,
            "layer_norm": 0.15,
            "rms_norm": 0.15,
            "group_norm": 0.2,
            "instance_norm": 0.2,
            "vector_norm": 0.25,
            "local_response_norm": 0.25,
        },
    ),
    "activation": (None, 0.7, {}),
    "rectifier": ("activation", 0.1, {"relu": 0.05, "leaky_relu": 0.1, "relu6": 0.05}),
    "smooth": (
        "activation",
        0.1,
        {"gelu": 0.1, "silu": 0.1, "mish": 0.1, "hardswish": 0.1, "elu": 0.15, "softplus": 0.15},
    ),
    "gate": (
        "activation",
        0.2,
        {"sigmoid": 0.1, "hardsigmoid": 0.1, "tanh": 0.15, "softmax": 0.2, "glu": 0.2},
    ),
    "pooling": (
        None,
        0.8,
        {
            "max_pool": 0.2,
            "avg_pool": 0.2,
            "global_max_pool": 0.25,
            "global_avg_pool": 0.25,
            "reduction": 0.3,
        },
    ),
    "resampling": (None, 0.8, {"resize": 0.2, "sample": 0.3}),
    "merge": (
        None,
        0.8,
        {"sum": 0.1, "product": 0.2, "concat": 0.2, "maximum": 0.2, "choose": 0.3},
    ),
    "parameter": (None, 0.7, {"shift": 0.15, "scale": 0.15}),
    "arithmetic": (None, 0.7, {"elementwise": 0.3, "sort": 0.4, OTHER: 0.4}),
}


NUMBER_WEIGHTS: dict[str, float] = {
    "kernel": 0.4,
    "stride": 0.2,
    "dilation": 0.2,
    "groups": 0.2,
    "heads": 0.1,
    "layers": 0.2,
    "entries": 0.1,
    "factor": 0.1,
    "width": 0.2,
    "positions": 0.1,
}
"""What numbers weigh in the tree: the most that one adds to the cost of exchanging operations."""

STATE_SCALE = (7.0, 5.0)
"""Octaves that widths and resolutions of most published models go through."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of operation of one's own.

    Args:
        name: Its name in labels and in the tree.
        family: Family that it lies in, one of `FAMILIES`; kinds of one family are near each other.
        length: Length of the edge above it in the tree, finite and >= 0.
        numbers: Reads the numbers of an operation of this kind, besides its width and positions:
            a function from the `Call` to positive finite numbers by name. None: no more numbers.

    Raises:
        TypeError: An argument of the wrong kind.
        ArchitectureError: An unknown family, or a name that no operation can have.
        ValueError: A length that is negative or not finite.
    """

    name: str
    family: str
    length: float = 0.2
    numbers: "Callable[[Call], Mapping[str, float]] | None" = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or set("[]") & set(self.name):
            raise ArchitectureError(
                f"name of a kind must be a non-empty text without '[' and ']'; got {self.name!r}"
            )
        if self.family not in FAMILIES or self.family == "ends":
            known = ", ".join(name for name in FAMILIES if name != "ends")
            raise ArchitectureError(
                f"family of the kind {self.name!r} must be one of {known}; got {self.family!r}"
            )
        number(f"length of the kind {self.name!r}", self.length, least=0.0)
        if self.numbers is not None and not callable(self.numbers):
            raise TypeError(
                f"numbers of the kind {self.name!r} must be a function of the call, or None; got"
                f" {shown(self.numbers)}"
            )


def kind_names() -> tuple[str, ...]:
    """Return the names of all kinds that the library knows."""
    return tuple(name for _, _, kinds in FAMILIES.values() for name in kinds)


def own_kinds(kinds: Mapping[Any, "str | Kind"] | None) -> Iterator[Kind]:
    """Yield each kind of a mapping that the library does not know, once.

    Raises:
        ArchitectureError: Two kinds of one name that differ, or one that has the name of a known
            kind or family.
    """
    seen: dict[str, Kind] = {}
    known = {*kind_names(), *FAMILIES, "operation"}
    for kind in (kinds or {}).values():
        if not isinstance(kind, Kind) or seen.get(kind.name) == kind:
            continue
        if kind.name in known or kind.name in seen:
            why = "is defined twice" if kind.name in seen else "is a name of the library's"
            raise ArchitectureError(
                f"kinds must have names of their own; {kind.name!r} {why} (choose another name, or"
                " map to the name alone)"
            )
        seen[kind.name] = kind
        yield kind


def operation_tree(
    kinds: Mapping[Any, "str | Kind"] | None = None,
    weights: Mapping[str, float] | None = None,
) -> OperationTree:
    """Return the tree of all kinds: what exchanging operations of imported networks costs.

    It says how far widths and resolutions of published models go as well (`state_scale`), by which
    `HOTNN` compares the states of their cells.

    Args:
        kinds: Kinds of one's own, as passed to `from_module`; each becomes a leaf of its family.
        weights: Weights of numbers, which add to `NUMBER_WEIGHTS` and win over them.

    Raises:
        TypeError: `weights` is no mapping.
        ArchitectureError: A kind has the name of another one, or a weight is none.

    Example:
        >>> tree = operation_tree()
        >>> costs = tree.distance_matrix(["conv", "depthwise_conv", "relu"])
        >>> bool(costs[0, 1] < costs[0, 2])
        True
        >>> tree.distance_matrix(["conv[kernel=1]", "conv[kernel=4]"])[0, 1].item()
        0.20000000298023224
    """
    if weights is not None and not isinstance(weights, Mapping):
        raise TypeError(f"weights must be a mapping of number to weight; got {shown(weights)}")
    parents: dict[str, str | None] = {"operation": None}
    lengths: dict[str, float] = {}
    for family, (above, length, _) in FAMILIES.items():
        parents[family], lengths[family] = above or "operation", length
    for family, (_, _, members) in FAMILIES.items():
        for name, length in members.items():
            parents[name], lengths[name] = family, length
    for kind in own_kinds(kinds):
        parents[kind.name], lengths[kind.name] = kind.family, kind.length
    numbers = {**NUMBER_WEIGHTS, **(weights or {})}
    return OperationTree(parents, lengths, numbers, state_scale=STATE_SCALE)
