"""Settings that kernels pass on to GPyTorch."""

__all__ = ["KERNEL_SETTINGS", "LENGTHSCALE_SETTINGS"]

KERNEL_SETTINGS = ("batch_shape", "active_dims")
"""What every kernel passes on to `gpytorch.kernels.Kernel`."""

LENGTHSCALE_SETTINGS = ("lengthscale_prior", "lengthscale_constraint")
"""What kernels with a lengthscale pass on to it."""
