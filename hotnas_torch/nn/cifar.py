"""CIFAR-10 and CIFAR-100 from a folder of the user's own."""

from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from hotnas_torch.files import read_bytes
from hotnas_torch.nn.augmentation import Pixels
from hotnas_torch.nn.data import ImageData, Split

__all__ = ["cifar10", "cifar100"]

_SHAPE = (3, 32, 32)
_IMAGE = 3 * 32 * 32
_MOST_BYTES = 2**30
_LARGEST_PIXEL = 255.0


class _Version(NamedTuple):
    """Files of a version; of the bytes before an image, the last is the label."""

    name: str
    classes: int
    label_bytes: int
    train: tuple[str, ...]
    test: str


_CIFAR10 = _Version(
    "cifar10", 10, 1, tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"
)
_CIFAR100 = _Version("cifar100", 100, 2, ("train.bin",), "test.bin")


def cifar10(
    folder: str | PathLike[str],
    *,
    generator: torch.Generator,
    num_train: int = 25_000,
    num_validation: int | None = None,
) -> ImageData:
    """Read CIFAR-10 from its binary files.

    That version is read because the one for Python consists of pickles, which run whatever they
    say. Pixels are shifted and scaled to mean 0 and standard deviation 1, per channel, over the
    training images. Augmentation is a matter of `TrainingSettings`.

    Args:
        folder: Holds `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, as in
            `cifar-10-binary.tar.gz`.
        generator: Shuffles the training files' images before they are split.
        num_train: Training images, >= 1.
        num_validation: Validation images, >= 1; None takes the rest. DARTS takes halves.

    Returns:
        Images (N, 3, 32, 32) float32 in three parts; the test images are those of the test file.

    Raises:
        ValueError: A file is missing or of another size, a label is out of range, or the parts do
            not fit; the message names the file.
    """
    return _load(_CIFAR10, folder, generator, num_train, num_validation)


def cifar100(
    folder: str | PathLike[str],
    *,
    generator: torch.Generator,
    num_train: int = 25_000,
    num_validation: int | None = None,
) -> ImageData:
    """Read CIFAR-100 from its binary files, with its 100 fine labels; else as `cifar10`.

    Args:
        folder: Holds `train.bin` and `test.bin`, as in `cifar-100-binary.tar.gz`.
        generator: Shuffles the training file's images before they are split.
        num_train: Training images, >= 1.
        num_validation: Validation images, >= 1; None takes the rest.

    Returns:
        Images (N, 3, 32, 32) float32 in three parts; the test images are those of the test file.

    Raises:
        ValueError: As `cifar10`.
    """
    return _load(_CIFAR100, folder, generator, num_train, num_validation)


def _load(
    version: _Version,
    folder: str | PathLike[str],
    generator: torch.Generator,
    num_train: int,
    num_validation: int | None,
) -> ImageData:
    path = Path(folder)
    images, labels = (
        torch.cat(part)
        for part in zip(*(_read(path / name, version) for name in version.train), strict=True)
    )
    test_images, test_labels = _read(path / version.test, version)
    if num_validation is None:
        num_validation = len(labels) - num_train
    if not (num_train >= 1 and num_validation >= 1 and num_train + num_validation <= len(labels)):
        raise ValueError(
            f"num_train and num_validation must be at least 1 and at most {len(labels):,} together;"
            f" got {num_train} and {num_validation}"
        )
    order = torch.randperm(len(labels), generator=generator, device=generator.device).cpu()
    train, validation = order[:num_train], order[num_train : num_train + num_validation]
    deviation, mean = torch.std_mean(images[train], dim=(0, 2, 3), keepdim=True)
    deviation = torch.where(deviation > 0.0, deviation, 1.0)
    split_train, split_validation, split_test = (
        Split((part - mean) / deviation, names)
        for part, names in (
            (images[train], labels[train]),
            (images[validation], labels[validation]),
            (test_images, test_labels),
        )
    )
    return ImageData(
        version.name,
        split_train,
        split_validation,
        split_test,
        num_classes=version.classes,
        pixels=Pixels(mean[0], deviation[0]),
    )


def _read(path: Path, version: _Version) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, 32, 32) in [0, 1] and labels of a file of records."""
    record = version.label_bytes + _IMAGE
    archive = f"cifar-{version.classes}-binary.tar.gz"
    try:
        content = read_bytes(path, most=_MOST_BYTES)
    except OSError as error:
        raise ValueError(
            f"cannot read {path}: {error.strerror} (unpack {archive} and pass the folder"
            " with its .bin files)"
        ) from error
    if not content or len(content) % record:
        raise ValueError(
            f"{path} must consist of records of {record} bytes; got {len(content):,} bytes (not"
            " the binary version, or cut off)"
        )
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(-1, record)
    labels = records[:, version.label_bytes - 1].long()
    if int(labels.max()) >= version.classes:
        raise ValueError(
            f"{path} holds the label {int(labels.max())}, expected 0..{version.classes - 1}"
        )
    return records[:, version.label_bytes :].reshape(-1, *_SHAPE).float() / _LARGEST_PIXEL, labels
