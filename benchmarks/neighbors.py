"""How much of a matrix do nearest neighbours, and networks that are added, need?"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import hotnas_torch as ht
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from hotnas_torch.arch import Network
from hotnas_torch.distances._tables.cell_tables import CellTables
from hotnas_torch.spaces import SearchSpace

__all__ = ["QUICK", "Settings", "run"]


SHARE_TARGET = 0.1
NAMED = "nasbench201"


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        spaces: Search spaces.
        networks: Networks of each space.
        neighbors: How many nearest ones each gets.
        added: Networks that come to a matrix of as many as `networks`.
        whole: Whether all 15,625 networks of NAS-Bench-201 are compared, too.
        seed: Of the networks.
    """

    spaces: tuple[str, ...] = (NAMED, "nasbench101", "darts")
    networks: int = 1000
    neighbors: int = 5
    added: int = 50
    whole: bool = True
    seed: int = 0


QUICK = Settings(networks=100, added=10, whole=False)


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(settings.seed)
    near: list[dict[str, Any]] = []
    grown: list[dict[str, Any]] = []
    for name in settings.spaces:
        space = ht.spaces.get(name)
        number_of = settings.networks + settings.added
        networks = space.sample(number_of, generator=generator, distinct=True)
        near.append(_neighbors(space, networks[: settings.networks], settings.neighbors))
        grown.append(_grown(space, networks, settings.added))
    if settings.whole:
        space = ht.spaces.get(NAMED)
        every = torch.cartesian_prod(*[torch.arange(5.0, dtype=torch.float64)] * 6)
        near.append(_neighbors(space, space.decode(every), settings.neighbors))
    report = Report()
    report.tables += [
        Table(
            "neighbors",
            f"The {settings.neighbors} nearest of each network, and the whole matrix; one thread",
            (
                Column("space", "space"),
                Column("networks", "networks", number()),
                Column("cells", "distinct cells", number()),
                Column("matrix", "matrix, CPU s", number()),
                Column("neighbors", "neighbours, CPU s", number()),
                Column("times", "times as fast", number()),
                Column("share", "pairs of cells solved / all", number()),
                Column("equal", "equal to the bit"),
            ),
            near,
        ),
        Table(
            "grown",
            f"A matrix to which {settings.added} networks are added; one thread",
            (
                Column("space", "space"),
                Column("networks", "networks", number()),
                Column("anew", "anew, CPU s", number()),
                Column("known", "grown, CPU s", number()),
                Column("times", "times as fast", number()),
                Column("equal", "equal to the bit"),
            ),
            grown,
        ),
    ]
    for row in near:
        where = f"{row['networks']:,} {row['space']} networks"
        report.claims.append(Claim(f"{where}: results differ", "<=", 0, float(not row["equal"])))
        if row["space"] == NAMED:
            report.claims.append(
                Claim(f"{where}: share of pairs solved", "<=", SHARE_TARGET, row["share"])
            )
    report.claims += [
        Claim(f"{row['space']}, grown: results differ", "<=", 0, float(not row["equal"]))
        for row in grown
    ]
    report.notes.append(
        "Each pair of the matrix is solved once, and neighbours are looked for row by row, so that"
        " a pair may be solved for either of its networks."
    )
    return report


def _neighbors(space: SearchSpace, networks: list[Network], k: int) -> dict[str, Any]:
    solved: list[int] = []
    solve = CellTables.solve

    def counted(tables: CellTables, small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
        solved.append(len(small))
        return solve(tables, small, large)

    CellTables.solve = counted  # type: ignore[method-assign]
    try:
        metric = ht.HOTNN(space=space)
        found, seconds = _timed(lambda: metric.neighbors(networks, k))
        pruned = sum(solved)
        solved.clear()
        matrix, whole = _timed(lambda: metric(networks))
        pairs = sum(solved)
    finally:
        CellTables.solve = solve  # type: ignore[method-assign]
    expected, places = matrix.fill_diagonal_(torch.inf).sort(dim=1, stable=True)
    return {
        "space": space.name,
        "networks": len(networks),
        "cells": len({cell.key for net in networks for cell in net.cells}),
        "matrix": whole,
        "neighbors": seconds,
        "times": whole / seconds,
        "share": pruned / pairs,
        "equal": torch.equal(found.distances, expected[:, :k])
        and torch.equal(found.indices, places[:, :k]),
    }


def _grown(space: SearchSpace, networks: list[Network], added: int) -> dict[str, Any]:
    metric = ht.HOTNN(space=space)
    with tempfile.TemporaryDirectory() as folder:
        earlier, anew, grown = (Path(folder, name) for name in ("a.npz", "b.npz", "c.npz"))
        metric.gram(networks[:-added], out=earlier, progress=False)
        expected, whole = _timed(lambda: metric.gram(networks, out=anew, progress=False))
        found, seconds = _timed(
            lambda: metric.gram(networks, out=grown, known=earlier, progress=False)
        )
    return {
        "space": space.name,
        "networks": len(networks),
        "anew": whole,
        "known": seconds,
        "times": whole / seconds,
        "equal": torch.equal(found, expected),
    }


def _timed(call: Any) -> tuple[Any, float]:
    began = time.process_time()
    result = call()
    return result, time.process_time() - began
