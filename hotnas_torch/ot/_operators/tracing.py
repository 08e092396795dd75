"""What `torch.compile` is told about functions, once there is a `torch.compile`.

Its frontend takes as long to import as the rest of torch, and whoever compiles nothing never needs
it. Notes wait until somebody imports it.
"""

from collections.abc import Callable
from inspect import isfunction
from typing import Any, ParamSpec, TypeVar

import torch
import wrapt

__all__ = ["STEPS_DEPEND_ON_VALUES", "interpreted", "left_to_python", "one_call"]

P = ParamSpec("P")
R = TypeVar("R")
Class = TypeVar("Class", bound=type)

STEPS_DEPEND_ON_VALUES = 'differentiate="unroll" records steps whose number depends on the values'
"""Why neither torch.vmap nor one graph of a tracer can take them."""

_FRONTEND = "torch._dynamo"


def one_call(function: Callable[P, R]) -> Callable[P, R]:
    """Have tracers take a function as one call, and follow it with all transforms at work."""
    _once_compiling(lambda: torch.compiler.allow_in_graph(function))
    return function


def left_to_python(owner: Any, name: str, reason: str) -> None:
    """Have `torch.compile` leave a function to Python.

    Args:
        owner: Class, module or object whose attribute it is; whoever calls it asks there each time.
        name: Of the attribute.
        reason: For the message that a user gets who asks for one graph.
    """

    def leave() -> None:
        function = vars(owner)[name]
        setattr(owner, name, torch.compiler.disable(function, reason=reason))

    _once_compiling(leave)


def interpreted(cls: Class) -> Class:
    """Have `torch.compile` leave the public methods of a class to Python.

    They read architectures and values, of which no graph can be made; a tracer that follows them
    all the same takes minutes and says so in warnings.
    """
    for name, member in list(vars(cls).items()):
        public = not name.startswith("_") or name in ("__init__", "__call__")
        if public and isfunction(member):
            left_to_python(cls, name, f"{cls.__name__} reads architectures and values")
    return cls


def _once_compiling(note: Callable[[], Any]) -> None:
    """Call `note` when the frontend has been imported: now, later or never."""
    wrapt.register_post_import_hook(lambda _: note(), _FRONTEND)
