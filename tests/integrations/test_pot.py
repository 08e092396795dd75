import inspect
import warnings

import numpy as np
import ot as theirs
import pytest
import torch
from torch import Tensor

from hotnas_torch.integrations import pot as ours

RNG = np.random.default_rng(0)
A, B = RNG.dirichlet(np.ones(5)), RNG.dirichlet(np.ones(4))
X, Y = RNG.random((5, 2)), RNG.random((4, 2))
M, C1, C2 = theirs.dist(X, Y), theirs.dist(X, X), theirs.dist(Y, Y)

# Where it is in both, and a call of it.
CALLS = {
    "emd": (A, B, M),
    "emd2": (A, B, M),
    "lp.emd": (A, B, M),
    "sinkhorn": (A, B, M, 0.1),
    "sinkhorn2": (A, B, M, 0.1),
    "bregman.sinkhorn": (A, B, M, 0.1),
    "bregman.empirical_sinkhorn": (X, Y, 0.1),
    "bregman.empirical_sinkhorn2": (X, Y, 0.1),
    "bregman.empirical_sinkhorn_divergence": (X, Y, 0.1),
    "gromov_wasserstein": (C1, C2, A, B),
    "gromov.gromov_wasserstein2": (C1, C2, A, B),
    "gromov.fused_gromov_wasserstein": (M, C1, C2, A, B),
    "gromov.fused_unbalanced_gromov_wasserstein2": (C1, C2, A, B, (0.5, 0.9)),
    "gromov.fused_gromov_wasserstein2": (M, C1, C2, A, B),
    "gromov.entropic_gromov_wasserstein": (C1, C2, A, B),
    "gromov.entropic_gromov_wasserstein2": (C1, C2, A, B),
    "gromov.entropic_fused_gromov_wasserstein": (M, C1, C2, A, B),
    "gromov.entropic_fused_gromov_wasserstein2": (M, C1, C2, A, B),
    "partial.partial_wasserstein": (A, B, M, 0.6),
    "partial.partial_wasserstein2": (A, B, M, 0.6),
    "partial.partial_wasserstein_lagrange": (A, B, M, 0.4),
    "gromov.partial_gromov_wasserstein": (C1, C2, A, B, 0.7),
    "gromov.partial_gromov_wasserstein2": (C1, C2, A, B, 0.7),
    "gromov.partial_fused_gromov_wasserstein": (M, C1, C2, A, B, 0.7),
    "gromov.partial_fused_gromov_wasserstein2": (M, C1, C2, A, B, 0.7),
    "gromov.semirelaxed_gromov_wasserstein": (C1, C2, A),
    "gromov.semirelaxed_gromov_wasserstein2": (C1, C2, A),
    "gromov.semirelaxed_fused_gromov_wasserstein": (M, C1, C2, A),
    "gromov.semirelaxed_fused_gromov_wasserstein2": (M, C1, C2, A),
    "sinkhorn_unbalanced": (A, 2 * B, M, 0.1, 0.5),
    "sinkhorn_unbalanced2": (A, 2 * B, M, 0.1, (0.5, 1.0)),
    "unbalanced.sinkhorn_unbalanced": (A, B, M, 0.1, float("inf")),
    "unbalanced.mm_unbalanced": (A, 2 * B, M, 0.5),
    "unbalanced.mm_unbalanced2": (A, 2 * B, M, [0.5, 1.0]),
    "unbalanced.lbfgsb_unbalanced": (A, 2 * B, M, 0.1, 0.5),
    "unbalanced.lbfgsb_unbalanced2": (A, 2 * B, M, 0.1, [0.5, 1.0]),
    "dist": (X, Y),
    "unif": (3,),
}
RESULTS = {
    "solve": ((M,), {}),
    "solve entropic": ((M, A, B), {"reg": 0.1}),
    "solve entropy": ((M, A, B), {"reg": 0.1, "reg_type": "entropy"}),
    "solve unbalanced": ((M, A, 2 * B), {"unbalanced": 0.5}),
    "solve unbalanced entropic": ((M, A, 2 * B), {"unbalanced": 0.5, "reg": 0.1}),
    "solve unbalanced entropy": (
        (M, A, 2 * B),
        {"unbalanced": 0.5, "reg": 0.1, "reg_type": "entropy"},
    ),
    "solve_gromov partial": (
        (C1, C2, M, A, B),
        {"unbalanced": 0.7, "unbalanced_type": "partial"},
    ),
    "solve_gromov semirelaxed": ((C1, C2, M, A), {"unbalanced_type": "semirelaxed"}),
    "solve_gromov": ((C1, C2), {}),
    "solve_gromov kl": ((C1, C2, M, A, B), {"loss": "KL"}),
    "solve_gromov fused": ((C1, C2, M, A, B), {"alpha": 0.3}),
    "solve_gromov entropic": ((C1, C2, M, A, B), {"reg": 0.1}),
    "solve_sample": ((X, Y), {}),
    "solve_sample debiased": ((X, Y), {"reg": 0.1, "debias": True}),
}


def function(module: object, name: str) -> object:
    for part in name.split("."):
        module = getattr(module, part)
    return module


@pytest.mark.parametrize("name", CALLS)
def test_a_function_is_called_as_pots_and_finds_the_same(name: str) -> None:
    mine, other = function(ours, name), function(theirs, name)
    known, wanted = inspect.signature(mine).parameters, inspect.signature(other).parameters
    assert list(known)[: len(CALLS[name])] == list(wanted)[: len(CALLS[name])]
    if name not in ("dist", "unif"):
        assert list(known) == list(wanted)
        for key, parameter in known.items():
            assert parameter.default == wanted[key].default, key
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = other(*CALLS[name])
    found = mine(*CALLS[name])
    assert isinstance(found, np.ndarray | np.floating | float)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_has_what_pots_has(name: str) -> None:
    arguments, settings = RESULTS[name]
    name = name.split()[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = getattr(theirs, name)(*arguments, **settings)
    found = getattr(ours, name)(*arguments, **settings)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-4, atol=1e-8)
    for part in ("plan", "value_linear", "value_quad"):
        wanted = getattr(expected, part)
        if wanted is not None and getattr(found, part) is not None:
            np.testing.assert_allclose(getattr(found, part), wanted, atol=1e-4)
    if found.plan is not None:
        np.testing.assert_allclose(found.marginal_a, expected.marginal_a, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in CALLS if n not in ("unif", "dist")])
def test_torch_in_torch_out(name: str) -> None:
    arguments = [torch.as_tensor(x) if isinstance(x, np.ndarray) else x for x in CALLS[name]]
    found, expected = function(ours, name)(*arguments), function(ours, name)(*CALLS[name])
    assert isinstance(found, Tensor)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in CALLS if n.endswith("2") and "mm_" not in n])
def test_values_have_gradients(name: str) -> None:
    arguments = [torch.as_tensor(x) if isinstance(x, np.ndarray) else x for x in CALLS[name]]
    leaf = arguments[-3 if "gromov" in name else 0].clone().requires_grad_()
    place = next(
        i for i, x in enumerate(arguments) if x is arguments[-3 if "gromov" in name else 0]
    )
    value = function(ours, name)(*arguments[:place], leaf, *arguments[place + 1 :])
    value.backward()
    assert bool(leaf.grad.isfinite().all())
    assert float(leaf.grad.abs().sum()) > 0


def test_barycenters_are_not_above_pots() -> None:
    rng = np.random.default_rng(1)
    points = [rng.random((n, 2)) for n in (4, 5, 6)]
    structures = [theirs.dist(p, p) for p in points]
    start, nodes = theirs.dist(points[0], points[0]), points[0]
    settings = {"alpha": 0.5, "init_C": start, "init_X": nodes, "log": True}
    found = ours.gromov.fgw_barycenters(4, points, structures, **settings)
    expected = theirs.gromov.fgw_barycenters(4, points, structures, **settings)
    assert [x.shape for x in found[:2]] == [x.shape for x in expected[:2]]

    def worth(features: np.ndarray, structure: np.ndarray) -> float:
        return sum(
            ours.gromov.fused_gromov_wasserstein2(theirs.dist(features, p), structure, c)
            for p, c in zip(points, structures, strict=True)
        )

    assert worth(*found[:2]) <= worth(*expected[:2]) * (1 + 1e-2)
    assert [t.shape for t in found[2]["T"]] == [t.shape for t in expected[2]["T"]]
    assert [m.shape for m in found[2]["Ms"]] == [m.shape for m in expected[2]["Ms"]]
    structure = ours.gromov_barycenters(4, structures)
    assert structure.shape == (4, 4)
    held = ours.gromov.fgw_barycenters(
        4, points, structures, fixed_structure=True, init_C=start, p=np.full(4, 0.25)
    )
    np.testing.assert_array_equal(held[1], start)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_unbalanced_graphs_have_pots_plans_and_value(epsilon: float) -> None:
    call = (C1, C2, A, 2 * B, 0.7, epsilon)
    settings = {"alpha": 0.5, "M": M, "log": True}
    settings["unbalanced_solver"] = "sinkhorn_log" if epsilon else "mm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.gromov.fused_unbalanced_gromov_wasserstein(*call, **settings)
    found = ours.gromov.fused_unbalanced_gromov_wasserstein(*call, **settings)
    for mine, other in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-4)
    for name in ("fugw_cost", "linear_cost"):
        np.testing.assert_allclose(found[2][name], expected[2][name], rtol=1e-3)
    value = ours.gromov.fused_unbalanced_gromov_wasserstein2(*call, alpha=0.5, M=M)
    assert value == pytest.approx(found[2]["fugw_cost"])


@pytest.mark.parametrize("settings", [{}, {"reg": 0.1}, {"reg": 0.1, "reg_type": "entropy"}])
def test_the_total_variation_is_never_above_pots(settings: dict[str, object]) -> None:
    call = {"unbalanced": 0.5, "unbalanced_type": "TV"} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.solve(M, A, 2 * B, **call)
    found = ours.solve(M, A, 2 * B, **call)
    assert found.value <= expected.value + 1e-9
    plan = found.plan
    value = (plan * M).sum() + 0.5 * (
        np.abs(plan.sum(1) - A).sum() + np.abs(plan.sum(0) - 2 * B).sum()
    )
    if settings:
        logs = np.log(plan) if "reg_type" in settings else np.log(plan / np.outer(A, 2 * B))
        value += 0.1 * ((plan * logs).sum() - plan.sum() + (0 if "reg_type" in settings else 2))
    assert found.value == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("loss", ["sqeuclidean", "kl"])
@pytest.mark.parametrize("edges", [False, True])
def test_a_batch_of_graphs_is_worth_what_pot_says(loss: str, edges: bool) -> None:
    if loss == "kl" and not edges:
        with pytest.raises(ours.Unsupported, match="'kl' must be of vectors on edges"):
            ours.solve_gromov_batch(np.ones((1, 2, 2)), np.ones((1, 2, 2)), loss=loss)
        return
    rng = np.random.default_rng(2)
    shape = (3,) if edges else ()
    x, y = rng.random((2, 4, 4, *shape)) + 0.1, rng.random((2, 5, 5, *shape)) + 0.1
    a, b = 2 * rng.dirichlet(np.ones(4), 2), 2 * rng.dirichlet(np.ones(5), 2)
    found = ours.solve_gromov_batch(x, y, a=a, b=b, loss=loss, logits=False)
    np.testing.assert_allclose(found.plan.sum(2), a, atol=1e-6)
    value = theirs.batch.loss_quadratic_batch(
        a, b, x, y, found.plan, loss=loss, logits=False, symmetric=False
    )
    np.testing.assert_allclose(found.value_quad, value, rtol=1e-5)
    np.testing.assert_allclose(found.value, value, rtol=1e-5)
    leaf = torch.as_tensor(x).requires_grad_()
    given = (torch.as_tensor(v) for v in (y, a, b))
    other, *masses = given
    settings = {"loss": loss, "logits": False}
    ours.solve_gromov_batch(leaf, other, 0.01, *masses, **settings).value.sum().backward()
    assert float(leaf.grad.abs().sum()) > 0


def test_batches_of_points_have_pots_costs_and_values() -> None:
    points = np.stack([X, X + 1]), np.stack([Y, 2 * Y])
    for metric in ("sqeuclidean", "euclidean", "minkowski"):
        found, expected = (one.dist_batch(*points, metric=metric) for one in (ours, theirs.batch))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    found, expected = (one.solve_sample_batch(*points, reg=0.1) for one in (ours, theirs.batch))
    np.testing.assert_allclose(found.value_linear, expected.value_linear, rtol=1e-4)
    with pytest.raises(ours.Unsupported, match="metric must be one of"):
        ours.solve_sample_batch(*points, metric="kl")


def test_scalings_and_plans_to_start_from_are_pots() -> None:
    for name, call in (("sinkhorn", (A, B, M, 0.1)), ("sinkhorn_unbalanced", (A, B, M, 0.1, 0.5))):
        mine, other = getattr(ours, name), getattr(theirs, name, None)
        other = other or getattr(theirs.unbalanced, name)
        plan, log = mine(*call, log=True)
        start = log["logu"], log["logv"]
        np.testing.assert_allclose(mine(*call, warmstart=start), plan, atol=1e-6)
        np.testing.assert_allclose(mine(*call, warmstart=start, numItermax=3), plan, atol=1e-5)
        np.testing.assert_allclose(other(*call, warmstart=start), plan, atol=1e-5)
        with pytest.raises(ours.Unsupported, match="warmstart must be a pair of vectors of 5 and"):
            mine(*call, warmstart=start[::-1])
    call = (C1, C2, A, B, "square_loss", 0.1)
    plan = ours.gromov.entropic_gromov_wasserstein(*call)
    again = ours.gromov.entropic_gromov_wasserstein(*call, G0=plan)
    np.testing.assert_allclose(again, plan, atol=1e-6)
    exact = theirs.emd(A, B, M)
    with pytest.raises(ours.Unsupported, match="G0 must be positive for PPA"):
        ours.gromov.entropic_gromov_wasserstein(*call, G0=exact, solver="PPA")


def test_several_histograms_have_several_costs() -> None:
    many = np.stack([B, B[::-1]], axis=1)
    found = ours.emd2(A, many, M)
    np.testing.assert_allclose(found, [theirs.emd2(A, column.copy(), M) for column in many.T])
    entropic = ours.sinkhorn2(A, many, M, 0.1)
    np.testing.assert_allclose(entropic, theirs.sinkhorn2(A, many, M, 0.1), rtol=1e-5)


def test_several_histograms_have_several_unbalanced_costs() -> None:
    many = np.stack([B, B[::-1]], 1)
    found = ours.sinkhorn_unbalanced2(A, many, M, 0.1, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.sinkhorn_unbalanced2(A, many, M, 0.1, 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("reg", [0.0, 0.2])
def test_the_total_of_an_unbalanced_problem_has_the_gradient_of_its_value(reg: float) -> None:
    cost = torch.as_tensor(M).requires_grad_()

    def total(costs: Tensor) -> Tensor:
        masses = torch.as_tensor(A), 2 * torch.as_tensor(B)
        settings = {"reg": reg, "returnCost": "total"}
        return ours.unbalanced.mm_unbalanced2(*masses, costs, 0.5, **settings)

    total(cost).backward()
    step = torch.zeros_like(cost)
    step[1, 2] = 1e-4
    with torch.no_grad():
        slope = (total(cost + step) - total(cost - step)) / 2e-4
    assert float(cost.grad[1, 2]) == pytest.approx(float(slope), rel=1e-2, abs=1e-4)


def test_lists_integers_and_masses_of_any_sum_are_taken() -> None:
    cost = [[0, 1], [3, 1]]
    np.testing.assert_allclose(ours.emd([0.5, 0.5], [0.25, 0.75], cost), [[0.25, 0.25], [0, 0.5]])
    np.testing.assert_allclose(ours.emd([], [], cost), np.eye(2) / 2)
    assert ours.emd2([2, 2], [1, 3], np.array(cost)) == pytest.approx(3.0)
    assert ours.sinkhorn2([], [], cost, 0.1) == pytest.approx(0.5, abs=1e-3)


def test_no_method_is_the_first_one() -> None:
    for name, call in (("sinkhorn", (A, B, M, 0.1)), ("sinkhorn_unbalanced", (A, B, M, 0.1, 1.0))):
        answer = getattr(ours, name)
        np.testing.assert_array_equal(answer(*call, method=None), answer(*call))


def test_what_was_passed_does_not_change() -> None:
    before = M.copy()
    plan = ours.emd(A, B, M)
    plan[:] = 7.0
    ours.sinkhorn(A, B, M, 0.1)[:] = 7.0
    np.testing.assert_array_equal(M, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ours.emd(A, 2 * B, M), "a and b must have the same positive sum"),
        (lambda: ours.emd(A, B[:3], M), "b must have shape"),
        (lambda: ours.emd(-A, -B, M), "a must not be negative"),
        (lambda: ours.emd(A, B, M, potentials_init=(A, B)), "potentials_init must be None"),
        (lambda: ours.emd(A, torch.as_tensor(B), M), "numpy and torch mixed"),
        (lambda: ours.emd(A.astype(np.float32), B, M), "arrays must have one dtype"),
        (lambda: ours.emd(A, B, M.astype(complex)), "real numbers"),
        (lambda: ours.sinkhorn(A, B, M, 0.1, method="fast"), "method must be one of"),
        (lambda: ours.sinkhorn(A, B, M, 0.0), "reg must be positive"),
        (lambda: ours.sinkhorn(A, B, M, 0.1, warmstart=(B, A)), "warmstart must be a pair"),
        (lambda: ours.gromov_wasserstein(C1, C2, loss_fun="huber"), "loss_fun must be one of"),
        (
            lambda: ours.gromov_wasserstein(C1, -C2, loss_fun="kl_loss"),
            "structures must not be negative",
        ),
        (
            lambda: ours.gromov.semirelaxed_gromov_wasserstein(C1, C2, loss_fun="kl_loss"),
            "loss_fun must be one of",
        ),
        (
            lambda: ours.gromov.fused_unbalanced_gromov_wasserstein(C1, C2, divergence="l2"),
            "divergence must be 'kl'",
        ),
        (
            lambda: ours.gromov.fused_unbalanced_gromov_wasserstein(C1, C2, reg_marginals=0),
            "reg_marginals must be positive",
        ),
        (
            lambda: ours.gromov.fused_unbalanced_gromov_wasserstein(C1, C2, unbalanced_solver="x"),
            "unbalanced_solver must be one of",
        ),
        (lambda: ours.gromov_wasserstein(M, C2), "structures must be square"),
        (lambda: ours.gromov_wasserstein(C1, C2, 2 * A, 2 * B), "p and q must sum to 1"),
        (
            lambda: ours.gromov.entropic_gromov_wasserstein(C1, C2, solver="BAPG"),
            "solver must be one of",
        ),
        (lambda: ours.gromov_barycenters(3, [C1], lambdas=[2.0]), "lambdas, p and each of ps"),
        (lambda: ours.gromov_barycenters(3, [C1], stop_criterion="x"), "stop_criterion must be"),
        (
            lambda: ours.gromov.fgw_barycenters(3, [X], [C1], fixed_structure=True),
            "init_C must be given",
        ),
        (lambda: ours.solve(M, c=M), "c must be None"),
        (lambda: ours.solve(M, unbalanced=1.0, unbalanced_type="L2"), "unbalanced_type must be"),
        (lambda: ours.solve_gromov(C1, C2, unbalanced=1.0), "unbalanced_type must be 'partial'"),
        (lambda: ours.partial.partial_wasserstein(A, B, M, 1.5), "mass"),
        (lambda: ours.partial.partial_wasserstein_lagrange(A, B, -M, 1.0), "reg_m must be"),
        (lambda: ours.gromov.partial_gromov_wasserstein(C1, C2, A, B, -0.5), "mass"),
        (lambda: ours.gromov.semirelaxed_gromov_wasserstein(C1, C2, G0="kmeans"), "G0 must be"),
        (lambda: ours.sinkhorn_unbalanced(A, B, M, 0.1, 1.0, "fast"), "method must be one of"),
        (lambda: ours.sinkhorn_unbalanced(A, B, M, 0.1, 1.0, c=0 * M), "c must have a positive"),
        (lambda: ours.sinkhorn_unbalanced(A, B, M, 0.1, (1.0, 1.0, 1.0)), "one number or two"),
        (lambda: ours.unbalanced.mm_unbalanced(A, B, M, 1.0, div="l2"), "div must be one of kl"),
        (lambda: ours.unbalanced.mm_unbalanced(A, B, M, 1.0, G0=0 * M), "G0 must be None or"),
        (lambda: ours.solve(M, reg=1.0, reg_type="L2"), "reg_type must be"),
        (lambda: ours.solve_gromov(C1, C2, loss="KL", reg=1.0), "loss must be 'L2'"),
        (lambda: ours.solve(M, reg=1.0, reg_type=(max, min)), "reg_type must be one of"),
        (
            lambda: ours.solve(M, reg=1.0, reg_type=(max, min), unbalanced=1.0),
            "reg_type must be one of",
        ),
        (lambda: ours.solve(M, unbalanced=1.0, unbalanced_type=None), "unbalanced_type must be"),
        (lambda: ours.solve_gromov(C1, C2, loss=None), "loss must be one of"),
        (lambda: ours.solve_gromov(C1, C2, unbalanced_type=None), "unbalanced_type must be one"),
        (lambda: ours.dist(X, Y, "canberra"), "metric must be one of"),
        (lambda: ours.dist(X, Y, w=np.ones(2)), "w must be None"),
        (lambda: ours.solve_sample(X, Y, method="gaussian"), "method must be None"),
        (lambda: ours.solve_sample(X, Y, lazy=True), "lazy must be False"),
        (lambda: ours.solve_sample(X, Y, scaler="minmax"), "scaler None"),
        (lambda: ours.solve_sample(X, Y, reg=1.0, debias="split"), "debias must be True"),
        (lambda: ours.solve_sample(X, Y, debias=True), "with reg"),
        (lambda: ours.solve_sample(X, Y, reg=1.0, debias=True, unbalanced=1.0), "unbalanced and c"),
    ],
)
def test_what_is_not_solved_is_refused_by_name(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("module", "name"), [("", "wasserstein_1d"), ("bregman", "barycenter"), ("gromov", "gw")]
)
def test_a_function_that_is_not_here_is_named_with_those_that_are(module, name):
    where = getattr(ours, module) if module else ours
    assert not hasattr(where, name)
    said = (
        rf"ot\.(\w+\.)?{name} is not one of POT's functions here .*: there are .*(sinkhorn|gromov)"
    )
    with pytest.raises(ours.Unsupported, match=said):
        getattr(where, name)


@pytest.mark.parametrize(
    "metric",
    [
        *("sqeuclidean", "euclidean", "cityblock", "chebyshev", "minkowski"),
        *("cosine", "correlation"),
    ],
)
def test_costs_between_points_are_pots(metric):
    x, y = RNG.random((5, 3)), RNG.random((4, 3))
    expected = theirs.dist(x, y, metric, p=3)
    np.testing.assert_allclose(ours.dist(x, y, metric, p=3), expected, atol=1e-14)
    found = ours.dist(torch.tensor(x), torch.tensor(y), metric, p=3)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-14)


def test_points_are_compared_as_by_pot_with_all_its_settings():
    for settings in (
        {"random_state": 0, "rank": 5, "scaling": 0.9, "n_projections": 7, "batch_size": 3},
        {"reg": 0.5, "reg_type": "entropy"},
        {"reg": 0.5, "debias": True},
        {"reg": 0.5, "unbalanced": 1.0},
        {"unbalanced": 1.0, "unbalanced_type": "KL", "metric": "euclidean"},
    ):
        found, expected = (one.solve_sample(X, Y, A, B, **settings) for one in (ours, theirs))
        if "debias" in settings:  # POT's is of the linear parts alone
            assert float(found.value) >= 0
            assert found.status == "Converged"
        else:
            np.testing.assert_allclose(found.value_linear, expected.value_linear, rtol=1e-3)


def test_logs_say_how_many_iterations_there_were_and_what_was_not_solved():
    for method in ("sinkhorn_stabilized", "greenkhorn"):
        _, log = ours.sinkhorn(A, B, M, 0.1, method=method, log=True)
        assert log["n_iter"] == log["niter"] > 1
    assert ours.solve_gromov(C1, C2, M).status == "Converged"
    with pytest.warns(UserWarning, match="max_iter"):
        assert ours.solve_gromov(C1, C2, reg=0.01, max_iter=1).status == "stopped at max_iter"


def test_what_solves_nothing_is_pots_own():
    assert ours.datasets is theirs.datasets
    assert ours.tic is theirs.tic
    assert ours.plot.plot2D_samples_mat
    assert ours.utils is theirs.utils


def test_unbalanced_graphs_of_thirty_nodes_are_solved_within_pots_steps():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(25, 2)), rng.normal(size=(30, 2)) + 2
    given = theirs.dist(x, x), theirs.dist(y, y)
    call = {"reg_marginals": 10, "alpha": 0.2, "M": theirs.dist(x, y), "log": True}
    found, expected = (
        one.gromov.fused_unbalanced_gromov_wasserstein(*given, **call)[-1] for one in (ours, theirs)
    )
    assert found["error"][0] < 1e-10 * found["fugw_cost"]
    # Not convex: two descents may end in different valleys.
    assert found["fugw_cost"] < expected["fugw_cost"] * (1 + 1e-2)
    with pytest.warns(UserWarning, match="max_iter"):
        ours.gromov.fused_unbalanced_gromov_wasserstein(*given, **call | {"max_iter": 1})


@pytest.mark.parametrize("reg_type", ["entropy", "kl"])
@pytest.mark.parametrize("mass", [1.0, 2.0])
def test_a_batch_is_worth_what_pot_says(reg_type, mass):
    costs = RNG.random((3, 5, 4))
    a, b = mass * RNG.dirichlet(np.ones(5), 3), mass * RNG.dirichlet(np.ones(4), 3)
    for method in ("auto", "proximal"):
        settings = {"reg_type": reg_type, "tol": 1e-9, "max_iter": 5000, "method": method}
        found, expected = (
            one.solve_batch(costs, 0.3, a, b, **settings) for one in (ours, theirs.batch)
        )
        for name in ("value", "value_linear", "plan"):
            np.testing.assert_allclose(
                getattr(found, name), getattr(expected, name), rtol=1e-2, atol=1e-3
            )
    found, expected = (
        one.solve_batch(costs, 0.3, a, b, tol=1e-9, max_iter=5000) for one in (ours, theirs.batch)
    )
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-7)
    for one, other in zip(found.potentials, expected.potentials, strict=True):
        apart = one - other
        np.testing.assert_allclose(apart - apart[:, :1], 0, atol=1e-6)
    costs[:, 0, 0] = np.inf
    assert np.isfinite(ours.solve_batch(costs, 0.3, a, b).value).all()


def test_masses_that_are_left_out_take_the_dtype_of_the_costs():
    x, y = X.astype(np.float32), Y.astype(np.float32)
    cost = M.astype(np.float32)
    for name in ("empirical_sinkhorn", "empirical_sinkhorn2", "empirical_sinkhorn_divergence"):
        found = getattr(ours.bregman, name)(x, y, 0.5)
        assert np.asarray(found).dtype == np.float32
        np.testing.assert_allclose(found, getattr(theirs.bregman, name)(X, Y, 0.5), atol=1e-4)
    for call in (ours.emd, lambda *given: ours.sinkhorn(*given, 0.5)):
        np.testing.assert_allclose(call([], [], cost).sum(), 1, rtol=1e-5)
    columns = RNG.dirichlet(np.ones(4), 2).T
    expected = theirs.emd2([], columns, M)
    np.testing.assert_allclose(ours.emd2([], columns, M), expected, rtol=1e-10)
    found = ours.emd2([], torch.tensor(columns), torch.tensor(M))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_a_debiased_value_comes_with_the_plan_between_the_samples():
    found, expected = (
        one.solve_sample(X, Y, reg=0.5, debias=True, tol=1e-9) for one in (ours, theirs)
    )
    np.testing.assert_allclose(found.plan, expected.plan, atol=1e-7)
    for one, other in zip(found.potentials, expected.potentials, strict=True):
        np.testing.assert_allclose(one - one[0], other - other[0], atol=1e-6)


def test_a_stabilised_solution_goes_on_from_its_log():
    settings = {"method": "sinkhorn_stabilized", "log": True}
    plan, log = ours.sinkhorn(A, B, M, 0.1, **settings)
    again, later = ours.sinkhorn(A, B, M, 0.1, warmstart=log["warmstart"], **settings)
    np.testing.assert_allclose(again, plan, atol=1e-9)
    assert later["niter"] < log["niter"]
    expected = theirs.sinkhorn(A, B, M, 0.1, warmstart=log["warmstart"], **settings)[0]
    np.testing.assert_allclose(again, expected, atol=1e-7)
