"""Networks of ONNX files: the same table of kinds, by the operator of ATen that each is."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from hotnas_torch.arch import Network
from hotnas_torch.errors import TracingError
from hotnas_torch.importing.computation import Computation
from hotnas_torch.importing.exported import batch_of, finished
from hotnas_torch.importing.kinds import Kind
from hotnas_torch.importing.module import kinds_by_target, names_of_numbers
from hotnas_torch.importing.recorder import Recorder
from hotnas_torch.importing.values import Shape, Value

__all__ = ["from_onnx", "trace_onnx"]

Attributes = Mapping[str, Any]
Arguments = list[Value | None]
Translated = tuple[str, list[Any], dict[str, Any]]

# What each operator is called in the table, where its tensors come in the same order.
SAME = {
    **{name: name.lower() for name in ("Relu", "Sigmoid", "Tanh", "Elu", "Selu", "Celu", "Mish")},
    **{name: name.lower() for name in ("Softmax", "Gelu", "Softplus", "Erf", "Exp", "Log", "Sqrt")},
    **{name: name.lower() for name in ("Abs", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign")},
    **{
        name: name.lower() for name in ("Add", "Sub", "Mul", "Div", "Pow", "Where", "MatMul", "Neg")
    },
    **{name: name.lower() for name in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand")},
    **{name: name.lower() for name in ("Split", "Slice", "Tile", "Dropout", "Identity", "Pad")},
    **{name: name.lower() for name in ("CumSum", "Einsum", "TopK", "ArgMax", "ArgMin", "NonZero")},
    **{"LogSoftmax": "log_softmax", "LeakyRelu": "leaky_relu", "PRelu": "prelu"},
    **{"HardSigmoid": "hardsigmoid", "HardSwish": "hardswish", "Swish": "silu", "Clip": "clamp"},
    **{"BatchNormalization": "batch_norm", "InstanceNormalization": "instance_norm"},
    **{"LRN": "local_response_norm", "Cast": "to", "Max": "maximum", "Min": "minimum"},
    **{"Reciprocal": "reciprocal", "DepthToSpace": "pixel_shuffle", "Sum": "add"},
    **{"SpaceToDepth": "pixel_unshuffle", "GridSample": "grid_sampler", "RoiAlign": "roi_align"},
    **{"GatherElements": "gather", "GatherND": "gather", "ScatterND": "scatter"},
    **{"ScatterElements": "scatter", "Shape": "sym_size", "Size": "sym_numel"},
    **{"Constant": "zeros_like", "ConstantOfShape": "zeros_like", "Range": "zeros_like"},
    **{name: name.lower() for name in ("Equal", "Greater", "Less", "IsNaN", "IsInf")},
    **{"GreaterOrEqual": "ge", "LessOrEqual": "le", "And": "logical_and", "Or": "logical_or"},
    **{"Not": "logical_not", "EyeLike": "zeros_like", "OneHot": "one_hot", "Trilu": "tril"},
}


def from_onnx(
    path: str | PathLike[str],
    *,
    granularity: int = 28,
    numbers: Sequence[str] | None = None,
    kinds: Mapping[Any, str | Kind] | None = None,
) -> Network:
    """Return the network that an ONNX file describes.

    As `from_module` does of a module: the same kinds, numbers and cells, as far as the file keeps
    what the module was; weights in other files are not opened.

    Args:
        path: The file.
        granularity: Operations that a cell has at most, >= 1.
        numbers: Names of the numbers that labels carry; None is all, () none.
        kinds: Kinds by the names of operators, of ONNX (`"Conv"`) or as in `from_module`.

    Raises:
        ImportError: The package onnx is not installed.
        FileNotFoundError: There is no such file.
        TracingError: It is no ONNX model, shapes cannot be inferred, or it computes nothing from
            its inputs.
        ValueError: As `from_module`.

    Warns:
        UserWarning: An operation of no known kind; the text names it.
    """
    computation = trace_onnx(path, kinds=kinds)
    return computation.network(granularity=granularity, numbers=names_of_numbers(numbers))


def trace_onnx(
    path: str | PathLike[str], *, kinds: Mapping[Any, str | Kind] | None = None
) -> Computation:
    """Return what an ONNX file describes, operation by operation; as `from_onnx`."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "from_onnx needs the package onnx (pip install 'hotnas-torch[onnx]')"
        ) from error
    table = kinds_by_target(kinds)
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"path must be an ONNX file; there is none at {str(file)!r}")
    try:
        model = onnx.load(str(file), load_external_data=False)
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # of protobuf, or of the inference: none has a class of its own
        raise TracingError(
            f"path must be an ONNX model; {str(file)!r} cannot be read: {error}"
        ) from error
    return _Graph(onnx, graph, table).read()


class _Graph:
    """A graph of ONNX, read node by node."""

    def __init__(self, onnx: Any, graph: Any, table: Mapping[str, str | Kind]) -> None:
        self.onnx, self.graph = onnx, graph
        self.shapes: dict[str, tuple[Shape, bool]] = {}
        floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}
        floats.add(onnx.TensorProto.BFLOAT16)
        for info in (*graph.input, *graph.value_info, *graph.output):
            tensor = info.type.tensor_type
            if tensor.HasField("shape"):
                shape = tuple(max(1, dim.dim_value) for dim in tensor.shape.dim)
                self.shapes[info.name] = shape, tensor.elem_type in floats
        weights = {item.name: item for item in graph.initializer}
        inputs = [info for info in graph.input if info.name not in weights]
        sizes: dict[str, int] = {}
        for name, item in weights.items():
            self.shapes[name] = tuple(item.dims), item.data_type in floats
            if item.data_type in floats:
                sizes[name] = _product(tuple(item.dims))
        self.running = {
            name
            for node in graph.node
            if node.op_type == "BatchNormalization"
            for name in list(node.input)[3:5]
        }
        self.recorder = Recorder(batch_of([self.shapes[i.name][0] for i in inputs]), table, sizes)
        self.values: dict[str, Value] = {}
        for name in weights:
            learned = name in sizes and name not in self.running and sizes[name] > 1
            shape = self.shapes[name][0]
            self.values[name] = (
                self.recorder.weight(name, shape) if learned else self.recorder.constant(shape)
            )
        for info in inputs:
            self.values[info.name] = self.recorder.input(*self.shapes[info.name])

    def read(self) -> Computation:
        """Record every node."""
        for node in self.graph.node:
            inputs = [self.values.get(name) if name else None for name in node.input]
            attributes = {
                item.name: self.onnx.helper.get_attribute_value(item) for item in node.attribute
            }
            results = []
            for name in node.output:
                if name and name not in self.shapes:
                    inferred = next((v for v in inputs if v is not None), None)
                    if inferred is None or any(v.role == "data" for v in inputs if v is not None):
                        warnings.warn(
                            f"no shape could be inferred for {name!r}, a result of {node.op_type};"
                            " its operation is imported with the width of what it reads",
                            UserWarning,
                            stacklevel=4,
                        )
                    self.shapes[name] = (() if inferred is None else inferred.shape, True)
                if name:
                    results.append(self.shapes[name])
            target, args, kwargs = self.translate(node.op_type, inputs, attributes, results)
            scope = tuple(part for part in node.name.split("/")[:-1] if part)
            found = self.recorder.call(
                target, args, kwargs, results, scope, several=len(results) > 1
            )
            parts = found.parts if found.parts is not None else (found,)
            for name, value in zip(filter(None, node.output), parts, strict=True):
                self.values[name] = value
        outputs = [self.values[info.name] for info in self.graph.output if info.name in self.values]
        return finished(self.recorder, outputs)

    def translate(
        self,
        kind: str,
        inputs: Arguments,
        attributes: Attributes,
        results: list[tuple[Shape, bool]],
    ) -> Translated:
        """Return a call of the table that a node is."""
        if kind in self.recorder.kinds:
            return kind, inputs, {}
        reader = _TRANSLATED.get(kind)
        if reader is not None:
            return reader(inputs, attributes, results[0][0] if results else ())
        if kind == "Concat":
            return "cat", [inputs], {}
        if kind == "Einsum":
            return "einsum", [attributes["equation"].decode(), inputs], {}
        return SAME.get(kind, f"onnx::{kind}"), list(inputs), {}


def _product(shape: Shape) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _conv(inputs: Arguments, attributes: Attributes, _out: Shape) -> Translated:
    weight = inputs[1]
    spatial = len(weight.shape) - 2 if weight is not None else 2
    strides = list(attributes.get("strides", [1] * spatial))
    dilations = list(attributes.get("dilations", [1] * spatial))
    args = [inputs[0], weight, inputs[2] if len(inputs) > 2 else None, strides, 0, dilations]
    return "conv2d", [*args, attributes.get("group", 1)], {}


def _conv_transpose(inputs: Arguments, attributes: Attributes, out: Shape) -> Translated:
    _, args, _ = _conv(inputs, attributes, out)
    *rest, dilations, groups = args
    return "conv_transpose2d", [*rest, 0, groups, dilations], {}


def _gemm(inputs: Arguments, attributes: Attributes, _out: Shape) -> Translated:
    if attributes.get("transB", 0) and not attributes.get("transA", 0):
        return "linear", inputs, {}
    return "addmm", [inputs[2] if len(inputs) > 2 else None, inputs[0], inputs[1]], {}


def _pool(name: str) -> Callable[[Arguments, Attributes, Shape], Translated]:
    def read(inputs: Arguments, attributes: Attributes, _out: Shape) -> Translated:
        kernel = list(attributes["kernel_shape"])
        strides = list(attributes.get("strides", [1] * len(kernel)))
        return f"{name}{len(kernel)}d", [inputs[0], kernel, strides], {}

    return read


def _global(name: str) -> Callable[[Arguments, Attributes, Shape], Translated]:
    def read(inputs: Arguments, _attributes: Attributes, out: Shape) -> Translated:
        spatial = max(1, min(3, len(out) - 2))
        return f"adaptive_{name}{spatial}d", [inputs[0]], {}

    return read


def _reduce(name: str) -> Callable[[Arguments, Attributes, Shape], Translated]:
    def read(inputs: Arguments, attributes: Attributes, out: Shape) -> Translated:
        before = inputs[0].shape if inputs[0] is not None else ()
        axes = list(attributes.get("axes", []))
        if not axes and len(out) == len(before):
            axes = [d for d in range(len(out)) if out[d] == 1 and before[d] != 1]
        elif not axes and len(before) > len(out) > 0:  # dimensions that are gone, from the end
            axes = list(range(len(before)))[len(out) :]
        return name, [inputs[0], axes], {}

    return read


def _layer_norm(inputs: Arguments, attributes: Attributes, out: Shape) -> Translated:
    axis = attributes.get("axis", -1) % max(1, len(out))
    return "layer_norm", [inputs[0], list(out[axis:]), *inputs[1:]], {}


def _rms_norm(inputs: Arguments, attributes: Attributes, out: Shape) -> Translated:
    _, args, _ = _layer_norm(inputs, attributes, out)
    return "rms_norm", args, {}


def _group_norm(inputs: Arguments, attributes: Attributes, _out: Shape) -> Translated:
    return "group_norm", [inputs[0], attributes["num_groups"], *inputs[1:]], {}


def _transpose(inputs: Arguments, attributes: Attributes, out: Shape) -> Translated:
    order = list(attributes.get("perm", range(len(out))[::-1]))
    return "permute", [inputs[0], order], {}


def _gather(inputs: Arguments, _attributes: Attributes, _out: Shape) -> Translated:
    return "index", [inputs[0], [inputs[1]]], {}


def _resize(inputs: Arguments, _attributes: Attributes, _out: Shape) -> Translated:
    return "upsample_nearest2d", [inputs[0]], {}


def _recurrence(name: str) -> Callable[[Arguments, Attributes, Shape], Translated]:
    def read(inputs: Arguments, _attributes: Attributes, _out: Shape) -> Translated:
        weights = [v for v in inputs[1:] if v is not None]
        flat = [
            Value("weight", v.shape[1:], weights=v.weights) if len(v.shape) == 3 else v
            for v in weights
            for _ in range(v.shape[0] if len(v.shape) == 3 else 1)
        ]
        return name, [inputs[0], [], flat], {}

    return read


def _clip(inputs: Arguments, attributes: Attributes, _out: Shape) -> Translated:
    return "clamp", [inputs[0], attributes.get("min"), attributes.get("max")], {}


_TRANSLATED: dict[str, Callable[[Arguments, Attributes, Shape], Translated]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MaxPool": _pool("max_pool"),
    "AveragePool": _pool("avg_pool"),
    "GlobalAveragePool": _global("avg_pool"),
    "GlobalMaxPool": _global("max_pool"),
    "ReduceMean": _reduce("mean"),
    "ReduceMax": _reduce("amax"),
    "ReduceMin": _reduce("amin"),
    "ReduceSum": _reduce("sum"),
    "ReduceProd": _reduce("prod"),
    "ReduceL2": _reduce("norm"),
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "Transpose": _transpose,
    "Gather": _gather,
    "Resize": _resize,
    "Upsample": _resize,
    "LSTM": _recurrence("lstm"),
    "GRU": _recurrence("gru"),
    "RNN": _recurrence("rnn_tanh"),
    "Clip": _clip,
}
