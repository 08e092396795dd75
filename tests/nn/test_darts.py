import csv

import pytest
import torch

from hotnas_torch.nn import DARTSModule, DARTSSkeleton, DARTSSupernet
from hotnas_torch.spaces import DARTS

SPACE = DARTS()
SMALL = DARTSSkeleton(channels=4, num_cells=3, input_channels=1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_network_has_its_published_number_of_parameters():
    # DARTS (second order) on CIFAR-10: 3.349342 M, which its code prints without the auxiliary
    # classifier.
    normal = (
        "sep_conv_3x3:0 sep_conv_3x3:1 sep_conv_3x3:0 sep_conv_3x3:1 "
        "sep_conv_3x3:1 skip_connect:0 skip_connect:0 dil_conv_3x3:2"
    )
    reduce = (
        "max_pool_3x3:0 max_pool_3x3:1 skip_connect:2 max_pool_3x3:1 "
        "max_pool_3x3:0 skip_connect:2 skip_connect:2 max_pool_3x3:1"
    )
    module = DARTSModule(
        SPACE.from_genotype(normal, reduce),
        DARTSSkeleton(channels=36, num_cells=20),
        generator=generator(),
    )
    assert num_parameters(module) == 3_349_342


def test_parameters_follow_those_of_nasbench301(data_dir):
    # Trained with 32 channels and 8 cells; the table counts a normalisation or two less.
    path = data_dir / "nas-bench-301" / "nb301_surrogate_samples.csv"
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:6]
    skeleton = DARTSSkeleton(channels=32)
    for row in rows:
        net = SPACE.from_genotype(row["normal"], row["reduce"])
        own = num_parameters(DARTSModule(net, skeleton, generator=generator())) / 1e6
        assert own == pytest.approx(float(row["params_M"]), rel=0.02)


def test_reduction_cells_halve_the_resolution(rng):
    module = DARTSModule(SPACE.sample_one(generator=rng), SMALL, generator=rng)
    sizes = []
    for cell in module.body.cells:
        cell.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape[1:]))
    module(torch.zeros(2, 1, 16, 16))
    assert sizes == [(16, 16, 16), (32, 8, 8), (64, 4, 4)]


@pytest.mark.parametrize("size", [7, 8])
def test_images_of_odd_and_even_size_pass(size, rng):
    images = torch.randn(2, 1, size, size, generator=rng)
    for net in SPACE.sample(4, generator=rng):
        assert DARTSModule(net, SMALL, generator=rng)(images).shape == (2, 10)
    weights = torch.full((2, 14, 8), 0.125)
    assert DARTSSupernet(SMALL, generator=rng)(images, weights).shape == (2, 10)


def test_with_one_operation_per_edge_the_supernet_is_that_network(rng):
    # A single inner node reads both inputs in every network of the space.
    space = DARTS(num_nodes=1)
    net = space.from_genotype("sep_conv_3x3:0 skip_connect:1", "max_pool_3x3:0 dil_conv_5x5:1")
    module = DARTSModule(net, SMALL, generator=rng, space=space)
    supernet = DARTSSupernet(SMALL, generator=rng, space=space)
    names = supernet.operations
    weights = torch.zeros(2, 2, len(names))
    for cell, chosen in enumerate(
        (("sep_conv_3x3", "skip_connect"), ("max_pool_3x3", "dil_conv_5x5"))
    ):
        for edge, name in enumerate(chosen):
            weights[cell, edge, names.index(name)] = 1.0
    assert supernet.discretize(weights) == net
    images = torch.randn(8, 1, 8, 8, generator=rng)
    # Every convolution of the network from its place in the supernet.
    module.body.stem.load_state_dict(supernet.body.stem.state_dict())
    module.body.head.load_state_dict(supernet.body.head.state_dict())
    for own, mixed in zip(module.body.cells, supernet.body.cells, strict=True):
        own.first.load_state_dict(mixed.first.state_dict(), strict=False)
        own.second.load_state_dict(mixed.second.state_dict(), strict=False)
        chosen = weights[int(own.reduces)].argmax(dim=1).tolist()
        for operation, edge, place in zip(own.operations, mixed.operations, chosen, strict=True):
            source = edge.operations[place - 1]
            operation.load_state_dict(source.state_dict(), strict=False)
    # Poolings of the supernet are normalised: compare the normal cells before the reduction.
    first = [
        body.cells[0](body.stem(images), body.stem(images), own)
        for body, own in ((module.body, None), (supernet.body, weights[0]))
    ]
    assert torch.allclose(first[0], first[1], atol=1e-5)


def test_every_weight_but_nones_has_a_gradient(rng):
    supernet = DARTSSupernet(SMALL, generator=rng)
    weights = torch.full((2, 14, 8), 0.125, requires_grad=True)
    supernet(torch.randn(4, 1, 8, 8, generator=rng), weights).square().sum().backward()
    assert weights.grad is not None
    assert bool((weights.grad[..., 1:] != 0).all())
    assert bool((weights.grad[..., 0] == 0).all())


def test_the_two_strongest_edges_of_a_node_are_kept(rng):
    supernet = DARTSSupernet(SMALL, generator=rng)
    names = supernet.operations
    weights = torch.rand(2, 14, 8, generator=rng)
    genotype = SPACE.to_genotype(supernet.discretize(weights))
    for cell, pairs in enumerate((genotype.normal, genotype.reduce)):
        start = 0
        for node in range(4):
            # The published rule, written out: sort inputs by their best operation but none.
            inputs = range(node + 2)
            rows = {source: weights[cell, start + source].tolist() for source in inputs}
            kept = sorted(inputs, key=lambda source, rows=rows: -max(rows[source][1:]))[:2]
            expected = {
                (names[max(range(1, 8), key=lambda op, row=rows[source]: row[op])], source)
                for source in kept
            }
            assert set(pairs[2 * node : 2 * node + 2]) == expected
            start += node + 2


def test_a_skeleton_is_checked():
    for name, value in (("channels", 0), ("num_cells", 2), ("input_channels", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at least"):
            DARTSSkeleton(**{name: value})


def test_a_skeleton_without_cells_takes_each_networks_depth():
    space = DARTS(min_depth=5, max_depth=20)
    skeleton = DARTSSkeleton(channels=1, num_cells=None, input_channels=1)
    text = space.sample_one(generator=generator()).spec.rsplit(",", 1)[0]
    for depth in (5, 20):
        net = space.from_string(f"{text},{depth}")
        module = DARTSModule(net, skeleton, generator=generator(), space=space)
        assert len(module.body.cells) == depth
        reducing = [place for place, cell in enumerate(module.body.cells) if cell.reduces]
        assert reducing == [depth // 3, 2 * depth // 3]
    with pytest.raises(ValueError, match="num_cells must be a number where no network"):
        DARTSSupernet(skeleton, generator=generator())


def test_every_cell_may_be_another_networks(rng):
    nets = SPACE.sample(3, generator=rng)
    module = DARTSModule(nets, SMALL, generator=generator())
    alone = [DARTSModule(net, SMALL, generator=generator()) for net in nets]
    for place, cell in enumerate(module.body.cells):
        own = alone[place].body.cells[place]
        assert [str(one) for one in cell.operations] == [str(one) for one in own.operations]
        assert cell.sources == own.sources
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    for wrong in (nets[:2], []):
        with pytest.raises(ValueError, match="net must be a network, or one per cell, 3; got"):
            DARTSModule(wrong, SMALL, generator=generator())


@pytest.mark.parametrize("size", [8, 9, 32, 40])
def test_an_auxiliary_tower_reads_what_the_second_reduction_gives(size, rng):
    net = SPACE.sample_one(generator=rng)
    module = DARTSModule(net, SMALL, generator=generator(), auxiliary=True)
    images = torch.randn(2, 1, size, size, generator=rng)
    module.eval()
    logits, tower = module.with_auxiliary(images)
    assert tower.shape == (2, 10)
    assert torch.equal(logits, module(images))
    with pytest.raises(ValueError, match="has no auxiliary tower"):
        DARTSModule(net, SMALL, generator=generator()).with_auxiliary(images)
