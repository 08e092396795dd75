"""Beyond one machine: tiles of matrices and evaluations of searches as tasks on a Ray cluster."""

from typing import TYPE_CHECKING

from hotnas_torch._lazy import lazily

if TYPE_CHECKING:
    from hotnas_torch.integrations.ray import tune
    from hotnas_torch.integrations.ray.cluster import RayExecutor
else:
    __getattr__, __dir__ = lazily(__name__, cluster=("RayExecutor",))

__all__ = ["RayExecutor", "tune"]
