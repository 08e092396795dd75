"""Modules of sampled networks: what they compute, widths from a limit, memory, reproducibility."""

import copy
import gc
import math
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional

from hotnas_torch.arch import Cell, NestedCell, Network
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.nago import (
    HNAG,
    RNAG,
    ErdosRenyi,
    FlatTheta,
    FlatThetaSpace,
    GeneratedModule,
    GeneratedSkeleton,
    Theta,
    ThetaSpace,
    WattsStrogatz,
    count_parameters,
    fit_channels,
    memory_per_sample,
)
from hotnas_torch.nn import TrainingSettings, digits, train

EVERYTHING = {"channel_ratio": None, "merge_weights": None, "operation_weights": None}
SKELETON = GeneratedSkeleton(input_channels=1, num_classes=10, head_channels=32, dropout=0.2)
LIMIT = 30_000
CONV = Cell(("input", "conv_3x3", "output"), ((0, 1), (1, 2)))
FLAT = FlatTheta((WattsStrogatz(4, 2, 0.5),) * 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def module(net, seed=0, skeleton=SKELETON, **kwargs):
    return GeneratedModule(net, skeleton, generator=generator(seed), **kwargs)


def sampled(num, small):
    """Networks of both generators over everything that can be searched."""
    rng = generator()
    sizes = {"nodes": (3, 6)} if small else {}
    spaces = (
        (
            HNAG(),
            ThetaSpace(
                stage_ratio=None, **({"mid_nodes": (1, 4)} if small else {}), **sizes, **EVERYTHING
            ),
        ),
        (RNAG(), FlatThetaSpace(**({"nodes": (3, 16)} if small else {}), **EVERYTHING)),
    )
    for index in range(num):
        sampler, space = spaces[index % 4 == 3]
        (theta,) = space.decode(space.sample(1, generator=rng))
        yield sampler.sample(theta, generator=rng)


def check_trains_one_step(net, limit):
    fitted = fit_channels(net, limit, SKELETON)
    built = module(fitted)
    assert built.num_parameters() == count_parameters(fitted, SKELETON) <= limit
    images = torch.randn(4, 1, 8, 8, generator=generator())
    logits = built(images)
    assert logits.shape == (4, 10)
    assert logits.isfinite().all()
    functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.slow
def test_sampled_networks_build_run_and_stay_within_the_limit():
    for net in sampled(40, small=True):
        check_trains_one_step(net, LIMIT)


@pytest.mark.slow
def test_a_thousand_sampled_networks_of_the_whole_boxes():
    for net in sampled(1000, small=False):
        check_trains_one_step(net, 400_000)


def test_one_seed_gives_one_module_and_one_result():
    images = torch.randn(4, 1, 8, 8, generator=generator())
    results = []
    for seed in (0, 0, 1):
        net = fit_channels(HNAG().sample(THETA, generator=generator(seed)), LIMIT, SKELETON)
        built = module(net, seed)
        loss = built(images).square().mean()
        loss.backward()
        results.append((net, loss, [p.grad for p in built.parameters()]))
    assert results[0][0] == results[1][0] != results[2][0]
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][1], results[2][1])
    for first, second in zip(results[0][2], results[1][2], strict=True):
        assert torch.equal(first, second)


THETA = Theta(
    WattsStrogatz(4, 2, 0.5),
    ErdosRenyi(2, 0.6),
    WattsStrogatz(4, 2, 0.4),
    merge_weights=(1.0, 1.0, 1.0),
)


def parts_of(built):
    """Convolutions and normalisations in the order of their construction, and gates."""
    convolutions = [layer for layer in built.modules() if isinstance(layer, nn.Conv2d)]
    normalisations = [layer for layer in built.modules() if isinstance(layer, nn.BatchNorm2d)]
    gates = [p.sigmoid() for name, p in built.named_parameters() if name.endswith("weights")]
    return iter(convolutions), iter(normalisations), iter(gates)


def test_a_network_computes_what_its_graph_says():
    # Cell 1: two parallel operations into a third; cell 2: a graph and a pooling.
    inner = Cell(("input", "merge_concat", "conv_3x1", "output"), ((0, 1), (1, 2), (2, 3)))
    first = Cell(
        ("input", "conv_3x3", "conv_1x1", "conv_5x5", "output"),
        ((0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (3, 4)),
    )
    second = NestedCell.from_nodes(
        ["input", "merge_attention", "avg_pool_3x3", "conv_1x3", inner, "output"],
        [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5)],
    )
    net = Network((first, second), (2, 3), (1, 2), edges=((0, 1), (0, 2), (1, 2), (1, 3), (2, 3)))
    built = module(net).eval()
    images = torch.randn(3, 1, 8, 8, generator=generator())
    with torch.no_grad():
        for layer in built.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.uniform_(-1, 1, generator=generator(1))
        for name, parameter in built.named_parameters():
            if name.endswith("weights"):
                parameter.normal_(generator=generator(2))
        convs, norms, gates = parts_of(built)

        def conv(x, relu=True):
            return next(norms)(next(convs)(functional.relu(x) if relu else x))

        stem = conv(images, relu=False)
        stem = conv(stem)
        (gate,) = list(gates)
        left, right = conv(stem), conv(stem)
        below = conv(gate[0] * left + gate[1] * right)
        one = (right + below) / 2
        # The second cell: the stem's output is the mask, both have two channels.
        half_stem, half_one = (functional.avg_pool2d(x, 2) for x in (stem, one))
        mask, rest = next(convs)(half_stem), next(convs)(half_one)
        low, high = (
            extreme(mask, dim=(1, 2, 3), keepdim=True) for extreme in (torch.amin, torch.amax)
        )
        merged = (mask - low) / (high - low + 1e-5) * rest
        pooled = functional.avg_pool2d(merged, 3, 1, 1, count_include_pad=False)
        beside = conv(merged)
        joined = next(convs)(torch.cat([pooled, beside], dim=1))
        two = conv(joined)
        leaving = (next(convs)(functional.avg_pool2d(one, 2)) + two) / 2
        features = functional.relu(conv(leaving)).mean(dim=(2, 3))
        (linear,) = (layer for layer in built.modules() if isinstance(layer, nn.Linear))
        torch.testing.assert_close(built(images), linear(features))


@pytest.mark.parametrize(("shape", "downsampling"), [((8, 8), 1), ((9, 7), 1), ((70, 64), 4)])
def test_stages_have_their_resolution(shape, downsampling):
    net = fit_channels(
        RNAG(first_downsampling=downsampling).sample(FLAT, generator=generator()), LIMIT, SKELETON
    )
    built = module(net)
    seen = []
    for cell in built.cells:
        cell.register_forward_hook(lambda _cell, _in, out: seen.append(tuple(out.shape[1:])))
    built(torch.randn(2, 1, *shape, generator=generator()))
    assert seen == [
        (width, math.ceil(shape[0] / divisor), math.ceil(shape[1] / divisor))
        for width, divisor in zip(net.channels, net.downsampling, strict=True)
    ]


@pytest.mark.parametrize("label", ["merge_concat", "merge_attention"])
def test_a_merge_of_one_tensor_maps_its_width_alone(label):
    merging = Cell(("input", label, "conv_1x1", "output"), ((0, 1), (1, 2), (2, 3)))
    plain = Cell(("input", "conv_1x1", "output"), ((0, 1), (1, 2)))
    images = torch.randn(2, 1, 8, 8, generator=generator())
    first, second = (
        module(Network.chain((CONV, cell), (3, 4), (1, 2))) for cell in (merging, plain)
    )
    assert first.num_parameters() == second.num_parameters()
    assert torch.equal(first(images), second(images))


def test_a_larger_width_would_break_the_limit():
    for net in sampled(8, small=True):
        fitted = fit_channels(net, LIMIT, SKELETON)
        widest = max(fitted.channels)
        wider = Network(
            net.cells,
            tuple(max(1, c * (widest + 1) // max(net.channels)) for c in net.channels),
            net.downsampling,
            net.edges,
        )
        assert count_parameters(wider, SKELETON) > LIMIT
        assert fitted.input_channels == fitted.channels[0]
        # Only the ratio of widths counts.
        doubled = Network(
            net.cells, tuple(2 * c for c in net.channels), net.downsampling, net.edges
        )
        assert fit_channels(doubled, LIMIT, SKELETON) == fitted


def test_the_formula_of_nago_counts_the_operations_alone():
    # Two, three and four 3 x 3 convolutions at relative widths 1, 2 and 4.
    chain = [
        Cell(
            ("input", *["conv_3x3"] * num, "output"),
            tuple((i, i + 1) for i in range(num + 1)),
        )
        for num in (2, 3, 4)
    ]
    net = Network.chain(chain, (16, 32, 64), (1, 2, 4))
    base = 9 * (2 * 1 + 3 * 4 + 4 * 16)
    limit = base * 10**2 + 5
    fitted = fit_channels(net, limit, SKELETON, exact=False)
    assert fitted.channels == (10, 20, 40)
    assert count_parameters(fitted, SKELETON) > limit
    assert count_parameters(fit_channels(net, limit, SKELETON), SKELETON) <= limit


def test_a_limit_that_cannot_be_met_is_an_error():
    net = HNAG().sample(THETA, generator=generator())
    with pytest.raises(ArchitectureError, match=r"parameter_limit must be at least .* got 100 "):
        fit_channels(net, 100, SKELETON)


def test_memory_is_what_the_backward_pass_needs():
    net = Network.chain((CONV,), (5,), (1,))
    skeleton = GeneratedSkeleton(input_channels=1, head_channels=7, dropout=0.0)
    built = module(net, skeleton=skeleton)
    # Images of the stem's first convolution; the outputs of its two convolutions and the ReLU
    # between them; ReLU and convolution of the cell; ReLU of the head; its convolution and ReLU.
    maps = 1 + 3 * 5 + 2 * 5 + 5 + 2 * 7
    expected = 4 * (64 * maps + 7 + built.num_parameters())
    assert memory_per_sample(built, (1, 8, 8)) == expected


def test_measuring_memory_leaves_the_module_as_it_is():
    net = fit_channels(HNAG().sample(THETA, generator=generator()), LIMIT, SKELETON)
    images = torch.randn(4, 1, 8, 8, generator=generator())
    plain, measured = module(net), module(net)
    plain(images)
    measured(images)
    before = copy.deepcopy(measured.state_dict())
    memory = memory_per_sample(measured.eval(), (1, 8, 8))
    assert memory == memory_per_sample(module(net), (1, 8, 8))
    assert not measured.training
    for name, value in measured.state_dict().items():
        assert torch.equal(value, before[name])
    # Dropout goes on where it was.
    assert torch.equal(plain(images), measured.train()(images))


def test_measuring_memory_keeps_nothing():
    net = fit_channels(HNAG().sample(THETA, generator=generator()), LIMIT, SKELETON)
    built = module(net)
    weight = weakref.ref(next(built.parameters()))
    memory_per_sample(built, (1, 8, 8))
    del built
    gc.collect()
    assert weight() is None


def test_dropout_has_the_share_asked_for_and_is_off_in_evaluation():
    net = Network.chain((CONV,), (5,), (1,))
    skeleton = GeneratedSkeleton(input_channels=1, head_channels=2000, dropout=0.25)
    built = module(net, skeleton=skeleton)
    entering = []
    (linear,) = (layer for layer in built.modules() if isinstance(layer, nn.Linear))
    linear.register_forward_pre_hook(lambda _layer, inputs: entering.append(inputs[0]))
    images = torch.randn(8, 1, 8, 8, generator=generator())
    built(images)
    built(images)
    shares = [(x == 0).float().mean().item() for x in entering]
    assert shares == pytest.approx([0.25, 0.25], abs=0.02)
    assert not torch.equal(entering[0] == 0, entering[1] == 0)
    built.eval()
    assert torch.equal(built(images), built(images))


def test_mixed_precision_stays_close_and_keeps_float32_parameters():
    net = fit_channels(RNAG().sample(FLAT, generator=generator()), LIMIT, SKELETON)
    images = torch.randn(16, 1, 8, 8, generator=generator())
    exact = module(net)(images)
    built = module(net, mixed_precision=True)
    mixed = built(images)
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, exact)
    assert (mixed - exact).norm() < 0.1 * exact.norm()
    mixed.square().mean().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in built.parameters())


@pytest.mark.cuda
def test_trains_in_mixed_precision_on_a_gpu():
    data = digits(generator=generator(), num_train=300, num_validation=400)
    net = fit_channels(RNAG().sample(FLAT, generator=generator()), LIMIT, SKELETON)
    built = module(net, mixed_precision=True, device="cuda")
    result = train(built, data, TrainingSettings(epochs=6), generator=generator())
    assert result.epochs[-1].validation_accuracy > 0.5


def test_trains_on_digits():
    data = digits(generator=generator(), num_train=300, num_validation=400)
    net = fit_channels(RNAG().sample(FLAT, generator=generator()), LIMIT, SKELETON)
    result = train(module(net), data, TrainingSettings(epochs=6), generator=generator())
    assert result.epochs[-1].validation_accuracy > 0.6


def test_what_cannot_be_built_is_refused_before_it_is():
    unknown = Cell(("input", "conv_7x7", "output"), ((0, 1), (1, 2)))
    net = Network.chain((CONV, unknown), (4, 4), (1, 2))
    with pytest.raises(
        ArchitectureError, match=r"cells\[1\]: ops\[1\] must be one of 'conv_3x3', .* 'conv_7x7'"
    ):
        module(net)
    nothing = Network.chain((Cell(("input", "output"), ()),), (4,), (1,))
    with pytest.raises(ArchitectureError, match="no path from input to output"):
        module(nothing)
    with pytest.raises(TypeError, match="net must be a Network"):
        GeneratedModule(CONV, SKELETON, generator=generator())
    with pytest.raises(TypeError, match=r"generator must be a torch Generator"):
        GeneratedModule(nothing, SKELETON, generator=0)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"input_channels": 0}, ValueError, "input_channels must be at least 1"),
        ({"num_classes": 1}, ValueError, "num_classes must be at least 2"),
        ({"head_channels": 2.0}, TypeError, "head_channels must be an int"),
        ({"dropout": 1.0}, ValueError, r"dropout must be in \[0, 1\)"),
    ],
)
def test_skeleton_refuses(arguments, kind, message):
    with pytest.raises(kind, match=message):
        GeneratedSkeleton(**arguments)
