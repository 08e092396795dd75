import csv
import math
from pathlib import Path

import pytest
import torch

from benchmarks import nago_surrogate
from benchmarks.nago_data import Evaluations
from benchmarks.nago_surrogate import Settings, predict, run, split
from hotnas_torch.nago import BNNSurrogate, Sampling

COLUMNS = (
    "top N", "top K", "top P", "mid N", "mid P", "bottom N", "bottom K", "bottom P",
)  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Sampling(num_chains=2, num_samples=3, num_burn_in=60, thinning=5, num_descent=10)
    quick = {
        "homoscedastic": BNNSurrogate(noise="homoscedastic", sampling=few),
        "heteroscedastic": BNNSurrogate(sampling=few),
        "published_steps": BNNSurrogate(sampling=few._replace(batch_size=4)),
        "gp": nago_surrogate.SURROGATES["gp"],
    }
    monkeypatch.setattr(nago_surrogate, "SURROGATES", quick)


def evaluations(rng: torch.Generator, num: int = 30) -> Evaluations:
    X = torch.rand(num, 8, generator=rng, dtype=torch.float64)
    return Evaluations(
        X, torch.arange(num) // 3, 30.0 * X[:, 0] + 3.0, 2.0 ** (17 + X[:, 1]), X[:, 2]
    )


def test_splits_keep_hyperparameters_together(rng: torch.Generator) -> None:
    theta = evaluations(rng).theta
    train, test = split(theta, seed=0)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(30))
    assert len(train) == 9
    assert not set(theta[train].tolist()) & set(theta[test].tolist())
    assert split(theta, seed=1)[0].tolist() != train.tolist()


def test_the_constant_prediction_is_that_of_the_training_data(rng: torch.Generator) -> None:
    data = evaluations(rng)
    train, test = split(data.theta, seed=3)
    found = predict("constant", data, "error", seed=3)
    mean, deviation = data.error[train].mean(), data.error[train].std()
    expected = -torch.distributions.Normal(mean, deviation).log_prob(data.error[test]).mean()
    assert found["nll"] == found["mixture_nll"] == pytest.approx(expected.item())
    assert found["rmse"] == pytest.approx((data.error[test] - mean).square().mean().sqrt().item())


@pytest.mark.parametrize("name", ["homoscedastic", "heteroscedastic", "gp"])
def test_predictions_are_compared_with_what_was_not_seen(
    name: str, quick: None, rng: torch.Generator
) -> None:
    data = evaluations(rng)
    found = predict(name, data, "memory", seed=0)
    assert all(math.isfinite(value) for value in found.values())
    assert (found["nll"] == found["mixture_nll"]) == (name == "gp")
    assert found == predict(name, data, "memory", seed=0)


def test_the_table_has_every_surrogate_and_goes_on_from_its_records(
    quick: None, rng: torch.Generator, tmp_path: Path
) -> None:
    with (tmp_path / "hnag.csv").open("w", newline="", encoding="utf-8") as file:
        figures = ("error", "validation_loss", "test_error", "memory", "parameters", "operations",
                   "seconds", "cpu_seconds")  # fmt: skip
        writer = csv.writer(file)
        writer.writerow(("theta", "sample", *COLUMNS, *figures))
        for number in range(12):
            error = float(torch.rand((), generator=rng)) * 20 + 4
            theta = (3 + number % 4, 2 + number % 3, 0.1 + 0.07 * number, 1 + number % 3, 0.5, 4, 3)
            theta = (*theta, 0.2 + 0.05 * number)
            writer.writerow(
                (number, 0, *theta, error, 1, error, 90_000 + 1000 * number, 9, 9, 9, 9)
            )
    settings = Settings(splits=2, trainings=str(tmp_path), storage=str(tmp_path))
    report = run(settings)
    assert "12 hyperparameters, 12 evaluations; 4 for training, 8 for testing" in report.markdown()
    titles = [row["target_title"] for row in report.rows("hnag")]
    assert all(titles.count(title) == 5 for title in nago_surrogate.TARGETS.values())
    assert list(report.figures) == ["spread", "fronts"]
    lines = (tmp_path / "surrogate.jsonl").read_text().splitlines()
    assert run(settings).tables == report.tables
    assert (tmp_path / "surrogate.jsonl").read_text().split() == "\n".join(lines).split()
