"""Which samplers find good networks of 13^21 within a budget, where rewards are simulated?"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.statistics import mean_and_error
from hotnas_torch.hierarchy import (
    Boltzmann,
    Independent,
    Sampler,
    Schedule,
    TreeSampler,
    Uniform,
    cluster,
    encoding_distances,
    layer_tree,
    output_distances,
    random_tree,
)
from hotnas_torch.nn import CostTable, MobileNetSupernet

__all__ = ["METHODS", "QUICK", "Settings", "run"]

METHODS = {
    "learned": "MCTS, tree of simulated outputs",
    "one_hot": "MCTS, tree of one-hot codes, exponential",
    "default": "MCTS, default tree",
    "added": "MCTS, default tree, rewards added",
    "averaged": "MCTS, default tree, rewards averaged",
    "random": "MCTS, random tree",
    "independent": "independent layers",
    "boltzmann": "Boltzmann",
    "uniform": "uniform",
}
"""Titles by name."""

_IMAGES, _CLASSES = 32, 10
_DISCOUNT = 0.93
_INTERACTION = 0.5
_NOISE = 0.05
_SHARPNESS = 1.5


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        methods: Names in `METHODS`.
        networks: Networks that a search chooses among, drawn within the budget.
        steps: Rewards of a search.
        seeds: Simulated tasks, a search of each method on each.
        rejected: Uniform draws that are compared with the budget.
        budget: Most multiply-adds, in millions; the least is 0.99 times it.
        image_size: Pixels of a side.
    """

    methods: tuple[str, ...] = tuple(METHODS)
    networks: int = 2_000
    steps: int = 2_000
    seeds: int = 5
    rejected: int = 20_000
    budget: float = 280.0
    image_size: int = 224


QUICK = Settings(networks=300, steps=300, seeds=1, rejected=2_000)


def run(settings: Settings) -> Report:
    """Draw networks within the budget, and search among them."""
    supernet = MobileNetSupernet(
        width=1.0, normalization="running", generator=torch.Generator().manual_seed(0)
    )
    started = time.perf_counter()
    table = CostTable(supernet, image_size=settings.image_size)
    of_table = time.perf_counter() - started
    most = settings.budget * 1e6
    generator = torch.Generator().manual_seed(1)
    started = time.perf_counter()
    paths = table.within(most, least=0.99 * most).sample(
        settings.networks, generator=generator, distinct=True
    )
    exact = time.perf_counter() - started
    cost = table.of_paths(paths).multiply_adds
    inside = bool(((cost >= 0.99 * most) & (cost <= most)).all())
    num_choices = [layer.num_choices for layer in supernet.layers]  # type: ignore[union-attr]
    free = torch.stack(
        [torch.randint(num, (settings.rejected,), generator=generator) for num in num_choices], 1
    )
    cost = table.of_paths(free).multiply_adds
    kept = int(((cost >= 0.99 * most) & (cost <= most)).sum())
    rows: list[dict[str, Any]] = []
    for seed in range(settings.seeds):
        task = _Task(paths, torch.Generator().manual_seed(100 + seed))
        rows += [_search(task, method, settings.steps, seed) for method in settings.methods]
    return Report(
        tables=[
            Table(
                "draws",
                f"Networks with {0.99 * settings.budget:g} to {settings.budget:g} million"
                " multiply-adds",
                (
                    Column("how", "how"),
                    Column("drawn", "drawn", number()),
                    Column("kept", "within the budget", number()),
                    Column("seconds", "s", number()),
                ),
                [
                    {
                        "how": "exact",
                        "drawn": len(paths),
                        "kept": len(paths),
                        "seconds": exact,
                    },
                    {"how": "uniform, kept if inside", "drawn": len(free), "kept": kept},
                    {"how": "(the table of costs)", "seconds": of_table},
                ],
            ),
            Table(
                "searches",
                f"Searches of {settings.steps} simulated rewards among {len(paths)} networks,"
                f" {settings.seeds} tasks: mean ± standard error",
                (
                    Column("method", "method"),
                    Column("rank", "rank of the choice", str),
                    Column("regret", "regret, percent", str),
                    Column("seconds", "s", number()),
                ),
                [
                    {
                        "method": METHODS[method],
                        "rank": mean_and_error([row["rank"] for row in found], 1),
                        "regret": mean_and_error([100 * row["regret"] for row in found], 2),
                        "seconds": sum(row["seconds"] for row in found) / len(found),
                    }
                    for method in settings.methods
                    for found in [[row for row in rows if row["method"] == method]]
                ],
            ),
            Table(
                "each",
                "Every search",
                (
                    Column("method", "method"),
                    Column("seed", "task", number()),
                    Column("rank", "rank", number()),
                    Column("regret", "regret", number()),
                ),
                rows,
            ),
        ],
        claims=[Claim("share of exact draws within the budget", ">=", 1.0, float(inside))],
    )


class _Task:
    """A teacher whose outputs are sums over layers and over pairs of neighbours.

    A network's reward is the mean probability of the true class on some images, with normal noise
    for each mini-batch. Early layers count more, as in the paper's argument for its hierarchy.
    """

    def __init__(self, paths: Tensor, generator: torch.Generator) -> None:
        num_layers, num_choices = paths.shape[1], int(paths.max()) + 1
        size = _IMAGES * _CLASSES
        logits = torch.zeros(len(paths), size, dtype=torch.float64)
        for layer in range(num_layers):
            scale = _DISCOUNT**layer
            own = torch.randn(num_choices, size, generator=generator, dtype=torch.float64)
            logits += scale * own[paths[:, layer]]
            if layer:
                both = torch.randn(num_choices**2, size, generator=generator, dtype=torch.float64)
                pair = paths[:, layer - 1] * num_choices + paths[:, layer]
                logits += _INTERACTION * scale * both[pair]
        logits *= _SHARPNESS / logits.std()
        labels = torch.randint(_CLASSES, (_IMAGES,), generator=generator)
        self.paths = paths
        self.outputs = logits.reshape(len(paths), _IMAGES, _CLASSES)
        true = self.outputs.softmax(-1)[:, torch.arange(_IMAGES), labels].mean(1)
        self.reward = true
        self.rank = 1 + (true[None] > true[:, None]).sum(1)

    def sampler(self, method: str, steps: int) -> Sampler:
        del steps
        # As `TreeSearch`: what fits some thousand rewards instead of ten thousands.
        schedule = Schedule(warm_up=0.1, start=0.03, end=0.01)
        num = len(self.paths)
        if method == "uniform":
            return Uniform(num, schedule=schedule)
        if method == "boltzmann":
            return Boltzmann(num, initial=0.0, schedule=schedule)
        if method == "independent":
            return Independent(self.paths, schedule=schedule)
        if method == "learned":
            tree = cluster(output_distances(self.outputs, "kl"), linkage="average")
        elif method == "one_hot":
            tree = cluster(
                encoding_distances(self.paths, "one_hot", weights="exponential"), linkage="average"
            )
        elif method == "random":
            tree = random_tree(num, generator=torch.Generator().manual_seed(7))
        else:
            tree = layer_tree(self.paths)
        return TreeSampler(
            tree,
            initial=None,
            exploration=0.3,
            regularization=0.5 if method in ("added", "averaged") else 0.0,
            communication="averaged" if method == "averaged" else "added",
            schedule=schedule,
        )


def _search(task: _Task, method: str, steps: int, seed: int) -> dict[str, Any]:
    started = time.perf_counter()
    sampler = task.sampler(method, steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        sampler.set_progress(step / steps)
        drawn = sampler.sample(1, generator=generator)
        noise = _NOISE * torch.randn(1, generator=generator, dtype=torch.float64)
        sampler.update(drawn, (task.reward[drawn] + noise).clamp(0.0, 1.0))
    sampler.set_progress(1.0)
    chosen = int(sampler.best(1, generator=generator))
    return {
        "method": method,
        "seed": seed,
        "rank": int(task.rank[chosen]),
        "regret": float(task.reward.max() - task.reward[chosen]),
        "seconds": time.perf_counter() - started,
    }
