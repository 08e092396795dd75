"""Which model predicts networks best, every distance with its own Gaussian process at its best?

Beside them numbers that describe graphs (GRAF) and scores of untrained networks, as features of a
Gaussian process and of a random forest, as their authors use them.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from scipy.stats import kendalltau, rankdata, spearmanr
from sklearn.ensemble import RandomForestRegressor
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring.predictions import fit
from benchmarks.measuring.records import Key, recorded
from benchmarks.measuring.report import Column, Report, Table, number
from benchmarks.measuring.statistics import paired, standard_error, surprise
from benchmarks.measuring.tables import drawn, published
from hotnas_torch.arch import Network
from hotnas_torch.comparison.code import code_version
from hotnas_torch.comparison.tasks import TASKS
from hotnas_torch.distances import OTMANN, EditDistance, TreeWasserstein
from hotnas_torch.gp import AveragedGP, DistanceGP, FeatureGP, WeisfeilerLehmanGP
from hotnas_torch.nn import ModuleBuilder, ZeroCost
from hotnas_torch.nn.building import BUILDABLE
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.encodings import AdjacencyEncoding, GraphFeatures, PathEncoding

__all__ = ["MODELS", "QUICK", "Problem", "Settings", "run"]

_WIDE: dict[str, tuple[float, float]] = {
    "lengthscale": (0.05, 50.0),
    "outputscale": (0.05, 20.0),
    "noise": (1e-5, 1.0),
}
"""Ranges of a Gaussian process on features between 0 and 1."""
_TREES = 300
_IMAGES = (16, 3, 16, 16)
_OURS = "HOTNN averaged"


@dataclass(frozen=True, slots=True)
class Problem:
    """Networks with known values, and others.

    Attributes:
        space: Their space.
        nets: All networks, those with known values first.
        targets: Known values, (n,), standardised, larger is better.
    """

    space: SearchSpace
    nets: list[Network]
    targets: Tensor

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Encoded networks with known values, and the others."""
        rows = self.space.encode(self.nets)
        return rows[: len(self.targets)], rows[len(self.targets) :]


Predict = Callable[[Problem], tuple[Tensor, Tensor]]
"""Means and variances, noise included, of the networks without values."""
Encoding = Callable[[SearchSpace, list[Network]], Tensor]


def _process(
    build: Callable[[Tensor, Tensor, SearchSpace], Any], *, fitted: bool = False
) -> Predict:
    """A Gaussian process; `fitted` ones need no fit."""

    def predict(problem: Problem) -> tuple[Tensor, Tensor]:
        known, asked = problem.rows
        model = build(known, problem.targets[:, None], problem.space)
        if not fitted:
            fit(model)
        with torch.no_grad():
            posterior = model.eval().posterior(asked, observation_noise=True)
            return posterior.mean[:, 0], posterior.variance[:, 0]

    return predict


def _features(encoding: Encoding) -> Predict:
    """A Gaussian process on features, scaled to 0..1 by the networks with known values."""

    def predict(problem: Problem) -> tuple[Tensor, Tensor]:
        known, asked = _scaled(encoding, problem)
        model = FeatureGP(known, problem.targets[:, None], lambda rows: rows, **_WIDE)
        fit(model)
        with torch.no_grad():
            posterior = model.eval().posterior(asked, observation_noise=True)
            return posterior.mean[:, 0], posterior.variance[:, 0]

    return predict


def _forest(encoding: Encoding) -> Predict:
    """A random forest; its variance is that of its errors out of the bag."""

    def predict(problem: Problem) -> tuple[Tensor, Tensor]:
        known, asked = (part.numpy() for part in _scaled(encoding, problem))
        model = RandomForestRegressor(_TREES, oob_score=True, random_state=0)
        model.fit(known, problem.targets.numpy())
        mean = torch.from_numpy(model.predict(asked))
        out_of_bag = torch.from_numpy(model.oob_prediction_)
        error = (out_of_bag - problem.targets).square().mean()
        return mean, error.expand(len(mean))

    return predict


def _scaled(encoding: Encoding, problem: Problem) -> tuple[Tensor, Tensor]:
    features, num = encoding(problem.space, problem.nets), len(problem.targets)
    low, high = features[:num].amin(0), features[:num].amax(0)
    varying = high > low
    scaled = (features[:, varying] - low[varying]) / (high - low)[varying]
    return scaled[:num], scaled[num:]


def _zero_cost(space: SearchSpace, nets: list[Network]) -> Tensor:
    """SynFlow, covariance of Jacobians and number of parameters, (N, 3)."""
    return torch.tensor([_scores(space.name, net) for net in nets], dtype=torch.float64)


# Several models and tasks ask for the same.
@lru_cache(maxsize=2**15)
def _scores(space: str, net: Network) -> tuple[float, ...]:
    builder = ModuleBuilder(ht.spaces.get(space))
    images = torch.randn(_IMAGES, generator=torch.Generator().manual_seed(0))

    def build(net: Network) -> torch.nn.Module:
        return builder(net, generator=torch.Generator().manual_seed(0))

    scores = ("synflow", "jacobian_covariance", "num_parameters")
    return tuple(float(ZeroCost(build, images, score)([net])) for score in scores)


def _graph_features(space: SearchSpace, nets: list[Network]) -> Tensor:
    return GraphFeatures(space)(nets)


def _both(space: SearchSpace, nets: list[Network]) -> Tensor:
    return torch.cat([_graph_features(space, nets), _zero_cost(space, nets)], dim=1)


MODELS: Mapping[str, Predict] = {
    _OURS: _process(lambda X, Y, space: AveragedGP(X, Y, space=space), fitted=True),
    "HOTNN learned": _process(lambda X, Y, space: ht.gp.HOTNNGP(X, Y, space=space)),
    "Weisfeiler-Lehman": _process(
        lambda X, Y, space: WeisfeilerLehmanGP(X, Y, space=space, noise_bounds=(1e-5, 1.0))
    ),
    "OTMANN": _process(lambda X, Y, space: DistanceGP(X, Y, distance=OTMANN(space))),
    "edit distance": _process(lambda X, Y, space: DistanceGP(X, Y, distance=EditDistance(space))),
    "BO-TW-2G": _process(
        lambda X, Y, space: DistanceGP(X, Y, distance=TreeWasserstein(space, grams=2))
    ),
    "path encoding": _features(lambda space, nets: PathEncoding(space)(nets)),
    "adjacency encoding": _features(lambda space, nets: AdjacencyEncoding(space)(nets)),
    "GRAF": _features(_graph_features),
    "GRAF, forest": _forest(_graph_features),
    "zero-cost": _features(_zero_cost),
    "GRAF and zero-cost": _features(_both),
    "GRAF and zero-cost, forest": _forest(_both),
}
"""What is compared, by name."""

_NEED_MODULES = tuple(name for name in MODELS if "zero-cost" in name)
_MEASURES = {"kendall": -1, "spearman": -1, "nlpd": 1}
"""What is measured; -1 where more is better."""

CHOICES = {"tasks": tuple(TASKS), "models": tuple(MODELS)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        tasks: Columns of published tables, by their names in `hotnas_torch.comparison`.
        models: Names in `MODELS`.
        splits: Draws of networks of each space.
        train: Networks that the models are fitted to, per split.
        test: Networks that are predicted, per split.
        data: Folder of the tables, see `published`.
        storage: Where finished measurements are kept; the same command goes on from there.
    """

    tasks: tuple[str, ...] = tuple(name for name in TASKS if name != "nasbench301")
    models: tuple[str, ...] = field(default_factory=lambda: tuple(MODELS))
    splits: int = 10
    train: int = 50
    test: int = 100
    data: str | None = None
    storage: str = "runs/bench/predictors"


QUICK = Settings(
    tasks=("nasbench_macro", "nb201_cifar10"),
    splits=2,
    train=30,
    test=50,
    storage="runs/bench/predictors-quick",
)


def run(settings: Settings) -> Report:
    """Measure.

    Raises:
        TableError: A file in it is missing or damaged.
    """
    torch.set_num_threads(1)
    found = {task: _measured(settings, task) for task in settings.tasks}
    report = Report()
    quality = [row for task, records in found.items() for row in _rows(task, records)]
    report.tables.append(
        Table(
            "ranks",
            "Mean rank over the tasks that a model predicts, as a share: 0 the best, 1 the last",
            (
                Column("model", "model"),
                Column("tasks", "tasks", number(2)),
                Column("kendall", "Kendall", number(2)),
                Column("spearman", "Spearman", number(2)),
                Column("nlpd", "-log p", number(2)),
            ),
            _ranks(quality),
        )
    )
    report.tables.append(
        Table(
            "quality",
            f"Predictions of {settings.test} networks from {settings.train}, means over"
            f" {settings.splits} splits",
            (
                Column("task", "task"),
                Column("model", "model"),
                Column("kendall", "Kendall", number(3)),
                Column("kendall_error", "+-", number(1)),
                Column("kendall_p", "p", number(2)),
                Column("spearman", "Spearman", number(3)),
                Column("nlpd", "-log p", number(3)),
                Column("nlpd_error", "+-", number(1)),
                Column("nlpd_p", "p", number(2)),
                Column("seconds", "s", number(2)),
            ),
            quality,
        )
    )
    report.notes.append(
        "Targets are logarithms of the published errors, standardised by the training networks."
        " '-log p': mean negative log density of a test network, noise included. 'p': of"
        f" Wilcoxon's signed-rank test of the splits against '{_OURS}', two-sided. 's': median"
        " processor seconds of features, fit and prediction, less where a score is known already."
        " Every model is fitted by its own marginal likelihood, with its library's defaults; what"
        " HOTNN's defaults were chosen on is"
        " said in benchmarks/results/search/README.md (NAS-Bench-Macro and NB201 CIFAR-10)."
    )
    report.notes.append(
        "'GRAF': Kadlecova et al., ICML 2024, see spaces.encodings.GraphFeatures. 'zero-cost':"
        f" SynFlow, covariance of Jacobians and parameters of small modules, on random images of"
        f" {_IMAGES[1]} x {_IMAGES[2]} x {_IMAGES[3]}; only where the library builds modules."
        " 'forest': a random forest, as its authors use, whose density has the variance of its"
        " errors out of the bag. The others: a Gaussian process, on features with one lengthscale."
    )
    return report


def _measured(settings: Settings, name: str) -> dict[str, list[dict[str, Any]]]:
    """Measurements of each split of a task, by model."""
    table = TASKS[name].open(published(settings.data))
    buildable = table.space.name in BUILDABLE
    models = [one for one in settings.models if buildable or one not in _NEED_MODULES]

    def measure(key: Key) -> dict[str, Any]:
        nets, values = drawn(table, settings.train + settings.test, seed=key["split"])
        known = values[: settings.train]
        targets = -(values - known.mean()) / known.std()
        started = time.process_time()
        problem = Problem(table.space, nets, targets[: settings.train])
        mean, variance = MODELS[key["model"]](problem)
        seconds = time.process_time() - started
        asked = targets[settings.train :]
        constant = bool((mean == mean[0]).all())
        return {
            "kendall": 0.0 if constant else float(kendalltau(mean, asked).statistic),
            "spearman": 0.0 if constant else float(spearmanr(mean, asked).statistic),
            "nlpd": surprise(mean, variance, asked).mean().item(),
            "seconds": seconds,
        }

    wanted: list[Key] = [
        {"split": split, "model": one} for split in range(settings.splits) for one in models
    ]
    code = {"code": code_version(), "scores": code_version("nn")}
    about = {"train": settings.train, "test": settings.test} | code
    file = Path(settings.storage) / f"{name}.jsonl"
    found = recorded(file, about, wanted, measure, title=TASKS[name].title)
    return {one: [line for line in found if line["model"] == one] for one in models}


def _rows(task: str, records: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows = []
    for name, found in records.items():
        row: dict[str, Any] = {"task": TASKS[task].title, "model": name}
        for measure in _MEASURES:
            values = [one[measure] for one in found]
            row[measure] = statistics.fmean(values)
            row[f"{measure}_error"] = standard_error(values)
            ours = [one[measure] for one in records.get(_OURS, ())]
            row[f"{measure}_p"] = paired(values, ours) if ours else None
        row["seconds"] = statistics.median(one["seconds"] for one in found)
        rows.append(row)
    return rows


def _ranks(quality: list[dict[str, Any]]) -> list[dict[str, Any]]:
    shares: dict[str, dict[str, list[float]]] = {}
    for task in dict.fromkeys(row["task"] for row in quality):
        rows = [row for row in quality if row["task"] == task]
        for measure, sign in _MEASURES.items():
            ranks = rankdata([sign * row[measure] for row in rows])
            for row, rank in zip(rows, ranks, strict=True):
                share = (float(rank) - 1.0) / max(1, len(rows) - 1)
                shares.setdefault(row["model"], {}).setdefault(measure, []).append(share)
    means: list[dict[str, Any]] = [
        {
            "model": name,
            "tasks": len(of["nlpd"]),
            **{measure: statistics.fmean(values) for measure, values in of.items()},
        }
        for name, of in shares.items()
    ]
    return sorted(means, key=lambda row: float(row["nlpd"]))
