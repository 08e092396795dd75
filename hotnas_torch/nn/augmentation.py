"""Random changes of training images: crops, flips, holes, and mixtures of two images."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hotnas_torch.arguments import boolean, choice, integer, number

__all__ = ["Augmentation", "Pixels", "Targets"]

_LARGEST_PIXEL = 255


class Pixels(NamedTuple):
    """How pixels in [0, 1] were shifted and scaled.

    Attributes:
        mean: Taken off, broadcasts with (C, 1, 1).
        deviation: Then divided by, likewise.
    """

    mean: Tensor
    deviation: Tensor


class Targets(NamedTuple):
    """What images show: `share` of the one label and the rest of the other.

    Attributes:
        first: (B,) int64.
        second: (B,) int64.
        share: (B,) float, in [0, 1].
    """

    first: Tensor
    second: Tensor
    share: Tensor

    def loss(self, logits: Tensor, label_smoothing: float) -> Tensor:
        """Return the mean cross-entropy, shape ()."""
        first, second = (
            functional.cross_entropy(
                logits, labels, label_smoothing=label_smoothing, reduction="none"
            )
            for labels in (self.first, self.second)
        )
        share = self.share.to(first)
        return (share * first + (1.0 - share) * second).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What is done to training images, each by its own draw, in the order of the arguments.

    Images are changed as they are, shifted and scaled: what is new in a crop or cut out is the mean
    colour (0). All draws come from one generator on the CPU, so that they are equal on every device
    and after an interruption.

    Args:
        auto_augment: The policy learned on `"cifar10"` or `"imagenet"` in torchvision's
            `transforms.v2.AutoAugment`, which must be installed (`pip install
            hotnas-torch[vision]`); None for none.
        crop: Pixels that images may be shifted by in each direction, >= 0; what leaves is lost.
        flip: Mirror every second image, left to right.
        cutout: Side of a square that is cut out around a random pixel, >= 0; 0 cuts nothing.
        mixup: Parameter of the Beta distribution that two whole images are mixed by, >= 0; 0 mixes
            nothing.
        cutmix: Parameter of the Beta distribution of the area that is pasted from another image,
            >= 0; 0 pastes nothing. With `mixup` as well, each batch does one of the two.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.

    Reference: DeVries and Taylor, Cutout, 2017; Zhang et al., mixup, ICLR 2018; Yun et al., CutMix,
        ICCV 2019; Cubuk et al., AutoAugment, CVPR 2019.
    """

    auto_augment: Literal["cifar10", "imagenet"] | None = None
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if self.auto_augment is not None:
            choice("auto_augment", self.auto_augment, ("cifar10", "imagenet"))
        for name in ("crop", "cutout"):
            integer(name, getattr(self, name), least=0)
        boolean("flip", self.flip)
        for name in ("mixup", "cutmix"):
            number(name, getattr(self, name), least=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the settings, ready for `json.dumps`."""
        return asdict(self)

    def check(self, input_shape: tuple[int, int, int], pixels: Pixels | None) -> None:
        """Raise unless images of a shape can be changed so.

        Raises:
            ValueError: A crop or a hole that leaves nothing of an image, or a policy for images
                whose pixels nobody can restore.
            ImportError: The policy is torchvision's, which is not installed.
        """
        side = min(input_shape[1:])
        if self.crop >= side:
            raise ValueError(f"crop must be below {side}, the side of an image; got {self.crop}")
        if self.cutout >= 2 * side:
            raise ValueError(
                f"cutout must be below {2 * side}, twice the side of an image; got {self.cutout}"
            )
        if self.auto_augment is not None:
            if pixels is None:
                raise ValueError(
                    "auto_augment needs pixels as they were: the data do not say how theirs were"
                    " shifted and scaled (give ImageData pixels=, or leave the policy out)"
                )
            _policy(self.auto_augment)

    def __call__(
        self, images: Tensor, labels: Tensor, *, generator: torch.Generator, pixels: Pixels | None
    ) -> tuple[Tensor, Targets]:
        """Return changed images, (B, C, H, W), and what they show.

        Args:
            images: (B, C, H, W), not changed.
            labels: (B,) int64.
            generator: Source of randomness, on the CPU.
            pixels: How pixels were shifted and scaled; of `auto_augment` only.
        """
        if self.auto_augment is not None and pixels is not None:
            images = _auto_augmented(images, self.auto_augment, pixels, generator)
        if self.crop:
            images = _cropped(images, self.crop, generator)
        if self.flip:
            mirrored = torch.rand(len(images), generator=generator) < 0.5
            chosen = mirrored.to(images.device)[:, None, None, None]
            images = torch.where(chosen, images.flip(-1), images)
        if self.cutout:
            images = images.masked_fill(_holes(images, self.cutout, generator), 0.0)
        share = torch.ones(len(images))
        other = torch.arange(len(images))
        if self.mixup or self.cutmix:
            pastes = bool(self.cutmix) and (
                not self.mixup or float(torch.rand((), generator=generator)) < 0.5
            )
            other = torch.randperm(len(images), generator=generator)
            drawn = _beta(self.cutmix if pastes else self.mixup, generator)
            if pastes:
                images, drawn = _pasted(images, images[other.to(images.device)], drawn, generator)
            else:
                images = drawn * images + (1.0 - drawn) * images[other.to(images.device)]
            share = share * drawn
        return images, Targets(
            labels, labels[other.to(labels.device)], share.to(labels.device, non_blocking=True)
        )


def _cropped(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    num, _, height, width = images.shape
    shifts = torch.randint(2 * most + 1, (2, num), generator=generator).to(images.device)
    padded = functional.pad(images, (most,) * 4)
    rows = shifts[0][:, None] + torch.arange(height, device=images.device)
    columns = shifts[1][:, None] + torch.arange(width, device=images.device)
    places = torch.arange(num, device=images.device)[:, None, None]
    # Advanced indices around a slice put the channels last.
    return padded[places, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _holes(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return where pixels are cut out, (B, 1, H, W) bool; holes reach over the border."""
    num, _, *size = images.shape
    inside = []
    for length in size:
        first = torch.randint(length, (num, 1), generator=generator) - side // 2
        places = torch.arange(length)
        inside.append((places >= first) & (places < first + side))
    return (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(images.device)


def _beta(parameter: float, generator: torch.Generator) -> float:
    """Draw from Beta(parameter, parameter), from a generator that is the caller's."""
    drawn = torch._standard_gamma(
        torch.full((2,), parameter, dtype=torch.float64), generator=generator
    )
    total = float(drawn.sum())
    return float(drawn[0]) / total if total > 0.0 else 0.5


def _pasted(
    images: Tensor, others: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Paste a rectangle of 1 - share of the area; returns what is left of the first images."""
    height, width = images.shape[2:]
    side = (1.0 - share) ** 0.5
    bounds = []
    for length in (height, width):
        centre = int(torch.randint(length, (), generator=generator))
        half = int(length * side) // 2
        bounds.append((max(centre - half, 0), min(centre + half, length)))
    (top, bottom), (left, right) = bounds
    result = images.clone()
    result[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return result, 1.0 - (bottom - top) * (right - left) / (height * width)


def _policy(name: str) -> Any:
    try:
        from torchvision.transforms import v2  # type: ignore[import-not-found,unused-ignore]
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            "auto_augment is torchvision's, which cannot be imported (pip install"
            f" hotnas-torch[vision], for the torch that is installed): {error}"
        ) from error
    return v2.AutoAugment(getattr(v2.AutoAugmentPolicy, name.upper()))


def _auto_augmented(
    images: Tensor, name: str, pixels: Pixels, generator: torch.Generator
) -> Tensor:
    policy = _policy(name)
    mean, deviation = (part.to(images) for part in pixels)
    plain = ((images * deviation + mean).clamp(0.0, 1.0) * _LARGEST_PIXEL).round().byte()
    seed = int(torch.randint(2**62, (), generator=generator))
    # Torchvision draws from torch's own state; seeded, and given back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        changed = torch.stack([policy(image) for image in plain])
    return (changed.to(images) / _LARGEST_PIXEL - mean) / deviation
