"""Tiles of a matrix on several devices of this machine at the same time."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue

import torch
from torch import Tensor

from hotnas_torch.arguments import usable_device
from hotnas_torch.matrices.pairwise import Blocks, Tile, Tiling

__all__ = ["DeviceExecutor"]

_AHEAD = 2
"""Tiles per device that are begun or finished but not yet taken."""


class DeviceExecutor:
    """Computes the tiles of matrices on several GPUs, each driven by a thread of this process.

    Tables go to every device once, and each tile to whichever device is free; a GPU has two at a
    time, so that it need not wait for the host. Values come back to
    the metric's device, the same to the bit as from one device of that kind. For more than one
    machine there is `hotnas_torch.integrations.ray.RayExecutor`.

    Args:
        devices: Devices of one type; None takes all CUDA devices.

    Raises:
        ValueError: There is no device, one that torch cannot use, or there are several types.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBenchMacro()
        >>> nets = space.sample(6, generator=torch.Generator().manual_seed(0))
        >>> distance = ht.HOTNN(space=space)
        >>> several = distance(nets, executor=DeviceExecutor(["cpu", "cpu"]))
        >>> torch.equal(several, distance(nets))
        True
    """

    def __init__(self, devices: Sequence[torch.device | str] | None = None) -> None:
        if devices is None:
            devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        self.devices = tuple(usable_device(device) for device in devices)
        types = sorted({device.type for device in self.devices})
        if len(types) != 1:
            got = ", ".join(types) or f"none, and torch sees {torch.cuda.device_count()} GPUs"
            raise ValueError(f"devices must be one or more of one type; got {got}")

    @property
    def device(self) -> torch.device:
        """The first of the devices, whose type says how values are rounded."""
        return self.devices[0]

    def tiles(
        self, tiling: Tiling, blocks: Blocks, todo: Sequence[Tile]
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Yield each tile of `todo` with its values, in the order of finishing.

        Raises:
            SolverError: As on one device.
        """
        idle: SimpleQueue[Blocks] = SimpleQueue()
        there = [blocks.to(device) for device in self.devices]
        # While a GPU computes one tile, the host prepares the next; a processor would do both.
        at_once = 1 if self.device.type == "cpu" else 2
        for mine in there * at_once:
            idle.put(mine)

        def compute(tile: Tile) -> tuple[Tile, Tensor]:
            mine = idle.get()
            try:
                with torch.no_grad():
                    return tile, tiling.compute(tile, mine)
            finally:
                idle.put(mine)

        waiting = deque(todo)
        running: set[Future[tuple[Tile, Tensor]]] = set()
        with ThreadPoolExecutor(len(there) * at_once, "tiles") as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < _AHEAD * len(self.devices):
                        running.add(pool.submit(compute, waiting.popleft()))
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            finally:
                for future in running:
                    future.cancel()
