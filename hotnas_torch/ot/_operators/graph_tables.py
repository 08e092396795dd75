"""Distances between entries of two tables: of cells, and of networks made of cells."""

from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ot._operators.fgw import check_starts
from hotnas_torch.ot._operators.operator import Backend, Operator
from hotnas_torch.ot._reference.graph_tables import cell_distances as reference_cells
from hotnas_torch.ot._reference.graph_tables import network_distances as reference_networks

__all__ = ["cell_distances", "network_distances"]


def cell_distances(
    labels_x: Tensor,
    features_x: Tensor,
    struct_x: Tensor,
    a: Tensor,
    labels_y: Tensor,
    features_y: Tensor,
    struct_y: Tensor,
    b: Tensor,
    label_cost: Tensor,
    index_x: Tensor,
    index_y: Tensor,
    alpha: float,
    loss: int,
    pairs: int,
    literal: int,
    num_starts: int,
    start_costs: Tensor,
    tol: float,
    max_iter: int,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute fused Gromov-Wasserstein between graph `index_x[p]` and graph `index_y[p]`.

    The node cost is label_cost[labels_x_i, labels_y_j] + sum_k |features_x_ik - features_y_jk|. The
    arguments are those of `hotnas_torch.ot._reference.graph_tables.cell_distances`, which is the
    specification.

    Args:
        labels_x: Node labels of the first table, shape (U, n), int64, rows of `label_cost`.
        features_x: Node features, shape (U, n, K), already scaled.
        struct_x: Structures, shape (U, n, n).
        a: Masses, shape (U, n). Nodes of zero weight are absent.
        labels_y: Node labels of the second table, shape (W, m), int64.
        features_y: Node features, shape (W, m, K).
        struct_y: Structures, shape (W, m, m).
        b: Masses, shape (W, m).
        label_cost: Cost between labels, shape (L, L).
        index_x: First graph of each pair, shape (P,), int64.
        index_y: Second graph of each pair, shape (P,), int64.
        alpha: Weight of the quadratic term, in [0, 1].
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        literal: 1 multiplies the node cost by the numbers of nodes that come after i and after j.
        num_starts: How many of the starts of `hotnas_torch.ot._operators.fgw.fgw` to use.
        start_costs: Costs whose cheapest vertices are starts, shape (R, n, m), or no elements.
        tol: Relative duality gap to stop at.
        max_iter: Most transport problems that one start may solve.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        `objective` (P,), `gap` (P,), `iterations` (P,) int32, `status` (P,) int32. Not
        differentiable: a backward pass raises.

    Raises:
        ValueError: There are fewer starts than `num_starts`.
    """
    check_starts(num_starts, a.new_empty(0), start_costs)
    result: tuple[Tensor, Tensor, Tensor, Tensor] = _CELL_DISTANCES(
        labels_x,
        features_x,
        struct_x,
        a,
        labels_y,
        features_y,
        struct_y,
        b,
        label_cost,
        index_x,
        index_y,
        alpha,
        loss,
        pairs,
        literal,
        num_starts,
        start_costs,
        tol,
        max_iter,
        backend=backend,
    )
    return result


def network_distances(
    cell_cost: Tensor,
    cells_x: Tensor,
    mass_x: Tensor,
    features_x: Tensor,
    cells_y: Tensor,
    mass_y: Tensor,
    features_y: Tensor,
    index_x: Tensor,
    index_y: Tensor,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Compute exact transport between the cells of network `index_x[p]` and of `index_y[p]`.

    The cost is cell_cost[cells_x_s, cells_y_t] + sum_k |features_x_sk - features_y_tk|.

    Args:
        cell_cost: Cost between the unique cells of both sides, shape (Ux, Uy).
        cells_x: Cells of the networks of the first table, shape (X, N), int64.
        mass_x: Masses of the cells, shape (X, N). Cells of zero weight are absent.
        features_x: Place and state of the cells, shape (X, N, K), already scaled.
        cells_y: Cells of the networks of the second table, shape (Y, M), int64.
        mass_y: Masses of the cells, shape (Y, M).
        features_y: Place and state of the cells, shape (Y, M, K).
        index_x: First network of each pair, shape (P,), int64.
        index_y: Second network of each pair, shape (P,), int64.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        The transport cost of each pair, shape (P,). Not differentiable: a backward pass raises.
    """
    result: Tensor = _NETWORK_DISTANCES(
        cell_cost,
        cells_x,
        mass_x,
        features_x,
        cells_y,
        mass_y,
        features_y,
        index_x,
        index_y,
        backend=backend,
    )
    return result


def _fake_cells(
    labels_x: Tensor,
    features_x: Tensor,
    struct_x: Tensor,
    a: Tensor,
    labels_y: Tensor,
    features_y: Tensor,
    struct_y: Tensor,
    b: Tensor,
    label_cost: Tensor,
    index_x: Tensor,
    *_: Any,
) -> tuple[Tensor, ...]:
    del labels_x, features_x, struct_x, labels_y, features_y, struct_y, b, label_cost
    count = index_x.shape[0]
    iterations = a.new_empty(count, dtype=torch.int32)
    return a.new_empty(count), a.new_empty(count), iterations, torch.empty_like(iterations)


def _fake_networks(
    cell_cost: Tensor,
    cells_x: Tensor,
    mass_x: Tensor,
    features_x: Tensor,
    cells_y: Tensor,
    mass_y: Tensor,
    features_y: Tensor,
    index_x: Tensor,
    index_y: Tensor,
) -> Tensor:
    del cell_cost, cells_x, features_x, cells_y, mass_y, features_y, index_y
    return mass_x.new_empty(index_x.shape[0])


_CELL_DISTANCES = Operator(
    "cell_distances",
    reference_cells,
    fake=_fake_cells,
    outputs=("objective", "gap", "iterations", "status"),
    shared=None,
)
_NETWORK_DISTANCES = Operator(
    "network_distances", reference_networks, fake=_fake_networks, shared=None
)
