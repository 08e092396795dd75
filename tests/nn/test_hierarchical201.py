"""Modules of hierarchical NAS-Bench-201 beside those of NAS-Bench-201, and by hand."""

import pytest
import torch
from torch import nn

from hotnas_torch.arch import Cell, NestedCell, Network
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.nn import HierarchicalNASBench201Module, NASBench201Module, Skeleton
from hotnas_torch.spaces import NASBench201, hierarchical_nasbench201

LABELS = {
    "none": "zero",
    "skip_connect": "id",
    "avg_pool_3x3": "avg_pool",
    "nor_conv_1x1": "relu-conv1x1-batch",
    "nor_conv_3x3": "relu-conv3x3-batch",
}
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


@pytest.fixture(scope="module")
def space():
    return hierarchical_nasbench201()


def module(net, **settings):
    settings = {"channels": 3, "input_channels": 1, "num_classes": 4} | settings
    generator = torch.Generator().manual_seed(0)
    return HierarchicalNASBench201Module(net, generator=generator, **settings)


def one_cell(cell):
    return Network((cell,), (1,), (1,))


def normalise(module, generator):
    """Give normalisations weights that tell them apart."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm):
            layer.weight.data.normal_(generator=generator)
            layer.bias.data.normal_(generator=generator)


@pytest.mark.parametrize(
    "text",
    [
        "|avg_pool_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|",
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|",
        "|skip_connect~0|+|avg_pool_3x3~0|none~1|+|nor_conv_1x1~0|nor_conv_3x3~1|none~2|",
    ],
)
def test_a_cell_is_that_of_nasbench201(text, rng):
    """In all of them something enters every map; one that is 0 may still be read there."""
    official = NASBench201()
    net = official.from_string(text)
    operations = [entry.partition("~")[0] for entry in text.replace("+", "").split("|") if entry]
    skeleton = Skeleton(3, num_stages=1, cells_per_stage=1, input_channels=1, num_classes=4)
    theirs = NASBench201Module(net, skeleton, generator=rng)
    labels = ["input", *(LABELS[name] for name in operations), "output"]
    joined = [(0, e + 1) for e in range(6) if EDGES[e][0] == 0]
    joined += [(e + 1, f + 1) for e in range(6) for f in range(6) if EDGES[e][1] == EDGES[f][0]]
    joined += [(e + 1, 7) for e in range(6) if EDGES[e][1] == 3]
    kept = [(i, j) for i, j in joined if "zero" not in (labels[i], labels[j])]
    ours = module(one_cell(Cell.from_edges(labels, kept, prune=True)))
    normalise(theirs, rng)
    theirs, ours = theirs.eval(), ours.eval()
    ours.stem.load_state_dict(theirs.stem.state_dict())
    ours.head.load_state_dict(theirs.head.state_dict())
    wired = theirs.stages[0]
    pruned = Cell.from_edges(["input", *map(str, range(1, 7)), "output"], kept, prune=True).ops[
        1:-1
    ]
    for node, place in zip(ours.body[0].nodes, pruned, strict=True):
        node.load_state_dict(wired.operations[int(place) - 1].state_dict())
    images = torch.randn(5, 1, 6, 6, generator=rng)
    torch.testing.assert_close(ours(images), theirs(images))


def test_graphs_compute_what_their_wiring_says(rng):
    inner = Cell(("input", "relu-conv3x3-batch", "output"), ((0, 1), (0, 2), (1, 2)))
    outer = NestedCell.from_nodes(
        ["input", inner, "residual block", "residual block", "output"],
        [(0, 1), (1, 2), (0, 3), (2, 4), (3, 4)],
    )
    made = module(one_cell(outer)).eval()
    normalise(made, rng)
    graph = made.body[0]
    x = torch.randn(2, 3, 8, 8, generator=rng)
    first, main, side = graph.nodes
    within = x + first.nodes[0](x)
    torch.testing.assert_close(graph(x), main(within) + side(x))
    assert graph(x).shape == (2, 6, 4, 4) == (2, graph.channels, 4, 4)


def test_convolution_blocks_are_what_their_labels_say(rng):
    x = torch.randn(4, 3, 5, 5, generator=rng)
    for act, activation in (("relu", torch.relu), ("mish", nn.functional.mish)):
        for conv, size, groups in (("conv1x1", 1, 1), ("conv3x3", 3, 1), ("dconv3x3", 3, 3)):
            for norm in ("batch", "instance", "layer"):
                cell = Cell(("input", f"{act}-{conv}-{norm}", "output"), ((0, 1), (1, 2)))
                graph = module(one_cell(cell)).body[0]
                weight = graph.nodes[0][1].weight
                y = nn.functional.conv2d(activation(x), weight, padding=size // 2, groups=groups)
                over = {"batch": (0, 2, 3), "instance": (2, 3), "layer": (1, 2, 3)}[norm]
                mean = y.mean(over, keepdim=True)
                variance = y.var(over, keepdim=True, unbiased=False)
                expected = (y - mean) / (variance + 1e-5).sqrt()
                torch.testing.assert_close(graph(x), expected, atol=1e-5, rtol=1e-4)


def test_random_networks_compute_and_halve_the_resolution_twice(space, rng):
    for net in space.sample(2, generator=rng):
        made = module(net)
        assert made.body[0].channels == 12
        maps = made.body(made.stem(torch.randn(2, 1, 8, 8, generator=rng)))
        assert maps.shape == (2, 12, 2, 2)
        logits = made(torch.randn(2, 1, 8, 8, generator=rng))
        assert logits.shape == (2, 4)
        assert bool(logits.isfinite().all())


def test_a_cell_that_leads_nowhere_passes_zeros_on(rng):
    made = module(one_cell(Cell(("input", "output"), ())))
    assert float(made.body(torch.randn(2, 3, 4, 4, generator=rng)).abs().max()) == 0.0


def test_parameters_come_from_the_generator(space):
    net = space.sample_one(generator=torch.Generator().manual_seed(3))
    one, other = module(net), module(net)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_operations_of_other_spaces_are_refused():
    cell = Cell(("input", "max_pool", "output"), ((0, 1), (1, 2)))
    with pytest.raises(ArchitectureError, match="it has the operation 'max_pool'"):
        module(one_cell(cell))
    with pytest.raises(ValueError, match="channels must be at least 1; got 0"):
        module(one_cell(Cell(("input", "id", "output"), ((0, 1), (1, 2)))), channels=0)
