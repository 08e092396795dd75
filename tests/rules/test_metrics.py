"""What holds for every public distance: CONTRIBUTING, "Rules that hold everywhere".

Each rule on a thousand random pairs, and on a million where slow tests run: the matrix of 32 or of
1,000 random cells or networks.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network
from tests.rules.metrics import METRICS, distances

pytestmark = pytest.mark.ext

by_metric = pytest.mark.parametrize("name", METRICS)
by_count = pytest.mark.parametrize("count", [32, pytest.param(1000, marks=pytest.mark.slow)])


def demand(good: Tensor, rows: list[Any], cols: list[Any], what: str) -> None:
    """Fail with the first pair for which the rule does not hold."""
    if not good.all():
        i, j = (~good).nonzero()[0].tolist()
        pytest.fail(f"{what}: {int((~good).sum())} of {good.numel()} pairs, {rows[i]}, {cols[j]}")


@by_count
@by_metric
def test_it_is_symmetric_and_zero_between_equals(
    name: str, count: int, rng: torch.Generator
) -> None:
    row = METRICS[name]
    metric, items = row.build(), row.draw(rng, count)
    found = distances(metric, items)
    demand(found == found.T, items, items, "d(x, y) is not d(y, x)")
    demand((found >= 0) & found.isfinite(), items, items, "d(x, y) is no distance")
    demand((found.diagonal() == 0)[:, None], items, items, "d(x, x) is not 0")
    half = count // 2
    there, back = items[:half], items[half:]
    turned = distances(metric, back, there)
    demand(distances(metric, there, back) == turned.T, there, back, "d(x, y) is not d(y, x)")


@by_count
@by_metric
def test_no_other_pair_changes_a_bit(name: str, count: int, rng: torch.Generator) -> None:
    row = METRICS[name]
    metric, items = row.build(), row.draw(rng, count)
    found = distances(metric, items)
    order = torch.randperm(count, generator=rng)
    for part in order.split(count // 4):
        rows = [items[k] for k in part]
        demand(distances(metric, rows, items) == found[part], rows, items, "a part differs")
    for i, j in torch.randint(count, (100, 2), generator=rng).tolist():
        x, y = [items[i]], [items[j]]
        demand(distances(metric, x, y) == found[i, j], x, y, "the pair alone differs")


@by_count
@by_metric
def test_no_numbering_changes_a_bit(name: str, count: int, rng: torch.Generator) -> None:
    row = METRICS[name]
    metric, items = row.build(), row.draw(rng, count)
    renumbered = [row.renumbered(rng, item) for item in items]
    assert sum(x != y for x, y in zip(items, renumbered, strict=True)) >= count // 16
    found = distances(metric, items)
    rounding = row.last_places * torch.finfo(found.dtype).eps * found
    for rows in (renumbered, items):
        other = distances(metric, rows, renumbered)
        demand((other - found).abs() <= rounding, items, items, "a numbering changes it")
        demand((other.diagonal() == 0)[:, None], items, items, "renumbered, it is not 0 apart")


@by_count
@by_metric
def test_no_number_of_threads_changes_a_bit(name: str, count: int, rng: torch.Generator) -> None:
    row = METRICS[name]
    metric, items = row.build(), row.draw(rng, count)
    found, before = distances(metric, items), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        demand(distances(row.build(), items) == found, items, items, "two threads")
    finally:
        torch.set_num_threads(before)


@by_count
@by_metric
def test_no_mode_changes_a_bit(name: str, count: int, rng: torch.Generator) -> None:
    row = METRICS[name]
    items = row.draw(rng, count)
    found = distances(row.build(), items)
    for mode in (torch.inference_mode(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16)):
        with mode:
            demand(distances(row.build(), items) == found, items, items, type(mode).__name__)


@by_count
@pytest.mark.parametrize("name", [name for name, row in METRICS.items() if row.units])
def test_no_unit_changes_a_bit(name: str, count: int, rng: torch.Generator) -> None:
    row = METRICS[name]
    items = row.draw(rng, count)
    found = distances(row.build(unit=1.0), items)
    for power in (-60, -7, 13, 60):
        unit = 2.0**power
        demand(distances(row.build(unit=unit), items) == found * unit, items, items, f"{unit}")


@by_count
@pytest.mark.parametrize("name", [name for name, row in METRICS.items() if row.backends])
def test_both_backends_find_the_same_distance(name: str, count: int, rng: torch.Generator) -> None:
    row = METRICS[name]
    # The text is slow in large cells.
    items = [item for item in row.draw(rng, 20 * count) if size_of(item) <= 5][:count]
    compiled, text = (distances(row.build(backend=backend), items) for backend in ("ext", "torch"))
    assert compiled.shape == text.shape
    off = (compiled - text).abs() / torch.maximum(compiled, text).clamp_min(1e-30)
    # Ties between couplings, which cells have many of, lead to other optima now and then.
    assert (off > 2e-3).double().mean() <= 0.01
    demand(off <= 0.1, items, items, "the backends differ")


def size_of(item: Cell | Network) -> int:
    """Nodes of the largest cell."""
    cells = (item,) if isinstance(item, Cell) else item.cells
    return max(cell.num_nodes for cell in cells)
