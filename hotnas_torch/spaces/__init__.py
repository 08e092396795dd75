"""Search spaces: published sets of networks, each with its edits, strings, rows and costs."""

from typing import Any

from hotnas_torch.arguments import choice
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
from hotnas_torch.spaces.subset import Subset
from hotnas_torch.spaces.transnas_macro import TransNASMacro
from hotnas_torch.spaces.transnas_micro import TransNASMicro

__all__ = [
    "DARTS",
    "NAMES",
    "Categorical",
    "ConfiguredNetwork",
    "ENASMacro",
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
    "get",
]

_SPACES: dict[str, type[SearchSpace]] = {
    space.name: space
    for space in (
        NASBench101,
        NASBench201,
        TransNASMacro,
        DARTS,
        NASBenchMacro,
        Pooling,
        MobileNetV2,
        TransNASMicro,
        ENASMacro,
    )
}

NAMES = tuple(_SPACES)
"""Names by which `get` builds a space."""


def get(name: str, **options: Any) -> SearchSpace:
    """Build a search space by its name.

    Args:
        name: `"nasbench101"`, `"nasbench201"`, `"transnas_macro"`, `"darts"`,
            `"nasbench_macro"`, `"pooling"`, `"mobilenet_v2"`, `"transnas_micro"` or
            `"enas_macro"`.
        **options: The space's own options, for example `contract_skip=True`.

    Raises:
        ValueError: Unknown name; the message lists the known ones.
        TypeError: An option that the space does not have.

    Example:
        >>> get("pooling").size()
        36
    """
    return _SPACES[choice("name", name, NAMES)](**options)
