"""Several processes that train one network: each computes on its part of every batch."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from hotnas_torch.nn.augmentation import Targets

__all__ = ["Together"]


@dataclass(frozen=True, slots=True)
class Together:
    """The processes of a group, or this one alone.

    All of them draw the same batches and change them in the same way; each then takes its part.

    Args:
        group: Of `torch.distributed`; None is this process alone.

    Raises:
        TypeError: It is no process group.
    """

    group: "distributed.ProcessGroup | None" = None

    def __post_init__(self) -> None:
        if self.group is None:
            return
        if not (distributed.is_available() and isinstance(self.group, distributed.ProcessGroup)):
            raise TypeError(
                f"group must be a torch.distributed process group or None; got {self.group!r}"
            )

    @property
    def num(self) -> int:
        """How many processes there are."""
        return 1 if self.group is None else distributed.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""
        return 0 if self.group is None else distributed.get_rank(self.group)

    def wrapped(self, module: nn.Module) -> nn.Module:
        """Return the module so that gradients are means over the processes."""
        if self.group is None:
            return module
        return DistributedDataParallel(
            module, process_group=self.group, find_unused_parameters=True
        )

    def part(
        self, images: Tensor, labels: Tensor, targets: Targets | None
    ) -> tuple[Tensor, Tensor, Targets | None, float]:
        """Return the part of a batch that is this process's, and what its mean loss weighs.

        Weights make the mean over processes the mean over the batch, where parts are unequal.
        """
        if self.group is None:
            return images, labels, targets, 1.0
        first, last = (len(images) * rank // self.num for rank in (self.rank, self.rank + 1))
        own = slice(first, last)
        weight = (last - first) * self.num / len(images)
        if targets is not None:
            targets = Targets(*(one[own] for one in targets))
        return images[own], labels[own], targets, weight

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a number over the processes."""
        if self.group is None:
            return value
        total = value.clone()
        distributed.all_reduce(total, group=self.group)
        return total / self.num

    def take_over(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes what the first one has in these tensors."""
        if self.group is None:
            return
        source = distributed.get_global_rank(self.group, 0)
        with torch.no_grad():
            for tensor in tensors:
                distributed.broadcast(tensor, source, group=self.group)

    def generator(self, drawn: torch.Generator) -> torch.Generator:
        """Return a source of what each process draws for its own part; `drawn` stays as it is."""
        if self.group is None:
            return drawn
        copy = torch.Generator()
        copy.set_state(drawn.get_state())
        return torch.Generator().manual_seed(
            int(torch.randint(2**62, (), generator=copy)) ^ self.rank
        )
