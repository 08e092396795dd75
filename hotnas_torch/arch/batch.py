"""Cells as padded tensors, with what iFGW needs to know about their structure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from hotnas_torch.arch.cell import Cell
from hotnas_torch.arch.operation_tree import OperationTree
from hotnas_torch.arguments import kind, working_dtype
from hotnas_torch.errors import ArchitectureError

__all__ = ["ArchitectureBatch"]


@dataclass(frozen=True, slots=True, eq=False)
class ArchitectureBatch:
    """U cells padded to n nodes, on one device. Nodes keep their cell's numbering; padding follows.

    Attributes:
        labels: (U, n) int64, rows of the operation tree's distance matrix; padding 0.
        mask: (U, n) bool, true for nodes.
        adjacency: (U, n, n) bool, entry (u, i, j) is the edge i -> j of cell u.
        weights: (U, n) floating, mass of each node: 1/n_u, padding 0.
        max_nodes: Largest number of nodes a cell may have; it bounds every path length by
            `max_nodes - 1`, which stands for the length of a path that is not there.

    Example:
        >>> tree = OperationTree(
        ...     {"op": None, "input": "op", "conv": "op", "output": "op"},
        ...     {"input": 1.0, "conv": 1.0, "output": 1.0},
        ... )
        >>> cell = Cell(("input", "conv", "output"), ((0, 1), (0, 2), (1, 2)))
        >>> batch = ArchitectureBatch.from_cells([cell], tree)
        >>> batch.path_lengths(normalize=False)[0, 2].tolist()  # the output node
        [1.0, 2.0, 1.5, 0.0, 0.0, 0.0]
    """

    labels: Tensor
    mask: Tensor
    adjacency: Tensor
    weights: Tensor
    max_nodes: int

    @classmethod
    def from_cells(
        cls,
        cells: Sequence[Cell],
        tree: OperationTree,
        *,
        max_nodes: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> "ArchitectureBatch":
        """Build the batch; n is the size of the largest cell.

        Args:
            cells: U cells; none is fine.
            tree: Operation tree with every label that occurs.
            max_nodes: Largest number of nodes in the search space. It matters for raw path lengths
                of disconnected cells only; pass it where such cells occur, as they otherwise depend
                on which other cells are in the batch. Default: n.
            device: Default: torch's default device.
            dtype: float32 or float64. Default: torch's default dtype.

        Raises:
            TypeError: An entry is not a Cell, or `dtype` is not floating.
            ArchitectureError: A label is not in the tree, or a cell is larger than `max_nodes`;
                the message names the cell and the node.

        Complexity: O(nodes + edges) in Python, one transfer per tensor.
        """
        dtype = working_dtype(dtype)
        for position, cell in enumerate(cells):
            kind(f"cells[{position}]", cell, Cell)
        sizes = torch.tensor([len(cell.ops) for cell in cells], dtype=torch.int64, device="cpu")
        width = max((len(cell.ops) for cell in cells), default=0)
        if max_nodes is None:
            max_nodes = width
        elif width > max_nodes:
            position = next(u for u, cell in enumerate(cells) if len(cell.ops) == width)
            raise ArchitectureError(
                f"max_nodes must be at least the size of the largest cell; cells[{position}] has "
                f"{width} nodes, max_nodes is {max_nodes} (pass {width} or more)"
            )
        mask = torch.arange(width, device="cpu") < sizes[:, None]
        labels = torch.zeros(len(cells), width, dtype=torch.int64, device="cpu")
        labels[mask] = torch.tensor(_label_rows(cells, tree), dtype=torch.int64, device="cpu")
        adjacency = torch.zeros(len(cells), width, width, dtype=torch.bool, device="cpu")
        pairs = chain.from_iterable(chain.from_iterable(cell.edges for cell in cells))
        ends = torch.tensor(list(pairs), dtype=torch.int64, device="cpu").reshape(-1, 2)
        counts = torch.tensor([len(cell.edges) for cell in cells], dtype=torch.int64, device="cpu")
        owner = torch.repeat_interleave(counts)
        adjacency[owner, ends[:, 0], ends[:, 1]] = True
        weights = mask.to(dtype) / sizes[:, None].to(dtype)
        device = device or torch.get_default_device()
        return cls(
            labels.to(device),
            mask.to(device),
            adjacency.to(device),
            weights.to(device),
            max_nodes,
        )

    def __len__(self) -> int:
        return self.labels.shape[0]

    @property
    def sizes(self) -> Tensor:
        """Number of nodes of each cell, (U,) int64."""
        return self.mask.sum(1)

    @property
    def disconnected(self) -> Tensor:
        """Which cells are the one whose input does not reach its output, (U,) bool."""
        return ~self.adjacency.flatten(1).any(1)

    def path_lengths(self, normalize: bool = True) -> Tensor:
        """Return the structure s_i of every node, shape (U, n, 6); padding 0.

        The last dimension holds, in edges: from the input shortest, longest, random walk; to the
        output shortest, longest, random walk. The random-walk length from the input is the expected
        number of edges of a walk that starts at the node and goes back to a uniformly chosen
        predecessor each time; to the output likewise, along successors.

        In the cell without any path, the input's lengths to the output and the output's lengths
        from the input are all `max_nodes - 1`, or 1 when normalised; the others are 0.

        Args:
            normalize: Divide by the longest input-output path of the cell, so that all values are
                in [0, 1]. False: raw numbers of edges.

        Returns:
            Tensor of the dtype and device of `weights`; a cell's values do not depend on the
            other cells, to the last bit, except through `max_nodes`.

        Complexity: n steps of tensor operations on (2U, n), on the device.

        Reference: HOTNAS (Yang, Liu and Xu, CVPR 2023), Eq. 3; path lengths as in NASBOT
        (Kandasamy et al., NeurIPS 2018), group "all".
        """
        num_cells, width = self.mask.shape
        # Paths to the output are paths from the input of the reversed cell. Each cell is reversed
        # within its own size, so that padding stays behind in both; edges that then seem to enter
        # padding do no harm, as none leaves it.
        place = torch.arange(width, device=self.mask.device)
        mirror = (self.sizes[:, None] - 1 - place).clamp(min=0)
        cell = torch.arange(num_cells, device=self.mask.device)[:, None, None]
        mirrored = self.adjacency[cell, mirror[:, None, :], mirror[:, :, None]]
        lengths = _lengths_from_first(
            torch.cat([self.adjacency, mirrored]), self.weights.dtype
        )  # (2U, n, 3)
        inward, outward = lengths[:num_cells], lengths[num_cells:]
        outward = outward.gather(1, mirror[:, :, None].expand(-1, -1, 3))
        result = torch.cat([inward, outward], dim=2)
        result = result.masked_fill(~self.mask[:, :, None], 0.0)
        # Only the two far ends of a disconnected cell are infinite by now.
        far = float(self.max_nodes - 1)
        result = result.masked_fill(torch.isinf(result), far)
        if normalize:
            longest = result[:, :, 1].amax(1) if width else result.new_ones(num_cells)
            result = result / longest[:, None, None]
        return result

    def reachability(self) -> Tensor:
        """Return whether node k is reached from node i by a path of at least one edge.

        Returns:
            (U, n, n) bool, entry (u, i, k); false on the diagonal and for padding.

        Complexity: n steps of tensor operations on at most (U, n, n) / 4 bools, on the device.
        """
        reached = self.adjacency.clone()
        for j in range(1, reached.shape[1] - 1):
            # Nodes are topological: j passes on only from lower to higher nodes.
            reached[:, :j, j + 1 :] |= reached[:, :j, j, None] & reached[:, j, None, j + 1 :]
        return reached


def _label_rows(cells: Sequence[Cell], tree: OperationTree) -> list[int]:
    row = {label: place for place, label in enumerate(tree.labels)}
    try:
        return [row[label] for cell in cells for label in cell.ops]
    except KeyError:
        for position, cell in enumerate(cells):
            for node, label in enumerate(cell.ops):
                if label not in row:
                    known = ", ".join(map(repr, row))
                    raise ArchitectureError(
                        f"cells[{position}].ops[{node}] = {label!r} is not an operation of the "
                        f"tree; known labels: {known} (pass the tree of the search space that the "
                        "cell is from, or add the label as a leaf)"
                    ) from None
        raise


def _lengths_from_first(adjacency: Tensor, dtype: torch.dtype) -> Tensor:
    """Shortest, longest and random-walk length from node 0, (B, n, 3); inf without a path.

    Each node hands its lengths on to its successors when all its own predecessors have done so.
    Sums over predecessors thus run in node order whatever the padding, and round the same way.
    """
    batch, width = adjacency.shape[:2]
    shortest = torch.full((batch, width), torch.inf, dtype=dtype, device=adjacency.device)
    shortest[:, :1] = 0.0
    longest = torch.zeros_like(shortest)
    walk = torch.zeros_like(shortest)
    indegree = adjacency.sum(1).clamp(min=1).to(dtype)
    for j in range(width - 1):
        walk[:, j] /= indegree[:, j]
        edge = adjacency[:, j, j + 1 :]
        later = slice(j + 1, None)
        hop = torch.where(edge, shortest[:, j, None] + 1, torch.inf)
        shortest[:, later] = torch.minimum(shortest[:, later], hop)
        hop = torch.where(edge, longest[:, j, None] + 1, 0.0)
        longest[:, later] = torch.maximum(longest[:, later], hop)
        walk[:, later] += torch.where(edge, walk[:, j, None] + 1, 0.0)
    if width:
        walk[:, -1] /= indegree[:, -1]
    lengths = torch.stack([shortest, longest, walk], dim=2)
    return lengths.masked_fill(torch.isinf(shortest)[:, :, None], torch.inf)
