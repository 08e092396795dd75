# Over 400 lines: one class per published table.
"""The published benchmark tables: which columns they have and how they name an architecture."""

import hashlib
import json
import math
import re
from collections.abc import Callable
from os import PathLike
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import choice, shown
from hotnas_torch.errors import TableError
from hotnas_torch.objectives.table import (
    AS_IS,
    ERROR_OF_FRACTION,
    ERROR_OF_PERCENT,
    Column,
    Rows,
    Table,
    read_csv,
    require_column,
)
from hotnas_torch.spaces import (
    DARTS,
    ENASMacro,
    NASBench101,
    NASBench201,
    NASBenchMacro,
    Pooling,
    SearchSpace,
    TransNASMacro,
    TransNASMicro,
)

__all__ = [
    "TABLES",
    "ENASMacroTable",
    "NASBench101Table",
    "NASBench201Table",
    "NASBench301Table",
    "NASBenchMacroTable",
    "PoolingTable",
    "TransNASMacroTable",
    "TransNASMicroTable",
    "open_table",
]


class _Benchmark(Table):
    """A table whose format, columns and space are known."""

    space_type: ClassVar[Callable[[], SearchSpace]]
    default_column: ClassVar[str]

    def __init__(
        self,
        path: str | PathLike[str],
        column: str | None = None,
        *,
        space: SearchSpace | None = None,
        sha256: str | None = None,
    ) -> None:
        expected = type(self).space_type()
        if space is None:
            space = expected
        elif isinstance(space, SearchSpace) and space.name != expected.name:
            raise ValueError(
                f"space must be a {expected.name!r} space for a {self.name!r} table; got {space!r}"
            )
        column = type(self).default_column if column is None else column
        if column not in self.known_columns:
            known = ", ".join(map(repr, self.known_columns))
            raise TableError(f"a {self.name!r} table has no column {column!r}; it has {known}")
        self._load(path, column, space, sha256)

    def _parse(self, text: str) -> Rows:
        columns, lines = read_csv(text, self.path)
        texts = self._texts(columns)
        require_column(columns, self.column, self.path)
        numbers = {}
        for name in self.known_columns:
            if name in columns:
                column = self._to_numbers(name, columns[name], lines)
                if column is not None:
                    numbers[name] = column
        return Rows(texts, lines, numbers)

    def _texts(self, columns: dict[str, list[str]]) -> list[str]:
        """Return the official string of each row."""
        return require_column(columns, "arch", self.path)


class _StringTable(_Benchmark):
    """A large table whose strings are the space's keys, so that no network need be built."""

    pattern: ClassVar[re.Pattern[str]]

    def _keys(self, rows: Rows) -> list[str]:
        for place, text in enumerate(rows.texts):
            if self.pattern.fullmatch(text) is None:
                self._network(rows, place)  # raises, saying what is wrong with it
        return rows.texts


_OPERATION_201 = "(none|skip_connect|nor_conv_1x1|nor_conv_3x3|avg_pool_3x3)"


class NASBench201Table(_StringTable):
    """NAS-Bench-201 (NATS-Bench, topology space).

    A CSV file with the official cell string in `arch` and any of the columns below; values are
    errors in percent.

    Args:
        path: The file, plain or gzip-compressed.
        column: `"cifar10_test"` (default), `"cifar100_test"`: test accuracy, %, 200 epochs;
            `"cifar10_val_e12"`, `"cifar100_val_e12"`: validation accuracy, %, after 12 epochs;
            `"params_M_cifar10"`: parameters in millions.
        space: A `NASBench201` with other options; default: the space as published.
        sha256: Expected checksum.

    Raises:
        TableError: As `Table`.

    Reference: Dong and Yang, NAS-Bench-201, ICLR 2020.
    """

    name = "nasbench201"
    space_type = NASBench201
    default_column = "cifar10_test"
    pattern = re.compile(
        rf"\|{_OPERATION_201}~0\|\+\|{_OPERATION_201}~0\|{_OPERATION_201}~1\|"
        rf"\+\|{_OPERATION_201}~0\|{_OPERATION_201}~1\|{_OPERATION_201}~2\|"
    )
    known_columns: ClassVar[dict[str, Column]] = {
        "cifar10_test": ERROR_OF_PERCENT,
        "cifar100_test": ERROR_OF_PERCENT,
        "cifar10_val_e12": ERROR_OF_PERCENT,
        "cifar100_val_e12": ERROR_OF_PERCENT,
        "params_M_cifar10": AS_IS,
    }


class TransNASMacroTable(_Benchmark):
    """TransNAS-Bench-101, macro space.

    A CSV file with strings such as `64-1234-basic` in `arch` and any of the columns below, all
    validation metrics of the best epoch; values are 100 minus the metric in percent, the losses of
    the HOTNAS paper. Tables are partial: `table.space` holds the networks that have a value.

    Args:
        path: The file, plain or gzip-compressed.
        column: `"class_object"` (default), `"class_scene"`, `"jigsaw"`: top-1 accuracy, %;
            `"autoencoder"`, `"normal"`: SSIM in 0..1; `"segmentsemantic"`: mIoU, %;
            `"room_layout"`: loss, taken as it is; `"params_M"`, `"flops_M"`.
        space: A `TransNASMacro` with other options.
        sha256: Expected checksum.

    Raises:
        TableError: As `Table`.

    Reference: Duan et al., TransNAS-Bench-101, CVPR 2021.
    """

    name = "transnas_macro"
    space_type = TransNASMacro
    default_column = "class_object"
    known_columns: ClassVar[dict[str, Column]] = {
        "class_object": ERROR_OF_PERCENT,
        "class_scene": ERROR_OF_PERCENT,
        "jigsaw": ERROR_OF_PERCENT,
        "autoencoder": ERROR_OF_FRACTION,
        "normal": ERROR_OF_FRACTION,
        "segmentsemantic": ERROR_OF_PERCENT,
        "room_layout": AS_IS,
        "params_M": AS_IS,
        "flops_M": AS_IS,
    }


class TransNASMicroTable(_StringTable):
    """TransNAS-Bench-101, micro space, all 4,096 networks.

    A CSV file with strings such as `64-41414-3_33_333` in `arch` and any of the columns below, all
    validation metrics of the last epoch; values are 100 minus the metric in percent. They are not
    those of `TransNASMacroTable`, which are of the best epoch.

    Args:
        path: The file, plain or gzip-compressed.
        column: `"class_object"` (default), `"class_scene"`, `"jigsaw"`: top-1 accuracy, %;
            `"autoencoder"`: SSIM in 0..1.
        space: A `TransNASMicro` with other options.
        sha256: Expected checksum.

    Raises:
        TableError: As `Table`.

    Reference: Duan et al., TransNAS-Bench-101, CVPR 2021.
    """

    name = "transnas_micro"
    space_type = TransNASMicro
    default_column = "class_object"
    pattern = re.compile("64-41414-[0-3]_[0-3]{2}_[0-3]{3}")
    known_columns: ClassVar[dict[str, Column]] = {
        "class_object": ERROR_OF_PERCENT,
        "class_scene": ERROR_OF_PERCENT,
        "jigsaw": ERROR_OF_PERCENT,
        "autoencoder": ERROR_OF_FRACTION,
    }


class ENASMacroTable(_Benchmark):
    """ENAS macro networks of 6 layers with the accuracy that shared weights give them.

    The file of D-VAE: per line a network as `ENASMacro` writes it, `, ` and its validation accuracy
    on CIFAR-10, a fraction, which becomes an error in percent. No network was trained by itself.
    Five networks stand in the published file twice, with the same accuracy, and count once. D-VAE
    leaves out the first 1,000 lines; here they count.

    Args:
        path: The file, plain or gzip-compressed.
        column: `"shared_acc"` is the only one.
        space: An `ENASMacro` with other options.
        sha256: Expected checksum.

    Raises:
        TableError: As `Table`; a network stands there twice with different accuracies.

    Reference: Zhang et al., D-VAE: A Variational Autoencoder for Directed Acyclic Graphs,
        NeurIPS 2019, Section 4.1.
    """

    name = "enas_macro"
    space_type = ENASMacro
    default_column = "shared_acc"
    known_columns: ClassVar[dict[str, Column]] = {"shared_acc": ERROR_OF_FRACTION}

    def _parse(self, text: str) -> Rows:
        lines: dict[tuple[str, str], int] = {}
        for number, line in enumerate(text.splitlines(), 1):
            network, separator, accuracy = line.rpartition("], ")
            if not separator:
                raise TableError(
                    f"{self.path}, line {number}: expected a network and its accuracy, such as "
                    f"'[[1], [4, 0], ...], 0.73'; got {shown(line)}"
                )
            lines.setdefault((f"{network}]", accuracy), number)
        numbers = list(lines.values())
        accuracies = [accuracy for _, accuracy in lines]
        column = self._to_numbers(self.column, accuracies, numbers)
        return Rows(
            [network for network, _ in lines],
            numbers,
            {} if column is None else {self.column: column},
        )


class NASBench301Table(_Benchmark):
    """DARTS genotypes with the accuracy that the NAS-Bench-301 surrogate predicts.

    A CSV file with `op:input` pairs in `normal` and `reduce`. All networks have the space's
    largest depth, which the surrogate does not vary.

    Args:
        path: The file, plain or gzip-compressed.
        column: `"val_acc_surrogate"` (default): predicted validation accuracy, %, becomes an
            error in percent; `"params_M"`, `"flops_M"`.
        space: A `DARTS` with other options.
        sha256: Expected checksum.

    Raises:
        TableError: As `Table`.

    Reference: Zela et al., Surrogate NAS Benchmarks, ICLR 2022.
    """

    name = "nasbench301"
    space_type = DARTS
    default_column = "val_acc_surrogate"
    known_columns: ClassVar[dict[str, Column]] = {
        "val_acc_surrogate": ERROR_OF_PERCENT,
        "params_M": AS_IS,
        "flops_M": AS_IS,
    }

    def _texts(self, columns: dict[str, list[str]]) -> list[str]:
        normal = require_column(columns, "normal", self.path)
        reduce = require_column(columns, "reduce", self.path)
        return [f"{pair[0]},{pair[1]}" for pair in zip(normal, reduce, strict=True)]


class PoolingTable(_Benchmark):
    """Accuracy of ResNet-20 on CIFAR-10 by the positions of its two poolings.

    A CSV file with the number of layers at full, half and quarter resolution in `block1`,
    `block2` and `block3`, and `accuracy`, %, which becomes an error in percent.

    Args:
        path: The file, plain or gzip-compressed.
        column: `"accuracy"` is the only one.
        space: A `Pooling` with other options.
        sha256: Expected checksum.

    Raises:
        TableError: As `Table`.

    Reference: Roshtkhari, Toews and Pedersoli, Balanced Mixture of Supernets for Learning the CNN
        Pooling Architecture, AutoML 2023.
    """

    name = "pooling"
    space_type = Pooling
    default_column = "accuracy"
    known_columns: ClassVar[dict[str, Column]] = {"accuracy": ERROR_OF_PERCENT}

    def _texts(self, columns: dict[str, list[str]]) -> list[str]:
        blocks = [require_column(columns, f"block{i}", self.path) for i in (1, 2, 3)]
        return [f"[{','.join(sizes)}]" for sizes in zip(*blocks, strict=True)]


_RUNS = 3


class NASBenchMacroTable(_StringTable):
    """NAS-Bench-Macro: three trainings per network.

    The benchmark's JSON file: per architecture `test_acc` (three accuracies, %), `mean_acc`,
    `params` and `flops`. It has no validation accuracy; one run may stand for it, with the mean
    (among the metrics) as what is reported.

    Args:
        path: The file, plain or gzip-compressed.
        run: `"mean"` of the three runs (default); 0, 1 or 2: that run; `"random"`: for each
            architecture one run, drawn by `seed`. Values are errors in percent.
        seed: Which runs `"random"` draws.
        space: A `NASBenchMacro` with other options.
        sha256: Expected checksum.

    Raises:
        TableError: As `Table`.
        ValueError: Unknown `run`.

    Reference: Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search, CVPR 2021.
    """

    name = "nasbench_macro"
    space_type = NASBenchMacro
    default_column = "mean_acc"
    pattern = re.compile("[012]{8}")
    known_columns: ClassVar[dict[str, Column]] = {
        **{f"test_acc_{run}": ERROR_OF_PERCENT for run in range(_RUNS)},
        "mean_acc": ERROR_OF_PERCENT,
        "std": AS_IS,
        "params": AS_IS,
        "flops": AS_IS,
    }

    def __init__(
        self,
        path: str | PathLike[str],
        run: Literal["mean", "random"] | int = "mean",
        *,
        seed: int = 0,
        space: SearchSpace | None = None,
        sha256: str | None = None,
    ) -> None:
        if isinstance(run, bool) or run not in ("mean", "random", *range(_RUNS)):
            raise ValueError(f"run must be 'mean', 'random', 0, 1 or 2; got {run!r}")
        self.run = run
        self.seed = seed
        column = f"test_acc_{run}" if isinstance(run, int) else "mean_acc"
        super().__init__(path, column, space=space, sha256=sha256)

    def _parse(self, text: str) -> Rows:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TableError(f"{self.path} is no JSON file: {error} (cut off?)") from error
        if not isinstance(content, dict):
            raise TableError(f"{self.path} must hold an object with a key per architecture")
        columns: dict[str, list[float]] = {name: [] for name in self.known_columns}
        for key, entry in content.items():
            try:
                runs = entry["test_acc"]
                numbers = [*runs, *(entry[name] for name in ("mean_acc", "std", "params", "flops"))]
                if len(runs) != _RUNS:
                    raise ValueError(f"{len(runs)} runs")
                for name, number in zip(columns, numbers, strict=True):
                    if isinstance(number, bool) or not isinstance(number, int | float):
                        raise TypeError(f"{name} is {number!r}")
                    columns[name].append(float(number))
                    if not math.isfinite(columns[name][-1]):
                        raise ValueError(f"{name} is {number}")
            except (KeyError, OverflowError, TypeError, ValueError) as error:
                raise TableError(
                    f"{self.path}, key {key!r}: expected 'test_acc' with {_RUNS} numbers, "
                    f"'mean_acc', 'std', 'params' and 'flops', all finite ({error})"
                ) from error
        return Rows(
            list(content),
            None,
            {name: torch.tensor(numbers, dtype=torch.float64) for name, numbers in columns.items()},
        )

    def _numbers(self, rows: Rows) -> Tensor:
        if self.run != "random":
            return super()._numbers(rows)
        runs = torch.stack([rows.columns[f"test_acc_{run}"] for run in range(_RUNS)])
        # By the text, not the place: the same architectures in another order get the same runs.
        drawn = [
            hashlib.sha256(f"{self.seed} {text}".encode()).digest()[0] % _RUNS
            for text in rows.texts
        ]
        return ERROR_OF_PERCENT.value(runs.gather(0, torch.tensor(drawn)[None])[0])

    def describe(self) -> dict[str, Any]:
        """Return the format, the run, the seed where it matters, and the checksum."""
        described = {"kind": self.name, "run": self.run, "sha256": self.sha256}
        return described | ({"seed": self.seed} if self.run == "random" else {})


_VERTICES = 7
_PAIRS = torch.triu_indices(_VERTICES, _VERTICES, offset=1)
# Rounds after which the label of a vertex depends on all of a graph of seven vertices.
_HASH_ROUNDS = 6
# Cells hashed at once; bounds the memory.
_HASH_CHUNK = 2**13


class NASBench101Table(_Benchmark):
    """NAS-Bench-101, all 423,624 cells or a part.

    A CSV file with the number of vertices in `v`, the upper triangle of the adjacency row by row
    in `adj`, one digit per inner vertex in `ops` (0 conv3x3, 1 conv1x1, 2 maxpool3x3), and the
    columns below. A row stands for all isomorphic cells.

    Args:
        path: The file, plain or gzip-compressed.
        column: `"test_acc"` (default): mean test accuracy of three runs, fraction, 108 epochs,
            becomes an error in percent; `"params"`.
        space: A `NASBench101` with other options.
        sha256: Expected checksum.

    Raises:
        TableError: As `Table`.

    Complexity: rows are found through a hash that is the same for isomorphic cells, computed for
        all rows at once: a few seconds and some 0.3 GB for the whole table.

    Reference: Ying et al., NAS-Bench-101, ICML 2019.
    """

    name = "nasbench101"
    space_type = NASBench101
    default_column = "test_acc"
    known_columns: ClassVar[dict[str, Column]] = {"test_acc": ERROR_OF_FRACTION, "params": AS_IS}

    def _texts(self, columns: dict[str, list[str]]) -> list[str]:
        parts = [require_column(columns, name, self.path) for name in ("v", "adj", "ops")]
        return list(map(",".join, zip(*parts, strict=True)))

    def _index_rows(self, rows: Rows) -> None:
        for place, text in enumerate(rows.texts):
            if _CELL_101.fullmatch(text) is None:
                self._network(rows, place)  # raises, saying what is wrong with it
        hashes = [
            _graph_hashes(rows.texts[start : start + _HASH_CHUNK])
            for start in range(0, len(rows.texts), _HASH_CHUNK)
        ]
        self._hashes, self._order = torch.sort(torch.cat(hashes), stable=True)
        # Equal neighbours in sorted order: one cell twice, or two cells that the hash confuses.
        for place in (self._hashes[1:] == self._hashes[:-1]).nonzero().flatten().tolist():
            first, second = sorted(self._order[place : place + 2].tolist())
            if self._cell_key(first) == self._cell_key(second):
                raise TableError(
                    f"{self.path}, {rows.where(second)}: {rows.texts[second]!r} is the "
                    f"architecture of {rows.where(first)} again"
                )

    def _cell_key(self, place: int) -> str:
        return self._space.key(self._network(self._rows, place))

    def _find(self, net: Network) -> int | None:
        wanted = _graph_hashes([net.spec])
        start = int(torch.searchsorted(self._hashes, wanted).item())
        stop = int(torch.searchsorted(self._hashes, wanted, right=True).item())
        key = self._space.key(net)
        for place in self._order[start:stop].tolist():
            if self._cell_key(place) == key:
                return int(place)
        return None


_CELL_101 = re.compile(
    "|".join(
        f"{size},[01]{{{size * (size - 1) // 2}}},[012]{{{size - 2}}}"
        for size in range(2, _VERTICES + 1)
    )
)


def _graph_hashes(texts: list[str]) -> Tensor:
    """Hash cells, given as `<vertices>,<adjacency>,<operations>`, whatever their numbering.

    Labels of vertices are refined by the sums of mixed labels over predecessors and successors, as
    in the Weisfeiler-Lehman test, in wrapping 64-bit arithmetic for all cells together.

    Returns:
        (len(texts),) int64.
    """
    adjacency = torch.zeros(len(texts), _VERTICES, _VERTICES, dtype=torch.int64)
    # 0 absent, 1 input, 2 output, 3.. the operations.
    labels = torch.zeros(len(texts), _VERTICES, dtype=torch.int64)
    sizes = torch.tensor([int(text[0]) for text in texts])
    for size in range(2, _VERTICES + 1):
        places = (sizes == size).nonzero().flatten()
        if not len(places):
            continue
        bits = size * (size - 1) // 2
        joined = "".join(
            texts[place][2 : 2 + bits] + texts[place][3 + bits :] for place in places.tolist()
        )
        digits = torch.frombuffer(bytearray(joined, "ascii"), dtype=torch.uint8) - ord("0")
        digits = digits.reshape(len(places), bits + size - 2).long()
        rows, columns = torch.triu_indices(size, size, offset=1)
        adjacency[places[:, None], rows, columns] = digits[:, :bits]
        labels[places, 0] = 1
        labels[places, size - 1] = 2
        labels[places, 1 : size - 1] = 3 + digits[:, bits:]
    present = labels > 0
    state = _mix(labels)
    for _ in range(_HASH_ROUNDS):
        before = (adjacency * _mix(state + 1)[:, :, None]).sum(dim=1)
        after = (adjacency * _mix(state + 2)[:, None, :]).sum(dim=2)
        state = _mix(state * 3 + before * 5 + after * 7)
    return (_mix(state) * present).sum(dim=1)


def _mix(values: Tensor) -> Tensor:
    """Scrambles 64-bit integers, one to one; the finaliser of SplitMix64."""
    values = (values ^ _shift(values, 30)) * -4658895280553007687
    values = (values ^ _shift(values, 27)) * -7723592293110705685
    return values ^ _shift(values, 31)


def _shift(values: Tensor, bits: int) -> Tensor:
    """Shift right, filling with zeros (torch's shift of int64 repeats the sign)."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


_TABLES: tuple[type[_Benchmark], ...] = (
    NASBench101Table,
    NASBench201Table,
    NASBench301Table,
    NASBenchMacroTable,
    PoolingTable,
    TransNASMacroTable,
    TransNASMicroTable,
    ENASMacroTable,
)

TABLES = tuple(table.name for table in _TABLES)
"""Names of the formats that `open_table` reads."""


def open_table(
    name: str,
    path: str | PathLike[str],
    column: str | None = None,
    *,
    sha256: str | None = None,
) -> Table:
    """Open a benchmark table by the name of its format.

    Args:
        name: `"nasbench101"`, `"nasbench201"`, `"nasbench301"`, `"nasbench_macro"`,
            `"pooling"`, `"transnas_macro"`, `"transnas_micro"` or `"enas_macro"`.
        path: The file.
        column: Column to optimise; default: the format's. For `"nasbench_macro"` the run:
            `"mean"`, `"random"`, `"0"`, `"1"` or `"2"`.
        sha256: Expected checksum.

    Raises:
        ValueError: Unknown name or run.
        TableError: As `Table`.
    """
    known = {table.name: table for table in _TABLES}
    choice("name", name, tuple(known))
    if name == NASBenchMacroTable.name:
        run: Any = "mean" if column is None else column
        run = int(run) if run in {"0", "1", "2"} else run
        return NASBenchMacroTable(path, run, sha256=sha256)
    return known[name](path, column, sha256=sha256)
