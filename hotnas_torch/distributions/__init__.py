"""Operation distributions: the coarse encoding of ANASOD, to and from architectures."""

from hotnas_torch.distributions.encoding import (
    MemberEncoding,
    OperationEncoding,
    SlotEncoding,
    encoding_of,
)
from hotnas_torch.distributions.grid import (
    draw_dirichlet,
    grid_neighbors,
    grid_points,
    num_arrangements,
    num_encodings,
    round_to_grid,
)
from hotnas_torch.distributions.simplex import ascend_simplex, exponentiated_gradient
from hotnas_torch.distributions.slots import Slots, operation_slots

__all__ = [
    "MemberEncoding",
    "OperationEncoding",
    "SlotEncoding",
    "Slots",
    "ascend_simplex",
    "draw_dirichlet",
    "encoding_of",
    "exponentiated_gradient",
    "grid_neighbors",
    "grid_points",
    "num_arrangements",
    "num_encodings",
    "operation_slots",
    "round_to_grid",
]
