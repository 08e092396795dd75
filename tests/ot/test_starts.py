"""Plans and duals to start from: fewer iterations, the same solution, or refused in words."""

from typing import Any

import pytest
import torch
from torch import Tensor

import hotnas_torch.ot as ot
from tests.generators.problems import F64, graphs, masses, uniform

inf = float("inf")


def near(value: Tensor, rng: torch.Generator) -> Tensor:
    return value + 1e-3 * uniform(rng, *value.shape)


@pytest.mark.parametrize("method", ["mirror", "proximal"])
def test_entropic_fgw_goes_on_from_a_plan(method: str, rng: torch.Generator, backend: str) -> None:
    p = graphs(rng, 6, 3, 4, absent=0.2)
    given = p.struct_x, p.struct_y, p.a, p.b
    options: dict[str, Any] = {"method": method, "backend": backend, "tol": 1e-6}
    # Proximal points end in the same optimum, sooner with less entropy.
    options |= {"epsilon": 0.5 if method == "mirror" else 0.1, "validate": False}
    start = ot.entropic_fgw(p.cost, *given, **options).plan
    if method == "proximal":
        start = 0.99 * start + 0.01 * p.a[:, :, None] * p.b[:, None, :]
    cost = near(p.cost, rng)
    cold = ot.entropic_fgw(cost, *given, **options)
    warm = ot.entropic_fgw(cost, *given, init=start, **options)
    solved = (cold.status == 0) & (warm.status == 0)
    assert solved.sum() >= 4
    assert warm.iterations[solved].sum() < cold.iterations[solved].sum()
    if method == "mirror":  # it has one optimum at this entropy
        assert torch.allclose(warm.plan[solved], cold.plan[solved], atol=1e-5)
    same = ot.entropic_fgw(cost, *given, init="product", **options)
    assert torch.equal(same.plan.nan_to_num(), cold.plan.nan_to_num())


@pytest.mark.parametrize("reg_m", [(0.5, 0.8), (inf, 0.3), (0.3, inf), (0.0, 0.5), (0.5, 0.0)])
def test_unbalanced_sinkhorn_goes_on_from_duals(
    reg_m: tuple[float, float], rng: torch.Generator, backend: str
) -> None:
    cost = uniform(rng, 8, 4, 5) - 0.3
    a, b = 1.3 * masses(rng, 8, 4, absent=0.2), masses(rng, 8, 5, absent=0.2)
    options: dict[str, Any] = {"epsilon": 0.03, "reg_m": reg_m, "backend": backend}
    first = ot.unbalanced_sinkhorn(cost, a, b, **options)
    moved = near(cost, rng).requires_grad_()
    cold = ot.unbalanced_sinkhorn(moved, a, b, **options)
    warm = ot.unbalanced_sinkhorn(moved, a, b, init=(first.f, first.g), **options)
    assert warm.converged.all()
    assert warm.iterations.sum() <= cold.iterations.sum()
    assert torch.allclose(warm.plan, cold.plan, atol=1e-8)
    assert torch.allclose(warm.objective, cold.objective, atol=1e-9)
    there = a > 0
    assert torch.allclose(warm.f[there], cold.f[there], atol=1e-7)
    ways = uniform(rng, 8, 4, 5)
    slopes = [torch.autograd.grad((ways * x.plan).sum(), moved)[0] for x in (cold, warm)]
    assert torch.allclose(*slopes, atol=1e-6)
    again = ot.unbalanced_sinkhorn(cost, a, b, init=(first.f, first.g), **options)
    assert again.iterations.max() <= 3


def test_wild_duals_are_a_start_as_well(rng: torch.Generator) -> None:
    cost, g = uniform(rng, 3, 4), torch.tensor([1e9, -1e9, 0.0, -inf], dtype=F64)
    expected = ot.unbalanced_sinkhorn(cost, epsilon=0.1, reg_m=0.5)
    found = ot.unbalanced_sinkhorn(
        cost, epsilon=0.1, reg_m=0.5, init=(torch.zeros(3, dtype=F64), g), validate=False
    )
    assert not bool(found.converged) or torch.allclose(found.plan, expected.plan, atol=1e-7)


def test_a_start_that_cannot_serve_is_refused() -> None:
    cost = torch.zeros(2, 3, dtype=F64)
    duals = torch.zeros(2, dtype=F64), torch.zeros(3, dtype=F64)
    balance = {"epsilon": 0.1, "reg_m": 1.0}
    with pytest.raises(ValueError, match=r'with penalty="tv".* draws duals to \[-1, 1\]'):
        ot.unbalanced_sinkhorn(cost, **balance, penalty="tv", init=duals)
    with pytest.raises(TypeError, match="init must be a pair"):
        ot.unbalanced_sinkhorn(cost, **balance, init=cost)
    with pytest.raises(ValueError, match=r"init\[0\] must have shape"):
        ot.unbalanced_sinkhorn(cost, **balance, init=duals[::-1])
    square = torch.zeros(2, 2, dtype=F64)
    diagonal = torch.eye(2, dtype=F64) / 2
    found = ot.entropic_fgw(square, square, square, epsilon=0.1, init=diagonal)
    assert bool(found.converged)
    with pytest.raises(ValueError, match=r"proximal.*would stay out; item 0 has 0 at \(0, 1\)"):
        ot.entropic_fgw(square, square, square, epsilon=0.1, init=diagonal, method="proximal")
    with pytest.raises(ValueError, match="init must have the marginals a and b"):
        ot.entropic_fgw(square, square, square, epsilon=0.1, init=2 * diagonal)
    with pytest.raises(ValueError, match='init must be None, "product" or a coupling'):
        ot.entropic_fgw(square, square, square, epsilon=0.1, init="last")
