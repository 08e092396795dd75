# Over 400 lines: one solver: what it is asked, where it starts, its rounds and its derivatives.
"""Barycenters of weighted graphs under fused Gromov-Wasserstein."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot._operators.operator import full_precision, has_values, is_tracked
from hotnas_torch.ot.graph_means import (
    mean_features,
    mean_struct,
    median_features,
    median_struct,
)
from hotnas_torch.ot.graphs import (
    Graphs,
    broadcast_shape,
    check_like,
    check_masses,
    checked_graphs,
    feature_costs,
)
from hotnas_torch.ot.problem import check_count, check_number
from hotnas_torch.ot.result import BarycenterResult, SolveStatus, warn_if_unsolved
from hotnas_torch.ot.terms import Loss, Pairs, loss_code, pairs_code

__all__ = ["fgw_barycenter"]

_INNER_TOL = 1e-6
_INNER_MAX_ITER = 1000
_BINS = 16
"""Points at which distributions of mean structure are compared when a start is chosen."""


@full_precision
def fgw_barycenter(
    structs: Tensor | Sequence[Tensor],
    features: Tensor | Sequence[Tensor] | None = None,
    masses: Tensor | Sequence[Tensor] | None = None,
    *,
    nodes: int | None = None,
    a: Tensor | None = None,
    weights: Tensor | None = None,
    alpha: float | Tensor | None = None,
    loss: Loss = "l2",
    feature_loss: Loss | None = None,
    pairs: Pairs = "all",
    fixed: Literal["struct", "features"] | None = None,
    init_struct: Tensor | None = None,
    init_features: Tensor | None = None,
    num_starts: int = 1,
    tol: float = 1e-6,
    max_iter: int = 100,
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> BarycenterResult:
    r"""Compute the graph that is nearest to the graphs of a group, and so for many groups at once.

    .. math:: \min_{C, X} \; \sum_s w_s \, \mathrm{FGW}_\alpha \big( (C, X, a), (C_s, X_s, b_s)
        \big)

    Couplings and graph are improved in turns, and the objective never rises: couplings by
    `hotnas_torch.ot.fgw`, from the last ones and from one start of its own; then the graph, which
    for fixed couplings has a closed form: weighted means of what is matched for a squared loss,
    weighted medians for an absolute one. The result is the best of the starts. It is a local
    optimum, as the problem is not convex.

    Args:
        structs: Structures of the groups' graphs, shape (*batch, S, n, n), float32 or float64; or
            a list of S matrices of different sizes, which are one group.
        features: Features of their nodes, shape (*batch, S, n, d) or broadcastable, or a list;
            None for structure alone.
        masses: Masses of their nodes, shape (*batch, S, n) or broadcastable, or a list; None for
            uniform. A node of zero mass is absent (padding).
        nodes: Number of nodes of the barycenter. None leaves it free: a start has the nodes and
            the masses of the graph that it is.
        a: Masses of the barycenter, shape (*batch, nodes) or broadcastable, sum 1; None for
            uniform, or for those of a start if `nodes` is None.
        weights: Weights of the graphs, shape (*batch, S) or broadcastable, sum 1; None for equal
            ones. A graph of zero weight is absent, whatever it holds (groups of different sizes).
        alpha: Weight of the structure in [0, 1], a number or shape (*batch,); None for 0.5, and for
            1 without features.
        loss: Of structures: L(d) = abs(d) for "l1", d squared for "l2".
        feature_loss: Of features, summed over them; None for that of structures.
        pairs: "all", "directed" or "ordered"; see `hotnas_torch.ot.fgw`. Entries of the structure
            that no pair reads stay as the start had them.
        fixed: What stays as it is given: "struct" or "features"; None for neither.
        init_struct: Structure to start from, shape (*batch, nodes, nodes) or broadcastable.
        init_features: Features to start from, shape (*batch, nodes, d) or broadcastable. With
            either, nodes and masses are theirs, and what is missing is taken from the first start.
        num_starts: How many of the graphs to start from, at most S, those first whose mean
            structure and features are nearest to the mean of all.
        tol: Largest relative fall of the objective in a round at which a group is done.
        max_iter: Most rounds of a group.
        backend: "auto" runs the compiled op where it has kernels for the device, CPU or CUDA,
            else the reference implementation in torch; "ext" and "torch" insist on one of them.
        validate: Whether to check values and to warn of groups that were not solved.

    Returns:
        Structure, features and masses of the barycenter, the couplings with the group's graphs and
        the distances to them, with the leading dimensions of the input.

    Raises:
        TypeError: Something is no tensor, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses or weights are negative or do not sum to
            1, a number is NaN or infinite, what is fixed is not given, or an option is out of
            range.
        RuntimeError: Python cannot look at the values, as under `torch.vmap` or `torch.compile`:
            the number of rounds depends on them.

    Differentiability:
        `objective` and `distances` in `structs`, `features`, `masses`, `weights`, `a`, `alpha` and
        what is fixed, by the envelope theorem at the barycenter found. `struct` and `features` in
        `structs`, `features` and `weights` with the couplings held, which is their derivative where
        the couplings are vertices, as in most problems.

    Complexity:
        S problems of fused Gromov-Wasserstein per round, start and group, solved as one batch, and
        O(S n N (n + N)) for the means, O(S N^2 r^2 log) for the medians, with r the most nodes that
        one node is matched to.

    Reference:
        T. Vayer et al., Optimal transport for structured data with application on graphs, ICML
        2019, section 4; G. Peyre, M. Cuturi, J. Solomon, Gromov-Wasserstein averaging of kernel and
        distance matrices, ICML 2016.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> path = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
        >>> found = ht.ot.fgw_barycenter(torch.stack([path, path, 3 * path]), nodes=3)
        >>> (found.struct / path).nan_to_num(5 / 3).allclose(torch.full((3, 3), 5 / 3))
        True
    """
    feature_loss = loss if feature_loss is None else feature_loss
    loss_code(loss)
    if feature_loss not in ("l1", "l2"):
        msg = f'feature_loss must be "l1", "l2" or None; got {feature_loss!r}'
        raise ValueError(msg)
    pairs_code(pairs)
    num_starts, max_iter = check_count("num_starts", num_starts), check_count("max_iter", max_iter)
    tol = check_number("tol", tol, positive=False)
    graphs = checked_graphs(structs, features, masses, weights=weights, validate=validate)
    if graphs.struct.dim() < 3:
        msg = (
            "structs must have shape (*batch, S, n, n), the graphs of a group before the nodes; got"
            f" {tuple(graphs.struct.shape)}"
        )
        raise ValueError(msg)
    group = _group(
        graphs,
        nodes=nodes,
        a=a,
        weights=weights,
        alpha=alpha,
        fixed=fixed,
        init_struct=init_struct,
        init_features=init_features,
        validate=validate,
    )
    size = group.weights.shape[1]
    given = init_struct is not None or init_features is not None
    if num_starts > (1 if given else size):
        most = "1, as it is given by init_struct or init_features" if given else f"S = {size}"
        msg = f"num_starts must be at most {most}; got {num_starts}"
        raise ValueError(msg)
    rule = _Rule(loss, feature_loss, pairs, fixed, tol, max_iter, backend)
    with torch.no_grad():
        plain = group.detach()
        found = [_descend(plain, _start(plain, rank, pairs), rule) for rank in range(num_starts)]
        best = _best_of(found)
    made = _differentiable(group, best, rule)
    batch = group.batch_shape

    def restore(value: Tensor) -> Tensor:
        return value.reshape(batch + value.shape[1:])

    result = BarycenterResult(
        struct=restore(made.struct),
        features=None if made.features is None else restore(made.features),
        masses=restore(made.masses),
        plans=restore(made.plans),
        objective=restore(made.objective),
        distances=restore(made.distances),
        iterations=restore(made.iterations),
        status=restore(made.status),
    )
    if validate:
        warn_if_unsolved("fgw_barycenter", result.status)
    return result


# --- the problem ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a barycenter is sought."""

    loss: Loss
    feature_loss: Loss
    pairs: Pairs
    fixed: str | None
    tol: float
    max_iter: int
    backend: ops.Backend


@dataclass(frozen=True, slots=True)
class _Group:
    """Checked groups with one batch dimension, and what is known of their barycenters."""

    struct: Tensor  # (B, S, n, n)
    features: Tensor | None  # (B, S, n, d)
    masses: Tensor  # (B, S, n)
    weights: Tensor  # (B, S)
    levels: Tensor  # (B, S, n, 2): mean structure of every node, outgoing and incoming
    alpha: Tensor  # (B,)
    a: Tensor | None  # (B, N)
    init_struct: Tensor | None  # (B, N, N)
    init_features: Tensor | None  # (B, N, d)
    batch_shape: torch.Size

    def detach(self) -> "_Group":
        """Return the same without graph."""
        cut = {
            name: value.detach()
            for name in self.__slots__
            if isinstance(value := getattr(self, name), Tensor)
        }
        return replace(self, **cut)  # type: ignore[arg-type]

    def of(self, items: Tensor) -> "_Group":
        """Return some of the groups."""
        chosen = {
            name: value[items]
            for name in self.__slots__
            if isinstance(value := getattr(self, name), Tensor)
        }
        return replace(self, **chosen)  # type: ignore[arg-type]


def _group(
    graphs: Graphs,
    *,
    nodes: int | None,
    a: Tensor | None,
    weights: Tensor | None,
    alpha: float | Tensor | None,
    fixed: str | None,
    init_struct: Tensor | None,
    init_features: Tensor | None,
    validate: bool,
) -> _Group:
    """Check what is wanted of the barycenters of checked graphs."""
    structs = graphs.struct
    *leading, size, _, _ = structs.shape
    shapes = {"structs": torch.Size(leading)}
    if not size:
        msg = f"structs must hold at least one graph per group; got shape {tuple(structs.shape)}"
        raise ValueError(msg)
    if nodes is not None:
        check_count("nodes", nodes)
    for name, value in (("a", a), ("init_struct", init_struct), ("init_features", init_features)):
        if value is None:
            continue
        check_like(name, value, structs)
        place = -2 if name == "init_features" else -1
        if value.dim() < -place or not value.shape[place]:
            msg = f"{name} must say something of at least one node; got {tuple(value.shape)}"
            raise ValueError(msg)
        count = value.shape[place]
        if nodes is not None and count != nodes:
            msg = f"{name} must be of {nodes} nodes, as nodes, or others, say; got {count}"
            raise ValueError(msg)
        nodes = count
    if a is None and nodes is not None:
        a = structs.new_full((nodes,), 1 / nodes)
    if a is not None:
        shapes["a"] = a.shape[:-1]
    if weights is None:
        weights = structs.new_full((size,), 1 / size)
    check_like("weights", weights, structs, size)
    shapes["weights"] = weights.shape[:-1]
    if init_struct is not None and nodes is not None:
        shapes["init_struct"] = check_like("init_struct", init_struct, structs, nodes, nodes).shape[
            :-2
        ]
    if init_features is not None and nodes is not None:
        if graphs.features is None:
            msg = "init_features must be left out where the graphs have no features"
            raise ValueError(msg)
        width = graphs.features.shape[-1]
        check_like("init_features", init_features, structs, nodes, width)
        shapes["init_features"] = init_features.shape[:-2]
    if fixed not in (None, "struct", "features"):
        msg = f'fixed must be "struct", "features" or None; got {fixed!r}'
        raise ValueError(msg)
    if fixed is not None and (init_struct if fixed == "struct" else init_features) is None:
        msg = f'init_{fixed} must be given where fixed="{fixed}": it is what stays'
        raise ValueError(msg)
    alpha = _trade_off(alpha, graphs)
    shapes["alpha"] = alpha.shape
    batch = broadcast_shape(shapes)

    def flat(value: Tensor | None, trailing: int) -> Tensor | None:
        if value is None:
            return None
        own = value.shape[value.dim() - trailing :]
        return value.expand(batch + own).reshape(batch.numel(), *own)

    known = [v for v in (structs, weights, a, init_struct, init_features, alpha) if v is not None]
    if not has_values(*known):
        msg = (
            "the rounds of a barycenter depend on values, which Python cannot see under torch.vmap"
            " or in a traced function; call it outside, with a batch dimension"
        )
        raise RuntimeError(msg)
    if validate:
        check_masses("weights", weights)
        if a is not None:
            check_masses("a", a)
        for name, value in (("init_struct", init_struct), ("init_features", init_features)):
            if value is not None and not bool(value.detach().isfinite().all()):
                raise ValueError(f"{name} must be finite; got NaN or infinity")
        wrong = ~((alpha.detach() >= 0) & (alpha.detach() <= 1))
        if bool(wrong.any()):
            found = float(alpha.detach()[wrong].flatten()[0])
            raise ValueError(f"alpha must lie in [0, 1]; got {found:g}")
    made = {
        "struct": flat(structs, 3),
        "features": flat(graphs.features, 3),
        "masses": flat(graphs.masses, 2),
        "weights": flat(weights, 1),
        "levels": flat(_levels(structs.detach(), graphs.masses.detach()), 3),
        "alpha": flat(alpha, 0),
        "a": flat(a, 1),
        "init_struct": flat(init_struct, 2),
        "init_features": flat(init_features, 2),
    }
    return _Group(**made, batch_shape=batch)  # type: ignore[arg-type]


def _levels(struct: Tensor, masses: Tensor) -> Tensor:
    """Mean structure of every node, outgoing and incoming, (*batch, n, 2)."""
    mass = masses[..., None]
    return torch.cat([struct @ mass, struct.mT @ mass], dim=-1)


def _trade_off(alpha: float | Tensor | None, graphs: Graphs) -> Tensor:
    like, bare = graphs.struct, graphs.features is None
    if alpha is None:
        alpha = 1.0 if bare else 0.5
    if isinstance(alpha, Tensor):
        check_like("alpha", alpha, like)
    elif isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise TypeError(f"alpha must be a number or a torch.Tensor; got {type(alpha).__name__}")
    else:
        alpha = like.new_full((), float(alpha))
    if bare and has_values(alpha) and not bool((alpha.detach() == 1).all()):
        msg = "alpha must be 1 without features: all weight is on the structure (pass features)"
        raise ValueError(msg)
    return alpha


# --- starts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _State:
    """Barycenters on their way, and how far they are from the graphs of their groups."""

    struct: Tensor  # (B, N, N)
    features: Tensor | None  # (B, N, d)
    masses: Tensor  # (B, N)
    plans: Tensor  # (B, S, N, n), what the graph was made of, and with what it has the distances
    objective: Tensor  # (B,)
    distances: Tensor  # (B, S)
    iterations: Tensor  # (B,)
    status: Tensor  # (B,)
    sources: Tensor  # (B, S, N, n): the couplings that the graph is the mean of, 0 for a start

    def of(self, items: Tensor) -> "_State":
        """Return some of the groups."""
        values = ((name, getattr(self, name)) for name in self.__slots__)
        chosen = {name: None if value is None else value[items] for name, value in values}
        return replace(self, **chosen)  # type: ignore[arg-type]

    def put(self, items: Tensor, which: Tensor, **values: Tensor | None) -> None:
        """Replace what is known of those `which` are true, of some of the groups."""
        for name, value in values.items():
            if value is not None:
                getattr(self, name)[items[which]] = value[which]


def _start(group: _Group, rank: int, pairs: Pairs) -> tuple[Tensor, Tensor | None, Tensor]:
    """Structure, features and masses of a start: a graph of the group, on the nodes wanted."""
    signature = group.levels.sum(-1)
    order = _nearest_to_the_mean(group, signature)[:, rank]
    item = torch.arange(len(order), device=order.device)
    struct, masses = group.struct[item, order], group.masses[item, order]
    features = None if group.features is None else group.features[item, order]
    if group.a is None:
        return struct, features, masses
    level = signature[item, order]
    # Nodes of either side in the order of their mean structure, cut at equal masses.
    place = torch.where(masses > 0, level, torch.inf).argsort(dim=1, stable=True)
    cut = _staircase(group.a, masses.gather(1, place))
    plan = torch.zeros_like(cut).scatter(2, place[:, None, :].expand_as(cut), cut)
    nodes = plan.shape[1]
    if nodes <= plan.shape[2]:
        # Where a graph has as many, they keep the order that its nodes have.
        whole = (masses > 0).sum(1) == nodes
        kept = torch.arange(nodes, device=place.device).expand(len(place), nodes)
        numbered = torch.where(whole[:, None], place[:, :nodes].argsort(dim=1), kept)
        plan = plan.gather(1, numbered[:, :, None].expand_as(plan))
    one = replace(
        group,
        struct=struct[:, None],
        features=None if features is None else features[:, None],
        masses=masses[:, None],
        weights=torch.ones_like(group.weights[:, :1]),
    )
    start = mean_struct(one.struct, one.weights, plan[:, None], pairs)[0]
    features = one.features
    if features is not None:
        features = mean_features(features, one.weights, plan[:, None])[0]
    if group.init_struct is not None:
        start = group.init_struct
    if group.init_features is not None:
        features = group.init_features
    return start, features, group.a


def _nearest_to_the_mean(group: _Group, signature: Tensor) -> Tensor:
    """Graphs of each group in the order of their distance from its mean, (B, S)."""
    present = group.masses > 0
    level, place = torch.where(present, signature, torch.inf).sort(dim=2)
    level = torch.where(level.isfinite(), level, 0)
    even = level.new_full((*level.shape[:2], _BINS), 1 / _BINS)
    cut = _staircase(even, group.masses.gather(2, place))
    curve = (cut @ level[..., None]).squeeze(-1) * _BINS
    weights = group.weights[..., None]
    distance = (curve - (weights * curve).sum(1, keepdim=True)).square().mean(2)
    if group.features is not None:
        alpha = group.alpha[:, None]
        mean = (group.masses[..., None] * group.features).sum(2)
        apart = (mean - (weights * mean).sum(1, keepdim=True)).square().sum(2)
        distance = alpha * distance + (1 - alpha) * apart
    # Absent graphs last.
    return torch.where(group.weights > 0, distance, torch.inf).argsort(dim=1, stable=True)


def _staircase(a: Tensor, b: Tensor) -> Tensor:
    """Coupling of masses (*batch, N) and (*batch, n) that keeps the order of both."""
    upper, right = a.cumsum(-1), b.cumsum(-1)
    top = torch.minimum(upper[..., :, None], right[..., None, :])
    bottom = torch.maximum((upper - a)[..., :, None], (right - b)[..., None, :])
    return (top - bottom).clamp_min(0)


# --- rounds ---------------------------------------------------------------------------------------


def _descend(group: _Group, start: tuple[Tensor, Tensor | None, Tensor], rule: _Rule) -> _State:
    """Improve couplings and graphs in turns; a group that is done rests.

    Couplings first start from the product of the masses, which matches all with all and leads to
    lower objectives than the last couplings do, but may also lead up. Where that brings no more,
    they start from the last ones, with which nothing rises.
    """
    struct, masses = start[0].clone(), start[2].clone()
    features = None if start[1] is None else start[1].clone()
    plans, distances, inner = _couplings(group, struct, features, masses, None, rule)
    state = _State(
        struct=struct,
        features=features,
        masses=masses,
        plans=plans,
        objective=_total(group, distances),
        distances=distances,
        iterations=torch.ones_like(inner),
        status=torch.where(inner < SolveStatus.NONFINITE.value, SolveStatus.MAX_ITER.value, inner),
        sources=torch.zeros_like(plans),
    )
    active = (inner < SolveStatus.NONFINITE.value).nonzero().squeeze(1)
    afresh = torch.ones_like(active, dtype=torch.bool)
    for _ in range(rule.max_iter - 1):
        if not len(active):
            break
        whole = len(active) == len(state.objective)
        part = group if whole else group.of(active)
        last = state if whole else state.of(active)
        struct, features = _new_graph(part, last, rule)
        plans, distances, inner = _couplings(
            part, struct, features, last.masses, last.plans, rule, afresh
        )
        objective = _total(part, distances)
        fallen = last.objective - objective
        # The same couplings make the same graph again.
        still = (plans == last.plans).flatten(1).all(1)
        found = {
            "struct": struct,
            "features": features,
            "sources": last.plans,
            "plans": plans,
            "objective": objective,
            "distances": distances,
        }
        better = fallen >= 0
        if whole and bool(better.all()):
            state = replace(state, **found)  # type: ignore[arg-type]
        else:
            state.put(active, better, **found)
        state.iterations[active] += 1
        little = ~(fallen > rule.tol * objective)
        failed = inner >= SolveStatus.NONFINITE.value
        done = failed | still | (little & ~afresh)
        state.status[active[done]] = inner[done]
        afresh = (afresh & ~little)[~done]
        active = active[~done]
    return state


def _new_graph(group: _Group, state: "_State", rule: _Rule) -> tuple[Tensor, Tensor | None]:
    """Structure and features that are best for the couplings."""
    struct, features = state.struct, state.features
    if rule.fixed != "struct":
        struct = _new_struct(group, state.plans, struct, rule)
    if rule.fixed != "features" and features is not None:
        features = _new_features(group, state.plans, features, rule)
    return struct, features


def _couplings(
    group: _Group,
    struct: Tensor,
    features: Tensor | None,
    masses: Tensor,
    last: Tensor | None,
    rule: _Rule,
    afresh: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find couplings with the graphs of each group.

    Args:
        group: The groups.
        struct: Structures of their barycenters.
        features: Features of their barycenters.
        masses: Masses of their barycenters.
        last: The last couplings, to start from; None for none.
        rule: The losses.
        afresh: Which groups start from the product of the masses instead; None for all without
            `last`, for none with it.

    Returns:
        Couplings (B, S, N, n), distances (B, S) and the worst status of each group (B,).
    """
    batch, size, n = group.masses.shape

    def each(value: Tensor) -> Tensor:
        return value[:, None].expand(batch, size, *value.shape[1:]).flatten(0, 1)

    if features is not None and group.features is not None:
        cost = feature_costs(features[:, None], group.features, rule.feature_loss)
    else:
        cost = struct.new_zeros(batch, size, masses.shape[1], n)
    with torch.no_grad():
        if last is None or (afresh is not None and bool(afresh.all())):
            init = _from_the_product(group, struct, masses, cost, rule)
        elif afresh is not None and bool(afresh.any()):
            init, items = last.clone(), afresh.nonzero().squeeze(1)
            known = group.of(items), struct[items], masses[items], cost[items]
            init[items] = _from_the_product(*known, rule)
        else:
            init = last
    plan, objective, _, _, _, _, status = ops.fgw(
        cost.flatten(0, 1),
        each(struct),
        group.struct.flatten(0, 1),
        each(masses),
        group.masses.flatten(0, 1),
        each(group.alpha),
        init.detach().flatten(0, 1),
        struct.new_empty(0),
        loss_code(rule.loss),
        pairs_code(rule.pairs),
        1,
        _INNER_TOL,
        _INNER_MAX_ITER,
        backend=rule.backend,
    )
    shape = (batch, size)
    # Graphs without weight take part in nothing.
    status = torch.where(group.weights > 0, status.unflatten(0, shape), 0)
    return plan.unflatten(0, shape), objective.unflatten(0, shape), status.amax(1)


def _from_the_product(
    group: _Group, struct: Tensor, masses: Tensor, cost: Tensor, rule: _Rule
) -> Tensor:
    """Return where conditional gradient goes first from the product of the masses.

    For a squared loss the gradient there is, but for what rows and columns have in common, a
    product of mean structures, and its vertex is cheaper than the dense product is to start from.

    Args:
        group: The groups.
        struct: Structures of their barycenters, (B, N, N).
        masses: Masses of their barycenters, (B, N).
        cost: Costs between their nodes and those of the graphs, (B, S, N, n).
        rule: The losses.

    Returns:
        Couplings, (B, S, N, n).
    """
    a, b = masses[:, None].expand(cost.shape[:3]), group.masses
    if rule.loss != "l2" or rule.pairs != "all":
        return a[..., None] * b[..., None, :]
    alpha = group.alpha[:, None, None, None]
    level = (-2 * alpha * _levels(struct, masses)[:, None]).expand(*a.shape, 2)
    rest = torch.baddbmm(
        ((1 - alpha) * cost).flatten(0, 1), level.flatten(0, 1), group.levels.flatten(0, 1).mT
    )
    plan: Tensor = ops.transport(rest, a.flatten(0, 1), b.flatten(0, 1), backend=rule.backend)[0]
    return plan.view_as(cost)


def _total(group: _Group, distances: Tensor) -> Tensor:
    return torch.where(group.weights > 0, group.weights * distances, 0).sum(1)


def _best_of(states: Sequence[_State]) -> _State:
    """Return, of each group, the start that led to the lowest objective."""
    values = torch.stack([state.objective.nan_to_num(torch.inf) for state in states])
    which = values.argmin(0)
    item = torch.arange(len(which), device=which.device)

    def chosen(name: str) -> Tensor | None:
        parts = [getattr(state, name) for state in states]
        return None if parts[0] is None else torch.stack(parts)[which, item]

    return _State(**{name: chosen(name) for name in _State.__slots__})  # type: ignore[arg-type]


def _differentiable(group: _Group, best: _State, rule: _Rule) -> _State:
    """Attach the derivatives to what was found, which keeps its values."""
    inputs = (group.struct, group.features, group.masses, group.weights, group.alpha, group.a)
    if not is_tracked(*inputs, group.init_struct, group.init_features):
        return best
    struct, features = best.struct, best.features
    masses = best.masses if group.a is None else group.a
    if rule.fixed == "struct" and group.init_struct is not None:
        struct = group.init_struct
    if rule.fixed == "features" and group.init_features is not None:
        features = group.init_features
    moved = (best.sources != 0).flatten(1).any(1)
    if rule.fixed != "struct":
        made = _new_struct(group, best.sources, struct, rule)
        struct = _valued(torch.where(moved[:, None, None], made, struct), struct)
    if rule.fixed != "features" and features is not None:
        made = _new_features(group, best.sources, features, rule)
        features = _valued(torch.where(moved[:, None, None], made, features), features)
    # A mean may be held still: the objective has no slope there. A median moves with what it is.
    _, distances, _ = _couplings(group, struct, features, masses, best.plans, rule)
    distances = _valued(distances, best.distances)
    objective = _valued(_total(group, distances), best.objective)
    return replace(
        best,
        struct=struct,
        features=features,
        masses=masses,
        objective=objective,
        distances=distances,
    )


def _valued(tracked: Tensor, value: Tensor) -> Tensor:
    """Return `value` with the derivatives of `tracked`."""
    return value.detach() + (tracked - tracked.detach())


def _new_struct(group: _Group, plans: Tensor, last: Tensor, rule: _Rule) -> Tensor:
    """Return the best structure for couplings (B, S, N, n); entries that no pair reads stay."""
    best = mean_struct if rule.loss == "l2" else median_struct
    made, mass = best(group.struct, group.weights, plans, rule.pairs)
    return torch.where(mass > 0, made, last)


def _new_features(group: _Group, plans: Tensor, last: Tensor, rule: _Rule) -> Tensor:
    assert group.features is not None
    best = mean_features if rule.feature_loss == "l2" else median_features
    made, mass = best(group.features, group.weights, plans)
    return torch.where(mass[..., None] > 0, made, last)
