"""Exported programs and their graphs, read call by call."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from hotnas_torch.errors import TracingError
from hotnas_torch.importing.computation import Computation
from hotnas_torch.importing.kinds import Kind
from hotnas_torch.importing.recorder import Recorder
from hotnas_torch.importing.values import Shape, Value, values_in

__all__ = ["name_of_target", "read_program", "scope_of"]

_HIGHER_ORDER = "higher_order"


def read_program(
    program: ExportedProgram, kinds: Mapping[str, str | Kind], same: Mapping[str, str]
) -> Computation:
    """Return what an exported program computes.

    Args:
        program: Exported; its weights are not read.
        kinds: As for `Recorder`.
        same: Name of a parameter under which others that are the same tensor count.

    Raises:
        TracingError: It has no tensor input, or computes nothing from its inputs.
    """
    signature = program.graph_signature
    parameters = dict(signature.inputs_to_parameters)
    fixed = {*signature.inputs_to_buffers, *signature.inputs_to_lifted_tensor_constants}
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    shapes = {node.name: results_of(node.meta.get("val")) for node in placeholders}
    given = [node.name for node in placeholders if node.name not in {*parameters, *fixed}]
    tensors = [name for name in given if shapes[name]]
    sizes = {
        same.get(target, target): torch.Size(shapes[name][0][0]).numel()
        for name, target in parameters.items()
        if shapes[name]
    }
    recorder = Recorder(batch_of([shapes[name][0][0] for name in tensors]), kinds, sizes)

    def placed(node: fx.Node) -> Any:
        if not shapes[node.name]:
            return None
        shape, floating = shapes[node.name][0]
        if node.name in parameters:
            target = parameters[node.name]
            return recorder.weight(same.get(target, target), shape)
        if node.name in fixed:
            return recorder.constant(shape)
        return recorder.input(shape, floating)

    outputs = _Reader(recorder, program.graph_module).run(
        program.graph, {node: placed(node) for node in placeholders}, ()
    )
    returned = {name for name in signature.user_outputs if isinstance(name, str)}
    result = next(node for node in program.graph.nodes if node.op == "output")
    named = [node for node in tree_leaves(result.args[0]) if isinstance(node, fx.Node)]
    kept = [
        value
        for node, value in zip(named, outputs, strict=True)
        if not returned or node.name in returned
    ]
    return finished(recorder, kept, _unknown_sizes(program.graph))


def finished(recorder: Recorder, outputs: list[Any], lost: tuple[str, ...] = ()) -> Computation:
    """Return the computation behind outputs that depend on the inputs.

    Raises:
        TracingError: There is no tensor input, or no output that depends on one.
    """
    if not recorder.places:
        raise TracingError(
            "example_inputs must hold at least one tensor: without an input there is nothing to"
            " follow through the module"
        )
    found = [value for value in values_in(outputs) if value.role == "data"]
    if not found:
        raise TracingError(
            "the module's outputs do not depend on example_inputs: it computes nothing from them"
            " (return what was computed)"
        )
    return recorder.finish(found, lost)


def batch_of(shapes: list[Shape]) -> int:
    """Return how many examples inputs hold: the first dimension of the first that has one."""
    return next((shape[0] for shape in shapes if shape), 1)


def results_of(value: Any) -> list[tuple[Shape, bool]]:
    """Return shape and floatingness of every tensor in a result."""
    return [
        (tuple(_size(size) for size in leaf.shape), leaf.is_floating_point() or leaf.is_complex())
        for leaf in tree_leaves(value)
        if isinstance(leaf, Tensor)
    ]


def _size(size: int | torch.SymInt) -> int:
    """Return a size; of one that depends on data 1, which `_unknown_sizes` reports."""
    if isinstance(size, torch.SymInt):
        return 1 if _is_unknown(size) else int(size.node.hint)
    return int(size)


def _is_unknown(size: int | torch.SymInt) -> bool:
    return isinstance(size, torch.SymInt) and size.node.hint is None


def _unknown_sizes(graph: fx.Graph) -> tuple[str, ...]:
    for node in graph.nodes:
        for leaf in tree_leaves(node.meta.get("val")):
            if isinstance(leaf, Tensor) and any(map(_is_unknown, leaf.shape)):
                where = ".".join(scope_of(node.meta.get("nn_module_stack")))
                return (
                    f"sizes depend on the values of tensors, first of {node.name!r} in"
                    f" {where or 'the module itself'}: they are imported as 1",
                )
    return ()


def name_of_target(target: Any) -> str:
    """Return the name of an operator in the table, beside ATen with its library's."""
    if isinstance(target, torch._ops.OpOverload):
        library, name = target.namespace, target.overloadpacket.__name__
        return name if library == "aten" else f"{library}::{name}"
    if isinstance(target, torch._ops.OpOverloadPacket):
        library, _, name = target._qualified_op_name.partition("::")
        return name if library == "aten" else f"{library}::{name}"
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"{_HIGHER_ORDER}::{target.__name__}"
    return str(getattr(target, "__name__", target))


def scope_of(stack: Mapping[str, tuple[str, Any]] | None) -> tuple[str, ...]:
    """Return the modules that a call was made in, the outermost first, a part of the path each."""
    scope: list[str] = []
    above = ""
    for key, (path, _) in (stack or {}).items():
        if not path:
            continue
        inside = path[len(above) + 1 :] if above and path.startswith(above + ".") else path
        parts = inside.split(".")
        called = key.rpartition("@")
        if called[1]:  # called once more
            parts[-1] += f"@{called[2]}"
        scope += parts
        above = path
    return tuple(scope)


class _Reader:
    """Reads graphs, those inside graphs too."""

    def __init__(self, recorder: Recorder, module: nn.Module) -> None:
        self.recorder, self.module = recorder, module

    def run(self, graph: fx.Graph, values: dict[fx.Node, Any], outer: tuple[str, ...]) -> list[Any]:
        """Record the calls of a graph and return what it returns."""

        def lookup(node: fx.Node) -> Any:
            return values[node]

        for node in graph.nodes:
            if node.op == "get_attr":
                values[node] = self._attribute(node)
            elif node.op == "call_function":
                args = fx.map_arg(node.args, lookup)
                kwargs = fx.map_arg(node.kwargs, lookup)
                values[node] = self._call(node, args, kwargs, outer)
            elif node.op == "output":
                return [
                    values[leaf] if isinstance(leaf, fx.Node) else leaf
                    for leaf in tree_leaves(node.args[0])
                    if isinstance(leaf, fx.Node)
                ]
        return []

    def _attribute(self, node: fx.Node) -> Any:
        found: Any = self.module
        for part in str(node.target).split("."):
            found = getattr(found, part)
        if isinstance(found, nn.Module):
            return found
        return self.recorder.constant(tuple(getattr(found, "shape", ())))

    def _call(self, node: fx.Node, args: Any, kwargs: Any, outer: tuple[str, ...]) -> Any:
        target: Callable[..., Any] = node.target  # type: ignore[assignment]
        name = name_of_target(target)
        scope = scope_of(node.meta.get("nn_module_stack")) or outer
        if name == "getitem":
            return picked(args[0], args[1])
        inner = next((arg for arg in args if isinstance(arg, fx.GraphModule)), None)
        if inner is not None and name.startswith(f"{_HIGHER_ORDER}::wrap"):
            return self._inline(inner, args, scope)
        results = results_of(node.meta.get("val"))
        several = isinstance(node.meta.get("val"), list | tuple)
        if not isinstance(target, torch._ops.OperatorBase) and not results:
            return None  # sizes and other numbers
        return self.recorder.call(name, args, kwargs, results, scope, several=several)

    def _inline(self, inner: fx.GraphModule, args: Any, scope: tuple[str, ...]) -> Value:
        place = next(i for i, arg in enumerate(args) if arg is inner)
        given = args[place + 1 :]
        names = [node for node in inner.graph.nodes if node.op == "placeholder"]
        values = dict(zip(names, given, strict=True))
        reader = _Reader(self.recorder, inner)
        parts = tuple(reader.run(inner.graph, values, scope))
        first = parts[0]
        return Value(first.role, first.shape, first.sources, first.weights, parts=parts)


def picked(value: Any, place: Any) -> Any:
    """Return an item of a value that is a tuple."""
    if isinstance(value, Value) and value.parts is not None:
        return value.parts[place] if isinstance(place, int) else value
    if isinstance(value, list | tuple):
        return value[place]
    return value
