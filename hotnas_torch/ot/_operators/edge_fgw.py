# Over 400 lines: one solver: pair costs of edges by loss, the descent, its gradient.
"""Fused Gromov-Wasserstein of edges with features: pair costs, solution, gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from hotnas_torch.ot._operators.operator import Backend, full_precision, held, is_tracked
from hotnas_torch.ot._operators.transport import entry_duals, tangent, transport
from hotnas_torch.ot._reference.fgw import Problem, Solution, descend
from hotnas_torch.ot._reference.transport import INFEASIBLE, MAX_ITER

__all__ = [
    "NUM_EDGE_STARTS",
    "EdgeLoss",
    "EdgeProblem",
    "EdgeTerms",
    "at_coupling",
    "batches",
    "edge_fgw",
    "edge_problem",
    "pair_bend",
    "pair_mask",
    "read_edges",
    "within",
]

EdgeLoss = Literal["l1", "l2", "kl"]

NUM_EDGE_STARTS = 3
"""Starts that need no input: from the product of the masses, that product, pointwise."""

_TABLE_ELEMENTS = 2**24
"""Entries that the costs of all pairs of pairs may take at one time."""


class EdgeTerms(NamedTuple):
    """Which loss, over which pairs: 0 all, 1 directed, 2 ordered."""

    loss: EdgeLoss
    pairs: int


@full_precision
def edge_fgw(
    cost: Tensor,
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    init: Tensor,
    terms: EdgeTerms,
    num_starts: int,
    tol: float,
    max_iter: int,
    *,
    backend: Backend = "auto",
) -> Solution:
    """Find a stationary coupling by the conditional gradient of the reference implementation.

    Args:
        cost: Costs between nodes, shape (B, n, m); +inf forbids a pair.
        x: Features of the edges of the first graph, shape (B, n, n, d).
        y: Those of the second graph, shape (B, m, m, d).
        a: Masses of the first graph, shape (B, n). Nodes of zero mass are absent.
        b: Masses of the second graph, shape (B, m), with the same sum.
        alpha: Weight of the quadratic term, shape (B,).
        init: Coupling to start from, shape (B, n, m), or no elements for none.
        terms: The quadratic term.
        num_starts: How many starts to use.
        tol: Relative duality gap to stop at.
        max_iter: Most transport problems that one start may solve.
        backend: Of the transport problems.

    Returns:
        As `hotnas_torch.ot._reference.fgw.fgw`; the objective with its derivatives.
    """
    with torch.no_grad():
        read_x, read_y = read_edges(x, a, terms.pairs), read_edges(y, b, terms.pairs)
        forbidden = _forbidden(cost, a, b)
        status = torch.full_like(a[:, 0], MAX_ITER, dtype=torch.int32)
        if forbidden.any():
            barred = torch.where(forbidden, torch.inf, torch.zeros_like(cost))
            cut_off = transport(barred, a, b, backend=backend)[5] == INFEASIBLE
            status[cut_off] = INFEASIBLE
        numbers = torch.where(cost == torch.inf, 0, cost)  # absent nodes may forbid pairs, too
        found = Solution.failed(numbers, a, b, status)
        for items in batches((status == MAX_ITER).nonzero().squeeze(1), cost, terms):
            given = [value[items] for value in (numbers, read_x, read_y, a, b, alpha)]
            problem = edge_problem(*given, terms=terms, backend=backend, forbidden=forbidden[items])
            start = init[items] if init.numel() else init
            found.fill(items, _best(problem, start, num_starts, tol, max_iter))
    if not is_tracked(cost, x, y, a, b, alpha):
        return found
    tensors = cost, x, y, a, b, alpha, found.plan, found.f, found.g
    value = at_coupling(found.objective, tensors, partial(_slopes, terms=terms), _ONCE)
    return replace(found, objective=value)


def batches(items: Tensor, cost: Tensor, terms: EdgeTerms) -> tuple[Tensor, ...]:
    """Return the items to solve at one time: as many as their tables have room for."""
    _, n, m = cost.shape
    size = max(1, _TABLE_ELEMENTS // (n * m) ** 2) if terms.loss == "l1" else max(1, len(items))
    return torch.split(items, size)


def _forbidden(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (cost == torch.inf) & (a > 0)[:, :, None] & (b > 0)[:, None, :]


def _best(
    problem: "EdgeProblem", init: Tensor, num_starts: int, tol: float, max_iter: int
) -> Solution:
    best = Solution.unsolved(problem)
    for number in range(num_starts):
        start, transports = problem.start(number, init)
        best.iterations.add_(transports)
        # The product of the masses is no start where it would use what is forbidden.
        allowed = ~(problem.forbidden & (start > 0)).any(2).any(1)
        items = allowed.nonzero().squeeze(1)
        known = best.objective[items]
        # Loss and pairs are the problem's own.
        found = descend(problem.select(items), start[items], known, -1, -1, tol, max_iter)
        best.improve(items, found)
    untried = (best.status == MAX_ITER) & best.objective.isnan()  # none of the starts was allowed
    best.status[untried] = INFEASIBLE
    return best


def pair_mask(nodes: int, pairs: int, like: Tensor) -> Tensor:
    """Which pairs (i, k) of nodes are read, (n, n), as numbers."""
    every = torch.ones(nodes, nodes, dtype=like.dtype, device=like.device)
    if pairs == 1:
        return every - torch.eye(nodes, dtype=like.dtype, device=like.device)
    return every.triu(1) if pairs == 2 else every


def read_edges(edges: Tensor, masses: Tensor, pairs: int) -> Tensor:
    """Put 0 where no pair of nodes that are there reads anything."""
    there = masses != 0
    read = there[:, :, None] & there[:, None, :] & (pair_mask(edges.shape[1], pairs, edges) > 0)
    return torch.where(read[..., None], edges, 0)


def within(edges: Tensor, masses: Tensor) -> Tensor:
    """Return edges of which those of absent nodes are not so large that squares overflow."""
    there = masses != 0
    both = (there[:, :, None] & there[:, None, :])[..., None]
    most = 1e-3 * torch.finfo(edges.dtype).max ** 0.5
    return torch.where(both, edges, edges.clamp(-most, most))


# --- pair costs -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class EdgeProblem(Problem):
    """A problem whose pair costs are not those of two structures."""

    backend: Backend

    def select(self, items: Tensor) -> Self:
        """Return some of the items."""
        rows = {
            field.name: getattr(self, field.name)[items]
            for field in fields(self)
            if field.name != "backend"
        }
        return replace(self, **rows)

    def vertex(self, cost: Tensor) -> tuple[Tensor, ...]:
        """Solve the transport problem of these masses for another cost."""
        barred = torch.where(self.forbidden, torch.inf, cost)
        return transport(barred, self.a, self.b, backend=self.backend)

    def pair_cost(
        self,
        plan: Tensor,
        loss: int = -1,
        pairs: int = -1,
        *,
        dense: bool = False,
        vertex: bool = False,
    ) -> Tensor:
        """Compute B(plan), (B, n, m), which is linear and self-adjoint, of the own loss."""
        raise NotImplementedError

    def start(self, number: int, init: Tensor) -> tuple[Tensor, int]:
        """Return the coupling of one start and the number of transport problems it took."""
        if init.numel():
            if number == 0:
                return init, 0
            number -= 1
        product = self.a[:, :, None] * self.b[:, None, :]
        if number == 1:
            return product, 0
        slope = self.cost
        if number == 0:
            linear, pair = self.linear[:, None, None], self.pair[:, None, None]
            slope = linear * slope + pair * self.pair_cost(product, -1, -1)
        return self.vertex(slope)[0], 1


@dataclass(frozen=True)
class _ByProducts(EdgeProblem):
    """B(V) as a sum of matrix products, V between left_t and right_t, for both directions."""

    left: Tensor  # (B, T, n, n)
    right: Tensor  # (B, T, m, m)

    def pair_cost(
        self,
        plan: Tensor,
        loss: int = -1,
        pairs: int = -1,
        *,
        dense: bool = False,
        vertex: bool = False,
    ) -> Tensor:
        """Compute B(plan), (B, n, m), which is linear and self-adjoint."""
        del loss, pairs, dense, vertex
        return _between(plan, self.left, self.right)


@dataclass(frozen=True)
class _ByTable(EdgeProblem):
    """B(V) as a product with the costs of all pairs of pairs of nodes."""

    table: Tensor  # (B, n m, n m), symmetric

    def pair_cost(
        self,
        plan: Tensor,
        loss: int = -1,
        pairs: int = -1,
        *,
        dense: bool = False,
        vertex: bool = False,
    ) -> Tensor:
        """Compute B(plan), (B, n, m)."""
        del loss, pairs, dense, vertex
        return _tabulated(plan, self.table)


def edge_problem(
    cost: Tensor,
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    *,
    terms: EdgeTerms,
    backend: Backend,
    forbidden: Tensor | None = None,
) -> EdgeProblem:
    """Prepare the pair costs of edges that were read, for any number of couplings."""
    everywhere = torch.ones_like(cost, dtype=torch.bool)
    barred = ~everywhere if forbidden is None else forbidden
    known = (cost, x, y, a, b, 1 - alpha, alpha, barred, everywhere, backend)
    if terms.loss == "l1":
        return _ByTable(*known, _table(x, y, terms))
    return _ByProducts(*known, *_products(x, y, a, b, terms))


def pair_bend(plan: Tensor, x: Tensor, y: Tensor, terms: EdgeTerms) -> Tensor:
    """Compute B(plan), (B, n, m), differentiable in the edges."""
    if terms.loss == "l1":
        return _tabulated(plan, _table(x, y, terms))
    rows, columns = plan.detach().sum(2), plan.detach().sum(1)
    return _between(plan, *_products(x, y, rows, columns, terms))


def _between(plan: Tensor, left: Tensor, right: Tensor) -> Tensor:
    middle = plan[:, None]
    return (left @ middle @ right.mT + left.mT @ middle @ right).sum(1)


def _tabulated(plan: Tensor, table: Tensor) -> Tensor:
    # Not as a product of matrices, whose bits are other ones in another batch.
    return (table * plan.flatten(1)[:, None]).sum(2).reshape(plan.shape)


def _products(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, terms: EdgeTerms
) -> tuple[Tensor, Tensor]:
    """Decompose the loss of edges between masses a, b: L(x, y) = f(x) + g(y) - sum of h(x) k(y)."""
    mask_x, mask_y = (pair_mask(edges.shape[1], terms.pairs, edges) for edges in (x, y))
    if terms.loss == "l2":
        # Shifted alike, edges differ by the same: squares shall not be far larger than that.
        middle = 0.5 * (_middle(x, a, mask_x) + _middle(y, b, mask_y))
        x, y = x - middle, y - middle
        of_x, of_y, h, k = x * x, y * y, 2 * x, y
    else:
        # 0 log 0 = 0. What is not read is 0 on both sides.
        some_x, some_y = torch.where(x > 0, x, 1), torch.where(y > 0, y, 1)
        of_x, of_y, h, k = x * some_x.log() - x, y, x, some_y.log()
    left = torch.cat(
        [of_x.sum(-1)[:, None], torch.ones_like(x[:, None, :, :, 0]), -h.movedim(-1, 1)], 1
    )
    right = torch.cat(
        [torch.ones_like(y[:, None, :, :, 0]), of_y.sum(-1)[:, None], k.movedim(-1, 1)], 1
    )
    return left * mask_x, right * mask_y


def _middle(edges: Tensor, masses: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of what is read between nodes that are there, (B, 1, 1, d)."""
    there = (masses > 0).to(edges.dtype)
    read = (there[:, :, None] * there[:, None, :] * mask)[..., None]
    total = torch.where(read > 0, edges.detach(), 0).sum((1, 2), keepdim=True)
    return total / read.sum((1, 2), keepdim=True).clamp(min=1)


def _table(x: Tensor, y: Tensor, terms: EdgeTerms) -> Tensor:
    """Tabulate the absolute losses, both directions of all pairs."""
    apart = x.new_zeros(len(x), x.shape[1], y.shape[1], x.shape[1], y.shape[1])
    for of_x, of_y in zip(x.unbind(-1), y.unbind(-1), strict=True):
        apart = apart + (of_x[:, :, None, :, None] - of_y[:, None, :, None, :]).abs()
    mask_x, mask_y = (pair_mask(edges.shape[1], terms.pairs, edges) for edges in (x, y))
    table = (apart * mask_x[:, None, :, None] * mask_y[:, None, :]).flatten(3).flatten(1, 2)
    return table + table.mT


# --- the gradient ---------------------------------------------------------------------------------


_ONCE = (
    "the objective of edge_fgw is differentiable once; pass create_graph=False, or use fgw, which"
    " is differentiable twice in costs and structures"
)


Slopes = Callable[[Tensor, Sequence[Tensor], Sequence[bool]], Sequence[Tensor | None]]


class _AtCoupling(torch.autograd.Function):
    @staticmethod
    def forward(objective: Tensor, *inputs: Any) -> Tensor:
        del inputs
        return objective.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        _, ctx.slopes, ctx.once, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        del tangents
        raise RuntimeError(f"{ctx.once} (backward, without forward mode)")

    @staticmethod
    @full_precision
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        given, needed = ctx.saved_tensors, ctx.needs_input_grad[3:9]
        slopes = ctx.slopes(grad, given, needed)
        slopes = [slope if asked else None for slope, asked in zip(slopes, needed, strict=True)]
        if torch.is_grad_enabled():  # a graph of the gradient is wanted
            slopes = [s if s is None else held(s, ctx.once, grad, *given[:6]) for s in slopes]
        return (None, None, None, *slopes, *[None] * (len(given) - 6))


def at_coupling(objective: Tensor, tensors: Sequence[Tensor], slopes: Slopes, once: str) -> Tensor:
    """Return the objective at a stationary coupling with its derivatives, by the envelope theorem.

    Args:
        objective: Its value, shape (B,).
        tensors: Costs, edges of both graphs, masses of both and alpha, which it is differentiable
            in, and what was found, which is constant.
        slopes: The derivatives in the first six, from that of the loss in the objective, all
            tensors, and which are needed.
        once: What the error says where a second derivative is asked for.
    """
    apply: Any = _AtCoupling.apply
    value: Tensor = apply(objective, slopes, once, *tensors)
    return value


def _slopes(
    grad: Tensor, given: Sequence[Tensor], needed: Sequence[bool], *, terms: EdgeTerms
) -> list[Tensor | None]:
    cost, x, y, a, b, alpha, plan, f, g = given
    barred = cost == torch.inf
    cost = torch.where(barred, 0, cost)
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in (cost, x, y, alpha)]
        costs, edges_x, edges_y, weight = leaves
        read = read_edges(edges_x, a, terms.pairs), read_edges(edges_y, b, terms.pairs)
        value = _objective(costs, *read, weight, plan, terms)
        of_cost, of_x, of_y, of_alpha = torch.autograd.grad((value * grad).sum(), leaves)
    if (needed[3] or needed[4]) and not bool((a > 0).all() and (b > 0).all()):
        # What it would cost absent nodes to enter.
        weight = alpha[:, None, None]
        bend = pair_bend(plan, within(x, a), within(y, b), terms)
        slope = torch.where(barred, torch.inf, (1 - weight) * cost + weight * bend)
        f, g = entry_duals(slope, a, b, f, g)
    of_a, of_b = (grad[:, None] * tangent(dual, masses) for dual, masses in ((f, a), (g, b)))
    return [of_cost, of_x, of_y, of_a, of_b, of_alpha]


def _objective(
    cost: Tensor, x: Tensor, y: Tensor, alpha: Tensor, plan: Tensor, terms: EdgeTerms
) -> Tensor:
    """Compute F(plan), (B,)."""
    quadratic = 0.5 * (pair_bend(plan, x, y, terms) * plan).sum((1, 2))
    return (1 - alpha) * (cost * plan).sum((1, 2)) + alpha * quadratic
