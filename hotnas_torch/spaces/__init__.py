"""Search spaces: published sets of networks, each with its edits, strings, rows and costs."""

from typing import TYPE_CHECKING, Any

from hotnas_torch._lazy import lazily
from hotnas_torch.arguments import choice
from hotnas_torch.spaces.base import SearchSpace
from hotnas_torch.spaces.darts import DARTS, Genotype
from hotnas_torch.spaces.mobilenet_v2 import MobileNetV2
from hotnas_torch.spaces.nasbench101 import NASBench101
from hotnas_torch.spaces.nasbench201 import NASBench201
from hotnas_torch.spaces.nasbench_macro import NASBenchMacro
from hotnas_torch.spaces.pooling import Pooling
from hotnas_torch.spaces.subset import Subset
from hotnas_torch.spaces.transnas_macro import TransNASMacro

if TYPE_CHECKING:
    from hotnas_torch.spaces import declared
    from hotnas_torch.spaces.declared import Block, Choice, Choices
else:
    __getattr__, __dir__ = lazily(__name__, declared=("Block", "Choice", "Choices"))

__all__ = [
    "DARTS",
    "NAMES",
    "Block",
    "Choice",
    "Choices",
    "Genotype",
    "MobileNetV2",
    "NASBench101",
    "NASBench201",
    "NASBenchMacro",
    "Pooling",
    "SearchSpace",
    "Subset",
    "TransNASMacro",
    "declared",
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
    )
}

NAMES = tuple(_SPACES)
"""Names by which `get` builds a space."""


def get(name: str, **options: Any) -> SearchSpace:
    """Build a search space by its name.

    Args:
        name: `"nasbench101"`, `"nasbench201"`, `"transnas_macro"`, `"darts"`,
            `"nasbench_macro"`, `"pooling"` or `"mobilenet_v2"`.
        **options: The space's own options, for example `contract_skip=True`.

    Raises:
        ValueError: Unknown name; the message lists the known ones.
        TypeError: An option that the space does not have.

    Example:
        >>> get("pooling").size()
        36
    """
    return _SPACES[choice("name", name, NAMES)](**options)
