"""How networks are trained: settings, and those that papers train with."""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from hotnas_torch.arguments import choice, integer, kind, number
from hotnas_torch.nn.augmentation import Augmentation

__all__ = ["PROTOCOLS", "LearningRate", "Regularization", "TrainingSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRate:
    """How the learning rate goes on from its start, per step.

    Args:
        schedule: `"cosine"`: along half a cosine to `last`; `"step"`: times `factor` at each share
            of the training in `steps`.
        last: Share of the start that the cosine ends at, in [0, 1].
        steps: Increasing shares of the training, in (0, 1).
        factor: In (0, 1].
        warm_up: Share of the training in which the rate grows linearly to its start, in [0, 1).

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.

    Example:
        >>> rate = LearningRate(schedule="step", steps=(0.5, 0.75), warm_up=0.1)
        >>> [round(rate.factor_at(share), 3) for share in (0.05, 0.2, 0.6, 0.8)]
        [0.5, 1.0, 0.1, 0.01]
    """

    schedule: Literal["cosine", "step"] = "cosine"
    last: float = 0.0
    steps: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1
    warm_up: float = 0.0

    def __post_init__(self) -> None:
        choice("schedule", self.schedule, ("cosine", "step"))
        number("last", self.last, least=0.0, most=1.0)
        number("factor", self.factor, above=0.0, most=1.0)
        number("warm_up", self.warm_up, least=0.0, below=1.0)
        given: object = self.steps
        if not isinstance(given, tuple | list):
            raise TypeError(f"steps must be a tuple of shares; got {given!r}")
        object.__setattr__(self, "steps", tuple(given))
        before = 0.0
        for place, share in enumerate(self.steps):
            number(f"steps[{place}]", share, above=before, below=1.0)
            before = share

    def factor_at(self, progress: float) -> float:
        """Return the rate over its start, at a share of the training in [0, 1]."""
        if progress < self.warm_up:
            return progress / self.warm_up
        if self.schedule == "step":
            return float(self.factor ** sum(progress >= share for share in self.steps))
        share = (progress - self.warm_up) / (1.0 - self.warm_up)
        return self.last + (1.0 - self.last) * 0.5 * (1.0 + math.cos(math.pi * share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularization:
    """What keeps a network from learning its training images by heart, beside augmentation.

    Args:
        label_smoothing: Share of the target that all classes have alike, in [0, 1).
        auxiliary: Weight of the loss of the auxiliary tower, >= 0; of networks that have one.
        drop_path: Largest probability that an operation of an image is left out, in [0, 1); it
            grows linearly with the epochs, from 0. Of networks with operations to leave out.
        clip: Largest norm of the gradient, > 0; None clips nothing.
        average: Decay of the running mean of all weights, per step, in [0, 1); what is evaluated,
            and what the training ends with, is that mean. 0 averages nothing.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.
    """

    label_smoothing: float = 0.0
    auxiliary: float = 0.0
    drop_path: float = 0.0
    clip: float | None = None
    average: float = 0.0

    def __post_init__(self) -> None:
        for name in ("label_smoothing", "drop_path", "average"):
            number(name, getattr(self, name), least=0.0, below=1.0)
        number("auxiliary", self.auxiliary, least=0.0)
        if self.clip is not None:
            number("clip", self.clip, above=0.0)


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a network is trained: SGD with momentum.

    Args:
        epochs: Passes over the training images, >= 1.
        batch_size: Images per step, >= 2; the last, smaller batch is kept if it has two or more.
        learning_rate: At the start, > 0.
        momentum: In [0, 1).
        weight_decay: L2 penalty on convolution and linear weights, >= 0; normalisations have none.
        nesterov: Whether the momentum is Nesterov's.
        rate: How the learning rate goes on; by default along half a cosine to 0.
        augmentation: What is done to training images; by default nothing.
        regularization: By default none but the weight decay.
        precision: What convolutions and linear layers compute with: `"float32"`, `"bfloat16"` or
            `"float16"` (with scaled losses); `"auto"` takes float32 on a CPU, and on a GPU bfloat16
            where it has it and else float16.

    Raises:
        TypeError: A setting that is no number, or no integer where it counts.
        ValueError: A setting out of range.

    Example:
        >>> settings = TrainingSettings.of("darts", epochs=2, batch_size=32)
        >>> settings.epochs, settings.augmentation.cutout, settings.regularization.auxiliary
        (2, 16, 0.4)
    """

    epochs: int = 8
    batch_size: int = 50
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = True
    rate: LearningRate = field(default_factory=LearningRate)
    augmentation: Augmentation = field(default_factory=Augmentation)
    regularization: Regularization = field(default_factory=Regularization)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2)):
            integer(name, getattr(self, name), least=least)
        number("learning_rate", self.learning_rate, above=0.0)
        number("momentum", self.momentum, least=0.0, below=1.0)
        number("weight_decay", self.weight_decay, least=0.0)
        kind("nesterov", self.nesterov, bool)
        kind("rate", self.rate, LearningRate)
        kind("augmentation", self.augmentation, Augmentation)
        kind("regularization", self.regularization, Regularization)
        choice("precision", self.precision, ("auto", "float32", "bfloat16", "float16"))

    @classmethod
    def of(cls, protocol: str, **changes: Any) -> "TrainingSettings":
        """Return the protocol of a paper, with changes.

        Args:
            protocol: A name in `PROTOCOLS`.
            **changes: Settings by name.

        Raises:
            TypeError: An unknown setting, or one of the wrong kind.
            ValueError: An unknown protocol, or a setting out of range.
        """
        choice("protocol", protocol, tuple(PROTOCOLS))
        known = [one.name for one in fields(cls)]
        for name in changes:
            if name not in known:
                raise TypeError(
                    f"{name!r} is no setting of a training; they are {', '.join(known)}"
                )
        return replace(PROTOCOLS[protocol], **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the settings, ready for `json.dumps`; later ones only where they are not usual."""
        plain, found = TrainingSettings(), asdict(self)
        found["rate"]["steps"] = list(self.rate.steps)
        return {
            name: value
            for name, value in found.items()
            if name in _ALWAYS or getattr(self, name) != getattr(plain, name)
        }


# What records of earlier versions hold.
_ALWAYS = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay")

_CIFAR = Augmentation(crop=4, flip=True)
_DARTS = TrainingSettings(
    epochs=600,
    batch_size=96,
    learning_rate=0.025,
    weight_decay=3e-4,
    nesterov=False,
    augmentation=replace(_CIFAR, cutout=16),
    regularization=Regularization(auxiliary=0.4, drop_path=0.2, clip=5.0),
)

PROTOCOLS: MappingProxyType[str, TrainingSettings] = MappingProxyType(
    {
        "darts": _DARTS,
        "darts_search": replace(
            _DARTS, epochs=50, batch_size=64, regularization=Regularization(clip=5.0)
        ),
        "nago": replace(_DARTS, regularization=Regularization()),
        "nago_large": TrainingSettings(
            epochs=250, batch_size=256, augmentation=Augmentation(flip=True, cutout=112)
        ),
        "anasod_search": replace(
            _DARTS, epochs=30, augmentation=_CIFAR, regularization=Regularization(clip=5.0)
        ),
        "anasod": replace(_DARTS, augmentation=replace(_CIFAR, cutmix=1.0)),
        "anasod_plus": replace(
            _DARTS,
            epochs=1500,
            augmentation=replace(_CIFAR, cutmix=1.0, auto_augment="cifar10"),
        ),
        "nasbench201": TrainingSettings(epochs=200, batch_size=256, augmentation=_CIFAR),
        "nasbench_macro": TrainingSettings(
            epochs=50, batch_size=256, nesterov=False, augmentation=_CIFAR
        ),
        "imagenet": TrainingSettings(
            epochs=250,
            batch_size=256,
            weight_decay=1e-4,
            augmentation=Augmentation(flip=True),
            regularization=Regularization(label_smoothing=0.1, average=0.9999),
            precision="auto",
        ),
    }
)
"""Protocols by name; docs/papers.md says what of each is printed.

`"darts"`: the evaluation of Liu, Simonyan and Yang, ICLR 2019; `"darts_search"`: of networks that
are compared in a search. `"nago"` and `"nago_large"`: small and large images of Ru et al., NeurIPS
2020. `"anasod_search"`, `"anasod"` and `"anasod_plus"`: Wan et al., CVPR 2022. `"nasbench201"` and
`"nasbench_macro"`: those of the tables. `"imagenet"`: no paper's, what is usual."""
