"""Random generators of networks, and their hyperparameters."""

from hotnas_torch.generators.hnag import HNAG
from hotnas_torch.generators.layout import MERGE_LABELS
from hotnas_torch.generators.random_graphs import (
    ErdosRenyi,
    GraphModel,
    RandomGraph,
    WattsStrogatz,
)
from hotnas_torch.generators.rnag import RNAG
from hotnas_torch.generators.theta import (
    MERGES,
    OPERATIONS,
    Dimension,
    FlatTheta,
    FlatThetaSpace,
    Theta,
    ThetaSpace,
    UnitCube,
)

__all__ = [
    "HNAG",
    "MERGES",
    "MERGE_LABELS",
    "OPERATIONS",
    "RNAG",
    "Dimension",
    "ErdosRenyi",
    "FlatTheta",
    "FlatThetaSpace",
    "GraphModel",
    "RandomGraph",
    "Theta",
    "ThetaSpace",
    "UnitCube",
    "WattsStrogatz",
]
