"""Bad input: a clear error that names argument, item, what was expected and the remedy."""

import re

import numpy as np
import pytest
import torch

import hotnas_torch.ot as ot
from tests.generators.problems import F64, graphs, uniform


def cost(*batch: int) -> torch.Tensor:
    return torch.zeros(*batch, 2, 3, dtype=F64)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 2)), r"cost must be a torch.Tensor; got ndarray; use torch.as_tensor"),
        ([[0.0]], "cost must be a torch.Tensor; got list"),
        (torch.zeros(2, 2, dtype=torch.int64), r"float64; got torch.int64; use cost.double\(\)"),
        (torch.zeros(2, 2, dtype=torch.float16), "float32 or float64; got torch.float16"),
        (torch.zeros(2, 2, dtype=torch.complex64), r"got torch.complex64; take its real part or"),
        (torch.zeros(2, 2).to_sparse(), r"cost must be a dense tensor; got .*sparse_coo; use cost"),
        (
            torch.nested.nested_tensor([torch.zeros(2, 2)], layout=torch.jagged),
            "got a nested tensor; pad the items to one size, with zero mass",
        ),
    ],
)
def test_kinds_and_dtypes_of_the_cost(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ot.transport(value)
    with pytest.raises(TypeError, match=message):
        ot.sinkhorn(value, epsilon=1.0)


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.float16, torch.bfloat16, torch.complex128]
)
def test_one_rule_holds_for_other_numbers_in_all_solvers(dtype: torch.dtype) -> None:
    c, x, y, a = (torch.ones(shape).to(dtype) for shape in ((3, 4), (3, 3), (4, 4), (3,)))
    calls = {
        "cost": [
            lambda: ot.transport(c, a),
            lambda: ot.partial_transport(c, a, mass=0.5),
            lambda: ot.sinkhorn(c, a, epsilon=0.1),
            lambda: ot.sinkhorn_divergence(c, x, y, a, epsilon=0.1),
            lambda: ot.unbalanced_sinkhorn(c, a, epsilon=0.1, reg_m=1.0),
            lambda: ot.unbalanced_transport(c, a, reg_m=1.0),
            lambda: ot.fgw(c, x, y, a),
            lambda: ot.fgw_lower_bound(c, x, y, a),
            lambda: ot.partial_fgw(c, x, y, a, mass=0.5),
            lambda: ot.semirelaxed_fgw(c, x, y, a),
            lambda: ot.entropic_fgw(c, x, y, a, epsilon=0.1),
            lambda: ot.unbalanced_fgw(c, x, y, a, reg_m=1.0),
            lambda: ot.unbalanced_fgw(c, x, y, a, reg_m=1.0, penalty="tv"),
            lambda: ot.edge_fgw(c, x[..., None], y[..., None], a),
        ],
        "structs": [lambda: ot.fgw_barycenter(x[None], masses=a[None])],
        "structs[0]": [lambda: ot.fgw_barycenter([x, y], nodes=3), lambda: ot.pad_graphs([x, y])],
    }
    for name, solvers in calls.items():
        remedy = "take its real part" if dtype.is_complex else f"use {name}.double() or .float()"
        message = re.escape(f"{name} must be float32 or float64; got {dtype}; {remedy}")
        for solve in solvers:
            with pytest.raises(TypeError, match=message):
                solve()


@pytest.mark.parametrize("shape", [(), (3,)])
def test_too_few_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"cost must have shape \(n, m\) or \(\*batch, n, m\); got"
    ):
        ot.transport(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(0, 3), (5, 2, 0)])
def test_no_nodes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one row and one column; got shape"):
        ot.transport(torch.zeros(shape))


@pytest.mark.parametrize(
    ("masses", "error", "message"),
    [
        ([0.5, 0.5], TypeError, "a must be a torch.Tensor; got list"),
        (
            torch.full((2,), 0.5),
            TypeError,
            r"dtype of cost, torch.float64; got torch.float32; use a",
        ),
        (
            torch.full((3,), 1 / 3, dtype=F64),
            ValueError,
            r"a must have shape \(\*batch, 2\) to fit",
        ),
        (torch.full((3, 2), 0.5, dtype=F64), ValueError, r"agree.* cost \(4,\), a \(3,\), b \(\)"),
        (
            torch.full((2,), 0.5, dtype=F64, device="meta"),
            ValueError,
            "device of cost, cpu; got meta",
        ),
    ],
)
def test_masses_that_do_not_fit(masses: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ot.transport(cost(4), masses)


MUST = "must be non-negative and sum to 1 along its last dimension; "


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 0.47], r"item 1 sums to 0.97 \(divide it by its sum\)"),
        ([0.5, 0.5000001], "item 1 sums to 1.0000001 "),
        ([1.5, -0.5], "item 1 has -0.5 at 1"),
        ([torch.nan, 1.0], "item 1 has nan at 0"),
        ([torch.inf, 0.0], "item 1 sums to inf"),
        ([0.0, 0.0], "item 1 sums to 0 "),
    ],
)
def test_masses_that_are_no_distribution(side: str, values: list[float], message: str) -> None:
    masses = torch.full((3, 2), 0.5, dtype=F64)
    masses[1] = torch.tensor(values, dtype=F64)
    square = torch.zeros(3, 2, 2, dtype=F64)
    with pytest.raises(ValueError, match=side + " " + MUST + message):
        ot.transport(square, **{side: masses})
    with pytest.raises(ValueError, match=side + " " + MUST + message):
        ot.fgw(square, square, square, **{side: masses})


def test_a_single_problem_and_a_grid_of_problems_are_named_differently() -> None:
    with pytest.raises(ValueError, match="; it sums to 2"):
        ot.transport(cost(), torch.ones(2, dtype=F64))
    grid = torch.full((2, 3, 2), 0.5, dtype=F64)
    grid[1, 2] = 1
    with pytest.raises(ValueError, match=r"; item \(1, 2\) sums to 2"):
        ot.transport(cost(2, 3), grid)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_costs_and_structures_that_are_not_finite(bad: float, rng: torch.Generator) -> None:
    problem = graphs(rng, 3, 3, 4)
    for name, place in [("cost", (1, 2, 0)), ("struct_x", (1, 0, 2)), ("struct_y", (1, 3, 3))]:
        arguments = {
            "cost": problem.cost.clone(),
            "struct_x": problem.struct_x.clone(),
            "struct_y": problem.struct_y.clone(),
        }
        arguments[name][place] = bad
        where = rf"\({place[1]}, {place[2]}\)"
        message = f"{name} must be finite; item 1 has {bad} at {where}; nodes to be ignored need"
        with pytest.raises(ValueError, match=message):
            ot.semirelaxed_fgw(**arguments)
        if name == "cost" and bad == torch.inf:  # which forbids a pair
            continue
        with pytest.raises(ValueError, match=message):
            ot.fgw(**arguments)
        with pytest.raises(ValueError, match=message):
            ot.entropic_fgw(**arguments, epsilon=0.1)
        with pytest.raises(ValueError, match=message):
            ot.partial_fgw(**arguments, mass=0.5)
        with pytest.raises(ValueError, match=message):
            ot.fgw_lower_bound(**arguments)


def test_infinite_costs_are_refused_with_a_remedy_where_they_do_not_forbid() -> None:
    forbidden = torch.tensor([[1.0, torch.inf], [2.0, 3.0]])
    assert ot.transport(forbidden).plan[0, 1] == 0
    structure = torch.zeros(2, 2)
    with pytest.raises(
        ValueError, match=r"has inf at \(0, 1\); .* of a cost far above the others is left out"
    ):
        ot.semirelaxed_fgw(forbidden, structure, structure)
    for solve in (ot.transport, lambda cost: ot.sinkhorn(cost, epsilon=0.1)):
        with pytest.raises(
            ValueError, match=r"has -inf at \(0, 1\); .*\+inf, which forbids a pair"
        ):
            solve(-forbidden)


@pytest.mark.parametrize(
    ("mass", "error", "message"),
    [
        (1.5, ValueError, "mass must be .*; it has 1.5, where a sums to 1 and b to 1"),
        (-0.1, ValueError, "mass must be at least 0"),
        (float("nan"), ValueError, "mass must be at least 0"),
        ("all", TypeError, "mass must be a number or a torch.Tensor; got str"),
        (True, TypeError, "mass must be a number"),
        (torch.tensor(0.5), TypeError, "mass must have the dtype of cost"),
        (torch.tensor([0.5, 2.0], dtype=F64), ValueError, "item 1 has 2"),
        (torch.full((3,), 0.5, dtype=F64), ValueError, r"must agree or be 1 .* mass \(3,\)"),
    ],
)
def test_the_mass_of_a_part(mass: object, error: type[Exception], message: str) -> None:
    costs = cost(2) if isinstance(mass, torch.Tensor) and mass.dim() else cost()
    with pytest.raises(error, match=message):
        ot.partial_transport(costs, mass=mass)
    structures = torch.zeros(2, 2, dtype=F64), torch.zeros(3, 3, dtype=F64)
    with pytest.raises(error, match=message):
        ot.partial_fgw(costs, *structures, mass=mass)


def test_a_start_that_is_no_part_is_refused() -> None:
    structures = torch.zeros(2, 2, dtype=F64), torch.zeros(3, 3, dtype=F64)
    init = torch.full((2, 3), 1 / 12, dtype=F64)
    ot.partial_fgw(cost(), *structures, mass=0.5, init=init)
    with pytest.raises(ValueError, match=r"init must move mass in all, .*misses it by 0\.25"):
        ot.partial_fgw(cost(), *structures, mass=0.75, init=init)
    init = torch.zeros(2, 3, dtype=F64)
    init[0, 0] = 0.5
    with pytest.raises(ValueError, match=r"exceeds a or b by 0\.167"):
        ot.partial_fgw(cost(), *structures, mass=0.5, init=init)


def test_meta_tensors_have_shapes(backend: str) -> None:
    if backend == "ext":
        pytest.skip("the compiled core has no kernels for the meta device, and says so")
    result = ot.transport(torch.zeros(5, 2, 3, device="meta"), backend=backend)
    assert result.plan.is_meta
    assert result.plan.shape == (5, 2, 3)
    assert result.objective.shape == (5,)


def test_absent_nodes_may_hold_anything(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 2, 3, 4)
    problem.a[:, 1], problem.b[:, 0] = 0, 0
    a = problem.a / problem.a.sum(1, keepdim=True)
    b = problem.b / problem.b.sum(1, keepdim=True)
    padded = [tensor.clone() for tensor in problem.tensors()[:3]]
    padded[0][:, 1], padded[0][:, :, 0] = torch.nan, torch.inf
    padded[1][:, 1], padded[1][:, :, 1] = torch.nan, torch.inf
    padded[2][:, 0], padded[2][:, :, 0] = torch.nan, torch.inf
    kept = ot.fgw(*problem.tensors()[:3], a, b, backend=backend).objective
    assert torch.equal(ot.fgw(*padded, a, b, backend=backend).objective, kept)
    kept = ot.transport(problem.cost, a, b, backend=backend).objective
    assert torch.equal(ot.transport(padded[0], a, b, backend=backend).objective, kept)
    result = ot.sinkhorn(padded[0], a, b, epsilon=0.2, backend=backend)
    assert result.cost_linear.isfinite().all()
    assert result.objective.isfinite().all()


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        (
            "struct_x",
            torch.zeros(3, 3, dtype=F64),
            ValueError,
            r"struct_x must have .*2, 2\) to fit",
        ),
        ("struct_y", torch.zeros(3, dtype=F64), ValueError, r"struct_y must have .*3, 3\) to fit"),
        ("struct_x", torch.zeros(2, 2), TypeError, "struct_x must have the dtype of cost"),
        ("struct_y", None, TypeError, "struct_y must be a torch.Tensor; got NoneType"),
        ("struct_y", torch.zeros(5, 3, 3, dtype=F64), ValueError, r"struct_y \(5,\)"),
        ("alpha", torch.zeros(7, dtype=F64), ValueError, r"alpha \(7,\)"),
    ],
)
def test_graphs_that_do_not_fit(
    name: str, value: object, error: type[Exception], message: str
) -> None:
    arguments = {
        "cost": cost(4),
        "struct_x": torch.zeros(2, 2, dtype=F64),
        "struct_y": torch.zeros(3, 3, dtype=F64),
    }
    arguments[name] = value
    with pytest.raises(error, match=message):
        ot.fgw(**arguments)


def test_nothing_is_read_without_validation(rng: torch.Generator) -> None:
    """Tensors without data pass every check of kinds and shapes."""
    bad = torch.full((2, 3), 5.0, dtype=F64)
    result = ot.transport(uniform(rng, 2, 3, 4), bad, validate=False)
    assert result.status.tolist() == [3, 3]
