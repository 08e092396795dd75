"""How long do Gram matrices take, and how much memory?"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import hotnas_torch as ht
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.machine import Load, peak_memory, processors
from benchmarks.measuring.process import in_process
from benchmarks.measuring.report import Claim, Column, Report, Table, number

__all__ = ["QUICK", "Settings", "draw", "run"]


SECONDS_TARGET = 15.0
SECONDS_NETWORKS = 2000
EXTRA_MEMORY = 2**30
MEMORY_NETWORKS = 10_000
CALLS_TARGET = 4.0
_MIB = 2**20
_DARTS_CELLS = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        matrices: Search space and number of networks of each matrix.
        darts_networks: DARTS networks of 20 cells on each side, whose iFGW calls are counted.
        seed: Of the networks.
    """

    matrices: tuple[tuple[str, int], ...] = (
        ("nasbench201", SECONDS_NETWORKS),
        ("transnas_macro", SECONDS_NETWORKS),
        ("darts", 500),
        ("transnas_macro", MEMORY_NETWORKS),
        ("nasbench201", MEMORY_NETWORKS),
    )
    darts_networks: int = 30
    seed: int = 0


QUICK = Settings(matrices=(("nasbench201", 200), ("transnas_macro", 500)), darts_networks=5)

_PHASES = ("start", "sample", "prepare", "cells", "networks", "write")
"""What a process does, in order: import, draw networks, build tables, the two stages, the file."""


def run(settings: Settings) -> Report:
    """Measure."""
    threads = min(2, processors())
    report = Report()
    rows: list[dict[str, Any]] = []
    for space, networks in settings.matrices:
        with Load() as load:
            measured = in_process(measure, space, networks, settings.seed, threads, time.time())
        alone = measured["processor_seconds"] / threads
        rows.append(measured | {"seconds_alone": alone, "others": load.others})
    seconds = [Column(f"seconds_{phase}", phase, number()) for phase in _PHASES]
    report.tables.append(
        Table(
            "matrices",
            f"Processes that each compute one matrix, {threads} threads: seconds by phase",
            (
                Column("space", "space"),
                Column("networks", "networks", number()),
                Column("cells_unique", "unique cells", number()),
                Column("seconds", "s, networks to file", number()),
                *seconds,
                Column("processor_seconds", "processor s", number()),
                Column("seconds_alone", "by threads", number()),
                Column("others", "busy with others", number(2)),
                Column("result_mib", "result MiB", number()),
                Column("peak_mib", "peak MiB", number()),
                Column("extra_mib", "peak - result", number()),
            ),
            rows,
        )
    )
    for row in rows:
        where = f"{row['networks']:,} {row['space']} networks"
        if row["space"] == "nasbench201" and row["networks"] == SECONDS_NETWORKS:
            report.claims.append(Claim(f"{where}: seconds", "<=", SECONDS_TARGET, row["seconds"]))
        report.claims.append(
            Claim(f"{where}: MiB beyond the result", "<=", EXTRA_MEMORY / _MIB, row["extra_mib"])
        )
    calls = [_calls(settings, square=square) for square in (True, False)]
    report.tables.append(
        Table(
            "calls",
            f"iFGW problems per pair of DARTS networks of {_DARTS_CELLS} cells",
            (
                Column("matrix", "matrix"),
                Column("pairs", "pairs of networks", number()),
                Column("solved", "iFGW problems", number()),
                Column("calls", "per pair", number(4)),
            ),
            calls,
        )
    )
    report.claims += [
        Claim(f"DARTS, {row['matrix']}: iFGW per pair", "<=", CALLS_TARGET, row["calls"])
        for row in calls
    ]
    report.notes += [
        "'Networks to file' is everything but starting Python and drawing the networks. Where other"
        " programs keep processors busy it takes longer than on a quiet machine, which needs at"
        " least the processor time divided by the threads ('by threads'). Peak memory"
        " is that of the whole process, with Python, torch and the networks themselves.",
        "Pairs of networks 'with themselves' are those of the half that is computed, with its"
        " diagonal.",
        "TransNAS-Bench-101 macro has 3,256 networks, so larger lists repeat some.",
    ]
    return report


class _Phases:
    """Clock of a child process; the metric's progress reports tell where a stage begins."""

    def __init__(self, started: float) -> None:
        self.seconds = dict.fromkeys(_PHASES, 0.0)
        self._phase = _PHASES[0]
        self._since = started

    def enter(self, phase: str) -> None:
        now = time.time()
        self.seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def progress(self, stage: str, done: int, total: int) -> None:
        if done == 0:
            self.enter(stage)
        if done == total and stage == "networks":
            self.enter("write")


def measure(name: str, count: int, seed: int, threads: int, started: float) -> dict[str, Any]:
    """Compute one matrix and return what it took.

    Args:
        name: Of the search space.
        count: Number of networks.
        seed: Of the networks.
        threads: That compute.
        started: Time at which the process was started.
    """
    clock = _Phases(started)
    torch.set_num_threads(threads)
    clock.enter("sample")
    space = ht.spaces.get(name)
    generator = torch.Generator().manual_seed(seed)
    networks = space.sample(count, generator=generator, distinct=space.size() >= 1.5 * count)
    clock.enter("prepare")
    with tempfile.TemporaryDirectory() as folder, Load() as load:
        file = Path(folder) / "gram.npz"
        result = ht.HOTNN(space=space).gram(networks, out=file, progress=clock.progress)
        clock.enter("end")
    size = result.numel() * result.element_size()
    peak = peak_memory()
    clock.seconds.pop("end", None)
    return {
        "space": name,
        "networks": count,
        "cells_unique": len({cell.key for net in networks for cell in net.cells}),
        "seconds": load.wall,
        "processor_seconds": load.cpu,
        **{f"seconds_{phase}": value for phase, value in clock.seconds.items()},
        "result_mib": size / _MIB,
        "peak_mib": peak / _MIB,
        "extra_mib": (peak - size) / _MIB,
    }


def _calls(settings: Settings, *, square: bool) -> dict[str, Any]:
    """Count iFGW problems that a matrix of DARTS networks solves, from the stage's own count."""
    space = ht.spaces.DARTS(min_depth=_DARTS_CELLS, max_depth=_DARTS_CELLS)
    generator = torch.Generator().manual_seed(settings.seed)
    count = settings.darts_networks
    networks = space.sample(2 * count, generator=generator, distinct=True)
    solved = 0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal solved
        if stage == "cells" and done == 0:
            solved += total

    metric = ht.HOTNN(space=space)
    if square:
        metric(networks[:count], progress=progress)
        # A network with itself takes distances too, those among its own cells.
        pairs, name = count * (count + 1) // 2, f"{count} with themselves"
    else:
        metric(networks[:count], networks[count:], progress=progress)
        pairs, name = count * count, f"{count} with {count} others"
    return {"matrix": name, "pairs": pairs, "solved": solved, "calls": solved / pairs}


def draw(report: Report) -> Figure:
    """Draw the seconds by phase and memory beside its limit, a bar for each matrix."""
    rows = list(reversed(report.rows("matrices")))
    figure, (left, right) = canvas(2, width=6.4, height=1.4 + 0.5 * len(rows))
    places = range(len(rows))
    begin = [0.0] * len(rows)
    for place, phase in enumerate(_PHASES):
        widths = [row[f"seconds_{phase}"] for row in rows]
        left.barh(places, widths, left=begin, height=0.6, color=COLOURS[place], label=phase)
        begin = [x + width for x, width in zip(begin, widths, strict=True)]
    names = [f"{row['networks']:,} {row['space']}" for row in rows]
    for place, total in enumerate(begin):
        left.annotate(
            f"{total:.1f} s",
            (total, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    left.set_xlim(0, max(begin) * 1.15)
    left.set_yticks(list(places), names)
    left.set_xlabel("seconds")
    left.set_title("Time of the whole process, by phase")
    left.legend(frameon=False, fontsize=8, ncols=len(_PHASES), loc="upper left")
    results = [row["result_mib"] for row in rows]
    right.barh(places, results, height=0.6, color=COLOURS[0], label="result")
    right.barh(
        places,
        [row["extra_mib"] for row in rows],
        left=results,
        height=0.6,
        color=COLOURS[5],
        label="everything else",
    )
    for place, result in enumerate(results):
        limit = result + EXTRA_MEMORY / _MIB
        right.plot([limit, limit], [place - 0.38, place + 0.38], color=INK, linewidth=2)
    right.plot([], [], color=INK, linewidth=2, label="promised: result + 1 GiB")
    right.set_yticks(list(places), [""] * len(rows))
    right.set_xlabel("MiB")
    right.set_title("Peak memory of the whole process")
    right.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
    for axes in (left, right):
        axes.set_ylim(-0.6, len(rows) + 0.1)
        axes.grid(visible=False, axis="y")
    return figure
