"""The public distances as the rules see them: one row each.

A row says how a distance is made, what random things it compares and how these are renumbered. A
new distance adds a row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.distances import (
    HOTNN,
    IFGW,
    OTMANN,
    EditDistance,
    TreeWasserstein,
    WeisfeilerLehman,
)

SPACE = spaces.NASBench101()


@dataclass(frozen=True)
class Metric:
    """One public distance.

    Attributes:
        build: Makes it; takes the unit of its costs, where it has one, and ``backend``.
        draw: Random things to compare, from a generator and their number.
        renumbered: The same thing with its nodes in another order, from a generator.
        units: Whether ``build`` takes a unit that the distance must follow exactly.
        backends: Whether there are two of it.
        last_places: Of the result, by which a numbering may change it: by the order of a sum.
    """

    build: Callable[..., Any]
    draw: Callable[[torch.Generator, int], list[Any]]
    renumbered: Callable[[torch.Generator, Any], Any]
    units: bool = False
    backends: bool = False
    last_places: int = 0


# --- cells and networks ---------------------------------------------------------------------------


def cell_in_another_order(rng: torch.Generator, cell: Cell) -> Cell:
    inner = torch.randperm(cell.num_nodes - 2, generator=rng).tolist()
    new = [0, *(place + 1 for place in inner), cell.num_nodes - 1]
    ops = [""] * cell.num_nodes
    for old, place in enumerate(new):
        ops[place] = cell.ops[old]
    return Cell.from_edges(ops, [(new[i], new[j]) for i, j in cell.edges])


def of_space(rng: torch.Generator, count: int) -> list[Network]:
    return SPACE.sample(count, generator=rng)


def cells(rng: torch.Generator, count: int) -> list[Cell]:
    return [net.cells[0] for net in of_space(rng, count)]


def spec_in_another_order(rng: torch.Generator, net: Network) -> Network:
    """The network of the space whose cell is the same with its nodes in another order."""
    cell = cell_in_another_order(rng, net.cells[0])
    n, links = cell.num_nodes, set(cell.edges)
    bits = "".join(str(int((i, j) in links)) for i in range(n) for j in range(i + 1, n))
    numbers = {label: str(k) for k, label in enumerate(SPACE.operations)}
    return SPACE.from_string(f"{n},{bits},{''.join(numbers[op] for op in cell.ops[1:-1])}")


def networks(rng: torch.Generator, count: int) -> list[Network]:
    """Cells of the space on macro graphs that are cells of it themselves, of any width."""
    inside = cells(rng, 40)
    found: list[Network] = []
    while len(found) < count:
        (macro,) = cells(rng, 1)
        inner = macro.num_nodes - 2
        if inner:
            chosen, widths, divisors = torch.randint(40, (3, inner), generator=rng).tolist()
            found.append(
                Network(
                    tuple(inside[k] for k in chosen),
                    tuple(8 * (1 + k % 4) for k in widths),
                    tuple(2 ** (k % 3) for k in divisors),
                    macro.edges,
                    input_channels=8,
                )
            )
    return found


def network_in_another_order(rng: torch.Generator, net: Network) -> Network:
    states = list(zip(net.cells, net.channels, net.downsampling, strict=True))
    labels = ("input", *(str(k) for k in range(len(states))), "output")
    macro = cell_in_another_order(rng, Cell(labels, net.edges))
    moved = [states[int(label)] for label in macro.ops[1:-1]]
    inside = {cell: cell_in_another_order(rng, cell) for cell in net.cells}
    return Network(
        tuple(inside[cell] for cell, _, _ in moved),
        tuple(width for _, width, _ in moved),
        tuple(divisor for _, _, divisor in moved),
        macro.edges,
        input_channels=net.input_channels,
    )


# --- the table ------------------------------------------------------------------------------------


@cache
def tree_in(unit: float) -> OperationTree:
    tree = SPACE.tree
    lengths = dict(zip(tree.edges, (tree.lengths_tensor().double() * unit).tolist(), strict=True))
    return OperationTree(tree.parents, lengths)


def ifgw(options: dict[str, Any], *, unit: float | None = None, backend: str = "auto") -> IFGW:
    if unit is None:
        return IFGW(space=SPACE, backend=backend, **options)
    # Operations alone have a unit: places are shares of a length.
    return IFGW(space=SPACE, tree=tree_in(unit), backend=backend, **{**options, "eps": 1.0})


def hotnn(options: dict[str, Any], *, unit: float | None = None, backend: str = "auto") -> HOTNN:
    if unit is None:
        return HOTNN(space=SPACE, backend=backend, **options)
    only_cells = {**options, "eps": 1.0, "eta": 0.0, "zeta": 0.0}
    return HOTNN(space=SPACE, tree=tree_in(unit), backend=backend, **only_cells)


def edit(*, unit: float | None = None, backend: str = "auto") -> EditDistance:
    del backend
    unit = 1.0 if unit is None else unit
    return EditDistance(SPACE, tree=tree_in(unit), node_cost=1.1 * unit, edge_cost=0.7 * unit)


def otmann(*, unit: float | None = None, backend: str = "auto") -> OTMANN:
    del unit
    return OTMANN(SPACE, backend=backend)


def one_of(make: Callable[..., Any], *, unit: float | None = None, backend: str = "auto") -> Any:
    del unit, backend
    return make(space=SPACE)


METRICS: dict[str, Metric] = {
    **{
        f"IFGW, {name}": Metric(
            partial(ifgw, options), cells, cell_in_another_order, units=True, backends=True
        )
        for name, options in {
            "default": {},
            "double": {"dtype": torch.float64, "lam": 0.2},
            "paper": {"preset": "paper"},
        }.items()
    },
    **{
        f"HOTNN, {name}": Metric(
            partial(hotnn, options),
            networks,
            network_in_another_order,
            units=True,
            backends=True,
            last_places=8,
        )
        for name, options in {
            "default": {},
            "double": {"dtype": torch.float64, "mass": "uniform"},
            "paper": {"preset": "paper"},
        }.items()
    },
    "EditDistance": Metric(edit, of_space, spec_in_another_order, units=True),
    "OTMANN": Metric(otmann, of_space, spec_in_another_order, backends=True),
    "TreeWasserstein": Metric(partial(one_of, TreeWasserstein), of_space, spec_in_another_order),
    "TreeWasserstein, pairs": Metric(
        partial(one_of, partial(TreeWasserstein, grams=2)), of_space, spec_in_another_order
    ),
    "WeisfeilerLehman": Metric(partial(one_of, WeisfeilerLehman), of_space, spec_in_another_order),
}


def distances(metric: Any, rows: list[Any], cols: list[Any] | None = None) -> Tensor:
    found: Tensor = metric(rows, cols)
    return found.detach()
