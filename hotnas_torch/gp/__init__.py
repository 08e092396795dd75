"""Gaussian processes on architectures: GPyTorch kernel, BoTorch model, relaxed architectures."""

from hotnas_torch.gp.kernel import HOTNNKernel
from hotnas_torch.gp.model import HOTNNGP, architecture_kernel, combined_kernel
from hotnas_torch.gp.priors import LogitNormalPrior
from hotnas_torch.gp.psd import Spectrum

__all__ = [
    "HOTNNGP",
    "HOTNNKernel",
    "LogitNormalPrior",
    "Spectrum",
    "architecture_kernel",
    "combined_kernel",
]
