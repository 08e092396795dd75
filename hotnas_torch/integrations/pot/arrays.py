"""POT's arrays and ours: numpy or torch in, the same kind out."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from hotnas_torch.errors import ConvergenceWarning

__all__ = [
    "Problem",
    "Unsupported",
    "absent",
    "dist",
    "given_masses",
    "named",
    "problem",
    "quiet_unless",
    "started",
    "tensors",
    "unif",
]


class Unsupported(NotImplementedError, ValueError):
    """The call is one of POT's that this library does not solve; POT itself may."""


class _Absent(Unsupported, AttributeError):
    """A function of POT's that is not here; `hasattr` and `getattr` with a default see that."""


def absent(module: str) -> Callable[[str], NoReturn]:
    """Return the `__getattr__` of a module, which says what the module has instead (PEP 562)."""

    def get(name: str) -> NoReturn:
        short = module.removeprefix("hotnas_torch.integrations.").replace("pot", "ot", 1)
        there = ", ".join(one for one in sys.modules[module].__all__ if one != "Unsupported")
        raise _Absent(
            f"{short}.{name} is not one of POT's functions here (POT's own can be used beside:"
            f" import ot): there are {there}"
        )

    return get


@dataclass(frozen=True, slots=True)
class Problem:
    """Tensors with masses that sum to 1, and the way back to the caller's arrays."""

    arrays: tuple[Tensor, ...]
    a: Tensor
    b: Tensor
    total: Tensor
    numpy: bool

    def back(self, value: Tensor) -> Any:
        """Return a value in the kind of array that was passed."""
        return value.detach().cpu().numpy()[()] if self.numpy else value


def tensors(*values: Any) -> tuple[list[Tensor | None], bool]:
    """Return arrays as tensors of one dtype, and whether they came as numpy arrays.

    Args:
        *values: Numpy arrays, tensors, lists or None; integers are taken for float64.

    Raises:
        Unsupported: Arrays of another library, sparse ones, or numpy and torch mixed.
    """
    given = [value for value in values if value is not None]
    is_torch = any(isinstance(value, Tensor) for value in given)
    if is_torch and any(isinstance(value, np.ndarray) for value in given):
        raise Unsupported("arrays must be of one kind; got numpy and torch mixed")
    found = [None if value is None else _tensor(value) for value in values]
    floating = {value.dtype for value in found if value is not None and value.is_floating_point()}
    if len(floating) > 1:
        listed = ", ".join(sorted(map(str, floating)))
        raise Unsupported(f"arrays must have one dtype; got {listed} (use .astype or .to)")
    dtype = floating.pop() if floating else torch.float64
    if dtype not in (torch.float32, torch.float64):
        raise Unsupported(f"arrays must be float32 or float64; got {dtype}")
    return [None if value is None else value.to(dtype) for value in found], not is_torch


def _tensor(value: Any) -> Tensor:
    if isinstance(value, list | tuple):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise Unsupported(f"arrays must hold real numbers; got {value.dtype}")
        # A copy: what is returned must not change with what was passed.
        value = torch.from_numpy(np.array(value))
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise Unsupported(
            f"arrays must be numpy arrays or dense tensors; got {type(value).__name__}"
        )
    return value


def problem(arrays: Sequence[Any], a: Any, b: Any, *, balanced: bool = True) -> Problem:
    """Read matrices, the last two dimensions of the first being rows and columns, and masses.

    Args:
        arrays: Costs, or structures of rows and of columns, behind costs or not.
        a: Masses of rows, None or empty for uniform ones.
        b: Masses of columns, likewise.
        balanced: Whether masses must have the same sum, and are scaled to 1; else they stay.

    Raises:
        Unsupported: What is read is no problem of ours; the message says why.
    """
    found, is_numpy = tensors(*arrays, given_masses(a), given_masses(b))
    matrices = [matrix for matrix in found[:-2] if matrix is not None]
    if any(matrix.dim() < 2 or not matrix.numel() for matrix in matrices):
        raise Unsupported("costs and structures must be matrices with at least one entry")
    cost = matrices[0]
    batch = cost.shape[:-2]
    masses = []
    for name, mass, size in (
        ("a", found[-2], cost.shape[-2]),
        ("b", found[-1], matrices[-1].shape[-1]),
    ):
        if mass is None:
            masses.append(cost.new_full((*batch, size), 1 / size))
            continue
        if mass.shape != (*batch, size):
            raise Unsupported(
                f"{name} must have shape {(*batch, size)} to fit costs of shape"
                f" {tuple(cost.shape)}; got {tuple(mass.shape)}"
            )
        if bool((mass < 0).any()):
            raise Unsupported(f"{name} must not be negative")
        masses.append(mass)
    total, other = (mass.detach().sum(-1) for mass in masses)
    if not balanced:
        return Problem(tuple(matrices), masses[0], masses[1], torch.ones_like(total), is_numpy)
    if not torch.allclose(total, other, rtol=1e-6, atol=0.0) or not bool((total > 0).all()):
        raise Unsupported("a and b must have the same positive sum")
    rounding = 1e-6 if cost.dtype == torch.float32 else 1e-12
    if all(torch.allclose(s, torch.ones_like(s), rtol=rounding) for s in (total, other)):
        return Problem(tuple(matrices), masses[0], masses[1], torch.ones_like(total), is_numpy)
    masses = [mass / mass.detach().sum(-1, keepdim=True) for mass in masses]
    return Problem(tuple(matrices), masses[0], masses[1], total, is_numpy)


def given_masses(masses: Any) -> Any:
    """Return masses, or None where there are none: POT takes empty arrays for uniform ones."""
    if isinstance(masses, Tensor):
        return masses if masses.numel() else None
    return masses if masses is not None and np.size(masses) else None


def started(solved: Problem, warmstart: Any, epsilon: float) -> tuple[Tensor, Tensor] | None:
    """Return duals to start from, of POT's logarithms of scalings; None for none.

    Raises:
        Unsupported: They are no pair of vectors of the problem's sizes.
    """
    if warmstart is None:
        return None
    sizes = [(mass.shape[-1],) for mass in (solved.a, solved.b)]
    found, _ = tensors(*warmstart) if isinstance(warmstart, tuple | list) else ([], True)
    if len(found) != 2 or [None if v is None else tuple(v.shape) for v in found] != sizes:
        raise Unsupported(f"warmstart must be a pair of vectors of {sizes[0][0]} and {sizes[1][0]}")
    f, g = (epsilon * value.detach().to(solved.a) for value in found if value is not None)
    return f, g


def named(name: str, value: Any, known: Sequence[str]) -> str:
    """Return the name of a setting in small letters.

    Raises:
        Unsupported: It is no name, or none that is known.
    """
    if not isinstance(value, str) or value.lower() not in known:
        raise Unsupported(f"{name} must be one of {', '.join(known)}; got {value!r}")
    return value.lower()


@contextmanager
def quiet_unless(warn: bool) -> Iterator[None]:
    """Pass on warnings of items that were not solved only where they are wanted."""
    with warnings.catch_warnings():
        if not warn:
            warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def unif(n: int, type_as: Any = None) -> Any:
    """Return n equal masses of sum 1, as `ot.unif`."""
    if isinstance(type_as, Tensor):
        return type_as.new_full((n,), 1 / n)
    return np.full(n, 1 / n, dtype=None if type_as is None else type_as.dtype)


_NORMS = {"cityblock": 1.0, "euclidean": 2.0, "chebyshev": inf}
_METRICS = ("sqeuclidean", *_NORMS, "minkowski", "cosine", "correlation")


def dist(
    x1: Any,
    x2: Any = None,
    metric: str = "sqeuclidean",
    p: float = 2,
    w: Any = None,
    backend: str = "auto",
    nx: Any = None,
    use_tensor: bool = False,
) -> Any:
    """Return costs between points, shape (n, m), as `ot.dist` of a metric by name.

    Args:
        x1: Points, shape (n, d), or a batch of them.
        x2: Points, shape (m, d), likewise; None for `x1`.
        metric: "sqeuclidean", "euclidean", "cityblock", "chebyshev", "minkowski", "cosine" or
            "correlation".
        p: Order of the Minkowski metric.
        w: None: weights are of POT's other metrics.
        backend: Changes nothing.
        nx: Changes nothing.
        use_tensor: Changes nothing.

    Raises:
        Unsupported: Another metric, or weights.
    """
    del backend, nx, use_tensor
    if metric not in _METRICS:
        raise Unsupported(f"metric must be one of {', '.join(_METRICS)}; got {metric!r}")
    if w is not None:
        raise Unsupported("w must be None")
    found, is_numpy = tensors(x1, x2)
    first, second = found[0], found[0] if found[1] is None else found[1]
    assert first is not None
    assert second is not None
    if metric in ("cosine", "correlation"):
        if metric == "correlation":
            first, second = (x - x.mean(-1, keepdim=True) for x in (first, second))
        sizes = (torch.linalg.vector_norm(x, dim=-1) for x in (first, second))
        of_first, of_second = sizes
        costs = 1 - first @ second.mT / (of_first[..., :, None] * of_second[..., None, :])
    else:
        difference = first[..., :, None, :] - second[..., None, :, :]
        if metric == "sqeuclidean":
            costs = difference.square().sum(-1)
        else:
            order = float(p) if metric == "minkowski" else _NORMS[metric]
            costs = torch.linalg.vector_norm(difference, ord=order, dim=-1)
    return costs.numpy() if is_numpy else costs
