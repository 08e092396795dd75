"""Processes that train one network beside one process that trains it alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from hotnas_torch.nn import (
    Augmentation,
    ImageData,
    Regularization,
    Split,
    TrainingSettings,
    build,
    train,
)
from tests.nn.test_resumed_training import EVERYTHING, generated, network

SETTINGS = TrainingSettings(
    epochs=2,
    batch_size=9,
    learning_rate=0.05,
    augmentation=Augmentation(crop=1, flip=True, mixup=0.3),
    regularization=Regularization(label_smoothing=0.1, clip=1.0, average=0.5),
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(num=31):
    """Noise, with classes; 31 images in batches of 9 leave one of 4."""
    random = generator(1)

    def part():
        return Split(
            torch.randn(num, 2, 6, 6, generator=random),
            torch.randint(3, (num,), generator=random),
        )

    return ImageData("noise", part(), part(), part(), num_classes=3)


def without_batches():
    """A network in which no image sees another."""
    return build(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.GroupNorm(1, 4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
        ),
        generator=generator(2),
    )


def run(group=None, **options):
    model = without_batches()
    result = train(model, images(), SETTINGS, generator=generator(3), group=group, **options)
    return model.state_dict(), result


def everything(group=None, **options):
    """A network with batch normalisation, dropped paths and a tower."""
    model = network(3)
    result = train(model, generated(), EVERYTHING, generator=generator(3), group=group, **options)
    return model.state_dict(), result


def process(rank, folder):
    """Train in one of two processes, and keep what came of it."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    group, checkpoint = distributed.group.WORLD, Path(folder) / "training.pt"
    found = {"plain": run(group), "everything": everything(group)}

    def stop(_epoch):
        raise KeyboardInterrupt

    try:
        everything(group, checkpoint=checkpoint, every_epoch=stop)
    except KeyboardInterrupt:
        distributed.barrier()
    found["resumed"] = everything(group, checkpoint=checkpoint)
    kept = {name: (state, [*vars_of(result)]) for name, (state, result) in found.items()}
    torch.save(kept, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def vars_of(result):
    for epoch in result.epochs:
        yield epoch.train_loss
        yield epoch.validation_loss
    yield result.test_loss


@pytest.mark.slow  # two processes, each of which imports torch
def test_two_processes_take_the_steps_of_one(tmp_path):
    code = (
        "import sys; from tests.nn.test_together import process;"
        " process(int(sys.argv[1]), sys.argv[2])"
    )
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), str(tmp_path)], cwd=root, env=environment
        )
        for rank in range(2)
    ]
    assert [one.wait(timeout=500) for one in started] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name, (state, figures) in first.items():
        other, theirs = second[name]
        assert figures == theirs, name
        assert all(torch.equal(part, other[key]) for key, part in state.items()), name
    alone, result = run()
    state, figures = first["plain"]
    assert figures == pytest.approx([*vars_of(result)], rel=1e-4)
    for key, part in alone.items():
        torch.testing.assert_close(state[key], part, rtol=1e-3, atol=1e-5)
    # A training that was interrupted ends with the weights that it would have had.
    for key, part in first["everything"][0].items():
        assert torch.equal(part, first["resumed"][0][key]), key


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A group of this process."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    yield distributed.group.WORLD
    distributed.destroy_process_group()


def test_a_group_of_one_trains_as_no_group_does(alone):
    expected, result = run()
    state, found = run(alone)
    assert found.epochs == result.epochs
    assert all(torch.equal(part, state[key]) for key, part in expected.items())


def test_what_is_no_group_and_batches_that_are_too_small_are_refused(alone, monkeypatch):
    with pytest.raises(TypeError, match=r"group must be a torch\.distributed process group"):
        run("world")
    monkeypatch.setattr("hotnas_torch.nn.together.Together.num", 5)
    with pytest.raises(ValueError, match="batch_size must be at least 10, two images for each"):
        run(alone)


@pytest.mark.compile
def test_what_is_compiled_takes_the_same_steps():
    """With a backend that computes as torch does."""
    expected, result = run()
    state, found = run(compile="eager")
    assert found.epochs == result.epochs
    assert all(torch.equal(part, state[key]) for key, part in expected.items())
    with pytest.raises(TypeError, match="compile must be"):
        run(compile=3)
