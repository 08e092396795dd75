"""The public solvers as the rules see them: one row each.

A row says what a random problem is, how it is solved and what its "converged" promises. All else
follows from the names of the arguments: what has units, what is numbered by nodes, what is absent.
A new solver adds a row, and a field of a new name its unit.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import hotnas_torch as ht
from tests.generators.problems import F64, masses, uniform

# Powers of the unit of cost; structures have its square root where the loss is a square.
OF_COST = ("cost", "objective", "cost_linear", "cost_quad", "f", "g", "gap", "price")
WITHOUT_UNIT = (
    *("a", "b", "alpha", "mass", "plan", "log_plan", "residual", "iterations", "status"),
)
# Nodes along each dimension after the first.
NUMBERED = {
    **{"cost": "xy", "struct_x": "xx", "struct_y": "yy", "a": "x", "b": "y", "alpha": ""},
    "mass": "",
}
# Rounding of an objective, a marginal and a gap, in units of the last place of the largest term.
ROUNDING = 64


@dataclass(frozen=True)
class Case:
    """A batch of random problems of one shape, and the settings they are solved with."""

    inputs: dict[str, Tensor]
    options: dict[str, Any]

    @property
    def size(self) -> int:
        return len(self.inputs["cost"])

    @property
    def dtype(self) -> torch.dtype:
        return self.inputs["cost"].dtype

    def with_inputs(self, change: Callable[[str, Tensor], Tensor]) -> "Case":
        return replace(self, inputs={k: change(k, v) for k, v in self.inputs.items()})

    def with_options(self, **changes: Any) -> "Case":
        known = {name: value for name, value in changes.items() if name in self.options}
        return replace(self, options={**self.options, **known})

    def items(self, index: Tensor | slice) -> "Case":
        return self.with_inputs(lambda _, value: value[index])

    def beside(self, other: "Case") -> "Case":
        return self.with_inputs(lambda name, value: torch.cat([value, other.inputs[name]]))

    def unit_of(self, name: str, powers: Tensor) -> Tensor | None:
        """2**powers as far as the argument or result of this name has units of cost."""
        if name in OF_COST:
            return torch.exp2(powers.to(F64))
        if name.startswith("struct"):
            return torch.exp2(powers.to(F64) / self.structure_root)
        assert name in WITHOUT_UNIT, f"say in which unit {name} is"
        return None

    @property
    def structure_root(self) -> int:
        return 2 if self.options.get("loss") == "l2" else 1

    def rescaled(self, powers: Tensor) -> "Case":
        """The same problems in units that are 2**powers as small, exactly."""
        case = self.with_inputs(lambda name, value: times(value, self.unit_of(name, powers)))
        if "epsilon" in self.options:
            case = case.with_options(epsilon=self.options["epsilon"] * 2.0 ** int(powers[0]))
        if "reg_m" in self.options:
            weights = tuple(weight * 2.0 ** int(powers[0]) for weight in self.options["reg_m"])
            case = case.with_options(reg_m=weights)
        return case

    def renumbered(self, of: dict[str, Tensor]) -> "Case":
        """Nodes in another order: `of` holds a permutation per item for "x" and for "y"."""

        def change(name: str, value: Tensor) -> Tensor:
            for dim, side in enumerate(NUMBERED[name], start=1):
                shape = [value.shape[0], *(1 for _ in value.shape[1:])]
                shape[dim] = value.shape[dim]
                value = value.take_along_dim(of[side].reshape(shape), dim)
            return value

        return self.with_inputs(change)

    def present(self, name: str) -> Tensor:
        """Where the argument or result of this name belongs to nodes that are there."""
        sides = {"x": self.inputs["a"] > 0, "y": self.inputs["b"] > 0}
        numbered = {**NUMBERED, "plan": "xy", "log_plan": "xy", "f": "x", "g": "y"}.get(name, "")
        seen = torch.ones(self.size, *(1 for _ in numbered), dtype=torch.bool)
        for dim, side in enumerate(numbered, start=1):
            shape = [self.size, *(1 for _ in numbered)]
            shape[dim] = sides[side].shape[1]
            seen = seen & sides[side].reshape(shape)
        return seen


def times(value: Tensor, unit: Tensor | None) -> Tensor:
    if unit is None:
        return value
    return value * unit.to(value.dtype).reshape(-1, *(1 for _ in value.shape[1:]))


Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Solver:
    """One public solver.

    Attributes:
        call: The function, with keywords.
        options: Draws settings.
        structures: Whether it takes structures and alpha.
        excess: How far what was returned is from what "converged" promises, (B,) float64, at most
            1; from the problems and what was returned, by arithmetic in float64 alone.
        of_a_million: How many of a million problems are its share: dear ones solve fewer.
        of_a_thousand: How many of the thousand that each solver has where not all is run.
        local: Whether it ends in one of several optima, as its starts and rounding lead it.
        partial: Whether it moves a given part of the mass.
        elsewhere: Of two descents that differ by rounding, how many may end in another optimum.
        parts: Whether what is one operator is taken apart where a gradient is recorded: the last
            bits may differ.
    """

    call: Callable[..., Any]
    options: Callable[[torch.Generator], dict[str, Any]]
    structures: bool
    excess: Callable[[Case, Outputs], Tensor]
    of_a_million: int
    local: bool = False
    partial: bool = False
    elsewhere: float = 1e-3
    of_a_thousand: int = 1000
    parts: bool = False

    def draw(self, rng: torch.Generator, size: int, most: int = 5) -> Case:
        """A batch of problems of up to `most` nodes: any masses, absent nodes, any settings."""
        n, m = (integer(rng, 1, most + 1) for _ in range(2))
        kind = integer(rng, 0, 4)
        if kind == 0:
            m = n
        absent = 0.4 if kind == 1 else 0.0
        even = kind in (0, 2)
        signed = integer(rng, 0, 2) * (not self.structures)
        inputs = {
            "cost": uniform(rng, size, n, m) - 0.5 * signed,
            "a": torch.full((size, n), 1 / n, dtype=F64)
            if even
            else masses(rng, size, n, absent=absent),
            "b": torch.full((size, m), 1 / m, dtype=F64)
            if even
            else masses(rng, size, m, absent=absent),
        }
        if self.structures:
            inputs["struct_x"] = uniform(rng, size, n, n)
            inputs["struct_y"] = uniform(rng, size, m, m)
            share = (0.0, 1.0, -1.0, -1.0, -1.0)[integer(rng, 0, 5)]
            inputs["alpha"] = (
                uniform(rng, size) if share < 0 else torch.full((size,), share).to(F64)
            )
        if self.partial:
            share = choose(rng, 0.0, 1.0, *[-1.0] * 6)
            inputs["mass"] = uniform(rng, size) if share < 0 else torch.full((size,), share).to(F64)
        dtype = (torch.float32, F64)[integer(rng, 0, 2)]
        case = Case({name: value.to(dtype) for name, value in inputs.items()}, self.options(rng))
        if case.options.get("init") == "none":
            del case.options["init"]
        return case

    def solve(self, case: Case, backend: str = "auto") -> Outputs:
        found = self.call(**case.inputs, **case.options, backend=backend, validate=False)
        if not is_dataclass(found):
            return {"objective": found}
        named = {field.name: getattr(found, field.name) for field in fields(found)}
        outputs = {name: value for name, value in named.items() if value is not None}
        return outputs if "plan" in outputs else {**outputs, "plan": found.plan}

    def units(self, rng: torch.Generator, case: Case) -> Tensor:
        """Powers of two to rescale each item by, such that all numbers stay in range."""
        reach = 80 if case.dtype == torch.float32 else 800
        powers = torch.randint(-reach // 2, reach // 2 + 1, (case.size,), generator=rng) * 2
        return powers[:1].expand(case.size) if "epsilon" in case.options else powers


def integer(rng: torch.Generator, least: int, end: int) -> int:
    return int(torch.randint(least, end, (), generator=rng))


def choose(rng: torch.Generator, *values: Any) -> Any:
    return values[integer(rng, 0, len(values))]


# --- what "converged" promises --------------------------------------------------------------------


def doubles(case: Case) -> dict[str, Tensor]:
    """The problem in float64, with 0 at what is absent."""
    return {
        name: torch.where(case.present(name), value, 0).to(F64)
        for name, value in case.inputs.items()
    }


def slope(case: Case, plan: Tensor) -> tuple[Tensor, Tensor]:
    """F and its gradient at a plan, by the definition, quartic."""
    at = doubles(case)
    if "struct_x" not in at:
        return (at["cost"] * plan).sum((1, 2)), at["cost"]
    difference = at["struct_x"][:, :, None, :, None] - at["struct_y"][:, None, :, None, :]
    terms = difference.abs() if case.options["loss"] == "l1" else difference**2
    n, m = plan.shape[1:]
    i, j, k, l = torch.meshgrid(*(torch.arange(s) for s in (n, m, n, m)), indexing="ij")
    if case.options["pairs"] == "directed":
        terms = terms * ((i != k) & (j != l))
    if case.options["pairs"] == "ordered":
        terms = terms * ((i < k) & (j < l))
    towards = torch.einsum("bijkl,bkl->bij", terms, plan)
    away = torch.einsum("bijkl,bij->bkl", terms, plan)
    alpha = at["alpha"][:, None, None]
    value = (1 - alpha) * at["cost"] + alpha * towards
    gradient = (1 - alpha) * at["cost"] + alpha * (towards + away)
    return (value * plan).sum((1, 2)), gradient


def largest_pair(case: Case) -> Tensor:
    """An upper bound of the terms of pairs, (B,)."""
    at = doubles(case)
    spread = at["struct_x"].abs().amax((1, 2)) + at["struct_y"].abs().amax((1, 2))
    return spread if case.options["loss"] == "l1" else spread**2


def steepest(case: Case) -> Tensor:
    """An upper bound of the slope in any direction, (B,)."""
    at = doubles(case)
    cost = at["cost"].abs().amax((1, 2))
    if "struct_x" not in at:
        return cost
    return (1 - at["alpha"]) * cost + 2 * at["alpha"] * largest_pair(case)


def lost_mass(case: Case, plan: Tensor) -> Tensor:
    """L1 errors of both marginals, the larger."""
    rows = (plan.sum(2) - case.inputs["a"].to(F64)).abs().sum(1)
    columns = (plan.sum(1) - case.inputs["b"].to(F64)).abs().sum(1)
    return torch.maximum(rows, columns)


def duality_gap(case: Case, plan: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """An upper bound of <gradient, plan - V> over all couplings V, and <|gradient|, plan> with it.

    Weak duality: f_i = min_j (gradient_ij - g_j) is feasible whatever g is, so that a wrong g can
    only make the gap larger.
    """
    a, b = (case.inputs[name].to(F64) for name in ("a", "b"))
    even = (a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True))
    solved = ht.ot.transport(gradient, *even, validate=False)
    here = (b > 0)[:, None, :]
    f = torch.where(here, gradient - solved.g[:, None, :], torch.inf).amin(2)
    reduced = gradient - f[:, :, None] - solved.g[:, None, :]
    gap = torch.where(plan != 0, plan * reduced, 0).sum((1, 2))
    size = (gradient.abs() * (plan + solved.plan)).sum((1, 2))
    return gap, size


def exact_excess(case: Case, found: Outputs, *, tol: float) -> Tensor:
    """Gap and lost mass of a plan, in units of what is allowed; infinite where it is negative."""
    plan = found["plan"].to(F64)
    epsilon = torch.finfo(case.dtype).eps
    value, gradient = slope(case, plan)
    gap, size = duality_gap(case, plan, gradient)
    # Where the optimum is 0, what is left of it is dust: a mass of epsilon at slopes of epsilon.
    size = size + epsilon * steepest(case)
    allowed = tol * value.abs() + ROUNDING * epsilon * size
    excess = torch.maximum(gap / allowed, lost_mass(case, plan) / (ROUNDING * epsilon))
    # What it pays is what its plan costs.
    off = (found["objective"].to(F64) - value).abs() / (ROUNDING * epsilon * size)
    excess = torch.maximum(excess, torch.where(size == 0, 0, off))
    return torch.where((plan < 0).any(2).any(1), torch.inf, torch.where(size == 0, 0, excess))


def partial_excess(case: Case, found: Outputs, *, tol: float) -> Tensor:
    """Of a plan that moves a part: gap by weak duality, mass beyond what there is, value.

    f_i = min(0, min_j (gradient_ij - price - g_j)) is feasible whatever g <= 0 and price are.
    """
    plan = found["plan"].to(F64)
    epsilon = torch.finfo(case.dtype).eps
    at = doubles(case)
    a, b, mass = at["a"], at["b"], at["mass"]
    moved = torch.minimum(mass, torch.minimum(a.sum(1), b.sum(1)))
    value, gradient = slope(case, plan)
    solved = ht.ot.partial_transport(gradient, a, b, mass=moved, validate=False)
    rest = gradient - solved.price[:, None, None] - solved.g[:, None, :]
    here = (b > 0)[:, None, :]
    f = torch.where(here, rest, torch.inf).amin(2).clamp_max(0)
    left_a, left_b = (a - plan.sum(2)).clamp_min(0), (b - plan.sum(1)).clamp_min(0)
    paid = torch.where(plan != 0, plan * (rest - f[:, :, None]), 0).sum((1, 2))
    gap = paid - (f * left_a).sum(1) - (solved.g * left_b).sum(1)
    of_duals = (f.abs() * a).sum(1) + (solved.g.abs() * b).sum(1) + solved.price.abs() * moved
    size = (gradient.abs() * (plan + solved.plan)).sum((1, 2)) + of_duals
    size = size + epsilon * steepest(case)
    over = (plan.sum(2) - a).clamp_min(0).sum(1) + (plan.sum(1) - b).clamp_min(0).sum(1)
    lost = torch.maximum(over, (plan.sum((1, 2)) - mass).abs())
    rounding = ROUNDING * epsilon
    off = (found["objective"].to(F64) - value).abs()
    excess = torch.maximum(gap / (tol * value.abs() + rounding * size), off / (rounding * size))
    excess = torch.where(size == 0, 0, torch.maximum(excess, lost / rounding))
    return torch.where((plan < 0).any(2).any(1), torch.inf, excess)


def sinkhorn_excess(case: Case, found: Outputs) -> Tensor:
    """Both marginals of the plan; that it is stationary follows from its form."""
    plan = found["plan"].to(F64)
    at, epsilon = doubles(case), case.options["epsilon"]
    f, g = (torch.where(case.present(name), found[name], 0).to(F64) for name in ("f", "g"))
    exponent = (f[:, :, None] + g[:, None, :] - at["cost"]) / epsilon
    exact = torch.where(case.present("plan"), exponent.exp(), 0)
    rounding = ROUNDING * torch.finfo(case.dtype).eps
    tol = 1e-5 if case.dtype == torch.float32 else 1e-9
    size = 1 + (exponent.abs() + at["cost"].abs() / epsilon).amax((1, 2))
    form = (plan - exact).abs().sum((1, 2)) / (rounding * size)
    return torch.maximum(lost_mass(case, plan) / (tol + rounding), form)


def entropic_excess(case: Case, found: Outputs) -> Tensor:
    """Both marginals, and whether the plan is that of its own gradient, (f + g - G(T)) / epsilon.

    Of mirror descent that is log T, of proximal points log T - log T = 0. The last step was taken
    with the gradient of a plan tol away, which differs by at most this times the largest term.
    """
    plan, epsilon = found["plan"].to(F64), case.options["epsilon"]
    at, seen = doubles(case), case.present("plan")
    _, gradient = slope(case, plan)
    f, g = (torch.where(case.present(name), found[name], 0).to(F64) for name in ("f", "g"))
    exponent = (f[:, :, None] + g[:, None, :] - gradient) / epsilon
    log_plan = torch.where(seen, found["log_plan"], 0).to(F64)
    wanted = log_plan if case.options["method"] == "mirror" else torch.zeros_like(log_plan)
    off = (plan * (exponent - wanted)).abs().sum((1, 2))
    bend = 2 * at["alpha"] * largest_pair(case) / epsilon
    tol = 1e-4 if case.dtype == torch.float32 else 1e-7
    rounding = ROUNDING * torch.finfo(case.dtype).eps
    size = (plan * (gradient.abs() / epsilon + wanted.abs())).sum((1, 2))
    stationary = off / ((2 + bend) * tol + rounding * (1 + size))
    return torch.maximum(stationary, lost_mass(case, plan) / (tol + rounding))


def semirelaxed_excess(case: Case, found: Outputs) -> Tensor:
    """Gap, row masses and value of a plan whose columns are free, in units of what is allowed."""
    plan, here = found["plan"].to(F64), (case.inputs["b"] > 0)[:, None, :]
    epsilon = torch.finfo(case.dtype).eps
    value, gradient = slope(case, plan)
    least = torch.where(here, gradient, torch.inf).amin(2, keepdim=True)
    gap = torch.where(plan != 0, plan * (gradient - least), 0).sum((1, 2))
    size = (gradient.abs() * plan).sum((1, 2)) + epsilon * steepest(case)
    rows = (plan.sum(2) - case.inputs["a"].to(F64)).abs().sum(1)
    excess = torch.maximum(
        gap / (1e-6 * value.abs() + ROUNDING * epsilon * size), rows / (ROUNDING * epsilon)
    )
    off = (found["objective"].to(F64) - value).abs() / (ROUNDING * epsilon * size)
    excess = torch.where(size == 0, 0, torch.maximum(excess, off))
    astray = (plan < 0) | ((plan != 0) & ~here)
    return torch.where(astray.any(2).any(1), torch.inf, excess)


def unbalanced_excess(case: Case, found: Outputs) -> Tensor:
    """Form of the plan, and its masses against those that the duals ask for."""
    plan, at = found["plan"].to(F64), doubles(case)
    epsilon, weights = case.options["epsilon"], case.options["reg_m"]
    duals = [torch.where(case.present(name), found[name], 0).to(F64) for name in ("f", "g")]
    exponent = (duals[0][:, :, None] + duals[1][:, None, :] - at["cost"]) / epsilon
    exact = at["a"][:, :, None] * at["b"][:, None, :] * exponent.exp()
    rounding = ROUNDING * torch.finfo(case.dtype).eps
    tol = 1e-5 if case.dtype == torch.float32 else 1e-9
    size = 1 + (exponent.abs() + at["cost"].abs() / epsilon).amax((1, 2))
    mass = 1 + plan.sum((1, 2))
    excess = (plan - exact).abs().sum((1, 2)) / (rounding * size * mass)
    for dual, weight, wanted, sums in zip(
        duals, weights, (at["a"], at["b"]), (plan.sum(2), plan.sum(1)), strict=True
    ):
        more = sums - wanted
        if case.options["penalty"] == "kl" and 0 < weight < torch.inf:
            more = sums - wanted * (-dual / weight).exp()
        elif weight < torch.inf:
            bound = weight * (1 - torch.finfo(case.dtype).eps)
            more = torch.where(dual >= bound, more.clamp_min(0), more)
            more = torch.where(dual <= -bound, more.clamp_max(0), more)
            outside = (dual.abs() > weight * (1 + torch.finfo(case.dtype).eps)).any(1)
            excess = torch.where(outside, torch.inf, excess)
        missed = more.abs().sum(1) / (tol + rounding * size * mass)
        excess = torch.maximum(excess, missed)
    return excess


def relaxed_excess(case: Case, found: Outputs) -> Tensor:
    """Twice what one side of the product of a plan with itself can still win, and the value.

    The objective of a product of plans is a transport problem in each of the two, whose duals prove
    what it can come to.
    """
    plan, at = found["plan"].to(F64), doubles(case)
    prices = (*case.options["reg_m"], case.options["epsilon"])
    a, b = at["a"], at["b"]
    value, gradient = slope(case, plan)
    product = a[:, :, None] * b[:, None, :]
    mass, value = plan.sum((1, 2)), value.clone()
    size = (gradient.abs() * plan).sum((1, 2)) + torch.finfo(case.dtype).eps * steepest(case)
    shift, rest = torch.zeros_like(mass), 0.5 * (1 - at["alpha"]) * (at["cost"] * plan).sum((1, 2))
    for price, given, sums in zip(
        prices, (a, b, product), (plan.sum(2), plan.sum(1), plan), strict=True
    ):
        ratio = torch.where(given > 0, sums / torch.where(given > 0, given, 1), 1)
        off = torch.special.xlogy(sums, ratio).flatten(1).sum(1)
        total = given.flatten(1).sum(1)
        value = value + price * (2 * mass * off - mass**2 + total**2)
        size = size + price * (2 * mass * off.abs() + mass**2 + total**2)
        shift, rest = shift + price * off, rest + price * total * (total - mass)
    costs = (0.5 * gradient + shift[:, None, None]) / mass[:, None, None]
    settings = {"reg_m": prices[:2], "validate": False}
    if prices[2]:
        solved = ht.ot.unbalanced_sinkhorn(costs, a, b, epsilon=prices[2], **settings)
        least = solved.objective
    else:
        exact = ht.ot.unbalanced_transport(costs, a, b, tol=1e-9, **settings)
        least = exact.objective - exact.gap
    gap = 2 * (value - mass * least - rest)
    rounding = ROUNDING * torch.finfo(case.dtype).eps * size
    excess = gap / (1e-8 * value.abs() + rounding + 1e-9 * size)
    excess = torch.maximum(excess, (found["objective"].to(F64) - value).abs() / rounding)
    return torch.where((plan < 0).any(2).any(1), torch.inf, excess)


def variation_excess(case: Case, found: Outputs) -> Tensor:
    """Gap and value of a plan whose missed masses have a price, by its linearised problem."""
    plan, at, price = found["plan"].to(F64), doubles(case), case.options["reg_m"][0]
    a, b = at["a"], at["b"]
    epsilon = torch.finfo(case.dtype).eps
    value, gradient = slope(case, plan)
    missed = (plan.sum(2) - a).abs().sum(1) + (plan.sum(1) - b).abs().sum(1)
    settings = {"reg_m": price, "penalty": "tv", "validate": False}
    least = ht.ot.unbalanced_transport(gradient, a, b, **settings).objective
    gap = (gradient * plan).sum((1, 2)) + price * missed - least
    value = value + price * missed
    totals = a.sum(1) + b.sum(1)
    size = (gradient.abs() * plan).sum((1, 2)) + price * totals + epsilon * steepest(case)
    rounding = ROUNDING * epsilon * size
    excess = torch.maximum(
        gap / (1e-8 * value.abs() + rounding), (found["objective"].to(F64) - value).abs() / rounding
    )
    return torch.where((plan < 0).any(2).any(1), torch.inf, excess)


def bound_excess(case: Case, found: Outputs) -> Tensor:
    """No coupling costs less than the lower bound: tried are a good one and the product."""
    at = doubles(case)
    for side in ("a", "b"):
        at[side] = at[side] / at[side].sum(1, keepdim=True)
    good = ht.ot.fgw(**at, **case.options, num_starts=3, validate=False)
    product = at["a"][:, :, None] * at["b"][:, None, :]
    least = torch.minimum(slope(case, good.plan)[0], slope(case, product)[0])
    rounding = ROUNDING * torch.finfo(case.dtype).eps
    return torch.where(least == 0, 0, (found["objective"].to(F64) - least) / (rounding * least))


# --- the table ------------------------------------------------------------------------------------


def no_options(rng: torch.Generator) -> dict[str, Any]:
    return {}


def terms(rng: torch.Generator) -> dict[str, Any]:
    return {
        "loss": choose(rng, "l1", "l2"),
        "pairs": choose(rng, "all", "directed", "ordered"),
    }


def of_fgw(rng: torch.Generator) -> dict[str, Any]:
    starts = {"num_starts": integer(rng, 1, 4), "init": choose(rng, "none", "none", "product")}
    return {**terms(rng), **starts}


def of_entropic(method: str, rng: torch.Generator) -> dict[str, Any]:
    epsilon = 0.2 + 0.8 * float(uniform(rng, 1))
    return {**terms(rng), "method": method, "epsilon": epsilon, "max_iter": 40}


def of_unbalanced(penalty: str, rng: torch.Generator) -> dict[str, Any]:
    weights = [choose(rng, 0.1, 0.5, 2.0, torch.inf) for _ in range(2)]
    if penalty == "kl":
        weights[0] = choose(rng, weights[0], 0.0)
    epsilon = 0.05 + float(uniform(rng, 1))
    return {"epsilon": epsilon, "reg_m": tuple(weights), "penalty": penalty, "max_iter": 1000}


def of_edges(rng: torch.Generator) -> dict[str, Any]:
    return {**of_fgw(rng), "max_iter": 300}


def of_relaxed(rng: torch.Generator) -> dict[str, Any]:
    weights = tuple(choose(rng, 0.1, 0.5, 2.0) for _ in range(2))
    return {**terms(rng), "epsilon": choose(rng, 0.0, 0.1), "reg_m": weights, "max_iter": 300}


def of_variation(rng: torch.Generator) -> dict[str, Any]:
    weights = (choose(rng, 0.05, 0.2, 1.0),) * 2
    return {**terms(rng), "epsilon": 0.0, "reg_m": weights, "penalty": "tv", "max_iter": 300}


def edges(
    cost: Tensor, struct_x: Tensor, struct_y: Tensor, *args: Any, **options: Any
) -> ht.ot.FGWResult:
    """Structures as edges of one number."""
    return ht.ot.edge_fgw(cost, struct_x[..., None], struct_y[..., None], *args, **options)


SOLVERS: dict[str, Solver] = {
    "transport": Solver(
        ht.ot.transport, no_options, False, partial(exact_excess, tol=0.0), 200_000
    ),
    "partial_transport": Solver(
        ht.ot.partial_transport,
        no_options,
        False,
        partial(partial_excess, tol=0.0),
        50_000,
        partial=True,
    ),
    "fgw": Solver(ht.ot.fgw, of_fgw, True, partial(exact_excess, tol=1e-6), 138_000, local=True),
    "unbalanced_fgw_tv": Solver(
        ht.ot.unbalanced_fgw,
        of_variation,
        True,
        variation_excess,
        10_000,
        local=True,
        elsewhere=1e-2,
        of_a_thousand=300,
    ),
    "edge_fgw": Solver(
        edges,
        of_edges,
        True,
        partial(exact_excess, tol=1e-6),
        1_500,
        local=True,
        elsewhere=1e-2,
        of_a_thousand=100,
    ),
    "unbalanced_fgw": Solver(
        ht.ot.unbalanced_fgw,
        of_relaxed,
        True,
        relaxed_excess,
        500,
        local=True,
        elsewhere=2e-2,
        of_a_thousand=50,
    ),
    "partial_fgw": Solver(
        ht.ot.partial_fgw,
        of_fgw,
        True,
        partial(partial_excess, tol=1e-6),
        50_000,
        local=True,
        partial=True,
        # Where even masses are moved in part and by structure alone, plans tie: which of two nodes
        # is moved whole, and which in part, pays the same.
        elsewhere=1e-2,
    ),
    "semirelaxed_fgw": Solver(
        ht.ot.semirelaxed_fgw,
        lambda rng: {**of_fgw(rng), "num_starts": integer(rng, 1, 3)},
        True,
        semirelaxed_excess,
        40_000,
        local=True,
    ),
    "unbalanced_kl": Solver(
        ht.ot.unbalanced_sinkhorn, partial(of_unbalanced, "kl"), False, unbalanced_excess, 40_000
    ),
    "unbalanced_tv": Solver(
        ht.ot.unbalanced_sinkhorn, partial(of_unbalanced, "tv"), False, unbalanced_excess, 20_000
    ),
    "fgw_lower_bound": Solver(ht.ot.fgw_lower_bound, terms, True, bound_excess, 100_000),
    "sinkhorn": Solver(
        ht.ot.sinkhorn,
        lambda rng: {"epsilon": 0.05 + float(uniform(rng, 1)), "max_iter": 1000},
        False,
        sinkhorn_excess,
        200_000,
        parts=True,
    ),
    "mirror": Solver(
        ht.ot.entropic_fgw, partial(of_entropic, "mirror"), True, entropic_excess, 125_000
    ),
    "proximal": Solver(
        ht.ot.entropic_fgw, partial(of_entropic, "proximal"), True, entropic_excess, 25_000
    ),
}
assert sum(solver.of_a_million for solver in SOLVERS.values()) == 10**6
