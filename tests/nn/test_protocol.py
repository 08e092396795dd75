import json
import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from hotnas_torch.nn import (
    PROTOCOLS,
    Augmentation,
    LearningRate,
    Regularization,
    TrainingSettings,
)


def scheduled(make, steps):
    """Rates of torch's own schedule."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_schedules_are_torchs_own():
    cosine = LearningRate(last=0.04)
    expected = scheduled(lambda one: CosineAnnealingLR(one, 40, eta_min=0.04), 40)
    assert [cosine.factor_at(step / 40) for step in range(40)] == pytest.approx(expected)
    step = LearningRate(schedule="step", steps=(0.25, 0.5), factor=0.2)
    expected = scheduled(lambda one: MultiStepLR(one, [10, 20], gamma=0.2), 40)
    assert [step.factor_at(place / 40) for place in range(40)] == pytest.approx(expected)


def test_warm_up_grows_to_the_start_of_the_cosine():
    rate = LearningRate(warm_up=0.5)
    assert [rate.factor_at(share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx(
        [0.0, 0.5, 1.0, 0.5, 0.0]
    )


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_are_ready_for_json_and_take_changes(name):
    settings = TrainingSettings.of(name, epochs=3)
    assert settings.epochs == 3
    assert json.loads(json.dumps(PROTOCOLS[name].to_json())) == json.loads(
        json.dumps(TrainingSettings.of(name).to_json())
    )


def test_the_protocol_of_darts_is_the_one_that_is_printed():
    settings = TrainingSettings.of("darts")
    assert (settings.epochs, settings.batch_size, settings.learning_rate) == (600, 96, 0.025)
    assert (settings.momentum, settings.weight_decay, settings.nesterov) == (0.9, 3e-4, False)
    assert settings.augmentation == Augmentation(crop=4, flip=True, cutout=16)
    assert settings.regularization == Regularization(auxiliary=0.4, drop_path=0.2, clip=5.0)


def test_records_of_plain_settings_are_as_before():
    assert TrainingSettings().to_json() == {
        "epochs": 8,
        "batch_size": 50,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
    }
    assert TrainingSettings(nesterov=False).to_json()["nesterov"] is False


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: TrainingSettings.of("dart"), ValueError, "protocol must be one of 'darts'"),
        (lambda: TrainingSettings.of("darts", epoch=2), TypeError, "'epoch' is no setting of"),
        (lambda: TrainingSettings(rate="cosine"), TypeError, "rate must be"),
        (lambda: TrainingSettings(augmentation={"crop": 4}), TypeError, "augmentation must be"),
        (lambda: TrainingSettings(precision="half"), ValueError, "precision must be one of"),
        (lambda: TrainingSettings(nesterov=1), TypeError, "nesterov must be"),
        (lambda: LearningRate(schedule="linear"), ValueError, "schedule must be one of"),
        (lambda: LearningRate(steps=(0.5, 0.5)), ValueError, r"steps\[1\] must be"),
        (lambda: LearningRate(steps=0.5), TypeError, "steps must be a tuple"),
        (lambda: LearningRate(warm_up=1.0), ValueError, "warm_up must be"),
        (lambda: LearningRate(factor=0.0), ValueError, "factor must be"),
        (lambda: Regularization(drop_path=1.0), ValueError, "drop_path must be"),
        (lambda: Regularization(label_smoothing=-0.1), ValueError, "label_smoothing must be"),
        (lambda: Regularization(average=1.0), ValueError, "average must be"),
        (lambda: Regularization(clip=0.0), ValueError, "clip must be"),
        (lambda: Regularization(auxiliary=math.nan), ValueError, "auxiliary must be"),
        (lambda: Augmentation(crop=-1), ValueError, "crop must be"),
        (lambda: Augmentation(cutout=1.5), TypeError, "cutout must be"),
        (lambda: Augmentation(mixup=-1.0), ValueError, "mixup must be"),
        (lambda: Augmentation(flip=1), TypeError, "flip must be"),
        (lambda: Augmentation(auto_augment="svhn"), ValueError, "auto_augment must be one of"),
    ],
)
def test_what_is_wrong_is_named_when_it_is_made(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
