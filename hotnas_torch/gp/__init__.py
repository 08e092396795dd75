"""Gaussian processes on architectures: GPyTorch kernel, BoTorch model, relaxed architectures."""
