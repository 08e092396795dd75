"""Matrices of distances: tiles, files, stores, devices, landmarks."""

from hotnas_torch.matrices.devices import DeviceExecutor
from hotnas_torch.matrices.gram_file import Gram, load_gram
from hotnas_torch.matrices.gram_store import GramStore
from hotnas_torch.matrices.landmarks import Landmarks, farthest_points, k_medoids
from hotnas_torch.matrices.neighbors import Neighbors

__all__ = [
    "DeviceExecutor",
    "Gram",
    "GramStore",
    "Landmarks",
    "Neighbors",
    "farthest_points",
    "k_medoids",
    "load_gram",
]
