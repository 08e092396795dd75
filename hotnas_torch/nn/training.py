"""Training a classifier and measuring it."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from hotnas_torch.nn.augmentation import Augmentation, Targets
from hotnas_torch.nn.data import ClassificationData, ImageSource
from hotnas_torch.nn.precision import autocast_to, precision_of
from hotnas_torch.nn.protocol import TrainingSettings
from hotnas_torch.nn.regularizing import drop_paths
from hotnas_torch.nn.supernets.checkpoint import applying, read_checkpoint, write_checkpoint
from hotnas_torch.nn.together import Together

__all__ = [
    "EpochResult",
    "TrainingResult",
    "TrainingSettings",
    "evaluate",
    "train",
]

_EVALUATION_BATCH = 1000
# Fewer images are evaluated at once where one has more than 64 x 64 pixels.
_EVALUATION_PIXELS = _EVALUATION_BATCH * 64 * 64


@dataclass(frozen=True, slots=True)
class EpochResult:
    """Figures of one epoch.

    Attributes:
        train_loss: Mean cross-entropy over the epoch's steps.
        validation_loss: Mean cross-entropy on the validation images.
        validation_accuracy: Share of validation images classified correctly, in [0, 1].
    """

    train_loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training gave.

    Attributes:
        epochs: Figures per epoch; fewer than asked for when the loss became non-finite.
        test_loss: Mean cross-entropy on the test images; NaN after a divergence.
        test_accuracy: In [0, 1]; NaN after a divergence.
        seconds: Wall-clock time of training and evaluation.
        diverged: Whether the loss became infinite or NaN; training stops there.
    """

    epochs: tuple[EpochResult, ...]
    test_loss: float
    test_accuracy: float
    seconds: float
    diverged: bool


def train(
    model: nn.Module,
    data: ClassificationData,
    settings: TrainingSettings,
    *,
    generator: torch.Generator,
    every_epoch: Callable[[EpochResult], None] | None = None,
    checkpoint: str | PathLike[str] | None = None,
    compile: bool | str = False,
    group: "distributed.ProcessGroup | None" = None,
) -> TrainingResult:
    """Train a classifier in place.

    With `checkpoint`, everything is written to a file after each epoch, in one step, and a training
    that was interrupted continues from there and ends with the same weights as it would have
    uninterrupted on the same machine. The file holds tensors and plain values only and is read with
    `weights_only=True`; it is left there at the end. It belongs to the weights and the state of the
    generator that the training began with: pass them anew, as they were.

    Args:
        model: Maps images (N, C, H, W) to logits (N, num_classes). It stays on its device. With an
            auxiliary tower it has a method `with_auxiliary`, as `DARTSModule`.
        data: In memory or in files; batches are moved to the model's device.
        settings: How to train.
        generator: Orders and changes the images, on the CPU: the draws are the same on every
            device.
        every_epoch: Called with the figures of each epoch that this call finishes.
        checkpoint: File to continue from, or to be written.
        compile: Whether what is trained is compiled by `torch.compile`; a text names its backend.
            Evaluation is not. Values then differ by roundings, and dropped paths break the graph.
        group: Processes of `torch.distributed` that train the network together, each with the same
            arguments and the module on a device of its own; None is this process alone. All load
            and change whole batches and compute on their part, so that the steps are those of one
            process but for batch normalisation, which sees a part at a time, and for the draws of
            dropped paths. The first one writes the checkpoint, which all must be able to read.

    Returns:
        Figures per epoch and, at the end, on the test images. `seconds` are those of this call.

    Raises:
        TypeError: `group` is no process group, or `compile` neither bool nor text.
        ValueError: The settings do not fit the images, or ask for a tower or for paths to drop that
            the model lacks; or a batch has fewer than two images for each process.
        ImportError: The augmentation is torchvision's, which is not installed.
        StorageError: The checkpoint is of another training, or none.
    """
    trainer = _Trainer(model, data, settings, generator, checkpoint, compile, Together(group))
    return trainer.run(every_epoch)


class _Trained(nn.Module):
    """What is computed in a step: logits, and those of the auxiliary tower where it is trained."""

    def __init__(self, model: nn.Module, *, auxiliary: bool) -> None:
        super().__init__()
        self.model = model
        self.auxiliary = auxiliary

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.auxiliary:
            logits, of_tower = self.model.with_auxiliary(images)  # type: ignore[operator]
            return logits, of_tower
        return self.model(images), None


class _Trainer:
    """A training on its way: what changes from epoch to epoch, and what a checkpoint holds."""

    def __init__(
        self,
        model: nn.Module,
        data: ClassificationData,
        settings: TrainingSettings,
        generator: torch.Generator,
        checkpoint: str | PathLike[str] | None,
        compile: bool | str,
        together: Together,
    ) -> None:
        if not isinstance(compile, bool | str):
            raise TypeError(f"compile must be a bool or the name of a backend; got {compile!r}")
        if settings.batch_size < 2 * together.num:
            raise ValueError(
                f"batch_size must be at least {2 * together.num}, two images for each process; got"
                f" {settings.batch_size}"
            )
        self.compile, self.together = compile, together
        self.model, self.data, self.settings, self.generator = model, data, settings, generator
        self.device = next(model.parameters()).device
        self.pixels = getattr(data, "pixels", None)
        settings.augmentation.check(data.input_shape, self.pixels)
        self.augments = settings.augmentation != Augmentation()
        self.paths = drop_paths(model)
        extra = settings.regularization
        if extra.drop_path and not self.paths:
            raise ValueError(
                f"drop_path must be 0 for {type(model).__name__}, which has no operations that can"
                " be left out"
            )
        if extra.auxiliary and not hasattr(model, "with_auxiliary"):
            raise ValueError(
                f"auxiliary must be 0 for {type(model).__name__}, which has no auxiliary tower"
            )
        self.precision = precision_of(settings.precision, self.device)
        self.optimizer = torch.optim.SGD(
            _parameter_groups(model, settings.weight_decay),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov and settings.momentum > 0.0,
            foreach=True,
        )
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.precision == torch.float16
        )
        self.average = _copied(model) if extra.average else None
        self.epochs: list[EpochResult] = []
        self.file = None if checkpoint is None else Path(checkpoint)
        self.start = "" if self.file is None else self._digest()
        if self.file is not None and self.file.exists():
            self._load(self.file)
        self.forward: Callable[[Tensor], tuple[Tensor, Tensor | None]]
        self.forward = self.together.wrapped(_Trained(model, auxiliary=extra.auxiliary > 0.0))
        if compile:
            backend = compile if isinstance(compile, str) else "inductor"
            self.forward = torch.compile(self.forward, backend=backend)

    def run(self, every_epoch: Callable[[EpochResult], None] | None) -> TrainingResult:
        started = time.perf_counter()
        data = self.data
        training, validation, test = (
            part.to(self.device) for part in (data.train, data.validation, data.test)
        )
        at_once = min(
            _EVALUATION_BATCH, max(1, _EVALUATION_PIXELS // math.prod(data.input_shape[1:]))
        )
        diverged = False
        try:
            while len(self.epochs) < self.settings.epochs:
                train_loss = self._epoch(training)
                self.together.take_over((*self.model.buffers(), *(self.average or {}).values()))
                with self._averaged():
                    found = evaluate(self.model, validation, batch_size=at_once)
                epoch = EpochResult(train_loss, *found)
                self.epochs.append(epoch)
                diverged = not (math.isfinite(train_loss) and math.isfinite(found[0]))
                if diverged:
                    break
                if self.file is not None and self.together.rank == 0:
                    self._save(self.file)
                if every_epoch is not None:
                    every_epoch(epoch)
        finally:
            for path in self.paths:
                path.rate, path.generator = 0.0, None
        if self.average is not None:
            _restore(self.model, self.average)
        test_loss, test_accuracy = (
            (math.nan, math.nan) if diverged else evaluate(self.model, test, batch_size=at_once)
        )
        return TrainingResult(
            tuple(self.epochs), test_loss, test_accuracy, time.perf_counter() - started, diverged
        )

    def _epoch(self, training: ImageSource) -> float:
        settings = self.settings
        self.model.train()
        done = len(self.epochs)
        own = self.together.generator(self.generator)
        for path in self.paths:
            path.rate = settings.regularization.drop_path * done / settings.epochs
            path.generator = own
        # A last batch of one image is left out: normalisation over it may have no variance.
        least = 2 * self.together.num
        starts = range(0, max(len(training) - least + 1, 1), settings.batch_size)
        num_steps = settings.epochs * len(starts)
        order = torch.randperm(len(training), generator=self.generator)
        batches = [order[start : start + settings.batch_size] for start in starts]
        total = torch.zeros((), device=self.device)
        for step, (images, labels) in enumerate(
            training.batches(batches), start=done * len(starts)
        ):
            factor = settings.rate.factor_at(step / num_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = settings.learning_rate * factor
            total += self._step(images, labels)
        return float(self.together.mean(total)) / len(starts)

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        extra = self.settings.regularization
        targets: Targets | None = None
        if self.augments:
            images, targets = self.settings.augmentation(
                images, labels, generator=self.generator, pixels=self.pixels
            )
        images, labels, targets, weight = self.together.part(images, labels, targets)

        def loss_of(logits: Tensor) -> Tensor:
            if targets is None:
                return weight * functional.cross_entropy(
                    logits, labels, label_smoothing=extra.label_smoothing
                )
            return weight * targets.loss(logits, extra.label_smoothing)

        with autocast_to(self.precision, self.device):
            logits, of_tower = self.forward(images)
            loss = main = loss_of(logits)
            if of_tower is not None:
                loss = main + extra.auxiliary * loss_of(of_tower)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if extra.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), extra.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            _move(self.average, self.model, extra.average)
        return main.detach()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Give the model the averaged weights inside a `with`."""
        if self.average is None:
            yield
            return
        own = _copied(self.model)
        _restore(self.model, self.average)
        yield
        _restore(self.model, own)

    # --- checkpoints ------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        return {
            "settings": self.settings.to_json(),
            "precision": str(self.precision),
            "data": self.data.digest(),
            "shapes": {name: list(part.shape) for name, part in self.model.state_dict().items()},
            "start": self.start,
            # Files of earlier versions do not say so.
            **({"compile": self.compile} if self.compile else {}),
            **({"processes": self.together.num} if self.together.num > 1 else {}),
        }

    def _digest(self) -> str:
        """Return a checksum of what the training begins with."""
        state = hashlib.sha256()
        for part in (*self.model.state_dict().values(), self.generator.get_state()):
            state.update(part.detach().cpu().contiguous().numpy().tobytes())
        return state.hexdigest()

    def _save(self, file: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
            "epochs": json.dumps([asdict(epoch) for epoch in self.epochs]),
        }
        write_checkpoint(file, self._identity(), state)

    def _load(self, file: Path) -> None:
        state = read_checkpoint(file, self._identity(), kind="training", device=self.device)
        with applying(file, "training"):
            self.model.load_state_dict(state["model"])
            self.average = state["average"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.generator.set_state(state["generator"].cpu())
            self.epochs = [EpochResult(**entry) for entry in json.loads(state["epochs"])]


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: part.detach().clone() for name, part in model.state_dict().items()}


@torch.no_grad()
def _restore(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    for name, part in model.state_dict().items():
        part.copy_(state[name])


@torch.no_grad()
def _move(average: Mapping[str, Tensor], model: nn.Module, decay: float) -> None:
    """Move a running mean towards a model; counts are taken as they are."""
    for name, part in model.state_dict().items():
        if part.is_floating_point():
            average[name].lerp_(part, 1.0 - decay)
        else:
            average[name].copy_(part)


@torch.no_grad()
def evaluate(
    model: nn.Module, source: ImageSource, *, batch_size: int = _EVALUATION_BATCH
) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy of a classifier; leaves it in eval mode.

    Args:
        model: Maps images to logits, on the device of `source`.
        source: Images and labels, a split in memory or in files.
        batch_size: Images at once, >= 1.
    """
    model.eval()
    loss = 0.0
    correct = 0
    batches = source.batches(torch.arange(len(source)).split(batch_size))
    for images, labels in batches:
        logits: Tensor = model(images)
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
        correct += int((logits.argmax(dim=1) == labels).sum())
    return loss / len(source), correct / len(source)


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = ((weights, weight_decay), (others, 0.0))
    return [{"params": group, "weight_decay": decay} for group, decay in groups if group]
