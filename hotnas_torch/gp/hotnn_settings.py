"""Settings of the kernel and the model of HOTNN, by name."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypedDict

from gpytorch.constraints import Interval
from gpytorch.priors import Prior

from hotnas_torch.arch import OperationTree
from hotnas_torch.arguments import kind
from hotnas_torch.distances import HOTNN
from hotnas_torch.gp.distribution import Coarse

__all__ = [
    "FRACTIONS",
    "LEARNABLE",
    "KernelSettings",
    "MetricSettings",
    "ModelSettings",
    "all_priors",
    "inside",
    "learned_parameters",
]

FRACTIONS = ("lam", "eps", "eta", "zeta")
"""Parameters of the distance in [0, 1]."""

LEARNABLE = (*FRACTIONS, "tree", "weights", "unreachable")
"""Parameters of the distance that can be learned, by their names in `learn`."""

_WITH_PRIORS = (*FRACTIONS, "tree", "weights")

# A learned fraction needs room on both sides: the sigmoid has no slope at its ends.
_ROOM = 0.05


class MetricSettings(TypedDict, total=False):
    """Arguments of `hotnas_torch.HOTNN`: starts of its parameters, and what stays as it is.

    Attributes:
        lam: Start of the weight of the node term inside a cell, in [0, 1].
        eps: Start of the share of operations against places inside a cell, in [0, 1].
        eta: Start of the share of the position in the network; None takes the space's default.
        zeta: Start of the share of the state; None takes the space's default.
        unreachable: Start of the cost where no information flows; None derives it from eps and
            the tree at all times, and cannot be learned.
        tree: Operation tree with the starts of its lengths and weights; None takes the space's.
        preset: `"paper"` starts from what the paper prints, see `hotnas_torch.HOTNN`; what is
            passed wins.
        pairs: Which pairs of nodes of a cell are compared, `"directed"` or `"ordered"`.
        linear_term: How nodes alone enter, `"separable"` or `"literal"`.
        normalize: Whether path lengths are relative to the cell's.
        max_nodes: Size that path lengths are relative to otherwise; None takes the space's.
        mass: Masses of cells, `"channels"` or `"uniform"`.
        state_scale: Divisors of the two state coordinates; None takes the space's.
        num_starts: Starts of the solver per pair of cells.
        tol: Relative gain below which the solver stops.
        max_iter: Most iterations of the solver.
        backend: `"auto"`, `"ext"` or `"torch"`.
        memory_budget: Bytes that may be held while distances are computed.
    """

    lam: float
    eps: float
    eta: float | None
    zeta: float | None
    unreachable: float | None
    tree: OperationTree | None
    preset: Literal["default", "paper"]
    pairs: Literal["directed", "ordered"] | None
    linear_term: Literal["separable", "literal"] | None
    normalize: bool | None
    max_nodes: int | None
    mass: Literal["channels", "uniform"] | None
    state_scale: tuple[float, float] | None
    num_starts: int
    tol: float
    max_iter: int
    backend: Literal["auto", "ext", "torch"]
    memory_budget: int


class _PriorSettings(MetricSettings, total=False):
    """`MetricSettings`, and priors.

    Attributes:
        lam_prior: The same as `priors={"lam": ...}`, like the following.
        eps_prior: Prior on eps.
        eta_prior: Prior on eta.
        zeta_prior: Prior on zeta.
        tree_prior: Prior on each length of the tree relative to its start.
        weights_prior: Prior on each weight of a number relative to its start.
        lengthscale_prior: As for every GPyTorch kernel.
        lengthscale_constraint: As for every GPyTorch kernel.
    """

    lam_prior: Prior | None
    eps_prior: Prior | None
    eta_prior: Prior | None
    zeta_prior: Prior | None
    tree_prior: Prior | None
    weights_prior: Prior | None
    lengthscale_prior: Prior | None
    lengthscale_constraint: Interval | None


class KernelSettings(_PriorSettings, total=False):
    """What `HOTNNKernel` takes by name besides its own arguments.

    Attributes:
        batch_shape: As for every GPyTorch kernel. Each batch element has parameters and distances
            of its own.
        active_dims: Columns that hold the row, where there are others.
    """

    batch_shape: Sequence[int]
    active_dims: Sequence[int] | None


class ModelSettings(_PriorSettings, total=False):
    """What `HOTNNGP` takes by name besides what every BoTorch model takes.

    Attributes:
        learn: Which parameters of the distance to learn, see `HOTNNKernel`.
        priors: Priors on parameters of the distance, see `HOTNNKernel`.
        cutoff: Which eigenvalues of the landmarks are dropped, see `HOTNNKernel`.
        combine: How numeric columns enter, `"product"` or `"additive"`, see `combined_kernel`. They
            should be scaled to comparable ranges (`input_transform=Normalize(d, indices=[...])`).
        distribution: A coarse level beside HOTNN: `"product"` multiplies its kernel with a Matern
            kernel between operation distributions (`distribution_kernel`), `"additive"` adds it;
            None, and with numeric columns: none.
    """

    learn: Collection[str] | None
    priors: Mapping[str, Prior]
    cutoff: float
    combine: Literal["product", "additive"]
    distribution: Coarse | None


def all_priors(
    priors: Mapping[str, Prior | None] | None, settings: Mapping[str, Any]
) -> dict[str, Prior | None]:
    """All priors on parameters of the distance by the names of these, None for none.

    Args:
        priors: Priors by name.
        settings: Others by name and suffix, as in `lam_prior`.

    Raises:
        TypeError: No mapping, or an entry is no prior.
        ValueError: A name that has no prior, or one that is given twice.
    """
    found: dict[str, Prior | None] = dict.fromkeys(_WITH_PRIORS)
    if priors is not None and not isinstance(priors, Mapping):
        raise TypeError(f"priors must be a mapping of priors by name; got {type(priors).__name__}")
    for name, prior in (priors or {}).items():
        if name not in found:
            known = ", ".join(map(repr, found))
            raise ValueError(f"priors must be by names among {known}; got {name!r}")
        kind(f"priors[{name!r}]", prior, Prior, optional=True)
        found[name] = prior
    for name in _WITH_PRIORS:
        prior = settings.get(f"{name}_prior")
        kind(f"{name}_prior", prior, Prior, optional=True)
        if prior is not None and found[name] is not None:
            raise ValueError(f"{name}_prior must be left out where priors holds {name!r}")
        found[name] = found[name] if prior is None else prior
    return found


def learned_parameters(
    learn: Collection[str] | None,
    metric: HOTNN,
    unreachable: float | None,
) -> frozenset[str]:
    """Names of what is learned of a metric with a space.

    Raises:
        TypeError, ValueError: `learn` is none of what can be.
    """
    weighs, has_state = bool(metric.ifgw.tree.weights), metric.state_scale is not None
    if learn is None:
        if metric.space.nests_cells:
            return frozenset()
        names = ["lam", "eps", "tree", "weights"] if weighs else ["lam", "eps", "tree"]
        if not metric.space.repeats_one_cell:
            names += ["eta", "zeta"] if has_state else ["eta"]
        return frozenset(names)
    if isinstance(learn, str):
        raise TypeError(f"learn must be a collection of names; got a str (pass [{learn!r}])")
    if not isinstance(learn, Collection):
        raise TypeError(f"learn must be a collection of names; got {type(learn).__name__}")
    for name in learn:
        if name not in LEARNABLE:
            known = ", ".join(repr(known) for known in LEARNABLE)
            raise ValueError(f"learn must hold names among {known}; got {name!r}")
    if "unreachable" in learn and unreachable is None:
        raise ValueError(
            "unreachable cannot be learned where it is derived from eps and the tree (pass"
            " unreachable=, the value to start from)"
        )
    if "zeta" in learn and not has_state:
        raise ValueError(
            "zeta cannot be learned without a scale of the state of cells (pass state_scale=, or"
            " leave it out of learn)"
        )
    if "weights" in learn and not weighs:
        raise ValueError(
            "weights cannot be learned where the tree gives none to any number (leave it out of"
            " learn, or pass a tree with weights)"
        )
    return frozenset(learn)


def inside(name: str, value: float, *, chosen: bool) -> float:
    """Where a learned fraction starts: inside (0, 1), whatever the space's default is.

    Raises:
        ValueError: A start at 0 or 1 that the caller has chosen.
    """
    if 0.0 < value < 1.0:
        return value
    if chosen:
        raise ValueError(
            f"{name} must start inside (0, 1) to be learned; got {value} (start inside, or leave"
            f" {name!r} out of learn to fix it there)"
        )
    return min(max(value, _ROOM), 1.0 - _ROOM)
