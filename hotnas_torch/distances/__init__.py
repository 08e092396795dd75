"""Distances between cells and between networks."""

from hotnas_torch.distances._tables.operation_kinds import OPERATION_KINDS, OperationKind
from hotnas_torch.distances.edit_distance import EditDistance
from hotnas_torch.distances.held_couplings import HeldCouplings
from hotnas_torch.distances.hotnn import HOTNN
from hotnas_torch.distances.ifgw import IFGW
from hotnas_torch.distances.matching import CellMatching, NetworkMatching
from hotnas_torch.distances.network_distance import KernelTerm, NetworkDistance
from hotnas_torch.distances.otmann import OTMANN
from hotnas_torch.distances.registry import NAMES, get, kind
from hotnas_torch.distances.samples import sample_distances
from hotnas_torch.distances.settings import Solver, Terms
from hotnas_torch.distances.tree_wasserstein import GramTree, TreeWasserstein
from hotnas_torch.distances.weisfeiler_lehman import WeisfeilerLehman

__all__ = [
    "HOTNN",
    "IFGW",
    "NAMES",
    "OPERATION_KINDS",
    "OTMANN",
    "CellMatching",
    "EditDistance",
    "GramTree",
    "HeldCouplings",
    "KernelTerm",
    "NetworkDistance",
    "NetworkMatching",
    "OperationKind",
    "Solver",
    "Terms",
    "TreeWasserstein",
    "WeisfeilerLehman",
    "get",
    "kind",
    "sample_distances",
]
