import pytest
import torch
from torch.nn import functional

from hotnas_torch.nn import MacroSupernet, MobileNetSupernet, build
from hotnas_torch.nn.supernets.inverted_residual import InvertedResidual
from hotnas_torch.nn.supernets.single_path import normalization_of


def normalize(maps):
    return functional.batch_norm(maps, None, None, training=True)


def written_out(x, weights, base, *, kernel, stride, squeeze):
    """An inverted bottleneck by functions: expand, depthwise, gate, project, add."""
    hidden = torch.relu(normalize(functional.conv2d(x, weights[f"{base}0.weight"])))
    depthwise = weights[f"{base}3.weight"]
    assert depthwise.shape[1:] == (1, kernel, kernel)
    hidden = functional.conv2d(
        hidden, depthwise, stride=stride, padding=kernel // 2, groups=len(depthwise)
    )
    hidden = torch.relu(normalize(hidden))
    last = 6
    if squeeze:
        gate = hidden.mean(dim=(2, 3), keepdim=True)
        for place, activation in ((1, torch.relu), (3, torch.sigmoid)):
            name = f"{base}6.gate.{place}."
            gate = activation(
                functional.conv2d(gate, weights[f"{name}weight"], weights[f"{name}bias"])
            )
        hidden, last = hidden * gate, 7
    result = normalize(functional.conv2d(hidden, weights[f"{base}{last}.weight"]))
    return x + result if result.shape == x.shape else result


def test_a_network_of_nas_bench_macro_written_out(rng):
    supernet = MacroSupernet(width=0.125, input_channels=1, generator=rng)
    weights = supernet.state_dict()
    x = torch.randn(4, 1, 8, 8, generator=rng)
    expected = torch.relu(normalize(functional.conv2d(x, weights["stem.0.weight"], padding=1)))
    for layer, choice in enumerate("12010201"):
        base = f"layers.{layer}.operations.{choice}."
        stride = 2 if layer in (0, 2, 5) else 1
        if choice == "0":
            if stride == 2:
                projected = functional.conv2d(expected, weights[f"{base}0.weight"], stride=2)
                expected = normalize(projected)
            continue
        kernel = {"1": 3, "2": 5}[choice]
        before = expected.shape[1]
        assert len(weights[f"{base}body.0.weight"]) == {"1": 3, "2": 6}[choice] * before
        expected = written_out(
            expected, weights, f"{base}body.", kernel=kernel, stride=stride, squeeze=False
        )
    expected = torch.relu(normalize(functional.conv2d(expected, weights["head.0.weight"])))
    expected = functional.linear(
        expected.mean(dim=(2, 3)), weights["head.5.weight"], weights["head.5.bias"]
    )
    found = supernet(x, supernet.space.from_string("12010201"))
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("squeeze", [False, True])
def test_a_block_with_and_without_squeeze_and_excitation(stride, squeeze, rng):
    block = build(
        lambda: InvertedResidual(
            8,
            8,
            kernel_size=7,
            expansion=3,
            stride=stride,
            squeeze=squeeze,
            normalize=normalization_of("batch"),
        ),
        generator=rng,
    )
    x = torch.randn(3, 8, 6, 6, generator=rng)
    expected = written_out(x, block.state_dict(), "body.", kernel=7, stride=stride, squeeze=squeeze)
    assert torch.allclose(block(x), expected, atol=1e-5)


def test_choices_are_the_operations_of_the_space(rng):
    supernet = MobileNetSupernet(width=0.05, input_channels=1, num_classes=2, generator=rng)
    assert len(supernet.layers) == supernet.space.dim == 21
    for choice, name in enumerate(supernet.space.operations):
        (operation,) = supernet.layers[1].parts(choice)
        if name == "identity":
            assert not list(operation.parameters())
            continue
        names = name.split("_")
        convolutions = [
            module for module in operation.modules() if isinstance(module, torch.nn.Conv2d)
        ]
        assert convolutions[1].kernel_size == (int(names[1][1:]),) * 2
        assert convolutions[1].groups == int(names[0][2:]) * convolutions[0].in_channels
        assert len(convolutions) == (5 if "se" in names else 3)


def test_stages_halve_the_resolution_where_the_space_says(rng):
    supernet = MobileNetSupernet(width=0.05, input_channels=1, num_classes=2, generator=rng)
    net = supernet.space.sample_one(generator=rng)
    sizes = []
    for layer in supernet.layers:
        layer.register_forward_hook(lambda _m, _i, result: sizes.append(result.shape[-1]))
    supernet(torch.zeros(2, 1, 64, 64), net)
    assert sizes == [32 // factor for factor in net.downsampling]
