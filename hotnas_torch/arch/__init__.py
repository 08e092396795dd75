"""Architectures as data: cells, graphs of cells, networks, operation trees, padded batches."""

from hotnas_torch.arch.batch import ArchitectureBatch
from hotnas_torch.arch.cell import Cell
from hotnas_torch.arch.nested import NestedCell
from hotnas_torch.arch.network import Network
from hotnas_torch.arch.operation import Operation
from hotnas_torch.arch.operation_tree import OperationTree

__all__ = ["ArchitectureBatch", "Cell", "NestedCell", "Network", "Operation", "OperationTree"]
