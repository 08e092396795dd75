"""Models that are compared: what they get, against scikit-learn, and which are left out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor

from benchmarks import predictors
from benchmarks.predictors import MODELS, Problem, Settings, run
from hotnas_torch import spaces
from hotnas_torch.spaces.encodings import GraphFeatures


@pytest.fixture
def problem(rng: torch.Generator) -> tuple[Problem, torch.Tensor]:
    """Networks whose value is the number of a convolution, and the values of those asked for."""
    space = spaces.NASBench201()
    nets = space.sample(90, generator=rng, distinct=True)
    values = torch.tensor([net.cells[0].ops.count("nor_conv_3x3") for net in nets]).double()
    values = (values - values[:60].mean()) / values[:60].std()
    return Problem(space, nets, values[:60]), values[60:]


@pytest.mark.ext
@pytest.mark.parametrize("name", [name for name in MODELS if name != "zero-cost"])
def test_every_model_learns_what_is_in_the_graph(
    name: str, problem: tuple[Problem, torch.Tensor]
) -> None:
    known, expected = problem
    mean, variance = MODELS[name](known)
    assert mean.shape == variance.shape == expected.shape
    assert bool((variance > 0.0).all())
    assert np.corrcoef(mean, expected)[0, 1] > 0.6


def test_a_forest_is_that_of_scikit_learn(problem: tuple[Problem, torch.Tensor]) -> None:
    known, _ = problem
    features = GraphFeatures(known.space, scaled=False)(known.nets).numpy()
    model = RandomForestRegressor(300, oob_score=True, random_state=0)
    model.fit(features[:60], known.targets.numpy())
    mean, variance = MODELS["GRAF, forest"](known)
    # Columns that are copies of others, and their scale, change which of equals a tree takes.
    assert np.corrcoef(mean, model.predict(features[60:]))[0, 1] > 0.95
    assert float(variance[0]) == pytest.approx(
        np.mean((model.oob_prediction_ - known.targets.numpy()) ** 2), rel=0.5
    )


def test_scores_of_modules_are_asked_for_once_and_only_where_there_are_modules(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        tasks=("nb201_cifar10", "nb201_cifar100", "nasbench101"),
        models=("HOTNN averaged", "zero-cost"),
        splits=1,
        train=8,
        test=4,
        data=str(data_dir),
        storage=str(tmp_path),
    )
    predictors._scores.cache_clear()
    report = run(settings)
    assert predictors._scores.cache_info().misses == 12
    tasks = [row["task"] for row in report.rows("quality") if row["model"] == "zero-cost"]
    assert tasks == ["NB201 CIFAR-10", "NB201 CIFAR-100"]
    assert {row["model"]: row["tasks"] for row in report.rows("ranks")} == {
        "HOTNN averaged": 3,
        "zero-cost": 2,
    }
    monkeypatch.setattr(predictors, "MODELS", {})  # measured again, they would be asked for
    assert run(settings).rows("quality") == report.rows("quality")
