"""Shortest augmenting paths of a batch of small transport problems, each at its own pace.

All problems take the same few steps in one pass, whatever each of them is at: searching, or sending
mass along a path that was found. The host waits for the device once in a pass.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from hotnas_torch.ot._reference.chunks import Rows
from hotnas_torch.ot._reference.scale import largest_of

__all__ = ["shortest_paths"]

_NODES_A_PASS = 4  # that the search of a tree goes on by between two looks at it
_EDGES_A_PASS = 6  # pairs of edges, there and back, that the search of a forest goes on by
_WORTH_LEAVING = 1 << 13  # numbers, below which items that are done are no burden


def shortest_paths(
    arcs: Tensor, supply: Tensor, demand: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Send what rows supply to what columns demand, where it is known that this can be done.

    Args:
        arcs: Costs, shape (B, n, m), none NaN or -infinity; +infinity where there is no edge.
        supply: What the rows have, shape (B, n).
        demand: What the columns take, shape (B, m).

    Returns:
        `plan` (B, n, m), a vertex; duals `f` (B, n) and `g` (B, m), 0 at nodes without an edge;
        the number of paths, (B,) int32; what could not be sent but for rounding, (B,).
    """
    batch, n, m = arcs.shape
    paths = torch.zeros(batch, dtype=torch.int32, device=arcs.device)
    if batch == 0 or n == 0 or m == 0:
        empty = torch.zeros_like(supply), torch.zeros_like(demand)
        return torch.zeros_like(arcs), *empty, paths, supply.sum(1)
    # Processors do little work fast, other devices few calls.
    search: type[_Search] = _Tree if arcs.device.type == "cpu" else _Forest
    state = search.begin(arcs, supply, demand)
    ended, items = state, torch.arange(batch, device=arcs.device)
    for _ in range(4 * (n + m) * (n + m)):
        going = state.advance()
        left = int(going.sum())  # the one wait of a pass
        # Who is done stands still, and goes where a whole pass is made much cheaper by it.
        if left == 0 or (2 * left <= len(items) and state.arcs.numel() > _WORTH_LEAVING):
            ended.fill(items, state)
            if left == 0:
                break
            kept = going.nonzero().squeeze(1)
            items, state = items[kept], state.select(kept)
    else:
        ended.fill(items, state)
    supply, negligible = ended.supply, ended.negligible
    rest = torch.where(supply > negligible, supply, 0).sum(1)
    plan = ended.plan[:, :-1].reshape(batch, n, m)
    return plan, ended.f, ended.g, ended.paths, rest


@dataclass(frozen=True)
class _Search(Rows):
    """Problems on their way: what has been sent, and duals that prove that it was best."""

    arcs: Tensor  # (B, n, m)
    plan: Tensor  # (B, n m + 1): the last place is for what is no edge, and infinite
    supply: Tensor  # (B, n)
    demand: Tensor  # (B, m)
    f: Tensor  # (B, n)
    g: Tensor  # (B, m)
    paths: Tensor  # (B,)
    stuck: Tensor  # (B,)
    negligible: Tensor  # (B, 1): what masses that are equal in exact arithmetic differ by

    @classmethod
    def begin(cls, arcs: Tensor, supply: Tensor, demand: Tensor) -> Self:
        """Let each row in turn send what its cheapest column takes: one edge a row, all tight."""
        g = _finite_or_zero(arcs.amin(1))
        least, cheapest = (arcs - g[:, None, :]).min(2)
        column = torch.arange(arcs.shape[2], device=arcs.device)
        wanted = torch.where(cheapest[:, :, None] == column, supply[:, :, None], 0)
        until = wanted.cumsum(1)
        plan = torch.minimum(wanted, (demand[:, None, :] - (until - wanted)).clamp_min(0))
        largest = torch.maximum(largest_of(supply), largest_of(demand))
        asked = until[:, -1]
        paths = torch.zeros(len(arcs), dtype=torch.int32, device=arcs.device)
        return cls(
            arcs,
            torch.cat([plan.flatten(1), plan.new_full((len(plan), 1), torch.inf)], 1),
            supply - plan.sum(2),
            torch.where(asked < demand, demand - asked, 0),
            _finite_or_zero(least),
            g,
            paths,
            torch.zeros_like(paths, dtype=torch.bool),
            2 * torch.finfo(arcs.dtype).eps * largest[:, None],
            *cls._nowhere(supply, demand),
        )

    @staticmethod
    def _nowhere(supply: Tensor, demand: Tensor) -> tuple[Tensor, ...]:
        """Return the fields of a search that has not begun."""
        raise NotImplementedError

    def advance(self) -> Tensor:
        """Search a little further, and send mass where a path is found.

        Returns:
            Which items have mass left that may be sent, (B,).
        """
        raise NotImplementedError

    @property
    def supplies(self) -> Tensor:
        """Rows that have mass left, (B, n)."""
        return self.supply > self.negligible

    @property
    def wanting(self) -> Tensor:
        """Columns that ask for mass, (B, m)."""
        return self.demand > self.negligible

    @property
    def unfinished(self) -> Tensor:
        """Items that have mass left that may be sent, (B,)."""
        return self.supplies.any(1) & self.wanting.any(1) & ~self.stuck

    def residual(self) -> tuple[Tensor, Tensor]:
        """Return which edges the plan uses and the reduced costs of all, (B, n, m)."""
        support = self.plan[:, :-1].reshape(self.arcs.shape) > 0
        # Support edges are tight and no edge is negative; rounding must not say otherwise.
        reduced = (self.arcs - self.f[:, :, None] - self.g[:, None, :]).clamp_min_(0)
        return support, reduced.masked_fill_(support, 0)

    def way_back(self, is_sink: Tensor, row: Tensor, before: Tensor) -> tuple[Tensor, ...]:
        """Follow paths, no two of which meet, back from their sinks.

        Args:
            is_sink: Where they end, (B, m).
            row: From which row a path enters each column, (B, m).
            before: And from which column it entered that, m where it began there.

        Returns:
            Which columns lie on a path; the places in the plan of the edges that lead there and of
            those that take mass back, (B, m), the last one for none.
        """
        n, m = self.arcs.shape[1:]
        jump = torch.nn.functional.pad(before, (0, 1), value=m)
        on = torch.nn.functional.pad(is_sink, (0, 1)).to(torch.uint8)
        for _ in range(min(n, m).bit_length()):  # each time twice as far
            on = on.scatter_reduce(1, jump, on, "amax")
            jump = jump.gather(1, jump)
        on = on[:, :m] > 0
        gained = torch.where(on, row * m + torch.arange(m, device=row.device), n * m)
        return on, gained, torch.where(on & (before < m), row * m + before, n * m)

    def move(self, gained: Tensor, taken: Tensor, amount: Tensor) -> None:
        """Move mass along the edges of paths; 0 where there are none."""
        less = self.plan.gather(1, taken) - amount
        self.plan.scatter_(1, taken, torch.where(less <= self.negligible, 0, less))
        self.plan.scatter_add_(1, gained, amount)


@dataclass(frozen=True)
class _Tree(_Search):
    """Dijkstra: the tree of the first row that has supply, as far as it is known."""

    row_distance: Tensor  # of the rows from the source, (B, n)
    row_parent: Tensor  # the column from which the path enters the row
    waiting: Tensor  # rows of the tree whose edges have not been looked at
    distance: Tensor  # of the columns, (B, m)
    column_parent: Tensor
    linked: Tensor  # reached over a support edge
    settled: Tensor

    @staticmethod
    def _nowhere(supply: Tensor, demand: Tensor) -> tuple[Tensor, ...]:
        return (
            torch.empty_like(supply),
            torch.zeros_like(supply, dtype=torch.int64),
            torch.empty_like(supply, dtype=torch.bool),
            torch.empty_like(demand),
            torch.zeros_like(demand, dtype=torch.int64),
            torch.empty_like(demand, dtype=torch.bool),
            torch.empty_like(demand, dtype=torch.bool),
        )

    @classmethod
    def begin(cls, arcs: Tensor, supply: Tensor, demand: Tensor) -> Self:
        state = super().begin(arcs, supply, demand)
        state._restart(~state.stuck[:, None])
        return state

    def _restart(self, where: Tensor) -> None:
        """Begin a tree at the first row that has supply, in the items (B, 1) that ask for it."""
        place = torch.arange(self.supply.shape[1], device=self.supply.device)
        supplies = self.supplies
        first = (supplies.to(torch.uint8).argmax(1, keepdim=True) == place) & supplies
        self.row_distance.masked_fill_(where, torch.inf).masked_fill_(where & first, 0)
        self.waiting.copy_(torch.where(where, first, self.waiting))
        self.distance.masked_fill_(where, torch.inf)
        self.linked.logical_and_(~where)
        self.settled.logical_and_(~where)

    def advance(self) -> Tensor:
        n, m = self.arcs.shape[1:]
        support, reduced = self.residual()
        wanting = self.wanting
        columns = torch.arange(m, device=reduced.device)
        found, arrived = self.stuck[:, None], torch.zeros_like(self.stuck)[:, None]
        sink = torch.zeros_like(found, dtype=torch.int64)
        for _ in range(_NODES_A_PASS):
            # The edges of one row.
            row = self.waiting.to(torch.uint8).argmax(1, keepdim=True)
            looks = self.waiting.gather(1, row) & ~found
            self.waiting.scatter_(1, row, False)
            edges = row[:, :, None].expand(-1, 1, m)
            through = reduced.gather(1, edges).squeeze(1) + self.row_distance.gather(1, row)
            link = support.gather(1, edges).squeeze(1)
            closer = ((through < self.distance) | link) & looks & ~self.settled
            self.distance.copy_(torch.where(closer, through, self.distance))
            self.column_parent.copy_(torch.where(closer, row, self.column_parent))
            self.linked.logical_or_(link & closer)
            # The nearest column, once no row waits. Among the nearest, support edges first: a whole
            # tree of the support is explored before the path leaves it, so a path never closes a
            # cycle in the support. Then the lowest index.
            ready = ~(self.waiting.any(1, keepdim=True) | found)
            open_distance = self.distance.masked_fill(self.settled, torch.inf)
            nearest = open_distance.amin(1, keepdim=True)
            among = open_distance == nearest
            column = (among.to(torch.uint8) + (among & self.linked)).argmax(1, keepdim=True)
            sink = torch.where(ready, column, sink)
            arrives = wanting.gather(1, column) & (nearest < torch.inf)
            ends = arrives | (nearest == torch.inf)
            found, arrived = found | (ready & ends), arrived | (ready & arrives)
            enters = ready & ~ends
            self.settled.logical_or_((columns == column) & enters)
            over = support.gather(2, column[:, :, None].expand(-1, n, 1)).squeeze(2)
            entered = over & enters & (self.row_distance == torch.inf)
            self.waiting.logical_or_(entered)
            self.row_distance.copy_(torch.where(entered, nearest, self.row_distance))
            self.row_parent.copy_(torch.where(entered, column, self.row_parent))
        self.stuck.logical_or_((found & ~arrived).squeeze(1))
        self._send(sink, self.distance.gather(1, sink), arrived)
        self._restart(found)
        return self.unfinished

    def _send(self, sink: Tensor, length: Tensor, sends: Tensor) -> None:
        """Send what the path to a sink takes, in the items (B, 1) that have one."""
        m = self.arcs.shape[2]
        row, source = self.column_parent, self.supplies.to(torch.uint8).argmax(1, keepdim=True)
        before = torch.where(row == source, m, self.row_parent.gather(1, row))
        is_sink = (torch.arange(m, device=sink.device) == sink) & sends
        on, gained, taken = self.way_back(is_sink, row, before)
        ends = torch.minimum(self.supply.gather(1, source), self.demand.gather(1, sink))
        held = self.plan.gather(1, taken).amin(1, keepdim=True)
        amount = torch.where(sends, torch.minimum(held, ends), 0)
        self.move(gained, taken, torch.where(on, amount, 0))
        self.supply.scatter_add_(1, source, -amount)
        self.demand.scatter_add_(1, sink, -amount)
        limit = torch.where(sends, length, 0)
        self.f.add_(limit - torch.minimum(self.row_distance, limit))
        self.g.sub_(limit - torch.minimum(self.distance, limit))
        self.paths.add_(sends.squeeze(1))


@dataclass(frozen=True)
class _Forest(_Search):
    """Bellman and Ford: all rows that have supply share the graph out among their trees.

    A path is shorter if it costs less, then if it has fewer edges that the plan does not use, then
    if its root comes first, then if it has fewer edges at all. The second makes it pass every tree
    of the plan once, the third leaves each tree to one root, so that no cycle ever closes; the last
    ends the walk back. `key` counts these three in one number.
    """

    begins: Tensor  # whether the roots have changed, (B, 1)
    places: Tensor  # keys of the rows as roots, (1, n) for every item
    distance: Tensor  # of the rows from the nearest root, (B, n)
    key: Tensor  # (B, n)
    known: Tensor  # whether the distances are those of the shortest paths, (B,)

    @staticmethod
    def _nowhere(supply: Tensor, demand: Tensor) -> tuple[Tensor, ...]:
        n, m = supply.shape[1], demand.shape[1]
        few = (min(n, m) + 2) * (n + 1) * (n + m + 2) < 2 / torch.finfo(supply.dtype).eps
        counts = supply.dtype if few else torch.float64
        place = torch.arange(n, device=supply.device, dtype=counts)
        return (
            torch.ones_like(supply[:, :1], dtype=torch.bool),
            (place * (n + m + 2)).expand_as(supply).contiguous(),
            torch.empty_like(supply),
            torch.empty_like(supply, dtype=counts),
            torch.zeros_like(supply[:, :1], dtype=torch.bool),
        )

    def advance(self) -> Tensor:
        n, m = self.arcs.shape[1:]
        hops = n + m + 2
        support, reduced = self.residual()
        supplies = self.supplies
        own = torch.where(supplies, torch.zeros_like(self.supply), torch.inf)
        own_key = torch.where(supplies, self.places, torch.inf)
        distance = last = torch.where(self.begins, own, self.distance)
        for _ in range(_EDGES_A_PASS):
            last = distance
            reach = (distance[:, :, None] + reduced).amin(1)
            back = torch.where(support, reach[:, None, :], torch.inf)
            distance = torch.minimum(own, back.amin(2))
        known = (distance == last).all(1, keepdim=True)
        # Of the shortest paths, the first by key; only where all distances are known, as rounding
        # can make an edge tight of which the shorter path has the larger key.
        tight = distance[:, :, None] + reduced == reach[:, None, :]
        tight_back = support & (distance[:, :, None] == reach[:, None, :])
        edge = torch.where(support, 1.0, 1.0 + (n + 1) * hops)
        edge = torch.where(tight, edge, torch.inf).to(own_key.dtype)
        key = last_key = torch.where(self.known, self.key, own_key)
        for _ in range(_EDGES_A_PASS):
            last_key = key
            by_row = key[:, :, None] + edge
            reach_key = by_row.amin(1)
            by_column = torch.where(tight_back, reach_key[:, None, :], torch.inf)
            key = torch.minimum(own_key, by_column.amin(2))
        complete = known & (key == last_key).all(1, keepdim=True)
        # A root's sink is the nearest column that wants what its tree brings.
        column = torch.arange(m, device=key.device).expand(reach.shape)
        reached = reach_key < torch.inf
        root = torch.where(reached, reach_key, 0).to(torch.int64) // hops % (n + 1)
        apart = torch.where(self.wanting & reached & complete, reach, torch.inf)
        least = apart.new_full((len(apart), n), torch.inf)
        least.scatter_reduce_(1, root, apart, "amin")
        first = torch.where((apart < torch.inf) & (apart == least.gather(1, root)), column, m)
        sinks = first.new_full((len(apart), n), m).scatter_reduce_(1, root, first, "amin")
        is_sink = (sinks.gather(1, root) == column) & (first < m)
        before = torch.where(key == own_key, m, by_column.argmin(2))
        row = by_row.argmin(1)
        on, gained, taken = self.way_back(is_sink, row, before.gather(1, row))
        held = self.plan.gather(1, taken)
        most = torch.where(is_sink, torch.minimum(held, self.demand), held)
        most = torch.where(on, most, torch.inf)
        amount = torch.where(sinks < m, self.supply.scatter_reduce(1, root, most, "amin"), 0)
        moved = torch.where(on, amount.gather(1, root), 0)
        self.move(gained, taken, moved)
        self.supply.sub_(amount)
        self.demand.sub_(torch.where(is_sink, moved, 0))
        limit = torch.where(is_sink, reach, 0).amax(1, keepdim=True)
        self.f.add_(limit - torch.minimum(distance, limit))
        self.g.sub_(limit - torch.minimum(reach, limit))
        sent = (sinks < m).sum(1)
        self.paths.add_(sent)
        self.stuck.logical_or_(complete.squeeze(1) & (sent == 0))
        self.begins.copy_(complete)
        self.distance.copy_(distance)
        self.key.copy_(key)
        self.known.copy_(known & ~complete)
        return self.unfinished


def _finite_or_zero(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, 0)
