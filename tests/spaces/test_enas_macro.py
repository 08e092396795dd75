import ast
import gzip

import pytest
import torch

from hotnas_torch.arch import Cell
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import ENASMacro

TEXT = "[[1], [4, 0], [5, 0, 0], [0, 1, 1, 1], [2, 1, 1, 1, 1], [3, 0, 0, 0, 0, 1]]"


@pytest.fixture(scope="module")
def space():
    return ENASMacro()


def test_the_graph_is_the_one_of_d_vae(space):
    net = space.from_string(TEXT)
    assert (net.input_channels, net.channels, net.downsampling) == (36, (144,), (4,))
    # Vertex 0 is the stem; flag j of a layer reads vertex j; the layer before is always read.
    layers = ast.literal_eval(TEXT)
    chain = {(place, place + 1) for place in range(7)}
    flags = {
        (source, place + 1)
        for place, (_, *found) in enumerate(layers)
        for source, flag in enumerate(found)
        if flag
    }
    names = ("conv_3x3", "sep_conv_3x3", "conv_5x5", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
    labels = ("input", *(names[layer[0]] for layer in layers), "output")
    assert net.cells == (Cell(labels, tuple(sorted(chain | flags))),)


def test_sizes_are_counted():
    assert ENASMacro().size() == 6**6 * 2**15
    assert ENASMacro(num_layers=12).size() == 6**12 * 2**66
    assert len({net.key for net in ENASMacro(num_layers=3)}) == 6**3 * 2**3


def test_operation_costs(space):
    costs = space.tree.distance_matrix(space.operations)
    assert costs[0, 2].item() == pytest.approx(0.1)  # kernel sizes
    assert costs[4, 5].item() == pytest.approx(0.1)  # poolings
    assert costs[0, 1].item() == pytest.approx(0.4)  # separable or not
    assert costs[0, 4].item() == 2.0


def test_samples_are_uniform_per_place(space, rng):
    rows = space.encode(space.sample(6000, generator=rng))
    for name, column in zip(space.columns, rows.T, strict=True):
        num = 6 if name.startswith("operation") else 2
        counts = column.long().bincount(minlength=num)
        assert len(counts) == num
        assert bool(((counts - 6000 / num).abs() < 6 * (6000 / num) ** 0.5).all())


def test_neighbors_change_one_place(space, rng):
    net = space.sample_one(generator=rng)
    neighbors = space.neighbors(net)
    assert len(neighbors) == 6 * 5 + 15
    changed = (space.encode(neighbors) != space.encode([net])).sum(dim=1)
    assert changed.tolist() == [1] * len(neighbors)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", r"'\[' before the layers at position 0; got the end"),
        (TEXT.replace("[1]", "[6]"), r"an operation 0\.\.5 at position 2; got '6\]"),
        (TEXT.replace("[4, 0]", "[4, 2]"), r"0 or 1 at position 10; got '2\]"),
        (TEXT.replace("[4, 0]", "[4]"), "', ' and whether layer 2 reads 0 at position 8"),
        (TEXT.replace("[4, 0]", "[4, 0, 0]"), r"'\]' after 1 skip connections of layer 2"),
        (TEXT[:-1], r"'\]' after layer 6 at position 74; got the end"),
        (TEXT + ",", "nothing after the layers at position 75; got ','"),
        (TEXT.replace(", ", ","), "', ' between two layers at position 4; got ',"),
    ],
)
def test_faults_have_a_position(space, text, expected):
    with pytest.raises(ArchitectureError, match=expected):
        space.from_string(text)


@pytest.mark.parametrize(
    ("num", "error", "message"),
    [
        (2, ValueError, "num_layers must be between 3 and 24; got 2"),
        (25, ValueError, "num_layers must be between 3 and 24; got 25"),
        (6.0, TypeError, r"num_layers must be an integer >= 3; got 6\.0"),
        (True, TypeError, "num_layers must be an integer >= 3; got True"),
    ],
)
def test_numbers_of_layers_are_checked(num, error, message):
    with pytest.raises(error, match=message):
        ENASMacro(num_layers=num)


def test_networks_of_other_lengths_are_refused(space, rng):
    net = ENASMacro(num_layers=12).sample_one(generator=rng)
    assert net not in space


def test_the_published_networks_are_of_the_space(space, data_dir):
    path = data_dir / "enas-macro-dvae" / "final_structures6.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [line.rpartition(", ")[0] for line in file][::20]
    nets = [space.from_string(text) for text in texts]
    assert [space.to_string(net) for net in nets] == texts
    rows = space.encode(nets)
    assert space.decode(rows) == nets
    layers = [ast.literal_eval(text) for text in texts]
    assert torch.equal(
        rows[:, :6], torch.tensor([[layer[0] for layer in net] for net in layers]).double()
    )
