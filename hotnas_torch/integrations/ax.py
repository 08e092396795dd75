"""A strategy as a generation node of Ax, and spaces as parameters of its experiments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hotnas_torch.arch import Network
from hotnas_torch.arguments import kind, number, shown
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.search import Strategy
from hotnas_torch.search.goal_settings import Direction
from hotnas_torch.spaces import (
    AnyNetwork,
    Categorical,
    Float,
    Hyperparameter,
    Integer,
    Joint,
    Log,
    Ordered,
)
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.joint import ConfiguredNetwork

if TYPE_CHECKING:
    from hotnas_torch.spaces import SearchSpace

try:
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig
    from ax.exceptions.generation_strategy import GenerationStrategyCompleted
    from ax.generation_strategy.external_generation_node import ExternalGenerationNode
    from ax.generation_strategy.generation_strategy import GenerationStrategy
except ImportError as error:
    # The module can be imported and looked at without it; using it says what is missing.
    _missing: ImportError | None = error
    ExternalGenerationNode = object
else:
    _missing = None

__all__ = ["StrategyNode", "generation_strategy", "network", "parameters"]

# Of more values, a column is a range of whole numbers.
_MOST_CHOICES = 64


class StrategyNode(ExternalGenerationNode):  # type: ignore[misc]
    """Lets a strategy choose the trials of an Ax experiment.

    The experiment's parameters are those of the strategy's space, `parameters(space)`, and the
    objective is Ax's: the direction is taken from it. Of a strategy with one unnamed value the
    metric may have any name; one with several objectives or constraints names the metrics.

    Before each trial, the strategy learns what the experiment knows: trials of an experiment that
    goes on, or that others attached, as well as those that still run. Failed and abandoned trials
    count as failed, and so does one without all metrics, or with one that is not finite. A node
    serves one experiment: the strategy remembers its values.

    Args:
        strategy: What chooses, for example `HOTNAS(space, generator=...)`.
        name: Name of the node; None takes that of the strategy.
        **settings: Others of Ax's `ExternalGenerationNode`, such as `transition_criteria`.

    Raises:
        ImportError: Ax is not installed.
        TypeError: `strategy` is no strategy.
        ValueError: Its space has no columns of its own.
    """

    def __init__(self, strategy: Strategy, *, name: str | None = None, **settings: Any) -> None:
        _check_installed()
        kind("strategy", strategy, Strategy)
        self._columns = [config.name for config in parameters(strategy.space)]
        super().__init__(name=type(strategy).__name__ if name is None else name, **settings)
        self.strategy = strategy
        self._created: object = None
        self._keys = {strategy.space.key(found.network) for found in strategy.observations}

    def update_generator_state(self, experiment: Any, data: Any) -> None:
        """Tell the strategy what the experiment knows; Ax calls this.

        Raises:
            ValueError: The experiment has other parameters or objectives, or is not the one that
                this node began with; or a trial describes no network of the space.
        """
        self._check_experiment(experiment)
        names = self._aim(experiment.optimization_config.objective)
        found: dict[tuple[int, str], float] = {}
        for row in data.df.itertuples():
            found[row.trial_index, row.metric_name] = float(row.mean)
        space, pending = self.strategy.space, []
        for index, trial in sorted(experiment.trials.items()):
            for arm in trial.arms:
                try:
                    net = network(space, arm.parameters)
                except (ArchitectureError, TypeError, ValueError) as error:
                    raise ValueError(
                        f"trial {index} has parameters that are no network of {space!r}: {error}"
                    ) from error
                key = space.key(net)
                if key in self._keys:
                    continue
                if trial.status.is_terminal:
                    row = {own: found.get((index, ax), math.nan) for own, ax in names.items()}
                    if not trial.completed_successfully or not all(
                        map(math.isfinite, row.values())
                    ):
                        row = dict.fromkeys(row, math.nan)
                    self._keys.add(key)
                    plain = self.strategy.goal.plain
                    self.strategy.tell([net], [next(iter(row.values())) if plain else row])
                else:
                    pending.append(net)
        self.strategy.expect(pending)

    def get_next_candidate(self, pending_parameters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the parameters of the network that the strategy chooses; Ax calls this.

        Raises:
            GenerationStrategyCompleted: The space has no network that was not tried.
        """
        space = self.strategy.space
        self.strategy.expect([network(space, found) for found in pending_parameters])
        chosen = self.strategy.ask(1)
        if not chosen:
            raise GenerationStrategyCompleted(
                "the space has no network that was not tried (ask for fewer trials)"
            )
        return _parameters_of(space, chosen[0])

    def _check_experiment(self, experiment: Any) -> None:
        # Names are optional; this is kept where an experiment is saved and loaded.
        created = experiment.time_created
        if self._created not in (None, created):
            raise ValueError(
                f"the node belongs to the experiment that was created at {self._created}; got one"
                f" of {created} (make a node with a strategy of its own for each experiment)"
            )
        there = set(experiment.search_space.parameters)
        if there != set(self._columns):
            odd = sorted(there ^ set(self._columns))
            raise ValueError(
                f"the experiment must have the parameters of {self.strategy.space!r}; it differs in"
                f" {', '.join(map(repr, odd))} (configure it with parameters(space))"
            )
        self._created = created

    def _aim(self, objective: Any) -> dict[str, str]:
        """Hand Ax's directions to the strategy; return the metrics of what is told, by its name."""
        weights = dict(objective.metric_weights)
        goal = self.strategy.goal
        if objective.is_scalarized_objective or len(weights) != len(goal.objectives):
            raise ValueError(
                f"the objective must have {len(goal.objectives)} metrics, each of its own, as the"
                f" strategy has; got {objective.expression!r} (name them when the strategy is made:"
                ' HOTNAS(..., objectives=("error", "latency")))'
            )
        metrics = {goal.objectives[0]: next(iter(weights))} if goal.plain else {}
        if not goal.plain:
            metrics = {name: name for name in goal.measured}
            odd = set(weights) ^ set(goal.objectives)
            if odd:
                raise ValueError(
                    f"the objective must be of {', '.join(map(repr, goal.objectives))}; got"
                    f" {objective.expression!r}"
                )
        ways: list[Direction] = [
            "minimize" if weights[metrics.get(name, name)] < 0 else "maximize"
            for name in goal.objectives
        ]
        self.strategy.aim(ways)
        return metrics


def generation_strategy(strategy: Strategy) -> Any:
    """Return Ax's `GenerationStrategy` that lets one of ours choose all trials.

    Args:
        strategy: What chooses; it draws its first networks itself.

    Raises:
        ImportError, TypeError, ValueError: As `StrategyNode`.

    Example:
        >>> import hotnas_torch as ht
        >>> from ax.api.client import Client
        >>> space = ht.spaces.NASBench201()
        >>> strategy = ht.search.RandomSearch(space, generator=torch.Generator().manual_seed(0))
        >>> client = Client()
        >>> client.configure_experiment(parameters=parameters(space))
        >>> client.configure_optimization(objective="accuracy")
        >>> client.set_generation_strategy(generation_strategy(strategy))
        >>> for index, chosen in client.get_next_trials(max_trials=3).items():
        ...     net = network(space, chosen)
        ...     _ = client.complete_trial(index, {"accuracy": net.spec.count("3x3")})
    """
    node = StrategyNode(strategy)
    return GenerationStrategy(nodes=[node], name=node.name)


def parameters(space: SearchSpace) -> list[Any]:
    """Return the parameters of an Ax experiment whose trials are networks of a space.

    One per column of `space.encode` that has more than one value, by its name in `space.columns`,
    with its numbers as choices without an order; and the hyperparameters of a `spaces.Joint` by
    theirs. What numbers go together is the space's affair: `StrategyNode` asks for networks only.

    Args:
        space: The space.

    Raises:
        ImportError: Ax is not installed.
        TypeError: No space.
        ValueError: A space without bounds, or options that Ax has no type for.
    """
    _check_installed()
    check_space(space)
    own = space.space if isinstance(space, Joint) else space
    if isinstance(own, AnyNetwork):
        raise ValueError(f"space must have columns of its own; {space!r} holds every network")
    found = [
        _integers(name, values)
        for name, values in zip(own.columns, own.values, strict=True)
        if len(values) > 1
    ]
    if isinstance(space, Joint):
        found += [_configured(name, one) for name, one in space.hyperparameters.items()]
    return found


def network(space: SearchSpace, parameterization: Mapping[str, Any]) -> Network:
    """Return the network that the parameters of a trial describe.

    Args:
        space: The space whose `parameters` the experiment has.
        parameterization: Values by name, as Ax hands them over.

    Raises:
        TypeError: No space, or no mapping.
        ValueError: A parameter is missing.
        ArchitectureError: The values describe no network of the space.
    """
    check_space(space)
    kind("parameterization", parameterization, Mapping)
    own = space.space if isinstance(space, Joint) else space
    row = []
    for name, values in zip(own.columns, own.values, strict=True):
        if len(values) > 1 and name not in parameterization:
            raise ValueError(f"parameterization must have a value of {name!r}; got none")
        value = parameterization.get(name, values[0])
        row.append(number(f"parameterization[{name!r}]", value))
    (net,) = own.decode(torch.tensor([row], dtype=torch.float64))
    if not isinstance(space, Joint):
        return net
    missing = [name for name in space.hyperparameters if name not in parameterization]
    if missing:
        raise ValueError(f"parameterization must have a value of {missing[0]!r}; got none")
    return space.configure(net, {name: parameterization[name] for name in space.hyperparameters})


def _parameters_of(space: SearchSpace, net: Network) -> dict[str, Any]:
    own, values = space, {}
    if isinstance(space, Joint) and isinstance(net, ConfiguredNetwork):
        own, values, net = space.space, dict(net.values), net.network
    row = own.encode([net])[0].tolist()
    found = {
        name: int(number)
        for name, number, allowed in zip(own.columns, row, own.values, strict=True)
        if len(allowed) > 1
    }
    return found | values


def _integers(name: str, values: range) -> Any:
    if len(values) > _MOST_CHOICES:
        return RangeParameterConfig(name, (values[0], values[-1]), "int")
    return ChoiceParameterConfig(name, list(values), "int", is_ordered=False)


def _configured(name: str, one: Hyperparameter) -> Any:
    match one:
        case Float():
            scaling = "log" if isinstance(one, Log) else "linear"
            return RangeParameterConfig(name, (one.low, one.high), "float", scaling=scaling)
        case Integer():
            scaling = "log" if one.log else "linear"
            return RangeParameterConfig(name, (one.low, one.high), "int", scaling=scaling)
        case Categorical():
            options = list(one.options)
            types = {bool: "bool", int: "int", float: "float", str: "str"}
            found = {types.get(type(option)) for option in options}
            if len(found) > 1 and found <= {"int", "float"}:
                options, found = list(map(_real, options)), {"float"}
            if len(found) > 1 or None in found:
                raise ValueError(
                    f"hyperparameters[{name!r}] must have options of one type, which Ax needs; got"
                    f" {shown(one.options)}"
                )
            (kind_of,) = found
            ordered = isinstance(one, Ordered)
            return ChoiceParameterConfig(name, options, kind_of, is_ordered=ordered)
    raise ValueError(f"hyperparameters[{name!r}] has no counterpart in Ax; got {one!r}")


def _real(option: Any) -> float:
    return float(option)


def _check_installed() -> None:
    if _missing is not None:
        raise ImportError(
            f"a node for Ax needs it (pip install 'hotnas-torch[ax]'): {_missing}"
        ) from _missing
