"""Search strategies inside other people's tuning libraries; each module needs its library.

- `hotnas_torch.integrations.ray`: `RayExecutor` for matrices and evaluations on a cluster, and
  `tune.StrategySearcher` for `ray.tune.Tuner`.
- `hotnas_torch.integrations.optuna`: `StrategySampler` for `optuna.Study`.
"""

from typing import TYPE_CHECKING

from hotnas_torch._lazy import lazily

if TYPE_CHECKING:
    from hotnas_torch.integrations import optuna, ray
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = ["optuna", "ray"]
