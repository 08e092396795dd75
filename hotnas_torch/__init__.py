"""Differentiable optimal transport for neural architecture search, in PyTorch.

Parts are imported when they are touched: `import hotnas_torch as ht` loads torch and the compiled
core, `ht.gp` what Gaussian processes need.
"""

from typing import TYPE_CHECKING

from hotnas_torch import _ext as _ext  # the core: that a required one is missing is said here
from hotnas_torch import errors
from hotnas_torch._lazy import lazily
from hotnas_torch._version import __version__

if TYPE_CHECKING:
    from hotnas_torch import (
        arch,
        centres,
        cli,
        comparison,
        distances,
        gp,
        hierarchy,
        importing,
        integrations,
        matrices,
        nago,
        nn,
        objectives,
        ot,
        plot,
        search,
        spaces,
        testing,
    )
    from hotnas_torch._show_config import show_config
    from hotnas_torch.arch import ArchitectureBatch, Cell, Network, Operation, OperationTree
    from hotnas_torch.distances import (
        HOTNN,
        IFGW,
        CellMatching,
        NetworkMatching,
        Solver,
        Terms,
    )
    from hotnas_torch.importing import from_module, from_onnx
    from hotnas_torch.matrices import Gram, load_gram
else:
    __getattr__, __dir__ = lazily(
        __name__,
        _show_config=("show_config",),
        arch=("ArchitectureBatch", "Cell", "Network", "Operation", "OperationTree"),
        distances=("HOTNN", "IFGW", "CellMatching", "NetworkMatching", "Solver", "Terms"),
        importing=("from_module", "from_onnx"),
        matrices=("Gram", "load_gram"),
    )

__all__ = [
    "HOTNN",
    "IFGW",
    "ArchitectureBatch",
    "Cell",
    "CellMatching",
    "Gram",
    "Network",
    "NetworkMatching",
    "Operation",
    "OperationTree",
    "Solver",
    "Terms",
    "__version__",
    "arch",
    "centres",
    "cli",
    "comparison",
    "distances",
    "errors",
    "from_module",
    "from_onnx",
    "gp",
    "hierarchy",
    "importing",
    "integrations",
    "load_gram",
    "matrices",
    "nago",
    "nn",
    "objectives",
    "ot",
    "plot",
    "search",
    "show_config",
    "spaces",
    "testing",
]
