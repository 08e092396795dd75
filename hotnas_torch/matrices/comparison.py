"""Matrices of whatever can be compared: in memory, in a file, in a store."""

from collections.abc import Callable
from os import PathLike
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from hotnas_torch.matrices.gram_file import finished_gram
from hotnas_torch.matrices.gram_store import GramStore
from hotnas_torch.matrices.gram_store_writer import GramStoreWriter
from hotnas_torch.matrices.gram_writer import GramWriter
from hotnas_torch.matrices.pairwise import Blocks, Executor, Stages, Tiling, fill, finished_tiles
from hotnas_torch.matrices.progress import Progress
from hotnas_torch.matrices.solve_log import SolveLog

__all__ = ["Comparison", "Description", "compute", "write_gram", "write_gram_store"]

_STAGE = "networks"


class Comparison(Protocol):
    """Two lists as numbers of the U distinct items in them, and what computes the matrix."""

    @property
    def row_items(self) -> Tensor:
        """Item of every row, shape (A,), int64 on the CPU; all of 0..U-1 occur in a list."""
        ...

    @property
    def col_items(self) -> Tensor | None:
        """Item of every column, shape (B,); None compares the rows with themselves."""
        ...

    @property
    def edge(self) -> int:
        """Largest side of a tile."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the matrix lives."""
        ...

    @property
    def log(self) -> SolveLog:
        """What the solvers reported."""
        ...

    def blocks(
        self, *, progress: Progress, stages: Stages | None, executor: Executor | None
    ) -> Blocks:
        """Return what computes a tile; smaller matrices that it needs are computed now, as stages.

        Args:
            progress: As for `compute`.
            stages: Where their finished tiles go, and those of an interrupted run are.
            executor: As for `compute`.
        """
        ...


class Description(NamedTuple):
    """What a result says about itself.

    Attributes:
        settings: Everything that the values depend on, ready for JSON.
        names: Architecture strings, in order.
        keys: Keys of the networks in order; with the settings they identify the computation.
        named: Whether names are the caller's, who may give one to another network later.
    """

    settings: dict[str, Any]
    names: list[str]
    keys: list[str]
    named: bool = False


def compute(
    comparison: Comparison,
    *,
    progress: Progress = False,
    stages: Stages | None = None,
    executor: Executor | None = None,
) -> Tensor:
    """Return the matrix, shape (A, B), without a graph.

    Args:
        comparison: What is compared.
        progress: True shows a bar; a callable receives (stage, pairs done, pairs in all).
        stages: Where finished tiles go, and those of an interrupted run are.
        executor: Who computes; None is this process. The values are the same to the bit.
    """
    with torch.no_grad():
        tiling = Tiling(comparison.row_items, comparison.col_items, comparison.edge)
        return fill(
            tiling,
            comparison.blocks(progress=progress, stages=stages, executor=executor),
            dtype=comparison.dtype,
            device=comparison.device,
            stage=_STAGE,
            progress=progress,
            store=None if stages is None else stages(_STAGE, max(tiling.shape), tiling.edge),
            executor=executor,
        )


def write_gram(
    compare: Callable[[], Comparison],
    description: Description,
    *,
    out: str | PathLike[str],
    progress: Progress,
    resume: bool,
    overwrite: bool,
    take_over: bool,
    executor: Executor | None,
    grows: bool = False,
) -> Tensor:
    """Return a symmetric matrix that is kept in a file which survives an interruption.

    Args:
        compare: Makes the comparison, once the file is known to be writable and not finished.
        description: What the file says about itself.
        out: File to write.
        progress: As for `compute`.
        resume: Go on with an interrupted run, return a finished one.
        overwrite: Discard what an earlier run left.
        take_over: Take the file from the process that is writing it.
        executor: As for `compute`.
        grows: The finished file at `out` is what this computation starts from.

    Raises:
        GramFileError: `out` cannot be written, or holds something that must not be replaced.
    """
    settings, names, keys, _ = description
    if resume and not overwrite and not grows:
        ready = finished_gram(out, settings, keys)
        if ready is not None:
            return ready
    with GramWriter(
        out,
        settings=settings,
        keys=keys,
        names=names,
        resume=resume,
        overwrite=overwrite,
        take_over=take_over,
        grows=grows,
    ) as writer:
        comparison = compare()
        result = compute(
            comparison,
            progress=progress,
            stages=lambda name, *_: writer.stage(name, comparison.dtype),
            executor=executor,
        )
        comparison.log.warn()
        writer.finish(result)
    return result


def write_gram_store(
    comparison: Comparison,
    description: Description,
    *,
    folder: str | PathLike[str],
    progress: Progress,
    resume: bool,
    overwrite: bool,
    take_over: bool,
    executor: Executor | None,
    stored_as: torch.dtype | None = None,
) -> GramStore:
    """Write a symmetric matrix tile by tile to a folder, and open it; arguments as `write_gram`.

    Raises:
        GramFileError: `folder` cannot be written, or holds something that must not be replaced, or
            a value is above what `stored_as` can say.
        ImportError: zarr is not installed.
    """
    num_distinct = int(comparison.row_items.max()) + 1
    with (
        GramStoreWriter(
            folder,
            settings=description.settings,
            keys=description.keys,
            names=description.names,
            items=comparison.row_items,
            edge=comparison.edge,
            dtypes=(comparison.dtype, stored_as or comparison.dtype),
            resume=resume,
            overwrite=overwrite,
            take_over=take_over,
        ) as writer,
        torch.no_grad(),
    ):
        if not writer.complete:
            tiles = finished_tiles(
                Tiling(torch.arange(num_distinct), None, comparison.edge),
                comparison.blocks(progress=progress, stages=writer.stage, executor=executor),
                stage=_STAGE,
                progress=progress,
                store=writer.stage(_STAGE, num_distinct, comparison.edge),
                executor=executor,
            )
            for _ in tiles:
                pass
            comparison.log.warn()
            writer.finish()
    return GramStore(folder)
