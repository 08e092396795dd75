"""What the solvers reported over all tiles of one computation."""

import warnings
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.errors import ConvergenceWarning, SolverError
from hotnas_torch.ot import SolveStatus

__all__ = ["Reports", "SolveLog"]


class Reports:
    """What the solvers of one tile report, unread: reading waits for the device."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, objective: Tensor, gap: Tensor, status: Tensor) -> None:
        """Keep what was said of a batch of pairs; arguments as for `SolveLog.add`."""
        self._batches.append((objective, gap, status))

    def together(self) -> tuple[Tensor, ...] | None:
        """Return all batches as one; None if there are none."""
        if not self._batches:
            return None
        return tuple(torch.cat(parts) for parts in zip(*self._batches, strict=True))


class SolveLog:
    """What the solvers reported over all tiles of one computation.

    Failures raise at once, because a matrix with a wrong entry is of no use; items that stopped at
    the iteration limit are counted and reported in one warning at the end. Threads may share one.
    """

    def __init__(self, max_iter: int) -> None:
        self._max_iter = max_iter
        self._pairs = 0
        self._stopped = 0
        self._worst = 0.0
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())

    def taken(self) -> "SolveLog":
        """Return what was recorded so far, which this log then no longer holds."""
        taken = SolveLog(self._max_iter)
        taken.merge(self)
        self._pairs, self._stopped, self._worst = 0, 0, 0.0
        return taken

    def merge(self, other: "SolveLog") -> None:
        """Record what another log, perhaps of another process, recorded."""
        with self._lock:
            self._pairs += other._pairs
            self._stopped += other._stopped
            self._worst = max(self._worst, other._worst)

    def add(self, objective: Tensor, gap: Tensor, status: Tensor) -> None:
        """Record a batch of solved pairs.

        Args:
            objective: Values, shape (P,).
            gap: Duality gaps, shape (P,).
            status: Status codes, shape (P,), int32.

        Raises:
            SolverError: A pair ended without a usable value.
        """
        here = SolveLog(self._max_iter)
        here._pairs = status.numel()
        failed = (status >= SolveStatus.NONFINITE.value) | ~torch.isfinite(objective)
        stopped = status == SolveStatus.MAX_ITER.value
        any_failed, any_stopped = torch.stack([failed.any(), stopped.any()]).cpu().tolist()
        if any_failed:
            raise SolverError(
                f"{int(failed.sum())} of {status.numel()} cell pairs ended without a finite value;"
                " check that the operation tree's lengths and `unreachable` are moderate numbers,"
                " or compute with dtype=torch.float64"
            )
        if any_stopped:
            here._stopped = int(stopped.sum())
            relative = gap[stopped] / objective[stopped].abs().clamp_min(1e-12)
            here._worst = float(relative.max())
        self.merge(here)

    def take(self, reports: Reports) -> None:
        """Record what a tile reported; the host waits once.

        Raises:
            SolverError: A pair ended without a usable value.
        """
        batch = reports.together()
        if batch is not None:
            self.add(*batch)

    def warn(self) -> None:
        """Warn once if pairs stopped at the iteration limit."""
        if self._stopped:
            warnings.warn(
                f"{self._stopped} of {self._pairs} cell pairs stopped after max_iter="
                f"{self._max_iter} transports with a relative gap of up to {self._worst:.1e};"
                " raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=4,
            )
