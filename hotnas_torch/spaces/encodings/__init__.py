"""Networks as numbers: adjacency, paths, and operation distributions, to and from networks."""

from hotnas_torch.spaces.encodings.binary import AdjacencyEncoding, PathEncoding
from hotnas_torch.spaces.encodings.graph_features import GraphFeatures
from hotnas_torch.spaces.encodings.layer_costs import LayerCosts
from hotnas_torch.spaces.encodings.operation_distribution import (
    MemberEncoding,
    OperationEncoding,
    SlotEncoding,
    encoding_of,
)
from hotnas_torch.spaces.encodings.simplex import ascend_simplex
from hotnas_torch.spaces.encodings.slots import Slots, operation_slots

__all__ = [
    "AdjacencyEncoding",
    "GraphFeatures",
    "LayerCosts",
    "MemberEncoding",
    "OperationEncoding",
    "PathEncoding",
    "SlotEncoding",
    "Slots",
    "ascend_simplex",
    "encoding_of",
    "operation_slots",
]
