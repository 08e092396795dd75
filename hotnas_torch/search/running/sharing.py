"""Several processes at one search: who evaluates what, and who is still there."""

import json
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from hotnas_torch.arch import Network
from hotnas_torch.errors import StorageError
from hotnas_torch.search.running.storage import OpenTrial, Storage
from hotnas_torch.search.running.trial import Outcome, Trial
from hotnas_torch.spaces import SearchSpace

__all__ = ["Membership"]

_BEAT, _HOLDS, _JOINED = "beat ", "holds ", "joined"
# Signs of life per time after which a process counts as dead.
_BEATS = 6


class Membership:
    """This process among those that search in one file; used as a context manager.

    Each process writes down which trials it is evaluating, and counts on a number as a sign of
    life, in a thread. One that others see standing still for `patience` seconds, by their own
    clocks, counts as dead: its trials go to who asks next, and what it should still find out about
    them is not recorded. No clocks of different machines are compared.

    Args:
        store: The file, claimed with `shared=True`.
        space: What is searched.
        patience: Seconds without a sign of life after which a process counts as dead.

    Attributes:
        place: How many processes had joined the search before this one.
    """

    def __init__(self, store: Storage, space: SearchSpace, patience: float) -> None:
        self._store = store
        self._space = space
        self._patience = patience
        self._name = uuid.uuid4().hex
        self._known: set[int] = set()  # finished trials that the strategy has heard of
        self._begun = 0  # of how many trials it has
        self._seen: dict[str, tuple[str, float]] = {}
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hotnas-beat", daemon=True)
        self.place = 0

    def __enter__(self) -> Self:
        with self._store.writing():
            self.place = int(self._store.get(_JOINED) or 0)
            self._store.put(_JOINED, str(self.place + 1))
            self._store.put(_BEAT + self._name, "0")
            self._hold([])
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leaving.set()
        self._thread.join()
        # What it was evaluating belongs to nobody then. If that fails, its silence says the same.
        with suppress(StorageError), self._store.writing():
            self._store.drop(_HOLDS + self._name)
            self._store.drop(_BEAT + self._name)

    def _beat(self) -> None:
        count = 0
        # A connection of its own. What keeps it from writing is said by the search's next write.
        with suppress(StorageError), Storage(self._store.path) as store:
            while not self._leaving.wait(self._patience / _BEATS):
                count += 1
                with suppress(StorageError), store.writing():
                    store.put(_BEAT + self._name, str(count))

    def _hold(self, numbers: Sequence[int]) -> None:
        self._store.put(_HOLDS + self._name, json.dumps(sorted(numbers)))

    def _held(self) -> list[int]:
        """Return the trials of this process; none if it was taken for dead."""
        return list(json.loads(self._store.get(_HOLDS + self._name) or "[]"))

    def _held_by_others(self) -> set[int]:
        held = self._store.entries(_HOLDS)
        return {
            number
            for name, content in held.items()
            if name != self._name
            for number in json.loads(content)
        }

    def news(self) -> tuple[list[Network], list[Trial]]:
        """Return the networks that were begun since the last time, and the trials that finished."""
        numbers = self._store.numbers(finished=True)
        trials = []
        for number in numbers:
            if number not in self._known:
                trial = self._store.trial(number, self._space)
                assert isinstance(trial, Trial)
                trials.append(trial)
        self._known |= {trial.number for trial in trials}
        begun = [
            self._store.trial(number, self._space).network
            for number in range(self._begun, self._store.num_trials)
            if number not in self._known
        ]
        self._begun = max(self._begun, self._store.num_trials)
        return begun, trials

    def add(self, network: Network, most: int | None) -> OpenTrial | None:
        """Take a network for this process.

        Args:
            network: What the strategy proposes, by all the news.
            most: Trials in all; None is no limit.

        Returns:
            None if there is news: another process has begun an equal network, or the last trial.
        """
        key = self._space.key(network)
        with self._store.writing():
            count = self._store.num_trials
            if most is not None and count >= most:
                return None
            for number in range(self._begun, count):
                if self._space.key(self._store.trial(number, self._space).network) == key:
                    return None
            (trial,) = self._store.insert([network])
            self._hold([*self._held(), trial.number])
        return trial

    def orphan(self) -> OpenTrial | None:
        """Take a trial that nobody is evaluating any more."""
        now = time.monotonic()
        beats = self._store.entries(_BEAT)
        dead = set()
        for name, beat in beats.items():
            if name == self._name:
                continue
            seen, since = self._seen.get(name, ("", now))
            if seen != beat:
                self._seen[name] = (beat, now)
            elif now - since > self._patience:
                dead.add(name)
        if not dead and not self._unheld():
            return None
        with self._store.writing():
            for name in dead:
                if self._store.get(_BEAT + name) == self._seen[name][0]:
                    self._store.drop(_HOLDS + name)
                    self._store.drop(_BEAT + name)
            unheld = self._unheld()
            if not unheld:
                return None
            self._hold([*self._held(), unheld[0]])
        trial = self._store.trial(unheld[0], self._space)
        assert isinstance(trial, OpenTrial)
        return trial

    def _unheld(self) -> list[int]:
        taken = self._held_by_others() | set(self._held())
        return [number for number in self._store.numbers(finished=False) if number not in taken]

    def finish(self, number: int, outcome: Outcome, elapsed: float) -> bool:
        """Record an outcome; False if the trial has become another process's meanwhile."""
        with self._store.writing():
            open_trials = self._store.numbers(finished=False)
            if number not in open_trials or number in self._held_by_others():
                return False
            self._store.finish(number, outcome, elapsed)
            self._hold([one for one in self._held() if one != number])
        return True

    @property
    def waiting(self) -> bool:
        """Whether trials are being evaluated, by whomever."""
        return bool(self._store.numbers(finished=False))
