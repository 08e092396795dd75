"""Spaces that choose one operation for each of a fixed number of places."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hotnas_torch.arch import OperationTree
from hotnas_torch.spaces.base import Code, SearchSpace, draw_integers, out_of_range

__all__ = ["ChoiceSpace"]


class ChoiceSpace(SearchSpace):
    """A search space that is the product of equal choices.

    A code holds, per place, the index of the chosen operation in `operations`. Samples are
    uniform, neighbours differ in one place, and a mutation draws each place anew with probability
    1 / `mutation_period`.
    """

    mutation_period: int

    def __init__(
        self,
        tree: OperationTree | None,
        default_tree: OperationTree,
        labels: Sequence[str],
        places: Sequence[str],
    ) -> None:
        super().__init__(tree, default_tree, labels, places)
        self._choices = range(len(self.operations))

    def size(self) -> int:
        """Return the number of architectures: operations to the power of places."""
        return int(len(self._choices) ** self.dim)

    def _codes(self) -> Iterator[Code]:
        return itertools.product(self._choices, repeat=self.dim)

    def _draw(self, num: int, generator: torch.Generator) -> list[Code]:
        drawn = draw_integers(len(self._choices), (num, self.dim), generator)
        return [tuple(code) for code in drawn.tolist()]

    def _mutate(self, code: Code, generator: torch.Generator) -> Code:
        renewed = draw_integers(self.mutation_period, (self.dim,), generator) == 0
        drawn = draw_integers(len(self._choices), (self.dim,), generator)
        return tuple(torch.where(renewed, drawn, torch.tensor(code)).tolist())

    def _edits(self, code: Code) -> Iterator[Code]:
        for place, current in enumerate(code):
            for choice in self._choices:
                if choice != current:
                    yield (*code[:place], choice, *code[place + 1 :])

    def _fault(self, rows: Tensor) -> tuple[int, str] | None:
        return out_of_range(rows, self.columns, [len(self._choices)] * self.dim)
