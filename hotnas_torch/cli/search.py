# Over 400 lines: one command, its many options, and what values they say.
"""The command `hotnas search`: the best architecture, by training or in a table."""

import argparse
import math
import os
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from hotnas_torch import objectives, spaces
from hotnas_torch.cli.cluster import add_cluster_arguments, cluster
from hotnas_torch.cli.commands import (
    SPACE,
    Parser,
    add_command,
    add_existing,
    add_quiet,
    checked,
    importable_here,
    space_named,
)
from hotnas_torch.cli.messages import BadInput, check_output, seed
from hotnas_torch.cli.strategies import add_strategy_arguments, fidelity_of, make_strategy
from hotnas_torch.files import InUseError, WriteLock
from hotnas_torch.nn import Skeleton, TrainingSettings
from hotnas_torch.plot import save_figure, short_name
from hotnas_torch.plot.report import write_report
from hotnas_torch.plot.results import draw_progress
from hotnas_torch.references import referenced
from hotnas_torch.search import FullTrainings, SearchResult, run

__all__ = ["add_search"]

_EXAMPLES = """\
examples:
  hotnas search --out digits.sqlite                          # trains on scikit-learn's digits
  hotnas search --out digits.sqlite --minutes 10 --workers 2 --time-limit 120
  hotnas search --table nasbench201 nb201.csv.gz --column cifar100_test --out nb201.sqlite
  hotnas search --table transnas_macro best.csv --strategy evolution --seed 3 --out other.sqlite
  hotnas search --space mine.py:space --objective mine.py:error --out own.sqlite
  hotnas search --fidelity epochs=2,8,32 --trainings 20 --out levels.sqlite
  hotnas search --out all.sqlite --shared                    # the same command, many times at once
  hotnas search --prior digits.sqlite --strategy nas_bowl --set max_noise=0.1 --out next.sqlite
  hotnas search --ray auto --workers 16 --task-gpus 1 --time-limit 3600 --out digits.sqlite

It writes digits.sqlite (all trials), digits.png (values over time) and digits.html (the report).
An interrupted search goes on with the same command and --resume.
"""


def add_search(commands: Any) -> None:
    """Add the command.

    Args:
        commands: What `add_subparsers` of the program's parser returned.
    """
    search = add_command(
        commands,
        "search",
        _search,
        summary="search for the best architecture, by training or in a table",
        description="Searches for the network with the smallest value and reports on it.",
        examples=_EXAMPLES,
    )
    search.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="storage to write, an SQLite file"
    )
    add_existing(search, "search")
    search.add_argument(
        "--accept-objective",
        action="store_true",
        help="go on although the objective is described otherwise than when the search began",
    )
    budget = search.add_mutually_exclusive_group()
    budget.add_argument(
        "--evaluations", type=int, metavar="N", help="evaluations in all, default 60"
    )
    budget.add_argument("--minutes", type=float, metavar="T", help="time in all instead")
    budget.add_argument(
        "--trainings",
        type=float,
        metavar="N",
        help="cost in all instead, in evaluations that are not cut short (--fidelity)",
    )
    search.add_argument("--seed", type=seed, default=0, help="seed of everything, default 0")
    search.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that evaluate, default 1"
    )
    search.add_argument(
        "--batch", type=int, metavar="N", help="networks asked for at once, default --workers"
    )
    search.add_argument(
        "--asynchronous",
        action="store_true",
        help="ask for the next network whenever a worker is free; always so with --ray",
    )
    search.add_argument(
        "--shared",
        action="store_true",
        help="work on --out together with other processes that say so, too, on this machine or any "
        "that shares the file; the first one begins it",
    )
    search.add_argument(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="stop an evaluation after this time; it counts as failed",
    )
    # The model's matrices are small: more threads wait for each other more than they help.
    search.add_argument(
        "--threads", type=int, default=1, metavar="N", help="threads of the strategy, default 1"
    )
    search.add_argument(
        "--no-pictures", action="store_true", help="write the storage only, no picture, no report"
    )
    add_quiet(search)

    add_strategy_arguments(search)
    first = search.add_argument_group("what is known before")
    first.add_argument(
        "--prior",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="storages of earlier searches over the same space, whose results are known from the "
        "start; or CSV files with networks in the column arch and numbers in columns of their "
        "names: value, or those of --objectives",
    )
    first.add_argument(
        "--first",
        nargs="+",
        default=[],
        metavar="NETWORK",
        help="strings of networks that are evaluated before any that the strategy chooses",
    )

    own = search.add_argument_group("values of one's own")
    own.add_argument("--space", metavar="NAME", help=SPACE)
    own.add_argument(
        "--objective",
        metavar="NAME",
        help="MODULE:NAME or FILE.py:NAME of what returns the value of a network, to be minimised",
    )

    table = search.add_argument_group("values from a table")
    table.add_argument(
        "--table",
        nargs=2,
        metavar=("FORMAT", "FILE"),
        help="look values up instead of training; FORMAT is one of "
        f"{', '.join(objectives.TABLES)}, or csv for a file of one's own, whose column arch "
        "holds strings of --space",
    )
    table.add_argument("--column", metavar="NAME", help="column of the table, default its first")
    table.add_argument(
        "--goal", choices=("max", "min"), help="which numbers of a csv are better, default max"
    )

    training = search.add_argument_group("values from training NAS-Bench-201 cells on digits")
    training.add_argument("--epochs", type=int, help="default 8")
    training.add_argument("--channels", type=int, help="of the first stage, default 8")
    training.add_argument("--stages", type=int, help="default 2")
    training.add_argument("--cells", type=int, help="per stage, default 1")
    training.add_argument("--learning-rate", type=float, help="default 0.1")
    training.add_argument("--value", choices=("error", "loss"), help="what to minimise")
    add_cluster_arguments(search, "evaluation")


def _search(parser: Parser, arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    check_output("--out", out)
    files = {} if arguments.no_pictures else _files(parser, out)
    budget = _budget(parser, arguments)
    for name in ("workers", "batch", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1; got {value}")
    asynchronous = arguments.asynchronous or arguments.ray is not None or arguments.shared
    if asynchronous and arguments.batch is not None:
        parser.error(
            "--batch is for searches in batches; leave it out with --asynchronous, --shared or"
            " --ray"
        )
    if arguments.time_limit is not None and not 0.0 < arguments.time_limit < math.inf:
        parser.error(f"--time-limit must be positive and finite; got {arguments.time_limit:g}")
    if arguments.shared and arguments.overwrite:
        parser.error(
            "--overwrite would replace what other processes work on; leave it out (--shared)"
        )
    if not (arguments.resume or arguments.overwrite or arguments.shared):
        for path in (out, *files.values()):
            if path.exists():
                parser.error(
                    f"--out: {path} exists; --resume goes on with the search in {out}, --overwrite "
                    "replaces what is there"
                )
    with importable_here():
        _run(parser, arguments, files, budget, asynchronous=asynchronous)


def _run(
    parser: Parser,
    arguments: argparse.Namespace,
    files: dict[str, Path],
    budget: int | timedelta | FullTrainings,
    *,
    asynchronous: bool,
) -> None:
    out: Path = arguments.out
    objective, space = _objective(parser, arguments)
    strategy = make_strategy(parser, arguments, space)
    space = strategy.space  # with a fidelity, of pairs
    checked(parser, lambda: strategy.enqueue([space.from_string(one) for one in arguments.first]))
    torch.set_num_threads(arguments.threads)
    if arguments.overwrite:
        _remove(parser, out, take_over=arguments.take_over)
    try:
        with cluster(parser, arguments, timeout=arguments.time_limit) as executor:
            result = run(
                strategy,
                objective,
                budget=budget,
                storage=out,
                workers=arguments.workers,
                batch_size=arguments.batch,
                asynchronous=asynchronous,
                executor=executor,
                progress=not arguments.quiet,
                take_over=arguments.take_over,
                accept_objective=arguments.accept_objective,
                prior=arguments.prior,
                shared=arguments.shared,
                timeout=arguments.time_limit if executor is None else None,
            )
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(
            f"(what is finished is in {out}; run it again with --resume)"
        ) from interruption
    if not result.trials:
        if arguments.trainings is not None:
            raise BadInput(
                f"--trainings: {arguments.trainings:g} do not pay for the first evaluation; give "
                f"more, and --resume to go on with {out}"
            )
        raise BadInput(
            f"--minutes: the time was over before the first evaluation was; give it more than "
            f"{arguments.minutes:g}, and --resume to go on with {out}"
        )
    if files:
        num_initial = min(len(result.trials), strategy.settings().get("num_initial", 0))
        save_figure(draw_progress(result, num_initial=num_initial), files["picture"])
        write_report(out, files["report"], space=space)
    if not arguments.quiet:
        _print_result(result, {"trials": out, **files})


def _files(parser: Parser, out: Path) -> dict[str, Path]:
    files = {"picture": out.with_suffix(".png"), "report": out.with_suffix(".html")}
    if out in files.values():
        parser.error(f"--out: {out} is the storage; choose another suffix, for example .sqlite")
    for path in files.values():
        check_output("--out", path)
    return files


def _remove(parser: Parser, out: Path, *, take_over: bool) -> None:
    """Remove an old storage, unless somebody is writing to it."""
    try:
        lock = WriteLock(Path(os.path.realpath(out)), take_over=take_over)
    except InUseError as error:
        parser.error(
            f"--out: another search is writing to {out} ({error}); wait for it, choose another "
            "file, or add --take-over: then that one stops"
        )
    out.unlink(missing_ok=True)
    lock.close()


def _budget(parser: Parser, arguments: argparse.Namespace) -> int | timedelta | FullTrainings:
    if arguments.trainings is not None:
        if not 0.0 < arguments.trainings < math.inf:
            parser.error(f"--trainings must be positive and finite; got {arguments.trainings:g}")
        if arguments.shared:
            parser.error("--trainings is no budget of a --shared search; say --evaluations")
        return FullTrainings(arguments.trainings)
    if arguments.minutes is None:
        evaluations: int = 60 if arguments.evaluations is None else arguments.evaluations
        if evaluations < 1:
            parser.error(f"--evaluations must be at least 1; got {evaluations}")
        return evaluations
    if not 0.0 < arguments.minutes < 1e6 or not timedelta(minutes=arguments.minutes):
        parser.error(f"--minutes must be positive and less than 1e6; got {arguments.minutes:g}")
    return timedelta(minutes=arguments.minutes)


def _objective(
    parser: Parser, arguments: argparse.Namespace
) -> tuple[objectives.Objective, spaces.SearchSpace]:
    training = ("epochs", "channels", "stages", "cells", "learning_rate", "value")
    given = [name for name in training if getattr(arguments, name) is not None]
    sources = ("table", "objective", "space")
    elsewhere = [name for name in sources if getattr(arguments, name) is not None]
    if given and elsewhere:
        option = given[0].replace("_", "-")
        parser.error(f"--{option} is an option of training; leave it out with --{elsewhere[0]}")
    own_table = arguments.table is not None and arguments.table[0] == "csv"
    if arguments.goal is not None and not own_table:
        parser.error("--goal is an option of --table csv")
    if arguments.objective is not None and arguments.table is not None:
        parser.error("--objective and --table both say what the values are; leave one out")
    if arguments.objective is not None or own_table:
        return _own_objective(parser, arguments)
    if arguments.space is not None:
        parser.error("--space needs --objective, or --table csv FILE: what the values are")
    fidelity = fidelity_of(parser, arguments)
    if arguments.table is not None:
        name, path = arguments.table

        def read(column: str | None) -> objectives.Table:
            return checked(
                parser,
                partial(objectives.open_table, name, path, column),
                name="--table FORMAT",
                run="--column",
            )

        if fidelity is None:
            table = read(arguments.column)
            return table, table.space
        columns = (arguments.column or "").split(",")
        if len(columns) != len(fidelity.levels):
            parser.error(
                f"--column must name a column per level of --fidelity, {len(fidelity.levels)} with "
                f"commas between; got {arguments.column}"
            )
        tables = {
            level: read(column) for level, column in zip(fidelity.levels, columns, strict=True)
        }
        return objectives.Fidelities(tables, fidelity.name), tables[fidelity.full].space
    if arguments.column is not None:
        parser.error("--column needs --table")

    def build(epochs: int | None = None) -> objectives.Training:
        settings = _given(arguments, epochs=8, learning_rate=0.1)
        if epochs is not None:
            settings["epochs"] = epochs
        return objectives.Training(
            skeleton=Skeleton(
                **_given(arguments, channels=8, num_stages=("stages", 2)),
                **_given(arguments, cells_per_stage=("cells", 1)),
                input_channels=1,
            ),
            settings=TrainingSettings(**settings),
            seed=arguments.seed,
            num_threads=1,  # values must not depend on --workers
            **_given(arguments, value="error"),
        )

    if fidelity is None:
        return checked(parser, build), spaces.NASBench201()
    levels = [level for level in fidelity.levels if isinstance(level, int)]
    if fidelity.name != "epochs" or arguments.epochs is not None or levels != [*fidelity.levels]:
        parser.error(
            "--fidelity must be epochs=LEVELS for training, whole numbers in place of --epochs"
        )
    trainings = {float(level): checked(parser, partial(build, level)) for level in levels}
    return objectives.Fidelities(trainings), spaces.NASBench201()


def _own_objective(
    parser: Parser, arguments: argparse.Namespace
) -> tuple[objectives.Objective, spaces.SearchSpace]:
    if arguments.space is None:
        parser.error(f"--{'table csv' if arguments.table else 'objective'} needs --space")
    space = space_named(arguments.space)
    if arguments.objective is None:
        if arguments.column is None:
            parser.error("--table csv needs --column")
        goal: Literal["max", "min"] = arguments.goal or "max"
        build = partial(objectives.Table, arguments.table[1], arguments.column)
        table = checked(parser, partial(build, space=space, goal=goal))
        return table, table.space
    if arguments.column is not None:
        parser.error("--column needs --table")
    if ":" not in arguments.objective:
        parser.error(f"--objective must be MODULE:NAME or FILE.py:NAME; got {arguments.objective}")
    found = checked(parser, lambda: referenced(arguments.objective))
    if isinstance(found, type) or not callable(found):
        parser.error(f"--objective: {arguments.objective} must be a function; got {found!r}")
    return found if hasattr(found, "describe") else objectives.Function(found), space


def _given(arguments: argparse.Namespace, **defaults: Any) -> dict[str, Any]:
    """Take options by the names of arguments; a pair is (name of the option, default)."""
    taken = {}
    for name, default in defaults.items():
        option, otherwise = default if isinstance(default, tuple) else (name, default)
        value = getattr(arguments, option)
        taken[name] = otherwise if value is None else value
    return taken


def _print_result(result: SearchResult, files: dict[str, Path]) -> None:
    failed = sum(trial.failed for trial in result.trials)
    note = f", {failed} failed" if failed else ""
    if result.reason == "exhausted":
        note += ", the whole space"
    lines = {}
    best = None if result.goal.several else result.best
    if result.goal.several:
        lines["front"] = f"{len(result.front)} networks"
        lines["hypervolume"] = f"{result.hypervolume():.6g}"
    elif best is None and failed < len(result.trials):
        lines["best"] = f"none: no evaluation has {', '.join(map(str, result.goal.constraints))}"
    elif best is None:
        lines["best"] = "none: no evaluation succeeded (the storage holds the reasons)"
    else:
        found = "known before" if best.earlier else f"evaluation {best.number + 1}"
        lines["best"] = f"{best.value:.6g} ({found})"
        lines["network"] = best.network.spec
        lines["in short"] = short_name(best.network.spec)
        lines |= {name: f"{number:.6g}" for name, number in best.outcome.metrics.items()}
    lines |= {name: str(path) for name, path in files.items()}
    width = max(map(len, lines))
    print(f"{len(result.trials):,} evaluations{note}")
    for name, text in lines.items():
        print(f"  {name:<{width}}  {text}")
    names = result.goal.names
    for trial in result.front if result.goal.several else ():
        row = result.goal.recorded(trial.value, trial.outcome.metrics)
        figures = ", ".join(f"{name} {one:.6g}" for name, one in zip(names, row, strict=True))
        print(f"    {figures}: {trial.network.spec}")
