"""Distances between entries of two tables: of cells, and of networks made of cells."""

import torch
from torch import Tensor

from hotnas_torch.ot._reference.fgw import fgw
from hotnas_torch.ot._reference.transport import transport

__all__ = ["cell_distances", "network_distances"]

# Numbers in the largest tensor of one chunk of pairs; bounds memory, changes no result.
_CHUNK_ELEMENTS = 1 << 22


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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute fused Gromov-Wasserstein between graph `index_x[p]` and graph `index_y[p]`.

    The node cost is M_ij = label_cost[labels_x_i, labels_y_j] + sum_k |features_x_ik -
    features_y_jk|; everything else is `fgw`.

    Args:
        labels_x: Node labels of the first table, shape (U, n), int64, rows of `label_cost`.
        features_x: Node features, shape (U, n, K), already scaled as the cost wants them.
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
        literal: 1 multiplies M_ij by (n' - 1 - i')(m' - 1 - j'), where n', m' count the nodes that
            have weight and i', j' number them from 0; 0 leaves M as it is.
        num_starts: As in `fgw`, without an `init`.
        start_costs: As in `fgw`, shape (R, n, m) or no elements.
        tol: As in `fgw`.
        max_iter: As in `fgw`.

    Returns:
        `objective` (P,), `gap` (P,), `iterations` (P,) int32, `status` (P,) int32.
    """
    n, m = a.shape[1], b.shape[1]
    objective, gap = a.new_empty(len(index_x)), a.new_empty(len(index_x))
    iterations = torch.empty(len(index_x), dtype=torch.int32, device=a.device)
    status = torch.empty_like(iterations)
    none = a.new_empty(0)
    size = max(1, _CHUNK_ELEMENTS // max(1, 16 * n * m))
    for first in range(0, len(index_x), size):
        here = slice(first, first + size)
        x, y = index_x[here], index_y[here]
        cost = label_cost[labels_x[x][:, :, None], labels_y[y][:, None, :]]
        cost = cost + _feature_distance(features_x[x], features_y[y])
        if literal:
            cost = cost * _nodes_after(a[x])[:, :, None] * _nodes_after(b[y])[:, None, :]
        weight = torch.full((len(x),), alpha, dtype=a.dtype, device=a.device)
        _, objective[here], _, _, gap[here], iterations[here], status[here] = fgw(
            cost,
            struct_x[x],
            struct_y[y],
            a[x],
            b[y],
            weight,
            none,
            start_costs,
            loss,
            pairs,
            num_starts,
            tol,
            max_iter,
        )
    return objective, gap, iterations, status


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
) -> Tensor:
    """Compute exact transport between the cells of network `index_x[p]` and of `index_y[p]`.

    The cost is S_st = cell_cost[cells_x_s, cells_y_t] + sum_k |features_x_sk - features_y_tk|.

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

    Returns:
        The transport cost of each pair, shape (P,); NaN where it cannot be computed.
    """
    n, m = mass_x.shape[1], mass_y.shape[1]
    objective = mass_x.new_empty(len(index_x))
    size = max(1, _CHUNK_ELEMENTS // max(1, n * m))
    for first in range(0, len(index_x), size):
        here = slice(first, first + size)
        x, y = index_x[here], index_y[here]
        cost = cell_cost[cells_x[x][:, :, None], cells_y[y][:, None, :]]
        cost = cost + _feature_distance(features_x[x], features_y[y])
        objective[here] = transport(cost, mass_x[x], mass_y[y])[1]
    return objective


def _feature_distance(x: Tensor, y: Tensor) -> Tensor:
    """L1 distance of all pairs of rows, (B, n, K) and (B, m, K) to (B, n, m)."""
    distance = x.new_zeros(x.shape[0], x.shape[1], y.shape[1])
    for k in range(x.shape[2]):
        distance = distance + (x[:, :, None, k] - y[:, None, :, k]).abs()
    return distance


def _nodes_after(masses: Tensor) -> Tensor:
    """Return for each node how many nodes with weight come after it, in the dtype of the masses."""
    present = (masses != 0).to(masses.dtype)
    return present.sum(1, keepdim=True) - present.cumsum(1)
