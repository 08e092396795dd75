"""Published searches run again: does this code still propose what its records say?"""

import csv
import gzip
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from hotnas_torch.comparison.methods import METHODS
from hotnas_torch.comparison.run import search_once
from hotnas_torch.comparison.tasks import TASKS
from hotnas_torch.errors import StorageError
from hotnas_torch.files import read_bytes

__all__ = ["Reproduced", "reproduce"]

_MOST_BYTES = 2**30
_COLUMNS = ("task", "method", "seed", "evaluation", "network", "value")


@dataclass(frozen=True, slots=True)
class Reproduced:
    """A search of a record that was run again.

    Attributes:
        task: Name of the task.
        method: Name of the method.
        seed: Seed of everything random.
        evaluations: How many the record has.
        agree: How many of them, from the first on, were the same network with the same value.
    """

    task: str
    method: str
    seed: int
    evaluations: int
    agree: int

    @property
    def same(self) -> bool:
        """Whether all of it was the same."""
        return self.agree == self.evaluations


def reproduce(
    file: Path,
    *,
    data: Path,
    num_rows: int,
    generator: torch.Generator,
    num_initial: int = 10,
    batch: int = 4,
    progress: bool = True,
) -> list[Reproduced]:
    """Draw searches from a comparison's results at random and run them again.

    Args:
        file: `results.csv` of `hotnas bench search`, or the same compressed, `.csv.gz`.
        data: Folder of the published tables.
        num_rows: Searches to draw, >= 1; all of them where there are fewer.
        generator: Draws them.
        num_initial: Random networks at the start of each, as they were run.
        batch: Networks that were asked for at once.
        progress: Show a progress bar.

    Returns:
        What was found, a drawn search each.

    Raises:
        ValueError: `num_rows` is below 1.
        StorageError: The file is damaged, or has a task or method that this version does not know.
        TableError: A table is missing.

    Complexity: that of `num_rows` searches.
    """
    if num_rows < 1:
        raise ValueError(f"num_rows must be at least 1; got {num_rows}")
    searches = _read(file)
    names = list(searches)
    drawn = torch.randperm(len(names), generator=generator)[:num_rows].tolist()
    found = []
    for place in tqdm(drawn, desc="searches", unit="", disable=not progress):
        task, method, seed = names[place]
        recorded = searches[names[place]]
        with tempfile.TemporaryDirectory() as folder:
            record = search_once(
                task,
                method,
                seed,
                data=data,
                folder=Path(folder),
                num_initial=num_initial,
                num_evaluations=len(recorded),
                batch=batch,
            )
        again = zip(record.networks, record.values, strict=True)
        agree = 0
        for old, new in zip(recorded, again, strict=False):
            if old != new:
                break
            agree += 1
        found.append(Reproduced(task, method, seed, len(recorded), agree))
    return found


def _read(file: Path) -> dict[tuple[str, str, int], list[tuple[str, float]]]:
    """Return networks and values of each search, in the order of their evaluation."""
    try:
        content = read_bytes(file, most=_MOST_BYTES)
        if file.suffix == ".gz":
            with gzip.open(io.BytesIO(content)) as unpacked:
                content = unpacked.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                raise ValueError(f"it holds more than {_MOST_BYTES:,} bytes")
        lines = csv.DictReader(io.StringIO(content.decode("utf-8")))
        if lacking := set(_COLUMNS) - set(lines.fieldnames or ()):
            raise ValueError(f"it has no column {min(lacking)!r}")
        searches: dict[tuple[str, str, int], list[tuple[str, float]]] = {}
        for number, line in enumerate(lines, start=2):
            for kind, known in (("task", TASKS), ("method", METHODS)):
                if line[kind] not in known:
                    raise ValueError(f"line {number} has an unknown {kind}, {line[kind]!r}")
            rows = searches.setdefault((line["task"], line["method"], int(line["seed"])), [])
            if int(line["evaluation"]) != len(rows) + 1:
                raise ValueError(
                    f"line {number} is evaluation {line['evaluation']}, expected {len(rows) + 1}"
                )
            rows.append((line["network"], float(line["value"])))
        if not searches:
            raise ValueError("it has no line")
    except (OSError, EOFError, ValueError, TypeError, csv.Error) as error:
        raise StorageError(f"{file} is no result of a comparison: {error}") from error
    return searches
