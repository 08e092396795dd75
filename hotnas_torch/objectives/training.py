"""Real training as an objective."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal

import torch

from hotnas_torch.arch import Network
from hotnas_torch.arguments import choice, integer, kind
from hotnas_torch.nn import (
    ImageData,
    NASBench201Module,
    Skeleton,
    TrainingResult,
    TrainingSettings,
    digits,
    train,
)
from hotnas_torch.objectives.base import Evaluation

__all__ = ["Training", "seeded_generator", "threads", "training_metrics"]


class Training:
    """Trains a NAS-Bench-201 network and returns its validation error or loss.

    The initial parameters and the order of the images depend on `seed` and on the architecture
    alone: an evaluation gives the same value whenever, in whichever process and in whichever order
    it is made (on the same kind of device, with the same `num_threads`).

    Args:
        data: Images to train and to validate on; None takes scikit-learn's digits, split by
            `seed`.
        skeleton: What surrounds the cells; None takes a small one for the data: 8 channels, two
            stages of one cell. Its `input_channels` and `num_classes` must fit the data.
        settings: How to train; None takes the defaults of
            `TrainingSettings`.
        value: `"error"`: validation error after the last epoch in percent; `"loss"`: validation
            cross-entropy.
        seed: Seeds the split of the digits, the parameters and the order of the images.
        device: Where to train.
        num_threads: torch threads during a training, so that values do not depend on how many
            processes evaluate at once; None leaves the process's setting.

    Raises:
        ValueError: The skeleton does not fit the data, or an argument is out of range.
        ImportError: `data` is None and scikit-learn is not installed.

    Example:
        >>> import hotnas_torch as ht
        >>> from hotnas_torch.nn import TrainingSettings
        >>> space = ht.spaces.NASBench201()
        >>> objective = Training(settings=TrainingSettings(epochs=1))
        >>> net = space.sample_one(generator=torch.Generator().manual_seed(0))
        >>> sorted(objective(net).metrics)[:3]
        ['epochs', 'parameters', 'test_accuracy']
    """

    def __init__(
        self,
        data: ImageData | None = None,
        *,
        skeleton: Skeleton | None = None,
        settings: TrainingSettings | None = None,
        value: Literal["error", "loss"] = "error",
        seed: int = 0,
        device: torch.device | str = "cpu",
        num_threads: int | None = 1,
    ) -> None:
        choice("value", value, ("error", "loss"))
        integer("seed", seed)
        if data is not None and not isinstance(data, ImageData):
            raise TypeError(f"data must be ImageData or None; got {data!r}")
        kind("skeleton", skeleton, Skeleton, optional=True)
        kind("settings", settings, TrainingSettings, optional=True)
        if num_threads is not None:
            integer("num_threads", num_threads, least=1)
        self.data = digits(generator=seeded_generator(seed, "data")) if data is None else data
        shape = {"input_channels": self.data.input_shape[0], "num_classes": self.data.num_classes}
        if skeleton is None:
            skeleton = Skeleton(channels=8, num_stages=2, cells_per_stage=1, **shape)
        for name, expected in shape.items():
            if getattr(skeleton, name) != expected:
                raise ValueError(
                    f"skeleton.{name} must be {expected} for {self.data.name!r}; got "
                    f"{getattr(skeleton, name)}"
                )
        self.skeleton = skeleton
        self.settings = TrainingSettings() if settings is None else settings
        self.value = value
        self.seed = seed
        self.device = torch.device(device)
        self.num_threads = num_threads

    def __call__(self, net: Network) -> Evaluation:
        """Train one network; a loss that becomes non-finite is a failed evaluation.

        The metrics are `validation_accuracy`, `validation_loss`, `test_accuracy`,
        `test_loss` and `train_loss` after the last epoch, `epochs` and `parameters`. The
        cost is the time of the training.

        Raises:
            ArchitectureError: `net` is not a NAS-Bench-201 network.
        """
        with threads(self.num_threads):
            module = NASBench201Module(
                net,
                self.skeleton,
                generator=seeded_generator(self.seed, "parameters", net.spec),
                device=self.device,
            )
            result = train(
                module,
                self.data,
                self.settings,
                generator=seeded_generator(self.seed, "order", net.spec),
            )
        if result.diverged:
            return Evaluation.failure(
                f"the loss became non-finite in epoch {len(result.epochs)} (a smaller "
                "learning_rate may help)",
                cost=result.seconds,
            )
        last = result.epochs[-1]
        value = (
            100.0 * (1.0 - last.validation_accuracy)
            if self.value == "error"
            else last.validation_loss
        )
        return Evaluation(value, training_metrics(result, module.num_parameters()), result.seconds)

    def describe(self) -> dict[str, Any]:
        """Return the data set with its checksum, skeleton, settings, seed and kind of value."""
        return {
            "kind": "training",
            "data": self.data.name,
            "data_sha256": self.data.digest(),
            "skeleton": asdict(self.skeleton),
            "settings": self.settings.to_json(),
            "value": self.value,
            "seed": self.seed,
        }

    def __repr__(self) -> str:
        return f"Training({self.data.name!r}, {self.settings!r}, value={self.value!r})"


def training_metrics(result: TrainingResult, num_parameters: int) -> dict[str, float]:
    """Return the finite figures after the last epoch, by name."""
    last = result.epochs[-1]
    metrics = {
        "validation_accuracy": last.validation_accuracy,
        "validation_loss": last.validation_loss,
        "test_accuracy": result.test_accuracy,
        "test_loss": result.test_loss,
        "train_loss": last.train_loss,
        "epochs": float(len(result.epochs)),
        "parameters": float(num_parameters),
    }
    return {name: number for name, number in metrics.items() if math.isfinite(number)}


def seeded_generator(seed: int, *purpose: str) -> torch.Generator:
    """Seed a generator by a seed and what it is for, so that no two purposes share numbers."""
    digest = hashlib.sha256(" ".join((str(seed), *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextmanager
def threads(num_threads: int | None) -> Iterator[None]:
    """Set torch's threads inside a `with`; None leaves them."""
    before = torch.get_num_threads()
    if num_threads is not None and num_threads != before:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
