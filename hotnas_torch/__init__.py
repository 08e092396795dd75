"""Differentiable optimal transport for neural architecture search, in PyTorch."""

from hotnas_torch import errors, ot, spaces
from hotnas_torch._show_config import show_config
from hotnas_torch._version import __version__
from hotnas_torch.arch import ArchitectureBatch, Cell, Network, OperationTree
from hotnas_torch.distances import HOTNN, IFGW, CellMatching, NetworkMatching, Solver, Terms
from hotnas_torch.matrices import Gram, load_gram

__all__ = [
    "HOTNN",
    "IFGW",
    "ArchitectureBatch",
    "Cell",
    "CellMatching",
    "Gram",
    "Network",
    "NetworkMatching",
    "OperationTree",
    "Solver",
    "Terms",
    "__version__",
    "errors",
    "load_gram",
    "ot",
    "show_config",
    "spaces",
]
