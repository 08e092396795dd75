"""Functions measured in a process of their own, whose peak memory is theirs alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["command", "in_process"]

_ROOT = Path(__file__).parents[2]
_PROGRAM = f"""
import importlib, json, sys
sys.path.insert(0, {str(_ROOT)!r})
module, function, arguments = sys.argv[1:]
print(json.dumps(getattr(importlib.import_module(module), function)(*json.loads(arguments))))
"""


def command(function: Callable[..., Any], *arguments: Any) -> list[str]:
    """Return the command that calls a function and prints what it returns as the last line.

    Args:
        function: A function of a module, which returns something JSON-ready.
        arguments: JSON-ready.
    """
    named = [function.__module__, function.__name__, json.dumps(arguments)]
    return [sys.executable, "-c", _PROGRAM, *named]


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process and return what it returns; arguments as `command`.

    Raises:
        RuntimeError: The process failed; the message has what it wrote.
    """
    started = command(function, *arguments)
    done = subprocess.run(started, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{function.__qualname__}{arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
