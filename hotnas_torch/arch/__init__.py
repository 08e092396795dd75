"""Architectures as data: cells, networks, operation trees, and padded batches of cells."""

from hotnas_torch.arch.batch import ArchitectureBatch
from hotnas_torch.arch.cell import Cell
from hotnas_torch.arch.network import Network
from hotnas_torch.arch.operation_tree import OperationTree

__all__ = ["ArchitectureBatch", "Cell", "Network", "OperationTree"]
