"""Other people's libraries: searches inside those that tune, and the functions of POT by its names.

- `hotnas_torch.integrations.ray`: `RayExecutor` for matrices and evaluations on a cluster, and
  `tune.StrategySearcher` for `ray.tune.Tuner`.
- `hotnas_torch.integrations.optuna`: `StrategySampler` for `optuna.Study`, and its distributions as
  hyperparameters of a `spaces.Joint`.
- `hotnas_torch.integrations.configspace`: spaces of ConfigSpace as such hyperparameters.
- `hotnas_torch.integrations.ax`: a strategy as a generation node of Ax.
- `hotnas_torch.integrations.sklearn`: distances and kernels as transformers of scikit-learn,
  Gaussian processes as its regressors.
- `hotnas_torch.integrations.pot`: POT's functions, so that a script changes one import.

All need their library but the last two.
"""

from typing import TYPE_CHECKING

from hotnas_torch._lazy import lazily

if TYPE_CHECKING:
    from hotnas_torch.integrations import ax, configspace, optuna, pot, ray, sklearn
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = ["ax", "configspace", "optuna", "pot", "ray", "sklearn"]
