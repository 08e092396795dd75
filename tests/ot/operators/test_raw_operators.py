"""The compiled operators stay in their tensors, end, and say what is wrong, given any bits."""

import subprocess
import sys

import pytest
import torch

import hotnas_torch as ht

pytestmark = pytest.mark.ext

PROGRAM = """
import torch
import hotnas_torch

def bits(rng, dtype, *shape):
    drawn = torch.randint(-(2**63), 2**63 - 1, shape, generator=rng)
    kind = int(torch.randint(5, (), generator=rng))
    if kind == 0:
        return drawn.view(torch.float64).to(dtype) if dtype == torch.float64 else (
            drawn.to(torch.int32).view(torch.float32))
    power = torch.randint(-300, 300, (), generator=rng) * (1 if dtype == torch.float64 else 0.125)
    values = (torch.rand(shape, generator=rng, dtype=torch.float64) * 10.0**power).to(dtype)
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e-45, -1.0, 0.0], dtype=dtype)
    chosen = odd[torch.randint(len(odd), shape, generator=rng)]
    rare = torch.rand(shape, generator=rng) < (0.1 if kind == 1 else 0.0)
    return torch.where(rare, chosen, values)

def masses(rng, dtype, batch, n):
    if int(torch.randint(3, (), generator=rng)) == 0:
        return bits(rng, dtype, batch, n)
    drawn = torch.rand(batch, n, generator=rng, dtype=torch.float64)
    drawn = torch.where(torch.rand(batch, n, generator=rng) < 0.2, 0, drawn)
    return (drawn / drawn.sum(1, keepdim=True)).to(dtype)

raised = 0
for seed in range(ROUNDS):
    rng = torch.Generator().manual_seed(seed)
    number = lambda least, most: int(torch.randint(least, most, (), generator=rng))
    dtype = (torch.float32, torch.float64)[seed % 2]
    batch, n, m = number(0, 4), number(0, 9), number(0, 9)
    wrong = lambda size: size if number(0, 12) else number(0, 9)
    count = lambda: (number(1, 20), number(1, 20), 0, -1, 2**31, 2**62)[number(0, 24) % 6
        if number(0, 4) == 0 else 0]
    cost = bits(rng, dtype, batch, wrong(n), wrong(m))
    x, y = bits(rng, dtype, batch, n, wrong(n)), bits(rng, dtype, batch, m, m)
    a, b = masses(rng, dtype, batch, n), masses(rng, dtype, batch, m)
    alpha = torch.rand(batch, generator=rng).to(dtype) if number(0, 3) else bits(rng, dtype, batch)
    none = cost.new_empty(0)
    init = bits(rng, dtype, batch, n, m) if number(0, 2) else none
    starts = bits(rng, dtype, number(0, 3), n, m) if number(0, 2) else none
    if batch == 1 and number(0, 2):
        cost, x, y, a, b, alpha = (t[0] for t in (cost, x, y, a, b, alpha))
        init = init[0] if init.numel() else init
    terms = number(0, 2), number(0, 3)
    tol = (1e-6, 0.0, -1.0, float("nan"), float("inf"))[number(0, 5)]
    labels = torch.randint(0, 3, a.shape), torch.randint(-number(0, 2), 3, b.shape)
    index = torch.randint(0, max(batch, 1), (number(0, 5),))
    table = bits(rng, dtype, 3, 3)
    op = torch.ops.hotnas
    calls = [
        lambda: op.transport(cost, a, b, number(0, 3)),
        lambda: op.sinkhorn(cost, a, b, float(bits(rng, torch.float64, 1)), tol, count()),
        lambda: op.fgw(cost, x, y, a, b, alpha, init, starts, *terms, count(), tol, count(),
                       number(0, 3)),
        lambda: op.semirelaxed_fgw(cost, x, y, a, b, alpha, init, starts, *terms, count(), tol,
                                   count()),
        lambda: op.unbalanced_sinkhorn(cost, a, b, 10.0 ** number(-9, 9), 10.0 ** number(-9, 9),
                                       (1.0, 0.0, float("inf"))[number(0, 3)], number(0, 2), tol,
                                       count()),
        lambda: op.kl_transport(cost, a, b, 10.0 ** number(-300, 300),
                                (1.0, 1e-300, float("inf"))[number(0, 3)], tol, count()),
        lambda: op.fgw_backward(cost, x, y, alpha, *terms),
        lambda: op.entropic_fgw(cost, x, y, a, b, alpha, init, 10.0 ** number(-9, 9), *terms,
                                number(0, 2), tol, count(), tol, count()),
        lambda: op.fgw_lower_bound(cost, x, y, a, b, alpha, *terms),
        lambda: op.cell_distances(labels[0], a[..., None], x, a, labels[1], b[..., None], y, b,
                                  table, index, index, float(tol), *terms, number(0, 3), count(),
                                  starts, tol, count()),
        lambda: op.network_distances(table, labels[0], a, a[..., None], labels[1], b, b[..., None],
                                     index, index),
    ]
    for call in calls:
        try:
            call()
        except RuntimeError as error:
            raised += 1
            assert "hotnas" not in str(error) or "internal" not in str(error).lower(), error
print("ended", raised)
"""


def check(rounds: int, seconds: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("ROUNDS", str(rounds))],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("ended")


def test_any_bits_and_shapes_end_in_a_result_or_an_error() -> None:
    check(150, 120)


@pytest.mark.slow
def test_many_bits_and_shapes_end_in_a_result_or_an_error() -> None:
    check(12_500, 3000)


@pytest.mark.parametrize("count", [0, -1, 2**31, 2**32 + 1])
def test_counts_that_are_none_are_refused_by_name(count: int, rng: torch.Generator) -> None:
    cost, square, mass = (
        torch.rand(1, 2, 2, generator=rng),
        torch.rand(1, 2, 2, generator=rng),
        torch.full((1, 2), 0.5),
    )
    none, alpha = cost.new_empty(0), torch.tensor([0.5])
    graph = (cost, square, square, mass, mass, alpha)
    op = torch.ops.hotnas
    with pytest.raises(RuntimeError, match="max_iter must be between 1 and 2147483647"):
        op.fgw(*graph, none, none, 0, 0, 1, 1e-6, count)
    with pytest.raises(RuntimeError, match="num_starts must be between 1 and 3"):
        op.fgw(*graph, none, none, 0, 0, count, 1e-6, 10)
    with pytest.raises(RuntimeError, match="max_iter must be between 1 and 2147483647"):
        op.sinkhorn(cost, mass, mass, 0.1, 1e-6, count)


def test_a_tolerance_that_is_no_number_is_refused(rng: torch.Generator) -> None:
    cost, mass = torch.rand(1, 2, 2, generator=rng), torch.full((1, 2), 0.5)
    none = cost.new_empty(0)
    with pytest.raises(RuntimeError, match="tol must be a number"):
        torch.ops.hotnas.fgw(
            cost, cost, cost, mass, mass, mass[:, 0], none, none, 0, 0, 1, float("nan"), 9
        )


@pytest.mark.parametrize("backend", ["ext", "torch"])
def test_an_item_of_no_numbers_is_called_nonfinite(backend: str, rng: torch.Generator) -> None:
    good = torch.rand(2, 3, 3, generator=rng)
    for value in (torch.nan, torch.inf):
        bad = good.clone()
        bad[:, 0, 1] = value
        for arguments in ((bad, good, good), (good, bad, good), (good, good, bad)):
            found = ht.ot.fgw(*arguments, validate=False, backend=backend)
            if value == torch.inf and arguments[0] is bad:  # which forbids a pair
                assert (found.status == 0).all()
                continue
            assert (found.status == 2).all()
            assert found.objective.isnan().all()
            assert found.plan.isnan().all()
    start = torch.full((2, 3, 3), 1 / 9)
    start[0, 0, 0] = 0.5
    found = ht.ot.fgw(good, good, good, init=start, validate=False, backend=backend)
    assert found.status.tolist() == [3, 0]


def test_one_problem_alone_is_a_batch_of_one_without_its_dimension(rng: torch.Generator) -> None:
    n, m = 4, 5
    cost, x, y = (torch.rand(1, *shape, generator=rng) for shape in ((n, m), (n, n), (m, m)))
    a, b = torch.full((1, n), 1 / n), torch.full((1, m), 1 / m)
    alpha, none = torch.tensor([0.5]), cost.new_empty(0)
    init, starts = a[:, :, None] * b[:, None, :], torch.rand(2, n, m, generator=rng)
    graph, op = (cost, x, y, a, b, alpha), torch.ops.hotnas
    calls = (
        (op.transport, (cost, a, b)),
        (op.sinkhorn, (cost, a, b, 0.1, 1e-6, 100)),
        (op.entropic_transport, (cost, a, b, 0.1, 1e-6, 100)),
        (op.fgw, (*graph, init, starts, 0, 1, 4, 1e-4, 100)),
        (op.semirelaxed_fgw, (*graph, none, starts, 0, 1, 3, 1e-4, 100)),
        (op.unbalanced_sinkhorn, (cost, a, b, 0.1, 1.0, 1.0, 0, 1e-6, 100)),
        (op.kl_transport, (cost, a, b, 1.0, 1.0, 1e-6, 100)),
        (op.fgw_backward, (cost, x, y, alpha, 0, 1)),
        (op.entropic_fgw, (*graph, init, 0.1, 1, 0, 0, 1e-6, 10, 1e-6, 100)),
        (op.fgw_lower_bound, (*graph, 0, 1)),
    )
    for call, given in calls:
        expected = call(*given)
        alone = (
            value[0] if isinstance(value, torch.Tensor) and len(value) == 1 else value
            for value in given
        )
        found = call(*alone)
        pairs = (
            zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
        )
        for mine, theirs in pairs:
            assert torch.equal(mine, theirs[0]), call
