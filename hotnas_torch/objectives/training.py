"""Real training as an objective."""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch

from hotnas_torch.arch import Network
from hotnas_torch.arguments import choice, integer, kind
from hotnas_torch.nn import (
    DARTSSkeleton,
    FolderImages,
    ImageData,
    ModuleBuilder,
    Skeleton,
    TrainingResult,
    TrainingSettings,
    digits,
    train,
)
from hotnas_torch.objectives.base import Evaluation
from hotnas_torch.spaces import NASBench201, SearchSpace
from hotnas_torch.spaces import get as space_named

__all__ = ["Training", "seeded_generator", "threads", "training_metrics"]


class Training:
    """Trains a network and returns its validation error or loss.

    The initial parameters and the order of the images depend on `seed` and on the architecture
    alone: an evaluation gives the same value whenever, in whichever process and in whichever order
    it is made (on the same kind of device, with the same `num_threads`).

    Args:
        data: Images to train and to validate on, in memory or in files; None takes scikit-learn's
            digits, split by `seed`. `nn.cifar10`, `nn.cifar100` and `nn.image_folder` read others.
        space: The space of the networks, or its name: one of those that `nn.ModuleBuilder` builds.
            None is NAS-Bench-201.
        skeleton: What is not searched, as `nn.ModuleBuilder`'s shape: a skeleton for NAS-Bench-201
            and DARTS, whose `input_channels` and `num_classes` must fit the data, a factor of all
            widths for the others. None takes a small one.
        settings: How to train; None takes the defaults of `TrainingSettings`,
            `TrainingSettings.of("darts")` is a paper's. DARTS networks get an auxiliary tower where
            the settings train one.
        value: `"error"`: validation error after the last epoch in percent; `"loss"`: validation
            cross-entropy.
        seed: Seeds the split of the digits, the parameters and the order of the images.
        device: Where to train.
        num_threads: torch threads during a training, so that values do not depend on how many
            processes evaluate at once; None leaves the process's setting.
        folder: Where trainings are written to after each epoch, a file each, so that one that was
            killed goes on from there and ends as uninterrupted; the file goes when the training is
            done. None writes nothing.
        compile: Whether modules are compiled by `torch.compile` for their training; a text names
            its backend.

    Raises:
        TypeError, ValueError: The skeleton or the settings do not fit data and space, the space's
            networks cannot be built, or an argument is of the wrong kind or out of range.
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
        data: ImageData | FolderImages | None = None,
        *,
        space: SearchSpace | str | None = None,
        skeleton: Skeleton | DARTSSkeleton | float | None = None,
        settings: TrainingSettings | None = None,
        value: Literal["error", "loss"] = "error",
        seed: int = 0,
        device: torch.device | str = "cpu",
        num_threads: int | None = 1,
        folder: str | PathLike[str] | None = None,
        compile: bool | str = False,
    ) -> None:
        if not isinstance(compile, bool | str):
            raise TypeError(f"compile must be a bool or the name of a backend; got {compile!r}")
        choice("value", value, ("error", "loss"))
        integer("seed", seed)
        if data is not None and not isinstance(data, ImageData | FolderImages):
            raise TypeError(f"data must be ImageData or None, or FolderImages; got {data!r}")
        kind("settings", settings, TrainingSettings, optional=True)
        if num_threads is not None:
            integer("num_threads", num_threads, least=1)
        self.data = digits(generator=seeded_generator(seed, "data")) if data is None else data
        self.settings = TrainingSettings() if settings is None else settings
        if isinstance(space, str):
            space = space_named(space)
        self.builder = ModuleBuilder(
            NASBench201() if space is None else space,
            skeleton,
            input_channels=self.data.input_shape[0],
            num_classes=self.data.num_classes,
            auxiliary=self.settings.regularization.auxiliary > 0.0,
        )
        if self.settings.regularization.drop_path and not self.builder.drops_paths:
            raise ValueError(
                f"drop_path must be 0 in {self.builder.space.name}, whose networks have no"
                " operations that can be left out"
            )
        self.settings.augmentation.check(self.data.input_shape, self.data.pixels)
        self.value = value
        self.seed = seed
        self.device = torch.device(device)
        self.num_threads = num_threads
        self.folder = None if folder is None else Path(folder)
        self.compile = compile

    @property
    def skeleton(self) -> Skeleton | DARTSSkeleton | float:
        """What is not searched."""
        shape = self.builder.shape
        assert shape is not None  # the builder has chosen one
        return shape

    def __call__(self, net: Network) -> Evaluation:
        """Train one network; a loss that becomes non-finite is a failed evaluation.

        The metrics are `validation_accuracy`, `validation_loss`, `test_accuracy`,
        `test_loss` and `train_loss` after the last epoch, `epochs` and `parameters`. The
        cost is the time of the training.

        Raises:
            ArchitectureError: `net` is not of the space.
        """
        checkpoint = self._checkpoint(net)
        with threads(self.num_threads):
            module = self.builder(
                net,
                generator=seeded_generator(self.seed, "parameters", net.spec),
                device=self.device,
            )
            result = train(
                module,
                self.data,
                self.settings,
                generator=seeded_generator(self.seed, "order", net.spec),
                checkpoint=checkpoint,
                compile=self.compile,
            )
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
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
        num_parameters = sum(parameter.numel() for parameter in module.parameters())
        return Evaluation(value, training_metrics(result, num_parameters), result.seconds)

    def _checkpoint(self, net: Network) -> Path | None:
        if self.folder is None:
            return None
        text = json.dumps([self.describe(), net.spec], sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.pt"

    def describe(self) -> dict[str, Any]:
        """Return the data set with its checksum, skeleton, settings, seed and kind of value."""
        skeleton, space = self.skeleton, self.builder.space
        described = {
            "kind": "training",
            "data": self.data.name,
            "data_sha256": self.data.digest(),
            "skeleton": skeleton if isinstance(skeleton, float) else asdict(skeleton),
            "settings": self.settings.to_json(),
            "value": self.value,
            "seed": self.seed,
        }
        if self.compile:
            described["compile"] = self.compile
        # Records of NAS-Bench-201 do not say so, as those of earlier versions.
        return described if space.name == "nasbench201" else described | {"space": repr(space)}

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
