"""A Ray cluster as executor: of the tiles of a matrix, and of the evaluations of a search."""

import logging
import math
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from hotnas_torch.errors import ClusterError
from hotnas_torch.integrations.ray.broadcast import (
    Broadcast,
    Software,
    import_ray,
    lost_worker,
    not_loaded,
    times,
)
from hotnas_torch.matrices.pairwise import Blocks, Tile, Tiling
from hotnas_torch.matrices.solve_log import SolveLog

if TYPE_CHECKING:
    from hotnas_torch.integrations.ray.evaluations import RayEvaluator
    from hotnas_torch.search.running.trial import ObjectiveFunction
    from hotnas_torch.search.running.workers import TimeLimits

__all__ = ["RayExecutor"]

_AHEAD = 2
"""Tasks on their way per task that can run: the next one lies ready where one has finished."""
_SECONDS_BETWEEN_COUNTS = 5.0
_SECONDS_TO_ANSWER = 10.0


class RayExecutor:
    """Computes on a Ray cluster; a context manager, used wherever an `executor` can be given.

    Every node needs the same version of this library. A worker that is lost (killed, out of memory,
    or with its whole node) costs the task that it was working on, which begins again elsewhere.
    Tiles are the same to the bit as in one process, where processors have one instruction set.

    Args:
        address: Of the cluster, as `ray.init` takes it: `"auto"` for the one that this machine
            belongs to, or `"host:6379"`. None uses the connection that the program has made. A
            local Ray is never started.
        num_cpus: Processors that a task takes, > 0; solvers use as many threads.
        num_gpus: GPUs that a task takes, >= 0.
        device: Where tiles are solved, for example `"cuda"`; None is the metric's device.
        retries: How often a task that loses its worker is begun again, >= 0.
        timeout: Seconds after which an evaluation is stopped, counted from its start; None waits.

    Raises:
        ClusterError: The cluster cannot be reached, or has no node for such a task.
        ImportError: ray is not installed.
        TypeError, ValueError: An argument of the wrong kind or out of range.

    Example:
        Not run here, as it needs a cluster (`ray start --head` starts one on this machine)::

            with RayExecutor("auto") as executor:
                distances = ht.HOTNN(space=space)(nets, executor=executor)
                result = run(strategy, objective, budget=60, workers=4, asynchronous=True,
                             executor=executor)
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        num_cpus: float = 1,
        num_gpus: float = 0,
        device: torch.device | str | None = None,
        retries: int = 3,
        timeout: float | None = None,
    ) -> None:
        if not (math.isfinite(num_cpus) and num_cpus > 0.0):
            raise ValueError(f"num_cpus must be a number > 0; got {num_cpus!r}")
        if not (math.isfinite(num_gpus) and num_gpus >= 0.0):
            raise ValueError(f"num_gpus must be a number >= 0; got {num_gpus!r}")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ValueError(f"retries must be an integer >= 0; got {retries!r}")
        if timeout is not None and not timeout > 0.0:
            raise ValueError(
                f"timeout must be a positive number of seconds or None; got {timeout!r}"
            )
        self.num_cpus, self.num_gpus = num_cpus, num_gpus
        self.retries, self.timeout = retries, timeout
        self._device = None if device is None else torch.device(device)
        self._ray = import_ray()
        self._connected = self._connect(address)
        try:
            self._check_room()
        except BaseException:
            self.close()
            raise

    def _connect(self, address: str | None) -> bool:
        """Connect the program to a cluster; False if it was connected before."""
        if self._ray.is_initialized():
            here = self._ray.get_runtime_context().gcs_address
            if address not in (None, "auto", here):
                raise ValueError(
                    f"address must be {here!r}, to which this program is connected already, or be"
                    f" left out; got {address!r}"
                )
            return False
        if address is None:
            raise ClusterError(
                "this program is not connected to Ray (pass address='auto' or 'host:6379', or call"
                " ray.init() first; a local Ray is not started by itself)"
            )
        _check_reachable(address)
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (RuntimeError, ValueError, OSError) as error:
            raise ClusterError(
                f"cannot reach a Ray cluster at {address!r}: {error} (start one with `ray start"
                " --head`, and check the address)"
            ) from error
        return True

    # --- tiles ------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device | None:
        """Where tiles are solved; None is the device of the metric."""
        return self._device

    def tiles(
        self, tiling: Tiling, blocks: Blocks, todo: Sequence[Tile]
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Compute tiles; what a `hotnas_torch.matrices.pairwise.Executor` does.

        Tables go to each worker process once, and values come back as they are finished; no more of
        them are on their way than the cluster can compute at once, and as many again.

        Raises:
            ClusterError: A tile lost its worker again and again, or a worker runs another version.
            SolverError: As in one process.
        """
        self._check_room()
        solve = self._ray.remote(_solve).options(
            num_cpus=self.num_cpus, num_gpus=self.num_gpus, max_retries=self.retries
        )
        job = Broadcast(_packed(tiling, blocks, self._device))
        num_threads = max(1, int(self.num_cpus))
        waiting = deque(todo)
        running: dict[Any, Tile] = {}
        counted, most = -math.inf, 0
        try:
            while waiting or running:
                if time.monotonic() - counted > _SECONDS_BETWEEN_COUNTS:
                    counted, most = time.monotonic(), _AHEAD * max(1, self.room())
                while waiting and len(running) < most:
                    tile = waiting.popleft()
                    running[solve.remote(job, tile, num_threads)] = tile
                done, _ = self._ray.wait(list(running), timeout=_SECONDS_BETWEEN_COUNTS)
                for reference in done:
                    tile = running.pop(reference)
                    values, log = self._result(reference, tile)
                    blocks.log.merge(log)
                    yield tile, values
        finally:
            for reference in running:
                self._ray.cancel(reference)

    def _result(self, reference: Any, tile: Tile) -> tuple[Tensor, SolveLog]:
        try:
            values, log = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise (not_loaded(error) or error.cause) from error
        except lost_worker() as error:
            raise ClusterError(
                f"tile {tile.index} lost its worker {times(self.retries + 1)}: {error} (finished"
                " tiles of a file or a store are kept; look for memory on the nodes, or raise"
                " retries)"
            ) from error
        # Ray's arrays lie in memory that is shared and read-only.
        return torch.from_numpy(values.copy()), log

    # --- evaluations ------------------------------------------------------------------------------

    def evaluator(
        self,
        objective: "ObjectiveFunction",
        workers: int,
        catch: tuple[type[Exception], ...],
        *,
        limits: "TimeLimits | None" = None,
    ) -> "RayEvaluator":
        """Evaluate `workers` networks at a time; what a `search.workers.Executor` does.

        Raises:
            TypeError: The objective cannot be sent to another process.
        """
        # Processes that solve tiles import this module and need no Gaussian processes.
        from hotnas_torch.integrations.ray.evaluations import RayEvaluator
        from hotnas_torch.search.running.workers import TimeLimits

        return RayEvaluator(
            objective,
            workers,
            catch,
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            retries=self.retries,
            limits=TimeLimits(self.timeout)
            if limits is None
            else replace(limits, timeout=self.timeout),
        )

    # --- the cluster ------------------------------------------------------------------------------

    def room(self) -> int:
        """Tasks of this executor that the nodes can run at once, whether or not they are free."""
        room = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                resources = node["Resources"]
                fitting = resources.get("CPU", 0.0) / self.num_cpus
                if self.num_gpus:
                    fitting = min(fitting, resources.get("GPU", 0.0) / self.num_gpus)
                room += int(fitting)
        return room

    def _check_room(self) -> None:
        if not self.room():
            raise ClusterError(
                f"no node of the cluster offers {self.num_cpus:g} processors"
                + (f" and {self.num_gpus:g} GPUs" if self.num_gpus else "")
                + " for a task (start workers with `ray start --address=...`, or ask for less)"
            )

    def close(self) -> None:
        """Leave the cluster, if this executor has made the connection."""
        if self._connected:
            self._connected = False
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _check_reachable(address: str) -> None:
    """Ask for a connection once; Ray itself tries for minutes.

    Raises:
        ClusterError: Nothing answers there.
        ValueError: It is no address, or one at which Ray would start.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ValueError(
            f"address must be 'auto' or 'host:port'; got {address!r} (to compute on this machine"
            " alone, leave the executor out)"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"cannot reach a Ray cluster at {address!r}: {error} (start one with `ray start"
            " --head`, and check the address)"
        ) from error


def _solve(job: Broadcast, tile: Tile, num_threads: int) -> tuple[Any, SolveLog]:
    """One tile, in a worker process."""
    tiling, blocks = job.received(_unpack)
    torch.set_num_threads(num_threads)
    with torch.no_grad():
        values = tiling.compute(tile, blocks)
    return values.cpu().numpy(), blocks.log.taken()


_Content = tuple[Tiling, Blocks, torch.device, Software]


def _packed(tiling: Tiling, blocks: Blocks, device: torch.device | None) -> _Content:
    """Return what workers receive.

    Tables travel as tensors of the host: the GPU that they lie on here is none of a worker's.
    """
    device = torch.device(blocks.device.type) if device is None else device
    on_host = blocks if blocks.device.type == "cpu" else blocks.to(torch.device("cpu"))
    return tiling, on_host, device, Software.here()


def _unpack(content: _Content) -> tuple[Tiling, Blocks]:
    tiling, blocks, device, software = content
    Software.here().check_same(software)
    return tiling, blocks if device == blocks.device else blocks.to(device)
