"""The published tables on which searches are compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hotnas_torch.objectives import Table, open_table

__all__ = ["TASKS", "Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """A column of a published table.

    Attributes:
        name: What records and the command line call it.
        title: What tables and pictures call it.
        table: Format of the table, see `open_table`.
        path: The file, relative to the folder of all tables.
        column: What is minimised; None for the format's own column.
        unit: Unit of the value that is reported.
        reported: Column of the value that a search is judged by, where it is not the one that it
            minimises: the network with the best `column` so far is chosen, and its `reported`
            value counts.
    """

    name: str
    title: str
    table: str
    path: str
    column: str | None = None
    unit: str = "error, %"
    reported: str | None = None

    def open(self, folder: Path) -> Table:
        """Read the table.

        Raises:
            TableError: The file is missing or damaged.
        """
        return open_table(self.table, folder / self.path, self.column)

    def open_reported(self, folder: Path) -> Table:
        """Read the table with the column that searches are judged by.

        Raises:
            TableError: The file is missing or damaged.
        """
        return open_table(self.table, folder / self.path, self.reported or self.column)


def _transnas(column: str, title: str, unit: str = "error, %") -> Task:
    path = "transnas-bench-101/macro_subset_best.csv"
    return Task(f"transnas_{column}", f"TransNAS {title}", "transnas_macro", path, column, unit)


_NB201 = "nas-bench-201/nb201.csv.gz"
_ALL = (
    Task(
        "nasbench_macro",
        "NAS-Bench-Macro",
        "nasbench_macro",
        "nas-bench-macro/nas-bench-macro_cifar10.json",
    ),
    Task("nb201_cifar10", "NB201 CIFAR-10", "nasbench201", _NB201, "cifar10_test"),
    Task("nb201_cifar100", "NB201 CIFAR-100", "nasbench201", _NB201, "cifar100_test"),
    *(
        Task(
            f"nb201_{data}_val",
            f"NB201 {title} by validation",
            "nasbench201",
            _NB201,
            f"{data}_val_e12",
            reported=f"{data}_test",
        )
        for data, title in (("cifar10", "CIFAR-10"), ("cifar100", "CIFAR-100"))
    ),
    Task("nasbench101", "NAS-Bench-101", "nasbench101", "nas-bench-101/nb101_test.csv.gz"),
    _transnas("class_object", "object"),
    _transnas("class_scene", "scene"),
    _transnas("jigsaw", "jigsaw"),
    _transnas("autoencoder", "autoencoder", "100 - SSIM x 100"),
    Task(
        "nasbench301",
        "NB301 rows",
        "nasbench301",
        "nas-bench-301/nb301_surrogate_samples.csv",
        unit="error, % (surrogate)",
    ),
    *(
        Task(
            f"transnas_micro_{column}",
            f"TransNAS micro {title}",
            "transnas_micro",
            "transnas-bench-101/micro_4096_final.csv.gz",
            column,
            unit,
        )
        for column, title, unit in (
            ("class_object", "object", "error, %"),
            ("class_scene", "scene", "error, %"),
            ("jigsaw", "jigsaw", "error, %"),
            ("autoencoder", "autoencoder", "100 - SSIM x 100"),
        )
    ),
    Task(
        "enas_macro",
        "ENAS macro",
        "enas_macro",
        "enas-macro-dvae/final_structures6.txt.gz",
        unit="error, % (shared weights)",
    ),
)
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _ALL})
"""Tasks by name."""
