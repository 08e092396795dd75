"""Drawing from spaces of layers, within a budget, without listing their architectures."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hotnas_torch.arguments import integer, kind, number, random_generator

__all__ = ["LayeredBudget"]

_MOST_ROUNDS = 100
_LEAST_ROUND = 64


class LayeredBudget:
    r"""Choices of layers whose cost lies in a range, drawn exactly: nothing is thrown away by luck.

    An architecture is one choice per layer, its cost the sum of what its choices cost, which may
    depend on a state that the choices before have led to (the shape of a feature map). The
    distribution is

    .. math:: p(a) \propto \prod_l w_l(a_l) \quad \text{for } least \le cost(a) \le budget

    Layer by layer, from the last, the weights of all that fits are summed, by state and by what is
    left to spend; a draw then walks through these sums. Costs are counted in units that are as
    fine as `most_cells` allows. Where a unit is 1 (or divides all costs) no draw is lost; elsewhere
    what is rounded into the range is compared with it exactly, and drawn again if it is outside. So
    the distribution is the one above in either case, whatever the unit.

    Args:
        costs: A tensor (S_l, O_l) of integers per layer: what each of O_l choices costs in each of
            S_l states, >= 0. The first layer has one state.
        following: A tensor (S_l, O_l) of integers per layer: the state of the next layer that each
            leads to; None where all layers have one state.
        ends: (S_L,) integers, what is added after the last layer by state; None adds nothing.
        budget: Largest cost allowed.
        least: Smallest cost allowed; the learned hierarchy draws in [0.99, 1] times its budget.
        log_weights: A tensor (O_l,) per layer, log w_l, -inf for what is never chosen; None gives
            all choices the same weight, which makes the distribution uniform.
        most_cells: Units between 0 and the budget, which bounds memory, >= the number of layers.

    Attributes:
        unit: What a cell of the tables stands for.
        exact: Whether all costs are whole units, so that no draw is lost.

    Raises:
        TypeError: A tensor that holds no integers, or is none.
        ValueError: Tables that do not fit together, or nothing fits the budget.

    Complexity: O(sum_l S_l O_l most_cells) once, O(layers * (O + log)) per draw; memory
        O(sum_l S_l most_cells).

    Example:
        >>> costs = [torch.tensor([[1, 2, 4]])] * 3
        >>> paths = LayeredBudget(costs, budget=4, least=4)
        >>> drawn = paths.sample(5, generator=torch.Generator().manual_seed(0))
        >>> paths.cost(drawn).tolist(), paths.count()
        ([4, 4, 4, 4, 4], 3)
    """

    def __init__(
        self,
        costs: Sequence[Tensor],
        *,
        following: Sequence[Tensor] | None = None,
        ends: Tensor | None = None,
        budget: float,
        least: float = 0,
        log_weights: Sequence[Tensor] | None = None,
        most_cells: int = 2**15,
    ) -> None:
        self._costs = _tables("costs", costs)
        if not self._costs:
            raise ValueError("costs must hold a table per layer; got none")
        self._following = (
            [torch.zeros_like(table) for table in self._costs]
            if following is None
            else _tables("following", following)
        )
        sizes = [len(table) for table in self._costs]
        if ends is None:
            ends = torch.zeros(int(self._following[-1].max()) + 1, dtype=torch.int64)
        (self._ends,) = (table[:, 0] for table in _tables("ends", [ends[..., None]]))
        self._check_states([*sizes, len(self._ends)])
        self.budget = number("budget", budget, least=0.0)
        self.least = number("least", least, least=0.0)
        integer("most_cells", most_cells, least=len(self._costs))
        self._log_weights = self._checked_weights(log_weights)
        # What every choice costs at least is no choice: without it, units are finer.
        tables = [*self._costs, self._ends[None]]
        spared = [int(table.min()) if len(table) == 1 else 0 for table in tables[:-1]]
        spared.append(int(self._ends.min()))
        self._spared = sum(spared)
        *self._above, above = [table - less for table, less in zip(tables, spared, strict=True)]
        self._ends_above = above[0]
        self._least_above = self.least - self._spared
        most = sum(int(table.max()) for table in (*self._above, self._ends_above))
        if most + self._spared > torch.iinfo(torch.int64).max:
            raise ValueError("costs must sum to less than 2^63 (count them in larger units)")
        largest = math.floor(min(self.budget - self._spared, most))
        if largest < 0:
            self._refuse()
        divisor = math.gcd(
            *(c for table in (*self._above, above) for c in table.flatten().tolist())
        )
        self.unit = max(divisor, 1)
        if largest // self.unit >= most_cells:
            # A whole multiple would do no good: rounding decides either way.
            self.unit = -(-largest // (most_cells - 1))
        self.exact = self.unit <= max(divisor, 1)
        self._cells = largest // self.unit
        self._sums = self._summed()
        if not bool((self._sums[0][0] > -math.inf).any()) or self._starts().numel() == 0:
            self._refuse()
        if not self.exact:
            self._draw(1, torch.Generator().manual_seed(0))  # raises where nothing fits

    # --- the tables -------------------------------------------------------------------------------

    def _check_states(self, sizes: Sequence[int]) -> None:
        if sizes[0] != 1:
            raise ValueError(f"costs[0] must have one row, the first state; got {sizes[0]}")
        if len(self._following) != len(self._costs):
            raise ValueError(
                f"following must hold a table per layer, {len(self._costs)}; got"
                f" {len(self._following)}"
            )
        for layer, (cost, after) in enumerate(zip(self._costs, self._following, strict=True)):
            if after.shape != cost.shape:
                raise ValueError(
                    f"following[{layer}] must have the shape of costs[{layer}],"
                    f" {tuple(cost.shape)}; got {tuple(after.shape)}"
                )
            if int(after.max()) >= sizes[layer + 1]:
                raise ValueError(
                    f"following[{layer}] must hold states in 0..{sizes[layer + 1] - 1}; got"
                    f" {int(after.max())}"
                )

    def _checked_weights(self, given: Sequence[Tensor] | None) -> list[Tensor]:
        wanted = [table.shape[1] for table in self._costs]
        if given is None:
            return [torch.zeros(num, dtype=torch.float64) for num in wanted]
        if len(given) != len(wanted):
            raise ValueError(
                f"log_weights must hold a tensor per layer, {len(wanted)}; got {len(given)}"
            )
        found = []
        for layer, (weights, num) in enumerate(zip(given, wanted, strict=True)):
            kind(f"log_weights[{layer}]", weights, Tensor)
            if weights.shape != (num,):
                raise ValueError(
                    f"log_weights[{layer}] must have shape ({num},), a number per choice; got"
                    f" {tuple(weights.shape)}"
                )
            weights = weights.detach().cpu().double()
            if weights.isnan().any() or (weights == math.inf).any():
                raise ValueError(f"log_weights[{layer}] must be numbers below infinity")
            found.append(weights)
        return found

    def _summed(self) -> list[Tensor]:
        """Return per layer log sums of weights, (S, cells + 1), by what is left to be spent.

        Entry (s, c) is of all that costs c units from here on, rounded down choice by choice.
        """
        width = self._cells + 1
        sums = torch.full((len(self._ends), width), -math.inf, dtype=torch.float64)
        for state, end in enumerate((self._ends_above // self.unit).tolist()):
            if end < width:
                sums[state, end] = 0.0
        tables = [sums]
        for layer in range(len(self._costs) - 1, -1, -1):
            units = (self._above[layer] // self.unit).tolist()
            states = self._following[layer].tolist()
            rows = []
            for cost, after in zip(units, states, strict=True):
                terms = torch.full((len(cost), width), -math.inf, dtype=torch.float64)
                for choice, (spent, state) in enumerate(zip(cost, after, strict=True)):
                    if spent < width:
                        weight = self._log_weights[layer][choice]
                        terms[choice, spent:] = tables[0][state, : width - spent] + weight
                rows.append(terms.logsumexp(0))
            tables.insert(0, torch.stack(rows))
        return tables

    def _starts(self) -> Tensor:
        """Return the units that what fits may sum to, those of sums that are rounded among them."""
        lost = 0 if self.exact else len(self._costs) + 1
        first = max(0, math.ceil(self._least_above / self.unit) - lost)
        units = torch.arange(first, max(first, self._cells + 1))
        return units[self._sums[0][0, units] > -math.inf]

    def _refuse(self) -> None:
        cheapest = self._extreme("amin")
        dearest = self._extreme("amax")
        raise ValueError(
            f"budget must leave an architecture: none costs between {self.least:g} and"
            f" {self.budget:g}, they cost {cheapest} to {dearest}"
        )

    def _extreme(self, name: str) -> int:
        """Return the smallest or largest cost of all."""
        best = self._ends.clone()
        for cost, after in zip(reversed(self._costs), reversed(self._following), strict=True):
            best = getattr(cost + best[after], name)(1)
        return int(best[0])

    # --- drawing ----------------------------------------------------------------------------------

    @property
    def num_layers(self) -> int:
        """Number of layers L."""
        return len(self._costs)

    def count(self) -> int | None:
        """Return how many architectures fit, None where costs are rounded; weights do not matter.

        Up to the rounding of float64 sums, beyond 2^53.
        """
        if not self.exact:
            return None
        if any(bool(weights.any()) for weights in self._log_weights):
            plain = LayeredBudget(
                self._costs,
                following=self._following,
                ends=self._ends,
                budget=self.budget,
                least=self.least,
                most_cells=max(self._cells + 1, self.num_layers),
            )
            return plain.count()
        return round(float(self._sums[0][0, self._starts()].logsumexp(0).exp()))

    def cost(self, paths: Tensor) -> Tensor:
        """Return what paths, (num, L) integers, cost: (num,) int64."""
        state = torch.zeros(len(paths), dtype=torch.int64)
        total = torch.zeros(len(paths), dtype=torch.int64)
        for layer, choice in enumerate(paths.unbind(1)):
            total += self._costs[layer][state, choice]
            state = self._following[layer][state, choice]
        return total + self._ends[state]

    def sample(self, num: int, *, generator: torch.Generator, distinct: bool = False) -> Tensor:
        """Draw paths independently.

        Args:
            num: How many, >= 0.
            generator: Source of randomness.
            distinct: Drop what was drawn before, and draw again.

        Returns:
            (num, L) int64, the choice in each layer.

        Raises:
            TypeError, ValueError: Not a count, or no generator.
            ValueError: So few fit, or so rarely, that `num` were not found.
        """
        integer("num", num, least=0)
        random_generator(generator)
        found = torch.zeros(0, self.num_layers, dtype=torch.int64)
        for _ in range(_MOST_ROUNDS):
            if len(found) >= num:
                break
            found = torch.cat([found, self._draw(num - len(found), generator)])
            if distinct:
                found = _first_of_each(found)
        if len(found) < num:
            raise ValueError(
                f"num must be a number of{' distinct' if distinct else ''} architectures that the"
                f" range allows: {len(found)} of {num} were found (ask for fewer, widen least and"
                " budget, or raise most_cells)"
            )
        return found[:num]

    def _draw(self, num: int, generator: torch.Generator) -> Tensor:
        """Return at least one path and at most `num`; more calls give more."""
        starts = self._starts()
        if not len(starts):
            self._refuse()
        for _ in range(_MOST_ROUNDS):
            paths = self._walk(max(num, 0 if self.exact else _LEAST_ROUND), starts, generator)
            cost = self.cost(paths)
            fits = (cost >= self.least) & (cost <= self.budget)
            if bool(fits.any()):
                return paths[fits][:num]
        raise ValueError(
            f"budget must leave an architecture: none was found that costs between {self.least:g}"
            f" and {self.budget:g} (widen the range, or raise most_cells)"
        )

    def _walk(self, num: int, starts: Tensor, generator: torch.Generator) -> Tensor:
        left = starts[_drawn(self._sums[0][:, starts], num, generator)]
        state = torch.zeros(num, dtype=torch.int64)
        path = []
        for layer, (cost, after) in enumerate(zip(self._above, self._following, strict=True)):
            rest = left[:, None] - (cost // self.unit)[state]
            below = self._sums[layer + 1][after[state], rest.clamp_min(0)]
            weights = (below + self._log_weights[layer]).masked_fill(rest < 0, -math.inf)
            choice = _drawn(weights, num, generator)
            path.append(choice)
            left = rest[torch.arange(num), choice]
            state = after[state, choice]
        return torch.stack(path, 1)


def _drawn(log_weights: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Draw `num` columns with probabilities proportional to exp of the entries.

    Args:
        log_weights: (1, K) for draws from one row, or (num, K) for a draw from each.
        num: How many.
        generator: Source of randomness.
    """
    sums = (log_weights - log_weights.amax(1, keepdim=True)).exp().cumsum(1)
    total = sums[:, -1:].contiguous()
    uniform = torch.rand(
        num, generator=generator, device=generator.device, dtype=torch.float64
    ).cpu()
    wanted = (uniform * total[:, 0]).reshape(len(sums), -1)
    # Rounded up, the product may become the sum itself: the last that can be drawn takes it.
    last = torch.searchsorted(sums, total)
    return torch.searchsorted(sums, wanted, right=True).minimum(last).flatten()


def _first_of_each(paths: Tensor) -> Tensor:
    """Return distinct rows, in the order in which they first stand."""
    _, inverse = paths.unique(dim=0, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(paths), dtype=torch.int64)
    first.scatter_reduce_(0, inverse, torch.arange(len(paths)), "amin")
    return paths[first.sort().values]


def _tables(name: str, given: Sequence[Tensor]) -> list[Tensor]:
    found = []
    for place, table in enumerate(given):
        kind(f"{name}[{place}]", table, Tensor)
        if table.is_floating_point() or table.is_complex() or table.dtype == torch.bool:
            raise TypeError(f"{name}[{place}] must hold integers; got {table.dtype}")
        if table.dim() != 2 or 0 in table.shape:
            raise ValueError(
                f"{name}[{place}] must have shape (states, choices); got {tuple(table.shape)}"
            )
        if int(table.min()) < 0:
            raise ValueError(f"{name}[{place}] must hold numbers >= 0; got {int(table.min())}")
        found.append(table.detach().cpu().long())
    return found
