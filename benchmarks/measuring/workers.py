"""Work for several processes, which are forked: they have what their parent holds."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from hotnas_torch.matrices.pairwise import Blocks, Tile, Tiling
from hotnas_torch.matrices.solve_log import SolveLog

__all__ = ["Processes", "mapped"]

Held = TypeVar("Held")
Item = TypeVar("Item")
Result = TypeVar("Result")

_held: list[Any] = []


def mapped(
    function: Callable[[Held, Item], Result], held: Held, items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Yield function(held, item) for every item, in order.

    Args:
        function: Of a module, so that its name reaches the workers.
        held: What all calls read; it is not sent.
        items: Sent, as the results are.
        workers: Processes, each on one thread; 1 is this one.
    """
    if workers == 1:
        yield from (function(held, item) for item in items)
        return
    with concurrent.futures.ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_hold,
        initargs=(function, held),
    ) as pool:
        yield from pool.map(_call, items)


def _hold(function: Callable[[Any, Any], Any], held: Any) -> None:
    torch.set_num_threads(1)
    _held[:] = [function, held]


def _call(item: Any) -> Any:
    function, held = _held
    return function(held, item)


class Processes:
    """Computes the tiles of a matrix; an executor of distances.

    Args:
        workers: Processes, each on one thread.
    """

    device = None

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def tiles(
        self, tiling: Tiling, blocks: Blocks, todo: Sequence[Tile]
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Yield each tile with its values."""
        found = mapped(_tile, (tiling, blocks), todo, self.workers)
        for tile, (values, log) in zip(todo, found, strict=True):
            blocks.log.merge(log)
            yield tile, torch.from_numpy(values)


def _tile(held: tuple[Tiling, Blocks], tile: Tile) -> tuple[Any, SolveLog]:
    tiling, blocks = held
    values = tiling.compute(tile, blocks)
    return values.numpy(), blocks.log.taken()
