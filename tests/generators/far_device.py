"""A device that is not there: its tensors lie on the CPU and behave as if they did not.

What a GPU would refuse (tensors of two devices in one operation) raises, and what comes back to the
host is recorded, as is how often one side waits for the other. It is called "meta", the one device
that torch knows everywhere without driving.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

__all__ = ["FAR", "Crossings", "far_device", "near"]

FAR = torch.device("meta")

_INDEXING = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
}
"""Take positions that are still on the host."""


class _Far(Tensor):
    """A tensor that says that it is on the far device."""

    inner: Tensor
    is_meta = False  # unlike what "meta" is made for, it holds values

    @staticmethod
    def __new__(cls, inner: Tensor) -> "_Far":
        far = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=FAR,
        )
        far.inner = inner
        return far

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __getitem__(self, key: Any) -> Tensor:
        # Of a list torch makes a tensor where no mode sees it. Patched in Tensor itself, the method
        # would leave tensors being sequences to C when it is gone.
        found: Tensor = super().__getitem__(torch.tensor(key) if isinstance(key, list) else key)
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on a tensor of the far device, outside far_device()")


def near(value: Tensor) -> Tensor:
    """What a tensor of the far device holds, unrecorded."""
    return value.inner if isinstance(value, _Far) else value


class Crossings(list[tuple[torch.dtype, int]]):
    """What was moved to the host: dtype and number of elements, in order.

    Attributes:
        waits: Moves in either direction, and shapes that depend on values there.
        sent: Bytes that were moved to the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = self.sent = 0


class _FarDevice(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.crossings = Crossings()

    def _count(
        self, func: Any, args: Any, far: list[_Far], strange: list[Tensor], *, to_far: bool
    ) -> None:
        """Count what a call waits for; `strange` are its arguments on the host."""
        if far and not to_far:
            self.crossings += [(x.dtype, x.numel()) for x in far]
            self.crossings.waits += 1
        if to_far and strange:
            self.crossings.sent += sum(x.numel() * x.element_size() for x in strange)
            self.crossings.waits += 1
        by_mask = func in _INDEXING and any(
            x is not None and x.dtype == torch.bool for x in args[1]
        )
        self.crossings.waits += bool(far) and (by_mask or "nonzero" in str(func))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [
            x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)
        ]
        far = [x for x in tensors if isinstance(x, _Far)]
        if any(x.device == FAR and not isinstance(x, _Far) for x in tensors):
            raise RuntimeError(f"{func} on a tensor of the far device that was made unseen")
        given = kwargs.get("device")
        to_far = bool(far) if given is None else torch.device(given) == FAR
        if given is not None:
            kwargs["device"] = torch.device("cpu")
        elif func is torch.ops.aten._local_scalar_dense.default:
            to_far = False
        elif func is torch.ops.aten.copy_.default:
            to_far = isinstance(args[0], _Far)
        elif far:
            allowed = [args[0]] if func in _INDEXING and isinstance(args[0], _Far) else tensors
            strange = [x for x in allowed if x.dim() > 0 and not isinstance(x, _Far)]
            if strange:
                raise RuntimeError(f"{func}: tensors of two devices")
        host = [x for x in tensors if x.dim() > 0 and not isinstance(x, _Far)]
        self._count(func, args, far, host, to_far=to_far)
        found = func(*tree_map(near, args), **tree_map(near, kwargs))
        if func._schema.is_mutable:
            return args[0]
        return (
            tree_map(lambda x: _Far(x) if isinstance(x, Tensor) else x, found) if to_far else found
        )


@contextmanager
def far_device() -> Iterator[Crossings]:
    """While it lasts, ``device=FAR`` works.

    Yields:
        What was moved, as it grows.
    """
    make, device = torch.tensor, _FarDevice()

    # These fill a tensor of the host and move it where no mode sees it, and "meta" holds nothing.
    def tensor(data: Any, **options: Any) -> Tensor:
        where = options.pop("device", None)
        made = make(data, **options)
        return made if where is None else made.to(where)

    def new_tensor(self: Tensor, data: Any, **options: Any) -> Tensor:
        return tensor(data, **{"dtype": self.dtype, "device": self.device} | options)

    def as_tensor(data: Any, **options: Any) -> Tensor:
        return data.to(**options) if isinstance(data, Tensor) else tensor(data, **options)

    with (
        mock.patch.object(torch, "tensor", tensor),
        mock.patch.object(torch, "as_tensor", as_tensor),
        mock.patch.object(Tensor, "new_tensor", new_tensor),
        device,
    ):
        yield device.crossings
