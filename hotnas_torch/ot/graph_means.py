"""Graphs that are best for fixed couplings: means of what is matched, or medians."""

import torch
from torch import Tensor

from hotnas_torch.ot.terms import Pairs

__all__ = ["mean_features", "mean_struct", "median_features", "median_struct"]


def mean_struct(
    structs: Tensor, weights: Tensor, plans: Tensor, pairs: Pairs
) -> tuple[Tensor, Tensor]:
    """Weighted means of matched entries, which are best for a squared loss.

    Args:
        structs: Structures of the graphs, shape (B, S, n, n).
        weights: Weights of the graphs, shape (B, S).
        plans: Couplings of the nodes sought with theirs, shape (B, S, N, n).
        pairs: Which pairs of nodes are read; see `hotnas_torch.ot.fgw`.

    Returns:
        The structure and the weight of each entry, shape (B, N, N). Entries of weight 0 are 0.

    Complexity: O(S n N (n + N)).
    """
    weighted = weights[..., None, None] * plans
    if pairs == "all":
        rows = plans.sum(3)
        total = _side_by_side(weighted @ structs) @ _side_by_side(plans).mT
        mass = (weights[..., None] * rows).mT @ rows
    else:
        read = _read_pairs(structs.shape[-1], pairs, structs)
        total = _side_by_side(weighted @ (structs * read)) @ _side_by_side(plans).mT
        mass = _side_by_side(weighted @ read) @ _side_by_side(plans).mT
        mass = mass * _read_pairs(plans.shape[2], pairs, structs)
    return total / torch.where(mass > 0, mass, 1), mass


def mean_features(features: Tensor, weights: Tensor, plans: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted means of matched features, shape (B, S, n, d): shape (B, N, d), and weights."""
    weighted = weights[..., None] * plans.sum(3)
    mass = weighted.sum(1)
    nodes = (weights[..., None, None] * features).flatten(1, 2)
    total = _side_by_side(plans) @ nodes
    return total / torch.where(mass > 0, mass, 1)[..., None], mass


def median_struct(
    structs: Tensor, weights: Tensor, plans: Tensor, pairs: Pairs
) -> tuple[Tensor, Tensor]:
    """Weighted medians of matched entries, which are best for an absolute loss.

    Arguments and results are those of `mean_struct`.

    Complexity: O(S N^2 r^2 log(S r)), with r the most nodes that one is matched to.
    """
    batch, size, nodes, n = plans.shape
    mass, place = _matched(plans)
    few = mass.shape[-1]
    at = (place[..., :, :, None, None] * n + place[..., None, None, :, :]).flatten(2)
    values = structs.flatten(2).gather(2, at)
    pair = (mass[..., :, :, None, None] * mass[..., None, None, :, :]).flatten(2)
    pair = pair * _read_pairs(n, pairs, structs).flatten()[at] * weights[..., None]
    shape = (batch, size, nodes, few, nodes, few)
    values, pair = (x.reshape(shape).permute(0, 2, 4, 1, 3, 5).flatten(3) for x in (values, pair))
    median, total = _weighted_median(values, pair)
    return median, total * _read_pairs(nodes, pairs, structs)


def median_features(features: Tensor, weights: Tensor, plans: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted medians of matched features, one by one, as `mean_features` returns means."""
    batch, size, nodes, _ = plans.shape
    width = features.shape[-1]
    mass, place = _matched(plans)
    few = mass.shape[-1]
    at = place.flatten(2)[..., None].expand(-1, -1, -1, width)
    values = features.gather(2, at).reshape(batch, size, nodes, few, width)
    shares = (weights[..., None, None] * mass)[..., None].expand_as(values)
    values, shares = (x.permute(0, 2, 4, 1, 3).flatten(3) for x in (values, shares))
    return _weighted_median(values, shares)[0], (weights[..., None, None] * plans).sum((1, 3))


def _side_by_side(values: Tensor) -> Tensor:
    """(B, S, N, n) as (B, N, S n), by which a sum over graphs is one product of matrices."""
    return values.transpose(1, 2).flatten(2)


def _read_pairs(size: int, pairs: Pairs, like: Tensor) -> Tensor:
    """Which pairs (k, l) of nodes are read, (n, n), as numbers."""
    every = torch.ones(size, size, dtype=like.dtype, device=like.device)
    if pairs == "directed":
        return every - torch.eye(size, dtype=like.dtype, device=like.device)
    return every.triu(1) if pairs == "ordered" else every


def _matched(plans: Tensor) -> tuple[Tensor, Tensor]:
    """Masses and places of what each node is matched to, (B, S, N, r), r the most there are."""
    most = int((plans > 0).sum(3).max()) if plans.numel() else 0
    mass, place = plans.topk(max(most, 1), dim=3)
    return mass, place


def _weighted_median(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lower weighted median along the last dimension, and the sum of the weights."""
    ordered, place = values.sort(dim=-1)
    share = weights.gather(-1, place).cumsum(-1)
    total = share[..., -1:]
    # Halves that rounding has moved are halves.
    slack = 64 * torch.finfo(values.dtype).eps
    first = (share < total * (0.5 - slack)).sum(-1, keepdim=True)
    first = first.clamp_max(values.shape[-1] - 1)
    return ordered.gather(-1, first).squeeze(-1), total.squeeze(-1)
