"""Objectives: what a search minimises. Published tables, real training, any callable."""

from hotnas_torch.objectives.base import Evaluation, Objective
from hotnas_torch.objectives.benchmarks import (
    TABLES,
    ENASMacroTable,
    NASBench101Table,
    NASBench201Table,
    NASBench301Table,
    NASBenchMacroTable,
    PoolingTable,
    TransNASMacroTable,
    TransNASMicroTable,
    open_table,
)
from hotnas_torch.objectives.fidelities import Fidelities
from hotnas_torch.objectives.function import Function
from hotnas_torch.objectives.repeated import Repeated
from hotnas_torch.objectives.table import Table
from hotnas_torch.objectives.training import Training

__all__ = [
    "TABLES",
    "ENASMacroTable",
    "Evaluation",
    "Fidelities",
    "Function",
    "NASBench101Table",
    "NASBench201Table",
    "NASBench301Table",
    "NASBenchMacroTable",
    "Objective",
    "PoolingTable",
    "Repeated",
    "Table",
    "Training",
    "TransNASMacroTable",
    "TransNASMicroTable",
    "open_table",
]
