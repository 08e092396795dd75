# Over 400 lines: one file format, read top to bottom.
"""One SQLite file that holds a search: its trials, and what a continuation needs."""

import hashlib
import json
import math
import os
import sqlite3
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hotnas_torch.arch import Network
from hotnas_torch.errors import ArchitectureError, StorageError
from hotnas_torch.files import InUseError, WriteLock
from hotnas_torch.search.asking import refuse_difference
from hotnas_torch.search.running.trial import Outcome, Trial
from hotnas_torch.spaces import SearchSpace

__all__ = ["SCHEMA_VERSION", "OpenTrial", "Storage"]

SCHEMA_VERSION = 2
"""Version of the tables below, kept in the file's `user_version`."""
# In the header of every file that we write; "hotn".
_APPLICATION_ID = 0x686F746E
_BUSY_SECONDS = 10.0
# Files that SQLite reads and writes with it.
_BESIDE = ("-journal", "-wal", "-shm")

_SCHEMA = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    content TEXT NOT NULL,
    checksum TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE trial (
    number INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL,
    architecture TEXT NOT NULL UNIQUE,
    finished INTEGER NOT NULL DEFAULT 0,
    value REAL,
    metrics TEXT NOT NULL DEFAULT '{}',
    cost REAL NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    elapsed REAL,
    checksum TEXT NOT NULL DEFAULT ''
);
"""
# Files of version 1 have no checksums; they get them when their search goes on.
_WITHOUT_CHECKSUMS = 1
_EARLIER = "earlier"
_COLUMNS = (
    "number",
    "batch",
    "architecture",
    "finished",
    "value",
    "metrics",
    "cost",
    "error",
    "elapsed",
)
_GOES_ON = "run the same search again: it goes on from there"
_KEPT = "what was recorded before is kept"
# Damaged names in the file reach the text of SQLite's messages.
_SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_WAYS_OUT = {
    "objective": "; if this objective gives the same values, pass accept_objective=True",
}
_SHARED = "it is a search that several processes share: pass shared=True to join it"
_ALONE = "it is a search of one process: leave shared out"
_REMEDIES = {
    sqlite3.SQLITE_FULL: f"the disk is full; {_KEPT}: make room, and {_GOES_ON}",
    sqlite3.SQLITE_IOERR: f"the disk fails or has no room; {_KEPT}: mend that, and {_GOES_ON}",
    sqlite3.SQLITE_BUSY: f"another program keeps it locked: end that program, and {_GOES_ON}",
    sqlite3.SQLITE_READONLY: "it can only be read: make the file and its folder writable, or "
    "choose another file",
    sqlite3.SQLITE_CANTOPEN: "it must be a file in a folder that exists and is writable",
    sqlite3.SQLITE_NOTADB: "it must be a file that hotnas_torch wrote, or a new one",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore a copy of it, or choose another file",
}
"""What to do, by SQLite's primary result code."""


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

    One process writes to a file and any number may read it. A second writer is refused as long as
    the first one lives (a file `<name>.lock` beside it says so, and goes with it), unless it
    takes the file over: then the first one stops with an error at its next write. Those of one
    shared search write side by side, see `Membership`.

    Every entry has a checksum. A damaged file is refused as a whole when it is opened.

    Args:
        path: The file; None keeps the trials in memory.
        read_only: Open an existing file to read it, while another process may be writing.

    Attributes:
        path: The file, or None.

    Raises:
        StorageError: The file is missing (`read_only`), cannot be opened or written, is no search
            storage, is damaged, or was written by a newer version.
    """

    def __init__(self, path: str | PathLike[str] | None, *, read_only: bool = False) -> None:
        try:
            self.path = None if path is None else Path(path)
        except TypeError as error:
            raise TypeError(f"storage must be a path or None; got {path!r}") from error
        if self.path is not None:
            self._check_path(self.path)
        if read_only and (self.path is None or not self.path.exists()):
            raise StorageError(f"there is no storage file {self.path} (check the path)")
        self._owner = uuid.uuid4().hex
        self._read_only = read_only
        self._version = SCHEMA_VERSION
        self._lock: WriteLock | None = None
        self._owned = True
        try:
            self._connection = self._connect(read_only)
        except _SQLITE_ERRORS as error:
            raise self._failure(error) from error
        try:
            self._check_format(read_only)
        except BaseException:
            self._connection.close()
            raise

    @staticmethod
    def _check_path(path: Path) -> None:
        try:
            path.lstat()
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StorageError(
                f"cannot use {str(path)!r} as a storage: {reason} (choose another name)"
            ) from error
        if path.exists() and not path.is_file():
            what = "a folder; name a file" if path.is_dir() else "no ordinary file; name one"
            raise StorageError(f"{path} is {what} for the storage")
        # SQLite would write where a link leads, and wait for who writes into a pipe.
        for suffix in _BESIDE:
            beside = Path(os.path.realpath(path) + suffix)
            if os.path.lexists(beside) and not stat.S_ISREG(beside.lstat().st_mode):
                raise StorageError(
                    f"cannot use {path} as a storage: {beside}, which belongs to it, is no "
                    "ordinary file (move it away, or choose another name)"
                )

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
        except _SQLITE_ERRORS as error:
            raise self._failure(error) from error
        if tables == 0 and application == 0:
            if read_only:
                raise StorageError(f"{self.path} is empty: it holds no search yet")
            with self.writing():
                if self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    return  # another process has just begun it
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            return
        if application != _APPLICATION_ID:
            raise StorageError(
                f"{self.path} is an SQLite file of something else; it is left as it is (choose "
                "another path for the storage)"
            )
        if version > SCHEMA_VERSION:
            raise StorageError(
                f"{self.path} has schema version {version}, this hotnas_torch knows versions up to "
                f"{SCHEMA_VERSION} (update hotnas_torch, or choose another path)"
            )
        self._version = version
        self._check_content()

    def _check_content(self) -> None:
        """Refuse a file in which anything is not as it was written."""
        try:
            self._check_tables()
            found = self._scalar("PRAGMA integrity_check(1)")
            if found != "ok":
                raise self._damaged(f"malformed: {found}")
            if self._version == _WITHOUT_CHECKSUMS:
                return self._check_numbers()
            for name, content, checksum in self._connection.execute("SELECT * FROM meta"):
                if checksum != _checksum(name, content):
                    raise self._damaged(f"{name} has a wrong checksum")
            query = f"SELECT {', '.join(_COLUMNS)}, checksum FROM trial ORDER BY number"
            place = -1
            for place, (*row, checksum) in enumerate(self._connection.execute(query)):
                if row[0] != place or checksum != _checksum(*row):
                    raise self._damaged(f"trial {place} is missing or has a wrong checksum")
            # A reader may come between two transactions of a writer: the earlier one counts.
            recorded = self.get("trials") or "0"
            if not recorded.isdecimal() or int(recorded) > place + 1:
                raise self._damaged(f"trial {place + 1} is missing")
        except _SQLITE_ERRORS as error:
            raise self._failure(error) from error

    def _check_tables(self) -> None:
        """Refuse tables of another form, and what SQLite would run: views, triggers, formulas."""
        entries = self._connection.execute("SELECT type, name FROM sqlite_master")
        own = {("table", "meta"), ("table", "trial"), ("index", "sqlite_autoindex_trial_1")}
        checksum = ("checksum",) if self._version > _WITHOUT_CHECKSUMS else ()
        fits = set(entries) == own
        for table, columns in (("meta", ("name", "content")), ("trial", _COLUMNS)):
            # Hidden columns are formulas.
            found = self._connection.execute(f"PRAGMA table_xinfo({table})")
            fits &= [(row[1], row[-1]) for row in found] == [(c, 0) for c in columns + checksum]
        if not fits:
            raise self._damaged(f"its tables are not those of version {self._version}")

    def _check_numbers(self) -> None:
        """Refuse trials that are not counted from 0, or times that are none."""
        query = "SELECT number, elapsed FROM trial ORDER BY number"
        for place, (number, elapsed) in enumerate(self._connection.execute(query)):
            if number != place:
                raise self._damaged(f"trial {place} is missing, the next one is {number}")
            if not (elapsed is None or (isinstance(elapsed, int | float) and elapsed >= 0)):
                raise self._damaged(f"trial {number} took {elapsed!r}, expected seconds")

    def _damaged(self, what: str) -> StorageError:
        return StorageError(
            f"{self.path} is damaged: {what} (restore a copy of the file, or choose another one "
            "for a new search)"
        )

    def _upgrade(self) -> None:
        """Add the checksums to a file that has none."""
        for table in ("meta", "trial"):
            self._connection.execute(
                f"ALTER TABLE {table} ADD COLUMN checksum TEXT NOT NULL DEFAULT ''"
            )
        self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._version = SCHEMA_VERSION
        for name, content in self._connection.execute("SELECT name, content FROM meta").fetchall():
            self.put(name, content)
        for (number,) in self._connection.execute("SELECT number FROM trial").fetchall():
            self._seal(number)
        self.put("trials", str(self.num_trials))

    # --- one search -------------------------------------------------------------------------------

    def begin(
        self,
        identity: Mapping[str, Any],
        *,
        take_over: bool = False,
        accept: Sequence[str] = (),
        shared: bool = False,
    ) -> None:
        """Claims the storage for a search: a new one, or the one that it holds.

        Args:
            identity: Description of the space, the strategy and the objective, ready for
                `json.dumps`: names mapped to objects.
            take_over: Claim it from a process that is writing to it.
            accept: Parts of the description that may differ; the new ones are recorded.
            shared: Let others write as well that say so, too.

        Raises:
            StorageError: The storage holds a search with another description; the message names the
                first difference. Or another process is writing to it. Nothing is written.
        """
        if self._read_only:
            raise StorageError(f"{self.path} was opened readonly")
        self._refuse_other(identity, accept)
        self._claim(take_over, shared)
        with self.writing():
            # Again: another process of a shared search may have begun it since.
            self._refuse_other(identity, accept)
            if self._version == _WITHOUT_CHECKSUMS:
                self._upgrade()
            self._owned = not shared
            self.put("owner", self._owner)
            self.put("identity", json.dumps(identity))

    def _refuse_other(self, identity: Mapping[str, Any], accept: Sequence[str]) -> None:
        held = self.identity
        if held is None:
            return
        for part, expected in identity.items():
            if part in accept:
                continue
            found = held.get(part, {})
            if self._version == _WITHOUT_CHECKSUMS and found.get("kind") == "function":
                # They were recorded by name alone.
                expected = {name: expected[name] for name in expected if name in found}
            try:
                refuse_difference("the storage", found, expected, part)
            except ValueError as error:
                way_out = _WAYS_OUT.get(part, "")
                if part == "run" and found.get("shared") != expected.get("shared"):
                    way_out = f"; {_SHARED if found.get('shared') else _ALONE}"
                raise StorageError(
                    f"{self.path}: {error} (choose another file to start a new search, or "
                    f"continue with what the file was started with{way_out})"
                ) from error

    def _claim(self, take_over: bool, shared: bool) -> None:
        if self.path is None or self._lock is not None:
            return
        try:
            # By its real name: two links to one file are one file.
            self._lock = WriteLock(
                Path(os.path.realpath(self.path)), shared=shared, take_over=take_over
            )
        except InUseError as error:
            raise StorageError(
                f"{self.path}: another search is writing to it ({error}); wait for it, choose "
                "another file, or pass take_over=True: then that one stops"
            ) from error
        except OSError as error:
            raise StorageError(
                f"cannot use {self.path} as a storage: {error} (it must be a file in a folder that "
                "exists and is writable)"
            ) from error

    @property
    def identity(self) -> dict[str, Any] | None:
        """The description of the search that the storage holds, or None before `begin`."""
        content = self.get("identity")
        if content is None:
            return None
        identity = self._from_json(content, "identity")
        if not all(isinstance(part, dict) for part in identity.values()):
            raise self._damaged("identity must be made of objects")
        return identity

    @property
    def state(self) -> dict[str, Any] | None:
        """The strategy's state after it was last asked, or None before that."""
        content = self.get("state")
        if content is None:
            return None
        return self._from_json(content, "state")

    def add_batch(self, networks: Sequence[Network], state: Mapping[str, Any]) -> list[OpenTrial]:
        """Record what was asked for, and the strategy's state after asking."""
        with self.writing():
            opened = self.insert(networks)
            self.put("state", json.dumps(state))
        return opened

    def insert(self, networks: Sequence[Network]) -> list[OpenTrial]:
        """Record networks as the next batch, within `writing`."""
        self._check_owner()
        number, batch = self._connection.execute(
            "SELECT coalesce(max(number), -1) + 1, coalesce(max(batch), -1) + 1 FROM trial"
        ).fetchone()
        self._connection.executemany(
            "INSERT INTO trial (number, batch, architecture) VALUES (?, ?, ?)",
            [(number + place, batch, net.spec) for place, net in enumerate(networks)],
        )
        for place in range(len(networks)):
            self._seal(number + place)
        self.put("trials", str(number + len(networks)))
        return [OpenTrial(number + place, net, None) for place, net in enumerate(networks)]

    def add_outcome(self, number: int, outcome: Outcome, elapsed: float) -> None:
        """Record the outcome of one trial."""
        with self.writing():
            self.finish(number, outcome, elapsed)

    def finish(self, number: int, outcome: Outcome, elapsed: float) -> None:
        """Record the outcome of one trial, within `writing`."""
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
        self._seal(number)

    def open_trials(self, space: SearchSpace) -> list[OpenTrial]:
        """Return what the recorded state of the strategy awaits, in the order of asking.

        Some may be finished: those whose outcome was recorded after the state.
        """
        open_trials = (
            "WHERE architecture IN (SELECT open_trials.value FROM meta,"
            " json_each(meta.content, '$.pending') AS open_trials WHERE meta.name = 'state')"
        )
        trials = []
        for row in self._select(open_trials):
            net = self._network(row, space)
            if row["finished"]:
                trials.append(OpenTrial(row["number"], net, self._outcome(row), row["elapsed"]))
            else:
                trials.append(OpenTrial(row["number"], net, None))
        return trials

    def trials(self, space: SearchSpace) -> tuple[Trial, ...]:
        """Return the finished trials in the order of asking."""
        return tuple(self._trial(row, space) for row in self._select("WHERE finished"))

    def networks(self, space: SearchSpace) -> list[Network]:
        """Return the networks of all trials in the order of asking, finished or not."""
        return [self._network(row, space) for row in self._select("")]

    def trial(self, number: int, space: SearchSpace) -> OpenTrial | Trial:
        """Return one trial, finished or not."""
        (row,) = self._select("WHERE number = ?", number)
        if row["finished"]:
            return self._trial(row, space)
        return OpenTrial(row["number"], self._network(row, space), None)

    def _trial(self, row: Mapping[str, Any], space: SearchSpace) -> Trial:
        return Trial(row["number"], self._network(row, space), self._outcome(row), row["elapsed"])

    def numbers(self, *, finished: bool) -> list[int]:
        """Return the numbers of the trials that are finished, or of those that are not."""
        return [row["number"] for row in self._select("WHERE finished = ?", int(finished))]

    def set_earlier(self, earlier: Sequence[Trial]) -> None:
        """Record what the strategy knew before the search, in place of what was recorded of it."""
        entries = [
            [
                trial.network.spec,
                None if trial.failed else trial.value,
                dict(trial.outcome.metrics),
            ]
            for trial in earlier
        ]
        if not earlier:
            return
        with self.writing():
            self._check_owner()
            self.put(_EARLIER, json.dumps({_EARLIER: entries}))

    def earlier(self, space: SearchSpace) -> tuple[Trial, ...]:
        """Return what the strategy knew before the search."""
        content = self.get(_EARLIER)
        entries: Any = [] if content is None else self._from_json(content, _EARLIER).get(_EARLIER)
        earlier = []
        try:
            for place, (spec, value, metrics) in enumerate(entries):
                net = self._network({"number": f"earlier {place}", "architecture": spec}, space)
                found = {str(name): float(one) for name, one in metrics.items()}
                outcome = Outcome(math.nan if value is None else float(value), found)
                earlier.append(Trial(place, net, outcome, 0.0, earlier=True))
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, StorageError):
                raise
            raise self._damaged(f"{_EARLIER} holds {error}") from error
        return tuple(earlier)

    @property
    def num_trials(self) -> int:
        """Number of trials that were asked for, finished or not."""
        return int(self._scalar("SELECT count(*) FROM trial"))

    @property
    def elapsed(self) -> float:
        """Seconds of searching that the finished trials took, interruptions left out."""
        return float(self._scalar("SELECT coalesce(max(elapsed), 0) FROM trial"))

    def close(self) -> None:
        """Close the file; the storage cannot be used any more."""
        self._connection.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

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
    def writing(self) -> Iterator[None]:
        """One transaction: all of it is in the file, or nothing."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                # On a full disk SQLite has taken the transaction back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except _SQLITE_ERRORS as error:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):  # the error that counts is the one at hand
                    self._connection.execute("ROLLBACK")
            raise self._failure(error) from error

    def _check_owner(self) -> None:
        lost = self._lock is not None and not self._lock.held
        if lost or (self._owned and self.get("owner") != self._owner):
            raise StorageError(
                f"{self.path} was taken over by another process, which continues the search; this "
                "one stops"
            )

    def put(self, name: str, content: str) -> None:
        """Write an entry that is not of one trial, within `writing`."""
        self._connection.execute(
            "REPLACE INTO meta VALUES (?, ?, ?)", (name, content, _checksum(name, content))
        )

    def _seal(self, number: int) -> None:
        """Write the checksum of a trial as it is now."""
        row = self._connection.execute(
            f"SELECT {', '.join(_COLUMNS)} FROM trial WHERE number = ?", (number,)
        ).fetchone()
        self._connection.execute(
            "UPDATE trial SET checksum = ? WHERE number = ?", (_checksum(*row), number)
        )

    def get(self, name: str) -> str | None:
        """Return an entry that is not of one trial, or None."""
        content = self._scalar("SELECT max(content) FROM meta WHERE name = ?", name)
        return None if content is None else str(content)

    def drop(self, name: str) -> None:
        """Remove an entry that is not of one trial, within `writing`."""
        self._connection.execute("DELETE FROM meta WHERE name = ?", (name,))

    def entries(self, prefix: str) -> dict[str, str]:
        """Return the entries whose names begin like this, without the beginning."""
        query = "SELECT name, content FROM meta WHERE substr(name, 1, ?) = ?"
        try:
            found = self._connection.execute(query, (len(prefix), prefix)).fetchall()
        except _SQLITE_ERRORS as error:
            raise self._failure(error) from error
        return {name.removeprefix(prefix): content for name, content in found}

    def _scalar(self, query: str, *arguments: object) -> Any:
        try:
            return self._connection.execute(query, arguments).fetchone()[0]
        except _SQLITE_ERRORS as error:
            raise self._failure(error) from error

    def _select(self, condition: str, *arguments: object) -> list[dict[str, Any]]:
        query = f"SELECT {', '.join(_COLUMNS)} FROM trial {condition} ORDER BY number"
        try:
            rows = self._connection.execute(query, arguments).fetchall()
        except _SQLITE_ERRORS as error:
            raise self._failure(error) from error
        return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]

    def _network(self, row: Mapping[str, Any], space: SearchSpace) -> Network:
        try:
            return space.from_string(row["architecture"])
        except (ArchitectureError, TypeError) as error:
            raise StorageError(
                f"{self.path}, trial {row['number']}: {error} (the storage belongs to another "
                "space)"
            ) from error

    def _outcome(self, row: Mapping[str, Any]) -> Outcome:
        what = f"trial {row['number']}"
        metrics = self._from_json(row["metrics"], what)
        value = math.nan if row["value"] is None else row["value"]
        numbers = (value, row["cost"], row["elapsed"], *metrics.values())
        if not all(isinstance(number, int | float) for number in numbers):
            raise self._damaged(f"{what} holds {numbers!r}, expected numbers")
        return Outcome(value, metrics, row["cost"], str(row["error"]))

    def _from_json(self, content: str, what: str) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged(f"{what} is no JSON text ({error})") from error
        if not isinstance(found, dict):
            raise self._damaged(f"{what} is {type(found).__name__}, expected an object")
        return found

    def _failure(self, error: Exception) -> StorageError:
        # The lowest byte is the primary result code; the others say more of the same.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        remedy = _REMEDIES.get(code, "it must be a file that hotnas_torch wrote, or a new one")
        return StorageError(f"cannot use {self.path} as a storage: {error} ({remedy})")


def _checksum(*entries: object) -> str:
    return hashlib.blake2b(json.dumps(entries, default=repr).encode(), digest_size=8).hexdigest()
