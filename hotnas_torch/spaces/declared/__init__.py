"""Search spaces of one's own, declared: choices, cells, lists of networks."""

from hotnas_torch.spaces.declared.block import Block
from hotnas_torch.spaces.declared.cells import Cells
from hotnas_torch.spaces.declared.choices import Choices
from hotnas_torch.spaces.declared.finite import Finite
from hotnas_torch.spaces.declared.hierarchical import hierarchical_nasbench201
from hotnas_torch.spaces.declared.places import Choice

__all__ = ["Block", "Cells", "Choice", "Choices", "Finite", "hierarchical_nasbench201"]
