import csv
import gzip

import pytest
import torch
from torch import nn

from hotnas_torch import spaces
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.nn import NASBench201Module, Skeleton, build
from hotnas_torch.nn.initialization import initialize
from hotnas_torch.nn.nasbench201 import CellModule, cell_operations

SPACE = spaces.NASBench201()
SMALL = Skeleton(channels=4, num_stages=2, cells_per_stage=1, input_channels=1)


def cell(*operations):
    a, b, c, d, e, f = operations
    return SPACE.from_string(f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|")


def module(net, skeleton=SMALL, seed=0):
    return NASBench201Module(net, skeleton, generator=torch.Generator().manual_seed(seed))


def test_parameters_are_those_of_the_benchmark(data_dir):
    """The published skeleton has the published number of parameters, to the last one."""
    with gzip.open(data_dir / "nas-bench-201" / "nb201.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))[::1500]
    assert len(rows) == 11
    for row in rows:
        net = SPACE.from_string(row["arch"])
        count = module(net, Skeleton()).num_parameters()
        assert count / 1e6 == pytest.approx(float(row["params_M_cifar10"]), abs=1e-6)


def build_cell(net, channels):
    operations = cell_operations(net)
    return build(
        lambda: CellModule(operations, channels), generator=torch.Generator().manual_seed(0)
    )


def by_hand(layers, x):
    """Sums over all six edges, as the benchmark does it."""
    maps = [x]
    for target in range(1, 4):
        total = torch.zeros_like(x)
        for place, (source, end) in enumerate(((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))):
            if end == target:
                total = total + layers[place](maps[source])
        maps.append(total)
    return maps[-1]


class Zero(nn.Module):
    def forward(self, x):
        return x * 0.0


@pytest.mark.parametrize("seed", range(8))
def test_a_cell_computes_what_its_edges_say(seed):
    generator = torch.Generator().manual_seed(seed)
    operations = cell_operations(SPACE.sample_one(generator=generator))
    made = build(lambda: CellModule(operations, 3), generator=generator)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.normal_(generator=generator)
            layer.bias.data.normal_(generator=generator)
    layers = [
        Zero() if name == "none" else made.operations[place]
        for place, name in enumerate(operations)
    ]
    x = torch.randn(5, 3, 6, 6, generator=generator)
    made.eval()
    assert torch.allclose(made(x), by_hand(layers, x), atol=1e-6)


def test_a_map_that_nothing_enters_is_zero_and_still_an_input():
    # Edge 1 -> 3 is a convolution of a map that is zero: its normalisation's shift remains.
    net = cell("none", "none", "none", "none", "nor_conv_3x3", "none")
    made = build_cell(net, channels=2)
    made.operations[4][2].bias.data.fill_(0.75)
    assert torch.allclose(made.eval()(torch.ones(1, 2, 4, 4)), torch.tensor(0.75))


def test_what_leads_to_no_output_is_not_computed():
    net = cell("nor_conv_3x3", "none", "none", "skip_connect", "none", "none")
    made = build_cell(net, channels=2)
    made.operations[0].register_forward_hook(lambda *_: pytest.fail("computed"))
    x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    assert made(x).equal(x)


@pytest.mark.parametrize("size", [8, 5, 1])
def test_networks_map_images_to_logits(size):
    skeleton = Skeleton(channels=2, num_stages=3, cells_per_stage=2, num_classes=7)
    net = cell("nor_conv_3x3", "avg_pool_3x3", "nor_conv_1x1", "none", "skip_connect", "none")
    made = module(net, skeleton).eval()
    assert made(torch.zeros(3, 3, size, size)).shape == (3, 7)
    widths = [layer.out_channels for layer in made.modules() if isinstance(layer, nn.Conv2d)]
    assert (widths[0], widths[-1], max(widths)) == (2, 8, 8)


def test_equal_seeds_give_equal_parameters():
    net = cell("nor_conv_3x3", "none", "none", "nor_conv_1x1", "none", "none")
    first, second, other = (module(net, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(first[name].equal(second[name]) for name in first)
    assert any(not first[name].equal(other[name]) for name in first)
    assert all(value.isfinite().all() for value in first.values())


def test_initialisation_follows_its_description():
    made = build(
        lambda: nn.Sequential(nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64), nn.Linear(400, 30)),
        generator=torch.Generator().manual_seed(0),
    )
    convolution, normalisation, linear = made
    assert convolution.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert convolution.bias.eq(0).all()
    assert normalisation.weight.eq(1).all()
    assert normalisation.running_var.eq(1).all()
    assert linear.weight.abs().max().item() == pytest.approx(1 / 20, rel=0.01)
    with pytest.raises(TypeError, match="cannot initialise 0 of type PReLU"):
        initialize(nn.Sequential(nn.PReLU()), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"channels": 0}, ValueError, "channels must be at least 1; got 0"),
        ({"num_stages": 1.0}, TypeError, "num_stages must be an int"),
        ({"num_classes": 1}, ValueError, "num_classes must be at least 2"),
    ],
)
def test_a_skeleton_is_checked(arguments, kind, message):
    with pytest.raises(kind, match=message):
        Skeleton(**arguments)


def test_networks_of_other_spaces_are_refused():
    other = spaces.Pooling().from_string("[7,1,2]")
    with pytest.raises(ArchitectureError, match=r"'\[7,1,2\]' is no nasbench201 string"):
        module(other)
    with pytest.raises(TypeError, match="net must be a Network"):
        module("|none~0|")
    with pytest.raises(TypeError, match=r"generator must be a torch Generator"):
        NASBench201Module(cell(*["none"] * 6), SMALL, generator=0)


def test_options_of_the_space_change_nothing():
    text = cell("skip_connect", "none", "nor_conv_1x1", "none", "none", "nor_conv_3x3").spec
    nets = [
        spaces.NASBench201(contract_skip=contract, reduction_cells=reductions).from_string(text)
        for contract in (False, True)
        for reductions in (False, True)
    ]
    x = torch.ones(2, 1, 8, 8)
    outputs = [module(net).eval()(x) for net in nets]
    assert all(output.equal(outputs[0]) for output in outputs)
