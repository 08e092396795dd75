"""Distances between architectures: of what they compute, and of how they are written down."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import choice
from hotnas_torch.hierarchy.flat import check_codes

__all__ = ["encoding_distances", "output_distances", "prefix_distances"]

_SMALLEST_PROBABILITY = 1e-12
_BLOCK = 2**24
"""Entries of an intermediate block."""

Measure = Literal["kl", "l2", "cross_entropy"]
Encoding = Literal["vector", "one_hot"]
Weights = Literal["equal", "exponential"]


def output_distances(outputs: Tensor, measure: Measure = "kl", *, logits: bool = True) -> Tensor:
    r"""Distances between architectures by the class probabilities that they give B samples.

    With p and q the probabilities of two architectures, no less than 1e-12, sums over classes and
    means over samples:

    - `"kl"`: :math:`\tfrac12 (KL(p \| q) + KL(q \| p))`, the paper's best;
    - `"cross_entropy"`: :math:`-\tfrac12 (\sum p \log q + \sum q \log p)`, and 0 on the diagonal;
    - `"l2"`: the root of the mean squared Euclidean distance, a Euclidean distance itself.

    Args:
        outputs: (N, B, K) floating point, K classes, on any device.
        measure: See above.
        logits: Whether a softmax turns the outputs into probabilities; otherwise they are ones.

    Returns:
        (N, N) float64, symmetric with zero diagonal, on the outputs' device. As differences of
        inner products, "l2" distances are exact to 1e-7.

    Raises:
        TypeError: `outputs` is no floating point tensor.
        ValueError: Wrong shape, outputs that are not finite, negative probabilities, or an unknown
            measure.

    Complexity: O(N^2 B K) time as matrix products; O(N B K) memory beside the result.

    Reference: "Neural Architecture Search by Learning a Hierarchical Search Space", 2025,
        Section 5.2, Table 2. Symmetrisation, clipping and the use of probabilities are ours.

    Example:
        >>> outputs = torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]]]).double()
        >>> output_distances(outputs, logits=False)[0, 1]
        tensor(0.4394, dtype=torch.float64)
    """
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        raise TypeError("outputs must be a floating point tensor")
    if outputs.dim() != 3 or 0 in outputs.shape:
        raise ValueError(
            "outputs must have shape (N, B, K), architectures, samples and classes; got "
            f"{tuple(outputs.shape)}"
        )
    choice("measure", measure, ("kl", "l2", "cross_entropy"))
    finite = outputs.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        raise ValueError(f"outputs[{int((~finite).nonzero()[0, 0])}] must be finite")
    num, samples, _ = outputs.shape
    p = outputs.double().softmax(dim=-1) if logits else outputs.double()
    if (p < 0).any():
        raise ValueError("outputs must be probabilities, >= 0 (or pass logits=True)")
    p = p.clamp_min(_SMALLEST_PROBABILITY).flatten(1)
    other = p if measure == "l2" else p.log()
    cross = torch.empty(num, num, dtype=p.dtype, device=p.device)
    for rows in torch.arange(num, device=p.device).split(max(1, _BLOCK // num)):
        cross[rows] = p[rows] @ other.T
    own = cross.diagonal().clone()
    distances = -(cross + cross.T) / samples
    del cross
    if measure != "cross_entropy":
        distances += (own + own[:, None]) / samples
    distances = distances.clamp_min_(0.0).fill_diagonal_(0.0)
    return distances.sqrt_() if measure == "l2" else 0.5 * distances


def encoding_distances(
    codes: Tensor,
    encoding: Encoding = "one_hot",
    *,
    weights: Weights = "equal",
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    r"""Euclidean distances between architectures by their choices per layer.

    .. math:: d(a, b)^2 = \sum_l w_l \, |x_l(a) - x_l(b)|^2

    Args:
        codes: (N, L) integers on any device, which choice each architecture makes in each layer.
        encoding: `"vector"`: x is the number of the choice; `"one_hot"`: its one-hot vector.
        weights: `"equal"`: w = 1; `"exponential"`: w_l = 2^-l, l = 1..L, which makes early
            layers count more.
        dtype: float32 or float64.

    Returns:
        (N, N), on the codes' device.

    Raises:
        TypeError: `codes` holds no integers.
        ValueError: `codes` is no matrix, or an unknown encoding or weighting.

    Complexity: O(N^2 L) time; a bounded block of memory beside the result.

    Reference: "Neural Architecture Search by Learning a Hierarchical Search Space", 2025,
        Section 5.2, Table 3.

    Example:
        >>> encoding_distances(torch.tensor([[0, 2], [1, 2], [1, 0]]), "vector")[0]
        tensor([0.0000, 1.0000, 2.2361], dtype=torch.float64)
    """
    codes = check_codes(codes)
    choice("encoding", encoding, ("vector", "one_hot"))
    choice("weights", weights, ("equal", "exponential"))
    columns = []
    for layer, column in enumerate(codes.T, start=1):
        if encoding == "vector":
            x = column[:, None].to(dtype)
        else:
            x = (column[:, None] == column.unique()).to(dtype)
        columns.append(x * (2.0 ** (-0.5 * layer) if weights == "exponential" else 1.0))
    return _euclidean(torch.cat(columns, dim=1))


def prefix_distances(
    nets: Sequence[Network], distance: Callable[[list[Network]], Tensor]
) -> Tensor:
    r"""Distances between networks that count early layers more, from any distance of networks.

    .. math:: D(a, b) = \sum_{k=1}^{L} 2^{-k} \, d(a_{1..k}, b_{1..k})

    with :math:`a_{1..k}` the first k cells of a network (all of them where it has fewer) and L the
    largest number of cells. A difference in layer l is part of all terms from l on, so its weight
    falls as :math:`2^{-l}`, as with the exponential weights of `encoding_distances`. Trees of
    such distances decide the early layers first and have few ties.

    Args:
        nets: N networks whose cells form chains.
        distance: Distances (n, n) of a list of n distinct networks, for example an
            `hotnas_torch.HOTNN`.

    Returns:
        (N, N), of the distance's dtype and on its device.

    Raises:
        ValueError: `nets` is empty or holds a network that is no chain; the message gives its
            index.

    Complexity: one matrix over the distinct prefixes of each length.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBenchMacro()
        >>> nets = [space.from_string(text) for text in ("22222222", "22222220", "02222222")]
        >>> found = prefix_distances(nets, ht.HOTNN(space=space))
        >>> bool(found[0, 2] > found[0, 1])
        True
    """
    if not nets:
        raise ValueError("nets must hold at least one network; got none")
    for place, net in enumerate(nets):
        if not net.is_chain:
            raise ValueError(f"nets[{place}] must be a chain of cells, {net.spec!r} is none")
    total: Tensor | None = None
    for length in range(1, max(net.num_cells for net in nets) + 1):
        distinct: dict[Network, int] = {}
        places = [distinct.setdefault(_prefix(net, length), len(distinct)) for net in nets]
        found = 2.0**-length * distance(list(distinct))
        rows = torch.tensor(places, device=found.device)
        if total is None:
            total = torch.zeros(len(nets), len(nets), dtype=found.dtype, device=found.device)
        for block in torch.arange(len(nets), device=found.device).split(
            max(1, _BLOCK // len(nets))
        ):
            total[block] += found[rows[block]][:, rows]
    assert total is not None
    return total


def _prefix(net: Network, length: int) -> Network:
    return Network.chain(
        net.cells[:length],
        net.channels[:length],
        net.downsampling[:length],
        input_channels=net.input_channels,
    )


def _euclidean(points: Tensor) -> Tensor:
    """Euclidean distances between rows, exactly symmetric with an exact zero diagonal."""
    num = len(points)
    distances = torch.empty(num, num, dtype=points.dtype, device=points.device)
    # Not by inner products, which lose the small distances that clusters start from.
    mode = "donot_use_mm_for_euclid_dist"
    for rows in torch.arange(num, device=points.device).split(max(1, _BLOCK // num)):
        distances[rows] = torch.cdist(points[rows], points, compute_mode=mode)
    return distances
