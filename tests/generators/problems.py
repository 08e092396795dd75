"""Random problems, and problems whose answer is known by construction."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

F64 = torch.float64


@dataclass(frozen=True)
class Transport:
    """A batch of transport problems with their optimal values."""

    cost: Tensor
    a: Tensor
    b: Tensor
    objective: Tensor


@dataclass(frozen=True)
class Graphs:
    """A batch of fused Gromov-Wasserstein problems."""

    cost: Tensor
    struct_x: Tensor
    struct_y: Tensor
    a: Tensor
    b: Tensor
    alpha: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return self.cost, self.struct_x, self.struct_y, self.a, self.b, self.alpha

    def to(self, dtype: torch.dtype) -> "Graphs":
        return Graphs(*(tensor.to(dtype) for tensor in self.tensors()))

    def items(self, index: slice) -> "Graphs":
        return Graphs(*(tensor[index] for tensor in self.tensors()))


def uniform(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=rng, dtype=F64)


def masses(rng: torch.Generator, batch: int, n: int, *, absent: float = 0.0) -> Tensor:
    """Random masses of sum 1; each node but the first is absent with the given probability."""
    weights = uniform(rng, batch, n) + 0.05
    weights[:, 1:] *= uniform(rng, batch, n - 1) >= absent
    return weights / weights.sum(1, keepdim=True)


def graphs(
    rng: torch.Generator,
    batch: int,
    n: int,
    m: int,
    *,
    symmetric: bool = False,
    even: bool = False,
    absent: float = 0.0,
    alpha: float = 0.5,
) -> Graphs:
    struct_x, struct_y = uniform(rng, batch, n, n), uniform(rng, batch, m, m)
    if symmetric:
        struct_x = (struct_x + struct_x.mT) / 2
        struct_y = (struct_y + struct_y.mT) / 2
    return Graphs(
        uniform(rng, batch, n, m),
        struct_x,
        struct_y,
        torch.full((batch, n), 1 / n, dtype=F64) if even else masses(rng, batch, n, absent=absent),
        torch.full((batch, m), 1 / m, dtype=F64) if even else masses(rng, batch, m, absent=absent),
        torch.full((batch,), alpha, dtype=F64),
    )


def none_like(tensor: Tensor) -> Tensor:
    """What ops take for an absent `init` or `start_costs`."""
    return tensor.new_empty(0)


@st.composite
def with_known_plan(draw: st.DrawFn) -> Transport:
    """Complementary slackness: cost = f + g on a chosen plan, at least that elsewhere.

    The plan is then optimal, its value <f, a> + <g, b>. Slacks of 0 make ties, empty rows and
    columns of the plan make nodes without mass.
    """
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch = draw(st.integers(1, 4))
    n, m = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    density = draw(st.sampled_from([0.15, 0.4, 1.0]))
    levels = draw(st.sampled_from([2, 3, 1000]))
    plan = uniform(rng, batch, n, m) * (uniform(rng, batch, n, m) < density)
    if draw(st.booleans()):
        plan = (3 * plan).ceil()
    plan[:, 0, 0] += 1
    plan /= plan.sum((1, 2), keepdim=True)
    f, g = uniform(rng, batch, n) - 0.5, uniform(rng, batch, m)
    slack = torch.randint(0, levels, (batch, n, m), generator=rng).to(F64) / levels
    cost = f[:, :, None] + g[:, None, :] + slack * (plan == 0)
    a, b = plan.sum(2), plan.sum(1)
    return Transport(cost, a, b, (f * a).sum(1) + (g * b).sum(1))


@st.composite
def on_a_line(draw: st.DrawFn) -> Transport:
    """Points on a line under |x - y|: the value is the area between the distribution functions."""
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n, m = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    x, y = uniform(rng, 3, n), uniform(rng, 3, m)
    a, b = masses(rng, 3, n), masses(rng, 3, m)
    places, order = torch.cat([x, y], 1).sort(1)
    steps = torch.cat([a, -b], 1).gather(1, order).cumsum(1)[:, :-1].abs()
    value = (steps * places.diff(dim=1)).sum(1)
    return Transport((x[:, :, None] - y[:, None, :]).abs(), a, b, value)


@st.composite
def from_one_point(draw: st.DrawFn) -> Transport:
    """All mass of one side in one node: there is one coupling only."""
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    node = draw(st.integers(0, n - 1))
    cost, b = uniform(rng, 2, n, m), masses(rng, 2, m, absent=0.3)
    a = torch.zeros(2, n, dtype=F64)
    a[:, node] = 1
    return Transport(cost, a, b, (cost[:, node] * b).sum(1))


def transports() -> st.SearchStrategy[Transport]:
    return st.one_of(with_known_plan(), on_a_line(), from_one_point())


@dataclass(frozen=True)
class HiddenCopy:
    """A graph and a renumbered copy: the minimum is 0, at the hidden permutation."""

    problem: Graphs
    permutation: Tensor


@st.composite
def hidden_copies(draw: st.DrawFn) -> HiddenCopy:
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n = draw(st.integers(1, 8))
    permutation = torch.randperm(n, generator=rng)
    structure, features = uniform(rng, 1, n, n), uniform(rng, 1, n, 2)
    a = masses(rng, 1, n)
    cost = torch.cdist(features, features[:, permutation], p=1)
    problem = Graphs(
        cost,
        structure,
        structure[:, permutation][:, :, permutation],
        a,
        a[:, permutation],
        torch.full((1,), draw(st.sampled_from([0.1, 0.5, 0.9])), dtype=F64),
    )
    return HiddenCopy(problem, permutation)
