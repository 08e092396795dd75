"""Hierarchies of architectures, learned or given, and samplers that search in them."""

from hotnas_torch.hierarchy.budget import Budgeted
from hotnas_torch.hierarchy.flat import Boltzmann, Independent, Uniform
from hotnas_torch.hierarchy.running_mean import RunningMean
from hotnas_torch.hierarchy.sampler import Sampler
from hotnas_torch.hierarchy.schedule import Phase, Schedule
from hotnas_torch.hierarchy.tree import ArchitectureTree
from hotnas_torch.hierarchy.tree_sampler import TreeSampler

__all__ = [
    "ArchitectureTree",
    "Boltzmann",
    "Budgeted",
    "Independent",
    "Phase",
    "RunningMean",
    "Sampler",
    "Schedule",
    "TreeSampler",
    "Uniform",
]
