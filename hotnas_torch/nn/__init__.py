"""Torch modules built from architectures, and their training."""

from hotnas_torch.nn.data import ImageData, Split, digits
from hotnas_torch.nn.initialization import build, initialize
from hotnas_torch.nn.nasbench201 import CellModule, NASBench201Module, Skeleton
from hotnas_torch.nn.training import (
    EpochResult,
    TrainingResult,
    TrainingSettings,
    evaluate,
    train,
)

__all__ = [
    "CellModule",
    "EpochResult",
    "ImageData",
    "NASBench201Module",
    "Skeleton",
    "Split",
    "TrainingResult",
    "TrainingSettings",
    "build",
    "digits",
    "evaluate",
    "initialize",
    "train",
]
