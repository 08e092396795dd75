# Over 400 lines: one reader of tables and what it checks.
"""Published measurements as an objective: a file that holds a value per architecture."""

import csv
import gzip
import hashlib
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import choice, kind
from hotnas_torch.errors import ArchitectureError, TableError
from hotnas_torch.files import read_bytes
from hotnas_torch.objectives.base import Evaluation
from hotnas_torch.spaces import SearchSpace, Subset
from hotnas_torch.spaces.frames import is_frame
from hotnas_torch.spaces.joint import check_architectures

if TYPE_CHECKING:
    import pandas

__all__ = [
    "AS_IS",
    "ERROR_OF_FRACTION",
    "ERROR_OF_PERCENT",
    "NEGATED",
    "Column",
    "Rows",
    "Table",
    "read_csv",
]

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 2**12
# The largest published tables have some 50 MB of text.
_MOST_BYTES = 2**29
_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class Column:
    """How a column becomes a value to minimise: `offset + factor * number`."""

    offset: float
    factor: float

    def value(self, numbers: Tensor) -> Tensor:
        """Convert numbers of the column, any shape."""
        return self.offset + self.factor * numbers


ERROR_OF_PERCENT = Column(100.0, -1.0)
"""An accuracy in percent becomes an error in percent."""
ERROR_OF_FRACTION = Column(100.0, -100.0)
"""A quality in 0..1 becomes 100 minus 100 times it, as the HOTNAS paper reports SSIM."""
AS_IS = Column(0.0, 1.0)
"""Smaller is better already: a loss, parameters, operations."""
NEGATED = Column(0.0, -1.0)
"""Larger is better, on a scale that is not known."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The content of a table file.

    Attributes:
        texts: What names the architecture of each of the R rows.
        lines: Number of each row's line in the file; None where texts are the keys of a JSON file.
        columns: Numbers by name, (R,) float64, NaN where the file leaves the entry empty.
    """

    texts: list[str]
    lines: list[int] | None
    columns: dict[str, Tensor]

    def where(self, place: int) -> str:
        """Say for a message where a row stands in the file."""
        return f"key {self.texts[place]!r}" if self.lines is None else f"line {self.lines[place]}"


class Table:
    """A table of measured values as an objective over its architectures.

    The file is read once, completely, and never executed. The objective is the chosen column turned
    into a value to minimise; the other numbers of the row are the metrics. A look-up costs nothing.

    Networks are found up to what the space counts as the same (its `key`): in NAS-Bench-101 an
    isomorphic cell finds its row.

    Args:
        path: A CSV file with a header, plain or gzip-compressed; or a DataFrame of pandas.
        column: Which column to optimise.
        space: Search space whose official strings the file holds.
        architecture: Name of the column with the strings.
        goal: `"max"` or `"min"`: whether larger or smaller numbers are better.
        sha256: Expected checksum of the file, hex; None takes the file as it is.

    Attributes:
        path: The file.
        sha256: Its checksum.
        column: The column that is optimised.

    Raises:
        TypeError: `space` is not a SearchSpace.
        TableError: The file is missing, damaged, of another format or not the expected one; a
            column is missing or holds no numbers; an architecture is invalid or stands twice. The
            message names the file and the line.
        ValueError: Unknown `goal`.
    """

    name: ClassVar[str] = "table"
    """What `describe` calls the format."""
    known_columns: ClassVar[Mapping[str, Column]] = {}
    """Columns that the format defines; empty for a file of the user's own."""

    def __init__(
        self,
        path: "str | PathLike[str] | pandas.DataFrame",
        column: str,
        *,
        space: SearchSpace,
        architecture: str = "arch",
        goal: Literal["max", "min"] = "max",
        sha256: str | None = None,
    ) -> None:
        choice("goal", goal, ("max", "min"))
        self._architecture = architecture
        self._conversion = NEGATED if goal == "max" else AS_IS
        self._load(path, column, space, sha256)

    def _load(
        self,
        path: "str | PathLike[str] | pandas.DataFrame",
        column: str,
        space: SearchSpace,
        sha256: str | None,
    ) -> None:
        kind("space", space, SearchSpace)
        check_architectures("a table of networks", space)
        self.column = column
        self._space = space
        if is_frame(path):
            # As pandas would write it, with all digits: the same table as from that file.
            self.path = Path(type(path).__name__)
            data = path.to_csv(index=False).encode("utf-8")  # type: ignore[union-attr]
        else:
            self.path = Path(path)
            data = self._read_file()
        self.sha256 = hashlib.sha256(data).hexdigest()
        if sha256 is not None and sha256.lower() != self.sha256:
            raise TableError(
                f"{self.path} has sha256 {self.sha256}, expected {sha256} (another version of the "
                "file, or a damaged one; pass sha256=None to take it as it is)"
            )
        rows = self._parse(self._decompress(data))
        if not rows.texts:
            raise TableError(f"{self.path} holds no rows")
        self._rows = rows
        numbers = self._numbers(rows)
        self._values = numbers
        self._index_rows(rows)

    # --- reading ----------------------------------------------------------------------------------

    def _read_file(self) -> bytes:
        try:
            return read_bytes(self.path, most=_MOST_BYTES)
        except OSError as error:
            raise TableError(
                f"cannot read the table {self.path}: {error.strerror} (the benchmark's numbers are "
                "not part of this library: pass the path of your copy)"
            ) from error

    def _decompress(self, data: bytes) -> str:
        try:
            if data.startswith(_GZIP_MAGIC):
                data = _unpacked(data)
            return data.decode("utf-8")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise TableError(
                f"{self.path} is damaged or no text file: {error} (get a fresh copy)"
            ) from error

    def _parse(self, text: str) -> Rows:
        """Read the file's text."""
        columns, lines = read_csv(text, self.path)
        texts = require_column(columns, self._architecture, self.path)
        return Rows(
            texts,
            lines,
            {
                name: numbers
                for name, entries in columns.items()
                if name != self._architecture
                and (numbers := self._to_numbers(name, entries, lines)) is not None
            },
        )

    def _to_numbers(self, name: str, entries: Sequence[str], lines: Sequence[int]) -> Tensor | None:
        """Convert a column; None for one of text that nobody asked for."""
        try:
            numbers = torch.tensor(
                [float(entry) if entry else math.nan for entry in entries], dtype=torch.float64
            )
        except ValueError:
            if name != self.column and name not in self.known_columns:
                return None
            for entry, line in zip(entries, lines, strict=True):
                if not _is_number(entry):
                    raise TableError(
                        f"{self.path}, line {line}: column {name!r} must hold numbers; got "
                        f"{entry!r}"
                    ) from None
            raise
        infinite = numbers.isinf()
        if infinite.any():
            line = lines[int(infinite.nonzero()[0].item())]
            raise TableError(f"{self.path}, line {line}: column {name!r} must hold finite numbers")
        return numbers

    def _numbers(self, rows: Rows) -> Tensor:
        """Return the value to minimise of each row, (R,) float64, NaN where there is none."""
        if self.column not in rows.columns:
            known = ", ".join(map(repr, rows.columns)) or "none"
            raise TableError(
                f"{self.path} has no column {self.column!r} with numbers (it has {known})"
            )
        conversion = self.known_columns.get(self.column)
        values = (conversion or self._conversion).value(rows.columns[self.column])
        if values.isnan().all():
            raise TableError(f"{self.path}: column {self.column!r} is empty")
        return values

    def _index_rows(self, rows: Rows) -> None:
        """Prepare `_find`; refuses invalid and repeated architectures."""
        self._places: dict[str, int] = {}
        for place, key in enumerate(self._keys(rows)):
            first = self._places.setdefault(key, place)
            if first != place:
                raise TableError(
                    f"{self.path}, {rows.where(place)}: {rows.texts[place]!r} is the architecture "
                    f"of {rows.where(first)} again (an architecture has one row: average those of "
                    "several seeds before)"
                )

    def _keys(self, rows: Rows) -> list[str]:
        """Return the space's key of each row."""
        return [self._space.key(self._network(rows, place)) for place in range(len(rows.texts))]

    def _network(self, rows: Rows, place: int) -> Network:
        try:
            return self._space.from_string(rows.texts[place])
        except ArchitectureError as error:
            raise TableError(f"{self.path}, {rows.where(place)}: {error}") from error

    # --- looking up -------------------------------------------------------------------------------

    def _find(self, net: Network) -> int | None:
        """Return the row of a network of the space, or None."""
        return self._places.get(self._space.key(net))

    def __call__(self, net: Network) -> Evaluation:
        """Look up one network.

        Raises:
            TypeError: `net` is not a Network.
            ArchitectureError: `net` is not of the table's space.
            TableError: The table has no row for it, or no value in the row; the message names it.
        """
        name = self._space.to_string(net)
        place = self._find(net)
        if place is None:
            raise TableError(
                f"{self.path} has no row for {name!r} (it has {len(self._rows.texts):,} of "
                f"{self._space.size_bound():,} architectures; search in the table's .space, which "
                "holds only those)"
            )
        value = self._values[place].item()
        if math.isnan(value):
            raise TableError(
                f"{self.path}, {self._rows.where(place)}: {name!r} has no {self.column!r} (search "
                "in the table's .space, which holds only architectures with a value)"
            )
        metrics = {
            column: number
            for column, numbers in self._rows.columns.items()
            if not math.isnan(number := numbers[place].item())
        }
        return Evaluation(value, metrics)

    def __len__(self) -> int:
        """Return the number of architectures that have a value."""
        return int((~self._values.isnan()).sum().item())

    @cached_property
    def space(self) -> SearchSpace:
        """The space to search: the benchmark's, restricted to the table where it is partial."""
        if len(self) == self._space.size_bound():
            return self._space
        return Subset(self._space, self.networks())

    def networks(self) -> list[Network]:
        """Return the networks that have a value, in the order of the file."""
        places = (~self._values.isnan()).nonzero().flatten().tolist()
        return [self._network(self._rows, place) for place in places]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns with numbers."""
        return tuple(self._rows.columns)

    @property
    def values(self) -> Tensor:
        """All values, (len(self),) float64, in the order of `networks`."""
        return self._values[~self._values.isnan()]

    @property
    def best_value(self) -> float:
        """The smallest value of the table: simple regret is counted from here."""
        return float(self.values.min().item())

    def rank(self, value: float) -> int:
        """Return how many architectures of the table have a smaller value; 0 is the best."""
        return int((self.values < value).sum().item())

    def describe(self) -> dict[str, Any]:
        """Return the format, the column and the checksum; the path may change."""
        return {"kind": self.name, "column": self.column, "sha256": self.sha256}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {self.column!r}, {len(self):,} values)"


def _unpacked(data: bytes) -> bytes:
    """Decompresses gzip up to a size that tables do not have."""
    pieces: list[bytes] = []
    size = 0
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        while piece := file.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > _MOST_BYTES:
                raise OSError(f"it unpacks to more than {_MOST_BYTES:,} bytes")
    return b"".join(pieces)


def read_csv(text: str, path: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Read a CSV text with a header.

    Args:
        text: The text.
        path: Where it comes from, for messages.

    Returns:
        Entries by column, each as many as there are rows, and the line of each row.

    Raises:
        TableError: No header, a name twice, or a row of another length; the message names the line.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(reader, [])
        if not header or len(set(header)) != len(header):
            raise TableError(
                f"{path} must begin with a header of distinct column names; got {header!r}"
            )
        columns: list[list[str]] = [[] for _ in header]
        lines: list[int] = []
        # Moved to the columns in chunks: hundreds of thousands of small lists at once are slow.
        chunk: list[list[str]] = []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise TableError(
                    f"{path}, line {reader.line_num}: expected {len(header)} entries; got "
                    f"{len(row)} (the file may be cut off)"
                )
            chunk.append(row)
            lines.append(reader.line_num)
            if len(chunk) == _CHUNK:
                _move(chunk, columns)
        _move(chunk, columns)
    except csv.Error as error:
        raise TableError(f"{path}, line {reader.line_num}: {error}") from error
    return dict(zip(header, columns, strict=True)), lines


def _move(rows: list[list[str]], columns: list[list[str]]) -> None:
    for column, entries in zip(columns, zip(*rows, strict=True), strict=False):
        column.extend(entries)
    rows.clear()


def require_column(columns: Mapping[str, list[str]], name: str, path: Path) -> list[str]:
    """Return a column, or raise a TableError that names it and those there are."""
    if name not in columns:
        raise TableError(
            f"{path} has no column {name!r} (it has {', '.join(map(repr, columns))}; a table of "
            "another benchmark?)"
        )
    return columns[name]


def _is_number(entry: str) -> bool:
    try:
        return math.isfinite(float(entry or 0))
    except ValueError:
        return False
