"""What all commands share: how one is registered, and options that several of them have."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn, TypeVar

from hotnas_torch import spaces
from hotnas_torch.cli.messages import BadInput

__all__ = [
    "SPACE",
    "Parser",
    "add_command",
    "add_existing",
    "add_quiet",
    "checked",
    "importable_here",
    "space_named",
]

SPACE = (
    f"one of {', '.join(spaces.NAMES)}, the name of one that is registered, or MODULE:NAME or "
    "FILE.py:NAME of a space of one's own or of a function that makes it"
)
"""What `--space` takes, for the help."""

Built = TypeVar("Built")


class Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, through the same path as any other bad input."""

    def error(self, message: str) -> NoReturn:
        """Refuse what the user passed.

        Raises:
            BadInput: Always.
        """
        raise BadInput(f"{message} (try {self.prog} --help)")


def add_command(
    commands: Any,
    name: str,
    run: Callable[[Parser, argparse.Namespace], None],
    *,
    summary: str,
    description: str,
    examples: str,
) -> Parser:
    """Register a command.

    Args:
        commands: What `add_subparsers` of the parser above returned.
        name: Of the command.
        run: Does the work, given the command's parser and the parsed options.
        summary: One line for the list of commands.
        description: One sentence above the options.
        examples: What stands below them, laid out.

    Returns:
        The parser, to which the command adds its options.
    """
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=partial(run, parser))
    return parser


def add_existing(parser: argparse.ArgumentParser, what: str) -> None:
    """Add what to do with files that are there: `--resume`, `--overwrite` and `--take-over`.

    Args:
        parser: Of a command.
        what: What is in the files, for the help.
    """
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume",
        action="store_true",
        help=f"go on with an interrupted {what}, keep a finished one",
    )
    existing.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument(
        "--take-over",
        action="store_true",
        help=f"go on with a {what} of another process; that one stops",
    )


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add `--quiet`."""
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no summary")


def checked(parser: Parser, build: Callable[[], Built], **options: str) -> Built:
    """Build something from options; what is wrong with them is one line.

    Args:
        parser: Of the command.
        build: What may raise.
        **options: Which option an argument is, where its name does not tell.
    """
    try:
        return build()
    except (ValueError, ImportError) as error:
        text = str(error)
        for argument, option in options.items():
            if text.startswith(f"{argument} must"):
                text = option + text.removeprefix(argument)
        parser.error(text)


@contextmanager
def importable_here() -> Iterator[None]:
    """Let modules of the folder in which the command is called be imported, as `python -m` does."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def space_named(name: str) -> spaces.SearchSpace:
    """Return the search space of `--space`.

    Raises:
        BadInput: There is none of that name.
    """
    try:
        with importable_here():
            return spaces.get(name)
    except (TypeError, ValueError) as error:
        raise BadInput(f"--space: {error}") from error
