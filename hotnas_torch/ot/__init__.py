"""Batched optimal transport: exact, entropic, and fused Gromov-Wasserstein of both kinds.

Every function takes one problem (`cost` of shape (n, m)) or a batch with any leading dimensions,
and returns a result object of tensors with the same leading dimensions. Every item of a batch is
solved, stopped and reported on its own. Padding is weight 0: a node without mass is absent.
"""

from hotnas_torch.ot.barycenter import fgw_barycenter
from hotnas_torch.ot.entropic_fgw import entropic_fgw
from hotnas_torch.ot.fgw import fgw
from hotnas_torch.ot.graphs import Graphs, pad_graphs
from hotnas_torch.ot.lower_bound import fgw_lower_bound
from hotnas_torch.ot.result import (
    BarycenterResult,
    EntropicFGWResult,
    FGWResult,
    SinkhornDivergenceResult,
    SinkhornResult,
    SolveStatus,
    TransportResult,
)
from hotnas_torch.ot.sinkhorn import sinkhorn
from hotnas_torch.ot.sinkhorn_divergence import sinkhorn_divergence
from hotnas_torch.ot.transport import transport

__all__ = [
    "BarycenterResult",
    "EntropicFGWResult",
    "FGWResult",
    "Graphs",
    "SinkhornDivergenceResult",
    "SinkhornResult",
    "SolveStatus",
    "TransportResult",
    "entropic_fgw",
    "fgw",
    "fgw_barycenter",
    "fgw_lower_bound",
    "pad_graphs",
    "sinkhorn",
    "sinkhorn_divergence",
    "transport",
]
