"""One search as a file: what was evaluated, in which order, and what it took."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from hotnas_torch.errors import StorageError
from hotnas_torch.files import read_bytes, write_text

__all__ = ["Record", "path_of", "read_record", "read_records", "write_csv", "write_record"]

_VERSION = 2
_MOST_BYTES = 2**28
_KINDS = {
    "task": str,
    "method": str,
    "seed": int,
    "identity": dict,
    "networks": str,
    "values": float,
    "seconds": float,
    "reported": float,
    "best_value": float,
    "better": int,
}
"""What each entry is, or each of its entries."""


@dataclass(frozen=True, slots=True)
class Record:
    """One search with one seed.

    Attributes:
        task: Name of the task.
        method: Name of the method.
        seed: Seed of everything random.
        identity: What the outcome depends on: settings of the method, batch, table, code.
        networks: Official strings in the order of evaluation.
        values: Their values, smaller is better; NaN for a failed evaluation.
        seconds: Processor seconds that proposing each of them took.
        reported: Value by which the search is judged after each evaluation: of the network with the
            smallest value so far. Where the task has no other column, that smallest value.
        best_value: The smallest reported value of the table.
        better: How many architectures of the table have a smaller reported value than the network
            chosen so far, after each evaluation.
    """

    task: str
    method: str
    seed: int
    identity: Mapping[str, Any]
    networks: tuple[str, ...]
    values: tuple[float, ...]
    seconds: tuple[float, ...]
    reported: tuple[float, ...]
    best_value: float
    better: tuple[int, ...]

    def regrets(self) -> list[float]:
        """Return the reported value less the best of the table, after each evaluation."""
        return [value - self.best_value for value in self.reported]


def path_of(folder: Path, task: str, method: str, seed: int) -> Path:
    """Return where the record of a search lies."""
    return folder / task / method / f"{seed}.json"


def write_record(record: Record, folder: Path) -> None:
    """Write a record; the file is complete or absent."""
    path = path_of(folder, record.task, record.method, record.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": _VERSION} | {name: getattr(record, name) for name in Record.__slots__}
    content["values"] = [None if math.isnan(value) else value for value in record.values]
    write_text(path, json.dumps(content))


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        StorageError: The file is damaged or of a newer version.
    """
    try:
        content = json.loads(read_bytes(path, most=_MOST_BYTES))
        version = content.pop("version")
        if type(version) is not int or version < 1:
            raise ValueError(f"its version is {version!r}, expected a whole number from 1 on")
        if version > _VERSION:
            raise StorageError(f"{path} was written by a newer version of hotnas_torch")
        content["values"] = [math.nan if v is None else float(v) for v in content["values"]]
        if version == 1:  # every task was judged by what it minimised
            content["reported"] = accumulate(content["values"], min)
        for name in ("networks", "values", "seconds", "reported", "better"):
            if isinstance(content[name], str):
                raise TypeError(f"{name} is {content[name]!r}, expected a list")
            content[name] = tuple(content[name])
        record = Record(**content)
        _check(record)
        return record
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError),
        RecursionError,
    ) as error:
        raise StorageError(
            f"{path} is no record of a comparison: {error} (delete it to run that search again)"
        ) from error


def _check(record: Record) -> None:
    for name, kind in _KINDS.items():
        entry = getattr(record, name)
        accepted = (int, float) if kind is float else (kind,)
        for one in entry if isinstance(entry, tuple) else (entry,):
            if not isinstance(one, accepted) or isinstance(one, bool):
                raise TypeError(f"{name} holds {one!r}, expected {kind.__name__}")
        if isinstance(entry, tuple) and len(entry) != len(record.networks):
            raise ValueError(f"{name} has {len(entry)} entries for {len(record.networks)} networks")


def read_records(folder: Path) -> list[Record]:
    """Read all records of a folder, in the order of their names.

    Raises:
        StorageError: A file is damaged.
    """
    paths = folder.glob("*/*/*.json")
    return [read_record(p) for p in sorted(paths, key=lambda p: (p.parts[-3:-1], int(p.stem)))]


def write_csv(records: Iterable[Record], path: Path) -> None:
    """Write one line per evaluation: task, method, seed, evaluation, network, value, and so on."""
    lines: list[list[object]] = [
        ["task", "method", "seed", "evaluation", "network", "value", "regret", "better", "seconds"]
    ]
    for record in records:
        columns = (
            range(1, len(record.values) + 1),
            record.networks,
            record.values,
            record.regrets(),
            record.better,
            record.seconds,
        )
        for line in zip(*columns, strict=True):
            lines.append([record.task, record.method, record.seed, *line])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(path, text.getvalue())
