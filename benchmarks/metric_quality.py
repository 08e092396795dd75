# Over 400 lines: one comparison, read from its settings down to its picture.
"""Which distance between networks says most about how they perform?"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from scipy.stats import rankdata, spearmanr
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.predictions import fit
from benchmarks.measuring.records import Key, recorded
from benchmarks.measuring.report import Column, Report, Table, number
from benchmarks.measuring.statistics import standard_error, surprise
from benchmarks.measuring.tables import logarithms, published
from hotnas_torch.arch import Network
from hotnas_torch.comparison.code import code_version
from hotnas_torch.comparison.tasks import TASKS, Task
from hotnas_torch.distances import OTMANN, EditDistance, TreeWasserstein, WeisfeilerLehman
from hotnas_torch.gp import HOTNNGP
from hotnas_torch.gp.psd import landmark_features, whitener
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.encodings import AdjacencyEncoding, GraphFeatures, PathEncoding

__all__ = ["DISTANCES", "QUICK", "Distance", "Settings", "draw", "measured", "predictive", "run"]


Metric = Callable[[list[Network]], Tensor]
"""Distances between N networks, (N, N)."""


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance that is measured.

    Attributes:
        title: What tables and pictures call it.
        build: Makes it for a space, from training networks and their targets where it learns.
        learns: Whether it depends on the targets.
    """

    title: str
    build: Callable[[SearchSpace, list[Network], Tensor], Metric]
    learns: bool = False


def _of_space(build: Callable[[SearchSpace], Metric]) -> Callable[..., Metric]:
    return lambda space, _nets, _targets: build(space)


def _of_encoding(
    build: Callable[[SearchSpace], Callable[[list[Network]], Tensor]],
) -> Callable[..., Metric]:
    """Euclidean distances between encodings: roots of the numbers of bits that differ."""

    def metric(space: SearchSpace) -> Metric:
        encode = build(space)
        return lambda nets: torch.cdist(encode(nets), encode(nets))

    return _of_space(metric)


def _learned(space: SearchSpace, nets: list[Network], targets: Tensor) -> Metric:
    model = HOTNNGP(space.encode(nets), targets[:, None], space=space)
    fit(model)
    return model.metric


DISTANCES: Mapping[str, Distance] = {
    "hotnn": Distance("HOTNN", _of_space(lambda space: ht.HOTNN(space=space))),
    "hotnn_partial": Distance(
        "HOTNN, partial", _of_space(lambda space: ht.HOTNN(space=space, partial=1.0))
    ),
    "hotnn_learned": Distance("HOTNN, learned", _learned, learns=True),
    "hotnn_paper": Distance(
        "HOTNN, preset paper", _of_space(lambda space: ht.HOTNN(space=space, preset="paper"))
    ),
    "weisfeiler_lehman": Distance(
        "Weisfeiler-Lehman", _of_space(lambda space: WeisfeilerLehman(space=space))
    ),
    "path": Distance("path encoding", _of_encoding(PathEncoding)),
    "adjacency": Distance("adjacency encoding", _of_encoding(AdjacencyEncoding)),
    "graph_features": Distance("graph features (GRAF)", _of_encoding(GraphFeatures)),
    "edit": Distance("edit distance", _of_space(EditDistance)),
    "otmann": Distance("OTMANN", _of_space(OTMANN)),
    "tree_wasserstein": Distance("BO-TW", _of_space(TreeWasserstein)),
    "tree_wasserstein_2g": Distance(
        "BO-TW-2G", _of_space(lambda space: TreeWasserstein(space, grams=2))
    ),
}
"""Distances by the name that files use."""

_TASKS = tuple(name for name in TASKS if name != "nasbench301")


CHOICES = {"tasks": tuple(TASKS), "distances": tuple(DISTANCES)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        tasks: Columns of published tables, by their names in `hotnas_torch.comparison`.
        distances: Names in `DISTANCES`.
        splits: Draws of networks of each space.
        train: Networks that predictions are made from, per split.
        test: Networks that are predicted, per split.
        neighbors: Nearest training networks whose mean is the other prediction.
        data: Folder of the tables, see `published`.
        storage: Where finished measurements are kept; the same command goes on from there.
    """

    tasks: tuple[str, ...] = _TASKS
    distances: tuple[str, ...] = field(default_factory=lambda: tuple(DISTANCES))
    splits: int = 3
    train: int = 100
    test: int = 100
    neighbors: int = 5
    data: str | None = None
    storage: str = "runs/bench/metric_quality"


QUICK = Settings(
    tasks=("nasbench_macro", "nb201_cifar10"),
    splits=1,
    train=40,
    test=40,
    storage="runs/bench/metric_quality-quick",
)

_LENGTHSCALES = torch.logspace(-1.0, 1.5, 26, dtype=torch.float64)
"""Relative to the median distance between training networks."""
_NOISES = torch.logspace(-5.0, 1.0, 49, dtype=torch.float64)
"""Variance of the noise relative to that of the signal."""

_MEASURES = {"correlation": -1, "rank": -1, "nlpd": 1, "knn": 1}
"""What is measured; -1 where more is better."""


def run(settings: Settings) -> Report:
    """Measure.

    Raises:
        TableError: A file in it is missing or damaged.
    """
    torch.set_num_threads(1)
    report = Report()
    records = measured(settings, DISTANCES)
    quality: list[dict[str, Any]] = []
    for task in settings.tasks:
        for name in settings.distances:
            found = [record["tasks"][task] for record in records[TASKS[task].path, name]]
            row: dict[str, Any] = {"task": TASKS[task].title, "distance": DISTANCES[name].title}
            for measure in _MEASURES:
                values = [one[measure] for one in found]
                row[measure] = statistics.fmean(values)
                row[f"{measure}_error"] = standard_error(values)
            quality.append(row)
    times = []
    for (path, name), found in records.items():
        seconds = [record["seconds_per_million_pairs"] for record in found]
        times.append(
            {
                "space": found[0]["space"],
                "table": path,
                "distance": DISTANCES[name].title,
                "seconds": min(seconds),
                "slowest": max(seconds),
            }
        )
    report.tables.append(
        Table(
            "ranks",
            "Mean rank over the tasks, 1 for the best distance of a task",
            (
                Column("distance", "distance"),
                Column("correlation", "correlation", number(2)),
                Column("rank", "GP rank", number(2)),
                Column("nlpd", "GP -log p", number(2)),
                Column("knn", f"{settings.neighbors}-NN error", number(2)),
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
                Column("distance", "distance"),
                Column("correlation", "correlation", number(2)),
                Column("correlation_error", "+-", number(1)),
                Column("rank", "GP rank", number(2)),
                Column("rank_error", "+-", number(1)),
                Column("nlpd", "GP -log p", number(3)),
                Column("nlpd_error", "+-", number(1)),
                Column("knn", f"{settings.neighbors}-NN error", number(3)),
                Column("knn_error", "+-", number(1)),
            ),
            quality,
        )
    )
    report.tables.append(
        Table(
            "time",
            f"Distances between {settings.train + settings.test} networks, set-up included:"
            " processor seconds per million pairs, one thread",
            (
                Column("space", "space"),
                Column("distance", "distance"),
                Column("seconds", "fastest split", number()),
                Column("slowest", "slowest split", number()),
            ),
            times,
        )
    )
    report.notes.append(
        "These are the results of `python -m benchmarks metric_quality`; --output says where to."
    )
    report.notes.append(
        "Targets are logarithms of the published errors, standardised by the training networks."
        " 'Correlation': Spearman's, between distances and differences of targets over all pairs."
        " 'GP': the kernel exp(-distance / lengthscale), positive semi-definite with the training"
        " networks as landmarks; lengthscale, scale and noise by marginal likelihood on a grid, the"
        " same for every distance. 'GP rank': Spearman's, between predicted means and values. 'GP"
        " -log p': mean negative log predictive density of a test network; that of a normal"
        " distribution around the training mean is about 1.42. 'k-NN error': root mean squared"
        " error of the mean of the nearest training networks. '+-': standard error over splits."
        " Distances that have parts enter as their sum with default weights, not by the parts that"
        " their own Gaussian processes weigh. 'HOTNN, learned' is the distance of a HOTNNGP fitted"
        " to the training networks; its time is that of the distances alone."
    )
    return report


def _ranks(quality: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean rank of each distance over the tasks by every measure, the best density first."""
    ranks: dict[str, dict[str, list[float]]] = {}
    for task in dict.fromkeys(row["task"] for row in quality):
        rows = [row for row in quality if row["task"] == task]
        for measure, sign in _MEASURES.items():
            for row, rank in zip(rows, rankdata([sign * r[measure] for r in rows]), strict=True):
                of_distance = ranks.setdefault(row["distance"], {})
                of_distance.setdefault(measure, []).append(float(rank))
    means: list[dict[str, Any]] = [
        {"distance": name, **{measure: sum(of) / len(of) for measure, of in found.items()}}
        for name, found in ranks.items()
    ]
    return sorted(means, key=lambda row: float(row["nlpd"]))


# --- measuring ------------------------------------------------------------------------------------


def measured(
    settings: Settings, distances: Mapping[str, Distance]
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Measure what is not in the storage yet.

    Args:
        settings: What is measured, and where it is kept.
        distances: Those that `settings.distances` names.

    Returns:
        A record per split, by path of the table and name of the distance.

    Raises:
        TableError: A file of a table is missing or damaged.
    """
    folder = published(settings.data)
    by_table: dict[str, list[Task]] = {}
    for task in settings.tasks:
        by_table.setdefault(TASKS[task].path, []).append(TASKS[task])
    records: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path, tasks in by_table.items():
        networks = _Networks(settings, tasks, folder)
        about = {
            "tasks": sorted(task.name for task in tasks),
            "train": settings.train,
            "test": settings.test,
            "neighbors": settings.neighbors,
            "code": code_version(),
        }
        wanted: list[Key] = [
            {"distance": name, "split": split}
            for name in settings.distances
            for split in range(settings.splits)
        ]
        found = recorded(
            Path(settings.storage) / f"{tasks[0].table}.jsonl",
            about,
            wanted,
            lambda key, networks=networks: _measure(
                settings, distances[key["distance"]], *networks.split(key["split"])
            ),
            title=tasks[0].table,
        )
        for record in found:
            records.setdefault((path, record["distance"]), []).append(record)
    return records


class _Networks:
    """Networks of a table and their values, read when they are first needed."""

    def __init__(self, settings: Settings, tasks: list[Task], folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._tasks = tasks
        self._tables: dict[str, Any] = {}

    def split(self, number: int) -> tuple[SearchSpace, list[Network], dict[str, Tensor]]:
        """Return space, networks (training ones first) and targets by task."""
        if not self._tables:
            self._tables = {task.name: task.open(self._folder) for task in self._tasks}
        space: SearchSpace = next(iter(self._tables.values())).space
        nets = space.sample(
            self._settings.train + self._settings.test,
            generator=torch.Generator().manual_seed(number),
            distinct=True,
        )
        targets = {}
        for name, table in self._tables.items():
            values = logarithms(table, nets)
            known = values[: self._settings.train]
            targets[name] = (values - known.mean()) / known.std()
        return space, nets, targets


def _measure(
    settings: Settings,
    distance: Distance,
    space: SearchSpace,
    nets: list[Network],
    targets: dict[str, Tensor],
) -> dict[str, Any]:
    pairs = len(nets) * (len(nets) - 1) / 2
    results: dict[str, Any] = {}
    matrix, seconds = torch.empty(0), math.inf
    for task, values in targets.items():
        if distance.learns or not results:
            # Larger is better where a model learns.
            metric = distance.build(space, nets[: settings.train], -values[: settings.train])
            started = time.process_time()
            matrix = metric(nets).detach().double()
            seconds = min(seconds, time.process_time() - started)
        results[task] = evaluate(matrix, values, settings.train, settings.neighbors)
    return {
        "space": space.name,
        "seconds_per_million_pairs": seconds / pairs * 1e6,
        "tasks": results,
    }


def evaluate(
    distances: Tensor, targets: Tensor, num_train: int, num_neighbors: int
) -> dict[str, float]:
    """Return what distances say about targets.

    Args:
        distances: (N, N) float64, training networks first.
        targets: (N,), standardised.
        num_train: Networks whose targets are known.
        num_neighbors: Of the nearest-neighbour prediction.

    Returns:
        `correlation`, `rank`, `nlpd` and `knn`, see the note of the report.
    """
    row, col = torch.triu_indices(len(targets), len(targets), offset=1)
    differences = (targets[row] - targets[col]).abs()
    known, unknown = targets[:num_train], targets[num_train:]
    mean, variance = predictive(distances[:, :num_train], known)
    nearest = distances[num_train:, :num_train].topk(num_neighbors, largest=False).indices
    return {
        "correlation": _rank_correlation(distances[row, col], differences),
        "rank": _rank_correlation(mean, unknown),
        "nlpd": surprise(mean, variance, unknown).mean().item(),
        "knn": (known[nearest].mean(1) - unknown).square().mean().sqrt().item(),
    }


def _rank_correlation(one: Tensor, other: Tensor) -> float:
    """Return Spearman's correlation; 0 where one side is the same everywhere and says nothing."""
    if bool((one == one[0]).all()) or bool((other == other[0]).all()):
        return 0.0
    return float(spearmanr(one, other).statistic)


def predictive(distances: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return predictive means and variances of a Gaussian process on a distance.

    The kernel is exp(-distance / lengthscale) with the training networks as landmarks, see
    `hotnas_torch.gp.psd`. Lengthscale and noise are those of the largest marginal likelihood on a
    grid, the scale is the best one for each.

    Args:
        distances: Of all N networks to the n training networks, which come first, (N, n).
        known: Targets of the training networks, (n,), standardised.

    Returns:
        (N - n,) each; variances include the noise.
    """
    num = len(known)
    typical = distances[:num].median().clamp_min(1e-12)
    best, chosen = -math.inf, (torch.empty(0), torch.empty(0), 0.0, 0.0)
    for relative in _LENGTHSCALES:
        similarity = torch.exp(-distances / (relative * typical))
        features = landmark_features(similarity, whitener(similarity[:num]))
        kernel = features[:num] @ features[:num].mT
        kernel.fill_diagonal_(1.0)
        eigenvalues, vectors = torch.linalg.eigh(kernel)
        spread = eigenvalues.clamp_min(0.0) + _NOISES[:, None]
        scale = ((vectors.mT @ known).square() / spread).mean(1)
        evidence = -0.5 * (num * scale.log() + spread.log().sum(1))
        place = int(evidence.argmax())
        if float(evidence[place]) > best:
            best = float(evidence[place])
            chosen = (features, kernel, float(_NOISES[place]), float(scale[place]))
    features, kernel, noise, scale = chosen
    cross = features[num:] @ features[:num].mT
    factor = torch.linalg.cholesky(kernel + noise * torch.eye(num, dtype=kernel.dtype))
    mean = cross @ torch.cholesky_solve(known[:, None], factor)[:, 0]
    explained = torch.linalg.solve_triangular(factor, cross.mT, upper=False).square().sum(0)
    return mean, scale * (1.0 + noise - explained)


# --- picture --------------------------------------------------------------------------------------


def draw(report: Report) -> Figure:
    """Draw predictive densities and k-NN errors, a point for each distance and task."""
    rows = report.rows("quality")
    titles = list(dict.fromkeys(str(row["distance"]) for row in rows))[::-1]
    tasks = list(dict.fromkeys(str(row["task"]) for row in rows))
    figure, panels = canvas(3, width=4.4, height=1.2 + 0.45 * len(titles))
    measures = (
        ("correlation", "correlation with differences (more is better)"),
        ("nlpd", "GP negative log density (less is better)"),
        ("knn", "k-NN error (less is better)"),
    )
    for axes, (measure, label) in zip(panels, measures, strict=True):
        for place, task in enumerate(tasks):
            offset = 0.5 * (place / max(1, len(tasks) - 1) - 0.5)
            of_task: Sequence[Mapping[str, Any]] = [row for row in rows if row["task"] == task]
            axes.errorbar(
                [row[measure] for row in of_task],
                [titles.index(str(row["distance"])) - offset for row in of_task],
                xerr=[row[f"{measure}_error"] or 0.0 for row in of_task],
                fmt="o",
                markersize=4,
                linewidth=1,
                color=COLOURS[place % len(COLOURS)],
                label=task,
            )
        axes.set_yticks(
            range(len(titles)), titles if measure == "correlation" else [""] * len(titles)
        )
        axes.set_xlabel(label, color=INK)
    if tasks:
        panels[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
