"""A pytest plugin that puts `hotnas_torch.integrations.pot` behind POT's functions, in its modules.

A call inside our domain is answered by ours; any other goes to POT's function as before. Calls that
POT's other functions make on the way (conditional gradient, domain adaptation) are answered by ours
as well.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import ot
import ot.batch
import ot.bregman
import ot.gromov
import ot.partial
import ot.unbalanced
import pytest
import torch
from ot.backend import get_backend_list

from benchmarks.peers.record import outside, plain, reached
from hotnas_torch.integrations import pot as ours

__all__ = ["adapt"]

_FEW = 20
"""Iteration limits below it are set to be met: by POT's count of POT's iterations."""

_UNCOUNTED = ("entropic_", "fused_unbalanced_", "solve_")
"""Functions whose tests set low limits to be done soon, and ask nothing of where that ends."""

_RENAMED = {"solver": "method", "C1": "Ca", "C2": "Cb"}
"""Arguments that the tests of the recorded commit, older than the release, call by other names."""

_OURS: dict[Callable[..., Any], Callable[..., Any]] = {
    ot.emd: ours.emd,
    ot.emd2: ours.emd2,
    ot.bregman.sinkhorn_knopp: ours.sinkhorn,
    ot.bregman.sinkhorn_log: ours.sinkhorn,
    ot.bregman.sinkhorn_stabilized: ours.sinkhorn,
    ot.bregman.sinkhorn_epsilon_scaling: ours.sinkhorn,
    ot.bregman.greenkhorn: ours.sinkhorn,
    ot.bregman.empirical_sinkhorn: ours.bregman.empirical_sinkhorn,
    ot.bregman.empirical_sinkhorn2: ours.bregman.empirical_sinkhorn2,
    ot.bregman.empirical_sinkhorn_divergence: ours.bregman.empirical_sinkhorn_divergence,
    ot.partial.partial_wasserstein: ours.partial.partial_wasserstein,
    ot.partial.partial_wasserstein2: ours.partial.partial_wasserstein2,
    ot.partial.partial_wasserstein_lagrange: ours.partial.partial_wasserstein_lagrange,
    ot.unbalanced.sinkhorn_unbalanced: ours.sinkhorn_unbalanced,
    ot.unbalanced.sinkhorn_unbalanced2: ours.sinkhorn_unbalanced2,
    ot.unbalanced.sinkhorn_knopp_unbalanced: ours.sinkhorn_unbalanced,
    ot.unbalanced.sinkhorn_stabilized_unbalanced: ours.sinkhorn_unbalanced,
    ot.unbalanced.sinkhorn_unbalanced_translation_invariant: ours.sinkhorn_unbalanced,
    ot.unbalanced.mm_unbalanced: ours.unbalanced.mm_unbalanced,
    ot.unbalanced.mm_unbalanced2: ours.unbalanced.mm_unbalanced2,
    ot.batch.solve_batch: ours.solve_batch,
    ot.batch.solve_gromov_batch: ours.solve_gromov_batch,
    ot.batch.solve_sample_batch: ours.solve_sample_batch,
    ot.unbalanced.lbfgsb_unbalanced: ours.unbalanced.lbfgsb_unbalanced,
    ot.unbalanced.lbfgsb_unbalanced2: ours.unbalanced.lbfgsb_unbalanced2,
}
_OURS |= {getattr(ot.gromov, name): getattr(ours.gromov, name) for name in ours.gromov.__all__}


def adapt(original: Callable[..., Any], answer: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the signature of POT's `original` that asks ours first."""
    signature = inspect.signature(original)
    known = inspect.signature(answer).parameters

    @functools.wraps(original)
    def adapted(*args: Any, **kwargs: Any) -> Any:
        for old, new in _RENAMED.items():
            if old in kwargs and old not in signature.parameters:
                kwargs[new] = kwargs.pop(old)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        options = dict(bound.arguments)
        options |= options.pop("kwargs", {})
        try:
            _check_what_is_tested(answer, options)
            found = answer(**{name: value for name, value in options.items() if name in known})
        except ours.Unsupported as why:
            outside(str(why))
            return original(*args, **kwargs)
        except Exception:
            reached(answer.__name__)
            raise
        reached(answer.__name__)
        return found

    return adapted


def _check_what_is_tested(answer: Callable[..., Any], options: dict[str, Any]) -> None:
    """Leave to POT what its tests say of its own iterations and threads."""
    limits = (options.get(name) for name in ("numItermax", "numIterMax", "max_iter"))
    counted = not answer.__name__.startswith(_UNCOUNTED)
    if counted and any(limit is not None and limit < _FEW for limit in limits):
        raise ours.Unsupported("an iteration limit that is set to be met")
    if options.get("numThreads", 1) != 1:
        raise ours.Unsupported("a setting of POT alone")


def _decline(**options: Any) -> Any:
    del options
    raise ours.Unsupported("left to POT")


def install(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Put ours wherever a module of POT holds one of its functions."""
    asked = {original: _decline if plain() else answer for original, answer in _OURS.items()}
    adapted = {original: adapt(original, answer) for original, answer in asked.items()}
    for name, module in list(sys.modules.items()):
        if name == "ot" or name.startswith("ot."):
            for attribute, value in list(vars(module).items()):
                if inspect.isfunction(value) and value in adapted:
                    replace(module, attribute, adapted[value])


@pytest.fixture(params=get_backend_list(), ids=str)
def nx(request: pytest.FixtureRequest) -> Any:
    """The fixture of POT's conftest, which its source distribution leaves out."""
    return request.param


def _skip_where(
    names: Any, values: Any, reason: str = "", getter: Any = lambda value: value
) -> Any:
    """`pytest.skip_arg` of POT's conftest: skip a case whose arguments have these values."""
    names, values = (
        item if isinstance(item, tuple | list) else (item,) for item in (names, values)
    )
    getters = getter if isinstance(getter, tuple | list) else [getter] * len(names)

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def call(*args: Any, **kwargs: Any) -> Any:
            if all(
                name in kwargs and get(kwargs[name]) == value
                for name, value, get in zip(names, values, getters, strict=True)
            ):
                pytest.skip(reason or f"{names} is {values}")
            return test(*args, **kwargs)

        return call

    return decorate


def pytest_configure() -> None:
    """Take POT's place before its tests are imported."""
    pytest.skip_arg = _skip_where
    pytest.skip_backend = functools.partial(_skip_where, "nx", getter=str)
    torch.set_num_threads(1)
    np.set_printoptions(legacy="1.25")
    install()
