"""A training with everything on, killed and gone on with, ends with the weights it would have."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hotnas_torch.errors import StorageError
from hotnas_torch.nn import (
    Augmentation,
    DARTSModule,
    DARTSSkeleton,
    ImageData,
    LearningRate,
    Regularization,
    Split,
    TrainingSettings,
    build,
    train,
)
from hotnas_torch.spaces import DARTS

EVERYTHING = TrainingSettings.of(
    "darts",
    epochs=2,
    batch_size=16,
    rate=LearningRate(warm_up=0.1),
    augmentation=Augmentation(crop=2, flip=True, cutout=4, mixup=0.2, cutmix=1.0),
    regularization=Regularization(
        label_smoothing=0.1, auxiliary=0.4, drop_path=0.2, clip=5.0, average=0.9
    ),
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def generated(num=48, size=8):
    """Images whose class is the place of a bright stripe, in noise."""
    random = generator(5)

    def part(num):
        labels = torch.randint(4, (num,), generator=random)
        images = 0.3 * torch.randn(num, 3, size, size, generator=random)
        for image, label in zip(images, labels.tolist(), strict=True):
            image[:, label * size // 4 : (label + 1) * size // 4] += 1.0
        return Split(images, labels)

    return ImageData("generated", part(num), part(num), part(num), num_classes=4)


def network(depth, channels=2):
    space = DARTS(min_depth=3, max_depth=20)
    net = space.sample_one(generator=generator(1))
    net = space.from_string(net.spec.rsplit(",", 1)[0] + f",{depth}")
    skeleton = DARTSSkeleton(channels=channels, num_cells=None, num_classes=4)
    return DARTSModule(net, skeleton, generator=generator(2), space=space, auxiliary=True)


def run(depth, file=None, every_epoch=None, settings=EVERYTHING):
    """Train, also in a process that kills itself after an epoch."""
    model = network(depth)
    result = train(
        model,
        generated(),
        settings,
        generator=generator(3),
        checkpoint=file,
        every_epoch=every_epoch,
    )
    return model, result


def kill_at_once(_epoch):
    os.kill(os.getpid(), signal.SIGKILL)


def assert_equal(first, second):
    for name, part in first.state_dict().items():
        assert torch.equal(part, second.state_dict()[name]), name


def killed_after_an_epoch(depth, file):
    code = (
        f"import torch; torch.set_num_threads({torch.get_num_threads()});"
        " from tests.nn.test_resumed_training import *;"
        f" run({depth}, {str(file)!r}, kill_at_once)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False, timeout=600)
    assert done.returncode == -signal.SIGKILL
    assert file.exists()


@pytest.mark.slow  # two networks with up to 20 cells, trained twice
@pytest.mark.parametrize("depth", [8, 20])
def test_a_darts_network_that_was_killed_ends_with_equal_weights(depth, tmp_path):
    whole, expected = run(depth)
    assert len(whole.body.cells) == depth
    assert not expected.diverged
    file = tmp_path / "training.pt"
    killed_after_an_epoch(depth, file)
    seen = []
    resumed, found = run(depth, file, seen.append)
    assert len(seen) == 1
    assert found.epochs == expected.epochs
    assert (found.test_loss, found.test_accuracy) == (expected.test_loss, expected.test_accuracy)
    assert_equal(resumed, whole)


class Stop(Exception):
    pass


def stop(_epoch):
    raise Stop


def test_an_interrupted_training_ends_with_equal_weights(tmp_path):
    whole, expected = run(3)
    file = tmp_path / "training.pt"
    with pytest.raises(Stop):
        run(3, file, stop)
    resumed, found = run(3, file)
    assert found.epochs == expected.epochs
    assert_equal(resumed, whole)
    # A training that is done does nothing but evaluate.
    again, found = run(3, file, stop)
    assert (found.epochs, found.test_loss) == (expected.epochs, expected.test_loss)
    assert_equal(again, whole)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    file = tmp_path / "training.pt"
    with pytest.raises(Stop):
        run(3, file, stop)
    other = replace(EVERYTHING, regularization=Regularization(auxiliary=0.4, average=0.9))
    with pytest.raises(StorageError, match="its settings is"):
        run(3, file, settings=other)
    with pytest.raises(StorageError, match="its shapes is"):
        run(4, file)
    with pytest.raises(StorageError, match="its start is"):
        train(network(3), generated(), EVERYTHING, generator=generator(4), checkpoint=file)
    content = file.read_bytes()
    file.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    with pytest.raises(StorageError, match="is no checkpoint of a training"):
        run(3, file)


@pytest.mark.parametrize(
    "change",
    [
        {"augmentation": Augmentation()},
        {"augmentation": Augmentation(crop=2)},
        {"rate": LearningRate(schedule="step")},
        {"regularization": Regularization()},
        {"regularization": Regularization(label_smoothing=0.3)},
        {"regularization": Regularization(auxiliary=1.0)},
        {"regularization": Regularization(drop_path=0.5)},
        {"regularization": Regularization(clip=0.01)},
        {"regularization": Regularization(average=0.5)},
        {"nesterov": True},
        {"precision": "bfloat16"},
    ],
    ids=repr,
)
def test_every_setting_changes_what_is_learned(change):
    plain = TrainingSettings(epochs=2, batch_size=16, nesterov=False)
    assert TrainingSettings.of("darts", epochs=2) != plain
    settings = TrainingSettings(**{"epochs": 2, "batch_size": 16, "nesterov": False} | change)
    changed, other = run(3, settings=settings)[0], run(3, settings=plain)[0]
    same = torch.equal(changed.body.head[2].weight, other.body.head[2].weight)
    assert same == (settings == plain)


def test_the_mean_of_the_weights_is_what_is_evaluated():
    settings = TrainingSettings(
        epochs=1, batch_size=48, momentum=0.0, regularization=Regularization(average=0.75)
    )
    start = network(3).body.head[2].weight.detach()
    plain = run(3, settings=TrainingSettings(epochs=1, batch_size=48, momentum=0.0))[0]
    averaged = run(3, settings=settings)[0]
    torch.testing.assert_close(
        averaged.body.head[2].weight, 0.75 * start + 0.25 * plain.body.head[2].weight
    )


def test_what_a_network_lacks_is_refused_before_it_is_trained():
    linear = build(
        lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)),
        generator=generator(),
    )
    for name in ("drop_path", "auxiliary"):
        settings = TrainingSettings(epochs=1, regularization=Regularization(**{name: 0.2}))
        with pytest.raises(ValueError, match=f"{name} must be 0 for Sequential"):
            train(linear, generated(), settings, generator=generator())
    with pytest.raises(ValueError, match="crop must be below 8"):
        train(
            linear,
            generated(),
            TrainingSettings(augmentation=Augmentation(crop=8)),
            generator=generator(),
        )
