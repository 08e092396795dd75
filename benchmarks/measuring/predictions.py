"""Models fitted to some networks of a published table, and how well they predict others."""

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from botorch.exceptions.warnings import OptimizationWarning
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from gpytorch.mlls import ExactMarginalLogLikelihood
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.measuring.records import Key, recorded
from benchmarks.measuring.statistics import surprise
from benchmarks.measuring.tables import drawn
from hotnas_torch.comparison.code import code_version
from hotnas_torch.comparison.tasks import Task
from hotnas_torch.objectives import Table
from hotnas_torch.spaces import SearchSpace

__all__ = ["Build", "fit", "predicted"]

Build = Callable[[Tensor, Tensor, SearchSpace], SingleTaskGP]
"""Makes a model of rows that encode networks, (n, d), and targets, (n, 1), larger is better."""


def fit(model: SingleTaskGP) -> None:
    """Maximise the marginal likelihood; where the optimiser stops early, take what it has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizationWarning)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))


def predicted(
    task: Task,
    models: Mapping[str, Build],
    *,
    splits: int,
    train: int,
    test: int,
    data: Path,
    storage: Path,
    describe: Callable[[Any], Mapping[str, Any]] = lambda _: {},
) -> dict[str, list[dict[str, Any]]]:
    """Fit models to random networks of a table and predict others; finished fits are kept.

    Args:
        task: Column of a table.
        models: Models by name.
        splits: Draws of networks, one after the other with seeds from 0.
        train: Networks that the models are fitted to, per split.
        test: Networks that are predicted, per split.
        data: Folder of the tables.
        storage: Folder where finished fits are kept.
        describe: Returns what else is to be kept of a fitted model, JSON-ready.

    Returns:
        By name, of each split: `nlpd`, the mean negative logarithm of a density, `spearman`, the
        rank correlation, and the processor `seconds` of making and fitting the model.
    """
    wanted: list[Key] = [
        {"split": split, "model": name} for split in range(splits) for name in models
    ]
    table: list[Table] = []

    def measure(key: Key) -> dict[str, Any]:
        if not table:
            table.append(task.open(data))
        space = table[0].space
        nets, values = drawn(table[0], train + test, seed=key["split"])
        rows = space.encode(nets)
        targets = -(values - values[:train].mean()) / values[:train].std()
        started = time.process_time()
        model = models[key["model"]](rows[:train], targets[:train, None], space)
        fit(model)
        seconds = time.process_time() - started
        with torch.no_grad():
            posterior = model.eval().posterior(rows[train:], observation_noise=True)
            mean, variance = posterior.mean[:, 0], posterior.variance[:, 0]
        return {
            "nlpd": surprise(mean, variance, targets[train:]).mean().item(),
            "spearman": float(spearmanr(mean, targets[train:]).statistic),
            "seconds": seconds,
            **describe(model),
        }

    about = {"train": train, "test": test, "code": code_version()}
    file = storage / f"{task.name}.jsonl"
    found = recorded(file, about, wanted, measure, title=task.title)
    return {name: [one for one in found if one["model"] == name] for name in models}
