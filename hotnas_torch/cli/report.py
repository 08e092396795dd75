"""The command `hotnas report`: a search as one HTML file, or as a page that follows it."""

import argparse
import signal
import time
import webbrowser
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hotnas_torch.cli.commands import SPACE, Parser, add_command, space_named
from hotnas_torch.cli.messages import check_output
from hotnas_torch.plot.report import LiveReport, write_report
from hotnas_torch.spaces import SearchSpace

__all__ = ["add_report"]

_EXAMPLES = """\
examples:
  hotnas report digits.sqlite                 # writes digits.html
  hotnas report digits.sqlite --out now.html  # works while the search is running, too
  hotnas report digits.sqlite --watch --open  # in the browser, and follows the search
  hotnas report own.sqlite --space mine:space # the space that mine.py calls space
"""


_SECONDS = 1.0  # between two looks at the file


class _EnoughError(BaseException):
    """Somebody has seen enough; also while a large page is being made, which takes seconds."""


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
        description="Writes an HTML file that shows a search and needs nothing else, or serves it "
        "to this machine while the search runs.",
        examples=_EXAMPLES,
    )
    report.add_argument("storage", type=Path, metavar="FILE", help="what hotnas search wrote")
    report.add_argument(
        "--out", type=Path, metavar="HTML", help="file to write, default the storage's name .html"
    )
    report.add_argument("--overwrite", action="store_true", help="replace an existing file")
    report.add_argument(
        "--watch",
        action="store_true",
        help="write nothing; serve the page on 127.0.0.1 and keep it up to date until Ctrl-C",
    )
    report.add_argument(
        "--port", type=int, metavar="N", help="port for --watch, default one that is free"
    )
    report.add_argument("--open", action="store_true", help="open the page in a browser")
    report.add_argument(
        "--space",
        metavar="NAME",
        help=f"space of the search, where it is not one with its default options: {SPACE}",
    )


def _report(parser: Parser, arguments: argparse.Namespace) -> None:
    storage: Path = arguments.storage
    if storage.is_dir():
        parser.error(f"FILE: {storage} is a folder; there is no storage file of that name")
    if arguments.watch:
        if arguments.out is not None or arguments.overwrite:
            option = "--overwrite" if arguments.out is None else "--out"
            parser.error(f"{option}: --watch writes no file (leave one of them out)")
        _watch(parser, storage, arguments)
        return
    if arguments.port is not None:
        parser.error("--port is for --watch (add --watch, or leave --port out)")
    if not storage.is_file():
        parser.error(f"FILE: {storage} is not there; there is no storage file of that name")
    out: Path = arguments.out or storage.with_suffix(".html")
    if out == storage or (out.exists() and out.samefile(storage)):
        parser.error(f"--out: {out} is the storage itself; name another file")
    if out.exists() and not arguments.overwrite:
        parser.error(f"{out} exists; add --overwrite to replace it, or choose --out")
    check_output("--out", out)
    result = write_report(storage, out, space=_space(arguments))
    if result.goal.several:
        best = f"{len(result.front)} on the front"
    else:
        best = "no value yet" if result.best is None else f"best {result.best.value:.6g}"
    print(f"{len(result.trials):,} evaluations, {best}\n  report     {out}")
    if arguments.open:
        _open(out.absolute().as_uri())


def _space(arguments: argparse.Namespace) -> SearchSpace | None:
    return None if arguments.space is None else space_named(arguments.space)


def _watch(parser: Parser, storage: Path, arguments: argparse.Namespace) -> None:
    """Serve the page until a signal says that it is enough, which is how this ends well."""
    port = arguments.port or 0
    if not 0 <= port <= 65535:
        parser.error(f"--port: must be in 0..65535; got {port}")

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _EnoughError

    try:
        report = LiveReport(storage, port=port, space=_space(arguments))
    except OSError as error:
        parser.error(f"--port: {error.strerror}")
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with report:
            print(f"  report     {report.url}  (Ctrl-C ends it)", flush=True)
            if arguments.open:
                _open(report.url)
            said = ""
            while True:
                if report.state != said:
                    said = report.state
                    print(said, flush=True)
                time.sleep(_SECONDS)
                report.update()
    except _EnoughError:
        pass  # what was asked for has been done
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open(url: str) -> None:
    if not webbrowser.open(url):
        print(f"there is no browser to open {url} with")
