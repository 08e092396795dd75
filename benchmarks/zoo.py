"""How well do distances between published models find their families and predict their accuracy?

ImageNet-1k models of timm, as `python -m benchmarks importing` leaves them in `cache` (what
is missing is imported). The top-1 of held-out models is predicted by Gaussian processes whose
hyperparameters maximise the marginal likelihood in each fold, and by gradient boosting.
"""

import csv
import itertools
import math
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.grid_gp import Factor, exponential, matern, predict
from benchmarks.measuring.report import Claim, Column, Report, Table, Unavailable, number
from benchmarks.measuring.statistics import standard_error, surprise
from benchmarks.measuring.tables import published
from benchmarks.measuring.workers import Processes, mapped
from benchmarks.measuring.zoo import (
    computation_of,
    first_import,
    imported,
    published_models,
    timm_model,
)
from hotnas_torch.arch import Network
from hotnas_torch.distances import HOTNN, TreeWasserstein, WeisfeilerLehman
from hotnas_torch.distances._tables.layer_graph import NetworkView, layer_graph
from hotnas_torch.importing import operation_tree
from hotnas_torch.importing.computation import Computation
from hotnas_torch.spaces import AnyNetwork

__all__ = ["ON_REQUEST", "QUICK", "Settings", "draw", "run"]

ON_REQUEST = "needs timm, and imports some hundred models"

_MORE_DATA = re.compile(
    "in2[12]k|in12k|laion|clip|jft|ssl|swsl|ig1b|yfcc|dist|ssld|seer|swag|datacomp|webli|lvd|m30m"
    "|m38m|merged|openai|metaclip|dfn|ig_|sam|dino|jepa|mim|pt_|oai"
)
"""What tags of models say that were trained on more than ImageNet-1k, or by another network."""

_STRUCTURE = ("kernel", "groups", "stride", "dilation", "heads", "layers")
_METRIC: Mapping[str, Any] = {"mass": "uniform", "eta": 0.3}
"""Chosen by the nearest neighbours of half of the families (docs/zoo.md); all else by default."""

NUMBERS: Mapping[str, tuple[str, ...] | None] = {
    "none": (),
    "structure": _STRUCTURE,
    "all": None,
}
"""Which numbers of operations the distance reads; None is all of them."""

CHOICES = {"numbers": tuple(NUMBERS)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        models: How many, drawn at random; 0 takes all that can be imported.
        granularities: Most operations of a cell; a matrix of each.
        numbers: Numbers that distances read; a matrix of each. The first matrix is drawn, and the
            likelihood chooses among all.
        folds: Parts that are predicted from the others.
        repeats: Divisions into parts.
        workers: Processes that compare and predict, each on one thread.
        cached: Take only models that have been imported.
        data: Folder of the tables, see `published`.
        cache: Folder of the imported networks.
        seed: Of the draw and of the divisions.
    """

    models: int = 0
    granularities: tuple[int, ...] = (28,)
    numbers: tuple[str, ...] = ("structure", "none")
    folds: int = 5
    repeats: int = 5
    workers: int = 2
    cached: bool = False
    data: str | None = None
    cache: str = "runs/zoo"
    seed: int = 0


QUICK = Settings(models=30, numbers=("structure",), repeats=1)


@dataclass(frozen=True)
class _Model:
    """A published model, its network, and what can be counted in it."""

    name: str
    family: str
    top1: float
    parameters: float
    computation: Computation

    @cached_property
    def network(self) -> Network:
        """With all numbers, of which `_columns` counts."""
        return self.computation.network()


def _accuracies(folder: Path) -> dict[str, float]:
    """Best top-1 of every model that was trained on ImageNet-1k alone."""
    best: dict[str, float] = {}
    with (folder / "timm" / "results_imagenet_half.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            name, _, tag = row["model"].partition(".")
            if not tag or ("in1k" in tag and not _MORE_DATA.search(tag)):
                best[name] = max(best.get(name, 0.0), float(row["top1"]))
    return best


def _models(settings: Settings) -> list[_Model]:
    folder, cache = published(settings.data), Path(settings.cache) / "timm"
    if not (folder / "timm").is_dir():
        raise Unavailable(f"{folder / 'timm'} is no folder")
    top1 = _accuracies(folder)
    known = {model.name: model for model in published_models(folder)}
    names = [n for n in top1 if not settings.cached or (cache / f"{n}.json").is_file()]
    if settings.models:
        names = random.Random(settings.seed).sample(names, len(names))
    rows = imported(names, lambda name: timm_model(known[name]), cache, first_import)
    found = []
    for row in itertools.islice((r for r in rows if "computation" in r), settings.models or None):
        found.append(
            _Model(
                row["name"],
                row["module"].rpartition(".")[2],
                top1[row["name"]],
                known[row["name"]].parameters,
                computation_of(row),
            )
        )
    if len(found) < 2 * settings.folds:
        raise Unavailable(f"{len(found)} models are too few to be predicted")
    return found


def run(settings: Settings) -> Report:
    """Import, compare, predict."""
    report = Report()
    models = _models(settings)
    rows, matrices = [], {}
    for granularity, numbers in itertools.product(settings.granularities, settings.numbers):
        nets = [
            model.computation.network(granularity=granularity, numbers=NUMBERS[numbers])
            for model in models
        ]
        begun, busy = time.perf_counter(), _processor()
        metric = HOTNN(tree=operation_tree(), **_METRIC)
        matrix = metric(nets, executor=Processes(settings.workers)).double()
        rows.append(
            {
                "granularity": granularity,
                "numbers": numbers,
                "seconds": time.perf_counter() - begun,
                "processor": _processor() - busy,
                "cells": len({cell for net in nets for cell in net.cells}),
                "labels": len({op for net in nets for cell in net.cells for op in cell.ops}),
                "neighbours": _same_family(matrix, models),
            }
        )
        matrices[f"{granularity} {numbers}"] = matrix
    report.tables.append(
        Table(
            "distances",
            f"HOTNN between {len(models)} models, by {settings.workers} processes: distinct cells"
            " and labels, seconds, and share of models whose nearest one is of their family",
            (
                Column("granularity", "granularity", number()),
                Column("numbers", "numbers"),
                Column("cells", "cells", number(4)),
                Column("labels", "labels", number(4)),
                Column("seconds", "s", number(3)),
                Column("processor", "processor s", number(3)),
                Column("neighbours", "same family", number(3)),
            ),
            rows,
        )
    )
    report.tables.append(_summary(list(_predictions(models, matrices, settings)), settings))
    first = next(iter(matrices.values()))
    places = _map(first, settings.seed)
    report.tables.append(
        Table(
            "map",
            "Models, the nearest other one of each, and their places in the picture",
            (
                Column("model", "model"),
                Column("family", "family"),
                Column("top1", "top-1", number(3)),
                Column("nearest", "nearest"),
            ),
            [
                {
                    "model": model.name,
                    "family": model.family,
                    "top1": model.top1,
                    "nearest": models[other].name,
                    "x": x,
                    "y": y,
                }
                for model, other, (x, y) in zip(models, _nearest(first), places, strict=True)
            ],
        )
    )
    report.claims += [
        Claim("processor minutes for the matrix", "<=", 20.0, rows[0]["processor"] / 60.0),
        Claim("nearest model is of the same family", ">=", 0.9, rows[0]["neighbours"]),
    ]
    return report


def _processor() -> float:
    """Processor seconds of this process and of the workers that it has had."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _same_family(matrix: Tensor, models: Sequence[_Model]) -> float:
    """Share of models whose nearest one is of their family, of those with relatives."""
    sizes = Counter(model.family for model in models)
    hits = [
        model.family == models[place].family
        for model, place in zip(models, _nearest(matrix), strict=True)
        if sizes[model.family] > 1
    ]
    return sum(hits) / max(1, len(hits))


def _nearest(matrix: Tensor) -> list[int]:
    """Place of the nearest other model of each."""
    apart = matrix.clone().fill_diagonal_(math.inf)
    return [int(place) for place in apart.argmin(1)]


def _map(matrix: Tensor, seed: int) -> list[tuple[float, float]]:
    """Places in the plane, near ones near, by t-SNE."""
    from sklearn.manifold import TSNE

    perplexity = min(20.0, (len(matrix) - 1) / 3)
    tsne = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=seed)
    return [(float(x), float(y)) for x, y in tsne.fit_transform(matrix.numpy())]


# --- prediction -----------------------------------------------------------------------------------


def _columns(models: Sequence[_Model]) -> dict[str, Tensor]:
    """Hand-made features, (N, k) each."""
    logs = {
        "parameters": [[math.log(m.parameters)] for m in models],
        "multiply_adds": [[math.log(max(1.0, m.computation.multiply_adds))] for m in models],
        "shape": [
            [
                math.log(len(m.computation.nodes)),
                math.log(m.network.num_cells),
                sum(map(math.log, m.network.channels)) / m.network.num_cells,
                math.log(max(m.network.channels)),
            ]
            for m in models
        ],
    }
    counts = [
        Counter(op.partition("[")[0] for cell in m.network.cells for op in cell.ops[1:-1])
        for m in models
    ]
    kinds = sorted({kind for count in counts for kind in count})
    logs["operations"] = [[math.log1p(count[kind]) for kind in kinds] for count in counts]
    return {name: torch.tensor(rows, dtype=torch.float64) for name, rows in logs.items()}


def _weisfeiler_lehman(models: Sequence[_Model]) -> Factor:
    """Kernels of the flat graphs of layers: by kinds alone or with numbers, levels 0 to 3."""
    space = AnyNetwork(operation_tree())
    plain = [model.computation.network(numbers=()) for model in models]
    ones = [(1,) * net.num_cells for net in plain]
    alike = [Network(n.cells, o, o, n.edges) for n, o in zip(plain, ones, strict=True)]
    structure = [model.computation.network(numbers=_STRUCTURE) for model in models]
    levels = [
        WeisfeilerLehman(space, level=level, aggregation="assignment").similarity(nets)
        for nets in (alike, structure)
        for level in range(4)
    ]
    return Factor("weisfeiler_lehman", torch.stack(levels).unflatten(0, (2, 4)))


def _tree_wasserstein(models: Sequence[_Model]) -> Factor:
    """Of operations, and of operations and pairs, both over the families of kinds."""
    tree = operation_tree()
    groups = {kind: str(tree.parents[kind]) for kind in tree.kinds}
    graphs = [
        layer_graph(
            m.computation.network(numbers=()), NetworkView("all"), without={"input", "output"}
        )
        for m in models
    ]
    distances = []
    for grams in (1, 2):
        metric = TreeWasserstein(AnyNetwork(tree), grams=grams, groups=groups)
        below = metric.histograms(graphs) @ metric.tree.incidence * metric.lengths
        distances.append(torch.cdist(below, below, p=1.0))
    return exponential(distances, "tree_wasserstein")


def _predictions(
    models: Sequence[_Model], matrices: Mapping[str, Tensor], settings: Settings
) -> Iterator[dict[str, Any]]:
    columns = _columns(models)
    factors = {name: matern(values, name) for name, values in columns.items()}
    factors["hotnn"] = exponential(list(matrices.values()), "hotnn")
    factors["weisfeiler_lehman"] = _weisfeiler_lehman(models)
    factors["tree_wasserstein"] = _tree_wasserstein(models)
    methods = {
        "HOTNN x log parameters": ("hotnn", "parameters"),
        "HOTNN x log multiply-adds": ("hotnn", "multiply_adds"),
        "HOTNN x both": ("hotnn", "parameters", "multiply_adds"),
        "HOTNN": ("hotnn",),
        "log parameters": ("parameters",),
        "log parameters, multiply-adds": ("parameters", "multiply_adds"),
        "log parameters, depth, width, operations": ("parameters", "shape", "operations"),
        "Weisfeiler-Lehman": ("weisfeiler_lehman",),
        "Weisfeiler-Lehman x log parameters": ("weisfeiler_lehman", "parameters"),
        "tree-Wasserstein": ("tree_wasserstein",),
        "tree-Wasserstein x log parameters": ("tree_wasserstein", "parameters"),
    }
    if len(settings.granularities) > 1:
        for granularity in settings.granularities:
            mine = [m for name, m in matrices.items() if name.startswith(f"{granularity} ")]
            factors[f"hotnn {granularity}"] = exponential(mine, "hotnn")
            name = f"HOTNN of at most {granularity} operations x log parameters"
            methods[name] = (f"hotnn {granularity}", "parameters")
    top1 = torch.tensor([model.top1 for model in models], dtype=torch.float64)
    task = _Task(factors, methods, torch.cat(list(columns.values()), dim=1).numpy(), top1)
    divisions = list(_divisions(models, settings))
    for rows in mapped(_scores, task, divisions, settings.workers):
        yield from rows


@dataclass(frozen=True, slots=True)
class _Task:
    """What all divisions have in common.

    Attributes:
        factors: Kernels by name.
        methods: Names of the kernels that a method multiplies, by its name.
        features: All columns, (N, k).
        top1: Shape (N,).
    """

    factors: Mapping[str, Factor]
    methods: Mapping[str, Sequence[str]]
    features: np.ndarray
    top1: Tensor


_Division = tuple[str, int, int, Tensor, Tensor]


def _scores(task: _Task, division: _Division) -> list[dict[str, Any]]:
    """Predict what a division holds out, by every method."""
    held_out, repeat, fold, train, test = division
    values = (task.top1 - task.top1[train].mean()) / task.top1[train].std()
    rows = []

    def scored(method: str, mean: Tensor, variance: Tensor) -> None:
        rows.append(
            {
                "held_out": held_out,
                "method": method,
                "repeat": repeat,
                "fold": fold,
                "surprise": float(surprise(mean, variance, values[test]).mean()),
                "spearman": float(spearmanr(mean, values[test]).statistic),
            }
        )

    for method, names in task.methods.items():
        found = predict([task.factors[name] for name in names], values, train, test)
        scored(method, found.mean, found.variance)
    scored("gradient boosting", *_boosted(task.features, values, train, test))
    return rows


def _divisions(models: Sequence[_Model], settings: Settings) -> Iterator[_Division]:
    """Yield what is held out, repeat, fold, and places to learn from and to predict."""
    families = sorted({model.family for model in models})
    for repeat in range(settings.repeats):
        generator = torch.Generator().manual_seed(settings.seed + repeat)
        order = torch.randperm(len(models), generator=generator)
        at_random = torch.empty(len(models), dtype=torch.int64)
        at_random[order] = torch.arange(len(models)) % settings.folds
        # Families in a random order, each to the fold with the fewest models so far.
        sizes, fold_of = [0] * settings.folds, {}
        count = Counter(model.family for model in models)
        for place in torch.randperm(len(families), generator=generator).tolist():
            fold_of[families[place]] = sizes.index(min(sizes))
            sizes[fold_of[families[place]]] += count[families[place]]
        by_family = torch.tensor([fold_of[model.family] for model in models])
        for held_out, part in (("models", at_random), ("families", by_family)):
            for fold in range(settings.folds):
                held = part == fold
                yield held_out, repeat, fold, (~held).nonzero()[:, 0], held.nonzero()[:, 0]


def _boosted(
    features: np.ndarray, values: Tensor, train: Tensor, test: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient boosting; its variance is that of its errors in cross-validation."""
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.model_selection import cross_val_predict

    x, y = features[train.numpy()], values[train].numpy()
    options = {"n_estimators": 200, "learning_rate": 0.05, "subsample": 0.7, "random_state": 0}
    best: tuple[float, Any] = (math.inf, None)
    for depth in (2, 4):
        model = GradientBoostingRegressor(max_depth=depth, **options)
        error = float(np.mean((cross_val_predict(model, x, y, cv=5) - y) ** 2))
        best = min(best, (error, model), key=lambda pair: pair[0])
    error, model = best
    mean = torch.from_numpy(model.fit(x, y).predict(features[test.numpy()]))
    return mean, torch.full_like(mean, error)


def _summary(rows: Sequence[Mapping[str, Any]], settings: Settings) -> Table:
    listed = []
    for held_out in ("models", "families"):
        for method in dict.fromkeys(row["method"] for row in rows):
            mine = [r for r in rows if (r["held_out"], r["method"]) == (held_out, method)]
            # Folds of one repeat share their models; repeats are what varies.
            listed.append({"held_out": held_out, "method": method})
            for key in ("surprise", "spearman"):
                means = [
                    float(np.mean([r[key] for r in mine if r["repeat"] == repeat]))
                    for repeat in range(settings.repeats)
                ]
                listed[-1] |= {key: float(np.mean(means)), f"{key}_error": standard_error(means)}
                listed[-1][f"{key}_folds"] = [r[key] for r in mine]
    return Table(
        "prediction",
        f"Top-1 of held-out models or families, {settings.folds} folds, {settings.repeats}"
        " divisions: negative log density (of standardised top-1), rank correlation, standard"
        " errors over divisions",
        (
            Column("held_out", "held out"),
            Column("method", "method"),
            Column("surprise", "-log p", number(3)),
            Column("surprise_error", "+-", number(1)),
            Column("spearman", "rank correlation", number(3)),
            Column("spearman_error", "+-", number(1)),
        ),
        listed,
    )


def draw(report: Report) -> Figure:
    """Draw the map: a point per model, a colour per large family, larger where top-1 is higher."""
    rows = report.rows("map")
    figure, (axes,) = canvas(1, width=8.0, height=7.0)
    sizes = Counter(row["family"] for row in rows)
    large = [family for family, _ in sizes.most_common(len(COLOURS))]
    for family in [None, *large]:
        mine = [r for r in rows if (r["family"] if r["family"] in large else None) == family]
        axes.scatter(
            [r["x"] for r in mine],
            [r["y"] for r in mine],
            s=[max(4.0, 3.0 * (r["top1"] - 62.0)) for r in mine],
            color="lightgrey" if family is None else COLOURS[large.index(family)],
            label=family or "others",
            linewidths=0.3,
            edgecolors=INK,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=7, ncols=2, markerscale=0.7)
    axes.set_title("Models of timm by HOTNN distance", color=INK)
    return figure
