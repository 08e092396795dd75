"""The grid on the simplex, against exhaustive enumeration."""

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hotnas_torch.spaces.encodings.grid import (
    draw_dirichlet,
    grid_neighbors,
    grid_points,
    num_arrangements,
    num_encodings,
    round_to_grid,
)

SMALL = [(0, 3), (1, 1), (1, 4), (3, 2), (4, 3), (5, 3), (6, 4), (6, 5)]


def brute_force(total, num_operations):
    counts = itertools.product(range(total + 1), repeat=num_operations)
    return [row for row in counts if sum(row) == total]


@pytest.mark.parametrize(("total", "num_operations"), SMALL)
def test_the_grid_is_every_way_to_share_out_the_places(total, num_operations):
    points = grid_points(total, num_operations)
    assert points.tolist() == [list(row) for row in brute_force(total, num_operations)]
    assert len(points) == num_encodings(total, num_operations)


def test_numbers_of_encodings_of_the_paper():
    # NAS-Bench-201, the DARTS cell as the paper counts it, and the chosen edges of one.
    assert num_encodings(6, 5) == 210
    assert num_encodings(14, 8) == 116_280
    assert num_encodings(8, 7) == 3003


@pytest.mark.parametrize("norm", [1, 2, math.inf])
@pytest.mark.parametrize(("total", "num_operations"), SMALL[1:])
def test_rounding_is_a_nearest_grid_point(total, num_operations, norm, rng):
    grid = torch.tensor(brute_force(total, num_operations), dtype=torch.float64)
    ones = torch.ones(num_operations, dtype=torch.float64)
    points = draw_dirichlet(ones, 300, generator=rng)
    # Midpoints of grid points are where ties are, and grid points where rounding must not move.
    pairs = torch.randint(len(grid), (200, 2), generator=rng)
    points = torch.cat([points, grid[pairs].mean(dim=1) / total, grid / total])
    rounded = round_to_grid(points, total)
    assert bool((rounded.sum(dim=1) == total).all())
    assert bool((rounded >= 0).all())
    distances = torch.cdist(points * total, grid, p=norm)
    own = torch.linalg.vector_norm(points * total - rounded, ord=norm, dim=1)
    assert torch.allclose(own, distances.min(dim=1).values, atol=1e-8)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_rounding_leaves_counts_alone_whatever_the_floating_point(data):
    num_operations = data.draw(st.integers(1, 8))
    counts = data.draw(
        st.lists(st.integers(0, 9), min_size=num_operations, max_size=num_operations)
    )
    total = sum(counts)
    if total == 0:
        return
    for dtype in (torch.float32, torch.float64):
        point = torch.tensor(counts, dtype=dtype) / total
        if dtype is torch.float64:
            assert round_to_grid(point, total).tolist() == counts
        assert int(round_to_grid(point, total).sum()) == total


def test_of_equal_parts_the_first_are_rounded_up():
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert round_to_grid(third, 4).tolist() == [2, 1, 1]
    assert round_to_grid(third, 5).tolist() == [2, 2, 1]


def test_rounding_is_batched():
    points = draw_dirichlet(torch.ones(4), 24, generator=torch.Generator().manual_seed(1))
    batch = round_to_grid(points.reshape(2, 3, 4, 4), 7)
    assert batch.shape == (2, 3, 4, 4)
    single = torch.stack([round_to_grid(point, 7) for point in points])
    assert torch.equal(batch.reshape(24, 4), single)


@pytest.mark.parametrize("point", [[0.5, 0.6], [-0.1, 1.1], [math.nan, 1.0]])
def test_a_point_off_the_simplex_is_refused(point):
    with pytest.raises(ValueError, match=r"sum to 1 along the last dimension.* at \[1\]"):
        round_to_grid(torch.tensor([[0.5, 0.5], point]), 3)
    with pytest.raises(ValueError, match="total must be at least 0"):
        round_to_grid(torch.tensor([1.0]), -1)


def test_the_neighbours_of_the_papers_example():
    # ANASOD, appendix A.1: N = 5, k = 3.
    expected = {(0, 1, 4), (1, 0, 4), (0, 2, 3), (2, 0, 3), (1, 2, 2), (2, 1, 2)}
    found = grid_neighbors(torch.tensor([1, 1, 3]))
    assert len(found) == 6
    assert {tuple(row) for row in found.tolist()} == expected


@pytest.mark.parametrize(("total", "num_operations"), SMALL[1:])
def test_neighbours_are_the_grid_points_two_away_in_l1(total, num_operations):
    grid = torch.tensor(brute_force(total, num_operations))
    for point in grid:
        near = grid[(grid - point).abs().sum(dim=1) == 2]
        found = grid_neighbors(point).tolist()
        assert sorted(found) == sorted(near.tolist())
        assert len(found) == len({tuple(row) for row in found})


def test_neighbours_of_what_is_no_count_are_refused():
    for counts in (torch.tensor([0.5, 0.5]), torch.tensor([-1, 2]), torch.ones(2, 2).long()):
        with pytest.raises(ValueError, match="vector of integers"):
            grid_neighbors(counts)


def test_arrangements_add_up_to_the_architectures():
    assert sum(num_arrangements(grid_points(6, 5))) == 5**6
    orders = Counter(tuple(sorted(row)) for row in itertools.product(range(3), repeat=4))
    for counts in grid_points(4, 3):
        sequence = tuple(i for i, count in enumerate(counts.tolist()) for _ in range(count))
        assert num_arrangements(counts[None]) == [orders[sequence]]


def test_dirichlet_draws_have_the_mean_and_the_spread_of_scipys(rng):
    from scipy.stats import dirichlet

    alpha = torch.tensor([0.7, 2.0, 5.0])
    drawn = draw_dirichlet(alpha, 20_000, generator=rng)
    reference = dirichlet(alpha.double().numpy())
    assert torch.allclose(drawn.sum(dim=1), torch.ones(20_000, dtype=torch.float64))
    assert torch.allclose(drawn.mean(dim=0), torch.from_numpy(reference.mean()), atol=0.006)
    assert torch.allclose(drawn.var(dim=0), torch.from_numpy(reference.var()), atol=0.003)
    with pytest.raises(ValueError, match="concentration must be positive"):
        draw_dirichlet(torch.tensor([1.0, 0.0]), 1, generator=rng)
