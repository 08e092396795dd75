import ot as pot
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from torch import Tensor

from hotnas_torch.ot._operators import transport
from tests.generators.checks import check_coupling, check_duals, check_vertex
from tests.generators.oracles import linprog_objective
from tests.generators.problems import F64, Transport, masses, transports, uniform

SIZES = [(1, 1), (1, 5), (6, 1), (3, 4), (8, 8), (7, 11), (20, 13)]


def problems(kind: str, rng: torch.Generator, n: int, m: int, batch: int = 6) -> tuple[Tensor, ...]:
    cost = uniform(rng, batch, n, m)
    a, b = masses(rng, batch, n), masses(rng, batch, m)
    if kind in ("tied", "degenerate and tied"):
        cost = (3 * cost).round()
    if kind in ("degenerate", "degenerate and tied"):
        a, b = torch.full_like(a, 1 / n), torch.full_like(b, 1 / m)
    if kind == "zero mass":
        a, b = masses(rng, batch, n, absent=0.4), masses(rng, batch, m, absent=0.4)
    if kind == "coarse mass":  # many partial sums agree: degenerate, and not uniform
        a, b = (4 * uniform(rng, batch, n)).ceil(), (4 * uniform(rng, batch, m)).ceil()
        a, b = a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
    if kind == "negative cost":
        cost = cost - 2
    return cost, a, b


KINDS = [
    "random",
    "tied",
    "degenerate",
    "degenerate and tied",
    "zero mass",
    "coarse mass",
    "negative cost",
]


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_linprog(kind: str, n: int, m: int, rng: torch.Generator, backend: str) -> None:
    cost, a, b = problems(kind, rng, n, m)
    plan, objective, f, g, _, status = transport(cost, a, b, backend=backend)
    expected = [linprog_objective(*item) for item in zip(cost, a, b, strict=True)]
    assert objective.tolist() == pytest.approx(expected, abs=1e-9)
    assert (status == 0).all()
    assert torch.allclose((plan * cost).sum((1, 2)), objective, atol=1e-12)
    check_coupling(plan, a, b)
    check_duals(cost, plan, f, g, a, b)
    dual = (f * a).sum(1) + (g * b).sum(1)
    assert torch.allclose(dual, objective, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_is_a_vertex(kind: str, rng: torch.Generator, backend: str) -> None:
    cost, a, b = problems(kind, rng, 9, 7, batch=20)
    check_vertex(transport(cost, a, b, backend=backend)[0])


@pytest.mark.parametrize("n", [2, 8, 20, 50])
def test_agrees_with_linear_sum_assignment(n: int, rng: torch.Generator, backend: str) -> None:
    cost = uniform(rng, 4, n, n)
    even = torch.full((4, n), 1 / n, dtype=F64)
    plan, objective, *_ = transport(cost, even, even, backend=backend)
    for item in range(4):
        rows, columns = scipy.optimize.linear_sum_assignment(cost[item].numpy())
        assert objective[item].item() == pytest.approx(
            cost[item][rows, columns].sum().item() / n, abs=1e-12
        )
        assert (plan[item][rows, columns] > 0).all()


@pytest.mark.parametrize(("n", "m"), [(5, 8), (30, 40)])
def test_agrees_with_pot(n: int, m: int, rng: torch.Generator, backend: str) -> None:
    cost, a, b = problems("random", rng, n, m)
    plan, *_ = transport(cost, a, b, backend=backend)
    for item in range(len(cost)):
        expected = pot.emd(a[item].numpy(), b[item].numpy(), cost[item].numpy())
        assert torch.allclose(plan[item], torch.from_numpy(expected), atol=1e-9)


@pytest.mark.ext
@pytest.mark.parametrize("kind", ["random", "tied", "coarse mass"])
def test_agrees_with_pot_on_hundreds_of_nodes(kind: str, rng: torch.Generator) -> None:
    cost, a, b = problems(kind, rng, 230, 170, batch=1)
    plan, objective, f, g, _, status = transport(cost, a, b, backend="ext")
    expected = pot.emd2(a[0].numpy(), b[0].numpy(), cost[0].numpy())
    assert status.tolist() == [0]
    assert objective.item() == pytest.approx(expected, abs=1e-12)
    check_coupling(plan, a, b)
    check_duals(cost, plan, f, g, a, b)


@pytest.mark.ext
def test_ties_are_not_searched(rng: torch.Generator) -> None:
    a, b = masses(rng, 3, 100), masses(rng, 3, 100)
    *_, iterations, status = transport(torch.zeros(3, 100, 100).double(), a, b, backend="ext")
    assert (status == 0).all()
    assert (iterations == 0).all()


def test_forbidden_pairs_that_come_first_are_left_again(rng: torch.Generator, backend: str) -> None:
    # Cheap pairs use up what the last rows may have, so that a greedy start ends on forbidden ones.
    n, m, batch = 6, 7, 40
    cost, a, b = uniform(rng, batch, n, m), masses(rng, batch, n), masses(rng, batch, m)
    known = transport(uniform(rng, batch, n, m), a, b, backend="torch")[0] > 0
    cost[~known & (uniform(rng, batch, n, m) < 0.7)] = torch.inf
    plan, objective, f, g, _, status = transport(cost, a, b, backend=backend)
    assert (status == 0).all()
    assert (plan[cost.isinf()] == 0).all()
    check_coupling(plan, a, b)
    check_duals(cost, plan, f, g, a, b)
    dual = (f * a).sum(1) + (g * b).sum(1)
    assert torch.allclose(dual, objective, atol=1e-12)


@given(problem=transports())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_finds_the_known_answer_in_torch(problem: Transport) -> None:
    finds_the_known_answer(problem, "torch")


@pytest.mark.ext
@given(problem=transports())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_finds_the_known_answer_compiled(problem: Transport) -> None:
    finds_the_known_answer(problem, "ext")


def finds_the_known_answer(problem: Transport, backend: str) -> None:
    plan, objective, f, g, _, status = transport(
        problem.cost, problem.a, problem.b, backend=backend
    )
    assert (status == 0).all()
    assert torch.allclose(objective, problem.objective, atol=1e-12)
    check_coupling(plan, problem.a, problem.b)
    check_duals(problem.cost, plan, f, g, problem.a, problem.b)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision(kind: str, rng: torch.Generator, backend: str) -> None:
    cost, a, b = problems(kind, rng, 12, 9)
    exact = transport(cost, a, b, backend=backend)[1]
    cost32, a32, b32 = cost.float(), a.float(), b.float()
    plan, objective, f, g, _, status = transport(cost32, a32, b32, backend=backend)
    assert plan.dtype == objective.dtype == f.dtype == torch.float32
    assert (status == 0).all()
    assert torch.allclose(objective.double(), exact, atol=2e-6)
    check_coupling(plan, a32, b32)
    check_duals(cost32, plan, f, g, a32, b32)


def test_items_do_not_know_their_neighbours(
    rng: torch.Generator, backend: str, dtype: torch.dtype
) -> None:
    cost, a, b = (tensor.to(dtype) for tensor in problems("zero mass", rng, 7, 9, batch=12))
    together = transport(cost, a, b, backend=backend)
    for item in range(len(cost)):
        alone = transport(*(t[item : item + 1] for t in (cost, a, b)), backend=backend)
        for mine, theirs in zip(alone, together, strict=True):
            assert torch.equal(mine[0], theirs[item])


@pytest.mark.parametrize("garbage", [0.0, 1e30, torch.nan, torch.inf])
def test_absent_nodes_change_nothing(garbage: float, rng: torch.Generator, backend: str) -> None:
    cost, a, b = problems("random", rng, 4, 5)
    rows, columns = [0, 2, 3, 6], [1, 2, 3, 5, 8]
    padded = torch.full((len(cost), 7, 9), garbage, dtype=F64)
    padded[:, torch.tensor(rows)[:, None], torch.tensor(columns)] = cost
    padded_a, padded_b = torch.zeros(len(cost), 7, dtype=F64), torch.zeros(len(cost), 9, dtype=F64)
    padded_a[:, rows], padded_b[:, columns] = a, b
    plan, objective, f, g, _, status = transport(cost, a, b, backend=backend)
    plan_p, objective_p, f_p, g_p, _, status_p = transport(
        padded, padded_a, padded_b, backend=backend
    )
    assert torch.equal(status, status_p)
    assert torch.allclose(objective, objective_p, atol=1e-14)
    assert torch.equal(plan_p[:, rows][:, :, columns], plan)
    assert plan_p.sum() == pytest.approx(len(cost))
    assert torch.allclose(f_p[:, rows], f)
    assert torch.allclose(g_p[:, columns], g)
    assert f_p.isfinite().all()
    assert g_p.isfinite().all()


def test_strided_input(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problems("random", rng, 5, 6)
    wide = torch.zeros(len(cost), 12, 5, dtype=F64)
    strided = wide[:, ::2].mT
    strided.copy_(cost)
    twice = torch.stack([a, a], 2)[:, :, 0]
    assert not strided.is_contiguous()
    assert not twice.is_contiguous()
    expected = transport(cost, a, b, backend=backend)
    for mine, theirs in zip(transport(strided, twice, b, backend=backend), expected, strict=True):
        assert torch.equal(mine, theirs)


def test_an_empty_batch(backend: str) -> None:
    cost, a, b = torch.zeros(0, 3, 4), torch.zeros(0, 3), torch.zeros(0, 4)
    plan, objective, f, g, iterations, status = transport(cost, a, b, backend=backend)
    assert plan.shape == (0, 3, 4)
    assert objective.shape == iterations.shape == status.shape == (0,)
    assert f.shape == (0, 3)
    assert g.shape == (0, 4)


def test_bad_items_are_reported_and_harm_no_other(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problems("random", rng, 4, 4)
    expected = transport(cost, a, b, backend=backend)[1]
    cost[0, 1, 2] = torch.nan
    a[1] *= 0.9
    b[2, 0] -= 1
    b[2, 1] += 1
    a[3, 3] = torch.inf
    a[4], b[4] = 0, 0
    plan, objective, f, g, _, status = transport(cost, a, b, backend=backend)
    assert status.tolist() == [2, 3, 3, 2, 0, 0]
    for values in (plan, objective, f, g):
        assert values[:4].isnan().all()
        assert values[4:].isfinite().all()
    assert objective[4] == 0
    assert objective[5] == expected[5]


def test_the_default_dtype_does_not_matter(rng: torch.Generator, backend: str) -> None:
    cost, a, b = (tensor.float() for tensor in problems("random", rng, 5, 6))
    expected = transport(cost, a, b, backend=backend)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = transport(cost, a, b, backend=backend)
    finally:
        torch.set_default_dtype(before)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


def normalised_transport(cost: Tensor, a: Tensor, b: Tensor, backend: str) -> Tensor:
    return transport(cost, a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True), backend=backend)[
        1
    ]


def test_gradients(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problems("random", rng, 4, 5, batch=3)
    inputs = [tensor.requires_grad_() for tensor in (cost, a, b)]
    assert torch.autograd.gradcheck(
        lambda cost, a, b: normalised_transport(cost, a, b, backend), inputs
    )


def test_mass_gradients_at_degenerate_problems_are_subgradients(
    rng: torch.Generator, backend: str
) -> None:
    """Uniform equal sizes: the derivative in the masses differs from side to side, and is not 0."""
    batch, n = 20, 6
    cost = uniform(rng, batch, n, n)
    a = torch.full((batch, n), 1 / n, dtype=F64, requires_grad=True)
    b = torch.full((batch, n), 1 / n, dtype=F64)
    objective = transport(cost, a, b, backend=backend)[1]
    (gradient,) = torch.autograd.grad(objective.sum(), a)
    direction = uniform(rng, batch, n) - 0.5
    direction = direction - direction.mean(1, keepdim=True)
    step = 1e-4 * direction
    above = transport(cost, (a + step).detach(), b, backend=backend)[1]
    below = transport(cost, (a - step).detach(), b, backend=backend)[1]
    here = objective.detach()
    slope = (gradient * direction).sum(1)
    assert ((here - below) / 1e-4 <= slope + 1e-8).all()
    assert (slope <= (above - here) / 1e-4 + 1e-8).all()
    assert (slope.abs() > 1e-3).any()


def test_mass_gradients_stay_on_the_simplex(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problems("zero mass", rng, 5, 6)
    a.requires_grad_()
    (gradient,) = torch.autograd.grad(transport(cost, a, b, backend=backend)[1].sum(), a)
    present = a > 0
    assert torch.allclose((gradient * present).sum(1), torch.zeros(len(a), dtype=F64), atol=1e-14)


@pytest.mark.parametrize(("output", "name"), [(0, "plan"), (2, "f"), (3, "g")])
def test_a_gradient_through_the_plan_or_the_duals_raises(
    output: int, name: str, rng: torch.Generator, backend: str
) -> None:
    cost, a, b = problems("random", rng, 3, 3)
    found = transport(cost.requires_grad_(), a, b, backend=backend)[output]
    with pytest.raises(RuntimeError, match=f"the loss depends on {name} of transport"):
        found.square().sum().backward()


def test_second_derivatives_pass_through_the_cost(rng: torch.Generator, backend: str) -> None:
    _, a, b = problems("random", rng, 3, 4, batch=2)
    places = uniform(rng, 2, 3).requires_grad_()
    others = uniform(rng, 2, 4)

    def objective(places: Tensor) -> Tensor:
        cost = (places[:, :, None] - others[:, None, :]).square()
        return transport(cost, a, b, backend=backend)[1]

    with torch.random.fork_rng():
        assert torch.autograd.gradgradcheck(objective, (places,))


def test_a_second_derivative_that_moves_the_plan_raises(rng: torch.Generator, backend: str) -> None:
    cost, a, b = (tensor.requires_grad_() for tensor in problems("random", rng, 3, 3))
    objective = transport(cost, a, b, backend=backend)[1]
    (gradient,) = torch.autograd.grad(objective.sum(), cost, create_graph=True)
    with pytest.raises(RuntimeError, match="in both cost and masses would have to move the plan"):
        torch.autograd.grad(gradient.square().sum(), a)
    moved = torch.func.jvp(
        torch.func.grad(lambda cost, a: transport(cost, a, b, backend=backend)[1].sum()),
        (cost.detach(), a.detach()),
        (torch.zeros_like(cost), torch.ones_like(a)),
    )[1]
    assert moved.isnan().all()


@pytest.mark.ext
def test_opcheck(rng: torch.Generator, dtype: torch.dtype) -> None:
    inputs = tuple(tensor.to(dtype) for tensor in problems("random", rng, 3, 4))
    op = torch.ops.hotnas.transport.default
    torch.library.opcheck(op, inputs)
    torch.library.opcheck(op, tuple(tensor[0] for tensor in inputs))
    torch.library.opcheck(torch.ops.hotnas_reference.transport.default, inputs)
