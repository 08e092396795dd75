"""The methods that can be compared, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from hotnas_torch.search import HOTNAS, RandomSearch, RegularizedEvolution, Strategy
from hotnas_torch.spaces import SearchSpace

__all__ = ["METHODS", "Method"]


@dataclass(frozen=True, slots=True)
class Method:
    """A strategy with its settings.

    Attributes:
        title: What tables and pictures call it.
        build: Builds it from a space, a source of randomness and a number of initial networks.
    """

    title: str
    build: Callable[[SearchSpace, torch.Generator, int], Strategy]


def _hotnas(space: SearchSpace, generator: torch.Generator, num_initial: int) -> Strategy:
    return HOTNAS(space, generator=generator, num_initial=num_initial)


def _hotnas_paper(space: SearchSpace, generator: torch.Generator, num_initial: int) -> Strategy:
    return HOTNAS(space, generator=generator, num_initial=num_initial, preset="paper")


def _random(space: SearchSpace, generator: torch.Generator, num_initial: int) -> Strategy:
    del num_initial
    return RandomSearch(space, generator=generator)


def _evolution(space: SearchSpace, generator: torch.Generator, num_initial: int) -> Strategy:
    del num_initial  # the population is the method's own
    return RegularizedEvolution(space, generator=generator)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "hotnas": Method("HOTNAS", _hotnas),
        "hotnas_paper": Method("HOTNAS as printed", _hotnas_paper),
        "random": Method("random search", _random),
        "evolution": Method("evolution", _evolution),
    }
)
"""Methods by the name that records and the command line use."""
