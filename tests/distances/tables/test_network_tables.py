import math

import numpy as np
import ot as pot
import pytest
import torch

from hotnas_torch.arch import Network
from hotnas_torch.distances._tables.network_tables import (
    CellCosts,
    NetworkTables,
    NetworkWeights,
    network_state,
    unique_networks,
)

WEIGHTS = NetworkWeights(cells=0.4, state=0.3, position=0.3)
SCALE = (2.0, 2.0)


def numbers_of(networks, cells):
    return [[cells.index(cell) for cell in network.cells] for network in networks]


def tables(networks, cells, weights=WEIGHTS, mass="channels"):
    return NetworkTables(
        networks,
        numbers_of(networks, cells),
        mass=mass,
        state_scale=SCALE,
        weights=weights,
        backend="auto",
        dtype=torch.float64,
        device=torch.device("cpu"),
    )


def earth_mover(a, b, cells, distances, mass="channels"):
    """The definition, solved by POT's network simplex."""
    numbers_a, numbers_b = numbers_of([a, b], cells)
    state = np.abs(
        np.array(network_state(a, SCALE))[:, None] - np.array(network_state(b, SCALE))[None]
    ).mean(-1)
    position = np.abs(np.subtract.outer(a.positions(), b.positions()))
    inside = distances[np.ix_(numbers_a, numbers_b)]
    cost = WEIGHTS.cells * inside + WEIGHTS.state * state + WEIGHTS.position * position
    return pot.emd2(np.array(a.masses(mass)), np.array(b.masses(mass)), cost)


def metric_distances(size, seed=0):
    """Distances between random points: no triangle inequality is violated."""
    points = np.random.default_rng(seed).normal(size=(size, 3))
    return np.abs(points[:, None] - points[None]).mean(-1)


@pytest.mark.parametrize("mass", ["channels", "uniform"])
def test_a_block_is_the_earth_movers_distance(networks, cells, mass):
    table = tables(networks, cells, mass=mass)
    distances = metric_distances(len(cells))
    everything = torch.arange(len(cells))
    costs = CellCosts.between(torch.from_numpy(distances), everything, everything, len(cells))
    indices = torch.arange(len(networks))
    block = table.block(indices, indices, costs)
    assert torch.equal(block, block.T)
    assert (block.diagonal() == 0.0).all()
    for p, a in enumerate(networks):
        for q, b in enumerate(networks):
            expected = earth_mover(a, b, cells, distances, mass)
            assert float(block[p, q]) == pytest.approx(expected, abs=1e-9)


def test_a_rectangle_needs_only_its_own_cells(networks, cells):
    table = tables(networks, cells)
    distances = torch.from_numpy(metric_distances(len(cells)))
    everything = torch.arange(len(cells))
    full = CellCosts.between(distances, everything, everything, len(cells))
    rows, cols = torch.tensor([5, 0, 3]), torch.tensor([4, 3, 1])
    expected = table.block(rows, cols, full)
    cell_rows, cell_cols = table.cells_of(rows), table.cells_of(cols)
    part = CellCosts.between(distances[cell_rows][:, cell_cols], cell_rows, cell_cols, len(cells))
    assert torch.equal(table.block(rows, cols, part), expected)


@pytest.fixture
def repeating(cells):
    """Networks that repeat one cell around another one that they share, on one skeleton."""

    def network(repeated):
        layout = [repeated, cells[5], repeated, cells[5], repeated]
        return Network.chain(layout, (8, 16, 16, 32, 32), (1, 2, 2, 4, 4), input_channels=8)

    return [network(cell) for cell in cells[1:5]]


def test_one_repeated_cell_costs_its_share_where_that_is_optimal(repeating, cells):
    table = tables(repeating, cells)
    distances = metric_distances(len(cells))
    everything = torch.arange(len(cells))
    costs = CellCosts.between(torch.from_numpy(distances), everything, everything, len(cells))
    small, large = torch.tensor([0, 0, 1]), torch.tensor([1, 3, 2])
    chosen = table._choose(torch.arange(len(repeating)), costs)
    value, certain = table._one_cell_differs(small, large, chosen)
    assert certain.all()
    share = (8 + 16 + 32) / 104
    for k, (p, q) in enumerate(zip(small.tolist(), large.tolist(), strict=True)):
        assert float(value[k]) == pytest.approx(0.4 * share * distances[p + 1, q + 1])
        expected = earth_mover(repeating[p], repeating[q], cells, distances)
        assert float(value[k]) == pytest.approx(expected, abs=1e-9)


def test_one_repeated_cell_takes_the_way_round_where_that_is_cheaper(repeating, cells):
    distances = metric_distances(len(cells))
    # Far apart directly, near by way of cell 5, which both networks have.
    distances[1, 2] = distances[2, 1] = 50.0
    table = tables(repeating, cells)
    everything = torch.arange(len(cells))
    costs = CellCosts.between(torch.from_numpy(distances), everything, everything, len(cells))
    chosen = table._choose(torch.arange(len(repeating)), costs)
    _, certain = table._one_cell_differs(torch.tensor([0]), torch.tensor([1]), chosen)
    assert not certain.any()
    indices = torch.arange(len(repeating))
    block = table.block(indices, indices, costs)
    staying = 0.4 * (8 + 16 + 32) / 104 * 50.0
    assert float(block[0, 1]) < staying - 1.0
    for p, a in enumerate(repeating):
        for q, b in enumerate(repeating):
            expected = earth_mover(a, b, cells, distances)
            assert float(block[p, q]) == pytest.approx(expected, abs=1e-9)


def test_state_is_relative_to_the_input_and_scaled(cells):
    network = Network.chain([cells[1]] * 3, (16, 32, 64), (1, 2, 8), input_channels=16)
    assert network_state(network, (2.0, 3.0)) == [(0.0, 0.0), (0.5, 1 / 3), (1.0, 1.0)]
    narrow = Network.chain([cells[1]], (4,), (1,), input_channels=16)
    assert network_state(narrow, (1.0, 1.0)) == [(math.log2(1 / 4), 0.0)]


def test_two_shared_kinds_of_cells_are_no_obstacle(cells):
    def network(repeated):
        layout = [repeated, cells[0], repeated, cells[5]]
        return Network.chain(layout, (8, 16, 16, 32), (1, 2, 2, 4), input_channels=8)

    networks = [network(cell) for cell in cells[1:5]]
    table = tables(networks, cells)
    distances = metric_distances(len(cells), seed=3)
    everything = torch.arange(len(cells))
    costs = CellCosts.between(torch.from_numpy(distances), everything, everything, len(cells))
    block = table.block(torch.arange(4), torch.arange(4), costs)
    for p, a in enumerate(networks):
        for q, b in enumerate(networks):
            expected = earth_mover(a, b, cells, distances)
            assert float(block[p, q]) == pytest.approx(expected, abs=1e-9)


def test_networks_equal_up_to_renumbering_count_once(networks, cells):
    a, b = cells[1], cells[2]
    parallel = ((0, 1), (0, 2), (1, 3), (2, 3))
    first = Network((a, b), (8, 16), (1, 1), parallel)
    second = Network((b, a), (16, 8), (1, 1), parallel)
    given = [*networks, first, networks[3], second]
    order, places = unique_networks(given, numbers_of(given, cells))
    assert len(order) == len(networks) + 1
    assert places[-1] == places[-3]
    assert places[-2] == places[3]
    sizes = [len(given[index].cells) for index in order]
    assert sizes == sorted(sizes)
