"""Who is faster on sums over the nodes of ragged graphs, torch itself or torch_scatter?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring.report import Claim, Column, Report, Table, Unavailable, number
from benchmarks.measuring.timing import Contender, alternate
from hotnas_torch.segments import Implementation, segment_logsumexp, segment_max, segment_sum

__all__ = ["QUICK", "Settings", "run"]

Reduction = Callable[[Implementation], Tensor]
_IMPLEMENTATIONS: tuple[Implementation, ...] = ("torch", "torch_scatter")
_WORST = 0.9
"""How much slower the default may be than the other one: what is within noise."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        graphs: Graphs of each batch.
        nodes: Most nodes of a graph; each has 1 to so many.
        device: Where.
        rounds: Turns of each.
        seconds: Least processor time of a turn.
        seed: Of the graphs.
    """

    graphs: tuple[int, ...] = (100, 10_000)
    nodes: int = 15
    device: str = "cpu"
    rounds: int = 15
    seconds: float = 0.05
    seed: int = 0


QUICK = Settings(graphs=(100,), rounds=3, seconds=0.01)


def run(settings: Settings) -> Report:
    """Measure both, in turns, on the reductions that the library has.

    Raises:
        Unavailable: torch_scatter is not installed.
    """
    try:
        segment_sum(torch.ones(1), torch.tensor([0]), 1, implementation="torch_scatter")
    except ImportError as error:
        raise Unavailable(str(error)) from error
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(settings.seed)
    rows: list[dict[str, Any]] = []
    report = Report()
    for graphs in settings.graphs:
        for name, reduce in _reductions(graphs, settings, generator).items():
            first, second = (reduce(each) for each in _IMPLEMENTATIONS)
            if not torch.allclose(first, second):
                raise AssertionError(f"{name}: the two differ")
            rates = alternate(
                [
                    Contender(each, lambda r=reduce, e=each: r(e), graphs)
                    for each in _IMPLEMENTATIONS
                ],  # type: ignore[misc]
                rounds=settings.rounds,
                seconds=settings.seconds,
            )
            ratio = rates["torch"].over(rates["torch_scatter"])
            rows.append(
                {
                    "reduction": name,
                    "graphs": graphs,
                    "torch": rates["torch"].median,
                    "torch_scatter": rates["torch_scatter"].median,
                    "ratio": ratio,
                }
            )
    report.tables.append(
        Table(
            "segments",
            f"Graphs per processor second, one thread, {settings.device}",
            (
                Column("reduction", "reduction"),
                Column("graphs", "graphs", number()),
                Column("torch", "torch", number()),
                Column("torch_scatter", "torch_scatter", number()),
                Column("ratio", "torch over torch_scatter", number(2)),
            ),
            rows,
        )
    )
    if settings.device == "cpu":
        least = min(row["ratio"] for row in rows)
        report.claims.append(
            Claim("the default on a CPU, torch, over torch_scatter, least", ">=", _WORST, least)
        )
    return report


def _reductions(
    graphs: int, settings: Settings, generator: torch.Generator
) -> dict[str, Reduction]:
    """What is reduced where: labels, degrees by layer, plans by pair, scores of children."""
    sizes = torch.randint(1, settings.nodes + 1, (graphs,), generator=generator)
    nodes = int(sizes.sum())
    owner = torch.arange(graphs).repeat_interleave(sizes).to(settings.device)
    source = torch.randint(nodes, (3 * nodes,), generator=generator).to(settings.device)
    hashes = torch.randint(2**62, (3 * nodes,), generator=generator).to(settings.device)
    scores = torch.randn(nodes, generator=generator, dtype=torch.float64).to(settings.device)
    hops = torch.randint(8, (graphs, settings.nodes), generator=generator).to(settings.device)
    degrees = torch.rand(graphs, settings.nodes, generator=generator).to(settings.device)
    return {
        "labels of neighbours (int64, sum)": lambda who: segment_sum(
            hashes, source, nodes, implementation=who
        ),
        "degrees by layer (rows, sum)": lambda who: segment_sum(
            degrees, hops, 8, dim=1, implementation=who
        ),
        "scores of a graph (max)": lambda who: segment_max(
            scores, owner, graphs, implementation=who
        ),
        "scores of a graph (log-sum-exp)": lambda who: segment_logsumexp(
            scores, owner, graphs, implementation=who
        ),
    }
