"""Search strategies compared: methods x tasks x seeds, resumable, with statistics."""

from hotnas_torch.comparison.methods import METHODS, TABLE, Method
from hotnas_torch.comparison.records import Record, read_records, write_csv
from hotnas_torch.comparison.reproduce import Reproduced, reproduce
from hotnas_torch.comparison.run import compare
from hotnas_torch.comparison.summary import Cell, PairedTest, Summary, summarize
from hotnas_torch.comparison.tasks import TASKS, Task

__all__ = [
    "METHODS",
    "TABLE",
    "TASKS",
    "Cell",
    "Method",
    "PairedTest",
    "Record",
    "Reproduced",
    "Summary",
    "Task",
    "compare",
    "read_records",
    "reproduce",
    "summarize",
    "write_csv",
]
