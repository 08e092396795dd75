"""Spaces that choose one operation for each of a fixed number of places."""

import itertools
from collections.abc import Iterator, Sequence

import torch

from hotnas_torch.arch import OperationTree
from hotnas_torch.spaces.base import Code, SearchSpace, draw_integers

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
        places: Sequence[str],
        labels: Sequence[str],
        *,
        tree: OperationTree | None,
        default_tree: OperationTree,
    ) -> None:
        self._choices = range(len(self.operations))
        super().__init__(
            dict.fromkeys(places, self._choices), labels, tree=tree, default_tree=default_tree
        )

    def size(self) -> int:
        """Return the number of architectures: operations to the power of places."""
        return int(len(self._choices) ** self.dim)

    def all_codes(self) -> Iterator[Code]:
        return itertools.product(self._choices, repeat=self.dim)

    def draw_codes(self, num: int, generator: torch.Generator) -> list[Code]:
        drawn = draw_integers(len(self._choices), (num, self.dim), generator)
        return [tuple(code) for code in drawn.tolist()]

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        renewed = draw_integers(self.mutation_period, (self.dim,), generator) == 0
        drawn = draw_integers(len(self._choices), (self.dim,), generator)
        return tuple(torch.where(renewed, drawn, torch.tensor(code)).tolist())

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        for place, current in enumerate(code):
            for choice in self._choices:
                if choice != current:
                    yield (*code[:place], choice, *code[place + 1 :])
