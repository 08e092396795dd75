"""RNAG: three flat random graphs of operations in sequence."""

import torch

from hotnas_torch.arch import Network, OperationTree
from hotnas_torch.arguments import integer, kind, random_generator
from hotnas_torch.nago.layout import (
    STATE_SCALE,
    CellSampler,
    operation_tree,
    stage_widths,
)
from hotnas_torch.nago.theta import FlatTheta

__all__ = ["RNAG"]


class RNAG:
    """The flat generator: one graph of operations per stage, in a chain.

    A sample is a `Network` of three `Cell`. Directions of
    edges, merges and widths are as for `HNAG`.

    Args:
        first_downsampling: As for `HNAG`.

    Attributes:
        tree: Costs of exchanging operations, for distances between samples.
        state_scale: Divisors of a cell's state, as a search space has.

    Raises:
        ValueError: `first_downsampling` is not positive.

    Reference: Xie, Kirillov, Girshick and He, Exploring Randomly Wired Neural Networks for Image
        Recognition, ICCV 2019.

    Example:
        >>> from hotnas_torch.nago import FlatTheta
        >>> net = RNAG().sample(FlatTheta(), generator=torch.Generator().manual_seed(0))
        >>> [cell.num_nodes - 2 for cell in net.cells], net.channels
        ([32, 32, 32], (16, 32, 64))
    """

    def __init__(self, *, first_downsampling: int = 1) -> None:
        self.first_downsampling = integer("first_downsampling", first_downsampling, least=1)
        self.tree: OperationTree = operation_tree()
        self.state_scale = STATE_SCALE

    def sample(self, theta: FlatTheta, *, generator: torch.Generator) -> Network:
        """Draw a network; as `HNAG.sample`.

        Complexity: O(N K) expected time per stage.
        """
        kind("theta", theta, FlatTheta)
        random_generator(generator)
        sampler = CellSampler(theta.merge_weights, theta.operation_weights, generator)
        widths = stage_widths(theta.channel_ratio)
        return Network.chain(
            [sampler.operations(model, num_inputs=1) for model in theta.stages],
            widths,
            [self.first_downsampling * 2**stage for stage in range(len(widths))],
            input_channels=widths[0],
        )

    def __repr__(self) -> str:
        return f"RNAG(first_downsampling={self.first_downsampling})"
