"""Networks as points of a box, for searches that know boxes alone."""

import math

from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.nago.box import Box, UnitBox
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space

__all__ = ["NetworkBox"]


class NetworkBox(Box):
    """The networks of a search space whose rows are choices, each by itself.

    With it, `Hyperband` and `BOHB` search for architectures, as baselines of strategies that know
    what networks are: a column is one of several categories without an order.

    Args:
        space: Search space of which every filling of the columns is a network, such as
            `NASBench201`.

    Attributes:
        space: As passed.
        categories: How many there are of each column.

    Raises:
        TypeError: `space` is no search space.
        ValueError: Some fillings of its columns are no networks, or columns are no choices.

    Example:
        >>> import torch
        >>> import hotnas_torch as ht
        >>> from hotnas_torch.nago import BOHB
        >>> box = NetworkBox(ht.spaces.NASBenchMacro())
        >>> generator = torch.Generator().manual_seed(0)
        >>> search = BOHB(box, min_budget=1, max_budget=9, generator=generator)
        >>> job = search.ask()
        >>> (net,) = box.decode(job.rows)
        >>> len(net.spec), job.budget
        (8, 1.0)
    """

    def __init__(self, space: SearchSpace) -> None:
        check_space(space)
        counts = tuple(len(values) for values in space.values)
        if space.hyperparameters or space.size_bound() != math.prod(counts):
            raise ValueError(
                "space must be one of which every filling of the columns is a network, such as "
                f"NASBench201; got {space!r} (search it with search.MultiFidelityHOTNAS)"
            )
        self.space = space
        self.categories = counts
        self._bins = UnitBox(len(counts), levels=counts)

    @property
    def dim(self) -> int:
        """Columns d of a row."""
        return self._bins.dim

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What tells the box from others, for records."""
        return tuple(f"{name}: {value}" for name, value in self.space.description().items())

    def round(self, X: Tensor, /) -> Tensor:
        """Move rows (..., d) to the middles of the categories' bins."""
        return self._bins.round(X)

    def decode(self, X: Tensor, /) -> list[Network]:
        """Return the networks of rows (N, d)."""
        places = (self.round(X) * X.new_tensor(self.categories)).floor()
        firsts = X.new_tensor([values[0] for values in self.space.values])
        return self.space.decode(places + firsts)

    def __repr__(self) -> str:
        return f"NetworkBox({self.space!r})"
