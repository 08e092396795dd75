import pytest
import torch
from torch import nn

from hotnas_torch.errors import ArchitectureError
from hotnas_torch.nn import (
    MacroSupernet,
    MobileNetSupernet,
    PoolingSupernet,
    TrainingSettings,
    digits,
    train,
)
from hotnas_torch.nn.supernets.single_path import normalization_of
from hotnas_torch.spaces import NASBenchMacro

MAKERS = {
    "pooling": lambda **o: PoolingSupernet(**{"width": 0.25, "input_channels": 1, **o}),
    "macro": lambda **o: MacroSupernet(**{"width": 0.125, "input_channels": 1, **o}),
    "mobile": lambda **o: MobileNetSupernet(
        **{"width": 0.05, "input_channels": 1, "num_classes": 10, **o}
    ),
}


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images(rng):
    return torch.randn(6, 1, 8, 8, generator=rng)


def test_outputs_of_many_networks_are_those_of_each(make, images, rng):
    supernet = make(generator=rng)
    nets = supernet.space.sample(12, generator=rng)
    nets += nets[:3]  # repeats
    together = supernet.outputs(images, nets)
    assert together.shape == (15, 6, 10)
    assert not together.requires_grad
    for net, row in zip(nets, together, strict=True):
        assert torch.allclose(row, supernet(images, net), atol=1e-6)
    assert supernet.outputs(images, []).shape[0] == 0


def test_common_beginnings_are_computed_once(images):
    supernet = MAKERS["macro"](generator=seeded())
    calls = []
    for layer in supernet.layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    space = supernet.space
    supernet.outputs(images, [space.from_string(f"1111111{last}") for last in (0, 1, 2)])
    assert len(calls) == 7 + 3
    calls.clear()
    supernet.outputs(images, [space.from_string(f"{first}1111111") for first in (0, 1, 1)])
    assert len(calls) == 8 + 8


def test_beginnings_are_walked_as_a_tree(images):
    supernet = MAKERS["macro"](generator=seeded())
    calls = []
    for layer in supernet.layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    nets = [net for net in supernet.space if net.spec.startswith("01210")]
    supernet.outputs(images, nets)
    assert len(calls) == 5 + 3 + 9 + 27


def test_a_step_changes_the_weights_of_its_path_only(make, images, rng):
    supernet = make(generator=rng)
    net, other = supernet.space.sample(2, generator=rng, distinct=True)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for one in (net, other):  # momentum of the first step must not leak into the second
        before = {name: value.clone() for name, value in supernet.state_dict().items()}
        optimizer.zero_grad(set_to_none=True)
        supernet(images, one).square().sum().backward()
        touched = {name for name, value in supernet.named_parameters() if value.grad is not None}
        optimizer.step()
        changed = {
            name
            for name, value in supernet.state_dict().items()
            if not torch.equal(value, before[name])
        }
        assert changed <= touched
        path = supernet.paths([one])[0].tolist()
        expected = {
            id(parameter)
            for part in (
                supernet.stem,
                supernet.head,
                *(
                    module
                    for layer, choice in zip(supernet.layers, path, strict=True)
                    for module in layer.parts(choice)
                ),
            )
            for parameter in part.parameters()
        }
        assert {id(p) for p in supernet.parameters() if p.grad is not None} == expected


def test_one_network_alone_computes_what_it_does_in_the_supernet(make, images, rng):
    supernet = make(generator=seeded())
    net = supernet.space.sample_one(generator=rng)
    alone = make(only=net, normalization="batch", generator=seeded(1))
    missing = alone.load_state_dict(supernet.state_dict(), strict=False)
    assert not missing.missing_keys
    assert torch.equal(alone(images), supernet(images, net))
    assert torch.equal(alone(images, net), alone(images))
    smaller = sum(p.numel() for p in alone.parameters())
    total = sum(p.numel() for p in supernet.parameters())
    assert (smaller == total) == isinstance(supernet, PoolingSupernet)


def test_one_network_alone_is_trained_as_any_classifier(rng):
    data = digits(generator=rng, num_train=300, num_validation=300)
    space = NASBenchMacro()
    net = MacroSupernet(
        width=0.25, input_channels=1, only=space.from_string("10100100"), generator=rng
    )
    assert any(isinstance(module, nn.BatchNorm2d) and module.affine for module in net.modules())
    result = train(net, data, TrainingSettings(epochs=6), generator=rng)
    assert result.epochs[-1].validation_accuracy > 0.5
    # In evaluation, an image's logits do not depend on the others.
    images = data.test.images[:20]
    assert torch.allclose(net(images)[:5], net(images[:5]), atol=1e-5)


def test_normalisation_by_the_batch_is_the_same_in_evaluation(images):
    supernet = MAKERS["pooling"](generator=seeded())
    net = supernet.space.from_string("[2,3,5]")
    training = supernet.train()(images, net)
    assert torch.equal(supernet.eval()(images, net), training)
    assert not list(supernet.buffers())


def test_equal_seeds_build_equal_supernets(make):
    first, second, other = (make(generator=seeded(seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_arguments_are_checked(images, rng):
    supernet = MAKERS["macro"](generator=rng)
    net = supernet.space.from_string("00000000")
    with pytest.raises(ValueError, match="net must be given"):
        supernet(images)
    with pytest.raises(ArchitectureError, match=r"nets\[0\] with spec '\[7,1,2\]'"):
        supernet(images, MAKERS["pooling"](generator=rng).space.from_string("[7,1,2]"))
    alone = MAKERS["macro"](only=net, generator=rng)
    with pytest.raises(ValueError, match="net must be '00000000', the only network"):
        alone(images, supernet.space.from_string("00000001"))
    for options, message in (
        ({"width": 0.0}, "width must be finite and > 0"),
        ({"input_channels": 0}, "input_channels must be at least 1"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"normalization": "group"}, "normalization must be 'batch' or 'running'"),
    ):
        with pytest.raises(ValueError, match=message):
            MAKERS["macro"](generator=rng, **options)
    with pytest.raises(TypeError, match=r"generator must be a torch Generator"):
        MAKERS["macro"](generator=0)
    with pytest.raises(ValueError, match="normalization must be"):
        normalization_of("none")
