"""Hierarchies of architectures, learned or given, and samplers that search in them."""

from hotnas_torch.hierarchy.balanced import accuracy_tree, flat_tree, random_tree
from hotnas_torch.hierarchy.budget import Budgeted
from hotnas_torch.hierarchy.clustering import cluster, cluster_sample
from hotnas_torch.hierarchy.distances import (
    encoding_distances,
    output_distances,
    prefix_distances,
)
from hotnas_torch.hierarchy.flat import Boltzmann, Independent, Uniform
from hotnas_torch.hierarchy.layered_budget import LayeredBudget
from hotnas_torch.hierarchy.layers import layer_operations, layer_tree, layer_vectors
from hotnas_torch.hierarchy.mixture import Mixture
from hotnas_torch.hierarchy.sampler import Sampler
from hotnas_torch.hierarchy.schedule import Schedule
from hotnas_torch.hierarchy.tree import ArchitectureTree
from hotnas_torch.hierarchy.tree_sampler import TreeSampler

__all__ = [
    "ArchitectureTree",
    "Boltzmann",
    "Budgeted",
    "Independent",
    "LayeredBudget",
    "Mixture",
    "Sampler",
    "Schedule",
    "TreeSampler",
    "Uniform",
    "accuracy_tree",
    "cluster",
    "cluster_sample",
    "encoding_distances",
    "flat_tree",
    "layer_operations",
    "layer_tree",
    "layer_vectors",
    "output_distances",
    "prefix_distances",
    "random_tree",
]
