"""Gram matrices that fit no memory: a Zarr folder of tiles, read where they are needed.

The folder is a Zarr group of format 3, which any Zarr library reads::

    distances   (U, U)  between the U distinct networks in the order in which they are worked on;
                        one chunk per tile, only those on and above the diagonal exist;
                        float64, float32 or, rounded, float16
    item        (X,)    which distinct network each of the X given ones is
    networks            UTF-8 text, the architecture strings, one per line
    cells       (C, C)  between distinct cells, in the same form, where the computation keeps them

A chunk is written in one step with a checksum and never changes, so a tile is there or is computed
again, and it does not matter who computes it or how often.
"""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hotnas_torch.errors import GramFileError
from hotnas_torch.files import is_version, open_ordinary
from hotnas_torch.matrices.neighbors import Neighbors, check_num_neighbors, nearest_of_rows
from hotnas_torch.matrices.pairwise import MEMORY_BUDGET

__all__ = ["STORED_TYPES", "GramStore"]

FORMAT = "hotnas-gram-store"
FORMAT_VERSION = 1
STORED_TYPES = (torch.float16, torch.float32, torch.float64)
"""Of distances between networks."""
ARRAYS = ("distances", "item", "networks", "cells")
BYTES_PER_CHUNK = 2**20
"""Of "item" and "networks"."""

_CHECKED, _COMPRESSED = ["bytes", "crc32c"], ["bytes", "zstd"]
_CRC_BYTES = 4
_LONGEST_HEADER = 18
_ZSTD_MAGIC = bytes.fromhex("28b52ffd")


class GramStore:
    """A finished store, of which only what is asked for is read.

    Args:
        folder: Folder that the `gram_store` of a distance or `hotnas gram --store` wrote.

    Attributes:
        folder: The folder.
        meta: `"settings"` of the metric, `"fingerprint"` and what else describes it.
        items: Which distinct network each network is, shape (X,), int64.

    Raises:
        FileNotFoundError: There is no such folder.
        GramFileError: The folder is damaged, of another kind, or not finished.
        ImportError: zarr is not installed.

    Complexity: a row of X networks reads one row and one column of tiles, `2 / tiles per side` of
        the store; rows that share tiles share the reading.

    Example:
        >>> import tempfile
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBenchMacro()
        >>> nets = space.sample(6, generator=torch.Generator().manual_seed(0), distinct=True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = ht.HOTNN(space=space).gram_store(nets, folder, progress=False)
        ...     store.rows([2]).shape, store.neighbors([2], 3).indices.shape
        (torch.Size([1, 6]), torch.Size([1, 3]))
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {self.folder}")
        root = open_group(self.folder, "r")
        self.meta = description_of(self.folder, root)
        if self.meta["state"] != "complete":
            raise GramFileError(
                f"{self.folder} holds an interrupted run (compute it again with resume=True)"
            )
        with readable(self.folder):
            self._distances = stored_array(root, "distances", STORED_TYPES, 2)
            self._names = stored_array(root, "networks", (torch.uint8,), 1)
            items = stored_array(root, "item", (torch.int64,), 1)
            _check_chunks(self.folder, items)
            if items.shape[0] != self.meta["num_networks"]:
                raise ValueError(f"{items.shape[0]} items for {self.meta['num_networks']} networks")
            self.items = torch.from_numpy(np.asarray(items[:]))
            num, edge = self._distances.shape[0], self._distances.chunks[0]
            if self._distances.shape != (num, num) or self._distances.chunks != (edge, edge):
                raise ValueError("the distances are not square, or their tiles are not")
            if (
                len(self.items) == 0
                or int(self.items.min()) < 0
                or int(self.items.max()) != num - 1
                or num > len(self.items)
            ):
                raise ValueError(f"the items are not numbers below {num}")
            self._edge: int = edge

    def __len__(self) -> int:
        return len(self.items)

    @property
    def networks(self) -> list[str]:
        """Architecture strings in the order in which they were given."""
        with readable(self.folder):
            _check_chunks(self.folder, self._names)
            names = bytes(np.asarray(self._names[:])).decode().split("\n")
            if len(names) != len(self):
                raise ValueError(f"{len(names)} names for {len(self)} networks")
            return names

    @property
    def dtype(self) -> torch.dtype:
        """Type of the distances as they are read: float32 also where they are stored as float16."""
        stored: torch.dtype = getattr(torch, str(self._distances.dtype))
        return torch.promote_types(stored, torch.float32)

    def rows(self, networks: Sequence[int] | Tensor) -> Tensor:
        """Distances of some networks to all.

        Args:
            networks: Numbers of r networks, 0 <= number < X.

        Returns:
            Shape (r, X), on the CPU.

        Raises:
            TypeError: They are no whole numbers.
            IndexError: A number out of range; the message names it.
            GramFileError: A tile is damaged or missing.
        """
        items = self.items[self._numbers(networks)]
        distinct, place = torch.unique(items, return_inverse=True)
        return self._distinct_rows(distinct)[place][:, self.items]

    def block(self, rows: Sequence[int] | Tensor, cols: Sequence[int] | Tensor) -> Tensor:
        """Distances between chosen networks, shape (r, c); reads the tiles that hold them."""
        row_items = self.items[self._numbers(rows)]
        col_items = self.items[self._numbers(cols)]
        row_set, row_place = torch.unique(row_items, return_inverse=True)
        col_set, col_place = torch.unique(col_items, return_inverse=True)
        return self._distinct_rows(row_set, col_set)[row_place[:, None], col_place]

    def neighbors(self, networks: Sequence[int] | Tensor, k: int) -> Neighbors:
        """Return the nearest other networks.

        Args:
            networks: Numbers of r networks.
            k: How many neighbours, 1 <= k < X.

        Raises:
            TypeError: k is no integer.
            ValueError: k out of range.
            IndexError: A number out of range.
            GramFileError: A tile is damaged or missing.
        """
        check_num_neighbors(k, len(self) - 1)
        numbers = self._numbers(networks)
        distances = torch.empty(len(numbers), k, dtype=self.dtype)
        indices = torch.empty(len(numbers), k, dtype=torch.int64)
        at_once = max(1, MEMORY_BUDGET // (4 * self.dtype.itemsize * len(self)))
        # In the order of the tiles, so that those that share them are answered together.
        for members in torch.argsort(self.items[numbers], stable=True).split(at_once):
            rows = self.rows(numbers[members])
            distances[members], indices[members] = nearest_of_rows(rows, numbers[members], k)
        return Neighbors(distances, indices)

    def kernel(
        self,
        rows: Sequence[int] | Tensor,
        cols: Sequence[int] | Tensor | None = None,
        *,
        lengthscale: float,
        outputscale: float = 1.0,
    ) -> Tensor:
        """Similarities outputscale * exp(-distance / lengthscale).

        Args:
            rows: Numbers of r networks.
            cols: Numbers of c networks; None takes all.
            lengthscale: > 0.
            outputscale: > 0.

        Returns:
            Shape (r, c) or (r, X). Not positive semi-definite as it is: see `hotnas_torch.gp.psd`.

        Raises:
            ValueError: A scale out of range.
            IndexError: A number out of range.
            GramFileError: A tile is damaged or missing.
        """
        for name, value in (("lengthscale", lengthscale), ("outputscale", outputscale)):
            if not (value > 0.0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite; got {value}")
        distances = self.rows(rows) if cols is None else self.block(rows, cols)
        return outputscale * torch.exp(-distances / lengthscale)

    def tensor(self) -> Tensor:
        """Return the whole matrix, shape (X, X), as the distance returns it, in memory."""
        return self.rows(torch.arange(len(self)))

    def _numbers(self, networks: Sequence[int] | Tensor) -> Tensor:
        numbers = torch.as_tensor(networks)
        if len(numbers.reshape(-1)) and (
            numbers.is_floating_point() or numbers.dtype == torch.bool
        ):
            raise TypeError(
                f"networks must be whole numbers; got {numbers.dtype} (of a mask, pass"
                " mask.nonzero().squeeze(1))"
            )
        numbers = numbers.to(torch.int64).reshape(-1)
        wrong = (numbers < 0) | (numbers >= len(self))
        if bool(wrong.any()):
            raise IndexError(
                f"networks must be numbers between 0 and {len(self) - 1}; got"
                f" {int(numbers[wrong][0])}"
            )
        return numbers

    def _distinct_rows(self, rows: Tensor, cols: Tensor | None = None) -> Tensor:
        """Distances between sorted distinct networks, shape (r, U) or (r, c)."""
        num, edge = self._distances.shape[0], self._edge
        cols = torch.arange(num) if cols is None else cols
        out = torch.empty(len(rows), len(cols), dtype=self.dtype)
        row_tile, col_tile = rows // edge, cols // edge
        for i in torch.unique(row_tile).tolist():
            row = torch.nonzero(row_tile == i).squeeze(1)
            for j in torch.unique(col_tile).tolist():
                col = torch.nonzero(col_tile == j).squeeze(1)
                tile = self._tile(min(i, j), max(i, j))
                tile = tile if i <= j else tile.T
                out[row[:, None], col] = tile[(rows[row] - i * edge)[:, None], cols[col] - j * edge]
        return out

    def _tile(self, i: int, j: int) -> Tensor:
        edge = self._edge
        lacking = GramFileError(
            f"{self.folder} lacks tile ({i}, {j}) (compute it again with overwrite=True)"
        )
        with readable(self.folder):
            try:
                _check_chunk(self.folder, self._distances, (i, j))
            except FileNotFoundError as error:
                raise lacking from error
            place = slice(i * edge, (i + 1) * edge), slice(j * edge, (j + 1) * edge)
            tile = torch.from_numpy(np.asarray(self._distances[place])).to(self.dtype)
        if bool(tile.isnan().any()):
            raise lacking
        return tile


def import_zarr() -> Any:
    """Return the module zarr, loaded when a store is first used."""
    try:
        import zarr
        import zarr.codecs
    except ImportError as error:
        raise ImportError(
            "a store of distances needs zarr (pip install 'hotnas-torch[ray]', or"
            f" pip install 'zarr>=3.1.5'): {error}"
        ) from error
    return zarr


def open_group(folder: Path, mode: str) -> Any:
    zarr = import_zarr()
    for name in ("", *ARRAYS):
        described = folder / name / "zarr.json"
        if described.exists() and not described.is_file():
            raise GramFileError(f"{described} is no ordinary file (move it away)")
    try:
        return zarr.open_group(folder, mode=mode, zarr_format=3)
    except Exception as error:  # whatever zarr and json raise for other content
        raise GramFileError(
            f"{folder} is not a Gram store of this library; it is left as it is (choose another"
            " folder)"
        ) from error


def description_of(folder: Path, root: Any) -> dict[str, Any]:
    with readable(folder):
        found = dict(root.attrs)
    if found.get("format") != FORMAT:
        raise GramFileError(
            f"{folder} is not a Gram store of this library; it is left as it is (choose another"
            " folder)"
        )
    if not is_version(found.get("format_version"), FORMAT_VERSION):
        raise GramFileError(
            f"{folder} has Gram store version {found.get('format_version')!r}; this version of"
            f" hotnas_torch reads version {FORMAT_VERSION} (install the version that wrote it)"
        )
    if found.get("state") not in ("begun", "running", "complete"):
        raise GramFileError(
            f"{folder} is damaged: its state is {found.get('state')!r} (compute it again with"
            " overwrite=True)"
        )
    return found


def stored_array(root: Any, name: str, dtypes: tuple[torch.dtype, ...], dimensions: int) -> Any:
    """Return an array of a store, of the form in which this library writes it."""
    zarr = import_zarr()
    array = root[name]
    if not isinstance(array, zarr.Array) or array.ndim != dimensions:
        raise ValueError(f"{name} is no array of {dimensions} dimensions")
    if str(array.dtype) not in {str(dtype).removeprefix("torch.") for dtype in dtypes}:
        raise ValueError(f"{name} is of type {array.dtype}")
    codecs = _codecs(array)
    # Earlier versions compressed what is not large.
    if codecs != _CHECKED and (dimensions != 1 or codecs != _COMPRESSED):
        raise ValueError(f"{name} is stored by {', '.join(codecs)}")
    return array


def _codecs(array: Any) -> list[str]:
    return [str(codec.to_dict()["name"]) for codec in array.metadata.codecs]


def _check_chunks(folder: Path, array: Any) -> None:
    """Refuse an array of one dimension that is not there as a whole, in small chunks."""
    (items,) = array.chunks
    if not 0 < items * array.dtype.itemsize <= BYTES_PER_CHUNK:
        raise ValueError(f"{array.basename} has chunks of {items} entries")
    for place in range(math.ceil(array.shape[0] / items)):
        _check_chunk(folder, array, (place,))


def _check_chunk(folder: Path, array: Any, place: tuple[int, ...]) -> None:
    """Refuse a chunk that is not there, or of another size, before anything of it is read.

    What is missing would be made up, and what is compressed could unpack to any size.
    """
    path = folder.joinpath(array.basename, "c", *map(str, place))
    size = math.prod(array.chunks) * array.dtype.itemsize
    with open_ordinary(path) as file:
        found = os.fstat(file.fileno()).st_size
        if _codecs(array) == _CHECKED:
            fits = found == size + _CRC_BYTES
        else:
            fits = _unpacked_size(file.read(_LONGEST_HEADER)) == size
        if not fits:
            raise ValueError(f"{path} does not hold {size:,} bytes")


def _unpacked_size(start: bytes) -> int | None:
    """Bytes that a frame of Zstandard says that it unpacks to (RFC 8878), beyond which it fails."""
    if len(start) < 6 or not start.startswith(_ZSTD_MAGIC):
        return None
    flags = start[4]
    single = flags >> 5 & 1
    width = (single, 2, 4, 8)[flags >> 6]
    begin = 6 - single + (0, 1, 2, 4)[flags & 3]
    size = int.from_bytes(start[begin : begin + width], "little")
    return None if width == 0 else size + 256 * (width == 2)


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn what zarr raises for damaged content into the library's own error."""
    try:
        yield
    except GramFileError:
        raise
    except Exception as error:
        raise GramFileError(
            f"{folder} is damaged: {error} (compute it again with overwrite=True)"
        ) from error
