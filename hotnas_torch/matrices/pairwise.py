"""Tiles of a pairwise matrix: how the work is cut, who does it, where results go."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from hotnas_torch.matrices.progress import Progress, progress_bar
from hotnas_torch.matrices.solve_log import SolveLog

__all__ = [
    "MEMORY_BUDGET",
    "Blocks",
    "Executor",
    "Stages",
    "Tile",
    "TileStore",
    "Tiling",
    "are_straight",
    "distinct_pairs",
    "fill",
    "finished_tiles",
    "make_tiles",
    "straight_pairs",
    "tile_edge",
]

MEMORY_BUDGET = 256 * 2**20
"""Default bytes that a distance computation may hold beside its result."""

_BYTES_PER_PAIR = 256
"""Indices, codes, inverse maps and values of one pair of a tile while it is worked on."""

_CPU = torch.device("cpu")
_SHARE_OF_GPU = 64
"""One of as many parts of a GPU's memory may be held by any budget."""
_PAIRS_OF_MULTIPROCESSOR = 2**13
"""Pairs of a tile per multiprocessor of a GPU, which works on 128 at once."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A block of a pairwise matrix, in the order in which items are worked on.

    Attributes:
        index: Position of the tile in the sequence of tiles, the name that a journal uses.
        rows: Row range.
        cols: Column range.
        diagonal: Whether the block lies on the diagonal of a symmetric matrix.
    """

    index: int
    rows: slice
    cols: slice
    diagonal: bool

    @property
    def num_pairs(self) -> int:
        """Pairs that have to be solved: below the diagonal nothing, else every entry."""
        rows = self.rows.stop - self.rows.start
        cols = self.cols.stop - self.cols.start
        return int(rows * (rows - 1) // 2 if self.diagonal else rows * cols)


class TileStore(Protocol):
    """Where finished tiles are kept so that an interrupted computation can go on."""

    def load(self, tile: Tile) -> Tensor | None:
        """Return the block of a tile, shape (rows, columns), or None if it has not been saved."""

    def save(self, tile: Tile, values: Tensor) -> None:
        """Keep the block of a finished tile."""


Stages = Callable[[str, int, int], TileStore]
"""Store of the tiles of a matrix, from its name, its number of rows, and the side of a tile."""


def tile_edge(memory_budget: int, *, at_most: int, device: torch.device = _CPU) -> int:
    """Rows and columns of a tile whose pairs fit a quarter of a budget of bytes.

    Args:
        memory_budget: The bytes; of a GPU, never less than a part of its memory.
        at_most: Largest side where a processor computes.
        device: What computes. The last pairs of a launch leave a GPU idle, so that its tiles grow
            with the number of its multiprocessors.
    """
    if device.type == "cuda" and torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(device)
        memory_budget = max(memory_budget, gpu.total_memory // _SHARE_OF_GPU)
        side = math.isqrt(_PAIRS_OF_MULTIPROCESSOR * gpu.multi_processor_count)
        at_most = max(at_most, at_most * (side // 256) // 2)
    fitting = math.isqrt(max(1, memory_budget // (4 * _BYTES_PER_PAIR)))
    return max(1, min(at_most, fitting))


def make_tiles(num_rows: int, num_cols: int, edge: int, *, symmetric: bool) -> list[Tile]:
    """Cut a matrix into blocks of at most `edge` rows and columns.

    Args:
        num_rows: Rows of the matrix.
        num_cols: Columns of the matrix.
        edge: Largest side of a block.
        symmetric: Only blocks on and above the diagonal are listed.

    Returns:
        Tiles in row-major order; the position in the list is `Tile.index`.
    """
    tiles: list[Tile] = []
    for row in range(0, num_rows, edge):
        for col in range(row if symmetric else 0, num_cols, edge):
            tiles.append(
                Tile(
                    index=len(tiles),
                    rows=slice(row, min(row + edge, num_rows)),
                    cols=slice(col, min(col + edge, num_cols)),
                    diagonal=symmetric and row == col,
                )
            )
    return tiles


def distinct_pairs(
    rows: Tensor, cols: Tensor, num_items: int, there: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Unordered pairs of different items inside a block, each listed once.

    Args:
        rows: Item of every row of the block, shape (r,), int64, ascending without repeats.
        cols: Item of every column of the block, shape (c,), int64, ascending without repeats.
        num_items: Number of items that indices count over.
        there: `rows` and `cols` on the device where the pairs are wanted, which makes them; None
            makes them where `rows` are.

    Returns:
        The smaller item of each pair, shape (P,); the larger one, shape (P,); and a function that
        turns the values of the pairs, shape (P,), into the block, shape (r, c), in which equal
        items have the value 0. Because a pair is solved in this one orientation wherever it
        appears, its value is the same to the bit in every block.
    """
    shape, (x, y) = (len(rows), len(cols)), there or (rows, cols)
    if rows[-1] < cols[0]:
        return (
            x[:, None].expand(shape).flatten(),
            y[None].expand(shape).flatten(),
            lambda values: values.reshape(shape),
        )
    if torch.equal(rows, cols):
        i, j = torch.triu_indices(len(rows), len(rows), offset=1, device=x.device)

        def mirror(values: Tensor) -> Tensor:
            # Made there, not sent.
            i, j = torch.triu_indices(*shape, offset=1, device=values.device)
            block = values.new_zeros(shape)
            block[i, j] = values
            block[j, i] = values
            return block

        return x[i], x[j], mirror
    small = torch.minimum(rows[:, None], cols)
    large = torch.maximum(rows[:, None], cols)
    different = small != large
    codes, inverse = torch.unique((small * num_items + large)[different], return_inverse=True)
    places = different.flatten().nonzero().squeeze(1)
    codes = codes.to(x.device)

    def scatter(values: Tensor) -> Tensor:
        block = values.new_zeros(shape)
        where, which = torch.stack([places, inverse]).to(values.device)
        block.view(-1)[where] = values[which]
        return block

    return codes // num_items, codes % num_items, scatter


def are_straight(rows: Tensor, cols: Tensor) -> bool:
    """Whether all pairs of a block are known to be as `straight_pairs` asks, without looking."""
    return bool(rows[-1] < cols[0]) or torch.equal(rows, cols)


def straight_pairs(
    rows: Tensor, cols: Tensor, small: Tensor, large: Tensor, num_items: int
) -> Tensor:
    """Which pairs have their smaller item among the rows of a block and the larger in its columns.

    Args:
        rows: As for `distinct_pairs`.
        cols: As for `distinct_pairs`.
        small: What `distinct_pairs` returned, shape (P,).
        large: What it returned, shape (P,).
        num_items: As for `distinct_pairs`.

    Returns:
        Shape (P,), bool. The others have them the other way round.
    """
    in_rows = torch.zeros(num_items, dtype=torch.bool, device=small.device)
    in_rows[rows.to(small.device)] = True
    in_cols = torch.zeros_like(in_rows)
    in_cols[cols.to(small.device)] = True
    return in_rows[small] & in_cols[large]


class Tiling:
    """A pairwise matrix of items cut into tiles, rows and columns in the order of their items.

    Repeated items so share their tile and cost nothing.

    Args:
        rows: Item of every row, int64 on the CPU.
        cols: Item of every column; None for a symmetric matrix, of which the upper half is cut.
        edge: Largest side of a tile.

    Attributes:
        edge: Largest side of a tile.
        symmetric: Whether only the upper half is cut.
        shape: Rows and columns of the matrix.
        tiles: The tiles.
    """

    def __init__(self, rows: Tensor, cols: Tensor | None, edge: int) -> None:
        self.edge = edge
        self.symmetric = cols is None
        self.shape = (len(rows), len(rows if cols is None else cols))
        self.tiles = make_tiles(*self.shape, edge, symmetric=self.symmetric)
        self._row_order = torch.argsort(rows, stable=True)
        self._col_order = self._row_order if cols is None else torch.argsort(cols, stable=True)
        self._rows = rows[self._row_order]
        self._cols = self._rows if cols is None else cols[self._col_order]

    def where(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """Rows, shape (r, 1), and columns, shape (c,), of the matrix that a tile covers."""
        return self._row_order[tile.rows][:, None], self._col_order[tile.cols]

    def orders(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows and columns of the matrix in the order of the tiles, on a device."""
        return self._row_order.to(device), self._col_order.to(device)

    def compute(self, tile: Tile, block: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Values of a tile, shape (r, c), from a function of sorted distinct items."""
        row_set, row_place = torch.unique_consecutive(self._rows[tile.rows], return_inverse=True)
        col_set, col_place = torch.unique_consecutive(self._cols[tile.cols], return_inverse=True)
        values = block(row_set, col_set)
        if len(row_set) < len(row_place):
            values = values[row_place.to(values.device)]
        if len(col_set) < len(col_place):
            values = values[:, col_place.to(values.device)]
        return values


class Blocks(Protocol):
    """The entries of a matrix between items, a block at a time; can be sent to another process."""

    @property
    def device(self) -> torch.device:
        """Where they are solved."""
        ...

    @property
    def log(self) -> SolveLog:
        """What the solvers reported."""
        ...

    def __call__(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Distances, shape (r, c), between sorted distinct items (r,) and (c,), int64, CPU."""
        ...

    def to(self, device: torch.device) -> Self:
        """Return the same, solving on another device."""
        ...


class Executor(Protocol):
    """Who computes the tiles of a matrix."""

    @property
    def device(self) -> torch.device | None:
        """Where tiles are solved; None is the device of the metric."""
        ...

    def tiles(
        self, tiling: Tiling, blocks: Blocks, todo: Sequence[Tile]
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Yield each tile of `todo` with its values, shape (r, c), in the order of finishing."""
        ...


class _InProcess:
    """Computes one tile after the other here; the compiled solver takes all threads for each."""

    device = None

    def tiles(
        self, tiling: Tiling, blocks: Blocks, todo: Sequence[Tile]
    ) -> Iterator[tuple[Tile, Tensor]]:
        """See `Executor`."""
        for tile in todo:
            yield tile, tiling.compute(tile, blocks)


def finished_tiles(
    tiling: Tiling,
    blocks: Blocks,
    *,
    stage: str,
    progress: Progress = False,
    store: TileStore | None = None,
    executor: Executor | None = None,
) -> Iterator[tuple[Tile, Tensor]]:
    """Compute the tiles of a matrix, or take them from where an earlier run left them.

    Args:
        tiling: How the matrix is cut.
        blocks: Computes the entries.
        stage: What is computed, for the progress display.
        progress: As in `progress_bar`.
        store: Receives finished tiles; those that it holds already are not computed.
        executor: Who computes; None is this process.

    Yields:
        Every tile once with its values, shape (r, c): those of the store, then the others in the
        order in which they are finished and saved.
    """
    executor = _InProcess() if executor is None else executor
    todo: list[Tile] = []
    with progress_bar(progress, stage, sum(tile.num_pairs for tile in tiling.tiles)) as advance:
        for tile in tiling.tiles:
            values = None if store is None else store.load(tile)
            if values is None:
                todo.append(tile)
            else:
                yield tile, values
                advance(tile.num_pairs)
        # Without anything to do, nothing is sent anywhere.
        for tile, values in executor.tiles(tiling, blocks, todo) if todo else ():
            if store is not None:
                store.save(tile, values)
            yield tile, values
            advance(tile.num_pairs)


def fill(
    tiling: Tiling,
    blocks: Blocks,
    *,
    dtype: torch.dtype,
    device: torch.device,
    stage: str,
    progress: Progress = False,
    store: TileStore | None = None,
    executor: Executor | None = None,
) -> Tensor:
    """Compute a pairwise matrix tile by tile, straight into its place.

    Args:
        tiling: How the matrix is cut; of a symmetric one, half is computed.
        blocks: Computes the entries.
        dtype: Type of the matrix.
        device: Where the matrix lives.
        stage: What is computed, for the progress display.
        progress: As in `progress_bar`.
        store: As in `finished_tiles`.
        executor: As in `finished_tiles`.

    Returns:
        The whole matrix.
    """
    out = torch.empty(tiling.shape, dtype=dtype, device=device)
    rows, cols = tiling.orders(device)
    for tile, found in finished_tiles(
        tiling, blocks, stage=stage, progress=progress, store=store, executor=executor
    ):
        row, col = rows[tile.rows], cols[tile.cols]
        values = found.to(device)
        out[row[:, None], col] = values
        if tiling.symmetric and not tile.diagonal:
            out[col[:, None], row] = values.T
    return out
