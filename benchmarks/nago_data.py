"""What errors have the networks of random generators, and how far do they vary?

Trainings on digits: fifty hyperparameters of HNAG and fifteen of RNAG, three networks of each, with
the full budget; every epoch is recorded. The same command goes on where it was interrupted.
"""

import csv
import io
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.measuring.report import Column, Report, Row, Table, Unavailable, number
from hotnas_torch.files import write_text
from hotnas_torch.nago import HNAG, RNAG, FlatThetaSpace, GeneratorTraining, ThetaSpace
from hotnas_torch.nn import EpochResult, TrainingSettings

__all__ = [
    "CASES", "ON_REQUEST", "QUICK", "RESULTS", "Case", "Evaluations", "Settings", "objective",
    "read_evaluations", "run",
]  # fmt: skip

ON_REQUEST = "takes hours"
RESULTS = Path(__file__).parent / "results" / "nago"
SETTINGS = TrainingSettings(epochs=10, batch_size=50, learning_rate=0.1)
PARAMETER_LIMIT = 20_000
_SEED = 0
_FEWEST_RANKED = 10


@dataclass(frozen=True, slots=True)
class Case:
    """A generator with a box of its hyperparameters.

    Attributes:
        generator: What samples networks.
        space: The box, smaller than the paper's: images have 8 x 8 pixels.
        num_thetas: Hyperparameters that are drawn uniformly from it.
    """

    generator: Any
    space: Any
    num_thetas: int


CASES: Mapping[str, Case] = {
    "hnag": Case(HNAG(), ThetaSpace(nodes=(3, 6), mid_nodes=(1, 3)), 50),
    "rnag": Case(RNAG(), FlatThetaSpace(nodes=(3, 24)), 15),
}

CHOICES = {"cases": tuple(CASES)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        cases: Names in `CASES`.
        thetas: Hyperparameters of each; None takes those of the case, 0 trains nothing.
        samples: Networks of each.
        storage: Where the tables of finished trainings are kept.
    """

    cases: tuple[str, ...] = tuple(CASES)
    thetas: int | None = None
    samples: int = 3
    storage: str = str(RESULTS)


QUICK = Settings(thetas=2, samples=1, storage="runs/bench/nago_data-quick")

_KEYS = ("theta", "sample")
_FIGURES = (
    "error",
    "validation_loss",
    "test_error",
    "memory",
    "parameters",
    "operations",
    "seconds",
    "cpu_seconds",
)
_EPOCH = ("epoch", "train_loss", "validation_loss", "error")


@dataclass(frozen=True, slots=True)
class Evaluations:
    """Evaluations of one generator at the full budget.

    Attributes:
        X: Hyperparameters in the unit cube of the case's space, (n, d) float64.
        theta: Number of the hyperparameters, (n,) int64: equal numbers are replicates.
        error: Validation error, percent, (n,) float64.
        memory: Bytes per image, (n,) float64.
        seconds: Processor time of the evaluation, (n,) float64; that of the clock also depends on
            what else the machine does.
    """

    X: Tensor
    theta: Tensor
    error: Tensor
    memory: Tensor
    seconds: Tensor


def objective(name: str) -> GeneratorTraining[Any]:
    """Return the training that every evaluation of a case is."""
    return GeneratorTraining(
        CASES[name].generator, parameter_limit=PARAMETER_LIMIT, settings=SETTINGS, seed=_SEED
    )


def read_evaluations(name: str, folder: Path = RESULTS) -> Evaluations:
    """Read the finished evaluations of a case.

    Args:
        name: Name in `CASES`.
        folder: Where the tables are.
    """
    rows = _read(folder / f"{name}.csv")
    space = CASES[name].space
    values = torch.tensor(
        [[float(row[column]) for column in space.columns] for row in rows], dtype=torch.float64
    )
    columns = [
        dimension.encode(column)
        for dimension, column in zip(space.dimensions, values.unbind(dim=1), strict=True)
    ]
    error, memory, seconds = (
        torch.tensor([float(row[figure]) for row in rows], dtype=torch.float64)
        for figure in ("error", "memory", "cpu_seconds")
    )
    theta = torch.tensor([int(row["theta"]) for row in rows])
    return Evaluations(torch.stack(columns, dim=1), theta, error, memory, seconds)


def run(settings: Settings) -> Report:
    """Evaluate what is missing, then summarise all that there is."""
    storage = Path(settings.storage)
    storage.mkdir(parents=True, exist_ok=True)
    _evaluate(settings, storage)
    tables = {name: rows for name in CASES if (rows := _read(storage / f"{name}.csv"))}
    report = Report(tables=[_summary(tables)])
    for name, rows in tables.items():
        columns = [column for column in CASES[name].space.columns if column in rows[0]]
        if len(rows) < _FEWEST_RANKED or not columns:
            continue
        errors = [float(row["error"]) for row in rows]
        ranked = {
            column: float(spearmanr([float(row[column]) for row in rows], errors).statistic)
            for column in columns
        }
        title = f"Rank correlation with the error, {name.upper()}"
        shown = [Column(column, column, number(2)) for column in columns]
        report.tables.append(Table(f"ranks-{name}", title, shown, [ranked]))
    report.notes.append(
        "Error: validation, %. Spread between: standard deviation of the means over"
        " hyperparameters; within: root mean square of the standard deviations over networks of one"
        " hyperparameter. Memory: per image, KB."
    )
    return report


def _evaluate(settings: Settings, out: Path) -> None:
    cases = settings.cases if settings.thetas != 0 else ()
    objectives = {name: objective(name) for name in cases}
    for name, training in objectives.items():
        case = CASES[name]
        described = {
            "training": training.describe(),
            "thetas": case.num_thetas,
            "space": [asdict(dimension) for dimension in case.space.dimensions],
        }
        _check_settings(out / f"{name}.json", described)
    rows = {name: _read(out / f"{name}.csv") for name in cases}
    done = {(name, int(r["theta"]), int(r["sample"])) for name in cases for r in rows[name]}
    # Every theta once before any twice: an interrupted run is a smaller table, not a lopsided one.
    todo = [
        (name, theta, sample)
        for sample in range(settings.samples)
        for name in cases
        for theta in range(settings.thetas or CASES[name].num_thetas)
        if (name, theta, sample) not in done
    ]
    for name, place, sample in tqdm(todo, unit="training"):
        case = CASES[name]
        X = case.space.sample(case.num_thetas, generator=torch.Generator().manual_seed(_SEED))[
            place : place + 1
        ]
        (theta,) = case.space.decode(X)
        values = [
            dimension.decode(value).item()
            for dimension, value in zip(case.space.dimensions, X[0], strict=True)
        ]
        epochs: list[EpochResult] = []
        started = time.process_time()
        result = objectives[name](theta, sample=sample, every_epoch=epochs.append)
        if result.failed:
            raise RuntimeError(f"{name} {place}, sample {sample}: {result.error}")
        key = {"theta": place, "sample": sample}
        curve = [
            {
                **key,
                "epoch": epoch,
                "train_loss": figures.train_loss,
                "validation_loss": figures.validation_loss,
                "error": 100.0 * (1.0 - figures.validation_accuracy),
            }
            for epoch, figures in enumerate(epochs, start=1)
        ]
        figures = {
            "error": result.value,
            "validation_loss": result.metrics["validation_loss"],
            "test_error": 100.0 * (1.0 - result.metrics["test_accuracy"]),
            "memory": int(result.metrics["memory"]),
            "parameters": int(result.metrics["parameters"]),
            "operations": int(result.metrics["operations"]),
            "seconds": result.cost,
            "cpu_seconds": time.process_time() - started,
        }
        row = {**key, **dict(zip(case.space.columns, values, strict=True)), **figures}
        # A row of the first table says that the second one has its epochs.
        _append(out / f"{name}-epochs.csv", (*_KEYS, *_EPOCH), curve, key)
        _append(out / f"{name}.csv", (*_KEYS, *case.space.columns, *_FIGURES), [row], key)


def _check_settings(path: Path, described: Mapping[str, Any]) -> None:
    text = json.dumps(described, indent=1, sort_keys=True) + "\n"
    if not path.exists():
        write_text(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise Unavailable(
            f"{path} describes other trainings than this program makes (pass another --storage)"
        )


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _append(
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, object]],
    key: Mapping[str, int],
) -> None:
    kept = [row for row in _read(path) if any(int(row[k]) != v for k, v in key.items())]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    writer.writerows(
        {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
    )
    write_text(path, text.getvalue())


def _summary(tables: Mapping[str, Sequence[Mapping[str, str]]]) -> Table:
    summarised: list[Row] = []
    for name, rows in tables.items():
        errors = [float(row["error"]) for row in rows]
        groups: dict[str, list[float]] = {}
        for row in rows:
            groups.setdefault(row["theta"], []).append(float(row["error"]))
        spreads = [statistics.variance(group) for group in groups.values() if len(group) > 1]
        means = [statistics.fmean(group) for group in groups.values()]
        memory = [float(row["memory"]) / 1000.0 for row in rows]
        operations = [int(row["operations"]) for row in rows]
        summarised.append(
            {
                "generator": name.upper(),
                "evaluations": len(rows),
                "best": min(errors),
                "median": statistics.median(errors),
                "worst": max(errors),
                "between": statistics.stdev(means) if len(means) > 1 else None,
                "within": statistics.fmean(spreads) ** 0.5 if spreads else None,
                "memory": f"{min(memory):.0f}-{max(memory):.0f}",
                "operations": f"{min(operations)}-{max(operations)}",
                "seconds": statistics.fmean(float(row["cpu_seconds"]) for row in rows),
            }
        )
    texts, counts = ("generator", "memory", "operations"), ("evaluations",)
    columns = [
        Column(name, name)
        if name in texts
        else Column(name, name, number() if name in counts else _tenths)
        for name in (summarised[0] if summarised else ())
    ]
    return Table("generators", "Generators trained on digits, full budget", columns, summarised)


def _tenths(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
