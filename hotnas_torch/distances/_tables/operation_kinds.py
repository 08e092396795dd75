"""What the operations of the search spaces are: family, filter size, group."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hotnas_torch.spaces import SearchSpace

__all__ = ["OPERATION_KINDS", "OperationKind", "kinds_of"]


@dataclass(frozen=True, slots=True)
class OperationKind:
    """A kind of layer.

    Attributes:
        family: Operations of one family differ in the size of their filter only.
        size: Side of the filter.
        group: What a layer does, as NASBOT groups layers.
    """

    family: str
    size: float
    group: Literal["conv", "pool", "fc", "other"]


def _conv(family: str, size: int) -> OperationKind:
    return OperationKind(family, size, "conv")


OPERATION_KINDS: Mapping[str, OperationKind] = {
    "conv3x3-bn-relu": _conv("conv", 3),
    "conv1x1-bn-relu": _conv("conv", 1),
    "maxpool3x3": OperationKind("max_pool", 3, "pool"),
    "nor_conv_1x1": _conv("conv", 1),
    "nor_conv_3x3": _conv("conv", 3),
    "avg_pool_3x3": OperationKind("avg_pool", 3, "pool"),
    "max_pool_3x3": OperationKind("max_pool", 3, "pool"),
    "max_pool_2x2": OperationKind("max_pool", 2, "pool"),
    "conv1x1": _conv("conv", 1),
    "conv_1x1": _conv("conv", 1),
    "conv_3x3": _conv("conv", 3),
    "conv3x3": _conv("conv", 3),
    "conv3x3_width": _conv("conv", 3),
    "conv3x3_stride": _conv("conv", 3),
    "conv3x3_both": _conv("conv", 3),
    # Bottlenecks are residual blocks.
    "mb3_k3": _conv("res", 3),
    "mb6_k5": _conv("res", 5),
    "sep_conv_3x3": _conv("sep_conv", 3),
    "sep_conv_5x5": _conv("sep_conv", 5),
    "dil_conv_3x3": _conv("dil_conv", 3),
    "dil_conv_5x5": _conv("dil_conv", 5),
    "skip_connect": OperationKind("identity", 1, "other"),
    "identity": OperationKind("identity", 1, "other"),
}
"""The operations of the spaces that come with this library."""


def kinds_of(
    space: SearchSpace, given: Mapping[str, OperationKind] | None, *, joints: frozenset[str]
) -> dict[str, OperationKind]:
    """Return the kind of every operation of a space.

    Args:
        space: The space.
        given: Kinds that add to `OPERATION_KINDS` and win over them.
        joints: Labels that are no operations.

    Raises:
        TypeError: A given kind is no OperationKind.
        ValueError: An operation of the space whose kind is unknown; the message names it.
    """
    known = {**OPERATION_KINDS, **(given or {})}
    for label, kind in known.items():
        if not isinstance(kind, OperationKind):
            raise TypeError(f"kinds[{label!r}] must be an OperationKind; got {kind!r}")
    labels = [label for label in space.tree.kinds if label not in joints and label != "none"]
    for label in labels:
        if label not in known:
            raise ValueError(
                f"kinds must say what the operation {label!r} of {space!r} is; known are"
                f" {', '.join(known)} (pass kinds={{{label!r}: OperationKind(...)}})"
            )
    return {label: known[label] for label in labels}
