"""Masses of plans in float64: those that were asked for, to 1e-12, whatever the padding."""

from typing import Any

import pytest
import torch
from torch import Tensor

import hotnas_torch.ot as ot
from tests.generators.problems import F64, masses, uniform

inf = float("inf")
MOST = 1e-12


def problems(rng: torch.Generator, size: int = 12, n: int = 14, m: int = 17) -> dict[str, Tensor]:
    """Distances of points; of up to 14 and 17 nodes, as some are absent."""
    points = uniform(rng, size, n, 2), uniform(rng, size, m, 2)
    return {
        "cost": uniform(rng, size, n, m),
        "struct_x": torch.cdist(points[0], points[0]),
        "struct_y": torch.cdist(points[1], points[1]),
        "a": masses(rng, size, n, absent=0.3),
        "b": masses(rng, size, m, absent=0.3),
    }


def check(plan: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> None:
    for masses_of, wanted in ((plan.sum(2), a), (plan.sum(1), b)):
        if wanted is not None:
            assert (masses_of - wanted).abs().max() <= MOST


def test_parts_are_within_the_masses_and_move_what_was_asked(
    rng: torch.Generator, backend: str
) -> None:
    given = problems(rng)
    given["a"], given["b"] = 1.7 * given["a"], 0.6 * given["b"]
    mass = 0.5 * uniform(rng, 12)
    linear = {name: given[name] for name in ("cost", "a", "b")}
    for found in (
        ot.partial_transport(**linear, mass=mass, backend=backend),
        ot.partial_fgw(**given, mass=mass, backend=backend, validate=False, max_iter=50),
        ot.partial_fgw(**given, mass=mass, init="product", backend=backend, max_iter=50),
    ):
        assert (found.plan.sum(2) - given["a"]).max() <= MOST
        assert (found.plan.sum(1) - given["b"]).max() <= MOST
        assert (found.plan.sum((1, 2)) - mass).abs().max() <= MOST


def test_masses_that_are_given_are_met(rng: torch.Generator, backend: str) -> None:
    given = problems(rng)
    a, b = given["a"], given["b"]
    options: dict[str, Any] = {"backend": backend, "max_iter": 30, "validate": False}
    check(ot.semirelaxed_fgw(**given, **options).plan, a)
    edges = {name: given[name][..., None] for name in ("struct_x", "struct_y")}
    check(ot.edge_fgw(**{**given, **edges}, **options).plan, a, b)
    found = ot.fgw_barycenter(
        given["struct_y"][None], masses=b[None], nodes=5, backend=backend, validate=False
    )
    check(found.plans[0], torch.full((12, 5), 0.2, dtype=F64), b)


@pytest.mark.parametrize("held", [0, 1])
@pytest.mark.parametrize("penalty", ["kl", "tv"])
def test_masses_that_are_held_are_met(
    penalty: str, held: int, rng: torch.Generator, backend: str
) -> None:
    given = problems(rng, 6, 5, 6)
    weights = [0.3, 0.3]
    weights[held] = inf
    options: dict[str, Any] = {"reg_m": tuple(weights), "penalty": penalty, "backend": backend}
    linear = {name: given[name] for name in ("cost", "a", "b")}
    linear["b"] = 1.5 * linear["b"]
    sides = (linear["a"], None) if held == 0 else (None, linear["b"])
    found = ot.unbalanced_sinkhorn(**linear, epsilon=0.1, tol=1e-13, validate=False, **options)
    check(found.plan, *sides)
    if penalty == "tv":
        check(ot.unbalanced_transport(**linear, **options).plan, *sides)


@pytest.mark.parametrize("penalty", ["kl", "tv"])
def test_masses_at_a_price_are_those_that_the_duals_ask_for(
    penalty: str, rng: torch.Generator, backend: str
) -> None:
    given = problems(rng, 6, 5, 6)
    linear = {name: given[name] for name in ("cost", "a", "b")}
    options: dict[str, Any] = {"reg_m": 0.4, "penalty": penalty, "backend": backend}
    found = ot.unbalanced_sinkhorn(**linear, epsilon=0.1, tol=1e-13, validate=False, **options)
    for dual, wanted, masses_of in (
        (found.f, given["a"], found.plan.sum(2)),
        (found.g, given["b"], found.plan.sum(1)),
    ):
        there = wanted > 0
        if penalty == "kl":
            assert (masses_of - wanted * (-dual / 0.4).exp())[there].abs().max() <= MOST
        else:  # all of it within the bounds, less at the upper and more at the lower one
            inside = there & (dual.abs() < 0.4)
            assert (masses_of - wanted)[inside].abs().max() <= MOST
        assert not masses_of[~there].any()
    if penalty == "tv":  # which pays neither to exceed here
        exact = ot.unbalanced_transport(**linear, **options).plan
        fused = ot.unbalanced_fgw(**given, reg_m=0.4, penalty="tv", backend=backend).plan
        for plan in (exact, fused):
            assert (plan.sum(2) - given["a"]).max() <= MOST
            assert (plan.sum(1) - given["b"]).max() <= MOST
