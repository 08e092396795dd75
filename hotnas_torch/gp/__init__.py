"""Gaussian processes on architectures, and on relaxed architectures."""

from hotnas_torch.gp import pathwise  # noqa: F401 - BoTorch's pathwise sampling learns our kernels
from hotnas_torch.gp.averaged import AveragedGP
from hotnas_torch.gp.combined import CombinedGP, CombinedKernel, combined_parts
from hotnas_torch.gp.distance_kernel import DistanceGP, DistanceKernel
from hotnas_torch.gp.distribution import distribution_kernel
from hotnas_torch.gp.feature_kernel import FeatureKernel
from hotnas_torch.gp.feature_mean import FeatureMean
from hotnas_torch.gp.features import FeatureGP, NetworkFeatures
from hotnas_torch.gp.hierarchical_weisfeiler_lehman import (
    HierarchicalWeisfeilerLehmanGP,
    HierarchicalWeisfeilerLehmanKernel,
)
from hotnas_torch.gp.hotnn_settings import KernelSettings, ModelSettings
from hotnas_torch.gp.joint import values_kernel
from hotnas_torch.gp.kernel import HOTNNKernel
from hotnas_torch.gp.landmarks import LandmarkKernel
from hotnas_torch.gp.memory import PairMemory
from hotnas_torch.gp.model import HOTNNGP
from hotnas_torch.gp.network_pairs import NetworkPairs
from hotnas_torch.gp.optimize_relaxed import RelaxedSettings, optimize_relaxed
from hotnas_torch.gp.precomputed import PrecomputedGP
from hotnas_torch.gp.priors import LogitNormalPrior
from hotnas_torch.gp.relaxation import relaxation_of
from hotnas_torch.gp.relaxed import RelaxedHOTNNGP
from hotnas_torch.gp.relaxed_distances import relaxed_distances
from hotnas_torch.gp.weisfeiler_lehman import WeisfeilerLehmanGP, WeisfeilerLehmanKernel

__all__ = [
    "HOTNNGP",
    "AveragedGP",
    "CombinedGP",
    "CombinedKernel",
    "DistanceGP",
    "DistanceKernel",
    "FeatureGP",
    "FeatureKernel",
    "FeatureMean",
    "HOTNNKernel",
    "HierarchicalWeisfeilerLehmanGP",
    "HierarchicalWeisfeilerLehmanKernel",
    "KernelSettings",
    "LandmarkKernel",
    "LogitNormalPrior",
    "ModelSettings",
    "NetworkFeatures",
    "NetworkPairs",
    "PairMemory",
    "PrecomputedGP",
    "RelaxedHOTNNGP",
    "RelaxedSettings",
    "WeisfeilerLehmanGP",
    "WeisfeilerLehmanKernel",
    "combined_parts",
    "distribution_kernel",
    "optimize_relaxed",
    "relaxation_of",
    "relaxed_distances",
    "values_kernel",
]
