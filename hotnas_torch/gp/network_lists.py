"""Plain lists of networks in place of the rows of a space."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from hotnas_torch.arch import Network, OperationTree
from hotnas_torch.arguments import items, kind, shown
from hotnas_torch.spaces import AnyNetwork, SearchSpace
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.frames import frame_rows, is_frame

__all__ = ["as_rows", "space_or_any"]


def space_or_any(space: SearchSpace | None, settings: Mapping[str, Any]) -> SearchSpace:
    """Return a space; without one, all networks over the tree that is among the settings.

    Raises:
        TypeError: `space` is no search space, or None without a tree.
    """
    if space is not None:
        return check_space(space)
    tree = settings.get("tree")
    if tree is None:
        raise TypeError(
            "space or tree is required: one of them must say what operations cost"
            " (hotnas_torch.spaces.get(name) makes a space)"
        )
    kind("tree", tree, OperationTree)
    return AnyNetwork(tree, state_scale=settings.get("state_scale"))


def as_rows(name: str, given: Tensor | Sequence[Network], space: SearchSpace) -> Tensor:
    """Return rows as they are, and a list of networks or a DataFrame as the rows of a space.

    Raises:
        TypeError, ValueError: None of these, or an empty one.
        ArchitectureError: A network that is not of the space; the message names it.
    """
    if isinstance(given, Tensor):
        return given
    if is_frame(given):
        return frame_rows(name, given, space)
    if not isinstance(given, list | tuple):
        raise TypeError(
            f"{name} must be a tensor, a DataFrame, or a list of networks; got {shown(given)}"
        )
    return space.encode(items(name, given, Network))
