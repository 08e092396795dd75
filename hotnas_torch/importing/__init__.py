"""Networks from elsewhere: PyTorch modules, exported programs, ONNX files."""

from hotnas_torch.importing.computation import Computation, Node
from hotnas_torch.importing.kinds import FAMILIES, NUMBER_WEIGHTS, Kind, kind_names, operation_tree
from hotnas_torch.importing.module import from_module, trace
from hotnas_torch.importing.onnx import from_onnx, trace_onnx
from hotnas_torch.importing.values import Call

__all__ = [
    "FAMILIES",
    "NUMBER_WEIGHTS",
    "Call",
    "Computation",
    "Kind",
    "Node",
    "from_module",
    "from_onnx",
    "kind_names",
    "operation_tree",
    "trace",
    "trace_onnx",
]
