"""The command `hotnas report`: a search as one HTML file."""

import argparse
from pathlib import Path
from typing import Any

from hotnas_torch.cli.commands import SPACE, Parser, add_command, space_named
from hotnas_torch.cli.messages import check_output
from hotnas_torch.plot.report import write_report

__all__ = ["add_report"]

_EXAMPLES = """\
examples:
  hotnas report digits.sqlite                 # writes digits.html
  hotnas report digits.sqlite --out now.html  # works while the search is running, too
  hotnas report own.sqlite --space mine:space # the space that mine.py calls space
"""


def add_report(commands: Any) -> None:
    """Add the command.

    Args:
        commands: What `add_subparsers` of the program's parser returned.
    """
    report = add_command(
        commands,
        "report",
        _report,
        summary="a search as one HTML file",
        description="Writes an HTML file that shows a search and needs nothing else.",
        examples=_EXAMPLES,
    )
    report.add_argument("storage", type=Path, metavar="FILE", help="what hotnas search wrote")
    report.add_argument(
        "--out", type=Path, metavar="HTML", help="file to write, default the storage's name .html"
    )
    report.add_argument("--overwrite", action="store_true", help="replace an existing file")
    report.add_argument(
        "--space",
        metavar="NAME",
        help=f"space of the search, where it is not one with its default options: {SPACE}",
    )


def _report(parser: Parser, arguments: argparse.Namespace) -> None:
    storage: Path = arguments.storage
    if not storage.is_file():
        what = "is a folder" if storage.is_dir() else "is not there"
        parser.error(f"FILE: {storage} {what}; there is no storage file of that name")
    out: Path = arguments.out or storage.with_suffix(".html")
    if out == storage or (out.exists() and out.samefile(storage)):
        parser.error(f"--out: {out} is the storage itself; name another file")
    if out.exists() and not arguments.overwrite:
        parser.error(f"{out} exists; add --overwrite to replace it, or choose --out")
    check_output("--out", out)
    space = None if arguments.space is None else space_named(arguments.space)
    result = write_report(storage, out, space=space)
    if result.goal.several:
        best = f"{len(result.front)} on the front"
    else:
        best = "no value yet" if result.best is None else f"best {result.best.value:.6g}"
    print(f"{len(result.trials):,} evaluations, {best}\n  report     {out}")
