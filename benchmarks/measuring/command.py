"""The command `python -m benchmarks`."""

import argparse
import ast
import itertools
import sys
import types
import typing
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from benchmarks.measuring.benchmark import Benchmark, benchmarks
from benchmarks.measuring.machine import revision
from benchmarks.measuring.report import Claim, Unavailable
from hotnas_torch import _ext

__all__ = ["BENCHMARKS", "main"]

BENCHMARKS = benchmarks()
"""Benchmarks by name."""

_PROGRAM = "python -m benchmarks"
_EXAMPLES = """\
examples:
  python -m benchmarks                            all but those on request, into runs/bench
  python -m benchmarks speed quality --quick      two of them, small problems, for a first look
  python -m benchmarks gram --output /tmp/bench   another folder
  python -m benchmarks speed --check              exit status 1 if a promise is not kept
  python -m benchmarks learned --help             the options of one: what it measures, and how much
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run benchmarks, print their tables, and write JSON, Markdown and pictures.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        0; with `--check` 1 if a claim is not met; 2 if what was named cannot be measured here.
    """
    revision()  # of the code that is loaded now
    given = sys.argv[1:] if argv is None else list(argv)
    names = list(itertools.takewhile(lambda part: not part.startswith("-"), given))
    unknown = [name for name in names if name not in BENCHMARKS]
    chosen = [BENCHMARKS[name] for name in names if name not in unknown]
    parser = _parser(chosen[0] if len(names) == len(chosen) == 1 else None)
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    parsed = vars(parser.parse_args(given[len(names) :]))
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in parsed.items()}
    folder: Path = values.pop("output")
    quick, check = values.pop("quick"), values.pop("check")
    if not _ext.loaded:
        parser.error(f"the compiled core is what is measured, and it is not there: {_ext.reason}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output: cannot make {folder}: {error.strerror}")
    claims: list[Claim] = []
    status = 0
    for benchmark in chosen or [one for one in BENCHMARKS.values() if not one.on_request]:
        print(f"{benchmark.name}: {benchmark.question}", file=sys.stderr, flush=True)
        module = benchmark.module
        settings = replace(module.QUICK if quick else module.Settings(), **values)
        try:
            report = benchmark.measure(settings)
        except Unavailable as error:
            print(f"{benchmark.name}: nothing is measured: {error}", file=sys.stderr)
            status = 2 if chosen else status
            continue
        report.write(folder)
        print(report.markdown(), flush=True)
        claims.extend(report.claims)
    missed = [claim for claim in claims if not claim.met]
    print(f"{len(claims) - len(missed)} of {len(claims)} claims met; results in {folder}")
    for claim in missed:
        print(f"  not met: {claim.text}: {claim.measured:.4g} {claim.relation} {claim.target:.4g}")
    return 1 if check and missed else status


def _parser(benchmark: Benchmark | None) -> argparse.ArgumentParser:
    """Make the parser of what follows the names.

    Args:
        benchmark: The only one that is named, whose settings are options, too.
    """
    if benchmark is None:
        usage, described = "[NAME ...] [options]", "Measure hotnas_torch, beside other libraries."
        epilog = f"{_EXAMPLES}\nbenchmarks:\n{_listed('')}\n\non request:\n{_listed('on request')}"
    else:
        usage, described = f"{benchmark.name} [options]", benchmark.module.__doc__ or ""
        epilog = (benchmark.module.Settings.__doc__ or "").partition("Attributes:")[2].rstrip()
        epilog = f"what is measured:{epilog}"
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        usage=f"{_PROGRAM} {usage}",
        description=described,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, default=Path("runs/bench"), metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="few small problems")
    parser.add_argument("--check", action="store_true", help="fail if a claim is not met")
    if benchmark is not None:
        hints = typing.get_type_hints(benchmark.module.Settings)
        for field in fields(benchmark.module.Settings):
            choices = benchmark.choices.get(field.name)
            _add_option(parser, field.name, hints[field.name], choices)
    return parser


def _listed(kind: str) -> str:
    width = max(map(len, BENCHMARKS))
    return "\n".join(
        f"  {one.name:<{width}}  {one.question}" + (f" ({one.on_request})" if kind else "")
        for one in BENCHMARKS.values()
        if bool(one.on_request) == bool(kind)
    )


def _add_option(
    parser: argparse.ArgumentParser, name: str, hint: Any, choices: Collection[str] | None
) -> None:
    """Add an option for a field of settings, which keeps its default where it is not given."""
    if isinstance(hint, types.UnionType):
        (hint,) = [one for one in typing.get_args(hint) if one is not types.NoneType]
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "choices": choices}
    scalars = (int, float, str)
    if hint is bool:
        options = {"default": argparse.SUPPRESS, "action": argparse.BooleanOptionalAction}
    elif hint in scalars:
        options |= {"type": hint, "metavar": name.upper()}
    elif typing.get_args(hint)[:1] and typing.get_args(hint)[0] in scalars:
        element = typing.get_args(hint)[0]
        options |= {"type": element, "nargs": "+", "metavar": name.upper()}
    else:
        options |= {"type": ast.literal_eval, "metavar": "LITERAL"}
    parser.add_argument(f"--{name.replace('_', '-')}", **options)
