import math

import numpy as np
import ot as pot
import pytest
import torch
from torch import Tensor

import hotnas_torch as ht
from tests.generators.problems import F64, uniform

LOSSES = ("l1", "l2", "kl")
PAIRS = ("all", "directed", "ordered")


def problem(
    rng: torch.Generator, batch: int = 5, n: int = 4, m: int = 3, d: int = 2
) -> list[Tensor]:
    cost = uniform(rng, batch, n, m)
    return [cost, 0.1 + uniform(rng, batch, n, n, d), 0.1 + uniform(rng, batch, m, m, d)]


def worth(plan, cost, x, y, alpha, loss, pairs="all"):
    """The objective by the definition, pair by pair."""
    x, y = x[:, :, None, :, None], y[:, None, :, None]
    apart = {"l1": (x - y).abs(), "l2": (x - y) ** 2, "kl": x * (x / y).log() - x + y}[loss].sum(-1)
    kept_x, kept_y = (torch.ones(size, size, dtype=F64) for size in plan.shape[1:])
    if pairs == "directed":
        kept_x, kept_y = kept_x - torch.eye(len(kept_x)), kept_y - torch.eye(len(kept_y))
    if pairs == "ordered":
        kept_x, kept_y = kept_x.triu(1), kept_y.triu(1)
    kept = torch.einsum("ik,jl->ijkl", kept_x, kept_y)
    quadratic = torch.einsum("bij,bkl,bijkl,ijkl->b", plan, plan, apart, kept)
    return (1 - alpha) * (cost * plan).sum((1, 2)) + alpha * quadratic


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("pairs", PAIRS)
def test_the_objective_is_the_sum_over_all_pairs_and_the_coupling_stationary(rng, loss, pairs):
    cost, x, y = problem(rng)
    found = ht.ot.edge_fgw(cost, x, y, alpha=0.6, loss=loss, pairs=pairs, num_starts=3, tol=1e-9)
    assert bool(found.converged.all())
    expected = worth(found.plan, cost, x, y, 0.6, loss, pairs)
    assert torch.allclose(found.objective, expected, rtol=1e-12)
    assert torch.allclose(found.cost_linear + found.cost_quad, expected, rtol=1e-12)
    assert torch.allclose(found.plan.sum(2), torch.full((5, 4), 0.25, dtype=F64), atol=1e-12)
    plan = found.plan.clone().requires_grad_()
    (slope,) = torch.autograd.grad(worth(plan, cost, x, y, 0.6, loss, pairs).sum(), plan)
    for item in range(5):
        least = pot.emd2(np.full(4, 0.25), np.full(3, 1 / 3), slope[item].numpy())
        gap = float((slope[item] * found.plan[item]).sum()) - least
        assert gap == pytest.approx(float(found.gap[item]), abs=1e-12)
    assert bool((found.f[:, :, None] + found.g[:, None] <= slope + 1e-9).all())


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("pairs", PAIRS)
def test_one_feature_is_a_structure(rng, loss, pairs):
    cost, x, y = problem(rng, d=1)
    found = ht.ot.edge_fgw(cost, x, y, loss=loss, pairs=pairs, num_starts=3)
    known = ht.ot.fgw(
        cost, x[..., 0], y[..., 0], loss=loss, pairs=pairs, num_starts=3, init=found.plan
    )
    assert bool((known.objective <= found.objective + 1e-9).all())
    other = ht.ot.edge_fgw(cost, x, y, loss=loss, pairs=pairs, init=known.plan)
    assert torch.allclose(other.objective, known.objective, rtol=1e-5)
    assert float(found.objective.mean()) <= 1.05 * float(known.objective.mean())


def test_the_divergence_is_that_of_pot(rng):
    cost, x, y = problem(rng, batch=4, d=1)
    found = ht.ot.edge_fgw(cost, x, y, loss="kl", init="product")
    for item in range(4):
        theirs = pot.gromov.fused_gromov_wasserstein2(
            cost[item].numpy(), x[item, ..., 0].numpy(), y[item, ..., 0].numpy(),
            loss_fun="kl_loss", alpha=0.5,
        )  # fmt: skip
        assert float(found.objective[item]) <= float(theirs) * (1 + 1e-6)
        assert float(found.objective[item]) == pytest.approx(float(theirs), rel=0.05)


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_labels_of_edges_find_the_renumbering(rng, loss):
    labels = torch.randint(4, (5, 5), generator=rng)
    edges = torch.nn.functional.one_hot(labels).to(F64)
    order = torch.randperm(5, generator=rng)
    nothing = torch.zeros(5, 5, dtype=F64)
    right = torch.nn.functional.one_hot(order, 5).to(F64).mT / 5
    found = ht.ot.edge_fgw(
        nothing, edges, edges[order][:, order], alpha=1.0, loss=loss, init=right, num_starts=4
    )
    assert float(found.objective) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_are_those_of_finite_differences(rng, loss):
    cost, x, y = (value[0] for value in problem(rng, batch=1, n=3, m=3))
    masses = [uniform(rng, 3).requires_grad_() for _ in range(2)]
    alpha = torch.tensor(0.4, dtype=F64)

    def objective(cost, x, y, alpha, a, b):
        a, b = a.softmax(0), b.softmax(0)
        return ht.ot.edge_fgw(cost, x, y, a, b, alpha=alpha, loss=loss).objective

    inputs = [value.clone().requires_grad_() for value in (cost, x, y, alpha)]
    assert torch.autograd.gradcheck(objective, (*inputs, *masses), eps=1e-7, atol=1e-5)
    (slope,) = torch.autograd.grad(objective(*inputs, *masses), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        slope.sum().backward()


@pytest.mark.parametrize("loss", LOSSES)
def test_absent_nodes_change_nothing(rng, loss):
    cost, x, y = problem(rng, batch=2)
    a = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=F64)
    plain = ht.ot.edge_fgw(cost[:, :3], x[:, :3, :3], y, a[:3], loss=loss)
    cost[:, 3], x[:, 3], x[:, :, 3] = math.nan, math.inf, -1.0
    padded = ht.ot.edge_fgw(cost, x, y, a, loss=loss)
    assert torch.allclose(padded.objective, plain.objective, rtol=1e-12)
    assert torch.allclose(padded.plan[:, :3], plain.plan, atol=1e-12)


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_what_all_edges_have_in_common_changes_no_objective(rng, pairs, dtype):
    # with absent nodes and unread pairs, whose zeros are no edges
    x, y = (uniform(rng, 6, 4, 4, 1) for _ in range(2))
    masses = torch.tensor([0.25] * 4 + [0.0] * 8, dtype=dtype)

    def objective(offset, padded):
        shifted = [(edges + offset).to(dtype) for edges in (x, y)]
        cost = torch.zeros(6, 4, 4, dtype=dtype)
        mass = masses[:4]
        if padded:
            pad = torch.nn.functional.pad
            shifted = [pad(edges, (0, 0, 0, 8, 0, 8)) for edges in shifted]
            cost, mass = pad(cost, (0, 8, 0, 8)), masses
        found = ht.ot.edge_fgw(cost, *shifted, mass, mass, alpha=1.0, loss="l2", pairs=pairs)
        assert bool(found.converged.all())
        return found.objective

    expected = objective(0.0, padded=False)
    offset, tolerance = (64.0, 1e-4) if dtype == torch.float32 else (1e6, 1e-8)
    for padded in (False, True):
        assert torch.allclose(objective(offset, padded), expected, rtol=tolerance, atol=tolerance)


def test_an_empty_batch_and_broadcast_inputs(rng):
    cost, x, y = problem(rng)
    assert ht.ot.edge_fgw(cost[:0], x[:0], y[:0]).objective.shape == (0,)
    found = ht.ot.edge_fgw(cost[0], x, y[:1])
    assert found.objective.shape == (5,)
    assert torch.allclose(found.objective[2], ht.ot.edge_fgw(cost[0], x[2], y[0]).objective)


def test_what_stops_early_says_so(rng):
    cost, x, y = problem(rng)
    with pytest.warns(ht.errors.ConvergenceWarning):
        found = ht.ot.edge_fgw(cost, x, y, alpha=1.0, init="product", tol=0.0, max_iter=1)
    assert bool((found.status == ht.ot.SolveStatus.MAX_ITER).all())
    assert torch.allclose(found.plan, torch.full_like(found.plan, 1 / 12))
    assert torch.allclose(found.objective, worth(found.plan, cost, x, y, 1.0, "l2"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"loss": "l3"}, ValueError, "loss must be one of"),
        ({"pairs": "some"}, ValueError, "pairs must be one of"),
        ({"num_starts": 4}, ValueError, "num_starts must be at most 3"),
        ({"num_starts": 0}, ValueError, "num_starts must be at least 1"),
        ({"tol": -1.0}, ValueError, "tol must be"),
        ({"alpha": 1.5}, ValueError, "alpha"),
        ({"struct_x": torch.ones(4, 4, dtype=F64)}, ValueError, r"struct_x must have shape"),
        ({"struct_x": torch.ones(4, 4, 0, dtype=F64)}, ValueError, r"struct_x must have shape"),
        ({"struct_x": torch.ones(3, 3, 2, dtype=F64)}, ValueError, "struct_x must"),
        ({"struct_y": torch.ones(3, 3, 1, dtype=F64)}, ValueError, "struct_y must have 2 numbers"),
        ({"struct_y": [[1.0]]}, TypeError, "struct_y must be a torch.Tensor"),
        ({"struct_x": torch.ones(4, 4, 2)}, TypeError, "struct_x must have the dtype"),
        ({"struct_x": torch.full((4, 4, 2), math.nan, dtype=F64)}, ValueError, "struct_x"),
        ({"cost": torch.full((4, 3), -math.inf, dtype=F64)}, ValueError, "cost"),
        ({"struct_x": -torch.ones(4, 4, 2, dtype=F64), "loss": "kl"}, ValueError, ">= 0 for loss"),
        ({"struct_y": torch.zeros(3, 3, 2, dtype=F64), "loss": "kl"}, ValueError, "> 0 for loss"),
        ({"struct_y": torch.full((3, 3, 2), 1e-200, dtype=F64)}, ValueError, "squares that"),
        ({"struct_y": torch.full((3, 3, 2), 1e200, dtype=F64)}, ValueError, "squares that"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(change, error, message):
    ones = torch.ones(4, 3, dtype=F64)
    call = {"cost": ones, "struct_x": torch.ones(4, 4, 2, dtype=F64)}
    call |= {"struct_y": torch.ones(3, 3, 2, dtype=F64)} | change
    with pytest.raises(error, match=message):
        ht.ot.edge_fgw(**call)


def test_forward_mode_is_refused_in_our_words(rng):
    cost, x, y = problem(rng)
    with pytest.raises(RuntimeError, match="without forward mode"):
        torch.func.jvp(lambda c: ht.ot.edge_fgw(c, x, y).objective, (cost,), (cost,))
