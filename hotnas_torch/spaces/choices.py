"""Spaces that choose one of several for each of a fixed number of places."""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hotnas_torch.arch import OperationTree
from hotnas_torch.spaces.base import Code, SearchSpace, draw_integers

__all__ = ["ChoiceSpace"]


class ChoiceSpace(SearchSpace):
    """A search space that is the product of choices.

    A code holds, per place, the index of what is chosen there, by default of an operation in
    `operations`. Samples are uniform, neighbours differ in one place, and a mutation draws each
    place anew with probability 1 / `mutation_period`.

    Args:
        places: What each place is called.
        labels: All that cells carry.
        tree: Operation costs; None takes `default_tree`.
        default_tree: The space's own.
        numbers: How many choices each place has; None: as many as there are operations.
    """

    mutation_period: int

    def __init__(
        self,
        places: Sequence[str],
        labels: Sequence[str],
        *,
        tree: OperationTree | None,
        default_tree: OperationTree,
        numbers: Sequence[int] | None = None,
    ) -> None:
        numbers = [len(self.operations)] * len(places) if numbers is None else numbers
        columns = dict(zip(places, numbers, strict=True))
        super().__init__(columns, labels, tree=tree, default_tree=default_tree)

    def size(self) -> int:
        """Return the number of architectures: the product of the numbers of choices."""
        return math.prod(map(len, self.values))

    def all_codes(self) -> Iterator[Code]:
        return itertools.product(*self.values)

    def draw_codes(self, num: int, generator: torch.Generator) -> list[Code]:
        return [tuple(code) for code in self._drawn(num, generator).tolist()]

    def _drawn(self, num: int, generator: torch.Generator) -> Tensor:
        """Draw codes, (num, dim) int64, all places with the same number of choices at once."""
        runs = [
            (number, len(list(run))) for number, run in itertools.groupby(map(len, self.values))
        ]
        return torch.cat(
            [draw_integers(number, (num, length), generator) for number, length in runs], dim=1
        )

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        renewed = draw_integers(self.mutation_period, (self.dim,), generator) == 0
        (drawn,) = self._drawn(1, generator)
        return tuple(torch.where(renewed, drawn, torch.tensor(code)).tolist())

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        for place, current in enumerate(code):
            for choice in self.values[place]:
                if choice != current:
                    yield (*code[:place], choice, *code[place + 1 :])
