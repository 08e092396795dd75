"""Strategies by name on the command line, with their settings."""

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from hotnas_torch import spaces
from hotnas_torch.arguments import known_settings
from hotnas_torch.cli.commands import Parser, checked
from hotnas_torch.references import referenced
from hotnas_torch.search import (
    ANASODBO,
    BANANAS,
    BOTW,
    HOTNAS,
    NASBOT,
    NASBOWL,
    ANASODLocalSearch,
    ANASODRandomSearch,
    BOEdit,
    EncodedBO,
    Fidelity,
    LocalSearch,
    MultiFidelityHOTNAS,
    MutationSearch,
    ParetoEvolution,
    RandomPool,
    RandomSearch,
    RegularizedEvolution,
    Strategy,
    TreeSearch,
)

__all__ = [
    "STRATEGIES",
    "add_strategy_arguments",
    "fidelity_of",
    "goal_settings",
    "make_strategy",
]

_KINDS: tuple[type[Strategy], ...] = (
    *(HOTNAS, NASBOWL, NASBOT, BOTW, BOEdit, BANANAS, EncodedBO, ANASODBO, RandomPool),
    *(RandomSearch, RegularizedEvolution, ParetoEvolution, MutationSearch, LocalSearch),
    *(ANASODRandomSearch, ANASODLocalSearch, TreeSearch),
)

STRATEGIES: Mapping[str, type[Strategy]] = MappingProxyType({kind.name: kind for kind in _KINDS})
"""What `--strategy` takes, by name."""

# Options that several strategies have, by the argument that they are.
_OPTIONS = {
    "preset": "preset",
    "acquisition": "acquisition",
    "initial": "num_initial",
    "pool": "pool_size",
    "population": "population",
}
_GOAL = ("direction", "objectives", "constraints", "known")
# What no text can say.
_CALLABLE = ("model", "surrogate", "pool", "fidelity")


def add_strategy_arguments(search: Parser) -> None:
    """Add the options that say what chooses, and what it is after."""
    goal = search.add_argument_group("goal")
    goal.add_argument(
        "--direction",
        choices=("minimize", "maximize"),
        help="of the value, or of all objectives without one of their own; default minimize",
    )
    goal.add_argument(
        "--objectives",
        nargs="+",
        metavar="NAME",
        help="what is sought: figures of an evaluation by name, or value; NAME:maximize and "
        "NAME:minimize say which way",
    )
    goal.add_argument(
        "--constraint",
        action="append",
        default=[],
        metavar="TEXT",
        help='a bound on a figure of an evaluation, such as "params <= 1.2"; may be repeated',
    )

    strategy = search.add_argument_group("strategy")
    strategy.add_argument(
        "--strategy",
        type=_name,
        default="hotnas",
        metavar="NAME",
        help=f"one of {', '.join(STRATEGIES)}, default hotnas; or MODULE:NAME or FILE.py:NAME of a "
        "class or function that makes one of (space, generator=...)",
    )
    strategy.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting of the strategy by the name of its argument, the value as JSON or "
        "text, such as learn_from=30; may be repeated",
    )
    strategy.add_argument(
        "--fidelity",
        metavar="NAME=LEVELS",
        help="train most networks with less, as Hyperband does, all levels in one model: such as "
        "epochs=12,50,200, the last one whole (hotnas; others that take a fidelity)",
    )
    strategy.add_argument("--preset", choices=("default", "paper"), help="settings of hotnas")
    strategy.add_argument(
        "--acquisition",
        choices=("log_ei", "ucb", "log_nehvi", "log_nparego"),
        help="of strategies with a model; the last two are for several objectives",
    )
    strategy.add_argument(
        "--initial", type=int, metavar="N", help="random networks first, default 10 (hotnas)"
    )
    strategy.add_argument("--pool", type=int, metavar="N", help="candidates per choice")
    strategy.add_argument(
        "--population",
        type=int,
        metavar="N",
        help="of evolution (default 50) and nsga2 (20), which are random",
    )


def _name(text: str) -> str:
    if text not in STRATEGIES and ":" not in text:
        raise argparse.ArgumentTypeError(
            f"invalid choice: {text!r} (choose from {', '.join(STRATEGIES)}, or MODULE:NAME)"
        )
    return text


def make_strategy(
    parser: Parser, arguments: argparse.Namespace, space: spaces.SearchSpace
) -> Strategy:
    """Build the strategy that the options say."""
    kind: Callable[..., Any]
    kind = STRATEGIES.get(arguments.strategy) or _own(parser, arguments.strategy)
    fidelity = fidelity_of(parser, arguments)
    settings: dict[str, Any] = {}
    if fidelity is not None:
        kind = MultiFidelityHOTNAS if kind is HOTNAS else kind
        if "fidelity" not in known_settings(kind):
            parser.error("--fidelity is an option of --strategy hotnas")
        settings["fidelity"] = fidelity
    known = known_settings(kind, without=("space", "generator", *_GOAL, *_CALLABLE))
    for option, argument in _OPTIONS.items():
        if (value := getattr(arguments, option)) is None:
            continue
        if argument not in known:
            having = [name for name, one in STRATEGIES.items() if argument in known_settings(one)]
            parser.error(f"--{option} is an option of --strategy {', '.join(having)}")
        settings[argument] = value
    for text in arguments.set:
        name, equals, value = text.partition("=")
        if not equals or name not in known or name in settings:
            taken = [one for one in known if one not in settings]
            parser.error(
                f"--set must be NAME=VALUE of a setting of {arguments.strategy} that has no option "
                f"or was not given: {', '.join(taken) or 'it has none'}; got {text}"
            )
        settings[name] = _value(value)
    # Some plan for how long they have.
    if "budget" in known and "budget" not in settings:
        if arguments.minutes is not None:
            parser.error(
                f"--strategy {arguments.strategy} plans for a number of evaluations: add --set "
                "budget=N to --minutes"
            )
        settings["budget"] = arguments.evaluations or 60
    generator = torch.Generator().manual_seed(arguments.seed)
    make = partial(kind, space, generator=generator, **settings, **goal_settings(arguments))
    try:
        found = checked(parser, make)
    except TypeError as error:
        parser.error(f"--strategy {arguments.strategy}: {error}")
    if not isinstance(found, Strategy):
        parser.error(f"--strategy: {arguments.strategy} must make a Strategy; got {found!r}")
    return found


def fidelity_of(parser: Parser, arguments: argparse.Namespace) -> Fidelity | None:
    """Return what `--fidelity` says."""
    if arguments.fidelity is None:
        return None
    name, equals, levels = arguments.fidelity.partition("=")
    if not equals:
        parser.error(
            f"--fidelity must be NAME=LEVELS such as epochs=12,200; got {arguments.fidelity}"
        )
    found = [_value(one) for one in levels.split(",")]
    try:
        return Fidelity(found, name)
    except (TypeError, ValueError) as error:
        parser.error(f"--fidelity: {error}")


def _own(parser: Parser, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = checked(parser, lambda: referenced(name))
    if not callable(found):
        parser.error(f"--strategy: {name} must be a class or function; got {found!r}")
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def goal_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return settings of `Goal`, only those that differ from its defaults."""
    settings: dict[str, Any] = {}
    if arguments.constraint:
        settings["constraints"] = arguments.constraint
    if arguments.objectives is None:
        return settings | ({"direction": arguments.direction} if arguments.direction else {})
    names, directions = [], []
    for text in arguments.objectives:
        name, colon, direction = text.rpartition(":")
        names.append(name if colon else text)
        directions.append(direction if colon else arguments.direction or "minimize")
    return settings | {"objectives": names, "direction": directions}
