"""Search spaces, published or of one's own, each with its edits, strings, rows and costs."""

from typing import TYPE_CHECKING

from hotnas_torch._lazy import lazily
from hotnas_torch.spaces.any_network import AnyNetwork
from hotnas_torch.spaces.base import SearchSpace
from hotnas_torch.spaces.darts import DARTS, Genotype
from hotnas_torch.spaces.enas_macro import ENASMacro
from hotnas_torch.spaces.hyperparameters import (
    Categorical,
    Float,
    Hyperparameter,
    Integer,
    Log,
    Ordered,
)
from hotnas_torch.spaces.joint import ConfiguredNetwork, Joint
from hotnas_torch.spaces.mobilenet_v2 import MobileNetV2
from hotnas_torch.spaces.nasbench101 import NASBench101
from hotnas_torch.spaces.nasbench201 import NASBench201
from hotnas_torch.spaces.nasbench_macro import NASBenchMacro
from hotnas_torch.spaces.pooling import Pooling
from hotnas_torch.spaces.registry import NAMES, get, register
from hotnas_torch.spaces.subset import Subset
from hotnas_torch.spaces.transnas_macro import TransNASMacro
from hotnas_torch.spaces.transnas_micro import TransNASMicro

if TYPE_CHECKING:
    from hotnas_torch.spaces import declared
    from hotnas_torch.spaces.declared import (
        Block,
        Cells,
        Choice,
        Choices,
        Finite,
        hierarchical_nasbench201,
    )
else:
    __getattr__, __dir__ = lazily(
        __name__,
        declared=("Block", "Cells", "Choice", "Choices", "Finite", "hierarchical_nasbench201"),
    )

__all__ = [
    "DARTS",
    "NAMES",
    "AnyNetwork",
    "Block",
    "Categorical",
    "Cells",
    "Choice",
    "Choices",
    "ConfiguredNetwork",
    "ENASMacro",
    "Finite",
    "Float",
    "Genotype",
    "Hyperparameter",
    "Integer",
    "Joint",
    "Log",
    "MobileNetV2",
    "NASBench101",
    "NASBench201",
    "NASBenchMacro",
    "Ordered",
    "Pooling",
    "SearchSpace",
    "Subset",
    "TransNASMacro",
    "TransNASMicro",
    "declared",
    "get",
    "hierarchical_nasbench201",
    "register",
]
