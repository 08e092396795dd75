# Over 400 lines: one comparison, read from its settings down to its picture.
"""Which hierarchy of architectures helps tree search, and how much?"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.records import recorded
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.statistics import mean_and_error, paired, standard_error
from benchmarks.measuring.tables import published
from hotnas_torch.arch import Network
from hotnas_torch.comparison.code import code_version
from hotnas_torch.hierarchy import (
    ArchitectureTree,
    Boltzmann,
    Independent,
    Sampler,
    Schedule,
    TreeSampler,
    Uniform,
    accuracy_tree,
    cluster,
    encoding_distances,
    layer_operations,
    layer_tree,
    layer_vectors,
    prefix_distances,
    random_tree,
)
from hotnas_torch.objectives import open_table
from hotnas_torch.plot import plot_hierarchy
from hotnas_torch.search.direct.tree_search import accuracy_rewards, rank_rewards
from hotnas_torch.spaces import NASBenchMacro, SearchSpace

__all__ = ["METHODS", "QUICK", "Settings", "draw", "run"]


METHODS = {
    "hotnn": "MCTS, tree of HOTNN distances",
    "hotnn_prefix": "MCTS, tree of HOTNN distances of prefixes",
    "vector": "MCTS, tree of vectors",
    "vector_exponential": "MCTS, tree of vectors, exponential",
    "one_hot": "MCTS, tree of one-hot codes",
    "one_hot_exponential": "MCTS, tree of one-hot codes, exponential",
    "default": "MCTS, default tree",
    "default_reg": "MCTS, default tree, regularised",
    "random": "MCTS, random tree",
    "oracle": "MCTS, tree of true accuracies (oracle)",
    "independent": "independent layers",
    "boltzmann": "Boltzmann",
    "uniform": "uniform",
}
"""Titles by name."""

_MACRO = "nas-bench-macro/nas-bench-macro_cifar10.json"
_POOLING = "pooling-cifar10-resnet20/pooling36.csv"
_POOLING_NOISE = 0.12
"""Percentage points: the published standard deviations are between 0.06 and 0.19."""

_PRINTED_START = {"nasbench_macro": 0.01, "pooling": 0.02}


CHOICES = {
    "tasks": ("nasbench_macro", "pooling"),
    "methods": tuple(METHODS),
    "constants": ("short", "printed"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        tasks: `"nasbench_macro"` and `"pooling"`.
        methods: Names in `METHODS`.
        constants: `"short"`: what fits some hundred evaluations: rewards by rank, values from
            nothing, lambda 0.3, temperature 0.03 to 0.01, a tenth of warm-up; `"printed"`: the
            paper's, for ten thousands of mini-batches.
        budgets: Evaluations of a search; temperatures fall over each.
        seeds: Searches of each with the `"short"` constants.
        printed_seeds: Searches of each with the `"printed"` ones.
        trees: Whether the trees of HOTNN distances are drawn as well.
        data: Folder of the tables, see `published`.
        storage: Folder where finished searches are kept; the same command goes on from there.
    """

    tasks: tuple[str, ...] = ("nasbench_macro", "pooling")
    methods: tuple[str, ...] = tuple(METHODS)
    constants: tuple[str, ...] = ("short", "printed")
    budgets: tuple[int, ...] = (100, 400)
    seeds: int = 20
    printed_seeds: int = 5
    trees: bool = False
    data: str | None = None
    storage: str = "runs/bench/hierarchy"


QUICK = Settings(tasks=("pooling",), seeds=5, printed_seeds=2, storage="runs/bench/hierarchy-quick")


class _Task:
    """A table with what an evaluation draws from, and ranks over distinct architectures."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.table = open_table(name, folder / (_MACRO if name == "nasbench_macro" else _POOLING))
        self.space = self.table.space
        self.nets = list(self.space)
        evaluations = [self.table(net) for net in self.nets]
        self.error = torch.tensor([found.value for found in evaluations], dtype=torch.float64)
        self.runs: Tensor | None = None
        if name == "nasbench_macro":
            self.runs = 100.0 - torch.tensor(
                [[found.metrics[f"test_acc_{run}"] for run in range(3)] for found in evaluations],
                dtype=torch.float64,
            )
        classes: dict[str, float] = {}
        for net, error in zip(self.nets, self.error.tolist(), strict=True):
            classes.setdefault(_form(self.space, net), error)
        distinct = torch.tensor(sorted(classes.values()), dtype=torch.float64)
        self.num_classes = len(distinct)
        self.rank = 1 + torch.searchsorted(distinct, self.error - 1e-9)
        self.codes = layer_operations(self.space, self.nets)
        self.trees: dict[str, ArchitectureTree] = {}
        self.seconds: dict[str, tuple[float, float]] = {}

    def evaluate(self, place: int, generator: torch.Generator) -> float:
        """Return one of the three runs, or a normal draw where the table has means only."""
        if self.runs is not None:
            return float(self.runs[place, torch.randint(3, (), generator=generator)])
        noise = torch.randn((), generator=generator, dtype=torch.float64)
        return float(self.error[place] + _POOLING_NOISE * noise)

    def tree(self, method: str, seed: int) -> ArchitectureTree:
        if method == "random":
            generator = torch.Generator().manual_seed(seed)
            return random_tree(len(self.nets), generator=generator)
        if method not in self.trees:
            wall, cpu = time.perf_counter(), time.process_time()
            self.trees[method] = self._build(method)
            self.seconds[method] = (time.perf_counter() - wall, time.process_time() - cpu)
        return self.trees[method]

    def distances(self, method: str) -> Tensor:
        hotnn = ht.HOTNN(space=self.space)
        return hotnn(self.nets) if method == "hotnn" else prefix_distances(self.nets, hotnn)

    def _build(self, method: str) -> ArchitectureTree:
        match method:
            case "hotnn" | "hotnn_prefix":
                return cluster(self.distances(method), linkage="ward", check_euclidean=False)
            case "default" | "default_reg":
                return layer_tree(self.codes)
            case "oracle":
                return accuracy_tree(-self.error)
        encoding = "vector" if method.startswith("vector") else "one_hot"
        weights = "exponential" if method.endswith("exponential") else "equal"
        vectors = layer_vectors(self.space, self.nets)
        return cluster(encoding_distances(vectors, encoding, weights=weights))  # type: ignore[arg-type]


def _form(space: SearchSpace, net: Network) -> str:
    return space.functional_form(net).spec if isinstance(space, NASBenchMacro) else net.spec


def _sampler(task: _Task, method: str, constants: str, seed: int) -> Sampler:
    printed = constants == "printed"
    schedule = (
        Schedule(start=_PRINTED_START[task.name])
        if printed
        else Schedule(warm_up=0.1, start=0.03, end=0.01)
    )
    match method:
        case "uniform":
            return Uniform(len(task.nets), schedule=schedule)
        case "boltzmann":
            return Boltzmann(len(task.nets), schedule=schedule)
        case "independent":
            return Independent(task.codes, schedule=schedule)
    return TreeSampler(
        task.tree(method, seed),
        exploration=0.5 if printed else 0.3,
        initial=1.0 if printed else None,
        regularization=0.5 if method == "default_reg" else 0.0,
        schedule=schedule,
    )


def run(settings: Settings) -> Report:
    """Measure."""
    report = Report()
    folder = published(settings.data)
    searches: list[dict[str, Any]] = []
    built: list[dict[str, Any]] = []
    for name in settings.tasks:
        task = _Task(name, folder)
        built += _trees(task, settings)
        searches += _searches(task, settings)
        if settings.trees:
            report.figures[f"tree-{name}"] = _draw_tree(task)
    rows = []
    for constants in settings.constants:
        for name in settings.tasks:
            found = [
                one for one in searches if (one["task"], one["constants"]) == (name, constants)
            ]
            rows += _summarise(found, settings, name, constants)
    for constants in settings.constants:
        for name in settings.tasks:
            some = [row for row in rows if (row["task"], row["constants"]) == (name, constants)]
            report.tables.append(_table(name, constants, some, settings))
    report.tables.append(
        Table(
            "trees",
            "building the trees, distances included, two threads",
            (
                Column("task", "task"),
                Column("method", "tree"),
                Column("nodes", "nodes", number(3)),
                Column("levels", "levels", number(3)),
                Column("wall", "seconds", number(3)),
                Column("cpu", "processor seconds", number(3)),
            ),
            built,
        )
    )
    _claim(report, rows, settings)
    report.notes.append(
        "Rank 1 is the best; over classes that compute the same (3,969 of NAS-Bench-Macro's 6,561"
        " architectures), 36 for Pooling. Chosen: the architecture with the best mean of what was"
        " observed of it. Greedy: the sampler's own final choice, lambda 0. Mean ± standard error"
        " over seeds, in brackets the best seed. An evaluation is one of the three published runs,"
        f" Pooling: the mean plus normal noise of {_POOLING_NOISE} percentage points; the truth is"
        " the mean. The oracle knows the true ranking and is no search."
    )
    return report


def _trees(task: _Task, settings: Settings) -> list[dict[str, Any]]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    rows = []
    for method in settings.methods:
        if method in ("uniform", "boltzmann", "independent", "random"):
            continue
        tree = task.tree(method, 0)
        wall, cpu = task.seconds[method]
        rows.append(
            {
                "task": task.name,
                "method": METHODS[method],
                "nodes": tree.num_nodes,
                "levels": len(tree.levels),
                "wall": wall,
                "cpu": cpu,
            }
        )
    torch.set_num_threads(before)
    return rows


def _searches(task: _Task, settings: Settings) -> list[dict[str, Any]]:
    wanted = [
        {"constants": constants, "method": method, "budget": budget, "seed": seed}
        for constants in settings.constants
        for seed in range(_seeds(settings, constants))
        for method in settings.methods
        for budget in settings.budgets
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = recorded(
        Path(settings.storage) / f"{task.name}.jsonl",
        {"code": code_version("hierarchy", "objectives", "search", "spaces"), "task": task.name},
        wanted,
        lambda key: _search(task, **key),
        title=task.name,
    )
    torch.set_num_threads(before)
    return [{"task": task.name, **one} for one in found]


def _seeds(settings: Settings, constants: str) -> int:
    return settings.printed_seeds if constants == "printed" else settings.seeds


def _search(task: _Task, constants: str, method: str, budget: int, seed: int) -> Mapping[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    sampler = _sampler(task, method, constants, seed)
    rewards: Callable[[Tensor], Tensor] = (
        accuracy_rewards if constants == "printed" else rank_rewards
    )
    places: list[int] = []
    errors: list[float] = []
    for evaluation in range(budget):
        sampler.set_progress(evaluation / budget)
        places.append(int(sampler.sample(1, generator=generator)))
        errors.append(task.evaluate(places[-1], generator))
        # Ranks of old rewards move with every new one; accuracies do not.
        since = 0 if rewards is rank_rewards else evaluation
        if since == 0:
            sampler.reset()
        sampler.set_progress(1.0)
        rewarded = rewards(torch.tensor(errors, dtype=torch.float64))
        sampler.update(torch.tensor(places[since:]), rewarded[since:])
    seen = sorted(set(places))
    observed: dict[int, list[float]] = {place: [] for place in seen}
    for place, error in zip(places, errors, strict=True):
        observed[place].append(error)
    chosen = min(seen, key=lambda place: statistics.fmean(observed[place]))
    greedy = int(sampler.best(1, generator=generator))
    return {
        "chosen": int(task.rank[chosen]),
        "greedy": int(task.rank[greedy]),
        "error": float(task.error[chosen]),
        "distinct": len(seen),
        "sampled": [round(float(task.error[place]), 4) for place in places],
    }


def _summarise(
    found: list[dict[str, Any]], settings: Settings, task: str, constants: str
) -> list[dict[str, Any]]:
    rows = []
    for method in settings.methods:
        row: dict[str, Any] = {"task": task, "constants": constants, "method": method}
        row["title"] = METHODS[method]
        for budget in settings.budgets:
            some = [one for one in found if _is(one, method, budget)]
            if not some:
                continue
            for kind in ("chosen", "greedy"):
                ranks = [one[kind] for one in some]
                row[f"{kind}_{budget}"] = statistics.fmean(ranks)
                row[f"{kind}_{budget}_error"] = standard_error(ranks)
                row[f"{kind}_{budget}_best"] = min(ranks)
                row[f"{kind}_{budget}_text"] = f"{mean_and_error(ranks, 1)} ({min(ranks)})"
            default = [one["greedy"] for one in found if _is(one, "default", budget)]
            row[f"p_{budget}"] = paired(ranks, default) if len(ranks) == len(default) else None
            row[f"accuracy_{budget}"] = 100.0 - statistics.fmean(one["error"] for one in some)
            row[f"sampled_{budget}"] = 100.0 - statistics.fmean(
                statistics.fmean(one["sampled"][-max(1, budget // 5) :]) for one in some
            )
            row[f"curve_{budget}"] = [
                round(100.0 - statistics.fmean(step), 4)
                for step in zip(*(one["sampled"] for one in some), strict=True)
            ]
        if len(row) > 4:
            rows.append(row)
    return rows


def _is(one: Mapping[str, Any], method: str, budget: int) -> bool:
    return (one["method"], one["budget"]) == (method, budget)


def _table(task: str, constants: str, rows: list[dict[str, Any]], settings: Settings) -> Table:
    columns = [Column("title", "method")]
    for budget in settings.budgets:
        columns += [
            Column(f"chosen_{budget}_text", f"rank chosen after {budget}", str),
            Column(f"greedy_{budget}_text", f"of greedy after {budget}", str),
            Column(f"p_{budget}", "p beside default", number(2)),
            Column(f"accuracy_{budget}", "chosen, %", "{:.2f}".format),
            Column(f"sampled_{budget}", "last fifth sampled, %", "{:.2f}".format),
        ]
    title = f"{task}, {constants} constants, {_seeds(settings, constants)} seeds"
    return Table(f"{task}-{constants}", title, columns, rows)


def _claim(report: Report, rows: list[dict[str, Any]], settings: Settings) -> None:
    by = {(row["task"], row["method"]): row for row in rows if row["constants"] == "short"}
    for task in settings.tasks:
        for budget in settings.budgets:
            for rival in ("default", "random", "uniform"):
                if (task, rival) not in by:
                    continue
                for learned in ("hotnn", "hotnn_prefix"):
                    if (task, learned) not in by:
                        continue
                    ours = by[task, learned][f"chosen_{budget}"]
                    theirs = by[task, rival][f"chosen_{budget}"]
                    report.claims.append(
                        Claim(
                            f"{task}, {budget} evaluations: mean rank of {METHODS[learned]!r}"
                            f" beside {METHODS[rival]!r}",
                            "<=",
                            theirs,
                            ours,
                        )
                    )
    for row in report.tables[-1].rows:
        if row["method"] in (METHODS["hotnn"], METHODS["hotnn_prefix"]):
            text = (
                f"{row['task']}: processor seconds to build the {row['method'].partition(', ')[2]}"
            )
            report.claims.append(Claim(text, "<=", 60.0, row["cpu"]))


def draw(report: Report) -> Figure:
    """Draw the mean true accuracy of what is sampled, as in Fig. 3 of the paper."""
    tables = [table for table in report.tables if table.name.endswith("-short")]
    figure, panels = canvas(max(len(tables), 1), width=6.4, height=5.0)
    shown = (
        "hotnn",
        "hotnn_prefix",
        "vector_exponential",
        "default",
        "default_reg",
        "random",
        "independent",
    )
    for axes, table in zip(panels, tables, strict=False):
        rows = {row["method"]: row for row in table.rows}
        for place, method in enumerate((*shown, "uniform")):
            if method not in rows:
                continue
            name = max((key for key in rows[method] if key.startswith("curve_")), key=_budget)
            curve = torch.tensor(rows[method][name], dtype=torch.float64)
            width = max(1, len(curve) // 20)
            smooth = curve.unfold(0, width, 1).mean(dim=1)
            axes.plot(
                range(width, len(curve) + 1),
                smooth,
                color="#999999" if method == "uniform" else COLOURS[place],
                label=METHODS[method],
                linewidth=2.0 if method == "hotnn" else 1.5,
            )
        axes.set_title(table.name.removesuffix("-short"))
        axes.set_xlabel("evaluation", color=INK)
        axes.set_ylabel("accuracy of what is sampled, %, mean over seeds", color=INK)
    handles, names = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9
        )
    return figure


def _budget(name: str) -> int:
    return int(name.rpartition("_")[2])


def _draw_tree(task: _Task) -> Figure:
    """The tree of HOTNN distances, coloured by true accuracy, which it does not know."""
    method = "hotnn_prefix" if task.name == "nasbench_macro" else "hotnn"
    return plot_hierarchy(
        task.tree(method, 0),
        task.distances(method),
        values=100.0 - task.error,
        labels=[net.spec for net in task.nets],
        title=f"{task.name}: {METHODS[method].partition(', ')[2]}",
        value_label="mean accuracy below, %",
        by_level=True,
    )
