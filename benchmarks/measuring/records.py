"""Measurements kept in a file as they are made, a JSON line each."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

__all__ = ["recorded"]

Key = Mapping[str, Any]


def recorded(
    file: Path,
    about: Mapping[str, Any],
    wanted: Sequence[Key],
    measure: Callable[[Key], Mapping[str, Any]],
    *,
    title: str,
) -> list[dict[str, Any]]:
    """Take measurements from a file, and add those that it lacks, one after the other.

    Args:
        file: Made where it is not there; what an interrupted run left of a line is passed over.
        about: What else the measurements depend on, JSON-ready; lines of others are passed over.
        wanted: What tells the measurements apart, JSON-ready.
        measure: Makes a measurement, JSON-ready.
        title: For the progress bar.

    Returns:
        What was measured, with its key, in the order of `wanted`.
    """
    found = {
        _name(line["key"]): line["key"] | line["measured"]
        for line in _lines(file)
        if line["about"] == about
    }
    missing = [key for key in wanted if _name(key) not in found]
    if missing:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            if lines.tell():
                lines.write("\n")  # ends what an interrupted run may have left
            for key in tqdm(missing, desc=title, disable=None):
                measured = dict(measure(key))
                line = {"about": dict(about), "key": dict(key), "measured": measured}
                lines.write(json.dumps(line) + "\n")
                lines.flush()
                found[_name(key)] = dict(key) | measured
    return [found[_name(key)] for key in wanted]


def _name(key: Key) -> str:
    return json.dumps(dict(key), sort_keys=True)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # cut off, or empty
