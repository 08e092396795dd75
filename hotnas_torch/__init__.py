"""Differentiable optimal transport for neural architecture search, in PyTorch."""

from hotnas_torch import errors, spaces
from hotnas_torch._show_config import show_config
from hotnas_torch._version import __version__
from hotnas_torch.arch import ArchitectureBatch, Cell, Network, OperationTree

__all__ = [
    "ArchitectureBatch",
    "Cell",
    "Network",
    "OperationTree",
    "__version__",
    "errors",
    "show_config",
    "spaces",
]
