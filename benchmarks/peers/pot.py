# Over 400 lines: one adapter per function of POT, each read by itself.
"""A pytest plugin that puts our solvers behind POT's functions, in POT's own modules.

A call inside our domain is answered by ours; any other goes to POT's function as before. Calls that
POT's other functions make on the way (barycentres, conditional gradient, `ot.solve`) are answered
by ours as well.
"""

import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import ot
import ot.batch
import ot.bregman
import ot.gromov
import pytest
import torch
from ot.backend import get_backend_list
from ot.utils import OTResult, list_to_array
from torch import Tensor

import hotnas_torch as ht
from benchmarks.peers.record import outside, plain, reached

__all__ = ["Outside", "adapt"]

_FEW = 20
"""Iteration limits below it are set to be met: by POT's count of POT's iterations."""


class Outside(Exception):
    """The call is outside what ours solves."""


# --- POT's arrays and ours ------------------------------------------------------------------------


def _tensor(array: Any) -> Tensor:
    if isinstance(array, np.ndarray):
        array = torch.from_numpy(np.ascontiguousarray(array))
    if not isinstance(array, Tensor) or array.layout != torch.strided:
        raise Outside("neither a numpy array nor a dense tensor")
    if array.dtype not in (torch.float32, torch.float64):
        raise Outside(f"{array.dtype}")
    return array


@dataclass(frozen=True, slots=True)
class _Problem:
    """Tensors with masses that sum to 1, and the way back to the caller's arrays."""

    arrays: tuple[Tensor, ...]
    a: Tensor
    b: Tensor
    total: Tensor
    numpy: bool

    def back(self, value: Tensor) -> Any:
        """In the kind of array that was passed."""
        return value.detach().numpy()[()] if self.numpy else value


def _problem(arrays: list[Any], a: Any, b: Any) -> _Problem:
    arrays = [list_to_array(array) for array in arrays]
    a, b = (mass if mass is None else list_to_array(mass) for mass in (a, b))
    given = [array for array in (*arrays, a, b) if array is not None]
    is_numpy = any(isinstance(array, np.ndarray) for array in given)
    if is_numpy and any(isinstance(array, Tensor) for array in given):
        raise Outside("mixed arrays")
    tensors = tuple(_tensor(array) for array in arrays)
    if len({tensor.dtype for tensor in tensors}) > 1 or not all(t.numel() for t in tensors):
        raise Outside("dtypes differ, or nothing to transport")
    if any(tensor.dim() < 2 for tensor in tensors):
        raise Outside("no matrix")
    cost = tensors[0]
    batch = cost.shape[:-2]
    masses = []
    for mass, size in ((a, cost.shape[-2]), (b, tensors[-1].shape[-1])):
        if mass is None or len(mass) == 0:
            masses.append(cost.new_full((*batch, size), 1 / size))
            continue
        masses.append(_tensor(mass).to(cost.dtype))
        if masses[-1].shape != (*batch, size):
            raise Outside(f"masses of shape {tuple(masses[-1].shape)}")
        if bool((masses[-1] < 0).any()):
            raise Outside("negative masses")
    total, other = (mass.detach().sum(-1) for mass in masses)
    if not torch.allclose(total, other, rtol=1e-6, atol=0.0) or not bool((total > 0).all()):
        raise Outside("masses of different sums")
    rounding = 1e-6 if cost.dtype == torch.float32 else 1e-12
    if all(torch.allclose(s, torch.ones_like(s), rtol=rounding) for s in (total, other)):
        return _Problem(tensors, *masses, total=torch.ones_like(total), numpy=is_numpy)
    masses = [mass / mass.detach().sum(-1, keepdim=True) for mass in masses]
    return _Problem(tensors, *masses, total=total, numpy=is_numpy)


# --- exact transport ------------------------------------------------------------------------------


def _emd(options: dict[str, Any]) -> tuple[_Problem, ht.ot.TransportResult, dict[str, Any]]:
    if options["potentials_init"] is not None:
        raise Outside("potentials to start from")
    if options["numItermax"] < _FEW or options["numThreads"] != 1:
        raise Outside("an iteration limit that is set to be met, or a setting of POT alone")
    problem = _problem([options["M"]], options["a"], options["b"])
    if problem.arrays[0].dim() != 2:
        raise Outside("no matrix")
    result = ht.ot.transport(problem.arrays[0], problem.a, problem.b)
    u, v = (problem.back(dual.detach()) for dual in (result.f, result.g))
    log = {"u": u, "v": v, "warning": None, "result_code": 1}
    return problem, result, log


def emd(**options: Any) -> Any:
    """`ot.emd` by `hotnas_torch.ot.transport`."""
    problem, result, log = _emd(options)
    plan = problem.back((result.plan * problem.total).detach())
    if not options["log"]:
        return plan
    return plan, log | {"cost": problem.back((result.objective * problem.total).detach())}


def emd2(**options: Any) -> Any:
    """`ot.emd2` by `hotnas_torch.ot.transport`."""
    problem, result, log = _emd(options)
    cost = problem.back(result.objective * problem.total)
    if not (options["log"] or options["return_matrix"]):
        return cost
    log["cost"] = cost
    if options["return_matrix"]:
        log["G"] = problem.back((result.plan * problem.total).detach())
    return cost, log


# --- entropic transport ---------------------------------------------------------------------------


def sinkhorn(**options: Any) -> Any:
    """The solvers behind `ot.sinkhorn` by `hotnas_torch.ot.sinkhorn`."""
    if options["warmstart"] is not None:
        raise Outside("potentials to start from")
    if options["numItermax"] < _FEW:
        raise Outside("an iteration limit that is set to be met")
    problem = _problem([options["M"]], options["a"], options["b"])
    epsilon = float(options["reg"])
    if problem.arrays[0].dim() != 2 or not epsilon > 0:
        raise Outside("no matrix, or no entropy")
    tol = max(options["stopThr"], 1e-9 if problem.a.dtype == torch.float64 else 1e-5)
    with warnings.catch_warnings():
        if not options["warn"]:
            warnings.simplefilter("ignore", ht.errors.ConvergenceWarning)
        result = ht.ot.sinkhorn(
            problem.arrays[0],
            problem.a,
            problem.b,
            epsilon=epsilon,
            tol=tol,
            max_iter=int(options["numItermax"]),
        )
    plan = problem.back(result.plan * problem.total)
    if not options["log"]:
        return plan
    log_u, log_v = result.f / epsilon, result.g / epsilon + problem.total.log()
    log = {
        "u": log_u.exp(),
        "v": log_v.exp(),
        "log_u": log_u,
        "log_v": log_v,
        "logu": log_u,
        "logv": log_v,
        "alpha": result.f,
        "beta": result.g + epsilon * problem.total.log(),
    }
    log = {name: problem.back(value) for name, value in log.items()}
    residual = problem.back(result.residual)
    return plan, log | {"err": [residual], "niter": int(result.iterations), "n_iter": residual}


def solve_batch(**options: Any) -> OTResult:
    """`ot.batch.solve_batch` by `transport` and `sinkhorn`."""
    if options["grad"] not in ("envelope", "detach"):
        raise Outside("gradients through iterations")
    if options["max_iter"] < _FEW:
        raise Outside("an iteration limit that is set to be met")
    problem = _problem([options["M"]], options["a"], options["b"])
    epsilon = options["reg"]
    if options["method"] == "proximal" or not epsilon:
        result = ht.ot.transport(problem.arrays[0], problem.a, problem.b)
    else:
        result = ht.ot.sinkhorn(
            problem.arrays[0], problem.a, problem.b, epsilon=float(epsilon), tol=options["tol"]
        )
    plan = result.plan.detach()
    linear = (problem.arrays[0] * plan).sum((-2, -1))
    value = linear
    if epsilon:
        reference = (
            1.0
            if options["reg_type"] == "entropy"
            else problem.a[..., None] * problem.b[..., None, :]
        )
        entropy = torch.where(plan > 0, plan * (plan / reference).log(), 0).sum((-2, -1))
        if options["reg_type"] == "entropy":
            entropy = entropy - plan.sum((-2, -1))
        value = linear + epsilon * entropy
    if options["grad"] == "detach":
        value, linear = value.detach(), linear.detach()
    return OTResult(
        value=problem.back(value),
        value_linear=problem.back(linear),
        plan=problem.back(plan),
        potentials=(problem.back(result.f.detach()), problem.back(result.g.detach())),
        log={"n_iter": int(result.iterations.max())},
    )


# --- Gromov-Wasserstein ---------------------------------------------------------------------------


def _graphs(options: dict[str, Any], first: str = "C1", second: str = "C2") -> _Problem:
    structures = [options[first], options[second]]
    cost = options.get("M")
    problem = _problem(
        structures if cost is None else [cost, *structures],
        options.get("p", options.get("a")),
        options.get("q", options.get("b")),
    )
    *given, x, y = problem.arrays
    if x.shape[-1] != x.shape[-2] or y.shape[-1] != y.shape[-2]:
        raise Outside("structures that are no square matrices")
    if not given:
        zeros = x.new_zeros(*x.shape[:-1], y.shape[-1])
        return _Problem((zeros, x, y), problem.a, problem.b, problem.total, problem.numpy)
    return problem


def _check_graphs(options: dict[str, Any], problem: _Problem) -> float | Tensor:
    if options["loss_fun"] != "square_loss":
        raise Outside("another loss")
    if not torch.allclose(problem.total, torch.ones_like(problem.total)):
        raise Outside("masses that do not sum to 1")
    if problem.arrays[0].dim() != 2:
        raise Outside("no matrix")
    alpha = options.get("alpha", 1.0)
    return alpha.to(problem.a.dtype) if isinstance(alpha, Tensor) else float(alpha)


def _gromov(options: dict[str, Any]) -> tuple[_Problem, ht.ot.FGWResult, dict[str, Any]]:
    if options["max_iter"] < _FEW:
        raise Outside("an iteration limit that is set to be met")
    problem = _graphs(options)
    alpha = _check_graphs(options, problem)
    init: Any = "product"
    if options["G0"] is not None:
        init = _tensor(options["G0"])
    result = ht.ot.fgw(
        *problem.arrays,
        problem.a,
        problem.b,
        alpha=alpha,
        loss="l2",
        init=init,
        max_iter=int(options["max_iter"]),
    )
    value = problem.back(result.objective.detach())
    log = {
        "u": problem.back(result.f.detach()),
        "v": problem.back(result.g.detach()),
        "loss": [value],
        "gw_dist": value,
        "fgw_dist": value,
    }
    return problem, result, log


def gromov_wasserstein(**options: Any) -> Any:
    """`ot.gromov.(fused_)gromov_wasserstein` by `hotnas_torch.ot.fgw`."""
    problem, result, log = _gromov(options)
    plan = problem.back(result.plan.detach())
    return (plan, log) if options["log"] else plan


def gromov_wasserstein2(**options: Any) -> Any:
    """`ot.gromov.(fused_)gromov_wasserstein2` by `hotnas_torch.ot.fgw`."""
    problem, result, log = _gromov(options)
    value = problem.back(result.objective)
    if not options["log"]:
        return value
    return value, log | {
        "gw_dist": value,
        "fgw_dist": value,
        "T": problem.back(result.plan.detach()),
        "lin_loss": problem.back(result.cost_linear.detach()),
        "quad_loss": problem.back(result.cost_quad.detach()),
    }


_METHODS = {"PGD": "mirror", "PPA": "proximal"}


def entropic_gromov_wasserstein(**options: Any) -> Any:
    """`ot.gromov.entropic_(fused_)gromov_wasserstein` by `hotnas_torch.ot.entropic_fgw`."""
    if options["solver"] not in _METHODS:
        raise Outside("another solver")
    problem = _graphs(options)
    if options["G0"] is not None:
        start = _tensor(options["G0"])
        if not torch.allclose(start, problem.a[:, None] * problem.b, rtol=0.0, atol=1e-12):
            raise Outside("a plan to start from that is not the product")
    alpha = _check_graphs(options, problem)
    result = ht.ot.entropic_fgw(
        *problem.arrays,
        problem.a,
        problem.b,
        epsilon=float(options["epsilon"]),
        alpha=alpha,
        loss="l2",
        method=_METHODS[options["solver"]],
        max_iter=int(options["max_iter"]),
    )
    plan = problem.back(result.plan if options["solver"] == "PGD" else result.plan.detach())
    if not options["log"]:
        return plan
    value = problem.back(result.objective)
    err = [problem.back(result.residual)]
    return plan, {"err": err, "gw_dist": value, "fgw_dist": value}


def solve_gromov_batch(**options: Any) -> OTResult:
    """`ot.batch.solve_gromov_batch` by proximal `hotnas_torch.ot.entropic_fgw`."""
    if options["loss"] != "sqeuclidean" or options["grad"] not in ("envelope", "detach"):
        raise Outside("another loss, or gradients through iterations")
    if options["T_init"] is not None or options["logits"] is not None:
        raise Outside("a plan to start from, or logits")
    if (options["M"] is None) != (options["alpha"] is None) or options["Ca"].ndim != 3:
        raise Outside("a wrong call, or vectors on edges")
    if options["alpha"] is None:
        del options["alpha"]
    problem = _graphs(options, "Ca", "Cb")
    result = ht.ot.entropic_fgw(
        *problem.arrays,
        problem.a,
        problem.b,
        epsilon=float(options["reg"]),
        alpha=options.get("alpha", 1.0),
        loss="l2",
        method="proximal",
    )
    value = result.objective
    if options["grad"] == "detach":
        value = value.detach()
    return OTResult(
        value=problem.back(value),
        value_linear=problem.back(result.cost_linear.detach()),
        value_quad=problem.back(result.cost_quad.detach()),
        plan=problem.back(result.plan.detach()),
        potentials=(problem.back(result.f.detach()), problem.back(result.g.detach())),
        log={"n_iter": int(result.iterations.max())},
    )


# --- in POT's place -------------------------------------------------------------------------------

_OURS: dict[Callable[..., Any], Callable[..., Any]] = {
    ot.emd: emd,
    ot.emd2: emd2,
    ot.bregman.sinkhorn_knopp: sinkhorn,
    ot.bregman.sinkhorn_log: sinkhorn,
    ot.bregman.sinkhorn_stabilized: sinkhorn,
    ot.bregman.sinkhorn_epsilon_scaling: sinkhorn,
    ot.bregman.greenkhorn: sinkhorn,
    ot.batch.solve_batch: solve_batch,
    ot.batch.solve_gromov_batch: solve_gromov_batch,
    ot.gromov.gromov_wasserstein: gromov_wasserstein,
    ot.gromov.gromov_wasserstein2: gromov_wasserstein2,
    ot.gromov.fused_gromov_wasserstein: gromov_wasserstein,
    ot.gromov.fused_gromov_wasserstein2: gromov_wasserstein2,
    ot.gromov.entropic_gromov_wasserstein: entropic_gromov_wasserstein,
    ot.gromov.entropic_fused_gromov_wasserstein: entropic_gromov_wasserstein,
}


def adapt(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the signature of POT's `original` that asks `ours` first."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def adapted(*args: Any, **kwargs: Any) -> Any:
        if "solver" in kwargs and "solver" not in signature.parameters:
            # The tests of the recorded commit are older than the release, which renamed it.
            kwargs["method"] = kwargs.pop("solver")
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        try:
            answer = ours(**bound.arguments)
        except Outside as why:
            outside(str(why))
            return original(*args, **kwargs)
        except Exception:
            reached(ours.__name__)
            raise
        reached(ours.__name__)
        return answer

    return adapted


def _decline(**options: Any) -> Any:
    del options
    raise Outside("left to POT")


def install(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Put ours wherever a module of POT holds one of its functions."""
    asked = {original: _decline if plain() else ours for original, ours in _OURS.items()}
    adapted = {original: adapt(original, ours) for original, ours in asked.items()}
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
