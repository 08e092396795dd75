"""From the same start, on how many problems does each solver end above POT's?"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ot as pot
import torch
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring.evaluate import Array, divergence, divergence_of_products
from benchmarks.measuring.report import Claim, Column, Report, Table, number

__all__ = ["QUICK", "Settings", "run"]


RELATIVE, ABSOLUTE = 1e-6, 1e-12
"""How far above another objective, of which masses are 1 and costs up to 1, is above."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        problems: Problems of each kind.
        dear: The same of the kinds on which POT takes longest.
        most: Most nodes of a graph; at least 3.
        most_unbalanced: The same of unbalanced fused Gromov-Wasserstein, on which POT takes long.
        kinds: Kinds of problems; empty for all.
        seed: Of the problems.
    """

    problems: int = 500
    dear: int = 100
    most: int = 20
    most_unbalanced: int = 8
    kinds: tuple[str, ...] = ()
    seed: int = 0


QUICK = Settings(problems=20, dear=5, most=8, most_unbalanced=5)


@dataclass(frozen=True, slots=True)
class _Problem:
    """Two graphs, and what is asked of them."""

    cost: Array
    x: Array
    y: Array
    a: Array
    b: Array
    alpha: float
    mass: float
    rho: tuple[float, float]
    epsilon: float


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of problem.

    Attributes:
        theirs: POT's plan of a problem.
        ours: Our plans of problems padded to one size, with the same weights and entropy.
        value: What a plan is worth.
        off: How far a plan is from the masses that it must have.
        balanced: Whether masses have the sum 1.
    """

    theirs: Callable[[_Problem], Array]
    ours: Callable[["_Padded"], Any]
    value: Callable[[_Problem, Array], float]
    off: Callable[[_Problem, Array], float]
    balanced: bool = True


# --- problems -------------------------------------------------------------------------------------


def _draw(
    rng: np.random.Generator,
    most: int,
    *,
    tied: bool,
    balanced: bool,
    weights: tuple[tuple[float, float], float] = ((0.0, 0.0), 0.0),
) -> _Problem:
    """Draw a problem; one with ties has few values, and uniform masses."""
    n, m = rng.integers(3, most + 1, 2)

    def graph(size: int) -> Array:
        if tied:
            lengths = np.triu(rng.integers(1, 4, (size, size)), 1)
            return np.asarray((lengths + lengths.T) / 3)
        points = rng.random((size, 2))
        return np.asarray(pot.dist(points, points, metric="euclidean"))

    def masses(size: int) -> Array:
        drawn = np.ones(size) if tied else rng.random(size) + 0.05
        return drawn / drawn.sum() * (1 if balanced else rng.uniform(0.5, 2))

    cost = rng.integers(0, 4, (n, m)) / 3 if tied else rng.random((n, m))
    x, y, a, b = graph(n), graph(m), masses(n), masses(m)
    moved = float(rng.uniform(0.2, 0.95) * min(a.sum(), b.sum()))
    return _Problem(cost, x, y, a, b, float(rng.uniform(0.1, 0.9)), moved, *weights)


@dataclass(frozen=True, slots=True)
class _Padded:
    """Problems as one batch: absent nodes have no mass, and NaN for costs."""

    cost: Tensor
    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    alpha: Tensor
    mass: Tensor
    rho: tuple[float, float]
    epsilon: float

    @property
    def graphs(self) -> tuple[Tensor, ...]:
        """Costs, structures and masses."""
        return self.cost, self.x, self.y, self.a, self.b


def _padded(problems: Sequence[_Problem]) -> _Padded:
    n, m = (max(getattr(one, side).size for one in problems) for side in "ab")

    def stacked(name: str, *shape: int) -> Tensor:
        filling = 0.0 if len(shape) == 1 else np.nan
        whole = torch.full((len(problems), *shape), filling, dtype=torch.float64)
        for item, one in zip(whole, problems, strict=True):
            value = torch.as_tensor(getattr(one, name))
            item[tuple(slice(size) for size in value.shape)] = value
        return whole

    numbers = ([getattr(one, name) for one in problems] for name in ("alpha", "mass"))
    alpha, mass = (torch.tensor(values, dtype=torch.float64) for values in numbers)
    graphs = stacked("cost", n, m), stacked("x", n, n), stacked("y", m, m)
    first = problems[0]
    return _Padded(*graphs, stacked("a", n), stacked("b", m), alpha, mass, first.rho, first.epsilon)


# --- objectives, by their definitions -------------------------------------------------------------


def _linear(one: _Problem, plan: Array) -> float:
    return float((one.cost * plan).sum())


def _fused(one: _Problem, plan: Array) -> float:
    """(1 - alpha) <cost, plan> + alpha sum of plan plan (x - y)^2."""
    rows, columns = plan.sum(1), plan.sum(0)
    pairs = rows @ one.x**2 @ rows + columns @ one.y**2 @ columns
    pairs = pairs - 2 * (plan * (one.x @ plan @ one.y.T)).sum()
    return float((1 - one.alpha) * _linear(one, plan) + one.alpha * pairs)


def _kl_fused(one: _Problem, plan: Array) -> float:
    x, y = (structure[:, :, None, None] + 1e-18 for structure in (one.x, one.y))
    y = y.transpose(2, 3, 0, 1)
    losses = x * np.log(x / y) - x + y
    pairs = np.einsum("ij,kl,ikjl->", plan, plan, losses, optimize=True)
    return float((1 - one.alpha) * _linear(one, plan) + one.alpha * pairs)


def _variation(p: Array, q: Array) -> float:
    return float(np.abs(p - q).sum())


def _unbalanced(divergence: Callable[[Array, Array], float], entropic: bool) -> Any:
    def value(one: _Problem, plan: Array) -> float:
        found = _linear(one, plan)
        if entropic:
            found += one.epsilon * divergence(plan, one.a[:, None] * one.b)
        of_rows, of_columns = divergence(plan.sum(1), one.a), divergence(plan.sum(0), one.b)
        return found + one.rho[0] * of_rows + one.rho[1] * of_columns

    return value


def _unbalanced_fused(entropic: bool) -> Callable[[_Problem, Array], float]:
    def value(one: _Problem, plan: Array) -> float:
        found = _fused(one, plan)
        found += one.rho[0] * divergence_of_products(plan.sum(1), one.a)
        found += one.rho[1] * divergence_of_products(plan.sum(0), one.b)
        if entropic:
            found += one.epsilon * divergence_of_products(plan, one.a[:, None] * one.b)
        return found

    return value


def _off_rows(one: _Problem, plan: Array) -> float:
    return float(np.abs(plan.sum(1) - one.a).max())


def _off_both(one: _Problem, plan: Array) -> float:
    return max(_off_rows(one, plan), float(np.abs(plan.sum(0) - one.b).max()))


def _off_part(one: _Problem, plan: Array) -> float:
    over = max((plan.sum(1) - one.a).max(), (plan.sum(0) - one.b).max(), 0.0)
    return max(float(over), abs(float(plan.sum()) - one.mass))


def _off_nothing(one: _Problem, plan: Array) -> float:
    del one, plan
    return 0.0


# --- kinds ----------------------------------------------------------------------------------------


def _their_unbalanced_fused(entropic: bool) -> Callable[[_Problem], Array]:
    """POT weighs the structure by 1 and the costs by alpha."""

    def plan(one: _Problem) -> Array:
        return np.asarray(
            pot.gromov.fused_unbalanced_gromov_wasserstein(
                one.x,
                one.y,
                one.a,
                one.b,
                reg_marginals=tuple(weight / one.alpha for weight in one.rho),
                epsilon=one.epsilon / one.alpha if entropic else 0,
                unbalanced_solver="sinkhorn_log" if entropic else "mm",
                alpha=(1 - one.alpha) / one.alpha,
                M=one.cost,
            )[0]
        )

    return plan


_KINDS = {
    "partial transport": _Kind(
        lambda one: pot.partial.partial_wasserstein(one.a, one.b, one.cost, m=one.mass),
        lambda all_: ht.ot.partial_transport(all_.cost, all_.a, all_.b, mass=all_.mass),
        _linear,
        _off_part,
        balanced=False,
    ),
    "partial FGW": _Kind(
        lambda one: pot.gromov.partial_fused_gromov_wasserstein(
            *(one.cost, one.x, one.y, one.a, one.b), m=one.mass, alpha=one.alpha, symmetric=True
        ),
        lambda all_: ht.ot.partial_fgw(
            *all_.graphs, mass=all_.mass, alpha=all_.alpha, loss="l2", init="product"
        ),
        _fused,
        _off_part,
        balanced=False,
    ),
    "semi-relaxed FGW": _Kind(
        lambda one: pot.gromov.semirelaxed_fused_gromov_wasserstein(
            one.cost, one.x, one.y, one.a, alpha=one.alpha, symmetric=True
        ),
        lambda all_: ht.ot.semirelaxed_fgw(
            *all_.graphs[:4],
            (all_.b > 0) / (all_.b > 0).sum(1, keepdim=True).double(),
            alpha=all_.alpha,
            loss="l2",
            num_starts=1,
        ),
        _fused,
        _off_rows,
    ),
    "unbalanced, entropic, KL": _Kind(
        lambda one: pot.unbalanced.sinkhorn_unbalanced(
            one.a, one.b, one.cost, one.epsilon, one.rho
        ),
        lambda all_: ht.ot.unbalanced_sinkhorn(
            all_.cost, all_.a, all_.b, epsilon=all_.epsilon, reg_m=all_.rho
        ),
        _unbalanced(divergence, True),
        _off_nothing,
        balanced=False,
    ),
    "unbalanced, entropic, TV": _Kind(
        lambda one: pot.unbalanced.lbfgsb_unbalanced(
            *(one.a, one.b, one.cost, one.epsilon, one.rho), regm_div="tv"
        ),
        lambda all_: ht.ot.unbalanced_sinkhorn(
            all_.cost, all_.a, all_.b, epsilon=all_.epsilon, reg_m=all_.rho, penalty="tv"
        ),
        _unbalanced(_variation, True),
        _off_nothing,
        balanced=False,
    ),
    "unbalanced, KL": _Kind(
        lambda one: pot.unbalanced.mm_unbalanced(one.a, one.b, one.cost, one.rho),
        lambda all_: ht.ot.unbalanced_transport(all_.cost, all_.a, all_.b, reg_m=all_.rho),
        _unbalanced(divergence, False),
        _off_nothing,
        balanced=False,
    ),
    "unbalanced, TV": _Kind(
        lambda one: pot.unbalanced.lbfgsb_unbalanced(
            *(one.a, one.b, one.cost, 0, one.rho), regm_div="tv"
        ),
        lambda all_: ht.ot.unbalanced_transport(
            all_.cost, all_.a, all_.b, reg_m=all_.rho, penalty="tv"
        ),
        _unbalanced(_variation, False),
        _off_nothing,
        balanced=False,
    ),
    "unbalanced FGW, entropic": _Kind(
        _their_unbalanced_fused(True),
        lambda all_: ht.ot.unbalanced_fgw(
            *all_.graphs, alpha=all_.alpha, reg_m=all_.rho, epsilon=all_.epsilon, loss="l2"
        ),
        _unbalanced_fused(True),
        _off_nothing,
        balanced=False,
    ),
    "unbalanced FGW": _Kind(
        _their_unbalanced_fused(False),
        lambda all_: ht.ot.unbalanced_fgw(
            *all_.graphs, alpha=all_.alpha, reg_m=all_.rho, loss="l2"
        ),
        _unbalanced_fused(False),
        _off_nothing,
        balanced=False,
    ),
    "FGW, KL loss": _Kind(
        lambda one: pot.gromov.fused_gromov_wasserstein(
            *(one.cost, one.x, one.y, one.a, one.b), loss_fun="kl_loss", alpha=one.alpha
        ),
        lambda all_: ht.ot.edge_fgw(
            all_.cost,
            (all_.x + 1e-18)[..., None],
            (all_.y + 1e-18)[..., None],
            all_.a,
            all_.b,
            alpha=all_.alpha,
            loss="kl",
            init="product",
        ),
        _kl_fused,
        _off_both,
    ),
}


# --- barycenters ----------------------------------------------------------------------------------


def _barycenter(rng: np.random.Generator, most: int, *, tied: bool) -> tuple[float, float, float]:
    """Objectives of ours and of POT's from one start, and how far ours is from its masses."""
    graphs = [_draw(rng, most, tied=tied, balanced=True).x for _ in range(rng.integers(2, 6))]
    points = [
        rng.integers(0, 3, (len(graph), 2)) / 2 if tied else rng.random((len(graph), 2))
        for graph in graphs
    ]
    nodes = min(len(graph) for graph in graphs)
    start = {"init_C": graphs[0][:nodes, :nodes], "init_X": points[0][:nodes]}
    features, graph, log = pot.gromov.fgw_barycenters(nodes, points, graphs, log=True, **start)
    padded = ht.ot.pad_graphs(
        *([torch.as_tensor(one) for one in part] for part in (graphs, points))
    )
    ours = ht.ot.fgw_barycenter(
        padded.struct,
        padded.features,
        padded.masses,
        init_struct=torch.as_tensor(start["init_C"]),
        init_features=torch.as_tensor(start["init_X"]),
        validate=False,
    )
    values = []
    for other, place, plan in zip(graphs, points, log["T"], strict=True):
        masses = np.full(nodes, 1 / nodes), np.full(len(place), 1 / len(place))
        cost = pot.dist(features, place)
        one = _Problem(cost, graph, other, *masses, 0.5, 1.0, (0.0, 0.0), 0.0)
        values.append(_fused(one, np.asarray(plan)))
    off = float((ours.plans.sum(1) - padded.masses).abs().max())
    return float(ours.objective), float(np.mean(values)), off


# --- the report -----------------------------------------------------------------------------------

_WEIGHTS = (((0.5, 0.5), 0.05), ((0.2, 1.0), 0.2), ((2.0, 0.3), 0.02))
"""Of penalties, of rows and columns, and of the entropy."""


_DEAR = ("unbalanced FGW", "barycenter")


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    rows = []
    for name in settings.kinds or (*_KINDS, "barycenter"):
        for tied in (False, True):
            rng = np.random.default_rng(settings.seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = _solved(name, rng, settings, tied=tied)
            rows.append({"kind": name, "ties": "yes" if tied else "no"} | _counts(found))
    columns = (
        Column("kind", "problems"),
        Column("ties", "ties"),
        Column("count", "number", number()),
        Column("above", "above POT's", number()),
        Column("below", "below", number()),
        Column("worst", "most above, of POT's mean", number(2)),
        Column("ours", "mean, ours", number(6)),
        Column("theirs", "mean, POT", number(6)),
        Column("off", "masses off", number(2)),
    )
    title = (
        f"Square loss unless named, graphs of 3 to {settings.most} nodes (unbalanced FGW:"
        f" {settings.most_unbalanced}), float64, padded to one batch; both from the product of the"
        " masses"
    )
    report = Report(tables=[Table("beside_pot", title, columns, rows)])
    for row in rows:
        ties = "with ties" if row["ties"] == "yes" else "without ties"
        report.claims.append(
            Claim(f"{row['kind']}, {ties}: problems above POT's", "<=", 0, row["above"])
        )
    worst = max(row["off"] for row in rows)
    report.claims.append(Claim("masses of plans off those given", "<=", 1e-12, worst))
    report.notes.append(
        f"Above and below: by more than {RELATIVE:g} of POT's objective; both by the definition,"
        " from the plans. With ties (costs and structures of four values, uniform masses) the"
        " transport problem of a step has many solutions, and which one a solver takes is chance:"
        " from one start, problems that are not convex then end in either of two valleys. So do"
        " barycenters, which take other couplings on their way."
    )
    return report


def _solved(
    name: str, rng: np.random.Generator, settings: Settings, *, tied: bool
) -> list[tuple[float, float, float]]:
    """Our objective, POT's and the error of masses of each problem."""
    problems = settings.dear if name in _DEAR else settings.problems
    if name == "barycenter":
        return [_barycenter(rng, settings.most, tied=tied) for _ in range(problems)]
    kind, found = _KINDS[name], []
    most = settings.most_unbalanced if name.startswith("unbalanced FGW") else settings.most
    for turn, weights in enumerate(_WEIGHTS):
        count = len(range(turn, problems, len(_WEIGHTS)))
        drawn = [
            _draw(rng, most, tied=tied, balanced=kind.balanced, weights=weights)
            for _ in range(count)
        ]
        if not drawn:
            continue
        plans = kind.ours(_padded(drawn)).plan.detach().numpy()
        for one, plan in zip(drawn, plans, strict=True):
            ours = plan[: one.a.size, : one.b.size]
            values = (kind.value(one, np.asarray(each)) for each in (ours, kind.theirs(one)))
            found.append((*values, kind.off(one, ours)))
    return found


def _counts(found: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    ours, theirs, off = np.array(found).T
    over = (ours - theirs) / np.maximum(theirs, ABSOLUTE)
    slack = ABSOLUTE / np.maximum(theirs, ABSOLUTE)
    return {
        "count": len(ours),
        "above": int((over > RELATIVE + slack).sum()),
        "below": int((over < -RELATIVE - slack).sum()),
        "worst": float((ours - theirs).max() / theirs.mean()),
        "ours": float(ours.mean()),
        "theirs": float(theirs.mean()),
        "off": float(off.max()),
    }
