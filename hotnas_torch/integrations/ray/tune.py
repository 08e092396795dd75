"""A strategy as a Ray Tune searcher."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotnas_torch.arch import Network
from hotnas_torch.arguments import kind, number
from hotnas_torch.errors import StorageError
from hotnas_torch.files import is_version, read_bytes, write_text
from hotnas_torch.search import Strategy
from hotnas_torch.search.goal_settings import VALUE, Direction
from hotnas_torch.spaces import ConfiguredNetwork
from hotnas_torch.spaces.joint import check_free_name

try:
    from ray.tune.search import Searcher
    from ray.tune.search.variant_generator import parse_spec_vars
except ImportError as error:
    # The module can be imported and looked at without it; using it says what is missing.
    _missing: ImportError | None = error
    Searcher = object  # type: ignore[assignment, misc]
else:
    _missing = None

__all__ = ["StrategySearcher"]

_VERSION = 2
# Values were negated where large ones are good.
_NEGATED = 1
_DIRECTIONS: dict[str, Direction] = {"min": "minimize", "max": "maximize"}
_MOST_BYTES = 2**30


class StrategySearcher(Searcher):
    """Lets a strategy choose the architecture of each Tune trial.

    A trainable finds the architecture string in its configuration, beside the constants of
    `param_space` and the hyperparameters of a `spaces.Joint`, and reports its metric as always. The
    networks of running trials are pending for the strategy; a trial that fails, or that never
    reports the metric, counts as failed.

    Args:
        strategy: What chooses, for example `HOTNAS(space, generator=...)`.
        metric: What trials report; None takes the one of `TuneConfig`, which Tune hands on only
            where there is a `param_space`. Several objectives are reported by their names in the
            strategy; a list gives them others. So are numbers that the strategy has bounds on.
        mode: `"min"` or `"max"`; None takes the one of `TuneConfig`; for several objectives a list,
            None takes the strategy's directions.
        parameter: Key of the architecture string in the configuration.

    Raises:
        TypeError: `strategy` is no strategy.
        ImportError: Ray Tune is not installed.

    Example:
        >>> import torch
        >>> from hotnas_torch import spaces
        >>> from hotnas_torch.search import RandomSearch
        >>> strategy = RandomSearch(spaces.Pooling(), generator=torch.Generator().manual_seed(0))
        >>> searcher = StrategySearcher(strategy, metric="error", mode="min")
        >>> config = searcher.suggest("trial-1")
        >>> searcher.on_trial_complete("trial-1", {"error": 7.5})
        >>> strategy.best.value, strategy.best.network.spec == config["architecture"]
        (7.5, True)

        With Tune itself::

            tune.Tuner(train, tune_config=tune.TuneConfig(
                search_alg=StrategySearcher(strategy, metric="error", mode="min"),
                num_samples=60, max_concurrent_trials=4)).fit()
    """

    CKPT_FILE_TMPL = "searcher-state-{}.json"

    def __init__(
        self,
        strategy: Strategy,
        *,
        metric: str | list[str] | None = None,
        mode: str | list[str] | None = None,
        parameter: str = "architecture",
    ) -> None:
        if _missing is not None:
            raise ImportError(
                f"a searcher for Ray Tune needs it (pip install 'hotnas-torch[tune]'): {_missing}"
            ) from _missing
        kind("strategy", strategy, Strategy)
        check_free_name("parameter", parameter, strategy.space)
        # Lists are allowed, which its annotations leave out.
        super().__init__(metric=metric, mode=mode)  # type: ignore[arg-type]
        self.strategy = strategy
        self.parameter = parameter
        self._constants: dict[str, Any] = {}
        self._networks: dict[str, Network] = {}
        self._aim()

    def _aim(self) -> None:
        """Tell the strategy the mode, once it is known."""
        modes = [self._mode] if isinstance(self._mode, str) else list(self._mode or ())
        if modes and all(mode in _DIRECTIONS for mode in modes):
            self.strategy.aim([_DIRECTIONS[mode] for mode in modes])

    def set_search_properties(
        self,
        metric: str | None,
        mode: str | None,
        config: dict[str, Any],
        **spec: Any,  # noqa: ARG002 (Tune's interface)
    ) -> bool:
        """Take what `TuneConfig` and `param_space` say.

        Raises:
            ValueError: `param_space` holds distributions, which this searcher does not choose
                from, or the architecture's own key.
        """
        _, domains, grids = parse_spec_vars(config)
        open_keys = ["/".join(map(str, path)) for path, _ in domains + grids]
        if open_keys:
            raise ValueError(
                f"param_space: {', '.join(open_keys)} must be values; got distributions (the "
                "strategy chooses the architecture only)"
            )
        for name in self.strategy.space.hyperparameters:
            if name in config:
                raise ValueError(
                    f"param_space must not hold {name!r}, which the strategy chooses (leave it out)"
                )
        if self.parameter in config:
            raise ValueError(
                f"param_space must not hold {self.parameter!r}, which the strategy chooses (leave "
                "it out, or choose another parameter=)"
            )
        self._constants = dict(config)
        self._metric = metric or self._metric
        self._mode = mode or self._mode
        self._aim()
        return True

    # Tune's own annotation leaves out what its documentation promises, FINISHED.
    def suggest(self, trial_id: str) -> Any:
        """Return the configuration of a trial, or that the space has no other network.

        Raises:
            ValueError: Nobody said what the metric and its mode are.
        """
        said = self._metric and self._mode in ("min", "max")
        if not (said or self.strategy.goal.several):
            raise ValueError(
                "metric and mode ('min' or 'max') must be given, here or in TuneConfig; got "
                f"{self._metric!r} and {self._mode!r}"
            )
        networks = self.strategy.ask(1)
        if not networks:
            return self.FINISHED
        (network,) = networks
        self._networks[trial_id] = network
        values = network.values if isinstance(network, ConfiguredNetwork) else {}
        return {**self._constants, **values, self.parameter: network.spec}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the strategy what came of a trial.

        Raises:
            TypeError: The metric is no number; the trial stays pending.
        """
        network = self._networks.get(trial_id)
        if network is None:
            return
        goal = self.strategy.goal
        names = {name: self._reported(name) for name in goal.measured}
        row = dict.fromkeys(names, math.nan)
        for name, key in names.items():
            found = None if error or result is None else result.get(key)
            if found is not None:
                row[name] = number(f"{key!r} of trial {trial_id}", found)
        if not all(map(math.isfinite, row.values())):
            row = dict.fromkeys(row, math.nan)
        self.strategy.tell([network], [row[VALUE] if goal.plain else row])
        del self._networks[trial_id]

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: Any,
        error: bool = False,
        pruned: bool = False,  # noqa: ARG002 (Tune's interface)
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Tell the strategy the value of a configuration that was evaluated elsewhere.

        Args:
            parameters: The configuration, with the architecture string by its key.
            value: Its metric; of several objectives a mapping by name, or a sequence.
            error: Whether it failed.
            pruned: Whether it was cut short, which its last value counts for all the same.
            intermediate_values: The metric over time; the last one counts where `value` is None.

        Raises:
            TypeError, ValueError: The architecture is missing or of another space, was observed
                before, or the value is no finite number.
        """
        if not isinstance(parameters, Mapping) or self.parameter not in parameters:
            raise ValueError(
                f"parameters must hold the architecture string as {self.parameter!r}; got "
                f"{parameters!r}"
            )
        network = self.strategy.space.from_string(parameters[self.parameter])
        if isinstance(network, ConfiguredNetwork):
            for name, own in network.values.items():
                if parameters.get(name, own) != own:
                    raise ValueError(
                        f"parameters[{name!r}] must be {own!r}, as the architecture string says; "
                        f"got {parameters[name]!r}"
                    )
        if value is None and intermediate_values:
            value = intermediate_values[-1]
        self.strategy.tell([network], [math.nan if error else value])

    def _reported(self, name: str) -> str:
        """Return the key of a result that holds a number of the goal."""
        objectives = self.strategy.goal.objectives
        metrics = [self._metric] if isinstance(self._metric, str) else list(self._metric or ())
        return dict(zip(objectives, metrics, strict=False)).get(name, name)

    def _upgraded(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a strategy's state of version 1 with the values that trials reported."""
        if self._mode not in _DIRECTIONS:
            raise ValueError("it does not say its mode (pass mode= to the searcher)")
        if self._mode == "min":
            return state
        observed = [
            [spec, None if value is None else -value] for spec, value in state["observations"]
        ]
        config = {**state["config"], "goal": self.strategy.goal.describe()}
        return {**state, "observations": observed, "config": config}

    def save(self, checkpoint_path: str) -> None:
        """Write the state as JSON, in one step."""
        state = {
            "version": _VERSION,
            "mode": self._mode,
            "strategy": self.strategy.state_dict(),
            "trials": {trial: network.spec for trial, network in self._networks.items()},
        }
        write_text(Path(checkpoint_path), json.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        """Continue where `save` was called, with an equally configured strategy.

        Raises:
            StorageError: The file is damaged, of another version or of another strategy. Nothing
                changes then.
        """
        try:
            state = dict(json.loads(read_bytes(Path(checkpoint_path), most=_MOST_BYTES)))
            version = state.get("version")
            if not (is_version(version, _VERSION) or is_version(version, _NEGATED)):
                raise ValueError(
                    f"it has version {state.get('version')!r} of a searcher's state, expected "
                    f"{_VERSION} (another hotnas_torch wrote it)"
                )
            space = self.strategy.space
            networks = {trial: space.from_string(spec) for trial, spec in state["trials"].items()}
            mode = self._mode or state.get("mode")
            if version == _NEGATED:
                mode = self._mode
                state["strategy"] = self._upgraded(state["strategy"])
            self._mode = mode
            self._aim()
            self.strategy.load_state_dict(state["strategy"])
        except (
            *(OSError, ValueError, KeyError, TypeError, AttributeError),
            RecursionError,
        ) as error:
            raise StorageError(
                f"cannot restore a searcher from {checkpoint_path}: {error} (begin a new search, "
                "or restore what was saved by an equal strategy)"
            ) from error
        self._networks = networks
