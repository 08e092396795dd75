"""Relaxed architectures: every decision of a search space as a distribution over its values.

An architecture of NAS-Bench-201 or DARTS is a list of decisions: which operation sits at a place,
and how the places are wired. A relaxed one holds a probability for every value of every decision,
and what a distance needs to know of it are expectations: nodes carry their expected mass,
operations cost their expected cost, and path lengths are averaged over the wirings, of which there
are few enough to list. Where all probabilities are 0 or 1, this is the architecture itself.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network
from hotnas_torch.spaces import DARTS, NASBench201, SearchSpace

__all__ = ["Decision", "Relaxation", "Skeleton", "relaxation_of"]


class Decision(NamedTuple):
    """One choice that an architecture makes.

    Attributes:
        name: What is decided.
        num_values: How many values there are.
    """

    name: str
    num_values: int


class Skeleton(NamedTuple):
    """A macro graph in which relaxed cells stand.

    Attributes:
        network: A network with this macro graph, widths and resolutions.
        kinds: Which relaxed kind of cell, or None for the network's own cell, per position.
    """

    network: Network
    kinds: tuple[int | None, ...]


class Relaxation(ABC):
    """Distributions over the decisions of a search space, as rows of weights.

    A row holds one weight >= 0 per value of every decision, one decision after the other. Weights
    of a decision are divided by their sum, so every row of [0, 1]^dim with a positive weight for
    every decision is a relaxed architecture.

    Args:
        space: The search space.

    Attributes:
        space: The search space.
        decisions: What is decided, in the order of the columns.
        dim: Number of columns, the sum of the numbers of values.
        num_kinds: How many different relaxed cells a network has.
    """

    decisions: tuple[Decision, ...]
    num_kinds: int

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    @property
    def dim(self) -> int:
        """Number of columns of a row."""
        return sum(decision.num_values for decision in self.decisions)

    @property
    def bounds(self) -> Tensor:
        """Lowest and highest weight of every column, shape (2, dim), float64."""
        ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        return ends.expand(2, self.dim).clone()

    def probabilities(self, X: Tensor) -> Tensor:
        """Weight divided by their sum per decision.

        Args:
            X: Rows of weights, shape (..., dim).

        Returns:
            Shape (..., dim). A decision without any weight is uniform.

        Raises:
            ValueError: Wrong number of columns.
        """
        return torch.cat(self.split(X), dim=-1)

    def split(self, X: Tensor) -> list[Tensor]:
        """`probabilities` by decision, shapes (..., number of values)."""
        if X.shape[-1] != self.dim:
            raise ValueError(
                f"X must have {self.dim} columns, one per value of every decision of"
                f" {self.space!r}; got shape {tuple(X.shape)}"
            )
        weights = X.clamp_min(0.0).split([d.num_values for d in self.decisions], dim=-1)
        parts = []
        for part in weights:
            total = part.sum(-1, keepdim=True)
            undecided = total <= 0.0
            share = part / total.masked_fill(undecided, 1.0)
            parts.append(torch.where(undecided, 1.0 / part.shape[-1], share))
        return parts

    def encode(self, nets: Sequence[Network]) -> Tensor:
        """Rows with weight 1 for what each network chose, shape (N, dim), float64.

        Raises:
            TypeError, ArchitectureError: As `SearchSpace.encode`.
        """
        chosen = self._chosen(self.space.encode([self.space.canonical(net) for net in nets]))
        parts = [
            torch.nn.functional.one_hot(chosen[:, place], decision.num_values)
            for place, decision in enumerate(self.decisions)
        ]
        return torch.cat(parts, dim=-1).to(torch.float64)

    def round(self, X: Tensor) -> list[Network]:
        """Return the most probable network of each row, decision by decision.

        Args:
            X: Rows of weights, shape (N, dim).
        """
        chosen = torch.stack([part.argmax(-1) for part in self.split(X)], dim=-1)
        return self.space.decode(self._rows(chosen.cpu()))

    def sample(self, X: Tensor, num: int, *, generator: torch.Generator) -> list[Network]:
        """Networks drawn from the distribution of one row.

        Args:
            X: Weights, shape (dim,).
            num: How many.
            generator: Source of randomness.
        """
        chosen = [
            torch.multinomial(part.cpu(), num, replacement=True, generator=generator)
            for part in self.split(X)
        ]
        return self.space.decode(self._rows(torch.stack(chosen, dim=-1)))

    @abstractmethod
    def skeletons(self) -> list[Skeleton]:
        """Return the macro graphs that occur."""

    @abstractmethod
    def skeleton_probabilities(self, parts: Sequence[Tensor]) -> Tensor:
        """Probability of each skeleton, shape (B, S), from what `split` returned."""

    @abstractmethod
    def wirings(self) -> list[Cell]:
        """All wirings of a relaxed cell; inner labels are the numbers of places."""

    @abstractmethod
    def wiring_probabilities(self, parts: Sequence[Tensor], kind: int) -> Tensor:
        """Probability of each wiring of a kind of cell, shape (B, W)."""

    @abstractmethod
    def label_probabilities(self, parts: Sequence[Tensor], kind: int) -> Tensor:
        """Probability of each operation label at each place, shape (B, n, L)."""

    @abstractmethod
    def _chosen(self, rows: Tensor) -> Tensor:
        """Values of the decisions, (N, decisions) int64, from encoded rows."""

    @abstractmethod
    def _rows(self, chosen: Tensor) -> Tensor:
        """Return encoded rows from the values of the decisions."""

    def _fixed_labels(self, labels: Sequence[str], like: Tensor) -> Tensor:
        """Label that are certain, one-hot, shape (places, L)."""
        tree = self.space.tree
        index = torch.tensor([tree.index(label) for label in labels], device=like.device)
        return torch.nn.functional.one_hot(index, len(tree.labels)).to(like)

    def _operation_columns(self, names: Sequence[str], like: Tensor) -> Tensor:
        """Map probabilities over operations to labels of the tree, shape (operations, L)."""
        return self._fixed_labels(names, like)


def joint(factors: Sequence[Tensor]) -> Tensor:
    """Probability of every combination of independent choices, the last changing fastest.

    Args:
        factors: Shapes (B, k_1), (B, k_2), ...

    Returns:
        Shape (B, k_1 k_2 ...).
    """
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, :, None] * factor[:, None, :]).flatten(1)
    return product


class _NASBench201Relaxation(Relaxation):
    """Six operations, of which `none` takes a node away: 64 wirings."""

    num_kinds = 1
    space: NASBench201

    def __init__(self, space: NASBench201) -> None:
        super().__init__(space)
        if space.contract_skip:
            raise ValueError(
                "a relaxation needs nodes for skip connections (pass contract_skip=False to the"
                " space)"
            )
        self.decisions = tuple(Decision(name, len(space.operations)) for name in space.columns)
        self._none = space.operations.index("none")
        self._kept = [place for place, name in enumerate(space.operations) if name != "none"]

    def skeletons(self) -> list[Skeleton]:
        convolutions, poolings = self.space.decode(torch.tensor([[3.0] * 6, [4.0] * 6]))
        kinds = tuple(
            0 if one != other else None
            for one, other in zip(convolutions.cells, poolings.cells, strict=True)
        )
        return [Skeleton(convolutions, kinds)]

    def skeleton_probabilities(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0].new_ones(len(parts[0]), 1)

    def wirings(self) -> list[Cell]:
        full = self.space.from_string(
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
            "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
        ).cells[0]
        names = ["input", *map(str, range(1, 7)), "output"]
        cells = []
        for present in itertools.product((False, True), repeat=6):
            there = (True, *present, True)
            edges = [(i, j) for i, j in full.edges if there[i] and there[j]]
            cells.append(Cell.from_edges(names, edges, prune=True))
        return cells

    def wiring_probabilities(self, parts: Sequence[Tensor], kind: int) -> Tensor:
        del kind
        absent = [part[:, self._none] for part in parts]
        present = [part[:, self._kept].sum(1) for part in parts]
        pairs = zip(absent, present, strict=True)
        return joint([torch.stack(pair, dim=1) for pair in pairs])

    def label_probabilities(self, parts: Sequence[Tensor], kind: int) -> Tensor:
        del kind
        names = [self.space.operations[place] for place in self._kept]
        columns = self._operation_columns(names, parts[0])
        kept = torch.stack([part[:, self._kept] for part in parts], dim=1)
        # Where nothing is, whatever it would be has no mass.
        some = kept.sum(-1, keepdim=True).clamp_min(torch.finfo(kept.dtype).tiny)
        chosen = (kept / some) @ columns
        ends = self._fixed_labels(["input", "output"], parts[0]).expand(len(chosen), 2, -1)
        return torch.cat([ends[:, :1], chosen, ends[:, 1:]], dim=1)

    def _chosen(self, rows: Tensor) -> Tensor:
        return rows.long()

    def _rows(self, chosen: Tensor) -> Tensor:
        return chosen.to(torch.float64)


class _DARTSRelaxation(Relaxation):
    """Two operations and a pair of inputs per inner node of two cells, and the depth."""

    num_kinds = 2
    space: DARTS

    def __init__(self, space: DARTS) -> None:
        super().__init__(space)
        if space.contract_skip:
            raise ValueError(
                "a relaxation needs nodes for skip connections (pass contract_skip=False to the"
                " space)"
            )
        self._pairs = [
            list(itertools.combinations(range(node + 2), 2)) for node in range(space.num_nodes)
        ]
        decisions = []
        for cell in ("normal", "reduce"):
            for node in range(space.num_nodes):
                where = f"{cell} node {node}"
                decisions += [
                    Decision(f"{where} first operation", len(space.operations)),
                    Decision(f"{where} second operation", len(space.operations)),
                    Decision(f"{where} inputs", len(self._pairs[node])),
                ]
        depths = space.max_depth - space.min_depth + 1
        self.decisions = (*decisions, Decision("depth", depths))

    def skeletons(self) -> list[Skeleton]:
        skeletons = []
        for depth in range(self.space.min_depth, self.space.max_depth + 1):
            row = torch.zeros(1, self.space.dim)
            row[:, 3::4] = 1.0  # inputs 0 and 1 everywhere
            row[:, -1] = depth
            (network,) = self.space.decode(row)
            reductions = (depth // 3, 2 * depth // 3)
            kinds = tuple(int(place in reductions) for place in range(depth))
            skeletons.append(Skeleton(network, kinds))
        return skeletons

    def skeleton_probabilities(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[-1]

    def wirings(self) -> list[Cell]:
        size = self.space.max_nodes
        names = ["input", *map(str, range(1, size - 1)), "output"]
        cells = []
        for chosen in itertools.product(*self._pairs):
            sources = [1, 2]
            edges = [(0, 1), (0, 2)]
            for node, pair in enumerate(chosen):
                first = 3 + 3 * node
                add = first + 2
                edges += [(sources[pair[0]], first), (sources[pair[1]], first + 1)]
                edges += [(first, add), (first + 1, add), (add, size - 1)]
                sources.append(add)
            cells.append(Cell.from_edges(names, edges, prune=True))
        return cells

    def _parts_of(self, parts: Sequence[Tensor], kind: int) -> Sequence[Tensor]:
        each = 3 * self.space.num_nodes
        return parts[kind * each : (kind + 1) * each]

    def wiring_probabilities(self, parts: Sequence[Tensor], kind: int) -> Tensor:
        return joint(self._parts_of(parts, kind)[2::3])

    def label_probabilities(self, parts: Sequence[Tensor], kind: int) -> Tensor:
        mine = self._parts_of(parts, kind)
        columns = self._operation_columns(self.space.operations, parts[0])
        batch = len(parts[0])
        inputs = self._fixed_labels(["input", "input1", "input2"], parts[0])
        add, output = self._fixed_labels(["add", "output"], parts[0])
        places = [inputs.expand(batch, 3, -1)]
        for node in range(self.space.num_nodes):
            chosen = torch.stack(tuple(mine[3 * node : 3 * node + 2]), dim=1) @ columns
            places += [chosen, add.expand(batch, 1, -1)]
        return torch.cat([*places, output.expand(batch, 1, -1)], dim=1)

    def _chosen(self, rows: Tensor) -> Tensor:
        columns = []
        for node in range(2 * self.space.num_nodes):
            first, one, second, other = rows[:, 4 * node : 4 * node + 4].long().unbind(1)
            pairs = self._pairs[node % self.space.num_nodes]
            place = [pairs.index(pair) for pair in zip(one.tolist(), other.tolist(), strict=True)]
            columns += [first, second, torch.tensor(place, dtype=torch.int64)]
        depth = rows[:, -1].long() - self.space.min_depth
        return torch.stack([*columns, depth], dim=1)

    def _rows(self, chosen: Tensor) -> Tensor:
        columns = []
        for node in range(2 * self.space.num_nodes):
            first, second, place = chosen[:, 3 * node : 3 * node + 3].unbind(1)
            pairs = torch.tensor(self._pairs[node % self.space.num_nodes])[place]
            columns += [first, pairs[:, 0], second, pairs[:, 1]]
        depth = chosen[:, -1] + self.space.min_depth
        return torch.stack([*columns, depth], dim=1).to(torch.float64)


def relaxation_of(space: SearchSpace) -> Relaxation:
    """Return the relaxation of a search space.

    Raises:
        TypeError: A space without one: NAS-Bench-201 and DARTS have relaxations.
        ValueError: The space contracts skip connections.

    Example:
        >>> relaxation = relaxation_of(NASBench201())
        >>> relaxation.dim, relaxation.decisions[0]
        (30, Decision(name='operation 0->1', num_values=5))
    """
    if isinstance(space, NASBench201):
        return _NASBench201Relaxation(space)
    if isinstance(space, DARTS):
        return _DARTSRelaxation(space)
    raise TypeError(
        f"{space!r} has no relaxation; NASBench201 and DARTS have (others are searched by mutation)"
    )
