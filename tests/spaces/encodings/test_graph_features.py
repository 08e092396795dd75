"""Numbers of graphs against networkx."""

from itertools import chain, combinations

import networkx as nx
import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.spaces.encodings import GraphFeatures

SILENT = ("input", "output", "add")


def by_networkx(cell, allowed, most_nodes):
    """Fewest and most operations on a path, degrees of the ends, mean degrees."""
    graph = nx.DiGraph(list(cell.edges))
    graph.add_nodes_from(range(cell.num_nodes))
    last = cell.num_nodes - 1
    kept = [n for n, op in enumerate(cell.ops) if op in SILENT or op in allowed]
    paths = nx.all_simple_paths(graph.subgraph(kept), 0, last)
    lengths = [sum(cell.ops[node] not in SILENT for node in path) for path in paths]
    before = [sum(cell.ops[i] in allowed for i in graph.predecessors(n)) for n in sorted(graph)]
    after = [sum(cell.ops[j] in allowed for j in graph.successors(n)) for n in sorted(graph)]
    return [
        min(lengths, default=most_nodes - 1),
        max(lengths, default=0),
        after[0],
        before[last],
        sum(before) / cell.num_nodes,
        sum(after) / cell.num_nodes,
    ]


def encoded_cells(name, net):
    if name in ("nasbench101", "nasbench201"):
        return net.cells[:1]
    return (net.cells[0], net.cells[net.num_cells // 3]) if name == "darts" else net.cells


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "darts", "transnas_macro"])
def test_they_are_those_of_networkx(name, rng):
    space = spaces.get(name)
    features = GraphFeatures(space, scaled=False)
    labels = [label for label in space.tree.labels if label not in SILENT]
    sizes = range(1, len(labels) + 1)
    sets = list(chain.from_iterable(combinations(labels, size) for size in sizes))
    sets = sets if len(labels) <= 7 else [*(one for one in sets if len(one) < 3), tuple(labels)]
    nets = space.sample(4, generator=rng)
    for net, row in zip(nets, features(nets), strict=True):
        found = dict(zip(features.names, row.tolist(), strict=True))
        for place, cell in enumerate(encoded_cells(name, net)):
            for label in labels:
                assert found[f"{place}: number of {label}"] == cell.ops.count(label)
            for one in sets[:: max(1, len(sets) // 20)]:
                expected = by_networkx(cell, one, space.max_nodes)
                of = ("fewest", "most", "input", "output", "before", "after")
                values = [found[f"{place}: {what} of {', '.join(one)}"] for what in of]
                assert values == pytest.approx(expected)
        if name == "darts":
            assert found["depth"] == net.num_cells
        if name == "transnas_macro":
            assert 2 ** found["0: log2 width"] == pytest.approx(net.channels[0])
            beyond = [v for k, v in found.items() if int(k.partition(":")[0]) >= net.num_cells]
            assert not any(beyond)


def test_scaled_columns_vary_between_0_and_1_and_none_is_another(rng):
    space = spaces.NASBench201()
    features = GraphFeatures(space)
    rows = features(space.sample(256, generator=torch.Generator().manual_seed(0)))
    assert rows.shape == (256, features.num_columns) == (256, len(features.names))
    assert torch.equal(rows.amin(0), torch.zeros(rows.shape[1], dtype=torch.float64))
    assert torch.equal(rows.amax(0), torch.ones(rows.shape[1], dtype=torch.float64))
    assert len({tuple(column) for column in rows.T.tolist()}) == rows.shape[1]
    raw = GraphFeatures(space, scaled=False)
    assert features.num_columns < raw.num_columns
    others = space.sample(9, generator=rng)
    places = [raw.names.index(name) for name in features.names]
    one, other = features(others), raw(others)[:, places]
    # The same numbers, on another scale.
    assert torch.corrcoef(torch.stack([one[:, 0], other[:, 0]]))[0, 1] == pytest.approx(1.0)


def test_what_is_no_space_is_refused():
    with pytest.raises(TypeError, match="space must be a SearchSpace"):
        GraphFeatures("nasbench201")
    with pytest.raises(TypeError, match="scaled must be"):
        GraphFeatures(spaces.NASBench201(), scaled=3)
