"""Distances between architectures: iFGW between cells, HOTNN between networks, and peers."""

from hotnas_torch.metrics.devices import DeviceExecutor
from hotnas_torch.metrics.edit_distance import EditDistance
from hotnas_torch.metrics.gram_file import Gram, load_gram
from hotnas_torch.metrics.gram_store import GramStore
from hotnas_torch.metrics.hotnn import HOTNN, HeldCouplings
from hotnas_torch.metrics.ifgw import IFGW
from hotnas_torch.metrics.landmarks import Landmarks, farthest_points, k_medoids
from hotnas_torch.metrics.matching import CellMatching, NetworkMatching
from hotnas_torch.metrics.network_distance import KernelTerm, NetworkDistance
from hotnas_torch.metrics.operation_kinds import OPERATION_KINDS, OperationKind
from hotnas_torch.metrics.otmann import OTMANN
from hotnas_torch.metrics.samples import sample_distances
from hotnas_torch.metrics.tree_wasserstein import GramTree, TreeWasserstein
from hotnas_torch.metrics.weisfeiler_lehman import WeisfeilerLehman

__all__ = [
    "HOTNN",
    "IFGW",
    "OPERATION_KINDS",
    "OTMANN",
    "CellMatching",
    "DeviceExecutor",
    "EditDistance",
    "Gram",
    "GramStore",
    "GramTree",
    "HeldCouplings",
    "KernelTerm",
    "Landmarks",
    "NetworkDistance",
    "NetworkMatching",
    "OperationKind",
    "TreeWasserstein",
    "WeisfeilerLehman",
    "farthest_points",
    "k_medoids",
    "load_gram",
    "sample_distances",
]
