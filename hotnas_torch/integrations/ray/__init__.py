"""Beyond one machine: tiles of matrices and evaluations of searches as tasks on a Ray cluster."""

from hotnas_torch.integrations.ray.cluster import RayExecutor

__all__ = ["RayExecutor"]
