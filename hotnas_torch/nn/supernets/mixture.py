"""Several supernets beside each other, each for a share of the networks."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, random_generator
from hotnas_torch.nn.supernets.single_path import SinglePathSupernet

__all__ = ["SupernetMixture"]


class SupernetMixture(SinglePathSupernet):
    """M supernets of one space as one, whose first choice is which of them a network is trained in.

    For `SupernetSearch` with the sampler `hierarchy.Mixture` and the networks listed M times: where
    a list holds a network several times, its k-th occurrence is the network in the k-th supernet.

    Args:
        make: Builds a supernet with fresh weights from a generator; called M times.
        num_models: M, >= 1.
        generator: Source of the initial parameters, on the CPU.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.

    Reference: Roshtkhari, Toews and Pedersoli, Balanced Mixture of Supernets for Learning the CNN
        Pooling Architecture, AutoML 2023.

    Example:
        >>> from hotnas_torch.nn.supernets.pooling_supernet import PoolingSupernet
        >>> supernet = SupernetMixture(
        ...     lambda g: PoolingSupernet(width=0.125, input_channels=1, generator=g),
        ...     2,
        ...     generator=torch.Generator().manual_seed(0),
        ... )
        >>> net = supernet.space.from_string("[7,1,2]")
        >>> supernet.paths([net, net])[:, 0].tolist()
        [0, 1]
    """

    def __init__(
        self,
        make: Callable[[torch.Generator], SinglePathSupernet],
        num_models: int,
        *,
        generator: torch.Generator,
    ) -> None:
        nn.Module.__init__(self)
        random_generator(generator)
        integer("num_models", num_models, least=1)
        models = [make(generator) for _ in range(num_models)]
        first = models[0]
        if first.only is not None:
            raise ValueError("make must build supernets of all networks (leave out only=)")
        self.models = nn.ModuleList(models)
        self.space = first.space
        self.input_channels = first.input_channels
        self.num_classes = first.num_classes
        self.only = None
        self._only_path = None

    def paths(self, nets: Sequence[Network]) -> Tensor:
        """Return the choices of networks, the supernet first, (N, 1 + layers) int64 on the CPU.

        Raises:
            ArchitectureError: An entry is not of the space; the message gives its index.
            ValueError: A network stands there more often than there are supernets.
        """
        seen: Counter[str] = Counter()
        model = []
        for net in nets:
            model.append(seen[net.spec])
            seen[net.spec] += 1
        if model and max(model) >= len(self.models):
            raise ValueError(
                f"nets must hold each network at most {len(self.models)} times, once per supernet"
            )
        inner = self.models[0].paths(nets)  # type: ignore[operator]
        return torch.cat([torch.tensor(model, dtype=torch.int64)[:, None], inner], 1)

    def follow(self, images: Tensor, path: Sequence[int]) -> Tensor:
        """Map images to the logits of a path, as `paths` gives it; nothing is checked."""
        logits: Tensor = self.models[path[0]].follow(images, path[1:])  # type: ignore[operator]
        return logits

    @torch.no_grad()
    def outputs(self, images: Tensor, nets: Sequence[Network]) -> Tensor:
        """Return the logits of many networks for the same images, as `SinglePathSupernet`."""
        if not len(nets):
            return images.new_zeros(0, len(images), self.num_classes)
        return torch.stack([self.follow(images, path) for path in self.paths(nets).tolist()])
