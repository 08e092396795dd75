"""Fused Gromov-Wasserstein problems to measure on: random ones, and those of real cells."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hotnas_torch import spaces
from hotnas_torch.arch import ArchitectureBatch, Cell, OperationTree
from hotnas_torch.distances._tables.cell_tables import pair_costs, unique_cells
from hotnas_torch.ot.terms import Loss, Pairs

__all__ = [
    "DARTS_NODES",
    "NASBENCH201_NODES",
    "Problems",
    "cell_problems",
    "dag_cells",
    "draw_pairs",
    "padded",
    "random_problems",
    "real_problems",
    "sized_cells",
]

ALPHA = 0.5
EPS = 0.8
"""Trade-offs of `hotnas_torch.IFGW` as it comes."""

UNREACHABLE = 1.0
"""Random costs are below 1: what stands for "no path" is the least number that none exceeds."""

NASBENCH201_NODES = 8
"""Nodes of a NAS-Bench-201 cell without `none`: input, six operations, output."""

DARTS_NODES = 16
"""Nodes of a DARTS cell: three inputs, eight operations, four sums, output."""


@dataclass(frozen=True, slots=True)
class Problems:
    """A batch of problems in float64, from which every solver casts what it needs.

    Attributes:
        cost: Costs between nodes, shape (B, n, m).
        struct_x: Structures of the first graphs, shape (B, n, n).
        struct_y: Structures of the second graphs, shape (B, m, m).
        a: Masses, shape (B, n); padding has none.
        b: Masses, shape (B, m); padding has none.
        loss: "l1" or "l2".
        pairs: "all", "directed" or "ordered".
        alpha: Weight of the quadratic term.
    """

    cost: Tensor
    struct_x: Tensor
    struct_y: Tensor
    a: Tensor
    b: Tensor
    loss: Loss
    pairs: Pairs
    alpha: float = ALPHA

    def __len__(self) -> int:
        return len(self.cost)

    def to(self, dtype: torch.dtype) -> "Problems":
        """Return the same problems in another precision."""
        return self._map(lambda tensor: tensor.to(dtype))

    def copies(self, times: int) -> "Problems":
        """Return the same problems several times over, as one batch."""
        return self._map(lambda tensor: tensor.repeat(times, *[1] * (tensor.dim() - 1)))

    def items(self, index: slice | Tensor) -> "Problems":
        """Return a part of the batch."""
        return self._map(lambda tensor: tensor[index].contiguous())

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Problems":
        return replace(
            self,
            cost=change(self.cost),
            struct_x=change(self.struct_x),
            struct_y=change(self.struct_y),
            a=change(self.a),
            b=change(self.b),
        )


def random_problems(
    nodes: int, count: int, *, loss: Loss, pairs: Pairs, generator: torch.Generator
) -> Problems:
    """Draw graphs without any pattern: costs uniform in [0, 1], equal masses, sizes equal.

    Args:
        nodes: Nodes of both graphs.
        count: Problems.
        loss: "l1" or "l2".
        pairs: Decides the structures. "ordered": strictly upper triangular. "directed": below the
            diagonal stands `UNREACHABLE`. "all": symmetric.
        generator: Source of the costs.
    """

    def draw() -> Tensor:
        return torch.rand(count, nodes, nodes, generator=generator, dtype=torch.float64)

    def structure() -> Tensor:
        upper = draw().triu(1)
        if pairs == "all":
            return upper + upper.mT
        if pairs == "directed":
            return upper + UNREACHABLE * torch.ones_like(upper).tril(-1)
        return upper

    mass = torch.full((count, nodes), 1 / nodes, dtype=torch.float64)
    return Problems(draw(), structure(), structure(), mass, mass, loss, pairs)


def padded(parts: Sequence[Problems]) -> Problems:
    """Return problems of several sizes as one batch: smaller ones get nodes without mass."""
    nodes = max(part.cost.shape[1] for part in parts)

    def together(name: str) -> Tensor:
        values = [getattr(part, name) for part in parts]
        widened = []
        for value in values:
            more = nodes - value.shape[-1]
            sides = (0, more) * (value.dim() - 1)
            widened.append(torch.nn.functional.pad(value, sides))
        return torch.cat(widened)

    names = "cost", "struct_x", "struct_y", "a", "b"
    return replace(parts[0], **{name: together(name) for name in names})


def cell_problems(
    cells_x: Sequence[Cell],
    cells_y: Sequence[Cell],
    *,
    tree: OperationTree,
    pairs: Pairs = "directed",
) -> Problems:
    """Return the problems behind the iFGW distances of pairs of cells, with default trade-offs.

    Args:
        cells_x: First cell of every pair; sizes may differ, smaller cells are padded.
        cells_y: Second cells, as many.
        tree: Knows every operation.
        pairs: "directed" or "ordered".
    """
    label_cost = EPS * tree.distance_matrix(dtype=torch.float64)
    # The least number that no finite pair cost exceeds, path lengths being normalised.
    unreachable = float(label_cost.max()) + (1 - EPS)
    x, y = (ArchitectureBatch.from_cells(c, tree, dtype=torch.float64) for c in (cells_x, cells_y))
    lengths_x, lengths_y = x.path_lengths(), y.path_lengths()
    location = torch.cdist(lengths_x, lengths_y, p=1.0) / lengths_x.shape[-1]
    cost = label_cost[x.labels[:, :, None], y.labels[:, None, :]] + (1 - EPS) * location
    struct_x, struct_y = (
        pair_costs(batch.labels, lengths, batch.reachability(), label_cost, EPS, unreachable)
        for batch, lengths in ((x, lengths_x), (y, lengths_y))
    )
    return Problems(cost, struct_x, struct_y, x.weights, y.weights, "l1", pairs)


def real_problems(
    nodes: int, count: int, *, pairs: Pairs, generator: torch.Generator
) -> tuple[str, Problems]:
    """Draw pairs of different cells of one size, and where they come from.

    NAS-Bench-201 has cells of eight nodes and DARTS of sixteen; other sizes are random directed
    acyclic graphs of DARTS operations.
    """
    if nodes == NASBENCH201_NODES:
        source, space = "NAS-Bench-201 cells", spaces.get("nasbench201")
        cells = sized_cells(space, nodes, 2 * count, generator)
    elif nodes == DARTS_NODES:
        source, space = "DARTS cells", spaces.get("darts")
        cells = sized_cells(space, nodes, 2 * count, generator)
    else:
        source, space = "random DAG cells", spaces.get("darts")
        cells = dag_cells(space.tree, nodes, 2 * count, generator)
    small, large = draw_pairs([cell.num_nodes for cell in cells], count, generator)
    first, second = ([cells[place] for place in places.tolist()] for places in (small, large))
    return source, cell_problems(first, second, tree=space.tree, pairs=pairs)


def sized_cells(
    space: spaces.SearchSpace, nodes: int | None, count: int, generator: torch.Generator
) -> list[Cell]:
    """Draw different cells of random networks, in canonical form and the order that IFGW uses.

    Args:
        space: Search space to draw networks from.
        nodes: Size that the cells must have; None for any.
        count: Least number of cells; fewer when a thousand draws bring no more.
        generator: Source of the networks.
    """
    found: dict[str, Cell] = {}
    for _ in range(1000):
        networks = space.sample(max(64, count), generator=generator)
        for cell in {cell for network in networks for cell in network.cells}:
            if nodes is None or cell.num_nodes == nodes:
                found.setdefault(cell.key, cell)
        if len(found) >= count:
            break
    return unique_cells(list(found.values()))[0]


def dag_cells(
    tree: OperationTree, nodes: int, count: int, generator: torch.Generator
) -> list[Cell]:
    """Draw random directed acyclic graphs and operations, every node on an input-output path.

    An edge i -> j is there with a probability that gives every node about two predecessors; nodes
    left without a predecessor or a successor get one.
    """

    def draw(high: int) -> int:
        return int(torch.randint(high, (1,), generator=generator))

    ends = ("input", "output")
    labels = [label for label in tree.labels if not label.startswith(ends)]
    cells = []
    for _ in range(count):
        present = (torch.rand(nodes, nodes, generator=generator) < 4 / nodes).triu(1)
        for node in range(nodes):
            if node > 0 and not present[:, node].any():
                present[draw(node), node] = True
            if node < nodes - 1 and not present[node].any():
                present[node, node + 1 + draw(nodes - node - 1)] = True
        operations = [labels[draw(len(labels))] for _ in range(nodes - 2)]
        edges = sorted((i, j) for i, j in present.nonzero().tolist())
        cells.append(Cell(("input", *operations, "output"), tuple(edges)))
    return unique_cells(cells)[0]


def draw_pairs(
    sizes: Sequence[int], count: int, generator: torch.Generator, *, unequal: bool = False
) -> tuple[Tensor, Tensor]:
    """Draw random pairs of different items.

    Args:
        sizes: Nodes of every item.
        count: Pairs; a pair may come twice.
        generator: Source of the choice.
        unequal: Only pairs of different sizes.

    Returns:
        The smaller and the larger position of each pair, int64, shape (count,).

    Raises:
        ValueError: There is no such pair.
    """
    known = torch.tensor(sizes)
    if len(known) < 2 or (unequal and bool((known == known[0]).all())):
        raise ValueError(f"no pair of different items can be drawn from sizes {sorted(set(sizes))}")
    chosen = torch.empty(0, 2, dtype=torch.int64)
    while len(chosen) < count:
        drawn = torch.randint(len(known), (2 * count, 2), generator=generator)
        kept = known[drawn[:, 0]] != known[drawn[:, 1]] if unequal else drawn[:, 0] != drawn[:, 1]
        chosen = torch.cat([chosen, drawn[kept]])
    chosen = chosen[:count].sort(dim=1).values
    return chosen[:, 0].contiguous(), chosen[:, 1].contiguous()
