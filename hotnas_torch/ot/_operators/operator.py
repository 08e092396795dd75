# Over 400 lines: what every operator shares: dispatch, tracing, derivatives.
"""One op, compiled and as a reference, behind one call and with one set of derivative rules.

An op itself has no derivative: it is a black box to autograd, to the transforms of `torch.func`
and to `torch.compile`, on tensors that nothing tracks. What is known about the derivatives of its
outputs surrounds it as one `torch.autograd.Function` for both (`Operator`).
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch._subclasses.fake_tensor import is_fake
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.library import Library, infer_schema

from hotnas_torch import _ext
from hotnas_torch.ot._operators.tracing import STEPS_DEPEND_ON_VALUES, left_to_python, one_call

__all__ = [
    "Backend",
    "Differentiate",
    "Operator",
    "along",
    "attached",
    "forward_levels",
    "full_precision",
    "has_values",
    "held",
    "is_tracked",
    "is_vmapped",
    "plain",
    "save",
    "undefined",
]

Backend = Literal["auto", "ext", "torch"]
Differentiate = Literal["implicit", "unroll"]

P = ParamSpec("P")
R = TypeVar("R")

_NAMESPACE = "hotnas_reference"
_REFERENCES = Library(_NAMESPACE, "FRAGMENT")
"""The reference implementations as ops, so that tracers and vmap need not follow their loops."""


class Operator:
    """An op of the library `hotnas` and its reference implementation, interchangeable.

    Args:
        name: Name of the op in `torch.ops.hotnas`.
        reference: The same in torch, with the annotated positional signature of the op.
        fake: Shapes and dtypes of the results, from inputs that have no data.
        outputs: Names of the results, for messages.
        shared: Which inputs are tensors without the batch dimension that all others start with;
            None where the items are not in one batch dimension, so that there is no vmap.
        setup_context: Saves what the rules need, `(ctx, inputs, output)`: tensors by `save`,
            anything else as attributes. `ctx.underived` names the outputs that have no
            derivative; a gradient that is not 0 raises there, before `backward` is called.
            `ctx.name` is what the message calls the op.
        backward: Gradients of all inputs from those of all outputs, which are None for outputs that
            the loss does not use. Without one, a derivative of any output raises.
        jvp: Tangents of all outputs from those of all inputs, None for constants.
        composed: Whether it is made of other operators: `reference` then has the backend of these,
            "ext" or "torch", as its last argument, and there is no compiled op of its own.
    """

    def __init__(
        self,
        name: str,
        reference: Callable[..., Any],
        *,
        fake: Callable[..., Any],
        outputs: Sequence[str] = ("result",),
        shared: Sequence[int] | None = (),
        setup_context: Callable[..., None] | None = None,
        backward: Callable[..., Any] | None = None,
        jvp: Callable[..., Any] | None = None,
        composed: bool = False,
    ) -> None:
        self.name = name
        self._composed = composed
        self._reference = full_precision(reference)
        self._recorded = self._reference
        left_to_python(self, "_recorded", STEPS_DEPEND_ON_VALUES)
        _REFERENCES.define(name + infer_schema(reference, mutates_args=()))
        _REFERENCES.impl(name, self._reference, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{_NAMESPACE}::{name}", fake, lib=_REFERENCES)
        self._compiled: Callable[..., Any] | None = None
        if _ext.loaded and not composed:
            torch.library.register_fake(f"hotnas::{name}", fake)
            self._compiled = getattr(torch.ops.hotnas, name).default  # which is looked up once
        self._attached = attached(
            name,
            self._solve,
            outputs=outputs,
            shared=shared,
            setup_context=setup_context,
            backward=backward,
            jvp=jvp,
        )

    def __call__(self, *inputs: Any, backend: str, differentiate: str = "implicit") -> Any:
        """Run the op.

        Args:
            *inputs: As the op takes them; the first one decides the device.
            backend: "ext" for the compiled op, "torch" for the reference, "auto" for the compiled
                op where it is loaded and has kernels for the tensors' device.
            differentiate: "implicit" for the op's derivative rules; "unroll" runs the reference
                and lets autograd record its steps.

        Raises:
            ValueError: `backend` or `differentiate` is none of these, or "ext" is asked for
                and cannot serve.
            RuntimeError: Steps shall be recorded under `torch.vmap`.
        """
        compiled = self.uses_extension(backend, inputs[0].device)
        if differentiate == "unroll":
            if backend == "ext":
                msg = (
                    'differentiate="unroll" records the steps of the reference, which'
                    ' backend="ext" does not take; use backend="auto"'
                )
                raise ValueError(msg)
            if not torch.compiler.is_compiling() and is_vmapped(*inputs):
                msg = (
                    f"{STEPS_DEPEND_ON_VALUES}, which torch.vmap cannot do; pass a batch, or use"
                    ' differentiate="implicit"'
                )
                raise RuntimeError(msg)
            return self._recorded(*inputs)
        if differentiate != "implicit":
            msg = f'differentiate must be "implicit" or "unroll"; got {differentiate!r}'
            raise ValueError(msg)
        return self._attached(*inputs, compiled)

    def alone(self, *tensors: Tensor) -> Any:
        """Run the compiled op on one problem, which spares making a batch of it.

        Args:
            *tensors: As the op takes them, less the dimension that items lie in.

        Returns:
            Its results, without that dimension, too; None where that cannot be: something tracks
            the tensors or traces the call, or there is no compiled op for them.
        """
        if self._compiled is None or not tensors[0].is_cpu:
            return None
        if not has_values(*tensors) or is_tracked(*tensors):
            return None
        return self._run(tensors)

    def _solve(self, *arguments: Any) -> Any:
        *inputs, compiled = arguments
        if self._composed:
            inputs.append("ext" if compiled else "torch")
        if self._composed or not compiled or self._compiled is None:
            return getattr(getattr(torch.ops, _NAMESPACE), self.name)(*inputs)
        return self._run(inputs)

    def _run(self, inputs: Sequence[Any]) -> Any:
        assert self._compiled is not None
        try:
            return self._compiled(*inputs)
        except RuntimeError as error:
            failed = error
        _ext.raise_pending()  # a signal ended the call: its KeyboardInterrupt, say
        raise failed

    def uses_extension(self, backend: str, device: torch.device) -> bool:
        """Tell whether a call with this backend runs the compiled op; errors as there."""
        if backend == "torch":
            return False
        if backend == "auto":
            serves = _ext.serves(device)
            if not serves and not torch.compiler.is_compiling():
                _ext.warn_of_absence(device)
            return serves
        if backend != "ext":
            msg = f'backend must be "auto", "ext" or "torch"; got {backend!r}'
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


def attached(
    name: str,
    compute: Callable[..., Any],
    *,
    outputs: Sequence[str] = ("result",),
    shared: Sequence[int] | None = (),
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
    jvp: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Give a function of tensors derivative rules, see `Operator` for the arguments.

    Nothing is recorded where no input is tracked, and the function is called as it is.
    """
    refusal = f"{name} is not differentiable; detach its inputs"

    def forward(*inputs: Any) -> Any:
        return compute(*inputs)

    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        # Outputs that the loss does not use shall arrive as None and not as zeros.
        ctx.set_materialize_grads(False)
        results = output if isinstance(output, tuple) else (output,)
        ctx.mark_non_differentiable(*(r for r in results if not r.is_floating_point()))
        ctx.shapes = [value.shape if isinstance(value, Tensor) else None for value in inputs]
        ctx.name, ctx.underived = name, ()
        if setup_context is not None:
            setup_context(ctx, inputs, output)

    @full_precision
    def pull(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        zero, used = None, list(grads)
        for place, (output, grad) in enumerate(zip(outputs, grads, strict=True)):
            if grad is None or not (backward is None or output in ctx.underived):
                continue
            message = refusal if backward is None else _no_derivative(ctx.name, output)
            refused = _refuse(grad, None, message)
            zero = refused if zero is None else zero + refused
            used[place] = None
        gradients = () if backward is None else backward(ctx, *used)
        gradients = (*gradients, *[None] * (len(ctx.shapes) - len(gradients)))
        if zero is None:
            return gradients
        # A tracer that materialises the gradients of unused outputs learns only when it runs that
        # they are 0; the check must stay in its graph.
        return tuple(
            _joined(gradient, zero, shape)
            for gradient, shape in zip(gradients, ctx.shapes, strict=True)
        )

    @full_precision
    def push(ctx: Any, *tangents: Tensor | None) -> Any:
        if jvp is None:
            raise RuntimeError(refusal)
        if get_proxy_mode() is not None and not any(is_fake(t) for t in ctx.saved_tensors):
            # It would run our steps in place on what it keeps of the first call: silently wrong.
            msg = f"torch.func.linearize cannot record {name}; use torch.func.jvp at each tangent"
            raise RuntimeError(msg)
        if forward_levels()[0] > 1:
            # Torch turns all forward mode off while it calls the rule of one level, so that the
            # tangents of the other would silently be 0.
            msg = (
                "forward mode inside forward mode does not reach these derivatives; use"
                " torch.func.hessian, which is jacfwd(jacrev), or torch.func.jvp of torch.func.grad"
            )
            raise RuntimeError(msg)
        return jvp(ctx, *tangents)

    def fold(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, Any]:
        if shared is None:
            msg = f"{name} cannot run under torch.vmap; pass all items in one call"
            raise RuntimeError(msg)
        size = info.batch_size
        flat = [
            _folded(value, dim, size, shared=place in shared)
            for place, (value, dim) in enumerate(zip(inputs, in_dims, strict=True))
        ]
        found = rules.apply(*flat)
        if isinstance(found, Tensor):
            return found.unflatten(0, (size, -1)), 0
        return tuple(value.unflatten(0, (size, -1)) for value in found), (0,) * len(found)

    methods = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(save),
        "backward": staticmethod(pull),
        "jvp": staticmethod(push),
        "vmap": staticmethod(fold),
    }
    rules: Any = type(f"Derivatives_of_{name}", (torch.autograd.Function,), methods)

    def call(*inputs: Any) -> Any:
        if not is_tracked(*inputs):
            return compute(*inputs)
        if torch._C._functorch.TransformType.Functionalize in _transforms():
            msg = f"torch.func.functionalize has no rule for {name}; call it outside"
            raise RuntimeError(msg)
        return rules.apply(*inputs)

    return one_call(call)


def _transforms() -> list[Any]:
    """Kinds of the active transforms of `torch.func`, the outermost first."""
    if not torch._C._are_functorch_transforms_active():
        return []
    return [level.key() for level in retrieve_all_functorch_interpreters()]


def forward_levels() -> tuple[int, int]:
    """How many transforms of `torch.func` are active that differentiate: in forward mode, all."""
    kinds = torch._C._functorch.TransformType
    levels = _transforms()
    forward = levels.count(kinds.Jvp)
    return forward, forward + levels.count(kinds.Grad)


def save(ctx: Any, *tensors: Tensor) -> None:
    """Save tensors for the backward pass and for forward mode.

    Raises:
        RuntimeError: One was made under `torch.inference_mode`.
    """
    if any(tensor.is_inference() for tensor in tensors):
        msg = (
            "a gradient is asked for, but an input was made under torch.inference_mode, which"
            " autograd cannot keep; pass its clone(), or make it under torch.no_grad"
        )
        raise RuntimeError(msg)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def is_tracked(*values: Any) -> bool:
    """Whether autograd records, or forward mode or a transform of `torch.func` follows, a tensor.

    Args:
        *values: Tensors, and anything else, which is not tracked.
    """
    recorded = torch.is_grad_enabled()
    if forward_ad._current_level < 0 and not torch._C._are_functorch_transforms_active():
        # A loop: a generator costs as much as the small problem that is asked for.
        for value in values:
            if recorded and isinstance(value, Tensor) and value.requires_grad:
                return True
        return False
    return any(
        isinstance(value, Tensor)
        and (
            (recorded and value.requires_grad)
            or torch._C._functorch.is_functorch_wrapped_tensor(value)
            or forward_ad.unpack_dual(value).tangent is not None
        )
        for value in values
    )


def is_vmapped(*values: Any) -> bool:
    """Whether a tensor stands for the items of a `torch.vmap`, so that it has no one value."""
    of = torch._C._functorch
    for value in values:
        if not isinstance(value, Tensor):
            continue
        if of.is_legacy_batchedtensor(value):  # torch.autograd.grad(is_grads_batched=True)
            return True
        while of.is_functorch_wrapped_tensor(value):
            if of.is_batchedtensor(value):
                return True
            value = of.get_unwrapped(value)
    return False


def has_values(*tensors: Tensor) -> bool:
    """Whether Python can look at the values of all tensors.

    It cannot while a function is traced (`torch.compile`, `torch.export`,
    `torch.func.linearize`), where a tensor stands for the items of a `torch.vmap`, and on the
    meta device. Checks of values are left out there; the solvers report by `status` and NaN what
    the checks would have refused.
    """
    if torch.compiler.is_compiling() or get_proxy_mode() is not None:
        return False
    for tensor in tensors:
        if not _holds_numbers(tensor):
            return not (is_vmapped(*tensors) or any(one.is_meta or is_fake(one) for one in tensors))
    return True


def _holds_numbers(tensor: Tensor) -> bool:
    """Whether a tensor is nothing but that, as most are, and says so in a tenth of the time."""
    return (
        type(tensor) is Tensor
        and not tensor.is_meta
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and not torch._C._functorch.is_legacy_batchedtensor(tensor)
        and not torch._is_functional_tensor(tensor)
    )


def plain(value: Tensor) -> Tensor:
    """Return the values of a tensor alone, which nothing tracks.

    Raises:
        RuntimeError: It stands for the items of a `torch.vmap`.
    """
    if is_vmapped(value):
        msg = "a tensor that torch.vmap maps has no one value here; call in a loop over the items"
        raise RuntimeError(msg)
    value = value.detach()
    while torch._C._functorch.is_functorch_wrapped_tensor(value):
        value = torch._C._functorch.get_unwrapped(value)
    return value


def along(slopes: Sequence[Tensor | None], tangents: Sequence[Tensor | None]) -> Tensor:
    """Return the derivative of one number per item along tangents: inner products with its slopes.

    Args:
        slopes: Derivatives in each input, shape (B, ...); None where the tangent is.
        tangents: Of the inputs, of the same shapes; None for constants.

    Returns:
        Shape (B,).
    """
    total: Tensor | None = None
    for slope, tangent in zip(slopes, tangents, strict=True):
        if slope is None or tangent is None:
            continue
        # Absent nodes may hold anything: 0 times that must be 0.
        terms = torch.where(slope == 0, 0, tangent) * slope
        change = terms.sum(tuple(range(1, terms.dim()))) if terms.dim() > 1 else terms
        total = change if total is None else total + change
    assert total is not None
    return total


def undefined(like: Tensor) -> Tensor:
    """NaN of the shape of an output: the tangent where there is no derivative.

    Forward mode does not know yet what the loss will use, so that it cannot raise.
    """
    return torch.full_like(like, torch.nan)


def held(value: Tensor, message: str, *inputs: Tensor, vertex: Tensor | None = None) -> Tensor:
    """Take `value` as a constant in a derivative that may be differentiated again.

    Args:
        value: What does not move to first order, shape (B, ...).
        message: Error for a second derivative in an input, which would have to move it.
        *inputs: What `value` does depend on.
        vertex: Coupling, shape (B, n, m): items where it is a vertex of the transport polytope do
            not move, and their second derivatives are 0 instead.

    Returns:
        `value`. Forward mode gets NaN where the backward pass raises.
    """
    # The batches of torch.autograd.grad(is_grads_batched=True) cannot be detached.
    if not torch._C._functorch.is_legacy_batchedtensor(value):
        value = value.detach()
    if not is_tracked(*inputs):
        return value
    apply: Any = _Held.apply
    result: Tensor = apply(value, message, vertex if vertex is None else vertex.detach(), *inputs)
    return result


class _Held(torch.autograd.Function):
    @staticmethod
    def forward(value: Tensor, message: str, vertex: Tensor | None, *inputs: Tensor) -> Tensor:
        del message, vertex, inputs
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.message, vertex, *others = inputs
        ctx.shapes = [tensor.shape for tensor in others]
        ctx.has_vertex = vertex is not None
        save(ctx, output if vertex is None else vertex, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        plan = ctx.saved_tensors[0] if ctx.has_vertex else None
        zero = _refuse(grads[0], plan, ctx.message)
        return None, None, None, *(zero.expand(shape) for shape in ctx.shapes)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        del tangents
        plan, output = ctx.saved_tensors
        if not ctx.has_vertex:
            return undefined(output)
        stays = _is_vertex(plan).reshape(-1, *[1] * (output.dim() - 1))
        return torch.where(stays, torch.zeros_like(output), torch.nan)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], value: Tensor, message: str, *rest: Any
    ) -> tuple[Tensor, int]:
        apply: Any = _Held.apply
        size = info.batch_size
        flat = [
            _folded(tensor, dim, size, shared=False)
            for tensor, dim in zip((value, *rest), (in_dims[0], *in_dims[2:]), strict=True)
        ]
        return apply(flat[0], message, *flat[1:]).unflatten(0, (size, -1)), 0


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function run in the dtype of its inputs, also under `torch.autocast`."""

    @wraps(function)
    def exact(*args: P.args, **kwargs: P.kwargs) -> R:
        if not (torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*args, **kwargs)

    return exact


def _no_derivative(name: str, output: str) -> str:
    return (
        f"the loss depends on {output} of {name}, which has no useful derivative;"
        f" differentiate the objective, or detach {output}"
    )


def _joined(gradient: Tensor | None, zero: Tensor, shape: torch.Size | None) -> Tensor | None:
    if shape is None:
        return None
    return zero.expand(shape) if gradient is None else gradient + zero


def _folded(value: Any, dim: int | None, size: int, *, shared: bool) -> Any:
    """Return an input with the mapped dimension at the front of its batch dimension."""
    if not isinstance(value, Tensor):
        return value
    if shared:
        if dim is not None and value.numel():
            msg = "start_costs are one set for all items and cannot be mapped by torch.vmap"
            raise RuntimeError(msg)
        return value if dim is None else value.flatten()
    value = value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
    return value.flatten(0, 1)


def _is_vertex(plan: Tensor) -> Tensor:
    """Whether couplings, shape (..., n, m), are vertices: their supports have no cycle."""
    support = (plan != 0).to(torch.float64)
    system = torch.cat(
        [
            torch.cat([torch.diag_embed(support.sum(-1)), support], -1),
            torch.cat([support.mT, torch.diag_embed(support.sum(-2))], -1),
        ],
        -2,
    )
    # The rank is the number of nodes less that of connected parts.
    spectrum: Tensor = torch.linalg.eigvalsh(system)
    rank = (spectrum > 1e-9 * (1 + spectrum[..., -1:])).sum(-1)
    edges: Tensor = support.sum((-2, -1))
    return edges == rank


def _refuse(grad: Tensor, plan: Tensor | None, message: str) -> Tensor:
    """Raise where a gradient arrives that is not 0; return 0."""
    zero: Tensor = torch.ops.hotnas_reference.refuse(grad, plan, message)
    return zero


def _refuse_now(grad: Tensor, plan: Tensor | None, message: str) -> Tensor:
    arrives = grad != 0  # NaN as well
    if plan is not None:
        stays = _is_vertex(plan.nan_to_num())
        arrives = arrives.flatten(stays.dim()).any(-1) & ~stays
    if bool(arrives.any()):
        raise RuntimeError(message)
    return grad.new_zeros(())


def _refuse_fake(grad: Tensor, plan: Tensor | None, message: str) -> Tensor:
    del plan, message
    return grad.new_empty(())


def _refuse_mapped(
    info: Any,
    in_dims: tuple[int | None, ...],
    grad: Tensor,
    plan: Tensor | None,
    message: str,
) -> tuple[Tensor, None]:
    size = info.batch_size
    grad = _folded(grad, in_dims[0], size, shared=False)
    if plan is not None:
        plan = _folded(plan, in_dims[1], size, shared=False)
    return _refuse(grad, plan, message), None


_REFERENCES.define("refuse(Tensor grad, Tensor? plan, str message) -> Tensor")
_REFERENCES.impl("refuse", _refuse_now, "CompositeExplicitAutograd")
torch.library.register_fake(f"{_NAMESPACE}::refuse", _refuse_fake, lib=_REFERENCES)
torch.library.register_vmap(f"{_NAMESPACE}::refuse", _refuse_mapped, lib=_REFERENCES)
