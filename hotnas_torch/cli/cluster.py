"""Options of the commands that can compute on a Ray cluster."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from hotnas_torch.cli.commands import Parser
from hotnas_torch.integrations.ray import RayExecutor

__all__ = ["add_cluster_arguments", "cluster"]


def add_cluster_arguments(parser: argparse.ArgumentParser, task: str) -> argparse._ArgumentGroup:
    """Add `--ray` and what a task takes.

    Args:
        parser: Of a command.
        task: What one task of the command is, for the help.

    Returns:
        The group of options, for those of the command's own.
    """
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="compute on a Ray cluster: auto (the one of this machine) or host:6379",
    )
    group.add_argument(
        "--task-cpus", type=float, metavar="N", help=f"processors per {task}, default 1"
    )
    group.add_argument("--task-gpus", type=float, metavar="N", help=f"GPUs per {task}, default 0")
    group.add_argument(
        "--retries",
        type=int,
        metavar="N",
        help=f"how often {_with_article(task)} that loses its worker is begun again, default 3",
    )
    return group


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


@contextmanager
def cluster(
    parser: Parser,
    arguments: argparse.Namespace,
    *,
    device: str | None = None,
    timeout: float | None = None,
) -> Iterator[RayExecutor | None]:
    """Return the executor that the options ask for; None without `--ray`.

    Args:
        parser: Reports wrong options.
        arguments: Parsed options of `add_cluster_arguments`.
        device: Where tiles are solved in tasks that have GPUs.
        timeout: Seconds per evaluation.

    Raises:
        ClusterError: The cluster cannot be reached, or has no node for such a task.
    """
    names = {"task_cpus": "num_cpus", "task_gpus": "num_gpus", "retries": "retries"}
    given = {
        name: getattr(arguments, option)
        for option, name in names.items()
        if getattr(arguments, option) is not None
    }
    if arguments.ray is None:
        for option, name in names.items():
            if name in given:
                parser.error(f"--{option.replace('_', '-')} is an option of --ray")
        yield None
        return
    try:
        executor = RayExecutor(
            arguments.ray,
            device=device if given.get("num_gpus") else None,
            timeout=timeout,
            **given,
        )
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    with executor:
        yield executor
