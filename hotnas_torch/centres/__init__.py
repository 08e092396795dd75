"""Centres of architectures: barycenters of cells, mean networks, k-means."""

from hotnas_torch.centres.cell_barycenter import CellBarycenter, cell_barycenter
from hotnas_torch.centres.k_means import Clusters, k_means
from hotnas_torch.centres.mean_network import MeanNetwork, mean_network

__all__ = [
    "CellBarycenter",
    "Clusters",
    "MeanNetwork",
    "cell_barycenter",
    "k_means",
    "mean_network",
]
