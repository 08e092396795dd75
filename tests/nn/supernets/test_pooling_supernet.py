import pytest
import torch
from torch import nn
from torch.nn import functional

from hotnas_torch.nn import PoolingSupernet

SUPERNET = PoolingSupernet(width=0.25, input_channels=1, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("spec", "pooled"), [("[4,3,3]", (4, 7)), ("[1,1,8]", (1, 2)), ("[8,1,1]", (8, 9))]
)
def test_poolings_stand_before_the_layers_that_the_string_says(spec, pooled, rng):
    net = SUPERNET.space.from_string(spec)
    sizes = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, result: sizes.append(result.shape[-1]))
        for layer in SUPERNET.layers
    ]
    SUPERNET(torch.randn(2, 1, 8, 8, generator=rng), net)
    for hook in hooks:
        hook.remove()
    first, second = pooled
    expected = [8] * (first - 1) + [4] * (second - first) + [2] * (10 - second)
    assert sizes == expected
    assert [8 // one for one in net.downsampling[1:]] == expected


def test_it_is_resnet_20_written_out(rng):
    """The forward pass, from the weights, by functions."""
    x = torch.randn(3, 1, 8, 8, generator=rng)
    weights = {name: value for name, value in SUPERNET.state_dict().items() if "weight" in name}

    def normalize(maps):
        return functional.batch_norm(maps, None, None, training=True)

    result = torch.relu(normalize(functional.conv2d(x, weights["stem.0.weight"], padding=1)))
    for layer in range(9):
        if layer in (3, 6):  # [4,3,3]: before the fifth and the eighth of ten layers
            result = functional.max_pool2d(result, 2)
        base = f"layers.{layer}.block."
        inner = torch.relu(
            normalize(functional.conv2d(result, weights[base + "body.0.weight"], padding=1))
        )
        inner = normalize(functional.conv2d(inner, weights[base + "body.3.weight"], padding=1))
        if base + "shortcut.0.weight" in weights:
            result = normalize(functional.conv2d(result, weights[base + "shortcut.0.weight"]))
        result = torch.relu(inner + result)
    linear = SUPERNET.head[2]
    assert isinstance(linear, nn.Linear)
    expected = linear(result.mean(dim=(2, 3)))
    assert torch.allclose(SUPERNET(x, SUPERNET.space.from_string("[4,3,3]")), expected, atol=1e-5)


def test_all_networks_share_all_weights():
    size = PoolingSupernet(generator=torch.Generator().manual_seed(0))
    # ResNet-20 has 0.27 million (He et al., 2016, Table 6).
    assert sum(parameter.numel() for parameter in size.parameters()) == pytest.approx(
        0.27e6, rel=0.02
    )


def test_maps_of_one_pixel_pass(rng):
    outputs = SUPERNET.outputs(torch.randn(4, 1, 2, 2, generator=rng), list(SUPERNET.space))
    assert outputs.shape == (36, 4, 10)
    assert bool(outputs.isfinite().all())
