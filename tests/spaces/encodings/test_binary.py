"""Path and adjacency encodings against paths that networkx lists."""

import networkx as nx
import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.spaces.encodings import AdjacencyEncoding, PathEncoding

SPACES = ("nasbench101", "nasbench201", "transnas_macro", "nasbench_macro", "darts", "pooling")


def sequences(cell):
    """Operations along every path of a cell."""
    graph = nx.DiGraph(list(cell.edges))
    graph.add_nodes_from(range(cell.num_nodes))
    silent = {"input", "output", "add"}
    return {
        tuple(cell.ops[node] for node in path if cell.ops[node] not in silent)
        for path in nx.all_simple_paths(graph, 0, cell.num_nodes - 1)
    }


def encoded_cells(name, net):
    if name in ("nasbench101", "nasbench201"):
        return net.cells[:1]
    if name == "darts":
        return net.cells[0], net.cells[net.num_cells // 3]
    return net.cells


@pytest.mark.parametrize("max_length", [0, 1, 3])
@pytest.mark.parametrize("name", SPACES)
def test_paths_are_those_of_networkx_up_to_a_length(name, max_length, rng):
    space = spaces.get(name)
    encoding = PathEncoding(space, max_length=max_length)
    width = len(encoding.names)
    nets = space.sample(8, generator=rng)
    rows = encoding(nets)
    assert rows.shape == (8, encoding.num_columns)
    for net, row in zip(nets, rows, strict=True):
        cells = encoded_cells(name, net)
        for place, cell in enumerate(cells):
            ones = row[place * width : (place + 1) * width].nonzero().flatten().tolist()
            expected = {path for path in sequences(cell) if len(path) <= max_length}
            assert {encoding.names[column] for column in ones} == expected
            assert len(ones) == len(expected)
        rest = row[len(cells) * width :]
        assert rest.tolist() == ([net.num_cells / 20] if name == "darts" else [0.0] * len(rest))


@pytest.mark.parametrize(("name", "columns"), [("nasbench101", 40), ("nasbench201", 1 + 5 + 25)])
def test_as_many_paths_are_kept_as_in_the_paper(name, columns):
    encoding = PathEncoding(spaces.get(name))
    assert encoding.num_columns == len(encoding.names) == columns


def test_cells_have_columns_of_their_own_by_place():
    space = spaces.NASBenchMacro()
    encoding = PathEncoding(space)
    assert encoding.num_columns == 8 * len(encoding.names)
    rows = encoding([space.from_string(text) for text in ("21111111", "11111112", "21111111")])
    assert torch.equal(rows[0], rows[2])
    assert (rows[0] != rows[1]).sum() == 4
    short = PathEncoding(space, num_places=2)
    assert torch.equal(
        short(space.sample(3, generator=torch.Generator().manual_seed(0))),
        encoding(space.sample(3, generator=torch.Generator().manual_seed(0)))[
            :, : short.num_columns
        ],
    )


@pytest.mark.parametrize("name", SPACES)
def test_adjacency_tells_all_networks_apart(name, rng):
    space = spaces.get(name)
    encoding = AdjacencyEncoding(space)
    nets = space.sample(30, generator=rng, distinct=True)
    rows = encoding(nets)
    assert rows.shape == (30, encoding.num_columns)
    assert set(rows.flatten().tolist()) <= {0.0, 1.0}
    assert len(torch.unique(rows, dim=0)) == 30


def test_adjacency_of_nasbench101_is_the_matrix_and_the_operations(rng):
    space = spaces.NASBench101()
    encoding = AdjacencyEncoding(space)
    assert 21 + 5 * 3 <= encoding.num_columns <= 21 + 5 * 4  # some operations may be absent
    nets = space.sample(5, generator=rng)
    assert torch.equal(encoding(nets)[:, :21], space.encode(nets)[:, :21])
    assert torch.equal(encoding(nets)[:, 21:].sum(1), torch.full((5,), 5.0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"space": "nasbench101"}, TypeError, "space must be a SearchSpace; got 'nasbench101'"),
        ({"max_length": -1}, ValueError, "max_length must be between 0 and 64; got -1"),
        ({"num_places": 0}, ValueError, "num_places must be at least 1; got 0"),
    ],
)
def test_bad_settings_are_refused(settings, kind, message):
    with pytest.raises(kind, match=message):
        PathEncoding(**({"space": spaces.NASBenchMacro()} | settings))
    with pytest.raises(TypeError, match="space must be a SearchSpace"):
        AdjacencyEncoding(3)
