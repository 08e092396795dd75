"""HNAG: what a sample is, stages, operations and merges, reproducibility."""

import json
from collections import Counter

import pytest
import torch
from scipy import stats

from hotnas_torch.arch import Cell, NestedCell, Network
from hotnas_torch.nago import HNAG, ErdosRenyi, FlatTheta, Theta, ThetaSpace, WattsStrogatz
from hotnas_torch.nago.hnag import stages_of
from hotnas_torch.nago.layout import MERGE_LABELS
from hotnas_torch.nago.theta import OPERATIONS

THETA = Theta(WattsStrogatz(8, 4, 0.5), ErdosRenyi(4, 0.6), WattsStrogatz(6, 4, 0.4))
EVERYTHING = ThetaSpace(
    stage_ratio=None, channel_ratio=None, merge_weights=None, operation_weights=None
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bottoms(net: Network) -> list[Cell]:
    found = []
    for cell in net.cells:
        assert isinstance(cell, NestedCell)
        assert cell.depth == 2
        found += [graph for graph in cell.graphs if graph is not None]
    return found


def test_a_sample_has_three_levels_of_the_sizes_asked_for() -> None:
    net = HNAG().sample(THETA, generator=generator())
    assert net.num_cells == 8
    assert not net.is_chain
    for cell in net.cells:
        assert cell.num_operations == 4 * 6
    assert [graph.num_nodes for graph in bottoms(net)] == [6 + 2] * 32
    assert net.channels == (16, 16, 16, 32, 32, 32, 64, 64)
    assert net.downsampling == (1, 1, 1, 2, 2, 2, 4, 4)
    assert HNAG(first_downsampling=4).sample(THETA, generator=generator()).downsampling[0] == 4


def test_a_single_middle_node_leaves_two_levels() -> None:
    theta = Theta(THETA.top, ErdosRenyi(1, 0.5), THETA.bottom)
    net = HNAG().sample(theta, generator=generator())
    for cell in net.cells:
        assert isinstance(cell, NestedCell)
        assert cell.edges == ((0, 1), (1, 2))
        assert cell.flatten() == cell.graphs[1]


def test_graphs_are_drawn_independently_and_reproduced_by_the_seed() -> None:
    first, second, other = (HNAG().sample(THETA, generator=generator(s)) for s in (0, 0, 1))
    assert first == second
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())
    assert first.key == second.key != other.key
    assert len(set(bottoms(first))) > 25


def test_networks_read_back_from_json() -> None:
    rng = generator()
    for theta in EVERYTHING.decode(EVERYTHING.sample(5, generator=rng)):
        net = HNAG().sample(theta, generator=rng)
        assert Network.from_json(json.loads(json.dumps(net.to_json()))) == net


@pytest.mark.parametrize(
    ("num_nodes", "ratio", "expected"),
    [
        (3, (0.9, 0.05, 0.05), [0, 1, 2]),
        (2, (1.0, 1.0, 1.0), [0, 1]),
        (1, (1.0, 1.0, 1.0), [0]),
        (20, (0.2, 0.2, 0.6), [0] * 4 + [1] * 4 + [2] * 12),
        (20, (1.0, 1.0, 3.0), [0] * 4 + [1] * 4 + [2] * 12),
        (9, (0.33, 0.33, 0.33), [0, 0, 0, 1, 1, 1, 2, 2, 2]),
        (10, (1.0, 1.0, 1.0), [0] * 4 + [1] * 3 + [2] * 3),
    ],
)
def test_stages(num_nodes: int, ratio: tuple[float, ...], expected: list[int]) -> None:
    assert stages_of(num_nodes, ratio) == expected


def test_every_label_has_a_place_in_the_tree() -> None:
    hnag = HNAG()
    assert {"input", "output", *OPERATIONS, *MERGE_LABELS.values()} == set(hnag.tree.labels)
    costs = hnag.tree.distance_matrix(["conv_3x3", "conv_1x3", "avg_pool_3x3"])
    torch.testing.assert_close(costs[0], torch.tensor([0.0, 0.1, 2.0]))


def test_operations_follow_their_weights_and_outputs_never_pool() -> None:
    weights = (3.0, 0.0, 1.0, 0.0, 0.0, 2.0, 2.0)
    theta = Theta(THETA.top, THETA.mid, THETA.bottom, operation_weights=weights)
    rng = generator()
    inner: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for _ in range(15):
        for graph in bottoms(HNAG().sample(theta, generator=rng)):
            last = set(graph.predecessors(graph.num_nodes - 1))
            for node in range(1, graph.num_nodes - 1):
                (ends if node in last else inner)[graph.ops[node]] += 1
    assert set(ends) == {"conv_3x3", "conv_1x1"}
    for counts, expected in (
        (inner, {"conv_3x3": 3, "conv_1x1": 1, "avg_pool_3x3": 2, "avg_pool_5x5": 2}),
        (ends, {"conv_3x3": 3, "conv_1x1": 1}),
    ):
        total = sum(counts.values())
        shares = [total * weight / sum(expected.values()) for weight in expected.values()]
        # Fails with probability 1e-3 for a right sampler.
        assert stats.chisquare([counts[name] for name in expected], shares).pvalue > 1e-3


def test_whatever_several_tensors_enter_draws_its_merge() -> None:
    merges = set(MERGE_LABELS.values())
    for weights, expected in (((1, 0, 0), set()), ((0, 1, 0), {"merge_attention"})):
        theta = Theta(THETA.top, THETA.mid, THETA.bottom, merge_weights=tuple(map(float, weights)))
        net = HNAG().sample(theta, generator=generator())
        plain = HNAG().sample(THETA, generator=generator())
        assert net.edges == plain.edges
        for place, (cell, without) in enumerate(zip(net.cells, plain.cells, strict=True)):
            assert isinstance(cell, NestedCell)
            assert isinstance(without, NestedCell)
            entering = sum(j == place + 1 for _, j in net.edges)
            assert (cell.ops[1] in merges) == (bool(expected) and entering > 1)
            graphs = [graph for graph in cell.graphs if graph is not None]
            plain_graphs = [graph for graph in without.graphs if graph is not None]
            for graph, bare in zip(graphs, plain_graphs, strict=True):
                node = cell.graphs.index(graph)
                many = len(cell.predecessors(node)) > 1
                assert (graph.ops[1] in merges and graph.predecessors(1) == (0,)) == (
                    bool(expected) and many
                )
                # Inside, one merge for each operation that more than one enters.
                joined = sum(len(bare.predecessors(v)) > 1 for v in range(1, bare.num_nodes - 1))
                found = [label for label in graph.ops if label in merges]
                assert len(found) == (joined + many if expected else 0)
                assert set(found) <= expected
                for v in range(1, graph.num_nodes - 1):
                    if expected and graph.ops[v] not in merges:
                        assert len(graph.predecessors(v)) == 1


def test_refuses() -> None:
    with pytest.raises(TypeError, match="theta must be a Theta; got FlatTheta"):
        HNAG().sample(FlatTheta(), generator=generator())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"generator must be a torch Generator; got 0"):
        HNAG().sample(THETA, generator=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="first_downsampling must be at least 1; got 0"):
        HNAG(first_downsampling=0)
    with pytest.raises(TypeError, match=r"first_downsampling must be an integer >= 1; got 1\.0"):
        HNAG(first_downsampling=1.0)  # type: ignore[arg-type]
