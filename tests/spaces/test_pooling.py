import csv
import itertools

import pytest
import torch

from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import Pooling


@pytest.fixture(scope="module")
def space():
    return Pooling()


def test_a_network_has_two_poolings_where_it_says(space):
    net = space.from_string("[4,3,3]")
    pooled = [layer for layer, cell in enumerate(net.cells) if "max_pool_2x2" in cell.ops]
    assert pooled == [4, 7]
    assert net.downsampling == (1,) * 4 + (2,) * 3 + (4,) * 3
    assert net.channels == (16,) * 4 + (32,) * 3 + (64,) * 3
    # Shortcuts are projections where the width changes, with or without a pooling before.
    assert ["conv_1x1" in cell.ops for cell in net.cells] == [
        layer in (4, 7) for layer in range(10)
    ]
    assert net.cells[0].ops == ("input", "conv_3x3", "output")


def test_all_networks_differ(space):
    nets = list(space)
    assert len(nets) == space.size() == 36
    assert len({net.key for net in nets}) == 36
    # Two of the layers 2..10 start with a pooling.
    expected = {(1,) * a + (2,) * (b - a) + (4,) * (10 - b) for a, b in choose_two()}
    assert {net.downsampling for net in nets} == expected


def choose_two():
    return itertools.combinations(range(1, 10), 2)


def test_neighbors_move_one_pooling_by_one_layer(space):
    found = {other.spec for other in space.neighbors(space.from_string("[7,1,2]"))}
    assert found == {"[6,2,2]", "[7,2,1]"}
    found = {other.spec for other in space.neighbors(space.from_string("[4,3,3]"))}
    assert found == {"[5,2,3]", "[3,4,3]", "[4,4,2]", "[4,2,4]"}


def test_spaces_in_strings_are_allowed(space):
    assert space.from_string(" [7, 1, 2] ").spec == "[7,1,2]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7,1,2", r"'\[' at position 0; got '7,1,2'"),
        ("[7,1", "',' at position 4; got the end"),
        ("[7,0,3]", "a number of layers, at least 1, at position 3; got '0,3]'"),
        ("[7,1,3]", r"numbers that sum to 10 \(they sum to 11\) at position 5"),
        ("[7,1,2]]", "nothing after .* at position 7"),
    ],
)
def test_faults_have_a_position(space, text, expected):
    with pytest.raises(ArchitectureError, match=expected):
        space.from_string(text)


def test_rows_must_add_up(space):
    rows = torch.tensor([[7.0, 1, 2], [7, 2, 2], [8, 0, 2]])
    with pytest.raises(ArchitectureError, match=r"X\[1\] = \[7, 2, 2\].*must sum to 10"):
        space.decode(rows[:2])
    with pytest.raises(ArchitectureError, match=r"X\[1\] = \[8, 0, 2\].*at least one layer"):
        space.decode(rows[[0, 2]])


def test_the_published_table(space, data_dir):
    path = data_dir / "pooling-cifar10-resnet20" / "pooling36.csv"
    with path.open() as file:
        texts = [
            f"[{row['block1']},{row['block2']},{row['block3']}]" for row in csv.DictReader(file)
        ]
    nets = [space.from_string(text) for text in texts]
    # Its numbering is the space's order.
    assert [net.spec for net in space] == texts
    assert space.decode(space.encode(nets)) == nets
