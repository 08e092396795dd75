"""Networks as numbers: adjacency, paths, and operation distributions, to and from networks."""

from hotnas_torch.spaces.encodings.binary import AdjacencyEncoding, PathEncoding
from hotnas_torch.spaces.encodings.grid import (
    draw_dirichlet,
    grid_neighbors,
    grid_points,
    num_arrangements,
    num_encodings,
    round_to_grid,
)
from hotnas_torch.spaces.encodings.operation_distribution import (
    MemberEncoding,
    OperationEncoding,
    SlotEncoding,
    encoding_of,
)
from hotnas_torch.spaces.encodings.simplex import ascend_simplex, exponentiated_gradient
from hotnas_torch.spaces.encodings.slots import Slots, operation_slots

__all__ = [
    "AdjacencyEncoding",
    "MemberEncoding",
    "OperationEncoding",
    "PathEncoding",
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
