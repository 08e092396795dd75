"""Counts what a device other than the CPU would be asked for."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Counted"]

_FREE = ("view", "expand", "slice", "select", "squeeze", "detach", "alias", "transpose", "permute")
_FREE += ("unbind", "as_strided", "scalar_tensor", "empty", "split", "t.default", "_local_scalar")


class Counted(TorchDispatchMode):
    """While it lasts, counts operations, and how often the host would wait for a result.

    Attributes:
        operations: Those that compute, views and scalars of the host not among them.
        waits: Numbers that are read, and shapes that depend on values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        self.operations += not any(word in name for word in _FREE)
        self.waits += "_local_scalar" in name or "nonzero" in name or "unique" in name
        if name.startswith("index"):
            masks = [x for x in torch.utils._pytree.tree_leaves(args[1]) if x is not None]
            self.waits += any(getattr(x, "dtype", None) == torch.bool for x in masks)
        return func(*args, **(kwargs or {}))
