"""The operators on lanes that are threads, and on every instruction set, against the others.

Masses and costs have so few binary digits that the sums by which FGW chooses its steps are exact:
lanes add in another order than one lane does, and rounding would let them choose another of
several vertices that are as good.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hotnas_torch._ext import ISA_NAMES
from hotnas_torch.ot._reference.entropic_fgw import entropic_fgw
from hotnas_torch.ot._reference.entropic_transport import entropic_transport
from hotnas_torch.ot._reference.fgw import fgw, fgw_backward
from hotnas_torch.ot._reference.graph_tables import cell_distances, network_distances
from hotnas_torch.ot._reference.kl_transport import kl_transport
from hotnas_torch.ot._reference.lower_bound import fgw_lower_bound
from hotnas_torch.ot._reference.semirelaxed_fgw import semirelaxed_fgw
from hotnas_torch.ot._reference.sinkhorn import sinkhorn
from hotnas_torch.ot._reference.transport import transport
from hotnas_torch.ot._reference.unbalanced_sinkhorn import unbalanced_sinkhorn
from tests.generators.problems import F64, Graphs, none_like

pytestmark = pytest.mark.ext

WIDTHS = [1, 2, 8, 16, 32]
DESCENTS = ("fgw", "cell_distances", "semirelaxed_fgw")
GAP = 1e-3  # relative, at which they stop
NEVER = -1.0  # a tolerance: it is up to rounding when a residual becomes exactly 0
EDGES = (1, 7, 8, 9, 31, 32, 33)
SIZES = [(1, 1), (1, 8), (7, 7), (8, 9), (9, 7)]
TORCH_TEXTS = {
    "transport": transport,
    "sinkhorn": sinkhorn,
    "entropic_transport": entropic_transport,
    "fgw": fgw,
    "fgw_backward": fgw_backward,
    "entropic_fgw": entropic_fgw,
    "fgw_lower_bound": fgw_lower_bound,
    "cell_distances": cell_distances,
    "network_distances": network_distances,
    "semirelaxed_fgw": semirelaxed_fgw,
    "unbalanced_sinkhorn": unbalanced_sinkhorn,
    "kl_transport": kl_transport,
}
NAMES = list(TORCH_TEXTS)
FLOATS = {  # how many of the results are numbers; iterations and status follow
    "transport": 4,
    "sinkhorn": 3,
    "entropic_transport": 6,
    "fgw": 5,
    "fgw_backward": 3,
    "entropic_fgw": 4,
    "fgw_lower_bound": 1,
    "cell_distances": 2,
    "network_distances": 1,
    "semirelaxed_fgw": 4,
    "unbalanced_sinkhorn": 3,
    "kl_transport": 5,
}


def exact_masses(rng: torch.Generator, batch: int, n: int) -> Tensor:
    """Multiples of 1/64 with sum 1; about a quarter of the nodes but the last are absent."""
    present = torch.rand(batch, n, generator=rng) > 0.25
    present[:, -1] = True
    units = present.to(F64)
    for item in units:
        (nodes,) = item.nonzero(as_tuple=True)
        for _ in range(64 - len(nodes)):
            item[nodes[torch.randint(len(nodes), (), generator=rng)]] += 1
    return units / 64


def exact_graphs(
    rng: torch.Generator, n: int, m: int, dtype: torch.dtype = F64, *, uniform: bool = False
) -> Graphs:
    # units of mass that a row and a column carry, of the 2^digits that make 1
    per_row, per_col = (1, 1) if n == m else (m, n)
    digits = (n * per_row - 1).bit_length() if uniform else 6
    levels = 1 << 16 if dtype == F64 else 1 << min(5, max(1, 11 - digits))

    def values(*shape: int) -> Tensor:
        return torch.randint(0, levels + 1, shape, generator=rng).to(F64) / levels

    if uniform:
        a = torch.full((2, n), per_row / 2**digits, dtype=F64)
        b = torch.full((2, m), per_col / 2**digits, dtype=F64)
    else:
        a, b = exact_masses(rng, 2, n), exact_masses(rng, 2, m)
    return Graphs(
        values(2, n, m),
        values(2, n, n),
        values(2, m, m),
        a,
        b,
        torch.tensor([0.5, 0.75], dtype=F64),
    ).to(dtype)


def arguments(name: str, p: Graphs, loss: int, pairs: int) -> tuple[Any, ...]:
    """Arguments of an op on these graphs; few iterations, as a meeting of threads takes long."""
    none = none_like(p.cost)
    graphs = p.tensors()
    count, n, m = p.cost.shape
    index = torch.arange(count)
    labels_x, labels_y = torch.arange(count * n).view(count, n), torch.arange(count * m)
    x = (labels_x % 3, p.a[:, :, None], p.struct_x, p.a)
    y = (labels_y.view(count, m) % 3, p.b[:, :, None], p.struct_y, p.b)
    label_cost = 1 - torch.eye(3, dtype=p.cost.dtype)
    return {
        "transport": (p.cost, p.a, p.b),
        "sinkhorn": (p.cost, p.a, p.b, 0.25, NEVER, 12),
        "entropic_transport": (p.cost, p.a, p.b, (0.25, 2.0)[loss], NEVER, 12),
        "fgw": (*graphs, none, p.cost[:1].contiguous(), loss, pairs, 4, GAP, 12),
        "fgw_backward": (p.a[:, :, None] * p.b[:, None, :], *graphs[1:3], p.alpha, loss, pairs),
        "entropic_fgw": (*graphs, none, 0.25, loss, pairs, loss, NEVER, 3, NEVER, 12),
        "fgw_lower_bound": (*graphs, loss, pairs),
        "cell_distances": (
            *x, *y, label_cost, index, index.flip(0), 0.5, loss, pairs, loss, 3, none, GAP, 12
        ),
        "semirelaxed_fgw": (
            *graphs, none, p.cost[:1].contiguous(), loss, pairs, 3, GAP, 25
        ),
        "unbalanced_sinkhorn": (p.cost, p.a, p.b, 0.25, 0.5, torch.inf, loss, NEVER, 12),
        "kl_transport": (p.cost, p.a, 1.5 * p.b, 0.5, (0.3, torch.inf)[loss], 1e-6, 100),
        "network_distances": (
            p.cost[0], labels_x % n, p.a, x[1], labels_y.view(count, m) % m, p.b, y[1], index, index
        ),
    }[name]  # fmt: skip


def results(found: Any) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


def assert_agree(name: str, found: Any, expected: Any, tolerance: float) -> None:
    got, wanted = results(found), results(expected)
    for k in range(FLOATS[name]):
        torch.testing.assert_close(got[k], wanted[k], rtol=tolerance, atol=tolerance)
    if len(wanted) > FLOATS[name]:
        assert (got[-2] - wanted[-2]).abs().max() <= 1  # iterations
        assert torch.equal(got[-1], wanted[-1])  # status


def closeness(name: str, tolerance: float) -> dict[str, float]:
    """Fused multiply-adds round the weights of FGW's atoms otherwise: equal up to its own gap."""
    tolerance = 2 * GAP if name in DESCENTS else tolerance
    return {"rtol": tolerance, "atol": tolerance}


def precision(dtype: torch.dtype) -> float:
    return 1e-12 if dtype == F64 else 2e-6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_any_number_of_lanes_computes_what_one_does(
    name: str, width: int, lanes: Callable[..., Any], rng: torch.Generator, dtype: torch.dtype
) -> None:
    few = [(3, 9)] if name == "fgw_lower_bound" else [(9, 7)]  # a meeting of many threads is slow
    for turn, (n, m) in enumerate(SIZES if width <= 2 else few):
        problem = exact_graphs(rng, n, m, dtype, uniform=turn % 2 == 1)
        args = arguments(name, problem, turn % 2, (turn + width) % 3)
        expected = getattr(lanes(0), name)(*args)
        assert_agree(name, getattr(lanes(width), name)(*args), expected, precision(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_sizes_at_the_edges_of_a_group(
    name: str, width: int, lanes: Callable[..., Any], dtype: torch.dtype
) -> None:
    edges = [n for n in EDGES if n <= 9] if name == "fgw_lower_bound" else EDGES  # n m transports

    # as few as threads that meet often allow on few processors
    @settings(max_examples=20 if width <= 2 else 4, deadline=None, derandomize=True, database=None)
    @given(
        st.sampled_from(edges),
        st.sampled_from(edges),
        st.booleans(),
        st.sampled_from([(loss, pairs) for loss in (0, 1) for pairs in (0, 1, 2)]),
        st.integers(0, 999),
    )
    def as_one_lane(n: int, m: int, uniform: bool, terms: tuple[int, int], seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        problem = exact_graphs(rng, n, m, dtype, uniform=uniform)
        args = arguments(name, problem, *terms)
        expected = getattr(lanes(0), name)(*args)
        assert_agree(name, getattr(lanes(width), name)(*args), expected, precision(dtype))

    as_one_lane()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_depends_on_what_was_never_written(
    name: str, lanes: Callable[..., Any], rng: torch.Generator, dtype: torch.dtype
) -> None:
    args = arguments(name, exact_graphs(rng, 9, 7, dtype), 1, 1)
    for width in (0, 2, 8):
        found = results(getattr(lanes(width, fill=255), name)(*args))  # NaN
        other = results(getattr(lanes(width, fill=63), name)(*args))  # about 0.7, and 0.0005
        for got, expected in zip(found, other, strict=True):
            assert torch.equal(got, expected)


@pytest.mark.parametrize("isa", range(3), ids=ISA_NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_every_instruction_set_computes_what_one_lane_does(
    name: str,
    isa: int,
    testing_ops: Any,
    lanes: Callable[..., Any],
    rng: torch.Generator,
    dtype: torch.dtype,
) -> None:
    for turn, (n, m) in enumerate([*SIZES, (16, 17)]):
        problem = exact_graphs(rng, n, m, dtype)
        args = arguments(name, problem, turn % 2, turn % 3)
        expected = getattr(lanes(0), name)(*args)
        if not testing_ops.use_instructions(isa):
            pytest.skip(f"this processor has no {ISA_NAMES[isa]}")
        assert testing_ops.cpu_isa() == isa
        found = getattr(testing_ops, name)(*args)
        if name in DESCENTS:
            objective = 1 if name == "fgw" else 0
            torch.testing.assert_close(
                found[objective], expected[objective], **closeness(name, precision(dtype))
            )
        else:
            assert_agree(name, found, expected, 10 * precision(dtype))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [0, 8])
def test_lanes_compute_what_the_library_and_the_torch_text_do(
    name: str, width: int, lanes: Callable[..., Any], rng: torch.Generator
) -> None:
    for turn, (n, m) in enumerate(SIZES):
        problem = exact_graphs(rng, n, m)
        args = arguments(name, problem, turn % 2, turn % 3)
        found = results(getattr(lanes(width), name)(*args))
        library = results(getattr(torch.ops.hotnas, name)(*args))
        torch_text = results(TORCH_TEXTS[name](*args))
        # the plan, or what there is of one number per item: other duals may be as good
        first = 1 if name in ("transport", "fgw") else 0
        for got, *others in zip(found[first:2], library[first:2], torch_text[first:2], strict=True):
            for other in others:
                torch.testing.assert_close(got, other, **closeness(name, 1e-10))


# pair costs are merged in place, in blocks of rows of lanes and what these leave over: none twice
@pytest.mark.parametrize(("n", "m"), [(9, 8), (7, 6), (5, 7)])
@pytest.mark.parametrize("width", [2, 8])
def test_merged_atoms_stay_the_same_coupling(
    width: int, n: int, m: int, lanes: Callable[..., Any], rng: torch.Generator
) -> None:
    fine = exact_graphs(rng, n, m)
    args = (*arguments("fgw", fine, 1, 1)[:-2], 1e-9, 60)
    merged = lanes(width, atoms=3).fgw(*args)
    apart = lanes(0).fgw(*args)
    assert (merged[5] != apart[5]).any()  # it did merge, and paid for it
    plan, objective = merged[0], merged[1]
    torch.testing.assert_close(plan.sum(2), fine.a, rtol=0, atol=1e-12)
    torch.testing.assert_close(plan.sum(1), fine.b, rtol=0, atol=1e-12)
    difference = fine.struct_x[:, :, None, :, None] - fine.struct_y[:, None, :, None, :]
    apart_x, apart_y = ~torch.eye(n, dtype=torch.bool), ~torch.eye(m, dtype=torch.bool)
    terms = difference.square() * apart_x[:, None, :, None] * apart_y[None, :, None, :]
    quadratic = torch.einsum("bij,bkl,bijkl->b", plan, plan, terms)
    value = (1 - fine.alpha) * (fine.cost * plan).sum((1, 2)) + fine.alpha * quadratic
    torch.testing.assert_close(objective, value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("width", WIDTHS)
def test_collectives_give_every_lane_the_same_bits(
    width: int, testing_ops: Any, rng: torch.Generator
) -> None:
    values = torch.randn(20, width, generator=rng, dtype=F64)
    values[10:] = torch.randint(-1, 2, (10, width), generator=rng).to(F64)  # ties
    found = testing_ops.collectives(values)
    assert torch.equal(found, found[:, :1].expand_as(found))
    total, most, least, lane, key, count = found[:, 0, :6].T
    torch.testing.assert_close(total, values.sum(1), rtol=0, atol=1e-13)
    assert torch.equal(most, values.amax(1))
    assert torch.equal(least, values.amin(1))
    minima = values == values.amin(1, keepdim=True)
    assert torch.equal(lane, minima.to(F64).argmax(1).to(F64))  # the lowest lane
    keys = torch.where(minima, width - torch.arange(width), 10**6)
    assert torch.equal(key, keys.amin(1).to(F64))  # the lowest key
    assert torch.equal(count, (values > 0).sum(1).to(F64))
    for row, present in zip(found[:, 0, 6:], values > 0, strict=True):
        (expected,) = present.nonzero(as_tuple=True)
        assert row[: len(expected)].tolist() == expected.tolist()


@pytest.mark.parametrize("width", [2, 8, 32])
def test_lanes_that_part_are_reported(width: int, testing_ops: Any) -> None:
    with pytest.raises(RuntimeError, match=rf"lane 0 of {width} is at .*group_ops.cpp:\d+, lane 1"):
        testing_ops.diverge(width)


def test_a_width_that_is_not_built_is_refused(testing_ops: Any) -> None:
    with pytest.raises(RuntimeError, match="no lanes of width 3"):
        testing_ops.use_lanes(3)
