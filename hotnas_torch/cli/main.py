"""The command `hotnas`: distances and pictures without writing a program."""

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hotnas_torch._version import __version__
from hotnas_torch.cli.bench import add_bench
from hotnas_torch.cli.commands import Parser
from hotnas_torch.cli.compare import add_compare
from hotnas_torch.cli.gram import add_gram
from hotnas_torch.cli.messages import BadInput, in_terms_of_options
from hotnas_torch.cli.report import add_report
from hotnas_torch.cli.search import add_search
from hotnas_torch.errors import (
    ArchitectureError,
    GramFileError,
    HotnasError,
    StorageError,
    TableError,
)

__all__ = ["main"]

_BAD_INPUT = 2
_FAILED = 1
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        0 on success, 2 for bad input, 1 for a failure while working, 130 when interrupted.
    """
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
    except BadInput as error:
        return _refuse("hotnas", error, argparse.Namespace())
    name = f"hotnas {arguments.command}"
    try:
        with _plain_warnings(name):
            arguments.run(arguments)
    except (BadInput, ArchitectureError, GramFileError, StorageError, TableError) as error:
        return _refuse(name, error, arguments)
    except (HotnasError, OSError) as error:
        print(f"{name}: failed: {_one_line(error, arguments)}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt as interruption:
        print(f"{name}: interrupted {interruption}".rstrip(), file=sys.stderr)
        return _INTERRUPTED
    return 0


def _refuse(name: str, error: Exception, arguments: argparse.Namespace) -> int:
    print(f"{name}: error: {_one_line(error, arguments)}", file=sys.stderr)
    return _BAD_INPUT


def _one_line(error: Exception, arguments: argparse.Namespace) -> str:
    return in_terms_of_options(" ".join(str(error).split()), arguments)


@contextmanager
def _plain_warnings(name: str) -> Iterator[None]:
    """Show warnings as one line each, without the source line that Python adds."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"{name}: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="hotnas",
        description="Optimal-transport distances between neural architectures.",
        epilog="Each command has its own --help with examples.",
    )
    parser.add_argument("--version", action="version", version=f"hotnas_torch {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in (add_gram, add_compare, add_search, add_report, add_bench):
        add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
