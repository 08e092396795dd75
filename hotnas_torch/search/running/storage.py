"""One SQLite file that holds a search: its trials, and what a continuation needs."""

from __future__ import annotations

import json
import math
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hotnas_torch.arch import Network
from hotnas_torch.errors import ArchitectureError, StorageError
from hotnas_torch.search.base import refuse_difference
from hotnas_torch.search.running.trial import Outcome, Trial
from hotnas_torch.spaces import SearchSpace

__all__ = ["SCHEMA_VERSION", "OpenTrial", "Storage"]

SCHEMA_VERSION = 1
"""Version of the tables below, kept in the file's ``user_version``."""
# In the header of every file that we write; "hotn".
_APPLICATION_ID = 0x686F746E
_BUSY_SECONDS = 10.0

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE trial (
    number INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL,
    architecture TEXT NOT NULL UNIQUE,
    finished INTEGER NOT NULL DEFAULT 0,
    value REAL,
    metrics TEXT NOT NULL DEFAULT '{}',
    cost REAL NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    elapsed REAL
);
"""


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """A trial that was asked for.

    Attributes:
        number: Place in the order of asking.
        network: What is to be evaluated.
        outcome: What came of it; None as long as it is not finished.
        elapsed: Seconds of searching until it was finished; infinite as long as it is not.
    """

    number: int
    network: Network
    outcome: Outcome | None
    elapsed: float = math.inf


class Storage:
    """The trials of one search in one SQLite file.

    What is asked is written before it is evaluated, with the state of the strategy after asking;
    each result is written when it arrives, in a transaction of its own. A process that is killed
    loses the evaluations that were running and nothing else.

    Of two processes that write to one file the later one goes on, and the earlier one stops with an
    error at its next write; any number may read.

    Args:
        path: The file; None keeps the trials in memory.
        read_only: Open an existing file to read it, while another process may be writing.

    Attributes:
        path: The file, or None.

    Raises:
        StorageError: The file is missing (``read_only``), cannot be opened or written, is no search
            storage, is damaged, or was written by a newer version.
    """

    def __init__(self, path: str | PathLike[str] | None, *, read_only: bool = False) -> None:
        self.path = None if path is None else Path(path)
        if read_only and (self.path is None or not self.path.is_file()):
            raise StorageError(f"there is no storage file {self.path} (check the path).")
        if self.path is not None and self.path.is_dir():
            raise StorageError(f"{self.path} is a folder; name a file for the storage.")
        self._owner = uuid.uuid4().hex
        try:
            self._connection = self._connect(read_only)
        except sqlite3.Error as error:
            raise self._failure(error) from error
        try:
            self._check_format(read_only)
        except BaseException:
            self._connection.close()
            raise

    def _connect(self, read_only: bool) -> sqlite3.Connection:
        if self.path is None:
            return sqlite3.connect(":memory:", isolation_level=None)
        address = self.path.absolute().as_uri() + ("?mode=ro" if read_only else "")
        return sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)

    def _check_format(self, read_only: bool) -> None:
        try:
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        if tables == 0 and application == 0 and not read_only:
            with self._writing():
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            return
        if application != _APPLICATION_ID:
            raise StorageError(
                f"{self.path} is an SQLite file of something else; it is left as it is (choose "
                "another path for the storage)."
            )
        if version > SCHEMA_VERSION:
            raise StorageError(
                f"{self.path} has schema version {version}, this hotnas_torch knows versions up to "
                f"{SCHEMA_VERSION} (update hotnas_torch, or choose another path)."
            )

    # --- one search -------------------------------------------------------------------------------

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Claims the storage for a search: a new one, or the one that it holds.

        Args:
            identity: Description of the space, the strategy and the objective, ready for
                ``json.dumps``: names mapped to objects.

        Raises:
            StorageError: The storage holds a search with another description; the message names the
                first difference. Nothing is written.
        """
        held = self.identity
        if held is not None:
            for part, expected in identity.items():
                try:
                    refuse_difference("the storage", held.get(part, {}), expected, part)
                except ValueError as error:
                    raise StorageError(
                        f"{self.path}: {error} (choose another file to start a new search, or "
                        "continue with what the file was started with)."
                    ) from error
        with self._writing():
            self._set("owner", self._owner)
            if held is None:
                self._set("identity", json.dumps(identity))

    @property
    def identity(self) -> dict[str, Any] | None:
        """The description of the search that the storage holds, or None before :meth:`begin`."""
        content = self._get("identity")
        if content is None:
            return None
        found: dict[str, Any] = self._from_json(content, "identity")
        return found

    @property
    def state(self) -> dict[str, Any] | None:
        """The strategy's state after it was last asked, or None before that."""
        content = self._get("state")
        if content is None:
            return None
        found: dict[str, Any] = self._from_json(content, "state")
        return found

    def add_batch(self, networks: Sequence[Network], state: Mapping[str, Any]) -> list[OpenTrial]:
        """Records what was asked for, and the strategy's state after asking."""
        with self._writing():
            self._check_owner()
            number, batch = self._connection.execute(
                "SELECT coalesce(max(number), -1) + 1, coalesce(max(batch), -1) + 1 FROM trial"
            ).fetchone()
            self._connection.executemany(
                "INSERT INTO trial (number, batch, architecture) VALUES (?, ?, ?)",
                [(number + place, batch, net.spec) for place, net in enumerate(networks)],
            )
            self._set("state", json.dumps(state))
        return [OpenTrial(number + place, net, None) for place, net in enumerate(networks)]

    def add_outcome(self, number: int, outcome: Outcome, elapsed: float) -> None:
        """Records the outcome of one trial."""
        with self._writing():
            self._check_owner()
            self._connection.execute(
                "UPDATE trial SET finished = 1, value = ?, metrics = ?, cost = ?, error = ?,"
                " elapsed = ? WHERE number = ?",
                (
                    None if math.isnan(outcome.value) else outcome.value,
                    json.dumps(dict(outcome.metrics)),
                    outcome.cost,
                    outcome.error,
                    elapsed,
                    number,
                ),
            )

    def open_trials(self, space: SearchSpace) -> list[OpenTrial]:
        """Returns what the recorded state of the strategy awaits, in the order of asking.

        Some may be finished: those whose outcome was recorded after the state.
        """
        awaited = (
            "WHERE architecture IN (SELECT awaited.value FROM meta,"
            " json_each(meta.content, '$.pending') AS awaited WHERE meta.name = 'state')"
        )
        trials = []
        for row in self._select(awaited):
            net = self._network(row, space)
            if row["finished"]:
                trials.append(OpenTrial(row["number"], net, self._outcome(row), row["elapsed"]))
            else:
                trials.append(OpenTrial(row["number"], net, None))
        return trials

    def trials(self, space: SearchSpace) -> tuple[Trial, ...]:
        """Returns the finished trials in the order of asking."""
        return tuple(
            Trial(row["number"], self._network(row, space), self._outcome(row), row["elapsed"])
            for row in self._select("WHERE finished")
        )

    @property
    def num_trials(self) -> int:
        """Number of trials that were asked for, finished or not."""
        return int(self._scalar("SELECT count(*) FROM trial"))

    @property
    def elapsed(self) -> float:
        """Seconds of searching that the finished trials took, interruptions left out."""
        return float(self._scalar("SELECT coalesce(max(elapsed), 0) FROM trial"))

    def close(self) -> None:
        """Closes the file; the storage cannot be used any more."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- access -----------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it is in the file, or nothing."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _check_owner(self) -> None:
        if self._get("owner") != self._owner:
            raise StorageError(
                f"{self.path} was taken over by another process, which continues the search; this "
                "one stops."
            )

    def _set(self, name: str, content: str) -> None:
        self._connection.execute("REPLACE INTO meta VALUES (?, ?)", (name, content))

    def _get(self, name: str) -> str | None:
        content = self._scalar("SELECT max(content) FROM meta WHERE name = ?", name)
        return None if content is None else str(content)

    def _scalar(self, query: str, *arguments: object) -> Any:
        try:
            return self._connection.execute(query, arguments).fetchone()[0]
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _select(self, condition: str) -> list[dict[str, Any]]:
        columns = ("number", "architecture", "finished", "value", "metrics", "cost", "error")
        names = (*columns, "elapsed")
        query = f"SELECT {', '.join(names)} FROM trial {condition} ORDER BY number"
        try:
            rows = self._connection.execute(query).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _network(self, row: Mapping[str, Any], space: SearchSpace) -> Network:
        try:
            return space.from_string(row["architecture"])
        except ArchitectureError as error:
            raise StorageError(
                f"{self.path}, trial {row['number']}: {error} (the storage belongs to another "
                "space)."
            ) from error

    def _outcome(self, row: Mapping[str, Any]) -> Outcome:
        value = math.nan if row["value"] is None else row["value"]
        metrics = self._from_json(row["metrics"], f"trial {row['number']}")
        return Outcome(value, metrics, row["cost"], row["error"])

    def _from_json(self, content: str, what: str) -> Any:
        try:
            return json.loads(content)
        except json.JSONDecodeError as error:
            raise StorageError(f"{self.path}: {what} is damaged: {error}.") from error

    def _failure(self, error: sqlite3.Error) -> StorageError:
        return StorageError(
            f"cannot use {self.path} as a storage: {error} (it must be a file that hotnas_torch "
            "wrote, or a new one in a folder that exists and is writable)."
        )
