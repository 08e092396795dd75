"""How fast are barycenters of graphs beside POT's, and how good?"""

import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ot as pot
import torch
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.timing import Contender, alternate

__all__ = ["QUICK", "Settings", "run"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        graphs: Graphs of a group.
        nodes: Nodes of a graph, and of the barycenter.
        groups: Groups of each kind, which ours gets at once.
        rounds: Turns of each solver.
        seed: Of the graphs.
    """

    graphs: int = 50
    nodes: int = 20
    groups: int = 8
    rounds: int = 3
    seed: int = 0


QUICK = Settings(graphs=20, nodes=10, groups=2, rounds=1)

_Group = tuple[Tensor, Tensor]


def _shuffled(struct: Tensor, features: Tensor, generator: torch.Generator) -> _Group:
    order = torch.randperm(len(struct), generator=generator)
    return struct[order][:, order], features[order]


def _circle(nodes: int, generator: torch.Generator) -> _Group:
    """A circle with four chords: path lengths; one feature, a noisy sine along it."""
    place = torch.arange(nodes, dtype=torch.float64)
    apart = (place[:, None] - place).abs()
    length = torch.minimum(apart, nodes - apart)
    for _ in range(4):
        i, j = torch.randint(nodes, (2,), generator=generator).tolist()
        via = length[:, i, None] + 1 + length[j]
        length = torch.minimum(length, torch.minimum(via, via.T))
    noise = torch.randn(nodes, generator=generator, dtype=torch.float64)
    level = (2 * torch.pi * place / nodes).sin() + 0.3 * noise
    return _shuffled(length, level[:, None], generator)


def _blocks(nodes: int, generator: torch.Generator) -> _Group:
    """Four communities: edges; one feature, the noisy number of the community."""
    member = torch.arange(nodes) * 4 // nodes
    chance = torch.where(member[:, None] == member, 0.8, 0.1)
    edges = (torch.rand(nodes, nodes, generator=generator) < chance).double().triu(1)
    noise = torch.randn(nodes, generator=generator, dtype=torch.float64)
    return _shuffled(edges + edges.T, (member + 0.5 * noise)[:, None], generator)


def _cloud(nodes: int, generator: torch.Generator) -> _Group:
    """Uniform points in a square, which have nothing in common: distances; uniform features."""
    points = torch.rand(nodes, 2, generator=generator, dtype=torch.float64)
    features = torch.rand(nodes, 2, generator=generator, dtype=torch.float64)
    return torch.cdist(points, points), features


_KINDS: dict[str, Callable[[int, torch.Generator], _Group]] = {
    "noisy circles": _circle,
    "noisy communities": _blocks,
    "random points": _cloud,
}


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(settings.seed)
    rows: list[dict[str, Any]] = []
    for kind, draw in _KINDS.items():
        groups = [
            [draw(settings.nodes, generator) for _ in range(settings.graphs)]
            for _ in range(settings.groups)
        ]
        structs, features = (
            torch.stack([torch.stack([graph[part] for graph in group]) for group in groups])
            for part in (0, 1)
        )
        rows += _measure(kind, structs, features, settings)
    claims = []
    for kind in _KINDS:
        one, three, theirs = (row for row in rows if row["kind"] == kind)
        claims.append(Claim(f"{kind}: 1 start, times POT's rate", ">=", 30, one["times"]))
        for starts, row in (("1 start", one), ("3 starts", three)):
            over = row["objective"] / theirs["objective"]
            claims.append(Claim(f"{kind}: objective of {starts} over POT's", "<=", 1.0, over))
    columns = [
        Column("kind", "graphs"),
        Column("solver", "solver"),
        Column("rate", "barycenters/s", number()),
        Column("times", "times POT's", number()),
        Column("objective", "mean objective", number(4)),
        Column("rounds", "mean rounds", number()),
    ]
    title = (
        f"Barycenters of {settings.graphs} graphs, {settings.nodes} nodes, features and structure,"
        " square loss, alpha 0.5, float64, one thread"
    )
    report = Report(tables=[Table("barycenters", title, columns, rows)], claims=claims)
    report.notes.append(
        "Both with their defaults, POT from its random start. Objectives are those of the graphs"
        " found, with the better of two solvers' couplings for POT's."
    )
    return report


def _measure(
    kind: str, structs: Tensor, features: Tensor, settings: Settings
) -> list[dict[str, Any]]:
    nodes = settings.nodes
    theirs: list[tuple[Tensor, Tensor, int]] = []

    def of_pot() -> None:
        theirs.clear()
        for struct, level in zip(structs.numpy(), features.numpy(), strict=True):
            found, graph, log = pot.gromov.fgw_barycenters(
                nodes, list(level), list(struct), alpha=0.5, log=True, random_state=0
            )
            rounds = len(log["err_feature"])
            theirs.append((torch.as_tensor(found), torch.as_tensor(graph), rounds))

    contenders = [
        Contender(
            f"ht.ot.fgw_barycenter, {starts} start{'s' * (starts > 1)}",
            lambda starts=starts: ht.ot.fgw_barycenter(  # type: ignore[misc]
                structs, features, nodes=nodes, num_starts=starts
            ),
            len(structs),
        )
        for starts in (1, 3)
    ]
    contenders.append(Contender("POT fgw_barycenters", of_pot, len(structs)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rates = alternate(contenders, rounds=settings.rounds, seconds=0.0)
        found = [
            ht.ot.fgw_barycenter(structs, features, nodes=nodes, num_starts=starts)
            for starts in (1, 3)
        ]
        values = [
            float(_worth(graph, level, struct, feature))
            for (level, graph, _), struct, feature in zip(theirs, structs, features, strict=True)
        ]
    ends = [(float(r.objective.mean()), float(r.iterations.double().mean())) for r in found]
    ends.append((statistics.fmean(values), statistics.fmean(end[2] for end in theirs)))
    peer = rates[contenders[-1].name]
    return [
        {
            "kind": kind,
            "solver": contender.name,
            "rate": rates[contender.name].median,
            "rates": list(rates[contender.name].values),
            "times": rates[contender.name].over(peer),
            "objective": objective,
            "rounds": rounds,
        }
        for contender, (objective, rounds) in zip(contenders, ends, strict=True)
    ]


def _worth(graph: Tensor, level: Tensor, structs: Tensor, features: Tensor) -> Tensor:
    """Mean distance of a graph from a group, by the better of two starts."""
    cost = (level[None, :, None] - features[:, None]).square().sum(-1)
    values = [
        ht.ot.fgw(cost, graph, structs, alpha=0.5, loss="l2", init=init).objective
        for init in ("product", None)
    ]
    return torch.minimum(*values).mean()
