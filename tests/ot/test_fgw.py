import ot as pot
import pytest
import torch

import hotnas_torch.ot as ot
from hotnas_torch.errors import ConvergenceWarning
from tests.generators.oracles import fgw_objective
from tests.generators.problems import F64, graphs, uniform

LOSSES = ("l1", "l2")
PAIRS = ("all", "directed", "ordered")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("pairs", PAIRS)
def test_names_mean_what_they_say(
    loss: str, pairs: str, rng: torch.Generator, backend: str
) -> None:
    problem = graphs(rng, 4, 4, 5)
    cost, struct_x, struct_y, a, b, alpha = problem.tensors()
    result = ot.fgw(
        cost, struct_x, struct_y, a, b, alpha=0.3, loss=loss, pairs=pairs, backend=backend
    )
    codes = LOSSES.index(loss), PAIRS.index(pairs)
    expected = fgw_objective(result.plan, cost, struct_x, struct_y, 0 * alpha + 0.3, *codes)
    assert torch.allclose(result.objective, expected, atol=1e-13)
    assert torch.allclose(result.cost_linear, 0.7 * (cost * result.plan).sum((1, 2)), atol=1e-13)
    assert torch.allclose(result.cost_linear + result.cost_quad, result.objective)
    bound = ot.fgw_lower_bound(
        cost, struct_x, struct_y, a, b, alpha=0.3, loss=loss, pairs=pairs, backend=backend
    )
    assert (bound <= result.objective + 1e-12).all()


def test_leading_dimensions_are_kept_and_broadcast(rng: torch.Generator, backend: str) -> None:
    cost = uniform(rng, 2, 1, 4, 5)
    struct_x, struct_y = uniform(rng, 3, 4, 4), uniform(rng, 5, 5)
    alpha = torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    result = ot.fgw(cost, struct_x, struct_y, alpha=alpha, bound=True, backend=backend)
    assert result.plan.shape == (2, 3, 4, 5)
    assert result.gap.shape == result.lower_bound.shape == result.optimality_gap.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            alone = ot.fgw(
                cost[i, 0], struct_x[j], struct_y, alpha=alpha[j].item(), backend=backend
            )
            assert alone.plan.shape == (4, 5)
            assert torch.equal(alone.objective, result.objective[i, j])


def test_the_bound_certifies_what_it_says(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 10, 4, 4, even=True)
    arguments = problem.tensors()[:5]
    result = ot.fgw(*arguments, pairs="directed", bound=True, backend=backend)
    many = ot.fgw(
        *arguments,
        pairs="directed",
        num_starts=20,
        generator=torch.Generator().manual_seed(1),
        backend=backend,
    )
    assert (result.objective - many.objective <= result.optimality_gap + 1e-12).all()
    assert (result.optimality_gap >= 0).all()
    assert many.lower_bound is None
    assert many.optimality_gap is None


def test_the_product_start_is_pots(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 3, 4, 5)
    cost, struct_x, struct_y, a, b, _ = problem.tensors()
    product = a[:, :, None] * b[:, None, :]
    named = ot.fgw(cost, struct_x, struct_y, a, b, init="product", backend=backend)
    given = ot.fgw(cost, struct_x, struct_y, a, b, init=product, backend=backend)
    assert torch.equal(named.plan, given.plan)
    with pytest.warns(ConvergenceWarning):
        first = ot.fgw(
            cost, struct_x, struct_y, a, b, init="product", max_iter=1, tol=0.0, backend=backend
        )
    assert (first.iterations == 1).all()


def test_random_starts_need_and_follow_the_generator(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 4, 5, 5, even=True, alpha=1.0)
    arguments = problem.tensors()[:3]
    with pytest.raises(ValueError, match=r"asks for 3 random starts and needs a generator"):
        ot.fgw(*arguments, num_starts=6, backend=backend)
    with pytest.raises(ValueError, match=r"asks for 2 random starts"):
        ot.fgw(*arguments, num_starts=6, init="product", backend=backend)

    def run(seed: int, num_starts: int) -> ot.FGWResult:
        generator = torch.Generator().manual_seed(seed)
        return ot.fgw(
            *arguments, alpha=1.0, num_starts=num_starts, generator=generator, backend=backend
        )

    assert torch.equal(run(0, 12).plan, run(0, 12).plan)
    assert not torch.equal(run(0, 12).iterations, run(1, 12).iterations)
    assert (run(0, 12).objective <= run(0, 3).objective).all()


def test_the_first_start_sees_structure_where_the_linear_term_says_nothing(backend: str) -> None:
    """A renumbered copy without features: any coupling is pointwise optimal, one is right."""
    places = torch.tensor([0.0, 1.0, 3.0, 7.0, 12.0], dtype=F64)
    graph = (places[:, None] - places).abs()
    order = [3, 0, 4, 2, 1]
    arguments = torch.zeros(5, 5, dtype=F64), graph, graph[order][:, order]
    as_numbered = ot.fgw(*arguments, alpha=1.0, init=torch.eye(5, dtype=F64) / 5, backend=backend)
    assert as_numbered.objective.item() > 0.5
    result = ot.fgw(*arguments, alpha=1.0, bound=True, backend=backend)
    assert result.objective.item() == 0
    assert result.optimality_gap.item() == 0


def test_gradients_reach_alpha_and_broadcast_inputs(rng: torch.Generator, backend: str) -> None:
    cost = uniform(rng, 2, 3, 4).requires_grad_()
    struct_x, struct_y = (uniform(rng, n, n).requires_grad_() for n in (3, 4))
    alpha = torch.tensor(0.4, dtype=F64, requires_grad=True)
    logits = uniform(rng, 4).requires_grad_()

    def objective(
        cost: torch.Tensor,
        struct_x: torch.Tensor,
        struct_y: torch.Tensor,
        alpha: torch.Tensor,
        logits: torch.Tensor,
    ) -> torch.Tensor:
        b = torch.softmax(logits, 0)
        return ot.fgw(
            cost, struct_x, struct_y, b=b, alpha=alpha, tol=1e-13, backend=backend
        ).objective

    inputs = (cost, struct_x, struct_y, alpha, logits)
    assert torch.autograd.gradcheck(objective, inputs, eps=1e-5, atol=2e-5)


def test_gradients_of_the_parts_raise(rng: torch.Generator, backend: str) -> None:
    cost = uniform(rng, 2, 3, 4).requires_grad_()
    struct_x, struct_y = uniform(rng, 3, 3), uniform(rng, 4, 4)
    for name in ("cost_linear", "cost_quad", "plan", "f", "gap"):
        result = ot.fgw(cost, struct_x, struct_y, backend=backend)
        with pytest.raises(RuntimeError, match="the loss depends on"):
            getattr(result, name).sum().backward()
        assert not getattr(result.detach(), name).requires_grad


def test_an_empty_batch_gives_an_empty_result(backend: str) -> None:
    result = ot.fgw(
        torch.zeros(0, 3, 4), torch.zeros(3, 3), torch.zeros(4, 4), bound=True, backend=backend
    )
    assert result.plan.shape == (0, 3, 4)
    assert result.lower_bound.shape == (0,)


def test_stopping_early_warns(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 5, 6, 6, even=True)
    with pytest.warns(ConvergenceWarning, match=r"fgw: \d of 5 items MAX_ITER"):
        ot.fgw(*problem.tensors()[:3], max_iter=1, tol=0.0, backend=backend)


def test_other_options_out_of_range() -> None:
    inputs = (torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, 2))
    cases = [
        ({"loss": "kl"}, ValueError, 'loss must be one of "l1", "l2"; got \'kl\''),
        ({"pairs": "both"}, ValueError, 'pairs must be one of "all", "directed", "ordered"'),
        ({"num_starts": 0}, ValueError, "num_starts must be at least 1; got 0"),
        ({"num_starts": 2.0}, TypeError, "num_starts must be an int"),
        ({"alpha": 1.5}, ValueError, r"alpha must lie in \[0, 1\]; it has 1.5"),
        ({"alpha": "half"}, TypeError, "alpha must be a number or a torch.Tensor; got str"),
        ({"alpha": torch.zeros(2, dtype=F64)}, TypeError, "alpha must have the dtype of cost"),
        ({"init": "random"}, ValueError, 'init must be None, "product" or a coupling'),
        ({"init": torch.zeros(2, 2)}, ValueError, "init must have the marginals a and b"),
        ({"init": torch.eye(2) - 0.5}, ValueError, "init must be non-negative"),
        ({"init": torch.zeros(3, 2)}, ValueError, r"init must have shape \(\*batch, 2, 2\)"),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            ot.fgw(*inputs, **options)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_dense_start_of_a_large_problem_is_where_pot_starts(
    offset: float, symmetric: bool, rng: torch.Generator
) -> None:
    cost, x, y = uniform(rng, 20, 26), uniform(rng, 20, 20), uniform(rng, 26, 26)
    if symmetric:
        x, y = x + x.mT, y + y.mT
    ours = ot.fgw(
        cost, x + offset, y + offset, loss="l2", init="product", max_iter=1, validate=False
    )
    plan = torch.full((20, 26), 1 / 520, dtype=F64)
    differences = (x[:, None, :, None] - y[None, :, None, :]) ** 2
    slope = 0.5 * cost + 0.5 * ((differences + differences.permute(2, 3, 0, 1)) * plan).sum((2, 3))
    quadratic = ((differences * plan).sum((2, 3)) * plan).sum()
    assert ours.objective.item() == pytest.approx(
        (0.5 * (cost * plan).sum() + 0.5 * quadratic).item(), rel=1e-11
    )
    best = pot.emd2([], [], slope.numpy())
    assert ours.gap.item() == pytest.approx((slope * plan).sum().item() - best, rel=1e-9)
