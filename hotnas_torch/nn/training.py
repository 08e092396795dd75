"""Training a classifier and measuring it."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hotnas_torch.arguments import integer, number
from hotnas_torch.nn.data import ClassificationData, ImageSource

__all__ = ["EpochResult", "TrainingResult", "TrainingSettings", "evaluate", "train"]

_EVALUATION_BATCH = 1000
# Fewer images are evaluated at once where one has more than 64 x 64 pixels.
_EVALUATION_PIXELS = _EVALUATION_BATCH * 64 * 64


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a network is trained: SGD with Nesterov momentum and a cosine learning rate.

    Args:
        epochs: Passes over the training images, >= 1.
        batch_size: Images per step, >= 2; the last, smaller batch is kept if it has two or more.
        learning_rate: At the start, > 0; it falls to 0 along half a cosine, per step.
        momentum: In [0, 1).
        weight_decay: L2 penalty on convolution and linear weights, >= 0; normalisations have none.

    Raises:
        TypeError: A setting that is no number, or no integer where it counts.
        ValueError: A setting out of range.
    """

    epochs: int = 8
    batch_size: int = 50
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2)):
            integer(name, getattr(self, name), least=least)
        number("learning_rate", self.learning_rate, above=0.0)
        number("momentum", self.momentum, least=0.0, below=1.0)
        number("weight_decay", self.weight_decay, least=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the settings, ready for `json.dumps`."""
        return asdict(self)


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
) -> TrainingResult:
    """Train a classifier in place.

    Args:
        model: Maps images (N, C, H, W) to logits (N, num_classes). It stays on its device.
        data: In memory or in files; batches are moved to the model's device.
        settings: How to train.
        generator: Orders the images, on the CPU: the order is the same on every device.
        every_epoch: Called with the figures of each finished epoch.

    Returns:
        Figures per epoch and, at the end, on the test images.
    """
    started = time.perf_counter()
    device = next(model.parameters()).device
    training, validation, test = (
        part.to(device) for part in (data.train, data.validation, data.test)
    )
    optimizer = torch.optim.SGD(
        _parameter_groups(model, settings.weight_decay),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0.0,
        foreach=True,
    )
    # A last batch of one image is left out: normalisation over it may have no variance.
    starts = range(0, max(len(training) - 1, 1), settings.batch_size)
    num_steps = settings.epochs * len(starts)
    at_once = min(_EVALUATION_BATCH, max(1, _EVALUATION_PIXELS // math.prod(data.input_shape[1:])))
    epochs: list[EpochResult] = []
    step = 0
    diverged = False
    for _ in range(settings.epochs):
        model.train()
        order = torch.randperm(len(training), generator=generator)
        batches = [order[start : start + settings.batch_size] for start in starts]
        total = torch.zeros((), device=device)
        for images, labels in training.batches(batches):
            rate = 0.5 * settings.learning_rate * (1.0 + math.cos(math.pi * step / num_steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = functional.cross_entropy(model(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
            step += 1
        train_loss = float(total) / len(starts)
        validation_loss, accuracy = evaluate(model, validation, batch_size=at_once)
        epochs.append(EpochResult(train_loss, validation_loss, accuracy))
        diverged = not (math.isfinite(train_loss) and math.isfinite(validation_loss))
        if diverged:
            break
        if every_epoch is not None:
            every_epoch(epochs[-1])
    test_loss, test_accuracy = (
        (math.nan, math.nan) if diverged else evaluate(model, test, batch_size=at_once)
    )
    return TrainingResult(
        tuple(epochs), test_loss, test_accuracy, time.perf_counter() - started, diverged
    )


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
