"""What a benchmark found: rows as JSON, tables as Markdown, and promises beside measured values."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from benchmarks.measuring.machine import Load, describe, revision, versions
from hotnas_torch.files import write_text
from hotnas_torch.plot import save_figure

__all__ = ["Claim", "Column", "Report", "Table", "Unavailable", "number"]

FORMAT = "hotnas-benchmark"
FORMAT_VERSION = 1

Row = Mapping[str, Any]


class Unavailable(Exception):
    """Something that is measured, or measured with, is not there; the message says what."""


def number(digits: int = 3) -> Callable[[Any], str]:
    """Format numbers with so many significant digits, thousands separated."""

    def show(value: Any) -> str:
        if value is None:
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, int):
            return f"{value:,}"
        if value == 0:
            return "0"
        if abs(value) >= 10 ** (digits - 1):
            return f"{value:,.0f}"
        if abs(value) < 1e-3:
            return f"{value:.{digits - 1}e}"
        return f"{value:.{digits}g}"

    return show


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a printed table.

    Attributes:
        key: Where a row holds the value.
        heading: What stands above it.
        show: Turns the value into text.
    """

    key: str
    heading: str
    show: Callable[[Any], str] = _text


@dataclass(frozen=True, slots=True)
class Table:
    """Measured rows, of which the printed table shows some columns.

    Attributes:
        name: Key in the JSON file.
        title: One line above the table.
        columns: What is printed, in order; numbers to the right.
        rows: Everything measured, JSON-ready.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]

    def markdown(self) -> str:
        """Return the table as Markdown, columns aligned for reading as plain text."""
        body = [[column.show(row.get(column.key)) for column in self.columns] for row in self.rows]
        headings = [column.heading for column in self.columns]
        widths = [
            max(len(cells[place]) for cells in [headings, *body]) for place in range(len(headings))
        ]
        right = [column.show is not _text for column in self.columns]

        def line(cells: Sequence[str]) -> str:
            padded = [
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(cells, widths, right, strict=True)
            ]
            return f"| {' | '.join(padded)} |"

        rules = [
            "-" * (width + 1) + ":" if to_right else "-" * (width + 2)
            for width, to_right in zip(widths, right, strict=True)
        ]
        lines = [line(headings), f"|{'|'.join(rules)}|", *(line(cells) for cells in body)]
        return "\n".join([f"**{self.title}**", "", *lines])


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that the library promises, and what was measured.

    Attributes:
        text: The promise.
        relation: Whether the measured value is to be at least or at most the target.
        target: The promised value.
        measured: The measured value.
    """

    text: str
    relation: Literal[">=", "<="]
    target: float
    measured: float

    @property
    def met(self) -> bool:
        """Whether the promise holds; never for NaN."""
        if self.relation == ">=":
            return self.measured >= self.target
        return self.measured <= self.target

    def row(self) -> dict[str, Any]:
        """Return the claim as JSON-ready values."""
        return {
            "claim": self.text,
            "relation": self.relation,
            "target": self.target,
            "measured": self.measured,
            "met": self.met,
        }


_CLAIM_COLUMNS = (
    Column("claim", "claim"),
    Column("relation", ""),
    Column("target", "target", number(4)),
    Column("measured", "measured", number(4)),
    Column("met", "met", number()),
)


@dataclass(slots=True)
class Report:
    """The result of one benchmark; `run` fills in all but its name, question, settings and load.

    Attributes:
        benchmark: Its name, which is that of its files.
        question: What it answers.
        settings: How it was run, JSON-ready.
        tables: What was measured.
        claims: What was promised, beside what was measured.
        notes: Sentences that a reader of the tables must know.
        figures: Pictures by what follows the benchmark's name in that of their file.
        load: How busy the machine was.
    """

    benchmark: str = ""
    question: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    load: Load | None = None

    def rows(self, table: str) -> Sequence[Row]:
        """Return the rows of the table of that name."""
        return next(found.rows for found in self.tables if found.name == table)

    def document(self) -> dict[str, Any]:
        """Return everything, as JSON-ready values."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "benchmark": self.benchmark,
            "question": self.question,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe(),
            "versions": versions(),
            "revision": revision(),
            "load": None
            if self.load is None
            else {
                "seconds": self.load.wall,
                "processor_seconds": self.load.cpu,
                "processors_busy_with_others": self.load.others,
            },
            "settings": dict(self.settings),
            "tables": {table.name: [dict(row) for row in table.rows] for table in self.tables},
            "claims": [claim.row() for claim in self.claims],
            "notes": list(self.notes),
        }

    def markdown(self) -> str:
        """Return everything for a reader, as Markdown."""
        machine, used = describe(), versions()
        parts = [f"## {self.benchmark}: {self.question}"]
        about = (
            f"{machine['processor']}, {machine['processors']} processors,"
            f" {machine['memory_gib']} GiB, {machine['instruction_set'] or 'no compiled core'};"
            f" {', '.join(f'{name} {version}' for name, version in used.items())};"
            f" revision {revision() or 'not known'}."
        )
        if self.load is not None and self.load.others is not None:
            about += (
                f" Other programs kept {self.load.others:.2f} processors busy during the"
                f" {self.load.wall:.0f} s."
            )
        parts.append(about)
        parts.extend(table.markdown() for table in self.tables)
        if self.claims:
            rows = [claim.row() for claim in self.claims]
            parts.append(Table("claims", "What is promised", _CLAIM_COLUMNS, rows).markdown())
        parts.extend(f"Note: {note}" for note in self.notes)
        parts.extend(
            f"![{self._picture(name)}]({self._picture(name)}.png)" for name in self.figures
        )
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> None:
        """Write JSON, Markdown and pictures into a folder, each complete or not at all."""
        document = json.dumps(self.document(), indent=1, allow_nan=True)
        write_text(folder / f"{self.benchmark}.json", document + "\n")
        for name, figure in self.figures.items():
            save_figure(figure, folder / f"{self._picture(name)}.png")
        write_text(folder / f"{self.benchmark}.md", self.markdown())

    def _picture(self, name: str) -> str:
        return f"{self.benchmark}-{name}" if name else self.benchmark
