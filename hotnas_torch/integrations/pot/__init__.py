"""POT's functions, answered by this library: `from hotnas_torch.integrations import pot as ot`.

Names and signatures are POT's, and so are the kinds of arrays: numpy in, numpy out; torch in,
torch out, with gradients. POT itself is not needed. A call that is outside what this library
solves raises `Unsupported`, and its message says what it has to be. Of POT's names what solves
nothing (`datasets`, `plot`, `utils`, ...) is POT's own, where it is installed.
"""

from importlib import import_module
from typing import Any

from hotnas_torch.integrations.pot import batch, bregman, gromov, lp, partial, unbalanced
from hotnas_torch.integrations.pot.arrays import Unsupported, absent, dist, unif
from hotnas_torch.integrations.pot.batch import (
    dist_batch,
    solve_batch,
    solve_gromov_batch,
    solve_sample_batch,
)
from hotnas_torch.integrations.pot.bregman import sinkhorn, sinkhorn2
from hotnas_torch.integrations.pot.gromov import (
    fused_gromov_wasserstein,
    fused_gromov_wasserstein2,
    gromov_barycenters,
    gromov_wasserstein,
    gromov_wasserstein2,
)
from hotnas_torch.integrations.pot.lp import emd, emd2
from hotnas_torch.integrations.pot.results import OTResult
from hotnas_torch.integrations.pot.solvers import solve, solve_gromov, solve_sample
from hotnas_torch.integrations.pot.unbalanced import sinkhorn_unbalanced, sinkhorn_unbalanced2

__all__ = [
    "OTResult",
    "Unsupported",
    "batch",
    "bregman",
    "dist",
    "dist_batch",
    "emd",
    "emd2",
    "fused_gromov_wasserstein",
    "fused_gromov_wasserstein2",
    "gromov",
    "gromov_barycenters",
    "gromov_wasserstein",
    "gromov_wasserstein2",
    "lp",
    "partial",
    "sinkhorn",
    "sinkhorn2",
    "sinkhorn_unbalanced",
    "sinkhorn_unbalanced2",
    "solve",
    "solve_batch",
    "solve_gromov",
    "solve_gromov_batch",
    "solve_sample",
    "solve_sample_batch",
    "unbalanced",
    "unif",
]

_HELPERS = ("backend", "datasets", "plot", "tic", "toc", "toq", "utils")
_absent = absent(__name__)


def __getattr__(name: str) -> Any:
    if name not in _HELPERS:
        return _absent(name)
    try:
        theirs = import_module("ot")
        return getattr(theirs, name) if hasattr(theirs, name) else import_module(f"ot.{name}")
    except ImportError as error:
        raise AttributeError(f"ot.{name} is POT's own (pip install POT): {error}") from error
