"""Distance between random generators of networks: exact transport between samples of both."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import items
from hotnas_torch.distances.network_distance import NetworkDistance
from hotnas_torch.matrices.pairwise import Executor, distinct_pairs, straight_pairs
from hotnas_torch.matrices.progress import Progress
from hotnas_torch.ot._operators import network_distances

__all__ = ["sample_distances"]

Sample = Sequence[Network]
Name = tuple[str, ...]


def sample_distances(
    metric: NetworkDistance,
    samples_a: Sequence[Sample],
    samples_b: Sequence[Sample] | None = None,
    *,
    progress: Progress = False,
    executor: Executor | None = None,
) -> Tensor:
    r"""Return distances between samples of networks, one level above networks.

    .. math:: d(A, B) = \min_T \sum_{st} T_{st} \, d(a_s, b_t)
        \quad T 1 = 1/|A|, \; T^\top 1 = 1/|B|

    A sample stands for the distribution that it was drawn from: two samples of one generator are
    some distance apart, the less the larger they are.

    Args:
        metric: Distance between networks.
        samples_a: A lists of networks, each of at least one.
        samples_b: B lists; None compares `samples_a` with itself, at half the cost.
        progress: True shows a bar; a callable receives (stage, pairs done, pairs in all).
        executor: Who computes the distances between networks; None is this process.

    Returns:
        Distances >= 0, shape (A, B), in the dtype and on the device of `metric`. Samples of equal
        networks are exactly 0 apart, in whichever order; d(A, B) = d(B, A) to the bit.

    Raises:
        TypeError: A list or an item of the wrong type; the message names the index.
        ValueError: An empty list or sample, or an operation that the metric does not know.

    Differentiability: none, the result has no graph.

    Complexity: one distance per pair of distinct networks, one transport per pair of
        distinct samples.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBenchMacro()
        >>> nets = space.sample(6, generator=torch.Generator().manual_seed(0))
        >>> found = sample_distances(ht.HOTNN(space=space), [nets[:3], nets[3:], nets[2::-1]])
        >>> found.shape, float(found[0, 2]), bool(found[0, 1] > 0)
        (torch.Size([3, 3]), 0.0, True)
    """
    rows = _checked("samples_a", samples_a)
    cols = None if samples_b is None else _checked("samples_b", samples_b)
    given = rows + (cols or [])
    # Named by their networks' keys; the order of names fixes which of a pair gives the rows.
    names = [tuple(sorted(net.key for net in sample)) for sample in given]
    order = sorted(dict.fromkeys(names), key=lambda name: (len(name), name))
    place = {name: number for number, name in enumerate(order)}
    items = torch.tensor([place[name] for name in names])
    row_set, row_place = torch.unique(items[: len(rows)], return_inverse=True)
    col_set, col_place = row_set, row_place
    if cols is not None:
        col_set, col_place = torch.unique(items[len(rows) :], return_inverse=True)

    by_key = {net.key: net for sample in given for net in sample}
    row_keys = _keys(order, row_set)
    col_keys = row_keys if cols is None else _keys(order, col_set)
    with torch.no_grad():
        between = metric(
            [by_key[key] for key in row_keys],
            None if cols is None else [by_key[key] for key in col_keys],
            progress=progress,
            executor=executor,
        )
    width = max(map(len, order))
    masses = between.new_tensor([_padded([1.0 / len(name)] * len(name), width) for name in order])
    features = masses.new_empty(*masses.shape, 0)

    def transport(x: Tensor, y: Tensor, distances: Tensor, *keys: list[str]) -> Tensor:
        items_x, items_y = (_numbers(order, side, width).to(masses.device) for side in keys)
        x, y = x.to(masses.device), y.to(masses.device)
        return network_distances(
            distances,
            items_x,
            masses,
            features,
            items_y,
            masses,
            features,
            x,
            y,
            backend=metric.backend,
        )

    small, large, expand = distinct_pairs(row_set, col_set, len(order))
    straight = straight_pairs(row_set, col_set, small, large, len(order))
    turned = ~straight
    values = between.new_empty(small.shape)
    values[straight] = transport(small[straight], large[straight], between, row_keys, col_keys)
    if bool(turned.any()):
        across = between.T.contiguous()
        values[turned] = transport(small[turned], large[turned], across, col_keys, row_keys)
    # Rounding may leave the objective of a perfect match a hair below zero.
    block = expand(values.clamp_min_(0.0))
    return block[row_place[:, None], col_place]


def _checked(name: str, samples: Sequence[Sample]) -> list[list[Network]]:
    if not isinstance(samples, list | tuple):
        raise TypeError(f"{name} must be a list of lists of Network; got {type(samples).__name__}")
    if not samples:
        raise ValueError(f"{name} must hold at least one sample; got an empty list")
    return [items(f"{name}[{i}]", sample, Network) for i, sample in enumerate(samples)]


def _keys(order: list[Name], numbers: Tensor) -> list[str]:
    """Distinct keys of the networks of the given samples, sorted."""
    return sorted({key for number in numbers.tolist() for key in order[number]})


def _numbers(order: list[Name], keys: list[str], width: int) -> Tensor:
    """Place of every sample's networks among keys, shape (X, width); 0 where there is none."""
    place = {key: number for number, key in enumerate(keys)}
    return torch.tensor([_padded([place.get(key, 0) for key in name], width) for name in order])


def _padded(values: list[Any], width: int) -> list[Any]:
    return values + [0] * (width - len(values))
