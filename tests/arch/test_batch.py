"""Batches of cells: layout, path lengths and reachability against networkx."""

import time
from fractions import Fraction

import networkx as nx
import pytest
import torch

from hotnas_torch.arch import ArchitectureBatch, Cell, OperationTree
from hotnas_torch.errors import ArchitectureError

LABELS = ("input", "a", "b", "output")
TREE = OperationTree.from_matrix(LABELS, (1 - torch.eye(4)).tolist())
EMPTY = Cell(("input", "output"), ())
DIRECT = Cell(("input", "output"), ((0, 1),))


def random_cells(num: int, max_nodes: int, generator: torch.Generator) -> list[Cell]:
    """Random cells of up to max_nodes nodes, sparse and dense."""
    cells = []
    for _ in range(num):
        size = int(torch.randint(3, max_nodes + 1, (), generator=generator))
        density = 0.2 + 0.7 * torch.rand((), generator=generator)
        edges = torch.rand(size, size, generator=generator).lt(density).triu(1)
        inner = torch.randint(1, 3, (size - 2,), generator=generator).tolist()
        ops = ["input", *(LABELS[k] for k in inner), "output"]
        cells.append(Cell.from_edges(ops, edges.nonzero(), prune=True))
    return cells


def as_networkx(cell: Cell) -> nx.DiGraph:
    graph = nx.DiGraph(cell.edges)
    graph.add_nodes_from(range(cell.num_nodes))
    return graph


def random_walk(graph: nx.DiGraph, node: int) -> Fraction:
    """Expected number of edges of a walk against the edges, by definition."""
    before = list(graph.predecessors(node))
    if not before:
        return Fraction(0)
    return sum((1 + random_walk(graph, p) for p in before), Fraction(0)) / len(before)


def structure(cell: Cell) -> torch.Tensor:
    """Path lengths of a connected cell from networkx's paths, (n, 6) float64."""
    graph = as_networkx(cell)
    rows = []
    for node in graph.nodes:
        row: list[float] = []
        for directed, end in ((graph, 0), (graph.reverse(), cell.num_nodes - 1)):
            paths = [[end]] if node == end else list(nx.all_simple_paths(directed, end, node))
            lengths = [len(path) - 1 for path in paths]
            row += [min(lengths), max(lengths), float(random_walk(directed, node))]
        rows.append((node, row))
    return torch.tensor([row for _, row in sorted(rows)], dtype=torch.float64)


@pytest.fixture
def cells(rng: torch.Generator) -> list[Cell]:
    return [cell for cell in random_cells(150, 8, rng) if cell != EMPTY]


def test_layout(dtype: torch.dtype) -> None:
    cell = Cell(("input", "b", "a", "output"), ((0, 1), (0, 2), (1, 3), (2, 3)))
    batch = ArchitectureBatch.from_cells([DIRECT, cell], TREE, dtype=dtype)
    assert len(batch) == 2
    assert batch.labels.tolist() == [[0, 3, 0, 0], [0, 2, 1, 3]]
    assert batch.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.weights.tolist() == [[0.5, 0.5, 0, 0], [0.25] * 4]
    assert batch.weights.dtype == dtype
    assert batch.sizes.tolist() == [2, 4]
    assert batch.adjacency.nonzero().tolist() == [[0, 0, 1], *([1, i, j] for i, j in cell.edges)]
    assert batch.max_nodes == 4


def test_path_lengths_by_definition(cells: list[Cell], dtype: torch.dtype) -> None:
    assert {cell.num_nodes for cell in cells} == set(range(2, 9)), "sizes should vary"
    batch = ArchitectureBatch.from_cells(cells, TREE, dtype=dtype)
    raw = batch.path_lengths(normalize=False)
    normalized = batch.path_lengths()
    assert raw.shape == (len(cells), 8, 6)
    assert raw.dtype == dtype
    for cell, lengths, relative in zip(cells, raw, normalized, strict=True):
        n = cell.num_nodes
        expected = structure(cell)
        longest = nx.dag_longest_path_length(as_networkx(cell))
        torch.testing.assert_close(lengths[:n], expected.to(dtype))
        torch.testing.assert_close(relative[:n], (expected / longest).to(dtype))
        assert not lengths[n:].any()
        assert not relative[n:].any()


def test_reachability_is_a_path_of_at_least_one_edge(cells: list[Cell]) -> None:
    reached = ArchitectureBatch.from_cells([*cells, EMPTY], TREE).reachability()
    assert reached.dtype == torch.bool
    for cell, matrix in zip([*cells, EMPTY], reached, strict=True):
        graph = as_networkx(cell)
        expected = sorted([i, k] for i in graph for k in nx.descendants(graph, i))
        assert matrix.nonzero().tolist() == expected


def test_long_cells(rng: torch.Generator) -> None:
    size = 60
    edges = torch.rand(size, size, generator=rng).lt(0.05).triu(1)
    edges |= torch.diag(torch.ones(size - 1, dtype=torch.bool), 1)
    cell = Cell.from_edges(["input"] + ["a"] * (size - 2) + ["output"], edges.nonzero())
    graph = as_networkx(cell)
    batch = ArchitectureBatch.from_cells([cell, DIRECT], TREE, dtype=torch.float64)
    lengths = batch.path_lengths(normalize=False)[0]
    shortest = nx.single_source_shortest_path_length(graph, 0)
    back = nx.single_source_shortest_path_length(graph.reverse(), size - 1)
    assert lengths[:, 0].tolist() == [shortest[i] for i in range(size)]
    assert lengths[:, 3].tolist() == [back[i] for i in range(size)]
    assert lengths[:, 1].tolist() == list(range(size))
    assert torch.equal(batch.reachability()[0], torch.ones(size, size).triu(1).bool())


def test_values_do_not_depend_on_the_rest_of_the_batch(cells: list[Cell]) -> None:
    together = ArchitectureBatch.from_cells(cells, TREE).path_lengths()
    for cell, lengths in zip(cells, together, strict=True):
        alone = ArchitectureBatch.from_cells([cell], TREE).path_lengths()
        assert torch.equal(alone[0], lengths[: cell.num_nodes])


def test_the_cell_without_a_path(dtype: torch.dtype) -> None:
    batch = ArchitectureBatch.from_cells([EMPTY, DIRECT], TREE, max_nodes=8, dtype=dtype)
    assert batch.disconnected.tolist() == [True, False]
    near, far = [0.0] * 3, [7.0] * 3
    assert batch.path_lengths(normalize=False)[0].tolist() == [near + far, far + near]
    near, far = [0.0] * 3, [1.0] * 3
    assert batch.path_lengths()[0].tolist() == [near + far, far + near]
    assert batch.path_lengths()[1].tolist() == [near + far, far + near]
    assert batch.reachability()[0].any().item() is False


def test_max_nodes_defaults_to_the_largest_cell(cells: list[Cell]) -> None:
    batch = ArchitectureBatch.from_cells([EMPTY, *cells], TREE)
    assert batch.path_lengths(normalize=False)[0, 1, 0].item() == 7.0


def test_no_cells() -> None:
    batch = ArchitectureBatch.from_cells([], TREE, max_nodes=8)
    assert len(batch) == 0
    for normalize in (True, False):
        assert batch.path_lengths(normalize).shape == (0, 0, 6)
    assert batch.reachability().shape == (0, 0, 0)


def test_only_cells_without_a_path() -> None:
    batch = ArchitectureBatch.from_cells([EMPTY], TREE)
    assert batch.path_lengths()[0].tolist() == [[0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("cells", "options", "kind", "message"),
    [
        (
            [DIRECT, Cell(("input", "conv9", "output"), ((0, 1), (1, 2)))],
            {},
            ArchitectureError,
            r"cells\[1\]\.ops\[1\] = 'conv9' .* known labels: 'input', 'a', 'b', 'output'",
        ),
        ([DIRECT, "cell"], {}, TypeError, r"cells\[1\] must be a Cell; got 'cell'"),
        (
            [DIRECT, Cell(("input", "a", "output"), ((0, 1), (1, 2)))],
            {"max_nodes": 2},
            ArchitectureError,
            r"cells\[1\] has 3 nodes, max_nodes is 2",
        ),
        ([DIRECT], {"dtype": torch.int64}, TypeError, "torch.float32 or torch.float64"),
    ],
)
def test_refuses(
    cells: list[Cell], options: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        ArchitectureBatch.from_cells(cells, TREE, **options)  # type: ignore[arg-type]


@pytest.mark.cuda
def test_the_device_computes_the_same(cells: list[Cell]) -> None:
    here = ArchitectureBatch.from_cells([EMPTY, *cells], TREE)
    there = ArchitectureBatch.from_cells([EMPTY, *cells], TREE, device="cuda")
    assert there.weights.is_cuda
    assert torch.equal(there.path_lengths().cpu(), here.path_lengths())
    assert torch.equal(there.reachability().cpu(), here.reachability())


def test_two_thousand_cells_are_quick(rng: torch.Generator) -> None:
    edges = torch.rand(2000, 8, 8, generator=rng).lt(0.4).triu(1)
    edges |= torch.diag(torch.ones(7, dtype=torch.bool), 1)
    ops = ["input", "a", "b", "a", "b", "a", "b", "output"]
    cells = [Cell.from_edges(ops, pairs.nonzero().tolist()) for pairs in edges]
    best = min(_seconds(cells) for _ in range(3))
    assert best < 0.3


def _seconds(cells: list[Cell]) -> float:
    start = time.process_time()
    batch = ArchitectureBatch.from_cells(cells, TREE)
    batch.path_lengths()
    batch.reachability()
    return time.process_time() - start
