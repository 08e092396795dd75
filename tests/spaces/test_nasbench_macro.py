import json

import pytest

from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import NASBenchMacro


@pytest.fixture(scope="module")
def space():
    return NASBenchMacro()


def test_the_skeleton(space):
    net = space.from_string("01201201")
    assert net.channels == (64, 64, 128, 128, 128, 256, 256, 256)
    assert net.downsampling == (2, 2, 4, 4, 4, 8, 8, 8)
    assert net.input_channels == 32
    # The first layer of a stage changes the width, so its identity is a projection.
    assert [cell.ops[1] for cell in net.cells] == [
        "conv_1x1",
        "mb3_k3",
        "mb6_k5",
        "identity",
        "mb3_k3",
        "mb6_k5",
        "identity",
        "mb3_k3",
    ]


def test_sizes_are_counted(space):
    nets = list(space)
    assert len({net.spec for net in nets}) == space.size() == 6561
    assert len({space.functional_form(net) for net in nets}) == 3969


def test_operation_costs(space):
    costs = space.tree.distance_matrix(["identity", "mb3_k3", "mb6_k5", "conv_1x1"])
    assert costs[1, 2].item() == pytest.approx(0.1)
    assert costs[0].tolist() == [0, 2, 2, 2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0123", "a digit 0, 1 or 2 at position 3; got '3'"),
        ("0121201", "8 digits in all, one per layer, at position 7; got the end"),
        ("012120100", "8 digits in all, one per layer, at position 8; got '0'"),
    ],
)
def test_faults_have_a_position(space, text, expected):
    with pytest.raises(ArchitectureError, match=expected):
        space.from_string(text)


def test_the_published_table(space, data_dir):
    path = data_dir / "nas-bench-macro" / "nas-bench-macro_cifar10.json"
    table = json.loads(path.read_text())
    nets = [space.from_string(text) for text in table]
    assert [space.to_string(net) for net in nets] == list(table)
    assert space.decode(space.encode(nets)) == nets
    # Networks that compute the same were measured once: the table has one value per form.
    values = {}
    for net in nets:
        values.setdefault(space.functional_form(net).spec, set()).add(table[net.spec]["mean_acc"])
    assert len(values) == 3969
    assert all(len(measured) == 1 for measured in values.values())
