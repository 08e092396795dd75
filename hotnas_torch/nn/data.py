"""Images with labels, split for training, choosing and reporting."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hotnas_torch.nn.augmentation import Pixels

__all__ = [
    "ClassificationData",
    "ImageData",
    "ImageSource",
    "LabelledImages",
    "Split",
    "digits",
]

_LARGEST_PIXEL = 16.0


class ImageSource(Protocol):
    """Images with labels that are taken batch by batch, from memory or from files."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def to(self, device: torch.device | str) -> "ImageSource":
        """Return a source whose batches lie on a device."""
        ...

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels.

        Args:
            order: Places of the images of each batch, (B,) int64 on the CPU.
        """
        ...


class LabelledImages(Protocol):
    """A data set for training and choosing, in memory or in files."""

    @property
    def name(self) -> str:
        """What it is called in records."""
        ...

    @property
    def train(self) -> ImageSource:
        """What networks are trained on."""
        ...

    @property
    def validation(self) -> ImageSource:
        """What a search chooses by."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        ...

    def digest(self) -> str:
        """Return a checksum, hex."""
        ...


class ClassificationData(LabelledImages, Protocol):
    """A data set for training, choosing and reporting."""

    @property
    def test(self) -> ImageSource:
        """What is reported at the end, and never chosen by."""
        ...

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        ...


@dataclass(frozen=True, slots=True)
class Split:
    """Images and their labels.

    Args:
        images: (N, C, H, W) float, N >= 1.
        labels: (N,) int64.

    Raises:
        TypeError: Wrong dtypes.
        ValueError: Wrong shapes, or no image.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if not self.images.is_floating_point() or self.labels.dtype != torch.int64:
            raise TypeError(
                "images must be floating point and labels int64; got "
                f"{self.images.dtype} and {self.labels.dtype}"
            )
        if self.images.dim() != 4 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                "images must have shape (N, C, H, W) and labels (N,); got "
                f"{tuple(self.images.shape)} and {tuple(self.labels.shape)}"
            )
        if not len(self.labels):
            raise ValueError("images must hold at least one image; got none")

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """Return the split on a device."""
        return Split(self.images.to(device), self.labels.to(device))

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels at the given places, batch by batch."""
        for places in order:
            here = places.to(self.labels.device)
            yield self.images[here], self.labels[here]


@dataclass(frozen=True, slots=True)
class ImageData:
    """A classification data set in three parts.

    Args:
        name: What it is called in records.
        train: What networks are trained on.
        validation: What a search chooses by.
        test: What is reported at the end, and never chosen by.
        num_classes: Number of classes; labels are 0..num_classes-1.
        pixels: How pixels in [0, 1] were shifted and scaled; None where nobody knows.

    Raises:
        ValueError: The parts hold images of different shapes, or a label is out of range.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    pixels: Pixels | None = None

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            split: Split = getattr(self, part)
            if split.images.shape[1:] != self.train.images.shape[1:]:
                raise ValueError(
                    f"{part} must hold images of shape {self.input_shape} as train does; got "
                    f"{tuple(split.images.shape[1:])}"
                )
            low, high = split.labels.aminmax()
            if low < 0 or high >= self.num_classes:
                raise ValueError(
                    f"{part} must hold labels in 0..{self.num_classes - 1}; got "
                    f"{low.item()}..{high.item()}"
                )

    def digest(self) -> str:
        """Return a checksum of all images and labels, hex."""
        state = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for tensor in (split.images, split.labels):
                state.update(str((tuple(tensor.shape), tensor.dtype)).encode())
                state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return state.hexdigest()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def digits(
    *,
    generator: torch.Generator,
    num_train: int = 500,
    num_validation: int = 800,
) -> ImageData:
    """Load the 1,797 handwritten digits that ship with scikit-learn, 8 x 8 pixels, 10 classes.

    Pixels are shifted and scaled to mean 0 and standard deviation 1 over the training images.

    Args:
        generator: Shuffles the images before they are split.
        num_train: Training images, >= 1.
        num_validation: Validation images, >= 1. What is left, at least one image, is the test set.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: The parts do not fit.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits data set ships with scikit-learn, which is not installed "
            "(pip install scikit-learn)"
        ) from error
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()[:, None] / _LARGEST_PIXEL
    labels = torch.from_numpy(bunch.target).long()
    num_images = len(labels)
    if not (num_train >= 1 and num_validation >= 1 and num_train + num_validation < num_images):
        raise ValueError(
            "num_train and num_validation must be at least 1 and leave at least one of the "
            f"{num_images} images for testing; got {num_train} and {num_validation}"
        )
    order = torch.randperm(num_images, generator=generator, device=generator.device).cpu()
    images, labels = images[order], labels[order]
    deviation, mean = torch.std_mean(images[:num_train])
    # A handful of constant images has no deviation to scale by.
    scale = deviation.item() if math.isfinite(deviation.item()) and deviation > 0 else 1.0
    images = (images - mean) / scale
    sizes = [num_train, num_validation, num_images - num_train - num_validation]
    train, validation, test = (
        Split(part, names)
        for part, names in zip(images.split(sizes), labels.split(sizes), strict=True)
    )
    return ImageData(
        "digits",
        train,
        validation,
        test,
        num_classes=int(bunch.target_names.size),
        pixels=Pixels(mean.reshape(1, 1, 1), torch.full((1, 1, 1), scale)),
    )
