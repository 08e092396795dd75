"""Options that say which distance, and what they make."""

import argparse
import json
from typing import Any

import torch

from hotnas_torch import distances, spaces
from hotnas_torch.cli.commands import SPACE, importable_here, space_named
from hotnas_torch.cli.messages import BadInput
from hotnas_torch.distances import HOTNN, NetworkDistance

__all__ = ["add_distance_arguments", "distance_of", "space_of"]

_HOTNN_ARGUMENTS = (
    "lam",
    "eps",
    "eta",
    "zeta",
    "mass",
    "pairs",
    "linear_term",
    "normalize",
    "num_starts",
    "tol",
    "max_iter",
    "preset",
    "dtype",
    "backend",
    "device",
)
"""Options that are passed on to HOTNN where the user gives them."""


def add_distance_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a space and a distance."""
    parser.add_argument("--space", required=True, metavar="NAME", help=SPACE)
    distance = parser.add_argument_group("distance")
    distance.add_argument(
        "--distance",
        default=HOTNN.name,
        metavar="NAME",
        help=f"one of {', '.join(distances.NAMES)}, or MODULE:CLASS of one's own; default hotnn",
    )
    distance.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the distance, value in JSON or text; may be repeated",
    )
    metric = parser.add_argument_group("HOTNN")
    metric.add_argument("--preset", choices=("default", "paper"))
    metric.add_argument("--lam", type=float, help="weight of the node term, default 0.5")
    metric.add_argument("--eps", type=float, help="share of operations, default 0.8")
    metric.add_argument("--eta", type=float, help="share of a cell's position, default by space")
    metric.add_argument("--zeta", type=float, help="share of a cell's state, default by space")
    metric.add_argument("--mass", choices=("channels", "uniform"), help="masses of cells")
    metric.add_argument("--pairs", choices=("directed", "ordered"), help="pairs of nodes")
    metric.add_argument("--linear-term", choices=("separable", "literal"))
    metric.add_argument(
        "--raw-lengths",
        dest="normalize",
        action="store_const",
        const=False,
        help="path lengths in hops, not relative to the longest path",
    )
    solver = parser.add_argument_group("solver of HOTNN")
    solver.add_argument("--num-starts", type=int, help="starts per pair of cells")
    solver.add_argument("--tol", type=float, help="relative duality gap at which to stop")
    solver.add_argument("--max-iter", type=int, help="most transports per start")
    solver.add_argument("--dtype", choices=("float32", "float64"), help="default float32")
    solver.add_argument("--backend", choices=("auto", "ext", "torch"), help="default auto")
    solver.add_argument("--device", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, metavar="N", help="threads, default all")


def space_of(arguments: argparse.Namespace) -> spaces.SearchSpace:
    """Return the search space that the options name."""
    return space_named(arguments.space)


def distance_of(arguments: argparse.Namespace, space: spaces.SearchSpace) -> NetworkDistance:
    """Return the distance that the options ask for, HOTNN unless another one is named."""
    if arguments.threads is not None:
        if arguments.threads < 1:
            raise BadInput(f"--threads must be at least 1; got {arguments.threads}")
        torch.set_num_threads(arguments.threads)
    given = {name: getattr(arguments, name) for name in _HOTNN_ARGUMENTS}
    given = {name: value for name, value in given.items() if value is not None}
    settings = dict(map(_setting, arguments.setting))
    if arguments.distance == HOTNN.name:
        given["dtype"] = getattr(torch, given.get("dtype", "float32"))
    elif given or getattr(arguments, "task_gpus", None):
        option = (
            next(iter(given), "task_gpus").replace("_", "-").replace("normalize", "raw-lengths")
        )
        raise BadInput(
            f"--{option} is an option of HOTNN (pass what {arguments.distance} takes as --setting"
            " NAME=VALUE)"
        )
    try:
        with importable_here():
            return distances.get(arguments.distance, space=space, **given | settings)
    except (TypeError, ValueError) as error:
        message = str(error)
        unknown = message.startswith(("name must be", "cannot find"))
        raise BadInput(f"--distance: {message}" if unknown else message) from error


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise BadInput(f"--setting must be NAME=VALUE; got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
