"""Batched optimal-transport ops, each compiled and as a reference implementation in torch.

These functions take tensors with exactly one batch dimension and check little; `hotnas_torch.ot` is
the checked and documented way in.
"""

from hotnas_torch.ot._operators.entropic_fgw import (
    entropic_fgw,
    following_plan,
    stationary_objective,
)
from hotnas_torch.ot._operators.entropic_transport import at_once, entropic_transport
from hotnas_torch.ot._operators.fgw import fgw, fgw_backward, quadratic_cost
from hotnas_torch.ot._operators.graph_tables import cell_distances, network_distances
from hotnas_torch.ot._operators.kl_transport import kl_transport
from hotnas_torch.ot._operators.lower_bound import fgw_lower_bound
from hotnas_torch.ot._operators.operator import Backend, Differentiate
from hotnas_torch.ot._operators.partial import partial_fgw, partial_transport
from hotnas_torch.ot._operators.semirelaxed_fgw import semirelaxed_fgw
from hotnas_torch.ot._operators.sinkhorn import (
    entropic_objective,
    following_masses,
    forbidding_costs,
    sinkhorn,
)
from hotnas_torch.ot._operators.transport import transport, transport_alone
from hotnas_torch.ot._operators.unbalanced_sinkhorn import (
    following_unbalanced,
    unbalanced_objective,
    unbalanced_plan,
    unbalanced_sinkhorn,
    unbalanced_value,
)
from hotnas_torch.ot._operators.unbalanced_transport import unbalanced_transport
from hotnas_torch.ot._reference.entropic_transport import (
    entropic_plan,
    mean_free_duals,
    reduced_costs,
)

__all__ = [
    "Backend",
    "Differentiate",
    "at_once",
    "cell_distances",
    "entropic_fgw",
    "entropic_objective",
    "entropic_plan",
    "entropic_transport",
    "fgw",
    "fgw_backward",
    "fgw_lower_bound",
    "following_masses",
    "following_plan",
    "following_unbalanced",
    "forbidding_costs",
    "kl_transport",
    "mean_free_duals",
    "network_distances",
    "partial_fgw",
    "partial_transport",
    "quadratic_cost",
    "reduced_costs",
    "semirelaxed_fgw",
    "sinkhorn",
    "stationary_objective",
    "transport",
    "transport_alone",
    "unbalanced_objective",
    "unbalanced_plan",
    "unbalanced_sinkhorn",
    "unbalanced_transport",
    "unbalanced_value",
]
