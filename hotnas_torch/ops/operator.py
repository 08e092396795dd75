"""One op in two texts, compiled and torch, behind one call and with one set of gradient rules."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from hotnas_torch import _ext

__all__ = ["Backend", "Differentiate", "Operator"]

Backend = Literal["auto", "ext", "torch"]
Differentiate = Literal["implicit", "unroll"]


class Operator:
    """An op of the library ``hotnas`` and its torch text, interchangeable.

    Construction attaches to the compiled op, where there is one, what it lacks by itself: a fake
    for tracing and the gradient formula. The torch text gets the same formula, so a gradient does
    not depend on which text computed the value.

    Args:
        name: Name of the op in ``torch.ops.hotnas``.
        reference: The torch text, with the positional signature of the op.
        fake: Shapes and dtypes of the results, from inputs that have no data.
        setup_context: Saves for ``backward`` what it needs: ``(ctx, inputs, output)``.
        backward: Gradients of all inputs from those of all outputs, which are None for outputs that
            the loss does not use. Without one, a backward pass through the op raises.
    """

    def __init__(
        self,
        name: str,
        reference: Callable[..., Any],
        *,
        fake: Callable[..., Any],
        setup_context: Callable[..., None] | None = None,
        backward: Callable[..., Any] | None = None,
    ) -> None:
        self.name = name
        self._reference = reference

        def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            # Outputs that the loss does not use shall arrive as None and not as zeros.
            ctx.set_materialize_grads(False)
            if setup_context is not None:
                setup_context(ctx, inputs, output)

        def refuse(ctx: Any, *grads: Tensor | None) -> None:  # noqa: ARG001
            msg = f"hotnas::{name} is not differentiable; detach its inputs"
            raise RuntimeError(msg)

        methods = {
            "forward": staticmethod(reference),
            "setup_context": staticmethod(save),
            "backward": staticmethod(refuse if backward is None else backward),
        }
        self._function: Any = type(f"Torch_{name}", (torch.autograd.Function,), methods)
        if _ext.loaded:
            torch.library.register_fake(f"hotnas::{name}", fake)
            torch.library.register_autograd(
                f"hotnas::{name}",
                refuse if backward is None else backward,
                setup_context=save,
            )

    def __call__(self, *inputs: Any, backend: str, differentiate: str = "implicit") -> Any:
        """Run the op.

        Args:
            *inputs: As the op takes them; the first one decides the device.
            backend: "ext" for the compiled op, "torch" for the torch text, "auto" for the compiled
                op where it is loaded and has kernels for the tensors' device.
            differentiate: "implicit" for the op's gradient formula; "unroll" runs the torch text
                and lets autograd record its steps.

        Raises:
            ValueError: ``backend`` or ``differentiate`` is none of these, or "ext" is asked for
                and cannot serve.
        """
        compiled = self._uses_extension(backend, inputs[0].device)
        if differentiate == "unroll":
            if backend == "ext":
                msg = (
                    'differentiate="unroll" records the steps of the torch text, which'
                    ' backend="ext" does not take; use backend="auto"'
                )
                raise ValueError(msg)
            return self._reference(*inputs)
        if differentiate != "implicit":
            msg = f'differentiate must be "implicit" or "unroll", got {differentiate!r}'
            raise ValueError(msg)
        if compiled:
            try:
                return getattr(torch.ops.hotnas, self.name)(*inputs)
            except RuntimeError as error:
                failed = error
            _ext.raise_pending()  # a signal ended the call: its KeyboardInterrupt, say
            raise failed
        return self._function.apply(*inputs)

    def _uses_extension(self, backend: str, device: torch.device) -> bool:
        if backend == "torch":
            return False
        if backend == "auto":
            serves = _ext.serves(device)
            if not serves and not torch.compiler.is_compiling():
                _ext.warn_of_absence(device)
            return serves
        if backend != "ext":
            msg = f'backend must be "auto", "ext" or "torch", got {backend!r}'
            raise ValueError(msg)
        if not _ext.loaded:
            msg = f'backend="ext" needs the compiled core, but {_ext.reason}; use backend="auto"'
            raise ValueError(msg)
        if not _ext.serves(device):
            msg = (
                f'backend="ext" has no kernels for tensors on {device} (show_config() lists what it'
                ' has); use backend="auto"'
            )
            raise ValueError(msg)
        return True
