import csv

import networkx as nx
import pytest
import torch

from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import DARTS

NORMAL = (
    "sep_conv_3x3:0 sep_conv_3x3:1 skip_connect:2 sep_conv_5x5:0 "
    "dil_conv_3x3:1 max_pool_3x3:3 skip_connect:0 avg_pool_3x3:4"
)
REDUCE = (
    "max_pool_3x3:0 max_pool_3x3:1 skip_connect:2 max_pool_3x3:1 "
    "max_pool_3x3:0 skip_connect:2 skip_connect:2 max_pool_3x3:1"
)
TEXT = f"{NORMAL},{REDUCE},8"


@pytest.fixture(scope="module")
def space():
    return DARTS()


def small():
    return DARTS(num_nodes=2, operations=("skip_connect", "sep_conv_3x3"), min_depth=5, max_depth=6)


def test_a_cell_is_the_graph_of_its_genotype(space):
    cell = space.from_string(TEXT).cells[0]
    graph = nx.DiGraph()
    expected = nx.DiGraph([("input", "input1"), ("input", "input2")])
    labels = {name: name for name in ("input", "input1", "input2", "output")}
    sources = ["input1", "input2", "add0", "add1", "add2", "add3"]
    for place, pair in enumerate(NORMAL.split()):
        operation, source = pair.split(":")
        add = f"add{place // 2}"
        expected.add_edges_from([(sources[int(source)], place), (place, add), (add, "output")])
        labels.update({place: operation, add: "add"})
    nx.set_node_attributes(expected, labels, "op")
    graph.add_nodes_from((node, {"op": label}) for node, label in enumerate(cell.ops))
    graph.add_edges_from(cell.edges)
    assert nx.is_isomorphic(graph, expected, node_match=lambda a, b: a["op"] == b["op"])
    assert cell.num_nodes == space.max_nodes == 16


def test_skips_can_be_contracted():
    kept, contracted = (
        DARTS(contract_skip=flag).from_string(TEXT).cells[0] for flag in (False, True)
    )
    assert kept.ops.count("skip_connect") == 2
    assert "skip_connect" not in contracted.ops
    assert contracted.num_nodes == 14
    # Inner node 1 adds inner node 0 itself and a convolution of the first input.
    adds = [node for node, label in enumerate(contracted.ops) if label == "add"]
    assert adds[0] in contracted.predecessors(adds[1])


def test_an_unread_input_is_dropped(space):
    cell = "sep_conv_3x3:0 sep_conv_3x3:1 " + " ".join(["sep_conv_3x3:1 sep_conv_3x3:2"] * 3)
    assert "input1" in space.from_genotype(cell, cell).cells[0].ops
    # With one inner node both inputs are read; with contraction nothing changes that.
    tiny = DARTS(num_nodes=1)
    assert tiny.from_string("skip_connect:0 skip_connect:1," * 2 + "5").cells[0].num_nodes == 7


def test_the_skeleton(space):
    for depth in range(5, 21):
        net = space.from_genotype(NORMAL, REDUCE, depth=depth)
        assert len(net.cells) == depth
        normal, reduction = net.cells[0], net.cells[depth // 3]
        reductions = {depth // 3, 2 * depth // 3}
        assert [cell is reduction for cell in net.cells] == [s in reductions for s in range(depth)]
        assert net.cells[-1] is normal
        stages = [sum(s >= reduced for reduced in reductions) for s in range(depth)]
        assert net.channels == tuple(4 * 36 * 2**stage for stage in stages)
        assert net.downsampling == tuple(2**stage for stage in stages)
        assert net.input_channels == 3 * 36
    assert DARTS(channels=16).from_string(TEXT).channels[0] == 64


def test_genotypes_round_trip(space, rng):
    net = space.from_genotype(NORMAL, REDUCE, depth=8)
    assert net.spec == TEXT
    genotype = space.to_genotype(net)
    assert genotype.normal[:2] == (("sep_conv_3x3", 0), ("sep_conv_3x3", 1))
    assert genotype.reduce[2] == ("skip_connect", 2)
    for other in space.sample(50, generator=rng):
        normal, reduce, depth = space.to_genotype(other)
        assert space.from_genotype(normal, reduce, depth=depth) == other
    assert len(space.from_genotype(NORMAL, REDUCE).cells) == 20
    assert space.from_string(f"{NORMAL},{REDUCE}").spec.endswith(",20")


def test_the_order_of_a_nodes_pairs_does_not_count(space):
    first, second, *rest = NORMAL.split()
    swapped = " ".join([second, first, *rest])
    one, two = (space.from_genotype(cell, REDUCE) for cell in (NORMAL, swapped))
    assert one != two
    assert space.key(one) == space.key(two)
    assert one.key == two.key
    assert space.from_string(two.spec) == two


def test_the_size_formula_on_an_enumerable_space():
    space = small()
    nets = list(space)
    assert len({net.spec for net in nets}) == len(nets) == space.size() == 48**2 * 2
    assert len({space.key(net) for net in nets}) == len(nets)
    assert all(space.contains(net) for net in nets)
    assert DARTS(num_nodes=1).size() == 49**2 * 16
    # Everything that is sampled has been enumerated.
    generator = torch.Generator().manual_seed(0)
    keys = {space.key(net) for net in nets}
    assert {space.key(net) for net in space.sample(300, generator=generator)} <= keys


def test_the_size_of_the_published_space(space):
    cell = (1 * 3 * 6 * 10) * 7**8
    assert space.size() == 16 * cell**2
    assert cell == pytest.approx(1.04e9, rel=0.01)
    first = [next(iter(space)) for _ in range(2)]
    assert first[0] == first[1]


def test_neighbors_are_single_edits(space, rng):
    for net in space.sample(5, generator=rng):
        rows = space.encode(space.neighbors(net))
        changed = rows != space.encode([net])
        assert (changed.sum(dim=1) == 1).all()
        columns = changed.long().argmax(dim=1)
        operations = sum(column % 2 == 0 for column in columns.tolist() if column < 32)
        wirings = sum(column % 2 == 1 for column in columns.tolist() if column < 32)
        assert operations == 16 * 6
        assert wirings == 2 * 2 * (0 + 1 + 2 + 3)
        depth = len(net.cells)
        expected = {depth + step for step in (-2, -1, 1, 2)} & set(range(5, 21))
        assert set(rows[columns == 32, 32].tolist()) == expected


def test_mutations_are_single_edits_in_the_stated_proportions(space, rng):
    net = space.from_genotype(NORMAL, REDUCE, depth=12)
    rows = space.encode([space.mutate(net, generator=rng) for _ in range(1000)])
    changed = rows != space.encode([net])
    assert (changed.sum(dim=1) == 1).all()
    columns = changed.long().argmax(dim=1)
    depth = (columns == 32).sum().item()
    wiring = ((columns < 32) & (columns % 2 == 1)).sum().item()
    # Six standard deviations around 0.3 and 0.35.
    assert abs(depth - 300) < 6 * (1000 * 0.3 * 0.7) ** 0.5
    assert abs(wiring - 350) < 6 * (1000 * 0.35 * 0.65) ** 0.5


def test_operation_costs(space):
    names = ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "max_pool_3x3", "avg_pool_3x3", "add"]
    costs = space.tree.distance_matrix(names, dtype=torch.float64)
    assert costs[0].tolist() == pytest.approx([0, 0.1, 0.4, 2, 2, 2])
    assert costs[3, 4].item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("sep_conv_3x3:0", "sep_conv_9x9:0", "one of max_pool_3x3, .* at position 0; got 'sep_co"),
        ("sep_conv_3x3:0", "sep_conv_3x3:2", r"an input of inner node 0 in 0..1 at position 13"),
        ("sep_conv_3x3:1", "sep_conv_3x3:0", "another input than the node's first at position 28"),
        ("sep_conv_3x3:1", "sep_conv_3x3-1", "':' after an operation at position 27; got '-1"),
        (" skip_connect:0 avg_pool_3x3:4", "", "a space and pair 7 of 8 of the normal cell"),
        (",8", ",4", "a depth in 5..20 at position"),
        (",8", ",21", "a depth in 5..20"),
        (",8", ",8 ", "nothing after the depth"),
        (f",{REDUCE}", "", "one of max_pool_3x3"),
    ],
)
def test_faults_have_a_position(space, old, new, expected):
    assert old in TEXT
    with pytest.raises(ArchitectureError, match=expected):
        space.from_string(TEXT.replace(old, new, 1))


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (0, 7, r"normal node 0 operation 1 \(column 0\) must be in 0..6"),
        (1, 1, "the two inputs of an inner node must differ"),
        (17, 2, r"reduce node 0 input 1 \(column 17\) must be in 0..1"),
        (32, 4, r"depth \(column 32\) must be in 5..20"),
    ],
)
def test_rows_outside_the_space(space, column, value, expected):
    rows = space.encode([space.from_string(TEXT)] * 3)
    rows[2, column] = value
    with pytest.raises(ArchitectureError, match=rf"X\[2\] = .*{expected}"):
        space.decode(rows)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"min_depth": 2}, "min_depth must be at least 3; got 2"),
        ({"max_depth": 4}, "max_depth must be at least 5; got 4"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"num_nodes": 0}, "num_nodes must be at least 1"),
        ({"operations": ()}, "operations must be distinct and not empty"),
        ({"operations": ("none",)}, "operations must be among .*; got 'none'"),
    ],
)
def test_options_are_checked(options, expected):
    with pytest.raises(ValueError, match=expected):
        DARTS(**options)


def test_every_row_of_the_table(space, data_dir):
    with (data_dir / "nas-bench-301" / "nb301_surrogate_samples.csv").open() as file:
        cells = [(row["normal"], row["reduce"]) for row in csv.DictReader(file)]
    nets = [space.from_genotype(normal, reduce, depth=8) for normal, reduce in cells]
    assert [net.spec for net in nets] == [f"{normal},{reduce},8" for normal, reduce in cells]
    assert [space.from_string(net.spec) for net in nets] == nets
    assert space.decode(space.encode(nets)) == nets
    assert all(map(space.contains, nets))


@pytest.mark.parametrize("value", ["8", 5.5, float("nan"), True])
@pytest.mark.parametrize("name", ["min_depth", "max_depth", "channels", "num_nodes"])
def test_numbers_that_are_no_integers_are_refused(name, value):
    with pytest.raises(TypeError, match=f"{name} must be an int"):
        DARTS(**{name: value})


def test_a_flag_is_true_or_false():
    with pytest.raises(TypeError, match="contract_skip must be True or False"):
        DARTS(contract_skip="no")
