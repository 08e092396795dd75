"""Every solver at every magnitude of a dtype: what is called solved is held to float64."""

import time
import warnings
from dataclasses import dataclass

import ot
import pytest
import torch
from torch import Tensor

import hotnas_torch as ht
from hotnas_torch.errors import ConvergenceWarning
from hotnas_torch.ot import _operators
from tests.generators.problems import F64

pytestmark = pytest.mark.ext

F32 = torch.float32
POWERS = {F32: 126, F64: 996}  # 1e-38 to 1e38, 1e-300 to 1e300
DECADES = {F32: (0, 3, 9), F64: (0, 6, 18)}
BATCH = 100
SECONDS = 30  # of one call, far above what a batch takes
TOL = 1e-6


def times(values: Tensor, power: int) -> Tensor:
    """values * 2^power in float64, which may not hold 2^power itself."""
    half = power // 2
    return values.double() * 2.0**half * 2.0 ** (power - half)


@dataclass
class Problem:
    """A batch of one size and of one magnitude, cost * 2^power and struct * 2^of_struct."""

    cost: Tensor
    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    alpha: Tensor
    power: int
    of_struct: int
    loss: str
    pairs: str

    @classmethod
    def draw(cls, seed: int) -> "Problem":
        rng = torch.Generator().manual_seed(seed)

        def below(most: int) -> int:
            return int(torch.randint(most, (), generator=rng))

        dtype = (F32, F64)[below(2)]
        n, m = 1 + below(6), 1 + below(6)
        loss, pairs = ("l1", "l2")[below(2)], ("all", "directed", "ordered")[below(3)]
        most = POWERS[dtype]
        power = below(2 * most) - most
        apart = below(4 * most) - 2 * most
        of_struct = power if below(2) else min(max(power + apart, -most), most)
        if loss == "l2":
            of_struct //= 2

        def values(*shape: int, scale: int, signed: bool) -> Tensor:
            decades = DECADES[dtype][below(3)]
            drawn = torch.rand(shape, generator=rng, dtype=F64)
            drawn *= 10 ** (-decades * torch.rand(shape, generator=rng, dtype=F64))
            if signed:
                drawn *= torch.randint(2, shape, generator=rng) * 2 - 1
            return times(drawn, scale).to(dtype)

        def masses(nodes: int) -> Tensor:
            kind = below(4)
            if kind == 0:
                return torch.full((BATCH, nodes), 1 / nodes, dtype=dtype)
            drawn = torch.rand(BATCH, nodes, generator=rng, dtype=F64) + 1e-3
            if kind == 1:
                drawn *= 10 ** (-6 * torch.rand(BATCH, nodes, generator=rng, dtype=F64))
            if kind == 2:
                drawn[torch.rand(BATCH, nodes, generator=rng) < 0.3] = 0
                drawn[drawn.sum(1) == 0] = 1
            return (drawn / drawn.sum(1, keepdim=True)).to(dtype)

        signed = below(4) == 0
        return cls(
            values(BATCH, n, m, scale=power, signed=signed),
            values(BATCH, n, n, scale=of_struct, signed=signed),
            values(BATCH, m, m, scale=of_struct, signed=signed),
            masses(n),
            masses(m),
            (torch.randint(5, (BATCH,), generator=rng) / 4).to(dtype),
            power,
            of_struct,
            loss,
            pairs,
        )

    @property
    def eps(self) -> float:
        return torch.finfo(self.cost.dtype).eps

    @property
    def unit(self) -> int:
        """Binary exponent of the larger term of the objective."""
        return max(self.power, self.of_struct * (1 if self.loss == "l1" else 2))

    def epsilon(self, power: int) -> float:
        """An entropy's weight of about the size of costs of 2^power, a normal number."""
        return max(2.0**power * (1, 0.1, 0.01)[power % 3], torch.finfo(self.cost.dtype).tiny)

    def check_ends(
        self, found: ht.ot.FGWResult | ht.ot.SinkhornResult | ht.ot.EntropicFGWResult
    ) -> Tensor:
        """Every item ended as it may; returns which are solved.

        Close to the bounds of the dtype, sums of squares and the logarithms of masses times epsilon
        can leave it, which is to be said.
        """
        beyond = found.status == 2
        assert (beyond | (found.status == 0) | (found.status == 1)).all()
        assert found.objective[beyond].isnan().all()
        margin = POWERS[self.cost.dtype] - 8
        if abs(self.power) < margin and abs(self.unit) < margin:
            assert not beyond.any()
        return found.status == 0

    def underflow(self, power: int) -> Tensor:
        """What float64 here and the dtype lose of results too small for them, units of 2^power."""
        lost = times(torch.tensor(64 * torch.finfo(self.cost.dtype).tiny, dtype=F64), -power)
        return lost.clamp_min(torch.finfo(F64).tiny)

    def linearised(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        """Objective at a coupling and its derivative in it, in units, in float64."""
        plan = plan.double()
        x, y = times(self.x, -self.of_struct), times(self.y, -self.of_struct)
        terms = x[:, :, None, :, None] - y[:, None, :, None, :]
        terms = terms.abs() if self.loss == "l1" else terms**2
        n, m = self.cost.shape[1:]
        i, k = torch.arange(n)[:, None, None, None], torch.arange(n)[None, None, :, None]
        j, l = torch.arange(m)[None, :, None, None], torch.arange(m)[None, None, None, :]
        kept = {"all": (i == i) & (j == j), "directed": (i != k) & (j != l)}
        chosen = kept.get(self.pairs, (i < k) & (j < l))
        terms = torch.where(chosen, terms, 0)
        both = torch.einsum("bijkl,bkl->bij", terms, plan)
        both += torch.einsum("bklij,bkl->bij", terms, plan)
        degree = 1 if self.loss == "l1" else 2
        alpha = self.alpha.double()[:, None, None]
        linear = (1 - alpha) * times(times(self.cost, -self.power), self.power - self.unit)
        pair = alpha * times(both, degree * self.of_struct - self.unit)
        return ((linear + 0.5 * pair) * plan).sum((1, 2)), linear + pair

    def lost(self, plan: Tensor) -> Tensor:
        """L1 error of the masses of a plan, of the side where it is larger."""
        plan = plan.double()
        rows, columns = plan.sum(2) - self.a.double(), plan.sum(1) - self.b.double()
        return torch.maximum(rows.abs().sum(1), columns.abs().sum(1))


def best(cost: Tensor, a: Tensor, b: Tensor, open_: Tensor) -> Tensor:
    """Best coupling of the open items, by POT, (B, n, m); 0 for the others."""
    found = torch.zeros_like(cost)
    for item in open_.nonzero()[:, 0].tolist():
        supply, demand = (v[item] / v[item].sum() for v in (a, b))
        matrix = cost[item].contiguous().numpy()
        plan = ot.emd(supply.numpy(), demand.numpy(), matrix, numItermax=10**6)
        found[item] = torch.from_numpy(plan) * a[item].sum()
    return found


def transport(p: Problem) -> int:
    found = ht.ot.transport(p.cost, p.a, p.b)
    assert (found.status == 0).all()
    assert (p.lost(found.plan) <= 64 * p.eps).all()
    cost, f, g = (times(value, -p.power) for value in (p.cost, found.f, found.g))
    size = cost.abs().amax((1, 2))
    rounding = 64 * p.eps * size + p.underflow(p.power)
    over = (f[:, :, None] + g[:, None, :] - cost).amax((1, 2))
    assert (over <= rounding).all()
    value = (cost * found.plan.double()).sum((1, 2))
    gap = value - (f * p.a.double()).sum(1) - (g * p.b.double()).sum(1)
    assert (gap.abs() <= rounding).all()
    assert ((times(found.objective, -p.power) - value).abs() <= rounding).all()
    return int((found.status == 0).sum())


def fgw(p: Problem) -> int:
    found = ht.ot.fgw(
        p.cost, p.x, p.y, p.a, p.b, alpha=p.alpha, loss=p.loss, pairs=p.pairs, num_starts=2,
        tol=TOL, max_iter=100, bound=True,
    )  # fmt: skip
    solved = p.check_ends(found)
    ended = found.status != 2
    assert (found.iterations <= 2 * 100 + 2).all()
    assert (found.gap >= 0)[ended].all()
    assert (p.lost(found.plan) <= 64 * p.eps)[ended].all()
    objective, slope = p.linearised(found.plan)
    size = slope.abs().amax((1, 2))
    underflow = p.underflow(p.unit)
    reported = times(found.objective, -p.unit)
    assert ((reported - objective).abs() <= 64 * p.eps * size + underflow)[ended].all()
    assert found.lower_bound is not None
    below = times(found.lower_bound, -p.unit) - objective
    assert (below <= 64 * p.eps * size + underflow)[ended].all()

    # Feasible duals, ours in float64, bound the gap; what they leave open is asked of POT.
    plan, a, b = found.plan.double(), found.plan.double().sum(2), found.plan.double().sum(1)
    _, _, f, g, _, _ = _operators.transport(slope, a, b)
    reduced = torch.where(
        (a > 0)[:, :, None] & (b > 0)[:, None, :], slope - f[:, :, None] - g[:, None, :], 0
    )
    proved = (reduced * plan).sum((1, 2)) + (b * (-reduced).amax(1).clamp_min(0)).sum(1)
    on_plan = (slope * plan).sum((1, 2))
    allowed = TOL * objective.abs() + 64 * p.eps * (slope.abs() * plan).sum((1, 2))
    allowed += 64 * torch.finfo(F64).eps * size
    open_ = solved & (proved > allowed)
    vertex = best(slope, a, b, open_)
    gap = on_plan - (slope * vertex).sum((1, 2))
    allowed += 64 * p.eps * (slope.abs() * vertex).sum((1, 2))
    assert (gap[open_] <= allowed[open_]).all()
    return int(solved.sum())


def sinkhorn(p: Problem) -> int:
    epsilon = p.epsilon(p.power)
    tol = 1e-4 if p.cost.dtype == F32 else 1e-9
    found = ht.ot.sinkhorn(p.cost, p.a, p.b, epsilon=epsilon, tol=tol, max_iter=200)
    solved = p.check_ends(found)
    assert (found.iterations <= 200).all()
    assert (p.lost(found.plan)[solved] <= tol + 64 * p.eps).all()
    assert found.objective[solved].isfinite().all()
    return int(solved.sum())


def entropic_fgw(p: Problem) -> int:
    epsilon = p.epsilon(p.unit)
    tol = 1e-3 if p.cost.dtype == F32 else 1e-6
    method = ("mirror", "proximal")[p.power % 2]
    found = ht.ot.entropic_fgw(
        p.cost, p.x, p.y, p.a, p.b, alpha=p.alpha, epsilon=epsilon, loss=p.loss, pairs=p.pairs,
        method=method, tol=tol, max_iter=20, inner_max_iter=50,
    )  # fmt: skip
    solved = p.check_ends(found)
    assert (found.iterations <= 20).all()
    assert (p.lost(found.plan)[solved] <= tol + 64 * p.eps).all()
    assert found.objective[solved].isfinite().all()
    return int(solved.sum())


@pytest.mark.filterwarnings("ignore::hotnas_torch.errors.ConvergenceWarning")
def test_vertices_that_rounding_hid_leave_finite_duals() -> None:
    # one of its descents finds so many of them that what closes absent columns overflowed
    assert fgw(Problem.draw(4172)) > 0


@pytest.mark.parametrize("solver", [transport, fgw, sinkhorn, entropic_fgw])
@pytest.mark.parametrize("problems", [1000, pytest.param(10**6, marks=pytest.mark.slow)])
def test_what_is_called_solved_is_so_at_every_magnitude(problems: int, solver: object) -> None:
    assert callable(solver)
    solved, count = 0, problems // BATCH
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seed in range(count):
            start = time.monotonic()
            try:
                solved += solver(Problem.draw(seed))
            except AssertionError as error:
                error.add_note(f"seed {seed}")
                raise
            assert time.monotonic() - start < SECONDS, seed
    # of so small problems, most
    assert solved > 0.5 * problems


@pytest.mark.filterwarnings("ignore::hotnas_torch.errors.ConvergenceWarning")
def test_a_vertex_far_above_the_plan_excuses_no_gap() -> None:
    fgw(Problem.draw(2856))


def far_apart(dtype: torch.dtype, structure: float) -> dict[str, Tensor]:
    """Costs of size 1 beside structures whose squares the dtype does not hold."""
    cost = torch.tensor([[0.7, 0.1, 0.9], [0.5, 0.9, 0.2], [0.3, 0.6, 0.8]], dtype=dtype)
    # one graph on a cycle: its three turns match it with itself, and the cost says which
    cycle = structure * torch.tensor([[0, 1, 2], [2, 0, 1], [1, 2, 0]], dtype=dtype)
    return {"cost": cost, "struct_x": cycle, "struct_y": cycle}


LARGE = {F32: 1e25, F64: 1e200}


@pytest.mark.parametrize("backend", ["ext", "torch"])
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("pairs", ["all", "directed"])
def test_a_term_of_0_leaves_the_choice_to_the_other_one_however_far_apart_they_are(
    backend: str, dtype: torch.dtype, pairs: str
) -> None:
    problem = far_apart(dtype, LARGE[dtype])
    found = ht.ot.fgw(**problem, loss="l2", pairs=pairs, num_starts=3, backend=backend, bound=True)
    assert found.converged
    assert found.objective.item() == pytest.approx(0.5 * 0.6 / 3)
    assert found.cost_quad.abs() < 1e-6
    assert found.plan.argmax(1).tolist() == [1, 2, 0]
    assert found.gap <= 1e-6
    over = (found.f[:, None] + found.g - 0.5 * problem["cost"])[found.plan > 0]
    assert (over.abs() < 1e-5).all()
    assert found.lower_bound is not None
    assert found.lower_bound <= found.objective * (1 + 1e-6)

    same = torch.eye(3, dtype=dtype)  # the linear term is the larger one
    large = {F32: 1e35, F64: 1e300}[dtype] * (1 - same)
    x = far_apart(dtype, 1.0)["struct_x"]
    found = ht.ot.fgw(large, x, x + same, loss="l2", pairs=pairs, backend=backend)
    assert found.converged
    assert found.objective.item() == pytest.approx(0 if pairs == "directed" else 1 / 6)


@pytest.mark.filterwarnings("ignore::hotnas_torch.errors.ConvergenceWarning")
@pytest.mark.parametrize("backend", ["ext", "torch"])
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("pairs", ["directed", "ordered"])
def test_entries_of_no_pair_have_no_size(
    backend: str, dtype: torch.dtype, loss: str, pairs: str
) -> None:
    cost = torch.tensor([[0.3, 0.7]], dtype=dtype)
    own, other = torch.tensor([[2.0]], dtype=dtype), torch.tensor([[0, 2], [2, 0]], dtype=dtype)
    big = LARGE[dtype]
    options = {"loss": loss, "pairs": pairs, "backend": backend}
    found = ht.ot.fgw(cost, big * own, big * other, bound=True, **options)
    assert found.converged
    assert found.objective.item() == pytest.approx(0.25)
    assert found.lower_bound is not None
    assert found.lower_bound.item() == pytest.approx(0.25)
    assert (found.f[:, None] + found.g).tolist() == [pytest.approx([0.15, 0.35])]

    rng = torch.Generator().manual_seed(0)
    cost, x, y = (torch.rand(4, 4, generator=rng, dtype=dtype) for _ in range(3))
    unused = torch.ones(4, 4, dtype=torch.bool)
    unused = unused.tril() if pairs == "ordered" else torch.eye(4, dtype=torch.bool)
    huge = torch.finfo(dtype).max
    spoilt = torch.where(unused, huge, x), torch.where(unused, -huge, y)
    for solve, more in (
        (ht.ot.fgw, {"bound": True}),
        (ht.ot.entropic_fgw, {"epsilon": 0.5, "max_iter": 20}),
        (ht.ot.entropic_fgw, {"epsilon": 0.5, "max_iter": 20, "method": "proximal"}),
    ):
        right, found = solve(cost, x, y, **options, **more), solve(cost, *spoilt, **options, **more)
        assert torch.equal(found.status, right.status)
        assert torch.equal(found.plan, right.plan)
        assert torch.equal(found.objective, right.objective)
        assert torch.equal(found.f, right.f)

    def gradients(*structures: Tensor) -> tuple[Tensor, ...]:
        alpha = torch.tensor(0.5, dtype=dtype, requires_grad=True)
        inputs = cost.clone(), *structures, alpha
        for value in inputs:
            value.requires_grad_()
        found = ht.ot.fgw(*inputs[:3], alpha=alpha, **options)
        return torch.autograd.grad(found.objective, inputs)

    for right_slope, slope in zip(gradients(x.clone(), y.clone()), gradients(*spoilt), strict=True):
        assert torch.equal(slope, right_slope)


@pytest.mark.parametrize("backend", ["ext", "torch"])
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("loss", [0, 1])
@pytest.mark.parametrize("pairs", [0, 1, 2])
def test_entries_that_no_mass_meets_add_nothing_to_the_quadratic_term(
    backend: str, dtype: torch.dtype, loss: int, pairs: int
) -> None:
    rng = torch.Generator().manual_seed(0)
    n, huge = 5, torch.finfo(dtype).max
    x, y = (torch.rand(1, n, n, generator=rng, dtype=dtype) for _ in range(2))
    every = torch.ones(n, n, dtype=torch.bool)
    kept = (every, every ^ torch.eye(n, dtype=torch.bool), every.triu(1))[pairs].clone()
    kept[-1], kept[:, -1] = False, False  # the last node has no mass
    plan = torch.diag(torch.tensor([1.0, 1, 1, 1, 0], dtype=dtype) / 4)[None]
    blank = x.where(kept, 0), y.where(kept, 0)
    spoilt = x.where(kept, huge), y.where(kept, -huge)
    weight, terms = x.new_ones(1), (loss, pairs)
    slopes = _operators.fgw_backward(plan, *spoilt, weight, *terms, backend=backend)
    for slope, right in zip(
        slopes, _operators.fgw_backward(plan, *blank, weight, *terms, backend=backend), strict=True
    ):
        assert torch.equal(slope, right)
    value = _operators.quadratic_cost(plan, *spoilt, *terms, backend=backend)
    assert torch.equal(value, _operators.quadratic_cost(plan, *blank, *terms, backend=backend))
    assert value > 0


@pytest.mark.filterwarnings("ignore::hotnas_torch.errors.ConvergenceWarning")
@pytest.mark.parametrize("backend", ["ext", "torch"])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_nothing_that_overflowed_is_called_solved(backend: str, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    most = torch.finfo(dtype).max

    def draw(*shape: int) -> Tensor:
        signs = torch.randint(2, shape, generator=rng) * 2 - 1
        return (torch.rand(shape, generator=rng, dtype=F64) * signs * size).to(dtype)

    beyond = 0
    few = {"tol": 1e-2, "max_iter": 9, "inner_max_iter": 30}
    for size in (most, most**0.55):
        cost, x, y = draw(50, 3, 4), draw(50, 3, 3), draw(50, 4, 4)
        results = [ht.ot.transport(cost, backend=backend)]
        results += [ht.ot.sinkhorn(cost, epsilon=size, max_iter=20, backend=backend)]
        for loss in ("l1", "l2"):
            for pairs in ("all", "ordered"):
                terms = {"loss": loss, "pairs": pairs, "backend": backend}
                results.append(ht.ot.fgw(cost, x, y, max_iter=20, bound=True, **terms))
                for method in ("mirror", "proximal"):
                    results.append(
                        ht.ot.entropic_fgw(cost, x, y, epsilon=size, method=method, **few, **terms)
                    )
        for found in results:
            beyond += int((found.status == 2).sum())
            for name in ("plan", "objective", "f", "g", "gap", "residual", "lower_bound"):
                value = getattr(found, name, None)
                if value is not None:
                    assert value[found.converged].isfinite().all(), (type(found).solver, name)
    assert beyond > 0
