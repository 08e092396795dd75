from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hotnas_torch.errors import TracingError
from hotnas_torch.importing import from_module, from_onnx, trace_onnx

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")


@pytest.fixture(autouse=True)
def _own_randomness() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


class Small(nn.Module):
    """What `small` writes as ONNX."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.deep, self.head = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.conv(x)))
        x = functional.max_pool2d(x + self.deep(x), 2)
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def saved(
    folder: Path,
    nodes: list[Any],
    weights: dict[str, tuple[int, ...]],
    inputs: dict[str, tuple[int, ...]],
    outputs: list[str],
) -> Path:
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info(n, float32, s) for n, s in inputs.items()],
        [onnx.helper.make_tensor_value_info(n, float32, None) for n in outputs],
        [
            onnx.helper.make_tensor(n, float32, s, torch.ones(s).flatten().tolist())
            for n, s in weights.items()
        ],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    path = folder / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset), path)
    return path


def small(folder: Path) -> Path:
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "w", "b"], ["a"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        make("BatchNormalization", ["a", "g", "o", "m", "v"], ["n"]),
        make("Relu", ["n"], ["r"]),
        make("Conv", ["r", "w2", "b2"], ["d"], kernel_shape=[3, 3], pads=[1] * 4, group=8),
        make("Add", ["r", "d"], ["s"]),
        make("MaxPool", ["s"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        make("GlobalAveragePool", ["p"], ["q"]),
        make("Flatten", ["q"], ["f"]),
        make("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]
    weights = {
        **{"w": (8, 3, 3, 3), "b": (8,), "g": (8,), "o": (8,), "m": (8,), "v": (8,)},
        **{"w2": (8, 1, 3, 3), "b2": (8,), "w3": (5, 8), "b3": (5,)},
    }
    return saved(folder, nodes, weights, {"x": (2, 3, 32, 32)}, ["y"])


def test_a_file_is_the_network_of_the_module_that_it_was(tmp_path: Path) -> None:
    path = small(tmp_path)
    expected = from_module(Small(), torch.empty(2, 3, 32, 32))
    assert from_onnx(path) == expected
    assert from_onnx(str(path)).key == expected.key
    assert trace_onnx(path).parameters == sum(p.numel() for p in Small().parameters())


def test_attention_written_out_is_one_operation(tmp_path: Path) -> None:
    make = onnx.helper.make_node
    nodes = [
        make("Transpose", ["k"], ["t"], perm=[0, 1, 3, 2]),
        make("MatMul", ["q", "t"], ["s"]),
        make("Softmax", ["s"], ["p"], axis=-1),
        make("MatMul", ["p", "v"], ["y"]),
    ]
    inputs = dict.fromkeys("qkv", (1, 4, 7, 8))
    (cell,) = from_onnx(saved(tmp_path, nodes, {}, inputs, ["y"]), numbers=("heads",)).cells
    assert cell.ops == ("input", "attention[heads=4]", "output")


def test_an_unknown_operator_is_named_and_a_kind_can_be_given(tmp_path: Path) -> None:
    make = onnx.helper.make_node
    nodes = [make("Det", ["x"], ["y"])]
    path = saved(tmp_path, nodes, {}, {"x": (2, 3, 3)}, ["y"])
    with pytest.warns(UserWarning, match="'onnx::Det'"):
        assert [node.kind for node in trace_onnx(path).nodes] == ["other"]
    assert [n.kind for n in trace_onnx(path, kinds={"Det": "reduction"}).nodes] == ["reduction"]


def test_what_is_no_model_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="path must be an ONNX file"):
        from_onnx(tmp_path / "missing.onnx")
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(TracingError, match="path must be an ONNX model"):
        from_onnx(path)
    with pytest.raises(ValueError, match="granularity"):
        from_onnx(small(tmp_path), granularity=0)
