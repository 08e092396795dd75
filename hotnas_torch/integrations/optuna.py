# Over 400 lines: one sampler, read beside its interface.
"""A strategy as an Optuna sampler, and Optuna's distributions as hyperparameters."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hotnas_torch.arch import Network
from hotnas_torch.arguments import kind, number, shown
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.search import Strategy
from hotnas_torch.search.goal_settings import Direction
from hotnas_torch.spaces import (
    Categorical,
    ConfiguredNetwork,
    Float,
    Hyperparameter,
    Integer,
    Log,
    Ordered,
)
from hotnas_torch.spaces.joint import check_free_name

try:
    from optuna import Study
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.samplers import BaseSampler, RandomSampler
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    # The module can be imported and looked at without it; using it says what is missing.
    _missing: ImportError | None = error
    BaseSampler = object  # type: ignore[assignment, misc]
else:
    _missing = None

__all__ = ["ARCHITECTURE", "StrategySampler", "hyperparameters"]

ARCHITECTURE = "architecture"
"""User attribute of a trial, and default name of the parameter, that holds the string."""

_MOST_STEPS = 10_000

Parameters = Callable[[Network], Mapping[str, Any]]
Inverse = Callable[[Mapping[str, Any]], "Network | str | None"]


class StrategySampler(BaseSampler):
    """Lets a strategy choose the architecture of each Optuna trial.

    When a trial begins, the strategy chooses a network, whose string becomes the trial's user
    attribute `"architecture"`. What the objective then suggests gets the network's values::

        study = optuna.create_study(sampler=StrategySampler(strategy))
        study.optimize(lambda trial: train(trial.user_attrs["architecture"]), n_trials=60)

    An objective that suggests each decision of its own stays as it is: `parameters` says what
    each decision is for a network. Other suggestions, such as a learning rate, go to `others`,
    which sees them as a study of their own: samplers that draw parameters jointly, as Optuna's GP,
    CMA-ES and multivariate TPE, do so among them.

    A study of several objectives needs a strategy that has as many, in this order. Numbers that the
    strategy has bounds on besides are user attributes of a trial: where one is missing, the trial
    counts as failed.

    Trials that were enqueued or imported with values count as the strategy's own where their
    network is known: by the parameter `"architecture"`, or by `network`, the inverse of
    `parameters`. A finished one whose network is not known teaches the strategy nothing, which a
    warning says.

    Trials of a study that goes on, or that several processes share, are told or pending before each
    choice. A pruned trial counts with its last intermediate value, a failed one as failed. A
    sampler serves one study: the strategy remembers its values.

    Args:
        strategy: What chooses, for example `HOTNAS(space, generator=...)`.
        parameters: Returns the values of the objective's suggestions by name; None is the string by
            the name of `"architecture"`, and the hyperparameters of a `spaces.Joint` by theirs.
        network: Returns the network, or its string, of values of the objective's suggestions; None,
            or a KeyError, where they do not say it. By default the string that is called
            `"architecture"`.
        others: Samples what is not in `parameters`; None draws at random, seeded as the strategy.

    Raises:
        TypeError: `strategy` is no strategy, `parameters` or `network` no function, `others` no
            sampler.
        ImportError: Optuna is not installed.

    Example:
        >>> import optuna, torch
        >>> from hotnas_torch import spaces
        >>> from hotnas_torch.search import RandomSearch
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> strategy = RandomSearch(
        ...     spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0)
        ... )
        >>> def objective(trial):
        ...     return sum(trial.suggest_int(f"layer{place}", 0, 2) for place in range(8))
        >>> sampler = StrategySampler(
        ...     strategy,
        ...     parameters=lambda net: {f"layer{i}": int(op) for i, op in enumerate(net.spec)},
        ... )
        >>> study = optuna.create_study(sampler=sampler)
        >>> study.optimize(objective, n_trials=5)
        >>> study.best_value == strategy.best.value
        True
    """

    # Of the class: samplers that were pickled earlier have none.
    _study: str | None = None
    _inverse: Inverse | None = None
    _warned = False

    def __init__(
        self,
        strategy: Strategy,
        *,
        parameters: Parameters | None = None,
        network: Inverse | None = None,
        others: BaseSampler | None = None,
    ) -> None:
        if _missing is not None:
            raise ImportError(
                f"a sampler for Optuna needs it (pip install 'hotnas-torch[optuna]'): {_missing}"
            ) from _missing
        kind("strategy", strategy, Strategy)
        check_free_name("hyperparameters", ARCHITECTURE, strategy.space)
        if parameters is not None and not callable(parameters):
            raise TypeError(f"parameters must be callable or None; got {parameters!r}")
        if network is not None and not callable(network):
            raise TypeError(f"network must be callable or None; got {network!r}")
        kind("others", others, BaseSampler, optional=True)
        self.strategy = strategy
        self._parameters = _string if parameters is None else parameters
        self._inverse = network
        self._others = RandomSampler(strategy.config()["seed"]) if others is None else others
        self._networks: dict[int, Network] = {}
        self._observed: set[int] = set()
        self._keys = {strategy.space.key(found.network) for found in strategy.observations}
        # `optimize(n_jobs=...)` runs trials in threads.
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the lock, which belongs to this process."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.RLock()

    # --- choosing ---------------------------------------------------------------------------------

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Choose the network of a trial.

        Raises:
            RuntimeError: The space has no other network.
            ValueError: The study has other objectives than the strategy, or is not the one that
                this sampler began with; or a trial holds the architecture of another space.
        """
        with self._lock:
            self._check_same(study)
            self._check_goal(study)
            self._catch_up(study, trial.number)
            fixed = trial.system_attrs.get("fixed_params", {})
            network = self._network_of(trial, fixed)
            if network is not None:
                self.strategy.expect([network])
            elif fixed:
                pass  # somebody else's choice, whose network is not known
            else:
                networks = self.strategy.ask(1)
                if not networks:
                    raise RuntimeError(
                        "the space has no network that was not tried (ask for fewer trials)"
                    )
                network = networks[0]
            if network is not None:
                self._networks[trial.number] = network
        if network is not None:
            self._name(study, trial, network)
        self._others.before_trial(study, trial)

    def _name(self, study: Study, trial: FrozenTrial, network: Network) -> None:
        """Write the architecture of a trial into it.

        The objective sees the copy at hand, not the storage.
        """
        study._storage.set_trial_user_attr(trial._trial_id, ARCHITECTURE, network.spec)
        trial.user_attrs[ARCHITECTURE] = network.spec

    def _catch_up(self, study: Study, current: int) -> None:
        """Tell what the study knows and the strategy does not: earlier runs, other processes."""
        for trial in study.get_trials(deepcopy=False):
            if trial.number == current or trial.number in self._observed:
                continue
            text = trial.user_attrs.get(ARCHITECTURE)
            if text is not None:
                network = self._read(trial, text)
            else:
                values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
                found = self._network_of(trial, values)
                if found is None:
                    self._warn_of(trial)
                    continue
                network = found
            network = self._networks.setdefault(trial.number, network)
            if trial.state.is_finished():
                self._tell(trial, trial.state, trial.values)
            else:
                self.strategy.expect([network])

    def _network_of(self, trial: FrozenTrial, values: Mapping[str, Any]) -> Network | None:
        """Return the network that values of suggestions say; None where they say none."""
        found: object = None
        if self._inverse is None:
            found = values.get(ARCHITECTURE)
        elif values:
            try:
                found = self._inverse(values)
            except KeyError:
                return None
        if found is None:
            return None
        return self._read(trial, found.spec if isinstance(found, Network) else found)

    def _warn_of(self, trial: FrozenTrial) -> None:
        """Say once that a finished trial teaches nothing, where it could."""
        own = self._parameters is not _string and self._inverse is None
        if self._warned or not own or trial.state != TrialState.COMPLETE:
            return
        self._warned = True
        warnings.warn(
            f"trial {trial.number} does not say its architecture, and the strategy learns nothing "
            "from it (pass network=, the inverse of parameters, to StrategySampler)",
            UserWarning,
            stacklevel=2,
        )

    def _read(self, trial: FrozenTrial, text: object) -> Network:
        try:
            return self.strategy.space.from_string(text)  # type: ignore[arg-type]
        except (ArchitectureError, TypeError) as error:
            raise ValueError(
                f"trial {trial.number} has the architecture {text!r}, which is none of "
                f"{self.strategy.space!r}: {error} (give a strategy of the space of the study, or "
                "begin another study)"
            ) from error

    def _check_same(self, study: Study) -> None:
        """Refuse a second study: values of the two would be told as if they were of one."""
        if self._study not in (None, study.study_name):
            raise ValueError(
                f"the sampler belongs to the study {self._study!r}; got {study.study_name!r} (make "
                "a sampler with a strategy of its own for each study)"
            )
        self._study = study.study_name

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return what `others` samples jointly, without what the network decides."""
        own = self._decided(trial)
        space = self._others.infer_relative_search_space(study, trial)
        return {name: domain for name, domain in space.items() if name not in own}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return what `others` samples jointly; the network's values come one by one.

        Raises:
            ValueError: The study has other objectives than the strategy.
        """
        self._check_goal(study)
        return self._others.sample_relative(study, trial, search_space)

    def _decided(self, trial: FrozenTrial) -> Mapping[str, Any]:
        """Values of the suggestions that the network decides, by name."""
        network = self._networks.get(trial.number)
        if network is None:
            return {}
        values = self._parameters(network)
        if not isinstance(values, Mapping):
            raise TypeError(
                f"parameters must return a mapping of names to values; got {values!r} for the "
                f"network {network.spec!r}"
            )
        return values

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the network's value of a parameter, or what `others` samples.

        Raises:
            ValueError: The objective does not allow the network's value, or the study has other
                objectives than the strategy.
        """
        self._check_goal(study)
        network = self._networks.get(trial.number)
        values = self._decided(trial)
        if param_name not in values:
            return self._others.sample_independent(study, trial, param_name, param_distribution)
        value = values[param_name]
        try:
            allowed = param_distribution._contains(param_distribution.to_internal_repr(value))
        except ValueError:
            allowed = False
        if not allowed:
            raise ValueError(
                f"{param_name}: the objective suggests from {param_distribution}, which does not "
                f"hold {value!r} of the network {network.spec if network else ''!r}"
            )
        return value

    # --- results ----------------------------------------------------------------------------------

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Tell the strategy what came of a trial."""
        with self._lock:
            if trial.number in self._networks:
                self._tell(trial, state, values)
        self._others.after_trial(study, trial, state, values)

    def _tell(self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        goal = self.strategy.goal
        found: Sequence[float] = [math.nan] * len(goal.objectives)
        if state == TrialState.COMPLETE and values:
            found = values
        elif state == TrialState.PRUNED and trial.intermediate_values and not goal.several:
            found = [trial.intermediate_values[max(trial.intermediate_values)]]
        row = dict(zip(goal.objectives, map(float, found), strict=True))
        bounded = [name for name in goal.measured if name not in row]
        row |= {name: number(name, trial.user_attrs.get(name, math.nan)) for name in bounded}
        if not all(map(math.isfinite, row.values())):
            row = dict.fromkeys(row, math.nan)
        network = self._networks.pop(trial.number)
        self._observed.add(trial.number)
        key = self.strategy.space.key(network)
        # Two processes may have begun the same network at the same time.
        if key not in self._keys:
            self._keys.add(key)
            self.strategy.tell([network], [row[goal.objectives[0]] if goal.plain else row])

    def _check_goal(self, study: Study) -> None:
        """Hand the directions of the study to the strategy, or refuse them."""
        directions: list[Direction] = [
            "maximize" if found == StudyDirection.MAXIMIZE else "minimize"
            for found in study.directions
        ]
        objectives = self.strategy.goal.objectives
        if len(directions) != len(objectives):
            raise ValueError(
                f"the study must have as many objectives as the strategy, {len(objectives)}; got "
                f"{len(directions)} directions (name them when the strategy is made: "
                'HOTNAS(..., objectives=("error", "latency")))'
            )
        self.strategy.aim(directions)

    def reseed_rng(self) -> None:
        """Reseeds what samples the other parameters; the strategy keeps its generator."""
        self._others.reseed_rng()


def hyperparameters(distributions: Mapping[str, BaseDistribution]) -> dict[str, Hyperparameter]:
    """Return Optuna's distributions as hyperparameters of a `spaces.Joint`.

    Args:
        distributions: By name, for example those of a trial. Floats become `Float` or `Log`,
            integers `Integer`, those with steps `Ordered`, choices `Categorical`.

    Raises:
        ImportError: Optuna is not installed.
        TypeError: No mapping, or an entry is no distribution.
        ValueError: One has a single value, or more than 10,000 steps; the message names it.

    Example:
        >>> from optuna.distributions import FloatDistribution, IntDistribution
        >>> hyperparameters({"lr": FloatDistribution(1e-4, 1.0, log=True)})
        {'lr': Log(low=0.0001, high=1.0)}
        >>> hyperparameters({"width": IntDistribution(16, 64, step=16)})
        {'width': Ordered(options=(16, 32, 48, 64))}
    """
    if _missing is not None:
        raise ImportError(
            f"Optuna's distributions need it (pip install 'hotnas-torch[optuna]'): {_missing}"
        ) from _missing
    given: object = distributions
    if not isinstance(given, Mapping):
        raise TypeError(f"distributions must be a mapping of them by name; got {shown(given)}")
    return {name: _converted(name, one) for name, one in distributions.items()}


def _converted(name: str, one: object) -> Hyperparameter:
    if not isinstance(one, FloatDistribution | IntDistribution | CategoricalDistribution):
        raise TypeError(f"distributions[{name!r}] must be one of Optuna's; got {shown(one)}")
    if one.single():
        raise ValueError(
            f"distributions[{name!r}] must have more than one value; got {one} (leave it out, and "
            "use its value in the objective)"
        )
    if isinstance(one, CategoricalDistribution):
        return Categorical(tuple(one.choices))
    if isinstance(one, FloatDistribution) and one.step is None:
        return (Log if one.log else Float)(one.low, one.high)
    if isinstance(one, IntDistribution) and one.step == 1:
        return Integer(one.low, one.high, log=one.log)
    steps = round((one.high - one.low) / (one.step or 1))
    if steps > _MOST_STEPS:
        raise ValueError(
            f"distributions[{name!r}] must have at most {_MOST_STEPS:,} steps; got {one} (leave "
            "the step out)"
        )
    # As Optuna writes them: multiples of the step, rounded to its digits.
    values = [one.to_external_repr(one.low + (one.step or 1) * place) for place in range(steps + 1)]
    if isinstance(one, FloatDistribution):
        values = [round(value, 12) for value in values]
    return Ordered(tuple(values))


def _string(network: Network) -> dict[str, Any]:
    values = network.values if isinstance(network, ConfiguredNetwork) else {}
    return {ARCHITECTURE: network.spec, **values}
