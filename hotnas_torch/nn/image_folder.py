"""Data sets of image files in folders, one folder per class, decoded as they are needed."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from hotnas_torch.arguments import integer
from hotnas_torch.nn.augmentation import Pixels

__all__ = ["FolderImages", "FolderSplit", "image_folder"]

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp"})
# Means and standard deviations of ImageNet's channels, as everyone takes them.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_SHRINK = 256 / 224
_LARGEST_PIXEL = 255.0
_AHEAD = 2


@dataclass(frozen=True, slots=True)
class FolderSplit:
    """Image files with labels, decoded batch by batch.

    The next two batches are decoded in threads while one is used; their content and order do not
    depend on that.

    Args:
        files: The N files.
        labels: (N,) int64 on the CPU.
        size: Height and width of the images that come out, in pixels.
        num_threads: Threads that decode.
        device: Where batches lie.
    """

    files: tuple[Path, ...]
    labels: Tensor
    size: int
    num_threads: int
    device: torch.device

    def __len__(self) -> int:
        return len(self.files)

    def to(self, device: torch.device | str) -> "FolderSplit":
        """Return the same files with batches on a device."""
        return replace(self, device=torch.device(device))

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (B, 3, size, size) float32 and labels (B,) int64.

        Pixels are shifted and scaled by the means and standard deviations of ImageNet's channels.

        Args:
            order: Places of the images of each batch, (B,) int64 on the CPU.

        Raises:
            ValueError: A file cannot be decoded; the message names it.
        """
        mean, deviation = (
            torch.tensor(values, device=self.device)[:, None, None]
            for values in (_MEAN, _DEVIATION)
        )
        waiting: deque[tuple[Tensor, list[Future[Tensor]]]] = deque()
        remaining = iter(order)
        with ThreadPoolExecutor(self.num_threads) as threads:
            try:
                while True:
                    while len(waiting) <= _AHEAD and (places := next(remaining, None)) is not None:
                        files = [self.files[place] for place in places.tolist()]
                        waiting.append(
                            (places, [threads.submit(_decode, file, self.size) for file in files])
                        )
                    if not waiting:
                        return
                    places, decoded = waiting.popleft()
                    images = torch.stack([future.result() for future in decoded]).to(self.device)
                    yield (
                        (images.float() / _LARGEST_PIXEL - mean) / deviation,
                        self.labels[places].to(self.device),
                    )
            finally:
                for _, decoded in waiting:
                    for future in decoded:
                        future.cancel()


@dataclass(frozen=True, slots=True)
class FolderImages:
    """A classification data set of image files in three parts.

    Args:
        name: What it is called in records.
        train: What networks are trained on.
        validation: What a search chooses by.
        test: What is reported at the end, and never chosen by.
        classes: Names of the classes, by label.
    """

    name: str
    train: FolderSplit
    validation: FolderSplit
    test: FolderSplit
    classes: tuple[str, ...]

    @property
    def pixels(self) -> Pixels:
        """How pixels were shifted and scaled."""
        mean, deviation = (torch.tensor(part)[:, None, None] for part in (_MEAN, _DEVIATION))
        return Pixels(mean, deviation)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return 3, self.train.size, self.train.size

    def digest(self) -> str:
        """Return a checksum of which files in which order, of their sizes and labels, hex."""
        state = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            state.update(f"{len(split)} {split.size}".encode())
            for file, label in zip(split.files, split.labels.tolist(), strict=True):
                named = "/".join(file.parts[-2:])
                state.update(f"{named} {file.stat().st_size} {label}\n".encode())
        return state.hexdigest()


def image_folder(
    folder: str | PathLike[str],
    *,
    generator: torch.Generator,
    size: int = 224,
    num_train: int | None = None,
    num_validation: int | None = None,
    num_threads: int = 8,
) -> FolderImages:
    """Find the images of a data set laid out as ImageNet is.

    The files below `train/<class>/` are shuffled and split for training and validation, those
    below `val/<class>/` are for testing. They stay on disk and are decoded by Pillow when a batch
    asks for them: the shorter side is scaled to 8/7 of `size` and the middle is cut out. There is
    no augmentation.

    Args:
        folder: Holds `train` and `val`, each with a folder per class.
        generator: Shuffles the files below `train` before they are split.
        size: Height and width of the images, in pixels, >= 1.
        num_train: Training images, >= 1; None takes half.
        num_validation: Validation images, >= 1; None takes the rest.
        num_threads: Threads that decode, >= 1.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: A folder is missing or has no images, `train` and `val` have other classes,
            the parts do not fit, or a number is out of range.
    """
    _pillow()
    for name, value in (("size", size), ("num_threads", num_threads)):
        integer(name, value, least=1)
    path = Path(folder)
    classes, files, labels = _scan(path / "train")
    test_classes, test_files, test_labels = _scan(path / "val")
    if test_classes != classes:
        differing = sorted(set(classes) ^ set(test_classes))
        raise ValueError(
            f"{path / 'train'} and {path / 'val'} must have the same classes; {differing[0]!r} is "
            "in one of them only"
        )
    if num_train is None:
        num_train = len(files) // 2
    if num_validation is None:
        num_validation = len(files) - num_train
    if not (num_train >= 1 and num_validation >= 1 and num_train + num_validation <= len(files)):
        raise ValueError(
            "num_train and num_validation must be at least 1 and at most "
            f"{len(files):,} together; got {num_train} and {num_validation}"
        )
    order = torch.randperm(len(files), generator=generator, device=generator.device).tolist()

    def split(chosen_files: Sequence[Path], chosen_labels: Sequence[int]) -> FolderSplit:
        return FolderSplit(
            tuple(chosen_files),
            torch.tensor(chosen_labels, dtype=torch.int64),
            size,
            num_threads,
            torch.device("cpu"),
        )

    parts = [
        split([files[place] for place in places], [labels[place] for place in places])
        for places in (order[:num_train], order[num_train : num_train + num_validation])
    ]
    return FolderImages(
        path.resolve().name, parts[0], parts[1], split(test_files, test_labels), classes
    )


def _scan(folder: Path) -> tuple[tuple[str, ...], list[Path], list[int]]:
    """Return class names, files and their labels, in the order of their names."""
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is no folder (expected train and val, each with a folder per class)"
        )
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted(
            file for file in (folder / name).iterdir() if file.suffix.lower() in _SUFFIXES
        )
        if not found:
            raise ValueError(
                f"{folder / name} must hold images ({', '.join(sorted(_SUFFIXES))}); got none"
            )
        files += found
        labels += [label] * len(found)
    if len(names) < 2:
        raise ValueError(f"{folder} must hold at least two folders of classes; got {len(names)}")
    return tuple(names), files, labels


def _decode(file: Path, size: int) -> Tensor:
    """Return (3, size, size) uint8."""
    image_module = _pillow()
    try:
        with image_module.open(file) as image:
            # Lets a JPEG decoder leave out detail that is scaled away.
            image.draft("RGB", (2 * size, 2 * size))
            pixels = image.convert("RGB")
    except Exception as error:  # whatever Pillow's decoders raise, among it what bounds sizes
        raise ValueError(f"cannot decode {file}: {error}") from error
    shorter = round(size * _SHRINK)
    scale = shorter / min(pixels.size)
    width, height = (max(size, round(side * scale)) for side in pixels.size)
    pixels = pixels.resize((width, height), image_module.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = pixels.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "images are decoded by Pillow, which is not installed (pip install pillow)"
        ) from error
    return Image
