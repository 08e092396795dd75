import csv
from collections import Counter

import networkx as nx
import pytest
import torch

from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import TransNASMacro


@pytest.fixture(scope="module")
def space():
    return TransNASMacro()


def test_a_module_is_two_residual_blocks(space):
    keep, width, stride, both = space.from_string("64-1234-basic").cells
    for cell in (keep, width, stride, both):
        graph = nx.DiGraph(cell.edges)
        assert nx.is_directed_acyclic_graph(graph)
        lengths = Counter(map(len, nx.all_simple_paths(graph, 0, cell.num_nodes - 1)))
        # Two ways through each block, over two convolutions or one shortcut: 4, 3, 3 or 2 nodes.
        assert lengths == {6: 1, 5: 2, 4: 1}
        assert cell.ops[4:7] == ("conv3x3", "conv3x3", "skip_connect")
    assert [cell.ops[1] for cell in (keep, width, stride, both)] == [
        "conv3x3",
        "conv3x3_width",
        "conv3x3_stride",
        "conv3x3_both",
    ]
    assert [cell.ops[3] for cell in (keep, width, stride, both)] == [
        "skip_connect",
        "conv1x1",
        "conv1x1",
        "conv1x1",
    ]


def test_width_and_resolution_accumulate(space):
    net = space.from_string("64-243143-basic")
    assert net.channels == (128, 256, 256, 256, 512, 512)
    assert net.downsampling == (1, 2, 4, 4, 8, 16)
    assert net.input_channels == 64


def test_variant_costs_are_hamming_distances(space):
    names = ["conv3x3", "conv3x3_width", "conv3x3_stride", "conv3x3_both"]
    costs = space.tree.distance_matrix(names)
    assert costs.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1], [1, 2, 0, 1], [2, 1, 1, 0]]


def test_variant_costs_of_the_paper():
    space = TransNASMacro(variant_cost="paper")
    names = ["conv3x3", "conv3x3_width", "conv3x3_stride", "conv3x3_both", "conv1x1"]
    costs = space.tree.distance_matrix(names, dtype=torch.float64)
    assert torch.allclose(costs, 0.1 * (1 - torch.eye(5, dtype=torch.float64)))
    assert space.tree.parents["conv3x3"] == "conv"


def test_unknown_variant_costs_are_refused():
    with pytest.raises(ValueError, match="variant_cost must be one of 'hamming', 'paper'; got"):
        TransNASMacro(variant_cost="tree")


def test_counts_per_length(space):
    lengths = Counter(len(net.cells) for net in space)
    assert lengths == {4: 210, 5: 750, 6: 2296}
    assert space.size() == 3256


def test_neighbors_replace_insert_or_delete_one_module(space, rng):
    valid = {net.spec[3:-6] for net in space}
    for net in space.sample(40, generator=rng):
        digits = net.spec[3:-6]
        edits = set()
        for place in range(len(digits) + 1):
            edits |= {digits[:place] + other + digits[place:] for other in "1234"}
            edits |= {digits[:place] + other + digits[place + 1 :] for other in ("", *"1234")}
        found = [other.spec[3:-6] for other in space.neighbors(net)]
        assert set(found) == (edits & valid) - {digits}
        assert len(found) == len(set(found))
        mutant = space.mutate(net, generator=rng)
        assert mutant.spec[3:-6] in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("32-1114-basic", "expected '64-' at position 0"),
        ("64-1154-basic", "a module 1, 2, 3 or 4, .* at position 5; got '54-basic'"),
        ("64-1114-micro", "position 7"),
        ("64-114-basic", "4 to 6 modules; got 3"),
        ("64-1142123-basic", "4 to 6 modules; got 7"),
        ("64-1112-basic", r"1 to 4 modules must halve the resolution .* got 0"),
        ("64-333343-basic", r"1 to 4 modules must halve the resolution .* got 6"),
        ("64-1113-basic", r"1 to 3 modules must double the width .* got 0"),
        ("64-2223-basic", None),
        ("64-2224-basic", r"1 to 3 modules must double the width .* got 4"),
    ],
)
def test_strings_outside_the_space(space, text, expected):
    if expected is None:
        assert space.from_string(text).spec == text
        return
    with pytest.raises(ArchitectureError, match=expected):
        space.from_string(text)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1, 1, 0, 1, 4, 0], "absent modules come last"),
        ([1, 1, 4, 0, 0, 0], "4 to 6 modules"),
        ([1, 1, 1, 2, 0, 0], "halve the resolution"),
        ([3, 3, 3, 1, 1, 1], "double the width"),
        ([1, 1, 1, 5, 0, 0], r"module 4 \(column 3\) must be in 0..4"),
    ],
)
def test_rows_outside_the_space(space, row, expected):
    rows = torch.tensor([[1, 1, 1, 4, 0, 0], row], dtype=torch.float64)
    with pytest.raises(ArchitectureError, match=rf"X\[1\] = .*{expected}"):
        space.decode(rows)


def test_the_names_of_the_benchmark(space, data_dir):
    folder = data_dir / "transnas-bench-101"
    names = (folder / "macro_space_3256.txt").read_text().split()
    assert {net.spec for net in space} == set(names)
    with (folder / "macro_subset_best.csv").open() as file:
        names += [row["arch"] for row in csv.DictReader(file)]
    nets = [space.from_string(name) for name in names]
    assert [space.to_string(net) for net in nets] == names
    assert space.decode(space.encode(nets)) == nets
