# Over 400 lines: one comparison, read from its settings down to its picture.
"""Does a learned hierarchy find better pooling positions in the same training?"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import kendalltau, rankdata
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.records import Key, recorded
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.statistics import standard_error
from hotnas_torch.comparison.code import code_version
from hotnas_torch.hierarchy import (
    ArchitectureTree,
    Boltzmann,
    Independent,
    Sampler,
    Schedule,
    TreeSampler,
    Uniform,
    cluster,
    layer_operations,
    layer_tree,
    output_distances,
    random_tree,
)
from hotnas_torch.nn import (
    ImageData,
    PoolingSupernet,
    Split,
    SupernetSearch,
    SupernetSettings,
    TrainingSettings,
    digits,
    train,
)
from hotnas_torch.nn.supernets.single_path import Normalization
from hotnas_torch.objectives.training import seeded_generator
from hotnas_torch.spaces import Pooling

__all__ = ["QUICK", "Settings", "draw", "run"]


_TITLES = {
    "uniform": "uniform",
    "independent": "independent",
    "boltzmann": "Boltzmann",
    "default": "MCTS, default tree",
    "regularised": "MCTS, default tree + reg.",
    "random": "MCTS, random tree",
    "outputs": "MCTS, learned tree (outputs, KL)",
    "hotnn": "MCTS, learned tree (HOTNN)",
}
_TREES = ("default", "regularised", "random", "outputs", "hotnn")
_SPACE = Pooling()
_NETS = list(_SPACE)
_CODES = layer_operations(_SPACE, _NETS)
_REGULARISATION = 0.5
_PRINTED_EXPLORATION = 0.5
_FEW = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        seeds: Searches of each method.
        truth_seeds: Trainings of each network alone, with normalisation by the batch as in the
            supernet; as many again with running statistics, for a second ranking.
        epochs: Of a search.
        truth_epochs: Of a network alone.
        pretraining: Epochs of the supernets that learned trees come from; the last is the one that
            is compared, the others show what less training gives.
        batch: Training images per step.
        reward_batch: Validation images per reward.
        exploration: Weight of the exploration term in trees. The paper's 0.5 is for 39,200 steps;
            as the term falls with the root of the visits, this is what it comes to after 1,200.
        printed_seeds: Searches of each tree with the paper's constants.
        train: Training images.
        validation: Validation images; all others are for testing.
        width: Of the ResNet-20, whose channels are 16, 32 and 64 times it.
        learning_rate: At the start, of everything.
        storage: Where finished measurements are kept; the same command goes on.
    """

    seeds: int = 5
    truth_seeds: int = 5
    epochs: int = 120
    truth_epochs: int = 15
    pretraining: tuple[int, ...] = (0, 27, 80)
    batch: int = 32
    reward_batch: int = 128
    exploration: float = 0.1
    printed_seeds: int = 3
    train: int = 320
    validation: int = 480
    width: float = 0.25
    learning_rate: float = 0.1
    storage: str = "runs/bench/supernet"


QUICK = Settings(
    seeds=1,
    printed_seeds=0,
    truth_seeds=1,
    epochs=4,
    truth_epochs=1,
    pretraining=(0, 2),
    storage="runs/bench/supernet-quick",
)


def run(settings: Settings) -> Report:
    """Train every network alone, then search with every method."""
    torch.set_num_threads(1)
    report = Report()
    truth, running = _truth(settings, "batch"), _truth(settings, "running")
    ranks, running_ranks = (rankdata(-np.array(one), method="average") for one in (truth, running))
    place = {net.spec: index for index, net in enumerate(_NETS)}
    longest = settings.pretraining[-1]
    wanted: list[Key] = [
        {"seed": seed, "method": method, "pretraining": longest if method == "outputs" else None}
        for seed in range(settings.seeds)
        for method in _TITLES
    ]
    wanted += [
        {"seed": seed, "method": "outputs", "pretraining": epochs}
        for seed in range(settings.seeds)
        for epochs in settings.pretraining[:-1]
    ]
    if settings.printed_seeds:
        wanted += [
            {
                "seed": seed,
                "method": method,
                "pretraining": longest if method == "outputs" else None,
                "constants": "printed",
            }
            for seed in range(settings.printed_seeds)
            for method in _TREES
        ]
    searched = _recorded(
        settings, "searches", wanted, _search, ("epochs", "reward_batch", "exploration")
    )

    def rows_of(methods: Sequence[str], constants: str | None) -> list[dict[str, Any]]:
        return [
            _row(
                _TITLES[method],
                [
                    one
                    for one in searched
                    if one["method"] == method
                    and one["pretraining"] in (None, longest)
                    and one.get("constants") == constants
                ],
                truth,
                ranks,
                place,
            )
            for method in methods
        ]

    rows = rows_of(list(_TITLES), None)
    for row in rows:
        row["running_rank"] = statistics.fmean(float(running_ranks[end]) for end in row["ends"])
    report.tables.append(
        Table(
            "methods",
            f"where searches of {settings.epochs} epochs end, {settings.seeds} seeds; accuracy of"
            " the network alone",
            (
                Column("method", "method"),
                Column("best", "best", str),
                Column("best_rank", "its rank", number(3)),
                Column("rank", "mean rank of 36", number(3)),
                Column("running_rank", "with running statistics", number(3)),
                Column("accuracy", "accuracy, %", number(4)),
                Column("error", "standard error", number(2)),
                Column("reward", "reward of the last tenth, %", number(4)),
                Column("correlation", "Kendall's tau of shared weights", number(2)),
                Column("seconds", "processor seconds", number(3)),
                Column("networks", "by seed", str),
            ),
            rows,
        )
    )
    report.tables.append(
        Table(
            "pretraining",
            "the learned tree (outputs, KL) after less training of the supernet that it comes from",
            (
                Column("epochs", "epochs", number()),
                Column("rank", "mean rank of 36", number(3)),
                Column("accuracy", "accuracy, %", number(4)),
                Column("error", "standard error", number(2)),
            ),
            [
                {"epochs": epochs}
                | _row(
                    str(epochs),
                    [
                        one
                        for one in searched
                        if one["method"] == "outputs"
                        and one["pretraining"] == epochs
                        and "constants" not in one
                    ],
                    truth,
                    ranks,
                    place,
                )
                for epochs in settings.pretraining
            ],
        )
    )
    if settings.printed_seeds:
        report.tables.append(
            Table(
                "printed",
                "trees with the paper's constants: lambda 0.5, values that start at 1, average"
                f" linkage; {settings.printed_seeds} seeds",
                (
                    Column("method", "method"),
                    Column("rank", "mean rank of 36", number(3)),
                    Column("accuracy", "accuracy, %", number(4)),
                    Column("error", "standard error", number(2)),
                    Column("reward", "reward of the last tenth, %", number(4)),
                    Column("networks", "by seed", str),
                ),
                rows_of(_TREES, "printed"),
            )
        )
    order = np.argsort(ranks)
    report.tables.append(
        Table(
            "truth",
            f"the networks trained alone, {settings.truth_seeds} seeds: the best, the published"
            " ResNet-20 and the worst",
            (
                Column("network", "network"),
                Column("rank", "rank", number(3)),
                Column("accuracy", "test accuracy, %", number(4)),
            ),
            [
                {
                    "network": _NETS[index].spec,
                    "rank": float(ranks[index]),
                    "accuracy": 100.0 * truth[index],
                }
                for index in (*order[:3], place["[4,3,3]"], *order[-2:])
            ],
        )
    )
    by_title = {row["method"]: row for row in rows}
    for own in ("outputs", "hotnn"):
        for other in ("default", "uniform"):
            report.claims.append(
                Claim(
                    f"{_TITLES[own]}: points of accuracy over {_TITLES[other]}",
                    ">=",
                    0.0,
                    by_title[_TITLES[own]]["accuracy"] - by_title[_TITLES[other]]["accuracy"],
                )
            )
    report.notes.append(
        f"ResNet-20 of width {settings.width:g} on 8 x 8 digits, {settings.train} images for the"
        f" weights and {settings.validation} for the rewards; accuracies of networks trained alone"
        " are on all others. Every method trains fresh weights for the same epochs; the learned"
        f" tree of outputs trains another supernet for {longest} epochs before, the tree of HOTNN"
        " trains nothing. Learned trees are made by Ward's criterion, and all trees are searched"
        f" with lambda {settings.exploration:g} and values that start with the first reward. A"
        " search ends with its sampler's own choice; uniform sampling, which has"
        " no estimates, with the network that does best on the validation images with shared"
        " weights, whose accuracies Kendall's tau compares with those of networks trained alone."
        " These normalise by the batch, as the supernets do; with running statistics they rank"
        f" differently (Kendall's tau {kendalltau(truth, running).statistic:.2f}), which says how"
        " far ranks can be trusted here."
    )
    return report


# --- measuring ------------------------------------------------------------------------------------


def _recorded(
    settings: Settings,
    name: str,
    wanted: Sequence[Key],
    measure: Callable[[Settings, Key], Mapping[str, Any]],
    depends: Sequence[str],
) -> list[dict[str, Any]]:
    common = ("batch", "train", "validation", "width", "learning_rate")
    about = {field: getattr(settings, field) for field in (*common, *depends)}
    return recorded(
        Path(settings.storage) / f"{name}.jsonl",
        about | {"code": code_version("hierarchy", "nn", "objectives", "spaces")},
        wanted,
        lambda key: measure(settings, key),
        title=name,
    )


def _truth(settings: Settings, normalization: Normalization) -> list[float]:
    """The mean test accuracy of each network, trained alone with this kind of normalisation."""
    wanted: list[Key] = [
        {"seed": seed, "network": net.spec} for seed in range(settings.truth_seeds) for net in _NETS
    ]
    found = _recorded(
        settings,
        f"alone-{normalization}",
        wanted,
        lambda settings, key: _alone(settings, key, normalization),
        ("truth_epochs",),
    )
    return [
        statistics.fmean(one["accuracy"] for one in found if one["network"] == net.spec)
        for net in _NETS
    ]


def _alone(settings: Settings, key: Key, normalization: Normalization) -> Mapping[str, Any]:
    data = _data(settings)
    module = PoolingSupernet(
        width=settings.width,
        input_channels=1,
        only=_SPACE.from_string(key["network"]),
        normalization=normalization,
        generator=seeded_generator(key["seed"], "alone", key["network"]),
    )
    # Nothing is chosen by validation here, so little of it is measured.
    validation = Split(data.validation.images[:_FEW], data.validation.labels[:_FEW])
    result = train(
        module,
        replace(data, validation=validation),
        TrainingSettings(
            epochs=settings.truth_epochs,
            batch_size=settings.batch,
            learning_rate=settings.learning_rate,
        ),
        generator=seeded_generator(key["seed"], "order"),
    )
    return {"accuracy": result.test_accuracy}


def _search(settings: Settings, key: Key) -> Mapping[str, Any]:
    started = time.process_time()
    seed = key["seed"]
    sampler = _sampler(settings, key)
    search = SupernetSearch(
        _supernet(settings, seed, "weights"),
        _NETS,
        sampler,
        _data(settings),
        _training(settings, settings.epochs),
        generator=seeded_generator(seed, "search"),
    )
    chosen = search.run(progress=False).network
    shared = search.accuracies()
    if key["method"] == "uniform":
        # It has no estimates: all networks are compared with the shared weights (Guo et al.).
        chosen = _NETS[int(shared.argmax())]
    return {
        "network": chosen.spec,
        "shared": shared.tolist(),
        "rewards": [epoch.reward for epoch in search.epochs],
        "networks": [epoch.network for epoch in search.epochs],
        "seconds": time.process_time() - started,
    }


def _sampler(settings: Settings, key: Key) -> Sampler:
    num, method = len(_NETS), key["method"]
    if method == "uniform":
        return Uniform(num)
    if method == "independent":
        return Independent(_CODES)
    if method == "boltzmann":
        return Boltzmann(num)
    printed = key.get("constants") == "printed"
    return TreeSampler(
        _tree(settings, key),
        exploration=_PRINTED_EXPLORATION if printed else settings.exploration,
        # Few visits leave much of an initial value of 1.
        initial=1.0 if printed else None,
        regularization=_REGULARISATION if method == "regularised" else 0.0,
    )


def _tree(settings: Settings, key: Key) -> ArchitectureTree:
    printed = key.get("constants") == "printed"
    match key["method"]:
        case "random":
            return random_tree(len(_NETS), generator=seeded_generator(key["seed"], "tree"))
        case "outputs":
            distances = _output_distances(settings, key["seed"], key["pretraining"])
        case "hotnn":
            distances = ht.HOTNN(space=_SPACE)(_NETS)
        case _:
            return layer_tree(_CODES)
    if printed:
        return cluster(distances)
    # Ward's criterion makes parts of like size. By average distances, the worst network may branch
    # off at the root alone, where it takes half of the draws until its visits are many.
    return cluster(distances, linkage="ward", check_euclidean=False)


def _output_distances(settings: Settings, seed: int, epochs: int) -> Tensor:
    """Distances of the outputs of a supernet after so many epochs of uniform sampling."""
    supernet, data = _supernet(settings, seed, "pretraining"), _data(settings)
    if epochs:
        SupernetSearch(
            supernet,
            _NETS,
            Uniform(len(_NETS)),
            data,
            _training(settings, epochs),
            generator=seeded_generator(seed, "pretraining"),
        ).run(progress=False)
    return output_distances(supernet.outputs(data.validation.images, _NETS))


def _supernet(settings: Settings, seed: int, purpose: str) -> PoolingSupernet:
    return PoolingSupernet(
        width=settings.width, input_channels=1, generator=seeded_generator(seed, purpose)
    )


def _training(settings: Settings, epochs: int) -> SupernetSettings:
    return SupernetSettings(
        epochs=epochs,
        batch_size=settings.batch,
        reward_batch_size=settings.reward_batch,
        learning_rate=settings.learning_rate,
    )


def _data(settings: Settings) -> ImageData:
    return digits(
        generator=seeded_generator(0, "data"),
        num_train=settings.train,
        num_validation=settings.validation,
    )


# --- showing --------------------------------------------------------------------------------------


def _row(
    title: str,
    runs: Sequence[Mapping[str, Any]],
    truth: Sequence[float],
    ranks: Sequence[float],
    place: Mapping[str, int],
) -> dict[str, Any]:
    ends = [place[one["network"]] for one in runs]
    accuracies = [100.0 * truth[end] for end in ends]
    best = min(ends, key=lambda end: ranks[end])
    last = max(1, len(runs[0]["rewards"]) // 10)
    return {
        "method": title,
        "best": _NETS[best].spec,
        "best_rank": float(ranks[best]),
        "rank": statistics.fmean(float(ranks[end]) for end in ends),
        "accuracy": statistics.fmean(accuracies),
        "error": standard_error(accuracies),
        "reward": 100.0 * statistics.fmean(x for one in runs for x in one["rewards"][-last:]),
        "correlation": statistics.fmean(
            float(kendalltau(one["shared"], truth).statistic) for one in runs
        ),
        "seconds": statistics.fmean(one["seconds"] for one in runs),
        "ends": ends,
        "networks": ", ".join(_NETS[end].spec for end in ends),
        "rewards": [one["rewards"] for one in runs],
        "truth": [[100.0 * truth[place[spec]] for spec in one["networks"]] for one in runs],
    }


def draw(report: Report) -> Figure:
    """Draw what less pre-training gives, and how rewards and choices develop."""
    figure, (left, middle, right) = canvas(3, width=4.6, height=3.8)
    rows = report.rows("pretraining")
    left.errorbar(
        [row["epochs"] for row in rows],
        [row["accuracy"] for row in rows],
        [row["error"] or 0.0 for row in rows],
        color=COLOURS[0],
        marker="o",
        capsize=3,
    )
    left.set_xlabel("epochs of the supernet that the tree comes from", color=INK)
    left.set_ylabel("accuracy of the chosen network alone, %", color=INK)
    methods = report.rows("methods")
    for row, colour in zip(methods, COLOURS, strict=False):
        _curve(middle, [[100.0 * x for x in one] for one in row["rewards"]], row["method"], colour)
        _curve(right, row["truth"], row["method"], colour)
    middle.set_ylabel("validation accuracy of sampled networks, %", color=INK)
    right.set_ylabel("accuracy of the present choice alone, %", color=INK)
    for axes in (middle, right):
        axes.set_xlabel("epoch of the search", color=INK)
        axes.axvline(
            Schedule().warm_up * report.settings["epochs"], color=INK, linewidth=0.8, linestyle=":"
        )
    middle.legend(frameon=False, loc="lower right", fontsize=7)
    return figure


def _curve(axes: Axes, curves: Sequence[Sequence[float]], label: str, colour: str) -> None:
    """The mean of several curves, smoothed over a tenth of their length."""
    numbers = np.array(curves, dtype=np.float64).mean(0)
    window = max(1, len(numbers) // 10)
    padded = np.concatenate([np.full(window - 1, numbers[0]), numbers])
    smooth = np.convolve(padded, np.ones(window) / window, mode="valid")
    axes.plot(range(1, len(smooth) + 1), smooth, color=colour, label=label, linewidth=1.5)
