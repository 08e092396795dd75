"""Distances between architectures: iFGW between cells, HOTNN between networks."""

from hotnas_torch.metrics.gram_file import Gram, load_gram
from hotnas_torch.metrics.gram_store import GramStore
from hotnas_torch.metrics.hotnn import HOTNN, HeldCouplings
from hotnas_torch.metrics.ifgw import IFGW
from hotnas_torch.metrics.matching import CellMatching, NetworkMatching

__all__ = [
    "HOTNN",
    "IFGW",
    "CellMatching",
    "Gram",
    "GramStore",
    "HeldCouplings",
    "NetworkMatching",
    "load_gram",
]
