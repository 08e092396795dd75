# Over 400 lines: one distance, documented in one place.
"""iFGW: the distance between cells."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor

from hotnas_torch import _ext
from hotnas_torch.arch import Cell, NestedCell, OperationTree
from hotnas_torch.arguments import choice, items
from hotnas_torch.distances._tables.blocks import CellBlocks
from hotnas_torch.distances._tables.cell_tables import CellTables, SolverSettings, unique_cells
from hotnas_torch.distances._tables.envelope import cell_coefficients, envelope
from hotnas_torch.distances._tables.labels import check_label, with_rows_for
from hotnas_torch.distances._tables.nested_tables import NestedTables, tables_of
from hotnas_torch.distances._tables.network_tables import CellCosts
from hotnas_torch.distances.matching import CellMatching, match_cells
from hotnas_torch.distances.settings import (
    PRESETS,
    SOLVER_FIELDS,
    TERM_FIELDS,
    Solver,
    Terms,
    settings_from,
)
from hotnas_torch.matrices.pairwise import Executor, Stages, Tiling, fill, tile_edge
from hotnas_torch.matrices.progress import Progress
from hotnas_torch.ot._operators.operator import is_tracked, plain
from hotnas_torch.ot._operators.tracing import interpreted
from hotnas_torch.ot.scalars import Scalar, fraction, value_of
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.joint import check_architectures

__all__ = ["IFGW"]


@interpreted
class IFGW:
    """Improved fused Gromov-Wasserstein distance between cells.

    The distance of two cells with node masses a and b is the least cost of a coupling T of their
    nodes::

        lam * sum_ij T_ij C_ij  +  (1 - lam) * sum over pairs T_ij T_kl |Cx_ik - Cy_jl|

    with C_ij = eps * D(o_i, o_j) + (1 - eps) * H(s_i, s_j) between nodes of the two cells, D the
    cost in the operation tree and H the mean absolute difference of six path lengths, and
    the same cost between nodes i, k of one cell where k is reachable from i (`unreachable` where
    it is not). An object is configured once and called on lists of cells.

    With `partial`, only a share of the nodes of the smaller cell is matched (`partial=1` all of
    them) and the rest of either cell costs nothing: how far the smaller one is from being a part of
    the larger one, with path lengths those of the whole cells. That is no metric: different cells
    can be 0 apart.

    Where nodes are graphs themselves (`arch.NestedCell`), D between them is this distance, and so
    on down the levels; `distances._tables.nested_tables` defines the rest.

    Args:
        space: Search space; supplies the operation tree and the size that `unreachable` needs.
        tree: Operation tree, instead of the space's. One of `space` and `tree` is required.
        lam: Weight of the node (pointwise) term, in [0, 1]; float or 0-d tensor.
        eps: Share of operations against places in node and pair costs, in [0, 1].
        preset: `"paper"`: what the paper prints where it prints it: ordered pairs, the linear term
            inside the sum, raw path lengths, the poster's operation costs (the space's
            `published_tree`). docs/definitions.md lists what it leaves open, and what is taken
            then. What is passed wins over the preset.
        terms: What the cost is made of; None takes `Terms()`.
        solver: How and where it is minimised; None takes `Solver()`.
        **settings: Fields of `Terms` (without `state_scale`) and `Solver` by their names; they win
            over those of the objects.

    Raises:
        TypeError: An argument of the wrong kind or an unknown setting; the message names it.
        ValueError: An argument out of range; the message names it.

    Complexity: a pair costs O(iterations * (n + m) n m); each unordered pair of distinct cells is
        solved once, and so is each pair of graphs inside nested cells where the table of their
        distances fits `memory_budget` beside the result. Otherwise each tile solves those it needs.

    Reference: Yang, Liu, Xu, "HOTNAS: Hierarchical Optimal Transport for Neural Architecture
        Search", CVPR 2023, Eq. 3-9.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> nets = space.sample(3, generator=torch.Generator().manual_seed(0))
        >>> distances = ht.IFGW(space=space)([net.cells[0] for net in nets])
        >>> distances.shape, bool((distances == distances.T).all())
        (torch.Size([3, 3]), True)
    """

    SETTINGS = (
        *("space", "tree", "lam", "eps", "preset", "terms", "solver"),
        *(name for name in (*TERM_FIELDS, *SOLVER_FIELDS) if name != "state_scale"),
    )
    """Names of all arguments, those of `**settings` among them."""

    def __init__(
        self,
        *,
        space: SearchSpace | None = None,
        tree: OperationTree | None = None,
        lam: Scalar = 0.5,
        eps: Scalar = 0.8,
        preset: Literal["default", "paper"] = "default",
        terms: Terms | None = None,
        solver: Solver | None = None,
        **settings: Any,
    ) -> None:
        if space is not None:
            check_space(space)
            check_architectures("a distance", space)
        if tree is not None and not isinstance(tree, OperationTree):
            raise TypeError(
                f"tree must be an OperationTree; got {type(tree).__name__}"
                " (OperationTree.from_matrix wraps a cost matrix)"
            )
        if space is None and tree is None:
            raise ValueError("space or tree is required: one of them must say what operations cost")
        terms, solver = settings_from("IFGW", terms, solver, settings, self.SETTINGS)
        if terms.state_scale is not None:
            raise ValueError("state_scale is of HOTNN: cells alone have no state (leave it out)")
        terms = terms.completed(PRESETS[choice("preset", preset, tuple(PRESETS))])
        self.space = space
        if tree is None:
            known = cast(SearchSpace, space)
            tree = known.published_tree if preset == "paper" else known.tree
        self.tree: OperationTree = tree
        self.lam = fraction("lam", lam)
        self.eps = fraction("eps", eps)
        self.pairs = cast(Literal["directed", "ordered"], terms.pairs)
        self.linear_term = cast(Literal["separable", "literal"], terms.linear_term)
        self.normalize = bool(terms.normalize)
        if self.pairs == "ordered" and value_of(self.lam) == 0.0:
            raise ValueError(
                "lam must be > 0 with pairs='ordered': the ordered pairwise term alone is 0 for"
                " every two cells (take lam > 0 or pairs='directed')"
            )
        self.max_nodes = terms.max_nodes
        if self.max_nodes is None and space is not None:
            self.max_nodes = space.max_nodes
        if self.max_nodes is None and not self.normalize:
            raise ValueError(
                "max_nodes is required with raw path lengths and no space: costs must be bounded"
                " alike for all cells (pass max_nodes= or space=, or normalize=True)"
            )
        self.partial = terms.partial
        self._unreachable = terms.unreachable
        self.solver = solver
        self.dtype = cast(torch.dtype, solver.dtype)
        self.device = cast(torch.device, solver.device)

    @property
    def unreachable(self) -> Scalar:
        """Pair cost where no information flows from one node to the other."""
        if self._unreachable is not None:
            return self._unreachable
        longest = 1 if self.max_nodes is None or self.normalize else self.max_nodes - 1
        largest = self.tree.largest_cost()
        limit = self.eps * largest + (1 - self.eps) * longest
        return limit if is_tracked(limit) or limit.requires_grad else float(limit)

    @property
    def compiled(self) -> bool:
        """Whether the compiled solver is used, not the reference implementation."""
        backend = self.solver.backend
        return backend == "ext" or (backend == "auto" and _ext.serves(self.device))

    def config(self) -> dict[str, Any]:
        """Everything that the distances depend on, as JSON-ready values."""
        return {
            "lam": value_of(self.lam),
            "eps": value_of(self.eps),
            "pairs": self.pairs,
            "linear_term": self.linear_term,
            "normalize": self.normalize,
            "unreachable": value_of(self.unreachable),
            **({} if self.partial is None else {"partial": self.partial}),
            "num_starts": self.solver.num_starts,
            "tol": self.solver.tol,
            "max_iter": self.solver.max_iter,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
            "backend": self.solver.backend,
            "tree": self.tree.to_json(),
        }

    def __repr__(self) -> str:
        shown = {name: value for name, value in self.config().items() if name != "tree"}
        arguments = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"{type(self).__name__}({arguments})"

    def __call__(
        self,
        cells_a: Sequence[Cell],
        cells_b: Sequence[Cell] | None = None,
        *,
        progress: Progress = False,
        executor: Executor | None = None,
    ) -> Tensor:
        """Distances between cells.

        Args:
            cells_a: Cells of the rows, at least one.
            cells_b: Cells of the columns; None compares `cells_a` with itself, at half the cost.
            progress: True shows a bar; a callable receives (stage, pairs done, pairs in all).
            executor: Who computes; None is this process. The values are the same to the bit.

        Returns:
            Distances >= 0, shape (len(cells_a), len(cells_b)), in `dtype` on `device`. Isomorphic
            cells are exactly 0 apart; d(x, y) = d(y, x) to the bit.

        Raises:
            TypeError: A list or an item of the wrong type; the message names the index.
            ValueError: An empty list, a cell with an operation that the tree does not know, or
                nested cells with parameters that require gradients.
            SolverError: A pair ended without a finite value.

        Differentiability: in lam, eps, `unreachable`, and the lengths and weights of the tree,
            where these are tensors that require gradients, once, by the envelope theorem at the
            couplings found (see `hotnas_torch.distances._tables.envelope` for ties). The backward
            pass finds the couplings again tile by tile, which costs about one and a half forward
            passes. Not for nested cells.
        """
        rows = self._check_cells("cells_a", cells_a)
        cols = None if cells_b is None else self._check_cells("cells_b", cells_b)
        unique, positions = unique_cells(rows + (cols or []))
        tables = self.prepare(unique)
        items = torch.tensor(positions)
        row_items = items[: len(rows)]
        col_items = None if cols is None else items[len(rows) :]
        out = self.matrix(tables, row_items, col_items, progress=progress, executor=executor)
        tables.log.warn()
        return out

    def coefficients(self) -> Tensor:
        """Return what a distance is linear in while its coupling is held: see `_tables.envelope`.

        Returns:
            Shape (2E + 3,) for E lengths and weights of the tree, in `dtype` on `device`,
            differentiable in the parameters that are tensors.
        """
        lam, eps, unreachable = (
            torch.as_tensor(value, dtype=self.dtype, device=self.device)
            for value in (self.lam, self.eps, self.unreachable)
        )
        lengths = self.tree.lengths_tensor(dtype=self.dtype, device=self.device)
        weights = self.tree.weights_tensor(dtype=self.dtype, device=self.device)
        return cell_coefficients(lam, eps, torch.cat([lengths, weights]), unreachable)

    def prepare(self, cells: Sequence[Cell]) -> CellTables:
        """Solver-ready tables of canonical, distinct cells, as `unique_cells` lists them.

        Raises:
            ValueError: A cell is nested and a parameter of iFGW requires gradients.
        """
        nested = any(isinstance(cell, NestedCell) for cell in cells)
        if nested and is_tracked(self.coefficients()):
            raise ValueError(
                "lam, eps, unreachable and the lengths of the tree must not require gradients where"
                " cells are nested (pass numbers, or call within torch.no_grad())"
            )
        with torch.no_grad():
            return tables_of(
                cells,
                tree=with_rows_for(_untracked(self.tree), cells),
                eps=_untracked(self.eps),
                max_nodes=None if self.normalize else self.max_nodes,
                unreachable=_untracked(self.unreachable),
                settings=SolverSettings(
                    alpha=1.0 - value_of(self.lam),
                    pairs=self.pairs,
                    literal=self.linear_term == "literal",
                    num_starts=self.solver.num_starts,
                    tol=self.solver.tol,
                    max_iter=self.solver.max_iter,
                    backend=self.solver.backend,
                    partial=self.partial,
                ),
                dtype=self.dtype,
                device=self.device,
            )

    def matrix(
        self,
        tables: CellTables,
        rows: Tensor,
        cols: Tensor | None,
        *,
        progress: Progress = False,
        stages: Stages | None = None,
        executor: Executor | None = None,
        stage: str = "cells",
    ) -> Tensor:
        """Distances between cells of `tables`, tile by tile, differentiable as in `__call__`.

        Args:
            tables: What `prepare` returned.
            rows: Position in `tables` of every row, int64 on the CPU.
            cols: Position of every column; None for the symmetric matrix of `rows`.
            progress: As in `__call__`.
            stages: Where finished tiles go, and those of an interrupted run are.
            executor: As in `__call__`.
            stage: What the cells are, for `progress` and `stages`.

        Returns:
            Shape (len(rows), len(cols)).
        """
        tiling = Tiling(rows, cols, self.cell_edge(tables))
        store = None if stages is None else stages(stage, max(tiling.shape), tiling.edge)

        def values() -> Tensor:
            filling = tables
            if isinstance(tables, NestedTables) and any(
                store is None or store.load(tile) is None for tile in tiling.tiles
            ):
                filling = self._with_parts(
                    tables, rows, cols, progress=progress, stages=stages, executor=executor
                )
            return fill(
                tiling,
                CellBlocks(filling),
                dtype=self.dtype,
                device=self.device,
                stage=stage,
                progress=progress,
                store=store,
                executor=executor,
            )

        def held(coefficients: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda row, col: tables.held(row, col).distances(coefficients)

        return envelope(values, held, tiling, self.coefficients())

    def _with_parts(
        self,
        tables: NestedTables,
        rows: Tensor,
        cols: Tensor | None,
        *,
        progress: Progress,
        stages: Stages | None,
        executor: Executor | None,
    ) -> NestedTables:
        """Return the tables with the distances between all graphs inside, if these fit."""
        part_rows = tables.parts_of(torch.unique(rows))
        part_cols = part_rows if cols is None else tables.parts_of(torch.unique(cols))
        num_cols = len(rows) if cols is None else len(cols)
        numbers = len(rows) * num_cols + len(part_rows) * len(part_cols)
        itemsize = torch.empty((), dtype=self.dtype).element_size()
        if (
            not (len(part_rows) and len(part_cols))
            or numbers * itemsize > self.solver.memory_budget
        ):
            return tables
        between = self.matrix(
            tables.parts,
            part_rows,
            None if cols is None else part_cols,
            progress=progress,
            stages=stages,
            executor=executor,
            stage=f"level {_depth(tables) - 1}",
        )
        return tables.holding(
            CellCosts.between(between, part_rows, part_cols, len(tables.parts.cells))
        )

    def cell_edge(self, tables: CellTables) -> int:
        """Side of the tiles that `matrix` cuts."""
        budget, side = self.solver.memory_budget, cell_tile_edge(tables.cells)
        return tile_edge(budget, at_most=side, device=self.device)

    def matching(self, cell_a: Cell, cell_b: Cell) -> CellMatching:
        """Return the coupling behind one distance, and the shares that make it up.

        Args:
            cell_a: First cell.
            cell_b: Second cell.

        Returns:
            Coupling between the canonical forms of the cells, with the distance and its parts.

        Raises:
            TypeError: An argument that is not a Cell.
            ValueError: A cell with an operation that the tree does not know.
            SolverError: The solver ended without a finite value.
        """
        pair = self._check_cells("cells", [cell_a, cell_b])
        unique, (position_a, position_b) = unique_cells(pair)
        found = match_cells(
            self.prepare(unique),
            min(position_a, position_b),
            max(position_a, position_b),
            lam=value_of(self.lam),
        )
        return found if position_a <= position_b else found.turned()

    def check(self, where: str, cell: Cell, known: set[str]) -> None:
        """Check that a cell can be compared; the error says where it stands.

        Args:
            where: How to name the cell in an error.
            cell: Cell to check.
            known: Labels that the operation tree knows; those that it turns out to know are added.

        Raises:
            ValueError: An operation that the tree does not know, or more than `max_nodes` nodes
                with raw path lengths.
        """
        graphs = cell.graphs if isinstance(cell, NestedCell) else (None,) * cell.num_nodes
        for node, (label, graph) in enumerate(zip(cell.ops, graphs, strict=True)):
            if graph is not None:
                self.check(f"{where}.graphs[{node}]", graph, known)
            elif label not in known:
                check_label(self.tree, label, f"{where} has the operation {label!r} at node {node}")
                known.add(label)
        if not self.normalize and self.max_nodes is not None and cell.num_nodes > self.max_nodes:
            raise ValueError(
                f"{where} has {cell.num_nodes} nodes, more than max_nodes={self.max_nodes}"
                " (pass the size of the largest cell as max_nodes)"
            )

    def _check_cells(self, name: str, cells: Sequence[Cell]) -> list[Cell]:
        checked = items(name, cells, Cell)
        known = set(self.tree.labels)
        accepted: set[int] = set()
        for index, cell in enumerate(checked):
            if id(cell) not in accepted:
                self.check(f"{name}[{index}]", cell, known)
                accepted.add(id(cell))
        return checked


def _untracked(value: Any) -> Any:
    """Return the same number or tree as plain values, for what is computed once and kept."""
    if isinstance(value, OperationTree):
        lengths, weights = value.lengths_tensor(), value.weights_tensor()
        if is_tracked(lengths):
            value = value.with_lengths(plain(lengths))
        return value.with_weights(plain(weights)) if is_tracked(weights) else value
    return plain(value) if isinstance(value, Tensor) else value


def _depth(tables: CellTables) -> int:
    """Return number of levels of graphs."""
    return 1 + _depth(tables.parts) if isinstance(tables, NestedTables) else 1


def cell_tile_edge(cells: Sequence[Cell]) -> int:
    """Side of a cell tile that is about a second of work, whatever the size of the cells."""
    return max(64, min(512, 4096 // max(cell.num_nodes for cell in cells)))
