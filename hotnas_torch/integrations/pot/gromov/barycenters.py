"""`ot.gromov`: barycenters of graphs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.integrations.pot.arrays import Unsupported, quiet_unless, tensors
from hotnas_torch.integrations.pot.gromov.reading import check_loss
from hotnas_torch.ot import BarycenterResult, fgw_barycenter, pad_graphs
from hotnas_torch.ot.graphs import feature_costs

__all__ = ["fgw_barycenters", "gromov_barycenters"]


def gromov_barycenters(
    N: int,
    Cs: Sequence[Any],
    ps: Sequence[Any] | None = None,
    p: Any = None,
    lambdas: Sequence[float] | None = None,
    loss_fun: str = "square_loss",
    symmetric: bool = True,
    armijo: bool = False,
    max_iter: int = 1000,
    tol: float = 1e-9,
    stop_criterion: str = "barycenter",
    warmstartT: bool = False,
    verbose: bool = False,
    log: bool = False,
    init_C: Any = None,
    random_state: Any = None,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.gromov_barycenters`: the structure, by `hotnas_torch.ot.fgw_barycenter`.

    Arguments and results are POT's. Without `init_C` the start is a graph of the group and not
    random; both criteria stop at a fixed point or where the objective falls by no more than `tol`.
    `symmetric`, `armijo`, `warmstartT`, `verbose` and `random_state` change nothing.

    Raises:
        ValueError: An unknown criterion.
        Unsupported: Another loss, or weights or masses that do not sum to 1.
    """
    del symmetric, armijo, warmstartT, verbose, random_state, kwargs
    result, _, back = _barycenter(
        N,
        Cs,
        None,
        ps,
        p,
        lambdas,
        None,
        loss_fun,
        max_iter,
        tol,
        stop_criterion,
        None,
        init_C,
        None,
    )
    structure = back(result.struct)
    return (structure, _barycenter_log(result, Cs, back)) if log else structure


def fgw_barycenters(
    N: int,
    Ys: Sequence[Any],
    Cs: Sequence[Any],
    ps: Sequence[Any] | None = None,
    lambdas: Sequence[float] | None = None,
    alpha: Any = 0.5,
    fixed_structure: bool = False,
    fixed_features: bool = False,
    p: Any = None,
    loss_fun: str = "square_loss",
    armijo: bool = False,
    symmetric: bool = True,
    max_iter: int = 100,
    tol: float = 1e-9,
    stop_criterion: str = "barycenter",
    warmstartT: bool = False,
    verbose: bool = False,
    log: bool = False,
    init_C: Any = None,
    init_X: Any = None,
    random_state: Any = None,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.fgw_barycenters`: features and structure, by `hotnas_torch.ot.fgw_barycenter`.

    Arguments and errors are those of `gromov_barycenters`; where something is fixed, its start has
    to be given.
    """
    del armijo, symmetric, warmstartT, verbose, random_state, kwargs
    for name, fixed, start in (("C", fixed_structure, init_C), ("X", fixed_features, init_X)):
        if fixed and start is None:
            raise Unsupported(f"init_{name} must be given where it is fixed")
    fixed_part = "struct" if fixed_structure else "features" if fixed_features else None
    if fixed_structure and fixed_features:
        raise Unsupported("fixed_structure and fixed_features must not both be True")
    result, padded, back = _barycenter(
        N,
        Cs,
        Ys,
        ps,
        p,
        lambdas,
        alpha,
        loss_fun,
        max_iter,
        tol,
        stop_criterion,
        fixed_part,
        init_C,
        init_X,
    )
    assert result.features is not None
    features, structure = back(result.features), back(result.struct)
    if not log:
        return features, structure
    costs = feature_costs(result.features[None], padded, "l2")
    found = _barycenter_log(result, Cs, back)
    found["Ms"] = [back(cost[:, : len(C)]) for cost, C in zip(costs, Cs, strict=True)]
    return features, structure, found


def _barycenter(
    N: int,
    Cs: Sequence[Any],
    Ys: Sequence[Any] | None,
    ps: Sequence[Any] | None,
    p: Any,
    lambdas: Sequence[float] | None,
    alpha: Any,
    loss_fun: str,
    max_iter: int,
    tol: float,
    stop_criterion: str,
    fixed: Any,
    init_C: Any,
    init_X: Any,
) -> tuple[BarycenterResult, Tensor, Any]:
    check_loss(loss_fun)
    if stop_criterion not in ("barycenter", "loss"):
        raise ValueError(f"stop_criterion must be 'barycenter' or 'loss'; got {stop_criterion!r}")
    count = len(Cs)
    lists = [list(Cs), [] if Ys is None else list(Ys), [] if ps is None else list(ps)]
    found, is_numpy = tensors(*(x for values in lists for x in values), p, init_C, init_X)
    structs = found[:count]
    features = found[count : 2 * count] if Ys is not None else None
    masses = found[-3 - count : -3] if ps is not None else None
    padded = pad_graphs(structs, features, masses)  # type: ignore[arg-type]
    like = padded.struct
    weights = like.new_full((count,), 1 / count) if lambdas is None else like.new_tensor(lambdas)
    sums = [weights.sum(), *padded.masses.sum(1), *([] if found[-3] is None else [found[-3].sum()])]
    if not torch.allclose(torch.stack(sums), like.new_ones(()), rtol=1e-6):
        raise Unsupported("lambdas, p and each of ps must sum to 1")
    a, start, nodes = found[-3:]
    with quiet_unless(False):
        result = fgw_barycenter(
            padded.struct,
            padded.features,
            padded.masses,
            nodes=int(N),
            a=a,
            weights=weights,
            alpha=alpha,
            fixed=fixed,
            init_struct=start,
            init_features=nodes,
            tol=float(tol),
            max_iter=int(max_iter),
        )

    def back(value: Tensor) -> Any:
        return value.detach().cpu().numpy() if is_numpy else value

    none = padded.features is None
    return result, padded.struct[..., :0] if none else padded.features, back  # type: ignore[return-value]


def _barycenter_log(result: BarycenterResult, Cs: Sequence[Any], back: Any) -> dict[str, Any]:
    return {
        "T": [back(plan[:, : len(C)].detach()) for plan, C in zip(result.plans, Cs, strict=True)],
        "p": back(result.masses.detach()),
        "loss": [back(result.objective.detach())],
        "err": [0.0],
        "err_feature": [0.0],
        "err_structure": [0.0],
        "err_rel_loss": [0.0],
    }
