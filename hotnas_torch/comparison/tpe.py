"""Optuna's tree-structured Parzen estimator over the choices of a space: an outside reference."""

import math
from typing import Any

import torch

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, takes
from hotnas_torch.search import Strategy
from hotnas_torch.search.goal import GOAL
from hotnas_torch.spaces import SearchSpace

__all__ = ["TPE"]

_MOST_MISSES = 200


class TPE(Strategy):
    """Optuna's `TPESampler` on the code of a network: a category without an order per column.

    A network that it proposes again has its value again, which does not count as an evaluation;
    after 200 of them in a row the network is random.

    Args:
        space: What is searched; every filling of its columns is a network.
        generator: Source of all randomness; each proposal seeds a sampler from it.
        num_initial: Random networks at the start, >= 1.
        **goal: Settings of `Goal`, such as `direction="maximize"`.

    Raises:
        ImportError: Optuna is not installed (the extra `optuna` has it).
        TypeError, ValueError: A setting of the wrong kind or out of range; some fillings of the
            columns are no networks.

    Complexity: linear in the observations, for each network.

    Reference: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011.
    """

    name = "tpe"

    @takes(*GOAL)
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        num_initial: int = 10,
        **goal: Any,
    ) -> None:
        super().__init__(space, generator=generator, **goal)
        try:
            import optuna  # noqa: F401  # said here, not at the first proposal
        except ImportError as error:
            raise ImportError("TPE is Optuna's: pip install 'hotnas-torch[optuna]'") from error
        if space.size_bound() != math.prod(map(len, space.values)):
            raise ValueError(
                "space must be one of which every filling of the columns is a network, such as "
                f"NASBench201; got {space!r}"
            )
        self.num_initial = integer("num_initial", num_initial, least=1)

    def settings(self) -> dict[str, Any]:
        """Return the number of random networks and the version of Optuna."""
        import optuna

        return {"num_initial": self.num_initial, "optuna": optuna.__version__}

    def _propose(self, num: int) -> list[Network]:
        import optuna
        from optuna.distributions import BaseDistribution, CategoricalDistribution
        from optuna.trial import TrialState, create_trial

        taken = self._taken()
        if len(taken) < self.num_initial:
            return self._sample_unseen(num, taken)
        codes: dict[str, BaseDistribution] = {
            f"{place}": CategoricalDistribution([int(value) for value in values])
            for place, values in enumerate(self.space.values)
        }
        seed = int(torch.randint(2**31, (), generator=self._generator))
        # Networks that are pending count as the worst, as in a study of several workers.
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, constant_liar=True)
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of each study
        try:
            study = optuna.create_study(sampler=sampler)
        finally:
            optuna.logging.set_verbosity(level)
        known = {}
        for one in self._finite():
            known[self.space.key(one.network)] = one.value
            choices = self.space.encode([one.network])[0].tolist()
            study.add_trial(
                create_trial(
                    params={name: int(value) for name, value in zip(codes, choices, strict=True)},
                    distributions=codes,
                    value=one.value,
                )
            )
        proposed: list[Network] = []
        while len(proposed) < num:
            found = None
            for _ in range(_MOST_MISSES):
                trial = study.ask(codes)
                row = [[trial.params[name] for name in codes]]
                (net,) = self.space.decode(torch.tensor(row))
                key = self.space.key(net)
                if key not in taken:
                    found = net
                    break
                if key in known:
                    study.tell(trial, known[key])
                else:  # it is pending, or its evaluation failed
                    study.tell(trial, state=TrialState.FAIL)
            more = self._sample_unseen(1, taken) if found is None else [found]
            if not more:
                break
            taken.add(self.space.key(more[0]))
            proposed += more
        return proposed
