"""Tables 2 and 6 of ANASOD on published tables: ``python -m benchmarks.anasod``.

Every search is a file of its own; the same command goes on where it was interrupted, and
``--report`` tabulates and draws what is finished.
"""

import argparse
import csv
import io
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from hotnas_torch.comparison import METHODS, TASKS, Record, compare, read_records
from hotnas_torch.files import write_text
from hotnas_torch.plot import plot_regrets, save_figure

__all__ = ["GROUPS", "Group", "main", "tabulate"]

_TASKS = ("nb201_cifar10", "nb201_cifar100", "nasbench301")
_INITIAL = 10


@dataclass(frozen=True, slots=True)
class Group:
    """Searches with one budget.

    Attributes:
        evaluations: Of each search, 10 random ones included.
        batch: Networks that are asked for at once.
        methods: Names in `hotnas_torch.comparison.METHODS`, in the order of importance.
    """

    evaluations: int
    batch: int
    methods: tuple[str, ...]


GROUPS: Mapping[str, Group] = {
    "queries300": Group(
        300,
        1,
        (
            "anasod_local",
            "anasod_biased",
            "anasod_random",
            "local_first",
            "random",
            "anasod_local_full",
            "local_full",
        ),
    ),
    "queries150": Group(
        150,
        4,
        (
            "anasod_bo",
            "adjacency_bo",
            "path_bo",
            "anasod_ensemble",
            "anasod_bo_uniform",
            "anasod_bo_gradient",
            "adjacency_bo_mutants",
        ),
    ),
}
"""Table 2 compares random and local search after 300 queries, and models after 150."""

_COLUMNS = ("evaluations", "task", "method", "seeds", "error", "standard_error", "regret", "better")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is missing, and writes table.csv, table.md and a picture per budget.

    Args:
        argv: Arguments without the program's name; None takes those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.anasod", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the published tables")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/anasod"), help="%(default)s")
    parser.add_argument("--seeds", type=int, default=10, help="searches of each, %(default)s")
    parser.add_argument("--tasks", nargs="+", choices=_TASKS, default=list(_TASKS))
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--methods", nargs="+", help="of these only; default all of a group")
    parser.add_argument("--processes", type=int, default=1, help="searches at once, %(default)s")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument(
        "--at", type=int, metavar="N", help="tabulate what N evaluations had found; default all"
    )
    arguments = parser.parse_args(argv)
    out: Path = arguments.out
    for name in arguments.groups:
        group = GROUPS[name]
        methods = [m for m in group.methods if arguments.methods is None or m in arguments.methods]
        (out / name).mkdir(parents=True, exist_ok=True)
        if methods and not arguments.report:
            compare(
                arguments.tasks,
                methods,
                data=arguments.data,
                folder=out / name,
                num_seeds=arguments.seeds,
                num_initial=_INITIAL,
                num_evaluations=group.evaluations,
                batch=group.batch,
                processes=arguments.processes,
            )
    records = {name: read_records(out / name) for name in GROUPS if (out / name).is_dir()}
    rows = [
        row
        for name, found in records.items()
        for row in tabulate(found, GROUPS[name], evaluations=arguments.at)
    ]
    name = "table" if arguments.at is None else f"table-{arguments.at}"
    _write(rows, out / name)
    for group, found in records.items():
        if found:
            save_figure(_draw(found, GROUPS[group]), out / f"{group}.png")
    print((out / f"{name}.md").read_text(encoding="utf-8"))
    return 0


def tabulate(
    records: Sequence[Record], group: Group, *, evaluations: int | None = None
) -> list[dict[str, object]]:
    """Returns a row per task and method that has finished searches.

    Args:
        records: Searches of one budget.
        group: Which methods, in which order.
        evaluations: What the first so many had found; None takes all.
    """
    count = group.evaluations if evaluations is None else min(evaluations, group.evaluations)
    rows: list[dict[str, object]] = []
    for task in _TASKS:
        for method in group.methods:
            found = [one for one in records if (one.task, one.method) == (task, method)]
            if not found:
                continue
            errors = [
                min(value for value in one.values[:count] if not math.isnan(value)) for one in found
            ]
            rows.append(
                {
                    "evaluations": count,
                    "task": task,
                    "method": method,
                    "seeds": len(found),
                    "error": statistics.fmean(errors),
                    "standard_error": (
                        statistics.stdev(errors) / math.sqrt(len(errors))
                        if len(errors) > 1
                        else math.nan
                    ),
                    "regret": statistics.fmean(one.regrets()[:count][-1] for one in found),
                    "better": statistics.fmean(one.better[:count][-1] for one in found),
                }
            )
    return rows


def _write(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows
    )
    write_text(path.with_suffix(".csv"), text.getvalue())
    lines = [
        "Lowest error found, %: mean ± standard error (seeds; mean number of better networks in the"
        " table).",
        "",
        "| method | evaluations | " + " | ".join(TASKS[task].title for task in _TASKS) + " |",
        "|---|---:|" + "---:|" * len(_TASKS),
    ]
    by_method: dict[tuple[object, object], dict[object, str]] = {}
    for row in rows:
        entries = by_method.setdefault((row["method"], row["evaluations"]), {})
        entries[row["task"]] = (
            f"{row['error']:.3f} ± {row['standard_error']:.3f}"
            f" ({row['seeds']}; {row['better']:.1f})"
        )
    for (method, evaluations), entries in by_method.items():
        texts = [entries.get(task, "-") for task in _TASKS]
        lines.append(f"| {METHODS[str(method)].title} | {evaluations} | {' | '.join(texts)} |")
    write_text(path.with_suffix(".md"), "\n".join(lines) + "\n")


def _draw(records: Sequence[Record], group: Group) -> Figure:
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for task in _TASKS:
        for method in group.methods:
            found = [one for one in records if (one.task, one.method) == (task, method)]
            if found:
                panel = curves.setdefault(TASKS[task].title, {})
                panel[method] = [one.regrets() for one in found]
    labels = {method: METHODS[method].title for method in group.methods}
    return plot_regrets(curves, num_initial=_INITIAL, labels=labels)


if __name__ == "__main__":
    sys.exit(main())
