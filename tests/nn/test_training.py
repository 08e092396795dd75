import math

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from hotnas_torch import spaces
from hotnas_torch.nn import (
    ImageData,
    NASBench201Module,
    Skeleton,
    Split,
    TrainingSettings,
    build,
    digits,
    evaluate,
    train,
)

GOOD = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
POOR = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"  # no image reaches the output


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def data():
    return digits(generator=generator(), num_train=300, num_validation=400)


def module(text=GOOD, seed=0):
    net = spaces.NASBench201().from_string(text)
    skeleton = Skeleton(channels=8, num_stages=2, cells_per_stage=1, input_channels=1)
    return NASBench201Module(net, skeleton, generator=generator(seed))


def trained(data, text=GOOD, seed=0, **settings):
    return train(
        module(text),
        data,
        TrainingSettings(**({"epochs": 2} | settings)),
        generator=generator(seed),
    )


def figures(result):
    return (*result.epochs, result.test_loss, result.test_accuracy)


def test_training_is_reproduced_by_its_seed(data):
    before = torch.get_rng_state()
    assert figures(trained(data)) == figures(trained(data))
    assert figures(trained(data)) != figures(trained(data, seed=1))
    assert torch.equal(before, torch.get_rng_state())


def test_training_learns_and_architectures_differ(data):
    good = trained(data, epochs=8, batch_size=30)
    poor = trained(data, POOR, epochs=8, batch_size=30)
    assert len(good.epochs) == 8
    assert good.epochs[-1].train_loss < 0.5 * good.epochs[0].train_loss
    assert good.epochs[-1].validation_accuracy > 0.85
    assert abs(good.test_accuracy - good.epochs[-1].validation_accuracy) < 0.07
    assert poor.epochs[-1].validation_accuracy < 0.2
    assert 0.0 < good.seconds < 60.0
    assert not good.diverged


def test_epochs_are_reported_as_they_finish(data):
    seen = []
    result = train(
        module(), data, TrainingSettings(epochs=3), generator=generator(), every_epoch=seen.append
    )
    assert tuple(seen) == result.epochs


def test_evaluation_agrees_with_scikit_learn(data):
    model = module()
    train(model, data, TrainingSettings(epochs=1), generator=generator())
    loss, accuracy = evaluate(model, data.test)
    assert not model.training
    with torch.no_grad():
        chances = model(data.test.images).double().softmax(dim=1)
    labels = data.test.labels.numpy()
    assert loss == pytest.approx(log_loss(labels, chances.numpy(), labels=range(10)), rel=1e-5)
    assert accuracy == accuracy_score(labels, chances.argmax(dim=1).numpy())


def test_one_step_is_torchs_sgd_by_hand():
    """Two images in one batch, no momentum: w <- w - lr (gradient + decay * w)."""
    images = torch.randn(2, 1, 2, 2, generator=generator())
    part = Split(images, torch.tensor([0, 1]))
    own = ImageData("own", part, part, part, num_classes=2)
    model = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), generator=generator(1))
    weight, bias = (parameter.detach().clone() for parameter in model.parameters())
    chances = (images.flatten(1) @ weight.T + bias).softmax(dim=1)
    residual = (chances - torch.eye(2)) / 2
    settings = TrainingSettings(
        epochs=1, batch_size=2, learning_rate=0.25, momentum=0.0, weight_decay=0.1
    )
    train(model, own, settings, generator=generator())
    slope = residual.T @ images.flatten(1) + 0.1 * weight
    assert torch.allclose(model[1].weight, weight - 0.25 * slope, atol=1e-6)
    assert torch.allclose(model[1].bias, bias - 0.25 * residual.sum(dim=0), atol=1e-6)


def test_the_rate_falls_along_half_a_cosine(data, monkeypatch):
    rates = []
    step = torch.optim.SGD.step

    def recorded(self, *arguments, **named):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.SGD, "step", recorded)
    trained(data, epochs=2, batch_size=100, learning_rate=0.2)
    expected = [0.1 * (1 + math.cos(math.pi * place / 6)) for place in range(6)]
    assert rates == pytest.approx(expected)


def test_a_divergence_ends_the_training(data):
    result = trained(data, learning_rate=1e12, epochs=5)
    assert result.diverged
    assert len(result.epochs) < 5
    assert math.isnan(result.test_loss)


def test_a_last_batch_of_one_image_is_left_out(data):
    sizes = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module()

        def forward(self, images):
            if self.training:
                sizes.append(len(images))
            return self.inner(images)

    part = Split(data.train.images[:101], data.train.labels[:101])
    own = ImageData("own", part, part, part, num_classes=10)
    train(Counting(), own, TrainingSettings(epochs=1, batch_size=50), generator=generator())
    assert sizes == [50, 50]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"learning_rate": math.inf}, "learning_rate must be finite and > 0"),
        ({"momentum": 1.0}, "momentum must be in"),
        ({"weight_decay": -1.0}, "weight_decay must be finite and >= 0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**settings)
