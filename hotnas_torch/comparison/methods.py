"""The methods that can be compared, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from hotnas_torch.comparison.tpe import TPE
from hotnas_torch.hierarchy import Boltzmann, Independent, Schedule, layer_operations
from hotnas_torch.search import (
    ANASODBO,
    BANANAS,
    BOTW,
    HOTNAS,
    NASBOT,
    NASBOWL,
    ANASODLocalSearch,
    ANASODRandomSearch,
    BOEdit,
    CombinedBO,
    EncodedBO,
    LocalSearch,
    MutationSearch,
    RandomPool,
    RandomSearch,
    RegularizedEvolution,
    SamplerSearch,
    Strategy,
    TreeSearch,
)
from hotnas_torch.spaces import SearchSpace

__all__ = ["METHODS", "TABLE", "Method"]


@dataclass(frozen=True, slots=True)
class Method:
    """A strategy with its settings.

    Attributes:
        title: What tables and pictures call it.
        build: Builds it from a space, a source of randomness and a number of initial networks.
    """

    title: str
    build: Callable[[SearchSpace, torch.Generator, int], Strategy]


def _random(space: SearchSpace, generator: torch.Generator, num_initial: int) -> Strategy:
    del num_initial
    return RandomSearch(space, generator=generator)


def _evolution(space: SearchSpace, generator: torch.Generator, num_initial: int) -> Strategy:
    del num_initial  # the population is the method's own
    return RegularizedEvolution(space, generator=generator, population=10, tournament=5)


def _anasod_random(bias: float) -> Callable[[SearchSpace, torch.Generator, int], Strategy]:
    def build(space: SearchSpace, generator: torch.Generator, num_initial: int) -> Strategy:
        del num_initial
        return ANASODRandomSearch(space, generator=generator, bias=bias)

    return build


def _with(
    strategy: Callable[..., Strategy], **settings: Any
) -> Callable[[SearchSpace, torch.Generator, int], Strategy]:
    """Return what builds a strategy with these settings."""

    def build(space: SearchSpace, generator: torch.Generator, num_initial: int) -> Strategy:
        return strategy(space, generator=generator, num_initial=num_initial, **settings)

    return build


_ANASOD = {
    "anasod_random": Method("ANASOD-RS", _anasod_random(0.0)),
    "anasod_biased": Method("ANASOD-biasedRS", _anasod_random(2.0)),
    "anasod_local": Method("ANASOD-LS", _with(ANASODLocalSearch)),
    "anasod_local_full": Method(
        "ANASOD-LS, whole neighbourhoods", _with(ANASODLocalSearch, full_neighborhood=True)
    ),
    "local_full": Method("LS, whole neighbourhoods", _with(LocalSearch, full_neighborhood=True)),
    "local_first": Method("LS", _with(LocalSearch)),
    "anasod_bo": Method("ANASOD-BO", _with(ANASODBO)),
    "anasod_bo_gradient": Method("ANASOD-BO, gradient", _with(ANASODBO, optimizer="gradient")),
    "anasod_bo_uniform": Method("ANASOD-BO, no trust region", _with(ANASODBO, trust_region=None)),
    "anasod_ensemble": Method("ANASOD-NEP", _with(ANASODBO, surrogate="ensemble")),
    "adjacency_bo": Method("Adj-BO", _with(EncodedBO, encoding="adjacency")),
    "path_bo": Method("Path-BO", _with(EncodedBO, encoding="path")),
    "adjacency_bo_mutants": Method(
        "Adj-BO, mutants in the pool", _with(EncodedBO, encoding="adjacency", random_fraction=0.5)
    ),
}


_BUDGET = 100
"""Evaluations over which the temperature of samplers falls."""


def _boltzmann(space: SearchSpace, generator: torch.Generator, num_initial: int) -> Strategy:
    sampler = Boltzmann(space.size_bound(), schedule=_annealing(num_initial))
    return SamplerSearch(space, sampler, generator=generator, budget=_BUDGET)


def _independent(space: SearchSpace, generator: torch.Generator, num_initial: int) -> Strategy:
    sampler = Independent(layer_operations(space, list(space)), schedule=_annealing(num_initial))
    return SamplerSearch(space, sampler, generator=generator, budget=_BUDGET)


def _annealing(num_initial: int) -> Schedule:
    return Schedule(warm_up=min(num_initial / _BUDGET, 1.0), start=0.03, end=0.01)


_SAMPLERS = {
    "mcts_hotnn": Method("MCTS, tree of HOTNN distances", _with(TreeSearch, budget=_BUDGET)),
    "mcts_hotnn_prefix": Method(
        "MCTS, tree of HOTNN distances of prefixes",
        _with(TreeSearch, budget=_BUDGET, hierarchy="hotnn_prefix"),
    ),
    "mcts_encoding": Method(
        "MCTS, tree of encodings", _with(TreeSearch, budget=_BUDGET, hierarchy="encoding")
    ),
    "mcts_default": Method(
        "MCTS, default tree", _with(TreeSearch, budget=_BUDGET, hierarchy="layers")
    ),
    "mcts_default_reg": Method(
        "MCTS, default tree, regularised",
        _with(TreeSearch, budget=_BUDGET, hierarchy="layers", regularization=0.5),
    ),
    "mcts_random": Method(
        "MCTS, random tree", _with(TreeSearch, budget=_BUDGET, hierarchy="random")
    ),
    "boltzmann": Method("Boltzmann sampling", _boltzmann),
    "independent": Method("independent layers", _independent),
}


# Those of evolution and NAS-BOWL were their best on tables that the comparison does not have:
# `python -m benchmarks baselines`.
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "hotnas": Method("HOTNAS", _with(HOTNAS)),
        "hotnas_hotnn": Method("HOTNAS, HOTNN alone", _with(HOTNAS, preset="hotnn")),
        "hotnas_paper": Method("HOTNAS, preset paper", _with(HOTNAS, preset="paper")),
        "hotnas_distribution": Method(
            "HOTNAS with operation distributions", _with(HOTNAS, preset="distribution")
        ),
        "combined_bo": Method("HOTNAS, combined kernels", _with(CombinedBO)),
        "random": Method("random search", _random),
        "evolution": Method("evolution", _evolution),
        "nasbot": Method("NASBOT", _with(NASBOT)),
        "bo_tw": Method("BO-TW", _with(BOTW)),
        "bo_tw_2g": Method("BO-TW-2G", _with(BOTW, grams=2)),
        # No settings of its own are known: as many candidates as HOTNAS has.
        "bo_edit": Method("BO-edit", _with(BOEdit, pool_size=500)),
        "nas_bowl": Method("NAS-BOWL", _with(NASBOWL, random_fraction=0.0)),
        "bananas": Method("BANANAS", _with(BANANAS)),
        "mutation": Method("mutation, no model", _with(MutationSearch)),
        "tpe": Method("TPE (Optuna)", _with(TPE)),
        "random_pool": Method("HOTNAS, random choice", _with(RandomPool)),
        **_ANASOD,
        **_SAMPLERS,
    }
)
"""Methods by the name that records and the command line use."""

TABLE = (
    "hotnas",
    "hotnas_paper",
    "random",
    "evolution",
    "local_first",
    "nasbot",
    "bo_tw",
    "bo_tw_2g",
    "bo_edit",
    "nas_bowl",
    "bananas",
    "mutation",
    "random_pool",
)
"""Methods of the table that compares HOTNAS with those that it is an alternative to."""
