"""
An Optuna study
===============

HOTNAS as the sampler of a study: the rest of the script is Optuna's.
"""

import warnings

import optuna
import torch

import hotnas_torch as ht
from hotnas_torch.integrations.optuna import StrategySampler

# %%
# Parameters by name, from the network that is proposed.

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def objective(trial):
    layers = [trial.suggest_int(f"layer{place}", 0, 2) for place in range(8)]
    return sum((2 - layer) * (1 + place % 3) for place, layer in enumerate(layers))


sampler = StrategySampler(
    ht.search.HOTNAS(ht.spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0)),
    parameters=lambda net: {f"layer{i}": int(op) for i, op in enumerate(net.spec)},
)
study = optuna.create_study(sampler=sampler)
study.optimize(objective, n_trials=25)
print(study.best_value, study.best_params)

# %%
figure = ht.plot.plot_trace([trial.value for trial in study.trials], num_initial=10)
