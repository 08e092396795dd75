"""The judge of distances, against scikit-learn and distances whose worth is known."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.neighbors import KNeighborsRegressor

from benchmarks import metric_quality
from benchmarks.measuring.report import Unavailable
from benchmarks.metric_quality import DISTANCES, Distance, Settings, evaluate, predictive, run


def line(num, rng):
    """Points on a line with a smooth target, standardised."""
    places = torch.rand(num, generator=rng, dtype=torch.float64)
    targets = torch.sin(6 * places) + 0.1 * torch.randn(num, generator=rng, dtype=torch.float64)
    return places, (targets - targets.mean()) / targets.std()


def test_predictions_are_those_of_scikit_learn(rng: torch.Generator) -> None:
    """exp(-|x - y| / l) is Matern's kernel with nu = 1/2, which needs no repair."""
    places, targets = line(70, rng)
    distances = (places[:, None] - places).abs()
    mean, variance = predictive(distances[:, :40], targets[:40])
    kernel = ConstantKernel(1.0, (1e-3, 1e3)) * Matern(0.5, (1e-2, 1e2), nu=0.5) + WhiteKernel(
        0.01, (1e-6, 1e1)
    )
    model = GaussianProcessRegressor(kernel, n_restarts_optimizer=5, random_state=0)
    model.fit(places[:40, None].numpy(), targets[:40].numpy())
    expected, deviation = model.predict(places[40:, None].numpy(), return_std=True)
    # The grid is coarse and the landmarks drop small eigenvalues.
    assert np.abs(mean.numpy() - expected).max() < 0.15
    assert np.abs(variance.sqrt().numpy() / deviation - 1).mean() < 0.15
    assert np.abs(mean.numpy() - expected).mean() < 0.08


def test_neighbours_are_those_of_scikit_learn(rng: torch.Generator) -> None:
    places, targets = line(60, rng)
    found = evaluate((places[:, None] - places).abs(), targets, 30, 4)
    model = KNeighborsRegressor(4).fit(places[:30, None].numpy(), targets[:30].numpy())
    errors = model.predict(places[30:, None].numpy()) - targets[30:].numpy()
    assert found["knn"] == pytest.approx(float(np.sqrt(np.mean(errors**2))))


def test_a_distance_that_says_everything_is_better_than_one_that_says_nothing(
    rng: torch.Generator,
) -> None:
    _, targets = line(120, rng)
    other = torch.rand(120, generator=rng, dtype=torch.float64)
    good = evaluate((targets[:, None] - targets).abs(), targets, 60, 3)
    poor = evaluate((other[:, None] - other).abs(), targets, 60, 3)
    assert good["correlation"] == pytest.approx(1.0)
    assert good["rank"] > 0.99
    assert abs(poor["correlation"]) < 0.1
    assert good["nlpd"] < 0.0 < 1.2 < poor["nlpd"]
    assert good["knn"] < 0.3 < poor["knn"]
    # A Gaussian process that finds nothing falls back to the normal distribution of the targets.
    assert poor["nlpd"] < 1.8


@pytest.mark.ext
def test_every_distance_is_measured_and_a_second_run_measures_nothing(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        tasks=("nasbench_macro", "transnas_class_object", "transnas_jigsaw"),
        splits=1,
        train=12,
        test=8,
        data=str(data_dir),
        storage=str(tmp_path),
    )
    first = run(settings)
    rows = first.rows("quality")
    assert len(rows) == 3 * len(DISTANCES)
    assert all(math.isfinite(row[name]) for row in rows for name in metric_quality._MEASURES)
    assert len(first.rows("time")) == 2 * len(DISTANCES)
    files = sorted(tmp_path.glob("*.jsonl"))
    lines = [file.read_text().splitlines(keepends=True) for file in files]
    assert [len(of) for of in lines] == 2 * [len(DISTANCES)]

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    measure = metric_quality._measure
    monkeypatch.setattr(metric_quality, "_measure", refuse)
    assert run(settings).rows("quality") == rows
    # A line that is lost, or of another measurement, is measured again, and nothing else is.
    files[0].write_text("".join(lines[0][1:]))
    document = json.loads(lines[1][0])
    document["about"]["train"] = 99
    files[1].write_text(json.dumps(document) + "\n" + "".join(lines[1][1:]))
    with pytest.raises(AssertionError, match="measured again"):
        run(settings)
    calls: list[object] = []
    monkeypatch.setattr(
        metric_quality, "_measure", lambda *given: calls.append(given) or measure(*given)
    )
    assert run(settings).rows("quality") == rows
    assert len(calls) == 2


def test_a_distance_that_learns_is_built_for_every_task(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[torch.Tensor] = []

    def build(space, nets, targets):
        built.append(targets)
        return lambda nets: torch.cdist(space.encode(nets), space.encode(nets))

    for name, learns in (("fixed", False), ("learns", True)):
        monkeypatch.setattr(
            metric_quality, "DISTANCES", {name: Distance(name, build, learns=learns)}
        )
        run(
            Settings(
                tasks=("nb201_cifar10", "nb201_cifar100"),
                distances=(name,),
                splits=1,
                train=8,
                test=5,
                neighbors=2,
                data=str(data_dir),
                storage=str(tmp_path),
            )
        )
    assert len(built) == 1 + 2
    assert torch.equal(built[0], built[1])
    assert not torch.equal(built[1], built[2])


def test_without_tables_nothing_is_measured_and_the_error_says_why(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"nowhere is no folder \(set HOTNAS_DATA"):
        run(Settings(data=str(tmp_path / "nowhere"), storage=str(tmp_path)))


def test_ranks_count_from_the_best_of_every_task() -> None:
    quality = [
        {"task": task, "distance": name, "correlation": c, "rank": c, "nlpd": -c, "knn": 1 - c}
        for task, values in (("x", (0.1, 0.9, 0.5)), ("y", (0.2, 0.3, 0.4)))
        for name, c in zip("abc", values, strict=True)
    ]
    rows = metric_quality._ranks(quality)
    assert [row["distance"] for row in rows] == ["b", "c", "a"]
    assert [row["nlpd"] for row in rows] == [1.5, 1.5, 3.0]
    assert all(row["correlation"] == row["rank"] == row["nlpd"] == row["knn"] for row in rows)
