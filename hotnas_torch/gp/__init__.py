"""Gaussian processes on architectures, relaxed architectures, and Bayesian networks on numbers."""

from hotnas_torch.gp.distance_kernel import DistanceGP, DistanceKernel, PartMemory
from hotnas_torch.gp.distribution import distribution_kernel
from hotnas_torch.gp.features import FeatureGP, FeatureKernel, NetworkFeatures, feature_kernel
from hotnas_torch.gp.kernel import HOTNNKernel
from hotnas_torch.gp.landmarks import LandmarkKernel, NetworkKernel
from hotnas_torch.gp.model import HOTNNGP, architecture_kernel, combined_kernel
from hotnas_torch.gp.pathwise import LandmarkFeatureMap
from hotnas_torch.gp.priors import LogitNormalPrior
from hotnas_torch.gp.psd import Spectrum
from hotnas_torch.gp.relaxation import Relaxation, relaxation_of
from hotnas_torch.gp.relaxed import (
    RelaxedHOTNNGP,
    RelaxedOptimum,
    optimize_relaxed,
    relaxed_distances,
)
from hotnas_torch.gp.weisfeiler_lehman import WeisfeilerLehmanGP, WeisfeilerLehmanKernel

__all__ = [
    "HOTNNGP",
    "DistanceGP",
    "DistanceKernel",
    "FeatureGP",
    "FeatureKernel",
    "HOTNNKernel",
    "LandmarkFeatureMap",
    "LandmarkKernel",
    "LogitNormalPrior",
    "NetworkFeatures",
    "NetworkKernel",
    "PartMemory",
    "Relaxation",
    "RelaxedHOTNNGP",
    "RelaxedOptimum",
    "Spectrum",
    "WeisfeilerLehmanGP",
    "WeisfeilerLehmanKernel",
    "architecture_kernel",
    "combined_kernel",
    "distribution_kernel",
    "feature_kernel",
    "optimize_relaxed",
    "relaxation_of",
    "relaxed_distances",
]
