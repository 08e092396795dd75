"""Differentiable optimal transport for neural architecture search, in PyTorch."""

from hotnas_torch import errors
from hotnas_torch._show_config import show_config
from hotnas_torch._version import __version__

__all__ = [
    "__version__",
    "errors",
    "show_config",
]
