"""What holds for every public solver on every problem: CONTRIBUTING, "Rules that hold everywhere".

Each rule on a thousand random problems of each solver, and on a million of all solvers together
where slow tests run.
"""

from collections.abc import Iterator
from dataclasses import replace

import ot
import pytest
import torch
from torch import Tensor

from tests.generators.problems import F64
from tests.rules.solvers import NUMBERED, SOLVERS, Case, Outputs, Solver, duality_gap, times

pytestmark = pytest.mark.ext

SOME, ALL = 1000, 10**6
MILLION = pytest.param(ALL, marks=pytest.mark.slow)
by_solver = pytest.mark.parametrize("name", SOLVERS)
by_count = pytest.mark.parametrize("count", [SOME, MILLION])
# The text is written for clarity: it solves the thousand, in few batches.
by_backend = pytest.mark.parametrize(
    ("backend", "count"),
    [("ext", SOME), ("torch", SOME), pytest.param("ext", ALL, marks=pytest.mark.slow)],
)


def cases(
    name: str, count: int, rng: torch.Generator, size: int = 0, most: int = 5
) -> Iterator[tuple[Solver, Case]]:
    """Batches of `count` random problems in all."""
    if count == ALL:
        count = SOLVERS[name].of_a_million
        size = count // 200
    else:
        count = SOLVERS[name].of_a_thousand * count // SOME
    size = min(size or 50, count)
    for _ in range(count // size):
        yield SOLVERS[name], SOLVERS[name].draw(rng, size, most)


def same(x: Tensor, y: Tensor) -> Tensor:
    """Which items have the same bits (and NaN where the other has NaN), (B,)."""
    equal = (x == y) | (x.isnan() & y.isnan())
    return equal.reshape(len(x), -1).all(1)


def demand(good: Tensor, case: Case, what: str) -> None:
    """Fail with the first problem for which the rule does not hold."""
    if not good.all():
        bad = (~good).nonzero()[:, 0]
        first = {name: value[bad[0]].tolist() for name, value in case.inputs.items()}
        pytest.fail(
            f"{what}: {len(bad)} of {case.size} problems, the first: {first},"
            f" {case.options}, {case.dtype}"
        )


def demand_equal(found: Outputs, expected: Outputs, case: Case, what: str) -> None:
    for name, value in expected.items():
        demand(same(found[name], value), case, f"{what} changes {name}")


@by_backend
@by_solver
def test_no_unit_changes_a_bit(name: str, backend: str, count: int, rng: torch.Generator) -> None:
    for solver, case in cases(name, count, rng, size=500 * (backend == "torch")):
        found, powers = solver.solve(case, backend), solver.units(rng, case)
        for output, value in solver.solve(case.rescaled(powers), backend).items():
            scaled = times(found[output], case.unit_of(output, powers))
            # What underflows in one of the two units, the dust of an optimum of 0, is left out.
            limits = torch.finfo(case.dtype)
            gone = (value.abs() < limits.tiny / limits.eps) & (
                scaled.abs() < limits.tiny / limits.eps
            )
            scaled = torch.where(gone, value, scaled)
            demand(same(value, scaled), case, f"a unit of 2**{powers[0]} changes {output}")


@by_count
@by_solver
def test_no_neighbour_changes_a_bit(name: str, count: int, rng: torch.Generator) -> None:
    for solver, case in cases(name, count, rng):
        found = solver.solve(case)
        far = 50 if case.dtype == torch.float32 else 450
        powers = torch.randint(-far, far, (case.size,), generator=rng) * 2
        absurd = case.rescaled(powers).with_options(**case.options)
        order = torch.randperm(2 * case.size, generator=rng)
        there = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))[: case.size]
        mixed = solver.solve(case.beside(absurd).items(order))
        chosen = {output: value[there] for output, value in mixed.items()}
        demand_equal(chosen, found, case, "an absurd neighbour")
        for item in range(min(case.size, 50)):
            one = slice(item, item + 1)
            alone = solver.solve(case.items(one))
            wanted = {output: value[one] for output, value in found.items()}
            demand_equal(alone, wanted, case.items(one), "company")


@by_count
@by_solver
def test_no_number_of_threads_changes_a_bit(name: str, count: int, rng: torch.Generator) -> None:
    for solver, case in cases(name, count, rng, size=500 if count == SOME else 5000):
        found = solver.solve(case)
        before = torch.get_num_threads()
        try:
            for threads in (2, 3):
                torch.set_num_threads(threads)
                demand_equal(solver.solve(case), found, case, f"{threads} threads")
        finally:
            torch.set_num_threads(before)


@by_count
@by_solver
def test_both_backends_find_the_same_value(name: str, count: int, rng: torch.Generator) -> None:
    elsewhere = 0
    for solver, case in cases(name, count, rng, size=500 if count == SOME else 20000, most=4):
        compiled, text = solver.solve(case, "ext"), solver.solve(case, "torch")
        good = agree(compiled, text, case)
        if solver.local:
            elsewhere += int((~good).sum())
            for one, other in (("torch", compiled), ("ext", text)):
                stays = solver.solve(from_plan(case, other["plan"]), one)
                demand(agree(stays, other, case), case, f"{one} goes on from where the other ended")
        else:
            demand(good, case, "the backend changes the objective")
    assert elsewhere <= SOLVERS[name].elsewhere * count


@by_count
@by_solver
def test_no_numbering_of_nodes_changes_the_value(
    name: str, count: int, rng: torch.Generator
) -> None:
    elsewhere = 0
    for solver, case in cases(name, count, rng):
        # Order-preserving couplings and ordered pairs are about a numbering.
        if case.options.get("pairs") == "ordered":
            case = case.with_options(pairs="directed")
        case = case.with_options(num_starts=min(2, case.options.get("num_starts", 1)))
        orders = {
            side: torch.rand(case.size, case.inputs[mass].shape[1], generator=rng).argsort(1)
            for side, mass in (("x", "a"), ("y", "b"))
        }
        renumbered = case.renumbered(orders)
        found, other = solver.solve(case), solver.solve(renumbered)
        good = agree(found, other, case)
        if solver.local:
            elsewhere += int((~good).sum())
            plan = found["plan"].take_along_dim(orders["x"][:, :, None], 1)
            plan = plan.take_along_dim(orders["y"][:, None, :], 2)
            stays = solver.solve(from_plan(renumbered, plan))
            demand(agree(stays, found, case), case, "the renumbered plan is not stationary")
        else:
            demand(good, case, "the numbering changes the objective")
    assert elsewhere <= SOLVERS[name].elsewhere * count


def from_plan(case: Case, plan: Tensor) -> Case:
    """The same problem, started from a plan alone."""
    one = case.with_options(num_starts=1)
    return replace(one, options={**one.options, "init": plan})


def agree(x: Outputs, y: Outputs, case: Case) -> Tensor:
    """Whether objectives are the same within the tolerance, where both converged."""
    rtol = 2e-4 if case.dtype == torch.float32 else 2e-6
    first, second = x["objective"].to(F64), y["objective"].to(F64)
    cost = torch.where(case.present("cost"), case.inputs["cost"], 0).abs().amax((1, 2))
    good = (first - second).abs() <= rtol * torch.maximum(first.abs(), 0.1 * cost)
    if "status" in x:
        good |= (x["status"] != 0) | (y["status"] != 0)
    return good


@by_count
@by_solver
def test_converged_is_proved_in_float64(name: str, count: int, rng: torch.Generator) -> None:
    for solver, case in cases(name, count, rng):
        found = solver.solve(case)
        excess = solver.excess(case, found)
        good = excess <= 1
        if "status" in found:
            good |= found["status"] != 0
        demand(good, case, f"converged, but {excess[~good][:1].tolist()} times what is allowed")


def test_the_proof_is_what_another_library_says(rng: torch.Generator) -> None:
    for _, case in cases("transport", 200, rng):
        at = {name: value.to(F64) for name, value in case.inputs.items()}
        a, b = (at[side] / at[side].sum(1, keepdim=True) for side in "ab")
        product = a[:, :, None] * b[:, None, :]
        gap, _ = duality_gap(case, product, at["cost"])
        for item in range(case.size):
            least = ot.emd2(a[item].numpy(), b[item].numpy(), at["cost"][item].numpy())
            paid = (product[item] * at["cost"][item]).sum()
            assert gap[item].item() == pytest.approx(float(paid - least), abs=1e-9)


@by_backend
@by_solver
def test_what_stands_at_absent_nodes_changes_no_bit(
    name: str, backend: str, count: int, rng: torch.Generator
) -> None:
    for solver, case in cases(name, count, rng, size=500 * (backend == "torch")):
        gone = {mass: torch.rand(case.inputs[mass].shape, generator=rng) < 0.3 for mass in "ab"}

        def leave(name: str, value: Tensor, gone: dict[str, Tensor] = gone) -> Tensor:
            if name not in gone:
                return value
            gone[name][:, 0] = False
            value = torch.where(gone[name], 0, value)
            # Masses of a float32 problem need not be exact; those of the mirror image must be.
            return value / value.sum(1, keepdim=True)

        case = case.with_inputs(leave)
        junk = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -3.0, 0.0], dtype=case.dtype)

        def litter(name: str, value: Tensor, case: Case = case, junk: Tensor = junk) -> Tensor:
            if len(NUMBERED[name]) < 2:
                return value
            chosen = junk[torch.randint(len(junk), value.shape, generator=rng)]
            return torch.where(case.present(name), value, chosen)

        found = solver.solve(case, backend)
        for output, value in solver.solve(case.with_inputs(litter), backend).items():
            seen = case.present(output)
            good = same(torch.where(seen, value, 0), torch.where(seen, found[output], 0))
            demand(good, case, f"what stands at absent nodes changes {output}")


@by_count
@by_solver
def test_no_mode_changes_a_bit(name: str, count: int, rng: torch.Generator) -> None:
    for solver, case in cases(name, count, rng):
        found = solver.solve(case)
        for mode in (
            torch.inference_mode(),
            torch.no_grad(),
            torch.autocast("cpu", torch.bfloat16),
        ):
            with mode:
                demand_equal(solver.solve(case), found, case, type(mode).__name__)
        tracked = case.with_inputs(lambda _, value: value.clone().requires_grad_())
        recorded = {output: value.detach() for output, value in solver.solve(tracked).items()}
        if solver.parts:
            for output, value in recorded.items():
                bound = 16 * torch.finfo(case.dtype).eps * (1 + found[output].abs())
                close = torch.where((value - found[output]).abs() <= bound, found[output], value)
                demand(same(close, found[output]), case, f"requires_grad changes {output}")
        else:
            demand_equal(recorded, found, case, "requires_grad")
