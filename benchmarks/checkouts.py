"""Is this checkout as fast as another one?

The same calls in two processes, one per checkout, which take turns: `--against PATH` names the
other one, whose compiled core must be built. `--against` of this checkout itself shows the noise.
"""

import json
import math
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from matplotlib.figure import Figure

from benchmarks.measuring import calls
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.report import Claim, Column, Report, Table, Unavailable, number
from benchmarks.measuring.statistics import standard_error
from tools.checkout import environment

__all__ = ["ON_REQUEST", "QUICK", "Settings", "draw", "run"]

ON_REQUEST = "compares with another checkout"
SLOWER = 0.97
"""A rate of this many times the other checkout's counts as the same."""
_HERE = Path(__file__).parents[1]

_COLUMNS = (
    Column("call", "call"),
    Column("here", "ms here", number()),
    Column("there", "ms there", number()),
    Column("ratio", "rate here / there", "{:.3f}".format),
    Column("error", "+-", "{:.3f}".format),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        against: The other checkout.
        rounds: Turns of each checkout at each call.
        seconds: Least processor time of a turn.
        only: Calls whose name holds this text.
    """

    against: str = ""
    rounds: int = 15
    seconds: float = 0.3
    only: str = ""


QUICK = Settings(rounds=3, seconds=0.02)


def run(settings: Settings) -> Report:
    """Measure.

    Raises:
        Unavailable: The other checkout is not named, or its package is not there.
    """
    there = Path(settings.against).resolve()
    if not settings.against or not (there / "hotnas_torch" / "__init__.py").is_file():
        given = settings.against or "nothing"
        raise Unavailable(f"--against must be the folder of another checkout; got {given}")
    rows: list[dict[str, Any]] = []
    with _Checkout(_HERE) as one, _Checkout(there) as other:
        common = [name for name in one.calls if name in other.calls and settings.only in name]
        for name in common:
            rows.append({"call": name} | _compare(one, other, name, settings))
        versions = f"{one.version} here, {other.version} in {there.name}"
    report = Report(tables=[Table("calls", f"One thread each: {versions}", _COLUMNS, rows)])
    for row in rows:
        # What noise alone may take off is not held against a call.
        text = f"{row['call']}: rate here / there, two standard errors added"
        report.claims.append(Claim(text, ">=", SLOWER, row["ratio"] + 2.0 * row["error"]))
    if rows:
        mean = math.exp(statistics.fmean(math.log(row["ratio"]) for row in rows))
        report.claims.append(Claim("geometric mean of all calls", ">=", SLOWER, mean))
    report.notes.append(
        f"{settings.rounds} rounds of at least {settings.seconds:g} processor seconds; the order of"
        " the two changes from round to round. Ratio: median over the rounds, each of which ran"
        " both; +-: standard error of the mean of their logarithms. Milliseconds: of the fastest"
        " round."
    )
    return report


class _Checkout:
    """A process that has one checkout's package."""

    def __init__(self, folder: Path) -> None:
        # -P: beside the program are modules named like those of Python.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(calls.__file__).resolve())],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        said = self._answer()
        self.version: str = said["version"]
        self.calls: list[str] = said["calls"]
        if not Path(said["file"]).resolve().is_relative_to(folder):
            self.__exit__()
            raise RuntimeError(f"{folder} was to be measured, and {said['file']} was imported")

    def seconds(self, name: str, least: float) -> float:
        """Return processor seconds of a call, of at least so many together."""
        assert self._process.stdin is not None
        print(name, least, file=self._process.stdin, flush=True)
        count, used = self._answer()
        return float(used / count)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(map(str, self._process.args))} ended")  # type: ignore[arg-type]
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


def _compare(one: _Checkout, other: _Checkout, name: str, settings: Settings) -> dict[str, Any]:
    for checkout in (one, other):
        checkout.seconds(name, 0.0)  # fills caches
    found: dict[_Checkout, list[float]] = {one: [], other: []}
    for turn in range(settings.rounds):
        for checkout in (one, other) if turn % 2 == 0 else (other, one):
            found[checkout].append(checkout.seconds(name, settings.seconds))
    ratios = [theirs / ours for ours, theirs in zip(found[one], found[other], strict=True)]
    return {
        "here": 1e3 * min(found[one]),
        "there": 1e3 * min(found[other]),
        "ratio": statistics.median(ratios),
        "error": standard_error([math.log(ratio) for ratio in ratios]) or 0.0,
        "ratios": ratios,
    }


def draw(report: Report) -> Figure:
    """Draw the ratios of all calls, a point per round."""
    rows = list(reversed(report.rows("calls")))
    figure, (axes,) = canvas(1, width=7.0, height=1.2 + 0.3 * len(rows))
    for place, row in enumerate(rows):
        axes.plot(row["ratios"], [place] * len(row["ratios"]), "o", color=COLOURS[0], alpha=0.3)
        axes.plot(row["ratio"], place, "|", color=INK, markersize=14)
    axes.axvspan(SLOWER, 1 / SLOWER, color=COLOURS[2], alpha=0.15)
    axes.set_yticks(range(len(rows)), [row["call"] for row in rows])
    axes.set_xlabel("rate here / there", color=INK)
    return figure
