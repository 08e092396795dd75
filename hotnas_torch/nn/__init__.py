"""Torch modules built from architectures, and their training."""

from hotnas_torch.nn.augmentation import Augmentation, Pixels
from hotnas_torch.nn.building import ModuleBuilder
from hotnas_torch.nn.cifar import cifar10, cifar100
from hotnas_torch.nn.counting import Costs, CostTable
from hotnas_torch.nn.darts import DARTSModule, DARTSSkeleton, DARTSSupernet
from hotnas_torch.nn.data import ClassificationData, ImageData, Split, digits
from hotnas_torch.nn.hierarchical201 import HierarchicalNASBench201Module
from hotnas_torch.nn.image_folder import FolderImages, image_folder
from hotnas_torch.nn.initialization import build
from hotnas_torch.nn.nasbench201 import NASBench201Module, Skeleton
from hotnas_torch.nn.protocol import PROTOCOLS, LearningRate, Regularization, TrainingSettings
from hotnas_torch.nn.supernets.differentiable import (
    DifferentiableSearch,
    DifferentiableSettings,
    SearchEpoch,
)
from hotnas_torch.nn.supernets.learned_hierarchy import (
    LearnedHierarchySearch,
    LearnedHierarchySettings,
)
from hotnas_torch.nn.supernets.mixture import SupernetMixture
from hotnas_torch.nn.supernets.mobile_supernets import MacroSupernet, MobileNetSupernet
from hotnas_torch.nn.supernets.pooling_supernet import PoolingSupernet
from hotnas_torch.nn.supernets.reward import Reward
from hotnas_torch.nn.supernets.single_path import SinglePathSupernet
from hotnas_torch.nn.supernets.supernet201 import NASBench201Supernet
from hotnas_torch.nn.supernets.supernet_search import (
    SupernetEpoch,
    SupernetResult,
    SupernetSearch,
    SupernetSettings,
)
from hotnas_torch.nn.templates import FGWTemplates
from hotnas_torch.nn.training import EpochResult, TrainingResult, evaluate, train
from hotnas_torch.nn.transnas import TransNASMacroModule
from hotnas_torch.nn.zero_cost import (
    ZeroCost,
    jacobian_covariance,
    num_parameters,
    synflow,
)

__all__ = [
    "PROTOCOLS",
    "Augmentation",
    "ClassificationData",
    "CostTable",
    "Costs",
    "DARTSModule",
    "DARTSSkeleton",
    "DARTSSupernet",
    "DifferentiableSearch",
    "DifferentiableSettings",
    "EpochResult",
    "FGWTemplates",
    "FolderImages",
    "HierarchicalNASBench201Module",
    "ImageData",
    "LearnedHierarchySearch",
    "LearnedHierarchySettings",
    "LearningRate",
    "MacroSupernet",
    "MobileNetSupernet",
    "ModuleBuilder",
    "NASBench201Module",
    "NASBench201Supernet",
    "Pixels",
    "PoolingSupernet",
    "Regularization",
    "Reward",
    "SearchEpoch",
    "SinglePathSupernet",
    "Skeleton",
    "Split",
    "SupernetEpoch",
    "SupernetMixture",
    "SupernetResult",
    "SupernetSearch",
    "SupernetSettings",
    "TrainingResult",
    "TrainingSettings",
    "TransNASMacroModule",
    "ZeroCost",
    "build",
    "cifar10",
    "cifar100",
    "digits",
    "evaluate",
    "image_folder",
    "jacobian_covariance",
    "num_parameters",
    "synflow",
    "train",
]
