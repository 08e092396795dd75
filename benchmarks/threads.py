"""How much faster are two threads than one?"""

import concurrent.futures
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.measuring import solvers
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.machine import Load, processors, thread_seconds
from benchmarks.measuring.problems import random_problems
from benchmarks.measuring.report import Claim, Column, Report, Table, number

__all__ = ["QUICK", "Settings", "draw", "run"]


TARGET = 1.8
BUSY = 0.1
"""Processors busy with other programs from which on the clock says little."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        sizes: Nodes of the graphs.
        rounds: Turns of one and of two threads.
        seconds: Least time of a turn on the clock.
        pot_problems: Problems that POT solves in a turn.
        seed: Of the problems.
    """

    sizes: tuple[int, ...] = (8, 11, 20)
    rounds: int = 40
    seconds: float = 0.05
    pot_problems: int = 100
    seed: int = 0


QUICK = Settings(rounds=5, seconds=0.02, pot_problems=20)

_COLUMNS = (
    Column("solver", "solver"),
    Column("nodes", "n", number()),
    Column("one", "pairs/s, one", number()),
    Column("two", "pairs/s, two", number()),
    Column("speedup", "speed-up", number()),
    Column("speedup_median", "of medians", number()),
    Column("by_processor_time", "by processor time", number()),
    Column("others", "busy with others", number(2)),
)


def run(settings: Settings) -> Report:
    """Measure."""
    report = Report()
    generator = torch.Generator().manual_seed(settings.seed)
    rows: list[dict[str, Any]] = []
    with _pool() as pool:
        for nodes in settings.sizes:
            problems = random_problems(nodes, 400, loss="l1", pairs="directed", generator=generator)
            job = solvers.ours(problems)

            def ours(threads: int, job: solvers.Job = job) -> int:
                torch.set_num_threads(threads)
                job.solve()
                return job.problems

            rows.append({"solver": job.name, "nodes": nodes} | _compare(ours, settings))

            def pot(processes: int, nodes: int = nodes) -> int:
                share = settings.pot_problems // 2
                futures = [
                    pool.submit(_pot_share, nodes, share, settings.seed) for _ in range(processes)
                ]
                return sum(future.result() for future in futures)

            rows.append(
                {"solver": f"{solvers.POT_CONDITIONAL_GRADIENT}, processes", "nodes": nodes}
                | _compare(pot, settings, rounds=max(2, settings.rounds // 8))
                # Its processes are none of this one's threads, and busy like other programs.
                | {"by_processor_time": None, "others": None}
            )
    torch.set_num_threads(1)
    report.tables.append(
        Table("threads", "Absolute loss, directed pairs, random graphs", _COLUMNS, rows)
    )
    ours_rows = [row for row in rows if row["solver"] == solvers.OURS]
    if processors() >= 2:
        report.claims += [_claim(row) for row in ours_rows]
    else:
        report.notes.append("This process may use one processor only: nothing to be seen here.")
    report.notes.append(
        "Rates are of the best turn on the clock, turns alternating; POT has no batched solver for"
        " this loss, so it gets a process for each processor, started beforehand. 'By processor"
        " time' is that of one thread over that of the busier of two, per problem: what the clock"
        " shows where both threads have a processor to themselves."
    )
    busiest = max((row["others"] for row in ours_rows if row["others"] is not None), default=0.0)
    if busiest > BUSY:
        report.notes.append(
            f"The machine was loaded: other programs kept up to {busiest:.2f} processors busy,"
            " which two threads feel and one does not. The claims are judged by processor time"
            " then; the clock is to be believed on a quiet machine only."
        )
    return report


def _claim(row: dict[str, Any]) -> Claim:
    loaded = row["others"] is not None and row["others"] > BUSY
    if loaded and row["by_processor_time"] is not None:
        text = f"n = {row['nodes']}: two threads over one, by processor time"
        return Claim(text, ">=", TARGET, float(row["by_processor_time"]))
    text = f"n = {row['nodes']}: two threads over one, on the clock"
    return Claim(text, ">=", TARGET, float(row["speedup"]))


def _pool() -> concurrent.futures.ProcessPoolExecutor:
    # Not forked: a fork does not inherit torch's threads, and may wait for them for ever.
    return concurrent.futures.ProcessPoolExecutor(
        max_workers=2, mp_context=multiprocessing.get_context("spawn")
    )


def _pot_share(nodes: int, count: int, seed: int) -> int:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    problems = random_problems(nodes, count, loss="l1", pairs="directed", generator=generator)
    solvers.pot_conditional_gradient(problems).solve()
    return count


def _compare(
    solve: Callable[[int], int], settings: Settings, *, rounds: int | None = None
) -> dict[str, Any]:
    """Rates of one and of two workers; `solve` takes their number, returns problems solved."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    busiest: dict[int, list[float]] = {1: [], 2: []}
    for workers in rates:
        solve(workers)
    with Load() as load:
        for _ in range(rounds or settings.rounds):
            for workers, found in rates.items():
                solved, before, started = 0, thread_seconds(), time.perf_counter()
                while solved == 0 or time.perf_counter() - started < settings.seconds:
                    solved += solve(workers)
                found.append(solved / (time.perf_counter() - started))
                after = thread_seconds()
                used = [after[thread] - before.get(thread, 0.0) for thread in after]
                busiest[workers].append(max(used, default=math.nan) / solved)
    by_time = statistics.median(busiest[1]) / statistics.median(busiest[2])
    return {
        "one": max(rates[1]),
        "two": max(rates[2]),
        "speedup": max(rates[2]) / max(rates[1]),
        "speedup_median": statistics.median(rates[2]) / statistics.median(rates[1]),
        "by_processor_time": None if math.isnan(by_time) else by_time,
        "others": load.others,
    }


def draw(report: Report) -> Figure:
    """Draw speed-up by size, on the clock and by processor time."""
    figure, (axes,) = canvas(1)
    rows = [row for row in report.rows("threads") if row["solver"] == solvers.OURS]
    width = 0.36
    tallest = TARGET
    for place, (key, text) in enumerate(
        (("speedup", "on the clock"), ("by_processor_time", "by processor time"))
    ):
        heights = [row[key] or 0.0 for row in rows]
        middles = [position + (place - 0.5) * width for position in range(len(rows))]
        axes.bar(middles, heights, width=0.92 * width, color=COLOURS[5 * place], label=text)
        for middle, height in zip(middles, heights, strict=True):
            axes.annotate(
                f"{height:.2f}",
                (middle, height),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=INK,
            )
        tallest = max([tallest, *heights])
    axes.axhline(TARGET, color=INK, linewidth=1.2, linestyle="--", label=f"promised {TARGET}")
    axes.set_xticks(range(len(rows)), [str(row["nodes"]) for row in rows])
    axes.set_ylim(0, 1.3 * tallest)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("two threads / one thread")
    others = [row["others"] for row in rows if row["others"] is not None]
    busy = f"; other programs kept up to {max(others):.1f} processors busy" if others else ""
    axes.set_title("What a second thread brings")
    axes.set_xlabel(f"nodes{busy}")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center")
    return figure
