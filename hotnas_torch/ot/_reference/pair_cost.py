r"""The quadratic term of fused Gromov-Wasserstein.

For a coupling V, :math:`B(V)_{ij} = \sum_{kl} V_{kl} (L(C^x_{ik} - C^y_{jl}) + L(C^x_{ki} -
C^y_{lj}))` over the pair set, so that :math:`\sum T_{ij} T_{kl} L(C^x_{ik} - C^y_{jl}) = \frac12
\langle B(T), T \rangle` and its gradient is B(T). B is linear in V and self-adjoint. Its price is
O(non-zeros of V * n m): a vertex of the transport polytope has at most n + m - 1, so the n^2 m^2
terms of the full sum are never visited.
"""

import torch
from torch import Tensor

__all__ = [
    "LOSS_L1",
    "LOSS_L2",
    "PAIRS_ALL",
    "PAIRS_DIRECTED",
    "PAIRS_ORDERED",
    "dense_pair_cost",
    "folded_sum",
    "kept_pairs",
    "pair_cost",
    "pair_cost_change",
    "pair_cost_gradient",
    "pair_cost_kernel",
    "pair_cost_matrix",
    "signature_distance",
]

LOSS_L1, LOSS_L2 = 0, 1
PAIRS_ALL, PAIRS_DIRECTED, PAIRS_ORDERED = 0, 1, 2

_TOGETHER = 8  # non-zeros of a plan that are taken at once


def pair_cost(
    plan: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    loss: int,
    pairs: int,
    most: int | None = None,
) -> Tensor:
    """Compute B(plan).

    Args:
        plan: Coupling, shape (B, n, m); cheap when it has few non-zeros.
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        loss: 0 for L(d) = abs(d), 1 for the square.
        pairs: 0 for all i, j, k, l; 1 (directed) for i != k and j != l; 2 (ordered) for i < k and j
            < l.
        most: Non-zeros that no plan has more of; None where the host is to wait for their number.

    Returns:
        B(plan), shape (B, n, m).
    """
    n, m = plan.shape[1:]
    occupied = plan.flatten(1) != 0
    if most is None:
        most = int(occupied.sum(1).max()) if occupied.numel() else 0
    total = torch.zeros_like(plan)
    if most == 0:
        return total
    # The places of the non-zeros first, in reading order; shorter lists end in zeros, which add
    # nothing, and always the same few are added up together.
    order = occupied.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    width = min(order.shape[1], -(-most // _TOGETHER) * _TOGETHER)
    row_index = torch.arange(n, device=plan.device)[:, None]
    column_index = torch.arange(m, device=plan.device)
    for places in order[:, :width].split(_TOGETHER, 1):
        mass = plan.flatten(1).gather(1, places)[:, :, None, None]
        k, l = places // m, places % m
        of_x, of_y = k[:, :, None].expand(-1, -1, n), l[:, :, None].expand(-1, -1, m)
        leaving = struct_x.mT.gather(1, of_x)[..., None] - struct_y.mT.gather(1, of_y)[:, :, None]
        entering = struct_x.gather(1, of_x)[..., None] - struct_y.gather(1, of_y)[:, :, None]
        out, back = _loss(leaving, loss), _loss(entering, loss)
        if pairs != PAIRS_ALL:
            at = row_index, k[:, :, None, None], column_index, l[:, :, None, None]
            after, before = _pair_sets(*at, pairs)
            out, back = _kept(out, after), _kept(back, before)
        # no node that is absent, whatever it holds
        shares = torch.where(mass != 0, mass * (out + back), 0)
        total = total + folded_sum(shares)
    return total


def folded_sum(values: Tensor) -> Tensor:
    """Sum over dimension 1 by halves: zeros at its end change no bit, however many they are."""
    while values.shape[1] > 1:
        if values.shape[1] % 2:
            values = torch.cat([values, torch.zeros_like(values[:, :1])], 1)
        values = values[:, 0::2] + values[:, 1::2]
    return values[:, 0]


def pair_cost_gradient(
    plan: Tensor, struct_x: Tensor, struct_y: Tensor, weight: Tensor, loss: int, pairs: int
) -> tuple[Tensor, Tensor]:
    """Differentiate the quadratic term by the structures at a fixed plan.

    Args:
        plan: Coupling, shape (B, n, m).
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        weight: Factor of each item, shape (B,).
        loss: 0 for l1 (the derivative at 0 is taken as 0), 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.

    Returns:
        weight * d/d struct_x (B, n, n) and weight * d/d struct_y (B, m, m) of
        sum over the pair set of plan_ij plan_kl L(struct_x_ik - struct_y_jl).

    Complexity:
        O(n^2 m^2) time, O(n m^2) memory per item.
    """
    n, m = plan.shape[1:]
    rows, grad_y = [], torch.zeros_like(struct_y)
    k = torch.arange(n, device=plan.device)[:, None, None]
    j = torch.arange(m, device=plan.device)[None, :, None]
    l = torch.arange(m, device=plan.device)[None, None, :]
    weighted = plan * weight[:, None, None]
    for i in range(n):
        difference = struct_x[:, i, :, None, None] - struct_y[:, None, :, :]  # (B, k, j, l)
        in_set, _ = _pair_sets(torch.full_like(k, i), k, j, l, pairs)
        slope = _slope(_kept(difference, in_set), loss)
        terms = _shares(weighted[:, i, None, :, None] * plan[:, :, None, :], slope)
        rows.append(terms.sum((2, 3)))
        grad_y = grad_y - terms.sum(1)
    return torch.stack(rows, 1), grad_y


def pair_cost_kernel(struct_x: Tensor, struct_y: Tensor, i: int, loss: int, pairs: int) -> Tensor:
    """Return K^ij of one row i and every j, with B(V)_ij = <K^ij, V>; shape (B, m, n, m)."""
    leaving, entering = _differences(struct_x, struct_y, i, pairs)
    return _loss(leaving, loss) + _loss(entering, loss)


def pair_cost_matrix(struct_x: Tensor, struct_y: Tensor, loss: int, pairs: int) -> Tensor:
    """Return the symmetric matrix of B on flattened plans, shape (B, n m, n m)."""
    rows = [
        pair_cost_kernel(struct_x, struct_y, i, loss, pairs).flatten(2)
        for i in range(struct_x.shape[1])
    ]
    return torch.cat(rows, 1)


def dense_pair_cost(
    plan: Tensor, struct_x: Tensor, struct_y: Tensor, loss: int, pairs: int
) -> Tensor:
    """Compute `pair_cost` of a plan without zeros, a row at a time, O(n m^2) memory per item."""
    rows = [
        _shares(plan[:, None], pair_cost_kernel(struct_x, struct_y, i, loss, pairs)).sum((2, 3))
        for i in range(struct_x.shape[1])
    ]
    return torch.stack(rows, 1)


def kept_pairs(structure: Tensor, pairs: int) -> Tensor:
    """Blank the entries of a structure, shape (B, n, n), that no pair of the pair set has."""
    if pairs == PAIRS_ALL:
        return structure
    node = torch.arange(structure.shape[1], device=structure.device)
    after, apart = node[:, None] < node[None, :], node[:, None] != node[None, :]
    return torch.where(after if pairs == PAIRS_ORDERED else apart, structure, 0)


def pair_cost_change(
    plan: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    change_x: Tensor,
    change_y: Tensor,
    loss: int,
    pairs: int,
) -> Tensor:
    """Return the derivative of B(plan), (B, n, m), along changes of the structures."""
    rows = []
    for i in range(plan.shape[1]):
        leaving, entering = _differences(struct_x, struct_y, i, pairs)
        change_out, change_in = _differences(change_x, change_y, i, pairs)
        kernel = _slope(leaving, loss) * change_out + _slope(entering, loss) * change_in
        rows.append((kernel * plan[:, None]).sum((2, 3)))
    return torch.stack(rows, 1)


def signature_distance(
    struct_x: Tensor, struct_y: Tensor, a: Tensor, b: Tensor, loss: int, pairs: int
) -> Tensor:
    """Compare nodes by their mean outgoing and mean incoming structure.

    With out_i = sum of a_k struct_x_ik and in_i = sum of a_k struct_x_ki over the k that node i is
    paired with (all: every k; directed: k != i; ordered: k > i and k < i), the entry (i, j) is
    the mean of L(out_i - out'_j) and L(in_i - in'_j), shape (B, n, m), in the unit of the costs.
    """
    out_x, in_x = _signatures(struct_x, a, pairs)
    out_y, in_y = _signatures(struct_y, b, pairs)
    out_gap = _loss(out_x[:, :, None] - out_y[:, None, :], loss)
    in_gap = _loss(in_x[:, :, None] - in_y[:, None, :], loss)
    return 0.5 * (out_gap + in_gap)


def _signatures(structure: Tensor, masses: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    if pairs == PAIRS_ORDERED:
        after = structure.triu(1)
    elif pairs == PAIRS_DIRECTED:
        after = structure - torch.diag_embed(structure.diagonal(dim1=1, dim2=2))
    else:
        after = structure
    leaving = (after * masses[:, None, :]).sum(2)
    entering = (after * masses[:, :, None]).sum(1)
    return leaving, entering


def _loss(difference: Tensor, loss: int) -> Tensor:
    return difference.abs() if loss == LOSS_L1 else difference * difference


def _kept(values: Tensor, pairs: Tensor) -> Tensor:
    """0 outside the pair set, whatever stands there."""
    return torch.where(pairs, values, 0)


def _shares(masses: Tensor, values: Tensor) -> Tensor:
    """Multiply; 0 without mass, also of what overflowed, and differentiable there."""
    return masses * torch.where((masses != 0) | values.isfinite(), values, 0)


def _slope(difference: Tensor, loss: int) -> Tensor:
    return difference.sign() if loss == LOSS_L1 else 2 * difference


def _differences(struct_x: Tensor, struct_y: Tensor, i: int, pairs: int) -> tuple[Tensor, Tensor]:
    """Differences of what leaves and what enters node i and every j, both (B, m, n, m).

    0 outside the pair set, where loss and slope are 0 then, whatever stands there.
    """
    n, m = struct_x.shape[1], struct_y.shape[1]
    j = torch.arange(m, device=struct_x.device)[:, None, None]
    k = torch.arange(n, device=struct_x.device)[None, :, None]
    l = torch.arange(m, device=struct_x.device)[None, None, :]
    after, before = _pair_sets(torch.full_like(k, i), k, j, l, pairs)
    leaving = struct_x[:, i, None, :, None] - struct_y[:, :, None, :]
    entering = struct_x[:, :, i][:, None, :, None] - struct_y.transpose(1, 2)[:, :, None, :]
    if pairs == PAIRS_ALL:
        return leaving, entering
    return _kept(leaving, after), _kept(entering, before)


def _pair_sets(i: Tensor, k: Tensor, j: Tensor, l: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Return whether ((i, j), (k, l)) and whether ((k, l), (i, j)) belongs to the pair set."""
    if pairs == PAIRS_ORDERED:
        return (i < k) & (j < l), (k < i) & (l < j)
    if pairs == PAIRS_DIRECTED:
        apart = (i != k) & (j != l)
        return apart, apart
    everywhere = torch.ones_like((i == k) & (j == l))
    return everywhere, everywhere
