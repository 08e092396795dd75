import warnings
from typing import Any

import ot as pot
import pytest
import torch
from torch import Tensor

import hotnas_torch as ht
from tests.generators.problems import F64, masses, uniform

Problem = dict[str, Tensor]


def problems(rng: torch.Generator, size: int, n: int, m: int, dtype: torch.dtype = F64) -> Problem:
    """Distances between points in a square, costs of nodes, masses of any sums."""
    points = uniform(rng, size, n, 2), uniform(rng, size, m, 2)
    drawn = {
        "cost": uniform(rng, size, n, m),
        "struct_x": torch.cdist(points[0], points[0]),
        "struct_y": torch.cdist(points[1], points[1]),
        "a": masses(rng, size, n) * 1.3,
        "b": masses(rng, size, m) * 0.8,
        "alpha": 0.2 + 0.6 * uniform(rng, size),
    }
    return {name: value.to(dtype) for name, value in drawn.items()}


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL of the product of a measure with itself, by all of its entries."""
    square, other = p.flatten()[:, None] * p.flatten(), q.flatten()[:, None] * q.flatten()
    return (torch.special.xlogy(square, square / other) - square + other).sum()


def by_definition(
    at: Problem, plan: Tensor, loss: str, rho: tuple[float, float], eps: float
) -> Tensor:
    difference = at["struct_x"][:, None, :, None] - at["struct_y"][None, :, None, :]
    between = difference.abs() if loss == "l1" else difference**2
    value = (1 - at["alpha"]) * (at["cost"] * plan).sum()
    value = value + at["alpha"] * torch.einsum("ij,kl,ijkl->", plan, plan, between)
    value = value + rho[0] * divergence(plan.sum(1), at["a"])
    value = value + rho[1] * divergence(plan.sum(0), at["b"])
    return value + eps * divergence(plan, at["a"][:, None] * at["b"])


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_the_objective_is_that_of_the_definition_and_no_plan_nearby_is_better(
    rng: torch.Generator, backend: str, loss: str, epsilon: float
) -> None:
    given = problems(rng, 2, 3, 3)
    rho = (0.4, 0.9)
    found = ht.ot.unbalanced_fgw(**given, reg_m=rho, epsilon=epsilon, loss=loss, backend=backend)
    assert bool(found.converged.all())
    for item in range(2):
        at = {name: value[item] for name, value in given.items()}
        value = by_definition(at, found.plan[item], loss, rho, epsilon)
        assert torch.allclose(found.objective[item], value, rtol=1e-12)
        for _ in range(10):
            other = found.plan[item] * (1 + 1e-2 * (uniform(rng, 3, 3) - 0.5))
            assert by_definition(at, other, loss, rho, epsilon) >= value * (1 - 1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.03])
@pytest.mark.parametrize("reg_m", [0.3, 3.0])
def test_the_objective_is_not_above_that_of_pot_from_the_same_start(
    rng: torch.Generator, epsilon: float, reg_m: float
) -> None:
    given = problems(rng, 5, 7, 5)
    found = ht.ot.unbalanced_fgw(**given, reg_m=reg_m, epsilon=epsilon, loss="l2")
    assert bool(found.converged.all())
    for item in range(5):
        at = {name: value[item].numpy() for name, value in given.items()}
        alpha = float(at["alpha"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            log = pot.gromov.fused_unbalanced_gromov_wasserstein(
                at["struct_x"],
                at["struct_y"],
                at["a"],
                at["b"],
                reg_marginals=reg_m / alpha,
                epsilon=epsilon / alpha,
                unbalanced_solver="sinkhorn_log" if epsilon else "mm",
                alpha=(1 - alpha) / alpha,
                M=at["cost"],
                log=True,
            )[2]
        assert float(found.objective[item]) <= alpha * float(log["fugw_cost"]) * (1 + 1e-6)


@pytest.mark.parametrize("loss", ["l1", "l2", "kl"])
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_the_objective_has_the_gradient_of_finite_differences(
    rng: torch.Generator, loss: str, epsilon: float
) -> None:
    given = problems(rng, 2, 3, 3)
    for side in ("struct_x", "struct_y"):
        given[side] = given[side] + 0.2 + 0.1 * uniform(rng, 2, 3, 3)
    options: dict[str, Any] = {"reg_m": (0.5, 0.8), "epsilon": epsilon, "loss": loss}
    options |= {"tol": 1e-11, "validate": False}
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    objective = ht.ot.unbalanced_fgw(**leaves, **options).objective
    slopes = torch.autograd.grad(objective.sum(), list(leaves.values()), create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(slopes[0].sum(), leaves["cost"])
    # One direction of each input, forth and back, as one batch.
    ways = {name: uniform(rng, *value.shape) - 0.5 for name, value in given.items()}
    moved = [
        {name: value + (step * ways[name] if name == one else 0) for name, value in given.items()}
        for one in given
        for step in (1e-5, -1e-5)
    ]
    batch = {name: torch.stack([item[name] for item in moved]) for name in given}
    values = ht.ot.unbalanced_fgw(**batch, **options).objective.unflatten(0, (-1, 2))
    found = torch.stack(
        [
            (slope * way).flatten(1).sum(1) if way.dim() > 1 else slope * way
            for slope, way in zip(slopes, ways.values(), strict=True)
        ]
    )
    assert torch.allclose(found, (values[:, 0] - values[:, 1]) / 2e-5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_the_mass_of_an_absent_node_has_the_slope_of_small_masses(
    rng: torch.Generator, epsilon: float
) -> None:
    given = problems(rng, 2, 4, 3)
    given["a"][:, 1] = 0.0
    options: dict[str, Any] = {"reg_m": 0.6, "epsilon": epsilon, "loss": "l2", "tol": 1e-13}
    options["validate"] = False
    masses_of = given["a"].clone().requires_grad_()
    found = ht.ot.unbalanced_fgw(**{**given, "a": masses_of}, **options)
    slope = torch.autograd.grad(found.objective.sum(), masses_of)[0][:, 1]
    more = given["a"].clone()
    more[:, 1] = 1e-6
    other = ht.ot.unbalanced_fgw(**{**given, "a": more}, **options)
    assert torch.allclose(slope, (other.objective - found.objective) / 1e-6, rtol=1e-3, atol=1e-4)


def test_what_is_very_dear_to_miss_is_not_missed(rng: torch.Generator) -> None:
    given = problems(rng, 4, 4, 4) | {"a": masses(rng, 4, 4), "b": masses(rng, 4, 4)}
    plan = ht.ot.fgw(**given, loss="l2", init="product").plan
    found = ht.ot.unbalanced_fgw(**given, reg_m=1e4, loss="l2", init=plan, validate=False)
    assert torch.allclose(found.plan.sum(2), given["a"], atol=1e-3)
    assert torch.allclose(found.plan.sum(1), given["b"], atol=1e-3)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_padding_and_neighbours_change_nothing(rng: torch.Generator, epsilon: float) -> None:
    given = problems(rng, 3, 4, 3)
    options: dict[str, Any] = {"reg_m": 0.5, "epsilon": epsilon, "loss": "l2"}
    whole = ht.ot.unbalanced_fgw(**given, **options)
    alone = ht.ot.unbalanced_fgw(**{k: v[1] for k, v in given.items()}, **options)
    assert torch.allclose(alone.plan, whole.plan[1], rtol=1e-9, atol=1e-12)
    pad = torch.nn.functional.pad
    padded = {
        "cost": pad(given["cost"], (0, 2, 0, 1), value=torch.nan),
        "struct_x": pad(given["struct_x"], (0, 1, 0, 1), value=torch.inf),
        "struct_y": pad(given["struct_y"], (0, 2, 0, 2), value=torch.nan),
        "a": pad(given["a"], (0, 1)),
        "b": pad(given["b"], (0, 2)),
        "alpha": given["alpha"],
    }
    larger = ht.ot.unbalanced_fgw(**padded, **options)
    assert torch.allclose(larger.plan[:, :4, :3], whole.plan, rtol=1e-6, atol=1e-9)
    assert not larger.plan[:, 4:].any()
    assert not larger.plan[:, :, 3:].any()


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_what_is_never_worth_its_price_is_left(rng: torch.Generator, epsilon: float) -> None:
    given = problems(rng, 2, 4, 3)
    given["cost"] = (1e6 * (given["cost"] + 0.1)).requires_grad_()
    found = ht.ot.unbalanced_fgw(**given, reg_m=(1.0, 2.0), epsilon=epsilon)
    assert bool(found.converged.all())
    assert not found.plan.any()
    totals = given["a"].sum(1), given["b"].sum(1)
    left = totals[0] ** 2 + 2 * totals[1] ** 2 + epsilon * (totals[0] * totals[1]) ** 2
    assert torch.allclose(found.objective, left)
    found.objective.sum().backward()
    assert not given["cost"].grad.any()


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_every_problem_ends_at_a_proof_and_a_looser_one_sooner(
    rng: torch.Generator, loss: str
) -> None:
    given = problems(rng, 8, 12, 15)
    tight, loose = (
        ht.ot.unbalanced_fgw(**given, reg_m=1.0, loss=loss, tol=tol) for tol in (1e-10, 1e-4)
    )
    assert bool(tight.converged.all())
    assert bool((tight.gap <= 1e-10 * tight.objective).all())
    assert bool((loose.iterations <= tight.iterations).all())
    assert bool((tight.iterations < 400).all())


def test_equal_graphs_that_cost_nothing_stay_whole(backend: str) -> None:
    nothing = torch.zeros(3, 3, dtype=F64)
    found = ht.ot.unbalanced_fgw(nothing, nothing, nothing, reg_m=1.0, backend=backend)
    assert bool(found.converged)
    assert float(found.objective) == pytest.approx(0.0, abs=1e-12)
    assert float(found.plan.sum()) == pytest.approx(1.0)


def test_single_nodes_and_no_items_are_problems_too(dtype: torch.dtype) -> None:
    one = torch.ones(1, 1, dtype=dtype)
    # G(t) = t / 2 + 2 (2 t^2 log t - t^2 + 1): 1 / 2 + 8 t log t = 0.
    found = ht.ot.unbalanced_fgw(one, 0 * one, 0 * one, reg_m=1.0)
    mass = float(found.plan)
    assert 0.5 + 8 * mass * torch.tensor(mass).log() == pytest.approx(0.0, abs=1e-2)
    none = torch.ones(0, 2, 3, dtype=dtype)
    empty = ht.ot.unbalanced_fgw(none, none.new_ones(2, 2), none.new_ones(3, 3), reg_m=1.0)
    assert empty.plan.shape == (0, 2, 3)
    assert empty.objective.shape == (0,)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"reg_m": 0.0}, ValueError, "reg_m must be positive and finite"),
        ({"reg_m": float("inf")}, ValueError, "reg_m must be positive and finite"),
        ({"reg_m": (1.0, 2.0, 3.0)}, ValueError, "reg_m must be a number or one each"),
        ({"reg_m": "1"}, TypeError, "reg_m must be a number"),
        ({"epsilon": -1.0}, ValueError, "epsilon must be finite and at least 0"),
        ({"loss": "huber"}, ValueError, 'loss must be one of "l1", "l2", "kl"'),
        ({"pairs": "some"}, ValueError, "pairs must be one of"),
        ({"init": None}, ValueError, 'init must be "product" or a plan'),
        ({"init": torch.zeros(2, 2, dtype=F64)}, ValueError, "init must have a finite mass"),
        ({"init": -torch.ones(2, 2, dtype=F64)}, ValueError, "init must be non-negative"),
        ({"a": torch.zeros(2, dtype=F64)}, ValueError, "a must be non-negative and have a finite"),
        ({"cost": torch.full((2, 2), torch.inf, dtype=F64)}, ValueError, "cost must be finite"),
        ({"struct_x": torch.ones(3, 3, dtype=F64)}, ValueError, "struct_x must have shape"),
        ({"loss": "kl", "struct_y": torch.zeros(2, 2, dtype=F64)}, ValueError, "struct_y must be"),
        ({"alpha": 1.5}, ValueError, "alpha must lie in"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
    ],
)
def test_wrong_input_says_what_is_wrong(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    square = torch.ones(2, 2, dtype=F64)
    call = {"cost": square, "struct_x": square, "struct_y": square, "reg_m": 1.0} | change
    with pytest.raises(error, match=message):
        ht.ot.unbalanced_fgw(**call)


# --- total variation ------------------------------------------------------------------------------


def tv_by_definition(at: Problem, plan: Tensor, loss: str, price: float) -> Tensor:
    value = by_definition(at, plan, loss, (0.0, 0.0), 0.0)
    missed = (plan.sum(1) - at["a"]).abs().sum() + (plan.sum(0) - at["b"]).abs().sum()
    return value + price * missed


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_total_variation_is_paid_by_definition_and_no_plan_nearby_is_better(
    loss: str, rng: torch.Generator, backend: str
) -> None:
    given = problems(rng, 4, 5, 4)
    given["alpha"][0], given["alpha"][1] = 0.0, 1.0
    options: dict[str, Any] = {"reg_m": 0.15, "penalty": "tv", "loss": loss, "backend": backend}
    found = ht.ot.unbalanced_fgw(**given, **options)
    assert bool(found.converged.all())
    parts = found.plan.sum((1, 2)) / given["a"].sum(1)
    assert ((parts > 0.05) & (parts < 0.95)).any()
    exact = ht.ot.unbalanced_transport(
        given["cost"], given["a"], given["b"], reg_m=0.15, penalty="tv"
    )
    assert torch.allclose(found.objective[0], exact.objective[0], rtol=1e-10)
    for item in range(4):
        at = {name: value[item] for name, value in given.items()}
        value = tv_by_definition(at, found.plan[item], loss, 0.15)
        assert torch.allclose(found.objective[item], value, rtol=1e-12)
        assert torch.allclose(
            value - 0.15 * (at["a"].sum() + at["b"].sum() - 2 * found.plan[item].sum()),
            found.cost_linear[item] + found.cost_quad[item],
        )
        for _ in range(20):  # also plans that exceed masses
            other = found.plan[item] * (1 + 1e-2 * (uniform(rng, 5, 4) - 0.5))
            other = other + 1e-3 * uniform(rng, 5, 4) * (uniform(rng, 5, 4) < 0.2)
            assert tv_by_definition(at, other, loss, 0.15) >= value * (1 - 1e-6)


def test_the_total_variation_moves_what_partial_fgw_does(rng: torch.Generator) -> None:
    given = problems(rng, 10, 6, 5)
    found = ht.ot.unbalanced_fgw(**given, reg_m=0.1, penalty="tv", loss="l2")
    moved = found.plan.sum((1, 2))
    part = ht.ot.partial_fgw(**given, mass=moved, loss="l2", init=found.plan)
    missed = given["a"].sum(1) + given["b"].sum(1) - 2 * moved
    assert torch.allclose(found.objective, part.objective + 0.1 * missed, rtol=1e-6)


def test_the_total_variation_has_derivatives_and_keeps_absent_nodes_and_bars(
    rng: torch.Generator, backend: str
) -> None:
    given = problems(rng, 2, 3, 3)
    given["cost"][0, 1, 1] = torch.inf
    given["a"] = torch.cat([given["a"], torch.zeros(2, 1, dtype=F64)], 1)
    pad = torch.nn.functional.pad
    given["cost"] = pad(given["cost"], (0, 0, 0, 1), value=torch.nan)
    given["struct_x"] = pad(given["struct_x"], (0, 1, 0, 1), value=torch.inf)
    options: dict[str, Any] = {"reg_m": 0.2, "penalty": "tv", "loss": "l2", "backend": backend}
    options["tol"] = 1e-12
    found = ht.ot.unbalanced_fgw(**given, **options)
    assert found.plan[0, 1, 1] == 0
    assert not found.plan[:, 3].any()
    names = ("struct_y", "b", "alpha")
    leaves = [given[name].clone().requires_grad_() for name in names]

    def objective(*values: Tensor) -> Tensor:
        changed = given | dict(zip(names, values, strict=True))
        return ht.ot.unbalanced_fgw(**changed, **options, validate=False).objective

    assert torch.autograd.gradcheck(objective, leaves, eps=1e-6, atol=1e-4)


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_gradcheck_of_the_divergence(rng: torch.Generator, epsilon: float) -> None:
    given = problems(rng, 1, 2, 2)
    leaves = [value.clone().requires_grad_() for value in given.values()]

    def objective(*values: Tensor) -> Tensor:
        options = {"reg_m": 0.6, "epsilon": epsilon, "loss": "l2", "tol": 1e-13, "validate": False}
        return ht.ot.unbalanced_fgw(**dict(zip(given, values, strict=True)), **options).objective

    assert torch.autograd.gradcheck(objective, leaves, eps=1e-5, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reg_m": (1.0, 2.0)}, "reg_m must be one number"),
        ({"epsilon": 0.1}, "epsilon must be 0"),
        ({"loss": "kl"}, 'loss must be "l1" or "l2"'),
        ({"cost": -torch.ones(2, 2, dtype=F64)}, r"cost must be at least 0.* has -1 at \(0, 0\)"),
        ({"init": torch.ones(2, 2, dtype=F64)}, "init must have masses of at most a and b"),
        ({"penalty": "l2"}, 'penalty must be one of "kl", "tv"'),
    ],
)
def test_what_the_total_variation_refuses(change: dict[str, Any], says: str) -> None:
    square = torch.ones(2, 2, dtype=F64)
    call = {"cost": square, "struct_x": square, "struct_y": square, "reg_m": 1.0} | change
    with pytest.raises(ValueError, match=says):
        ht.ot.unbalanced_fgw(**{"penalty": "tv"} | call)


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("held", [1e6, 1e12, 1e30])
def test_what_absent_nodes_hold_changes_no_gradient_of_others(
    rng: torch.Generator, loss: str, epsilon: float, held: float
) -> None:
    given = problems(rng, 3, 4, 5, torch.float32)
    for name, size in (("a", 4), ("b", 5)):
        given[name][:, size - 1] = 0

    def gradients(held: float) -> list[Tensor]:
        filled = {name: value.clone() for name, value in given.items()}
        for name in ("struct_x", "struct_y"):
            filled[name][:, -1] = filled[name][:, :, -1] = held
        leaves = [filled[name].requires_grad_() for name in ("cost", "struct_x", "a", "b")]
        found = ht.ot.unbalanced_fgw(**filled, reg_m=0.5, epsilon=epsilon, loss=loss)
        return list(torch.autograd.grad(found.objective.sum(), leaves))

    for one, other in zip(gradients(held), gradients(0.0), strict=True):
        assert bool(one.isfinite().all())
        there = torch.ones_like(one, dtype=torch.bool)
        if one.dim() == 2:
            there[:, -1] = False  # the mass of a node that is absent meets what it holds
        assert torch.allclose(one[there], other[there], rtol=1e-5, atol=1e-7)
