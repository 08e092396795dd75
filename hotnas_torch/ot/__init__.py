"""Batched optimal transport: exact, entropic, and fused Gromov-Wasserstein of both kinds.

Every function takes one problem (`cost` of shape (n, m)) or a batch with any leading dimensions,
and returns a result object of tensors with the same leading dimensions. Every item of a batch is
solved, stopped and reported on its own. Padding is weight 0: a node without mass is absent.
"""

from hotnas_torch.ot.barycenter import fgw_barycenter
from hotnas_torch.ot.edge_fgw import edge_fgw
from hotnas_torch.ot.entropic_fgw import entropic_fgw
from hotnas_torch.ot.fgw import fgw
from hotnas_torch.ot.graphs import Graphs, pad_graphs
from hotnas_torch.ot.lower_bound import fgw_lower_bound
from hotnas_torch.ot.partial_fgw import partial_fgw
from hotnas_torch.ot.partial_transport import partial_transport
from hotnas_torch.ot.result import (
    BarycenterResult,
    EntropicFGWResult,
    FGWResult,
    PartialFGWResult,
    PartialTransportResult,
    SemirelaxedFGWResult,
    SinkhornDivergenceResult,
    SinkhornResult,
    SolveStatus,
    TransportResult,
    UnbalancedFGWResult,
    UnbalancedSinkhornResult,
    UnbalancedTransportResult,
)
from hotnas_torch.ot.semirelaxed_fgw import semirelaxed_fgw
from hotnas_torch.ot.sinkhorn import sinkhorn
from hotnas_torch.ot.sinkhorn_divergence import sinkhorn_divergence
from hotnas_torch.ot.trace import trace
from hotnas_torch.ot.transport import transport
from hotnas_torch.ot.unbalanced_fgw import unbalanced_fgw
from hotnas_torch.ot.unbalanced_sinkhorn import unbalanced_sinkhorn
from hotnas_torch.ot.unbalanced_transport import unbalanced_transport

__all__ = [
    "BarycenterResult",
    "EntropicFGWResult",
    "FGWResult",
    "Graphs",
    "PartialFGWResult",
    "PartialTransportResult",
    "SemirelaxedFGWResult",
    "SinkhornDivergenceResult",
    "SinkhornResult",
    "SolveStatus",
    "TransportResult",
    "UnbalancedFGWResult",
    "UnbalancedSinkhornResult",
    "UnbalancedTransportResult",
    "edge_fgw",
    "entropic_fgw",
    "fgw",
    "fgw_barycenter",
    "fgw_lower_bound",
    "pad_graphs",
    "partial_fgw",
    "partial_transport",
    "semirelaxed_fgw",
    "sinkhorn",
    "sinkhorn_divergence",
    "trace",
    "transport",
    "unbalanced_fgw",
    "unbalanced_sinkhorn",
    "unbalanced_transport",
]
