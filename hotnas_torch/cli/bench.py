"""The command `hotnas bench`: search methods compared on published tables."""

import argparse
from pathlib import Path
from typing import Any

import torch

from hotnas_torch.cli.commands import Parser, add_command, add_quiet
from hotnas_torch.cli.messages import check_output
from hotnas_torch.comparison import (
    METHODS,
    TABLE,
    TASKS,
    Record,
    Summary,
    compare,
    reproduce,
    summarize,
    write_csv,
)
from hotnas_torch.errors import HotnasError
from hotnas_torch.files import write_text
from hotnas_torch.plot import plot_ranks, plot_regrets, save_figure

__all__ = ["add_bench"]

_EXAMPLES = """\
examples:
  hotnas bench search --data data --out runs/compare --processes 2
  hotnas bench search --data data --out runs/compare --tasks nb201_cifar10 --seeds 5
  hotnas bench search --data data --out runs/quick --methods hotnas random --evaluations 50

Each finished search is a file in --out; the same command goes on where it was interrupted.
--out gets results.csv (one line per evaluation), table.md, regret.png and ranks.png.
"""


_CHECKED = """\
examples:
  hotnas bench check runs/compare/results.csv --data data
  hotnas bench check benchmarks/results/search/results.csv.gz --data data --rows 5 --seed 1
"""

_RESULTS = ("results.csv", "table.md", "regret.png", "ranks.png")


def add_bench(commands: Any) -> None:
    """Add the command.

    Args:
        commands: What `add_subparsers` of the program's parser returned.
    """
    bench = commands.add_parser(
        "bench",
        help="compare search methods on published tables",
        epilog="examples:\n  hotnas bench search --data data --out runs/compare",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = bench.add_subparsers(metavar="WHAT", required=True)
    search = add_command(
        kinds,
        "search",
        _bench,
        summary="every method on every task, over several seeds",
        description="Compares search methods on published tables: regret, ranks, paired tests.",
        examples=_EXAMPLES + _listed(),
    )
    search.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder of the published tables, laid out as below",
    )
    search.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where records and results go"
    )
    search.add_argument("--tasks", nargs="+", metavar="TASK", default=list(TASKS), choices=TASKS)
    search.add_argument(
        "--methods", nargs="+", metavar="METHOD", default=list(TABLE), choices=METHODS
    )
    for name, default, text in (
        ("seeds", 20, "searches per task and method"),
        ("initial", 10, "random networks at the start of each"),
        ("evaluations", 90, "of each search, the initial ones included"),
        ("batch", 4, "networks that are asked for at once"),
        ("processes", 1, "searches at the same time"),
    ):
        search.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{text}, default {default}"
        )
    add_quiet(search)
    check = add_command(
        kinds,
        "check",
        _check,
        summary="some searches of a result, run again",
        description="Draws searches from results at random, runs them again, and compares each"
        " network and value; ends with 1 where one differs.",
        examples=_CHECKED,
    )
    check.add_argument("file", type=Path, metavar="FILE", help="results.csv, or it as .csv.gz")
    check.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="folder of the published tables"
    )
    for name, default, text in (
        ("rows", 30, "searches to draw"),
        ("seed", 0, "of the draw"),
        ("initial", 10, "random networks at the start of each"),
        ("batch", 4, "networks that are asked for at once"),
    ):
        check.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{text}, default {default}"
        )
    add_quiet(check)


def _listed() -> str:
    width = max(map(len, [*TASKS, *METHODS]))
    titles = max(len(one.title) for one in TASKS.values())
    lines = ["", "tasks, and the file in --data that each of them reads:"]
    lines += [
        f"  {name:<{width}}  {one.title:<{titles}}  {one.path}" for name, one in TASKS.items()
    ]
    lines += ["", "methods:", *(f"  {name:<{width}}  {one.title}" for name, one in METHODS.items())]
    return "\n".join(lines)


def _bench(parser: Parser, arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    for name, smallest in (
        ("seeds", 1),
        ("initial", 2),
        ("evaluations", arguments.initial + 1),
        ("batch", 1),
        ("processes", 1),
    ):
        if getattr(arguments, name) < smallest:
            parser.error(f"--{name} must be at least {smallest}; got {getattr(arguments, name)}")
    if not arguments.data.is_dir():
        parser.error(f"--data: there is no folder {arguments.data} (see --help for its layout)")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: cannot make {out}: {error.strerror}")
    for name in _RESULTS:
        check_output("--out", out / name)
    try:
        records = compare(
            arguments.tasks,
            arguments.methods,
            data=arguments.data,
            folder=out,
            num_seeds=arguments.seeds,
            num_initial=arguments.initial,
            num_evaluations=arguments.evaluations,
            batch=arguments.batch,
            processes=arguments.processes,
            progress=not arguments.quiet,
        )
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(
            f"(finished searches are in {out}; the same command goes on)"
        ) from interruption
    last = min(len(record.values) for record in records)
    middle = (arguments.initial + last) // 2
    text = "\n\n".join(_report(summarize(records, evaluations=n)) for n in (middle, last))
    code = records[0].identity["code"]
    text += f"\n\nMade by hotnas_torch {code['package']}, modules {code['digest']}."
    write_csv(records, out / "results.csv")
    write_text(out / "table.md", text + "\n")
    _draw(records, out, arguments.initial)
    if not arguments.quiet:
        print(text)
        print(f"\n{len(records):,} searches; results.csv, table.md, regret.png, ranks.png in {out}")


def _check(parser: Parser, arguments: argparse.Namespace) -> None:
    for name, smallest in (("rows", 1), ("initial", 2), ("batch", 1)):
        if getattr(arguments, name) < smallest:
            parser.error(f"--{name} must be at least {smallest}; got {getattr(arguments, name)}")
    if not arguments.data.is_dir():
        parser.error(f"--data: there is no folder {arguments.data} (see bench search --help)")
    found = reproduce(
        arguments.file,
        data=arguments.data,
        num_rows=arguments.rows,
        generator=torch.Generator().manual_seed(arguments.seed),
        num_initial=arguments.initial,
        batch=arguments.batch,
        progress=not arguments.quiet,
    )
    different = [one for one in found if not one.same]
    for one in different:
        print(
            f"{one.task}, {one.method}, seed {one.seed}: differs from evaluation"
            f" {one.agree + 1} of {one.evaluations} on"
        )
    print(f"{len(found) - len(different)} of {len(found)} searches are as recorded")
    if different:
        raise HotnasError(f"this code does not propose what {arguments.file} says")


def _report(summary: Summary) -> str:
    head = (
        f"### After {summary.evaluations} evaluations, {summary.num_seeds} seeds\n\n"
        "Mean regret ± standard error (mean number of better architectures in the table).\n"
    )
    lines = [head, summary.markdown(), ""]
    if searched := summary.searched_markdown():
        lines += [
            "Smallest validation error found, which is what was searched by:",
            "",
            searched,
            "",
        ]
    return "\n".join([*lines, *_tests(summary)])


def _tests(summary: Summary) -> list[str]:
    first, *others = summary.methods
    if not others:
        return []
    titles = [TASKS[task].title for task in summary.tasks]
    lines = [
        f"{METHODS[first].title} against the others, seeds won - lost (the rest are equal), p of "
        "Wilcoxon's signed-rank test; over all tasks, of a sign test; both two-sided:",
        "",
        f"| against | {' | '.join(titles)} | all |",
        "|---" * (len(titles) + 2) + "|",
    ]
    for other in others:
        tests = [summary.paired_test(task, first, other) for task in summary.tasks]
        tests.append(summary.paired_test_of_all(first, other))
        entries = [f"{test.wins} - {test.losses}, p = {test.p:.2g}" for test in tests]
        lines.append(f"| {METHODS[other].title} | {' | '.join(entries)} |")
    return lines


def _draw(records: list[Record], out: Path, num_initial: int) -> None:
    summary = summarize(records)
    labels = {name: METHODS[name].title for name in summary.methods}
    curves: dict[str, dict[str, list[list[float]]]] = {
        TASKS[task].title: {method: [] for method in summary.methods} for task in summary.tasks
    }
    for record in records:
        curves[TASKS[record.task].title][record.method].append(
            record.regrets()[: summary.evaluations]
        )
    first = min(num_initial, summary.evaluations - 1)
    save_figure(plot_regrets(curves, num_initial=first, labels=labels), out / "regret.png")
    ranks = plot_ranks(
        summary.mean_rank, critical_difference=summary.critical_difference, labels=labels
    )
    save_figure(ranks, out / "ranks.png")
