"""Tables of pandas in place of encoded rows: columns are found by their names."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hotnas_torch.arguments import shown
from hotnas_torch.errors import ArchitectureError

if TYPE_CHECKING:
    from hotnas_torch.spaces.base import SearchSpace

__all__ = ["frame_rows", "is_frame", "read_strings"]


def is_frame(value: object) -> bool:
    """Return whether this is a DataFrame or a Series of pandas, which is not imported for it."""
    found = type(value)
    return found.__module__.partition(".")[0] == "pandas" and found.__name__ in (
        "DataFrame",
        "Series",
    )


def frame_rows(name: str, frame: Any, space: "SearchSpace") -> Tensor:
    """Return the rows of a space that a table of pandas describes, one per line.

    Args:
        name: What messages call it.
        frame: A DataFrame with the columns that the space names, in any order, whose others follow
            as numbers; or one column, or a Series, of the space's strings, which alone serve where
            the space has hyperparameters.
        space: Space of the networks.

    Returns:
        Shape (N, d) float64, d = space.dim plus the number of other columns.

    Raises:
        ValueError: An empty table, a name twice, or neither all columns of the space nor one of
            strings.
        TypeError: A column that holds something else than numbers; the message names it.
        ArchitectureError: A string that describes no network of the space; the message names it.
    """
    if not len(frame):
        raise ValueError(f"{name} must hold at least one row; got an empty table")
    if type(frame).__name__ == "Series":
        return space.encode(read_strings(name, frame.tolist(), space))
    columns = list(frame.columns)
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise ValueError(f"{name} must name every column once; got {twice[0]!r} twice")
    missing = [column for column in space.columns if column not in columns]
    # Whether a number in a column of options is one of them or its place, nobody can tell.
    if missing or space.hyperparameters:
        if len(columns) == 1 and all(isinstance(entry, str) for entry in frame[columns[0]]):
            return space.encode(read_strings(name, frame[columns[0]].tolist(), space))
        if space.hyperparameters:
            raise ValueError(
                f"{name} must have one column of strings of {space.name!r}, as the space has"
                f" hyperparameters; it has {', '.join(map(repr, columns)) or 'none'} (pass rows of"
                " space.encode, or map(space.to_string, nets))"
            )
        raise ValueError(
            f"{name} must have the columns {', '.join(map(repr, space.columns))}, or one column of"
            f" strings of {space.name!r}; it has {', '.join(map(repr, columns)) or 'none'} (as in"
            " pandas.DataFrame(space.encode(nets), columns=space.columns))"
        )
    ordered = [*space.columns, *(column for column in columns if column not in space.columns)]
    return torch.stack([_numbers(name, column, frame[column]) for column in ordered], dim=1)


def read_strings(name: str, texts: list[Any], space: "SearchSpace") -> list[Any]:
    """Return the networks of official strings.

    Raises:
        TypeError, ArchitectureError: An entry is no string of the space; the message names it.
    """
    found = []
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"{name}[{place}] must be a string of {space.name!r}; got {shown(text)}"
            )
        try:
            found.append(space.from_string(text))
        except ArchitectureError as error:
            raise ArchitectureError(f"{name}[{place}]: {error}") from None
    return found


def _numbers(name: str, column: object, entries: Any) -> Tensor:
    # Texts that read like numbers are none.
    if entries.dtype.kind not in "iuf":
        raise TypeError(f"{name}[{column!r}] must hold numbers; got dtype {entries.dtype}")
    return torch.tensor(entries.to_numpy(dtype="float64", na_value=float("nan")))
