"""Do template graphs learn as much as POT's layer, and how much faster?"""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring.report import Claim, Column, Report, Table, Unavailable, number

__all__ = ["QUICK", "Settings", "run"]

_COMMUNITIES = (1, 2, 3, 4)
_DEGREE = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        graphs: Graphs to learn from, and as many to test on.
        nodes: Least and most nodes of a graph.
        templates: Templates of the layer.
        template_nodes: Nodes of a template.
        epochs: Passes over the graphs.
        batch: Graphs of a step.
        rate: Step size of Adam.
        seeds: Repetitions, each with graphs, templates and orders of its own.
    """

    graphs: int = 120
    nodes: tuple[int, int] = (12, 20)
    templates: int = 6
    template_nodes: int = 8
    epochs: int = 30
    batch: int = 30
    rate: float = 0.02
    seeds: int = 10


QUICK = Settings(graphs=40, epochs=4, seeds=1)


@dataclass(frozen=True, slots=True)
class _Graphs:
    structs: list[Tensor]
    features: list[Tensor]
    classes: Tensor


def _draw(count: int, nodes: tuple[int, int], generator: torch.Generator) -> _Graphs:
    """Graphs of 1 to 4 communities, of the same mean degree; features are noise and the degree."""
    structs, features = [], []
    classes = torch.arange(count) % len(_COMMUNITIES)
    for kind in classes.tolist():
        size = int(torch.randint(nodes[0], nodes[1] + 1, (), generator=generator))
        groups = _COMMUNITIES[kind]
        member = torch.arange(size) % groups
        same = member[:, None] == member
        outside = 0.04 * (groups > 1)
        inside = (_DEGREE - outside * size * (1 - 1 / groups)) / (size / groups)
        chance = torch.where(same, min(inside, 1.0), outside)
        edges = (torch.rand(size, size, generator=generator) < chance).float().triu(1)
        struct = edges + edges.T
        for lonely in (struct.sum(1) == 0).nonzero().flatten().tolist():
            # POT's layer wants every node on an edge.
            other = (lonely + groups) % size
            struct[lonely, other] = struct[other, lonely] = 1.0
        order = torch.randperm(size, generator=generator)
        structs.append(struct[order][:, order])
        level = structs[-1].sum(1, keepdim=True) / _DEGREE
        features.append(torch.cat([level, torch.rand(size, 1, generator=generator)], dim=1))
    return _Graphs(structs, features, classes)


def run(settings: Settings) -> Report:
    """Train both layers on the same graphs, from the same templates, in the same order.

    Raises:
        Unavailable: torch_geometric, which POT's layer needs, is not installed.
    """
    try:
        import torch_geometric as _  # noqa: F401
    except ImportError as error:
        raise Unavailable("POT's layer needs torch_geometric (pip install torch_geometric)") from (
            error
        )
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for seed in range(settings.seeds):
        generator = torch.Generator().manual_seed(seed)
        train, test = (_draw(settings.graphs, settings.nodes, generator) for _ in range(2))
        first = _ours(settings, seed)
        for name, layer in (("ht.nn.FGWTemplates", _ours(settings, seed)), ("POT", _pot(first))):
            rows.append({"seed": seed, "layer": name} | _learn(layer, train, test, settings, seed))
    names = list(dict.fromkeys(row["layer"] for row in rows))
    means = [
        {"layer": name}
        | {
            key: statistics.fmean(row[key] for row in rows if row["layer"] == name)
            for key in ("accuracy", "trained", "loss", "seconds")
        }
        for name in names
    ]
    pairs = rows[::2], rows[1::2]
    faster = statistics.median(
        theirs["seconds"] / ours["seconds"] for ours, theirs in zip(*pairs, strict=True)
    )
    apart = [ours["accuracy"] - theirs["accuracy"] for ours, theirs in zip(*pairs, strict=True)]
    error = statistics.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else float("nan")
    shown = [
        Column("layer", "layer"),
        Column("accuracy", "test accuracy", number()),
        Column("trained", "training accuracy", number()),
        Column("loss", "last loss", number()),
        Column("seconds", "training, CPU s", number()),
    ]
    report = Report()
    report.tables += [
        Table(
            "templates",
            f"{len(_COMMUNITIES)} classes of graphs by their communities, mean of"
            f" {settings.seeds} seeds, one thread, float32",
            shown,
            means,
        ),
        Table("seeds", "Each seed", [Column("seed", "seed"), *shown], rows),
    ]
    report.claims += [
        Claim("training, times as fast as POT's layer", ">=", 20, faster),
        Claim(
            "test accuracy above that of POT's layer",
            ">=",
            -0.02,
            statistics.fmean(apart),
        ),
    ]
    report.notes.append(
        "Distances to templates, batch normalisation and a linear layer, trained end to end by"
        " Adam: templates, their masses and alpha as well. Both layers start from the same numbers"
        " and see the same graphs in the same order; POT's layer gets edges, ours matrices."
        f" Paired by seed, the accuracy is {statistics.fmean(apart):+.3f} beside POT's, standard"
        f" error {error:.3f}."
    )
    return report


def _ours(settings: Settings, seed: int) -> ht.nn.FGWTemplates:
    generator = torch.Generator().manual_seed(100 + seed)
    return ht.nn.FGWTemplates(
        settings.templates, settings.template_nodes, 2, max_iter=50, generator=generator
    )


class _POTLayer(torch.nn.Module):
    """POT's layer on lists of graphs."""

    def __init__(self, like: ht.nn.FGWTemplates) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ot.gnn import TFGWPooling
        num_templates, nodes = like.mass_logits.shape
        with torch.random.fork_rng():
            self.layer = TFGWPooling(2, num_templates, nodes)
        assert like.features is not None
        self.layer.tplt_adjacencies.data = like.struct.detach().clone()
        self.layer.tplt_features.data = like.features.detach().clone()

    def forward(self, structs: Sequence[Tensor], features: Sequence[Tensor]) -> Tensor:
        edges, owner, before = [], [], 0
        for place, struct in enumerate(structs):
            edges.append(struct.nonzero().T + before)
            owner.append(torch.full((len(struct),), place))
            before += len(struct)
        found: Tensor = self.layer(torch.cat(list(features)), torch.cat(edges, 1), torch.cat(owner))
        return found


def _pot(like: ht.nn.FGWTemplates) -> torch.nn.Module:
    return _POTLayer(like)


def _learn(
    layer: torch.nn.Module, train: _Graphs, test: _Graphs, settings: Settings, seed: int
) -> dict[str, float]:
    generator = torch.Generator().manual_seed(200 + seed)
    normal = torch.nn.BatchNorm1d(settings.templates)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = torch.nn.Linear(settings.templates, len(_COMMUNITIES))
    modules = torch.nn.ModuleList([layer, normal, head])
    optimizer = torch.optim.Adam(modules.parameters(), lr=settings.rate)

    def scores(graphs: _Graphs, which: Sequence[int]) -> Tensor:
        structs = [graphs.structs[place] for place in which]
        found: Tensor = head(normal(layer(structs, [graphs.features[place] for place in which])))
        return found

    started = time.process_time()
    loss = torch.zeros(())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(settings.epochs):
            order = torch.randperm(len(train.classes), generator=generator)
            for which in order.split(settings.batch):
                optimizer.zero_grad()
                found = scores(train, which.tolist())
                loss = torch.nn.functional.cross_entropy(found, train.classes[which])
                loss.backward()
                optimizer.step()
        seconds = time.process_time() - started
        modules.eval()
        accuracy: Callable[[_Graphs], float] = lambda graphs: float(  # noqa: E731
            (scores(graphs, range(len(graphs.classes))).argmax(1) == graphs.classes).float().mean()
        )
        with torch.no_grad():
            return {
                "accuracy": accuracy(test),
                "trained": accuracy(train),
                "loss": loss.item(),
                "seconds": seconds,
            }
