"""What every task of one kind needs, sent to each worker process once."""

import importlib.metadata
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from hotnas_torch import _ext
from hotnas_torch._version import __version__
from hotnas_torch.errors import ClusterError

__all__ = ["Broadcast", "Software", "import_ray", "lost_worker", "not_loaded", "times"]

_latest: dict[str, Any] = {}
"""In a worker process: the last content it received, by the broadcast's name."""


def import_ray() -> Any:
    """Return the module ray, loaded when a cluster is first used.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            f"more than one machine needs Ray (pip install 'hotnas-torch[ray]'): {error}"
        ) from error
    return ray


def lost_worker() -> tuple[type[Exception], ...]:
    """Return what Ray raises when a task's process, machine or result is gone, or none starts."""
    exceptions = import_ray().exceptions
    return (
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
        exceptions.RaySystemError,
    )


def not_loaded(error: Exception) -> ClusterError | None:
    """Return what to raise where a worker could not load what it was sent; no other one could.

    Args:
        error: What Ray raised for a task.
    """
    # From the task itself, Ray's own error is about the content that it asked for.
    cause = getattr(error, "cause", None)
    if not isinstance(cause, import_ray().exceptions.RaySystemError):
        return None
    return ClusterError(
        f"a worker cannot load what it was sent: {cause.client_exc} (every node needs the modules"
        " that the program uses, and the same version of this library)"
    )


def times(number: int) -> str:
    """How often, in words."""
    return "once" if number == 1 else f"{number} times"


class Broadcast:
    """Content in the cluster's object store, to be passed to tasks.

    A worker process keeps what it received last, so that tasks which share it share its cost.

    Args:
        content: Anything that can be sent to another process.

    Raises:
        TypeError: It cannot be sent.
    """

    def __init__(self, content: object) -> None:
        self._name = uuid.uuid4().hex
        # Inside a list: Ray fetches references that are arguments themselves before every task.
        self._reference = [import_ray().put(content)]

    def received(self, unpack: Callable[[Any], Any]) -> Any:
        """In a task: `unpack(content)`, kept until another broadcast arrives."""
        if self._name not in _latest:
            _latest.clear()
            _latest[self._name] = unpack(import_ray().get(self._reference[0]))
        return _latest[self._name]


class Software(NamedTuple):
    """What the bits of a result depend on.

    Attributes:
        hotnas_torch: Version of this library.
        torch: Version of torch without its build.
        compiled: Whether the compiled core is loaded.
    """

    hotnas_torch: str
    torch: str
    compiled: bool

    @classmethod
    def here(cls) -> "Software":
        """Of this process."""
        torch = importlib.metadata.version("torch").partition("+")[0]
        return cls(__version__, torch, _ext.loaded)

    def check_same(self, expected: "Software") -> None:
        """Refuse to mix results.

        Raises:
            ClusterError: Something differs; the message says what and where.
        """
        for name, here, there in zip(self._fields, self, expected, strict=True):
            if here != there:
                node = import_ray().util.get_node_ip_address()
                raise ClusterError(
                    f"the worker on {node} has {name} = {here}, the program {there} (install the"
                    " same everywhere: results would not be the same to the bit)"
                )
