"""HNAG: hierarchical networks from random graphs of random graphs of random graphs."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import torch

from hotnas_torch.arch import Network, OperationTree
from hotnas_torch.arguments import integer, kind, random_generator
from hotnas_torch.nago.layout import (
    STATE_SCALE,
    CellSampler,
    operation_tree,
    stage_widths,
)
from hotnas_torch.nago.theta import NUM_STAGES, Theta

__all__ = ["HNAG", "stages_of"]

_ROUNDING = 1e-9


class HNAG:
    """The hierarchical generator: a graph of cells, each a graph of graphs of operations.

    A sample is a `Network` whose macro graph is the top graph, whose cells are
    `NestedCell` (the middle graphs), and whose cells' nodes are cells of
    operations (the bottom graphs). Every graph is drawn independently. An edge of a random graph
    goes from the lower to the higher node; nodes without a lower neighbour read the graph's input,
    the mean of those without a higher one is its output.

    Where several tensors enter a node they are merged: summed with learnt weights, or, where a
    `merge_attention` or `merge_concat` node says so, otherwise. That node precedes an
    operation; in a graph it is the first after the input, and merges what enters the graph.

    A sample's widths are those of a first stage of 16 channels; only their ratio has a meaning
    until `hotnas_torch.nago.fit_channels` solves them from a number of parameters.

    Args:
        first_downsampling: Resolution divisor of the first stage: 1 for images below 40 pixels, 4
            with a stem for larger ones. It doubles from stage to stage.

    Attributes:
        tree: Costs of exchanging operations, for distances between samples.
        state_scale: Divisors of a cell's state, as a search space has.

    Raises:
        ValueError: `first_downsampling` is not positive.

    Reference: Ru, Esperanca and Carlucci, NAGO, NeurIPS 2020, Section 2.1.

    Example:
        >>> from hotnas_torch.nago import ErdosRenyi, Theta, WattsStrogatz
        >>> theta = Theta(WattsStrogatz(8, 5, 0.6), ErdosRenyi(1, 0.7), WattsStrogatz(5, 4, 0.2))
        >>> net = HNAG().sample(theta, generator=torch.Generator().manual_seed(0))
        >>> net.num_cells, net.downsampling
        (8, (1, 1, 1, 2, 2, 2, 4, 4))
        >>> net.cells[0].num_operations
        5
    """

    def __init__(self, *, first_downsampling: int = 1) -> None:
        self.first_downsampling = integer("first_downsampling", first_downsampling, least=1)
        self.tree: OperationTree = operation_tree()
        self.state_scale = STATE_SCALE

    def sample(self, theta: Theta, *, generator: torch.Generator) -> Network:
        """Draw a network.

        Args:
            theta: Hyperparameters.
            generator: Source of randomness, on the CPU. Equally seeded generators give equal
                networks.

        Raises:
            TypeError: An argument is of the wrong kind.

        Complexity: O(N_t N_m (N_m + N_b K_b)) expected time.
        """
        kind("theta", theta, Theta)
        random_generator(generator)
        edges = theta.top.sample(generator=generator).between_ends()
        sampler = CellSampler(theta.merge_weights, theta.operation_weights, generator)
        cells = tuple(
            sampler.cells(theta.mid, theta.bottom, sum(j == node for _, j in edges))
            for node in range(1, theta.top.num_nodes + 1)
        )
        stages = stages_of(theta.top.num_nodes, theta.stage_ratio)
        widths = stage_widths(theta.channel_ratio)
        return Network(
            cells,
            tuple(widths[stage] for stage in stages),
            tuple(self.first_downsampling * 2**stage for stage in stages),
            edges,
            input_channels=widths[0],
        )

    def __repr__(self) -> str:
        return f"HNAG(first_downsampling={self.first_downsampling})"


def stages_of(num_nodes: int, ratio: Sequence[float]) -> list[int]:
    """Return the stage of each node of the top graph, ascending.

    Node x enters stage s + 1 when x reaches the first s + 1 shares of N. Up to three nodes have a
    stage each.

    Args:
        num_nodes: N.
        ratio: Relative length of each stage, > 0.

    Example:
        >>> stages_of(20, (0.2, 0.2, 0.6)).count(2)
        12
    """
    if num_nodes <= NUM_STAGES:
        return list(range(num_nodes))
    total = sum(ratio)
    thresholds = [share * num_nodes / total - _ROUNDING for share in accumulate(ratio[:-1])]
    return [bisect_right(thresholds, node) for node in range(num_nodes)]
