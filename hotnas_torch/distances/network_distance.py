# Over 400 lines: the contract of every distance, and what all of them get for it.
"""What every distance between networks has: calls, parts, matrices in files and stores."""

import json
from collections.abc import Sequence
from os import PathLike
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hotnas_torch import _ext
from hotnas_torch.arch import Network
from hotnas_torch.arguments import items
from hotnas_torch.distances.numbered_networks import NumberedNetworks
from hotnas_torch.errors import ArchitectureError, GramFileError
from hotnas_torch.matrices.comparison import (
    Comparison,
    Description,
    compute,
    write_gram,
    write_gram_store,
)
from hotnas_torch.matrices.gram_store import STORED_TYPES, GramStore
from hotnas_torch.matrices.known import GrownComparison, KnownDistances, new_networks
from hotnas_torch.matrices.neighbors import Neighbors, Rows, check_num_neighbors, nearest
from hotnas_torch.matrices.pairwise import (
    MEMORY_BUDGET,
    Executor,
    distinct_pairs,
)
from hotnas_torch.matrices.progress import Progress, progress_bar
from hotnas_torch.ot._operators import Backend
from hotnas_torch.ot._operators.operator import is_tracked
from hotnas_torch.ot._operators.tracing import interpreted
from hotnas_torch.spaces import AnyNetwork, SearchSpace
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.joint import check_architectures

__all__ = ["KernelTerm", "NetworkDistance"]

_NOT_SHOWN = ("tree", "distance")
_BYTES_PER_ENTRY = 64
"""What one entry of a row takes while the nearest are looked for."""
_CHUNK_BYTES = 2**23
"""Bytes that one chunk of pairs takes while it is worked on: about what a processor's cache holds.
"""


class KernelTerm(NamedTuple):
    """exp(-sum_k d_k^power / scale_k) over some parts of a distance.

    Attributes:
        parts: Which parts, by number.
        power: Power of each part.
        smallest: Smallest value of the scales.
        largest: Largest value of the scales.
    """

    parts: tuple[int, ...]
    power: int
    smallest: float
    largest: float


@interpreted
class NetworkDistance:
    """A distance between networks, made of K parts.

    A subclass says in one class what it computes, and has calls, files, stores, devices, clusters,
    kernels, models and the command line. It defines

    - `name`, and `config`, what the values depend on; files and stores ask for both;
    - `_tables`, what is worked out once of a list of distinct networks;
    - `_values`, the parts of the distances of pairs of them (or `_block`, of a block).

    And where they differ from what is here: `parts`, `_combine`, `kernel_terms`,
    `negative_definite`, `_identity`, `_pair_bytes`, `_tracked`. A pair must have the same value, to
    the bit, whichever other pairs it is computed with; each is asked for once, in one orientation.

    Args:
        space: Space of the networks.

    Raises:
        TypeError: `space` is no SearchSpace.
        ValueError: `space` has hyperparameters, which no distance compares.

    Attributes:
        space: Space of the networks. Of `HOTNN` that was made from a tree alone it is None.
        name: How files, `hotnas_torch.distances.get` and the command line call the distance.
        parts: Names of the K parts.
        kernel_terms: The exponential kernel that goes with the distance: a sum of these terms.
        negative_definite: Whether every part is conditionally negative definite and enters the
            kernel in the first power, so that the kernel is positive semi-definite as it is.
        dtype: Type of the distances.
        device: Where they are computed and returned.
        backend: Which implementation of the solvers is used.
        memory_budget: Bytes that may be held beside a matrix; decides on the size of its tiles.

    Example:
        >>> import hotnas_torch as ht
        >>> class Cells(NetworkDistance):
        ...     name = "cells"
        ...     def config(self):
        ...         return super().config()
        ...     def _tables(self, nets):
        ...         return torch.tensor([float(net.num_cells) for net in nets])
        ...     def _values(self, tables, i, j):
        ...         return (tables[i] - tables[j]).abs()[None]
        >>> space = ht.spaces.TransNASMacro()
        >>> nets = [space.from_string(text) for text in ("64-1234-basic", "64-111423-basic")]
        >>> Cells(space)(nets)
        tensor([[0., 2.],
                [2., 0.]])
    """

    name: ClassVar[str] = ""
    space: SearchSpace
    parts: tuple[str, ...] = ("distance",)
    kernel_terms: tuple[KernelTerm, ...] = (KernelTerm((0,), 1, 1e-3, 1e3),)
    negative_definite: bool = False
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")
    backend: Backend = "auto"
    memory_budget: int = MEMORY_BUDGET

    def __init__(self, space: SearchSpace) -> None:
        self.space = check_space(space)
        check_architectures(type(self).__name__, space)

    # --- for subclasses ---------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Return everything that the distances depend on, as JSON-ready values.

        A subclass returns `super().config()` and its own settings. Files of another configuration
        are not gone on with.
        """
        return {
            "distance": self.name,
            "space": None if self.space is None else self.space.name,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
            "backend": self.backend,
        }

    def _tables(self, nets: Sequence[Network]) -> Any:
        """Return what `_values` needs to know of distinct networks; can be sent to a process."""
        raise NotImplementedError(f"{type(self).__name__} must define _tables")

    def _values(self, tables: Any, i: Tensor, j: Tensor) -> Tensor:
        """Return parts of the distances of pairs of numbers of networks, shape (K, P) from (P,)."""
        raise NotImplementedError(f"{type(self).__name__} must define _values or _block")

    def _pair_bytes(self, tables: Any) -> int:  # noqa: ARG002
        """Return the bytes that `_values` holds per pair."""
        return 256

    def _block(
        self, tables: Any, rows: Tensor, cols: Tensor, *, progress: Progress = False
    ) -> Tensor:
        """Return parts between sorted distinct numbers of networks, (K, r, c) from (r,), (c,)."""
        num = int(max(rows[-1], cols[-1])) + 1
        i, j, to_block = distinct_pairs(rows, cols, num)
        chunk = max(1, _CHUNK_BYTES // self._pair_bytes(tables))
        values = []
        with progress_bar(progress, "networks", len(i)) as advance:
            for small, large in zip(i.split(chunk), j.split(chunk), strict=True):
                values.append(self._values(tables, small, large))
                advance(len(small))
        return torch.stack([to_block(part) for part in torch.cat(values, dim=1)])

    def _combine(self, parts: Tensor) -> Tensor:
        """Return the distance, shape (...), from its parts, shape (K, ...): their sum."""
        return parts[0] if len(parts) == 1 else parts.sum(0)

    def _identity(self, net: Network) -> str:
        """Return a name that networks share only if they are at distance 0 in all parts."""
        return net.cells[0].key if self.space.repeats_one_cell else net.key

    def _tracked(self) -> tuple[Tensor, ...]:
        """Return the tensors in which distances are differentiable."""
        return ()

    def _check(self, name: str, nets: Sequence[Network]) -> list[Network]:
        """Return a list of networks that can be compared; the error names the item."""
        checked = items(name, nets, Network)
        for place, net in enumerate(checked):
            if not self.space.contains(net):
                raise ArchitectureError(
                    f"{name}[{place}] with spec {net.spec!r} is not a network of {self.space!r}"
                    " (a distance compares networks of the space it was made for)"
                )
        return checked

    def _compare(self, rows: list[Network], cols: list[Network] | None) -> Comparison:
        """Return two lists, the second None for the first again, as tables."""
        return self._numbered(rows, cols)

    def _numbered(self, rows: list[Network], cols: list[Network] | None) -> NumberedNetworks:
        identities = [self._identity(net) for net in (*rows, *(cols or ()))]
        found = dict(zip(identities, (*rows, *(cols or ())), strict=True))
        names = sorted(found)
        number = {name: place for place, name in enumerate(names)}
        items = torch.tensor([number[name] for name in identities])
        return NumberedNetworks(
            self,
            self._tables([found[name] for name in names]),
            items[: len(rows)],
            None if cols is None else items[len(rows) :],
        )

    # --- matrices ---------------------------------------------------------------------------------

    def __call__(
        self,
        nets_a: Sequence[Network],
        nets_b: Sequence[Network] | None = None,
        *,
        progress: Progress = False,
        executor: Executor | None = None,
    ) -> Tensor:
        """Return the distances between networks.

        Args:
            nets_a: A >= 1 networks of the space.
            nets_b: B >= 1 networks; None stands for `nets_a`, at half the work.
            progress: True shows a bar; a callable receives (stage, pairs done, pairs in all).
            executor: Who computes, for example a `hotnas_torch.matrices.DeviceExecutor` or a
                `hotnas_torch.integrations.ray.RayExecutor`; None is this process. The values are
                the same to the bit. What requires gradients is always computed here.

        Returns:
            Shape (A, B), in `dtype` on `device`. Where `nets_b` is None, symmetric to the bit.

        Raises:
            TypeError: Not a list of networks; the message names the index.
            ValueError: An empty list.
            ArchitectureError: A network of another space; the message names the index.
        """
        if executor is None or is_tracked(*self._tracked()):
            return self._combine(self.part_distances(nets_a, nets_b, progress=progress))
        rows, cols = self._lists(nets_a, nets_b)
        return compute(self._compare(rows, cols), progress=progress, executor=executor)

    def part_distances(
        self,
        nets_a: Sequence[Network],
        nets_b: Sequence[Network] | None = None,
        *,
        progress: Progress = False,
    ) -> Tensor:
        """Return the parts of the distances, shape (K, A, B), float64 on the CPU.

        Arguments and errors are those of a call.
        """
        numbered = self._numbered(*self._lists(nets_a, nets_b))
        row_set, row_place = torch.unique(numbered.row_items, return_inverse=True)
        col_set, col_place = row_set, row_place
        if numbered.col_items is not None:
            col_set, col_place = torch.unique(numbered.col_items, return_inverse=True)
        block = self._block(numbered.tables, row_set, col_set, progress=progress)
        return block[:, row_place[:, None], col_place]

    def gram(
        self,
        nets: Sequence[Network],
        *,
        out: str | PathLike[str],
        progress: Progress = True,
        resume: bool = True,
        overwrite: bool = False,
        take_over: bool = False,
        executor: Executor | None = None,
        known: str | PathLike[str] | None = None,
    ) -> Tensor:
        """Return distances between networks, kept in a file that survives an interruption.

        Finished tiles are appended to `<out>.partial` as they come; the finished file appears at
        `out` in one step and the partial one is removed. `load_gram` reads the result.

        Args:
            nets: Networks, at least one.
            out: File to write (a NumPy `.npz` archive, whatever its name).
            progress: True shows a bar; a callable receives (stage, pairs done, pairs in all).
            resume: Go on with an interrupted run of the same computation, and return the file that
                a finished one left. The result has the same bits as an uninterrupted run.
            overwrite: Discard what an earlier run left at `out`.
            take_over: Go on with what another process is computing there; that one stops. Without
                it, the second process is refused; what a dead one left stops nobody.
            executor: As in `__call__`.
            known: File or folder of an earlier result of the same settings: distances that it
                holds are taken from it, and only those of new networks computed. Where it is `out`
                itself, the file grows: it is replaced when the new one is finished.

        Returns:
            Distances, shape (len(nets), len(nets)), as `__call__` returns them, without a graph.

        Raises:
            FileNotFoundError: `known` is not there.
            GramFileError: `out` cannot be written, or there is a file of another computation, a
                damaged one, or (without `resume`) any; or `known` is damaged or of other settings.
                Raised before any work, nothing is lost.
            TypeError, ValueError, ArchitectureError: As `__call__`.
        """
        rows = self._check("nets", nets)
        description = self._description(rows, executor)
        earlier = None if known is None else KnownDistances.open(known, description)
        return write_gram(
            lambda: self._compare_without_graph(rows, earlier),
            description,
            grows=earlier is not None and earlier.replaced_by(out),
            out=out,
            progress=progress,
            resume=resume,
            overwrite=overwrite,
            take_over=take_over,
            executor=executor,
        ).to(self.device)

    def gram_store(
        self,
        nets: Sequence[Network],
        folder: str | PathLike[str],
        *,
        progress: Progress = True,
        resume: bool = True,
        overwrite: bool = False,
        take_over: bool = False,
        executor: Executor | None = None,
        known: str | PathLike[str] | None = None,
        stored_as: torch.dtype | None = None,
    ) -> GramStore:
        """Write distances between networks to a folder, never as a whole in memory.

        The folder is a Zarr group with one file per tile of the upper half of the matrix between
        distinct networks; a tile is written when it is finished, in one step.

        Args:
            nets: Networks, at least one.
            folder: Folder to write, by custom with the suffix `.zarr`.
            progress: True shows a bar; a callable receives (stage, pairs done, pairs in all).
            resume: Go on with an interrupted run of the same computation. The result has the same
                bits as an uninterrupted run.
            overwrite: Discard what an earlier run left at `folder`.
            take_over: Go on with what another process is computing there; that one stops. Without
                it, the second process is refused; what a dead one left stops nobody.
            executor: As in `__call__`.
            known: As in `gram`; another folder than this one. A store of rounded distances serves
                one that rounds them alike.
            stored_as: Type that distances are rounded to when they are written: float16 halves a
                store of float32, and keeps distances to a relative 2^-11 (below 6e-5, to 3e-8).
                `dtype`, which None stands for, and wider ones round nothing.

        Returns:
            The store, open for reading: rows, nearest neighbours and kernel rows on demand.

        Raises:
            FileNotFoundError: `known` is not there.
            GramFileError: `folder` cannot be written, or holds another computation or (without
                `resume`) any; or `known` is damaged, of other settings, or this folder. Raised
                before any work, nothing is lost. Or, which only its tile shows, a distance is NaN
                or above what `stored_as` can say, 65,504 for float16.
            ImportError: zarr is not installed.
            TypeError, ValueError, ArchitectureError: As `__call__`; or `stored_as` is none of
                float16, float32 and float64.

        Complexity: memory of the tables, of what they need first where that fits `memory_budget`,
            and of the tiles that are on their way.
        """
        rows = self._check("nets", nets)
        description = self._description(rows, executor)
        if stored_as is not None:
            if stored_as not in STORED_TYPES:
                raise ValueError(f"stored_as must be one of {STORED_TYPES}; got {stored_as!r}")
            if stored_as.itemsize >= self.dtype.itemsize:
                stored_as = None  # nothing is rounded
        if stored_as is not None:
            rounded = {"stored_as": str(stored_as).removeprefix("torch.")}
            description = description._replace(settings=description.settings | rounded)
        earlier = None if known is None else KnownDistances.open(known, description)
        if earlier is not None and earlier.replaced_by(folder):
            raise GramFileError(
                f"known: {folder} is the folder to write (choose another: its tiles are in the"
                " order of its networks, which new ones change)"
            )
        # It decides on the tiles, which are the chunks of the store.
        settings = description.settings | {"memory_budget": self.memory_budget}
        return write_gram_store(
            self._compare_without_graph(rows, earlier),
            description._replace(settings=settings),
            folder=folder,
            progress=progress,
            resume=resume,
            overwrite=overwrite,
            take_over=take_over,
            executor=executor,
            stored_as=stored_as,
        )

    def neighbors(
        self,
        nets: Sequence[Network],
        k: int,
        *,
        among: Sequence[Network] | None = None,
        progress: Progress = False,
    ) -> Neighbors:
        """Return the nearest neighbours of networks, exactly, without the whole matrix.

        Args:
            nets: Networks, at least one.
            k: How many neighbours each gets.
            among: Where they are looked for; None looks among the other `nets`.
            progress: True shows a bar; a callable receives (stage, rows done, rows in all).

        Returns:
            Distances, shape (len(nets), k), ascending, in `dtype` on `device`, to the bit what a
            matrix holds; and the places of the neighbours in `among`, the first of equally near.

        Raises:
            TypeError, ValueError, ArchitectureError: As `__call__`; or `k` is no integer or out of
                range.

        Complexity: memory of some rows of the matrix. `HOTNN` solves only pairs that a lower bound
            does not rule out, where most networks have cells of their own.

        Example:
            >>> import hotnas_torch as ht
            >>> space = ht.spaces.NASBench201()
            >>> nets = space.sample(20, generator=torch.Generator().manual_seed(0), distinct=True)
            >>> ht.HOTNN(space=space).neighbors(nets, 3).indices.shape
            torch.Size([20, 3])
        """
        rows = self._check("nets", nets)
        cols = None if among is None else self._check("among", among)
        check_num_neighbors(k, len(rows) - 1 if cols is None else len(cols))
        with torch.no_grad():
            comparison = self._compare(rows, cols)
            places = comparison.col_items
            places = comparison.row_items if places is None else places
            distinct = torch.unique(places)
            # A network is no neighbour of its own, but one of the nearest items.
            find = self._rows_for_neighbors(
                comparison, distinct, k + 1 if cols is None else k, progress
            )
            bytes_per_row = _BYTES_PER_ENTRY * (len(distinct) + len(places))
            found = nearest(
                find,
                comparison.row_items,
                comparison.col_items,
                k,
                at_once=max(1, min(comparison.edge, self.memory_budget // bytes_per_row)),
                progress=progress,
            )
        comparison.log.warn()
        return Neighbors(found.distances.to(self.device), found.indices.to(self.device))

    def _rows_for_neighbors(
        self,
        comparison: Comparison,
        cols: Tensor,
        k: int,  # noqa: ARG002
        progress: Progress,
    ) -> Rows:
        """Return what computes distances to `cols`, or infinity where there are k nearer."""
        blocks = comparison.blocks(progress=progress, stages=None, executor=None)
        return lambda items: blocks(items, cols)

    def __repr__(self) -> str:
        shown = {name: value for name, value in self.config().items() if name not in _NOT_SHOWN}
        arguments = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"{type(self).__name__}({arguments})"

    def _lists(
        self, nets_a: Sequence[Network], nets_b: Sequence[Network] | None
    ) -> tuple[list[Network], list[Network] | None]:
        rows = self._check("nets_a", nets_a)
        return rows, None if nets_b is None else self._check("nets_b", nets_b)

    def _compare_without_graph(
        self, nets: list[Network], known: KnownDistances | None = None
    ) -> Comparison:
        with torch.no_grad():
            if known is None:
                return self._compare(nets, None)
            return GrownComparison(self._compare(new_networks(known, nets), nets), known)

    def _description(self, nets: list[Network], executor: Executor | None) -> Description:
        """Return what a file or a store of these networks says about itself."""
        if not self.name or type(self).config is NetworkDistance.config:
            raise NotImplementedError(
                f"{type(self).__name__} must define name and config, by which a file knows what it"
                " holds"
            )
        settings = self.config() | {"compiled": self._compiled}
        if executor is not None and executor.device is not None:
            # Another device rounds differently.
            settings |= {"device": executor.device.type}
        names = [
            json.dumps(net.to_json(), separators=(",", ":"))
            if self.space is None
            else self.space.to_string(net)
            for net in nets
        ]
        named = isinstance(self.space, AnyNetwork)
        return Description(settings, names, [net.key for net in nets], named)

    @property
    def _compiled(self) -> bool:
        """Whether the compiled solvers are used, not the reference implementation."""
        return self.backend == "ext" or (self.backend == "auto" and _ext.serves(self.device))
