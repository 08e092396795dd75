"""What the commands say about bad input: in one line, in the terms of the command line."""

import argparse
import re
from pathlib import Path

from hotnas_torch.files import check_writable

__all__ = ["BadInput", "check_output", "in_terms_of_options", "seed"]

# Arguments of the library whose options have other names.
_OPTIONS = {
    "num_initial": "initial",
    "pool_size": "pool",
    "num_stages": "stages",
    "cells_per_stage": "cells",
    "num_cpus": "task_cpus",
    "num_gpus": "task_gpus",
    "timeout": "time_limit",
    "address": "ray",
    "folder": "store",
}
_SWITCHES = re.compile(r"(pass )?\b(resume|overwrite|take_over|accept_objective|shared)=True\b")


class BadInput(Exception):
    """What the user passed cannot be used; the message is the one line that is shown."""


def check_output(option: str, path: Path) -> None:
    """Refuse a path that cannot be written, before the work whose result would be lost.

    Args:
        option: Where the path comes from, for the message.
        path: A file that is there or not; nothing changes.

    Raises:
        BadInput: It cannot be written; the message says why.
    """
    try:
        check_writable(path)
    except IsADirectoryError as error:
        raise BadInput(f"{option}: {path} is a folder; name a file") from error
    except OSError as error:
        raise BadInput(
            f"{option}: cannot write {path}: {error.strerror}"
            " (choose a file in a folder that exists and is writable)"
        ) from error


def seed(text: str) -> int:
    """Read what `torch.Generator.manual_seed` takes.

    Raises:
        argparse.ArgumentTypeError: It is no integer, or has more than 64 bits.
    """
    try:
        value = int(text)
    except ValueError:
        value = 2**64
    if not -(2**63) <= value < 2**64:
        raise argparse.ArgumentTypeError(f"must be an integer of 64 bits; got {text!r}")
    return value


def in_terms_of_options(text: str, arguments: argparse.Namespace) -> str:
    """Rewrite a message of the library, which names Python arguments, for who gave options.

    Args:
        text: The message.
        arguments: The parsed options of the command.
    """
    text = _SWITCHES.sub(
        lambda found: ("add " if found[1] else "") + "--" + found[2].replace("_", "-"), text
    )
    text = text.replace("pass space=", "name it with --space MODULE:NAME")
    text = re.sub(r"^(--[\w-]+): \w+ must\b", r"\1 must", text)

    def option(found: re.Match[str]) -> str:
        name = _OPTIONS.get(found[0], found[0])
        return f"--{name.replace('_', '-')}" if name in vars(arguments) else found[0]

    return re.sub(r"^[a-z]\w+(?=(\[\d+\])?:? )", option, text)
