"""Modules that cannot be exported: recorded call by call while they run on empty tensors."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from hotnas_torch.errors import TracingError
from hotnas_torch.importing.computation import Computation
from hotnas_torch.importing.exported import batch_of, finished, name_of_target, results_of
from hotnas_torch.importing.kinds import Kind
from hotnas_torch.importing.recorder import Recorder
from hotnas_torch.importing.values import Value

__all__ = ["read_run"]


def read_run(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    kinds: Mapping[str, str | Kind],
    same: Mapping[str, str],
) -> Computation:
    """Return what a module computes, recorded while it runs on tensors without numbers.

    Where it asks for a number, the answer is 0: of a branch that depends on data, the one for 0 or
    False is recorded, and `lost` of the result says where.

    Args:
        module: In evaluation mode.
        args: Inputs by place.
        kwargs: Inputs by name.
        kinds: As for `Recorder`.
        same: Name of a parameter under which others that are the same tensor count.

    Raises:
        TracingError: It fails on tensors without numbers; the message names the module.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def empty(item: Any) -> Any:
        if not isinstance(item, Tensor):
            return item
        return fake.from_tensor(item, static_shapes=True)

    given_args, given_kwargs = tree_map(empty, args), tree_map(empty, kwargs)
    tensors = [t for t in tree_leaves((given_args, given_kwargs)) if isinstance(t, Tensor)]
    names = {
        id(parameter): same.get(name, name)
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }
    sizes = {same.get(name, name): p.numel() for name, p in module.named_parameters()}
    recorder = Recorder(batch_of([tuple(t.shape) for t in tensors]), kinds, sizes)
    recording = _Recording(recorder, names, tensors)
    handles = [
        handle
        for name, part in module.named_modules()
        for handle in (
            part.register_forward_pre_hook(recording.entering(name)),
            part.register_forward_hook(recording.leaving, always_call=True),
        )
    ]
    try:
        with torch.no_grad(), fake, recording:
            result = module(*given_args, **given_kwargs)
    except Exception as error:
        raise TracingError(
            f"{recording.named[recording.deepest]} raised {type(error).__name__}: {error}; the"
            " module cannot be followed on tensors without numbers (do example_inputs fit it? What"
            " depends on the values of tensors cannot be imported: import the parts beside it)"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    outputs = [recording.value_of(leaf) for leaf in _tensors(result)]
    return finished(recorder, outputs, tuple(recording.lost))


class _Recording(TorchDispatchMode):
    """Hands every call on to a recorder."""

    def __init__(
        self, recorder: Recorder, names: Mapping[int, str], inputs: Sequence[Tensor]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder, self.names = recorder, names
        self.values: dict[int, Value] = {}
        self.alive: list[Tensor] = []  # an id is of one tensor only as long as that lives
        self.scope: list[str] = []
        self.deepest = ""
        self.named = {"": "the module itself"}
        self.lost: dict[str, None] = {}
        for tensor in inputs:
            floating = tensor.is_floating_point() or tensor.is_complex()
            self._keep(tensor, recorder.input(tuple(tensor.shape), floating))

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Record a call and make it."""
        kwargs = kwargs or {}
        name = name_of_target(func)
        if name in ("_local_scalar_dense", "is_nonzero", "item"):
            value = self.value_of(args[0])
            if value.role == "constant" and not isinstance(args[0], FakeTensor):
                with unset_fake_temporarily():
                    return func(*args, **kwargs)
            place = self.scope[-1] if self.scope else ""
            sentence = "depends on the values of tensors: imported as for 0 or False"
            self.lost[f"{self.named[place]} {sentence}"] = None
            return 0.0 if args[0].is_floating_point() else 0
        # Sizes are divided with torch.div, too: what follows from numbers alone is known.
        with unset_fake_temporarily() if self._of_numbers(func, args) else nullcontext():
            result = func(*args, **kwargs)
        results = results_of(result)
        if not results:
            return result
        recorded = self.recorder.call(
            name,
            [_mapped(arg, self.value_of) for arg in args],
            {key: _mapped(arg, self.value_of) for key, arg in kwargs.items()},
            results,
            tuple(self.scope[-1].split(".")) if self.scope and self.scope[-1] else (),
            several=isinstance(result, list | tuple),
        )
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        parts = recorded.parts if recorded.parts is not None else (recorded,)
        for leaf, value in zip(leaves, parts, strict=True):
            self._keep(leaf, value)
        return result

    def value_of(self, tensor: Tensor) -> Value:
        """Return the value that a tensor stands for."""
        found = self.values.get(id(tensor))
        if found is None:
            name = self.names.get(id(tensor))
            shape = tuple(tensor.shape)
            if name is None:
                found = self.recorder.constant(shape)
            else:
                found = self.recorder.weight(name, shape)
            self._keep(tensor, found)
        return found

    def _of_numbers(self, func: Any, args: tuple[Any, ...]) -> bool:
        """Whether a call's tensors are all single numbers that were never data or parameters."""
        given = [
            arg
            for arg, declared in zip(args, func._schema.arguments, strict=False)
            if isinstance(declared.type, torch.TensorType)
        ]
        return bool(given) and all(
            isinstance(arg, int | float)
            or (
                isinstance(arg, Tensor)
                and arg.dim() == 0
                and not isinstance(arg, FakeTensor)
                and arg.device.type == "cpu"
                and id(arg) not in self.names
            )
            for arg in given
        )

    def entering(self, name: str) -> Callable[..., None]:
        """Return a hook that notes that a module is called."""

        def hook(module: nn.Module, _args: Any) -> None:
            self.scope.append(name)
            self.deepest = name
            what = f"module {name!r}" if name else "the module itself"
            self.named[name] = f"{what} ({module._get_name()})"

        return hook

    def leaving(self, _module: nn.Module, _args: Any, _result: Any) -> None:
        """Note that a module returns."""
        self.scope.pop()

    def _keep(self, tensor: Tensor, value: Value) -> None:
        self.values[id(tensor)] = value
        self.alive.append(tensor)


def _mapped(item: Any, found: Callable[[Tensor], Value]) -> Any:
    return tree_map(lambda leaf: found(leaf) if isinstance(leaf, Tensor) else leaf, item)


def _tensors(result: Any) -> list[Tensor]:
    """Return the tensors in what a module returns, also inside objects that torch does not open."""
    found = []
    for leaf in tree_leaves(result):
        inside = tree_leaves(list(vars(leaf).values())) if hasattr(leaf, "__dict__") else []
        found += [
            t for t in ([leaf] if isinstance(leaf, Tensor) else inside) if isinstance(t, Tensor)
        ]
    return found
