"""Rooted trees whose leaves are architectures, held as arrays."""

import hashlib
import io
import zipfile
from dataclasses import dataclass, fields, replace
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hotnas_torch.files import open_ordinary, read_array, write_bytes

__all__ = ["ArchitectureTree"]

Ints = npt.NDArray[np.int64]

# Of one array in a file: a few bytes of compressed zeros could ask for all memory.
_MOST_BYTES = 2**27 + 2**10


@dataclass(frozen=True, eq=False)
class ArchitectureTree:
    """A rooted tree over the architectures 0..N-1 of a list, immutable.

    Nodes are numbered breadth first: the root is node 0, and the children of a node are neighbours,
    after those of every node before it. `from_parents` takes any numbering.

    Args:
        parent: (M,) int64, the node above each; -1 for the root.
        architecture: (M,) int64, a permutation of 0..N-1 over the leaves, -1 at inner nodes.
        height: (M,) float64, where the node is drawn: for a clustering the distance at which its
            parts join, 0 at leaves.
        group: (M,) int64, equal for nodes that make the same choice in different branches, -1 for
            nodes that share none.

    Raises:
        TypeError: An argument is not a tensor of the stated dtype.
        ValueError: The arrays describe no such tree; the message names the node.

    Complexity: O(M) memory; every walk up or down takes as many steps as the tree has levels, each
        vectorised over all that walk.

    Example:
        >>> tree = ArchitectureTree.from_parents([4, 4, 3, -1, 3], [0, 1, 2, -1, -1])
        >>> tree.parent.tolist(), tree.architecture.tolist()
        ([-1, 0, 0, 2, 2], [-1, 2, -1, 0, 1])
        >>> tree.path(1)
        [0, 2, 4]
    """

    parent: Tensor
    architecture: Tensor
    height: Tensor
    group: Tensor

    def __post_init__(self) -> None:
        for field in fields(self):
            values = getattr(self, field.name)
            expected = torch.float64 if field.name == "height" else torch.int64
            if not isinstance(values, Tensor) or values.dtype != expected:
                got = values.dtype if isinstance(values, Tensor) else type(values).__name__
                raise TypeError(f"{field.name} must be a tensor of {expected}; got {got}")
            if values.shape != (len(self.parent),) or not len(values):
                raise ValueError(
                    f"{field.name} must have one entry per node, as many as parent and at least "
                    f"one; got shape {tuple(values.shape)}"
                )
        self._check_numbering()
        self._check_leaves()
        if not self.height.isfinite().all():
            raise ValueError("height must hold finite numbers")

    @classmethod
    def from_parents(
        cls,
        parent: npt.ArrayLike,
        architecture: npt.ArrayLike,
        *,
        height: npt.ArrayLike | None = None,
        group: npt.ArrayLike | None = None,
    ) -> "ArchitectureTree":
        """Build a tree from nodes in any order, and number them breadth first.

        Children of a node keep the order in which they are given. Without `height` a node is as
        many levels high as its deepest leaf is below it; without `group` nodes share nothing.
        Arguments and errors are otherwise those of the class.
        """
        above = np.asarray(parent, dtype=np.int64)
        order = _breadth_first(above)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        moved = above[order]
        renumbered = np.where(moved < 0, -1, place[moved])

        def taken(values: npt.ArrayLike, dtype: npt.DTypeLike) -> Tensor:
            array: npt.NDArray[np.generic] = np.asarray(values, dtype=dtype)
            if array.shape != above.shape:
                raise ValueError(
                    f"every array must have one entry per node, {len(above)}; got shape "
                    f"{array.shape}"
                )
            return torch.from_numpy(array[order])

        tree = cls(
            torch.from_numpy(renumbered),
            taken(architecture, np.int64),
            taken(np.zeros(len(above)) if height is None else height, np.float64),
            taken(np.full(len(above), -1) if group is None else group, np.int64),
        )
        return tree if height is not None else replace(tree, height=tree._levels_above_leaves())

    # --- shape ------------------------------------------------------------------------------------

    @property
    def num_nodes(self) -> int:
        """Number M of nodes."""
        return len(self.parent)

    @property
    def num_architectures(self) -> int:
        """Number N of leaves."""
        return len(self.leaf)

    @cached_property
    def leaf(self) -> Tensor:
        """(N,) int64, the node of each architecture."""
        nodes = (self.architecture >= 0).nonzero().flatten()
        leaf = torch.empty_like(nodes)
        leaf[self.architecture[nodes]] = nodes
        return leaf

    @cached_property
    def first_child(self) -> Tensor:
        """(M + 1,) int64; the children of node v are `first_child[v]..first_child[v + 1] - 1`."""
        counts = torch.bincount(self.parent[1:], minlength=self.num_nodes)
        return torch.cat([counts.new_ones(1), 1 + counts.cumsum(0)])

    @cached_property
    def levels(self) -> tuple[slice, ...]:
        """The nodes of each depth, the root's first; neighbours, as nodes go breadth first."""
        found = [slice(0, 1)]
        first_child = self.first_child
        while found[-1].start < found[-1].stop:
            last = found[-1]
            found.append(slice(int(first_child[last.start]), int(first_child[last.stop])))
        return tuple(found[:-1])

    @cached_property
    def depth(self) -> Tensor:
        """(M,) int64, edges between the root and each node."""
        sizes = torch.tensor([level.stop - level.start for level in self.levels])
        return torch.arange(len(sizes)).repeat_interleave(sizes)

    @cached_property
    def num_leaves(self) -> Tensor:
        """(M,) int64, architectures below each node, itself included."""
        return self.sum_up((self.architecture >= 0).long())

    def children(self, node: int) -> range:
        """Return the children of a node; none for a leaf."""
        return range(int(self.first_child[node]), int(self.first_child[node + 1]))

    # --- walking ----------------------------------------------------------------------------------

    def path(self, architecture: int) -> list[int]:
        """Return the nodes from the root to the leaf of an architecture."""
        nodes = [int(self.leaf[architecture])]
        while nodes[-1] != 0:
            nodes.append(int(self.parent[nodes[-1]]))
        return nodes[::-1]

    def ancestors(self, architectures: Tensor) -> tuple[Tensor, Tensor]:
        """List the nodes on the paths of architectures.

        Args:
            architectures: (num,) int64, repeats allowed.

        Returns:
            Nodes (P,) and the position in `architectures` that each belongs to (P,): for each
            one all nodes from its leaf to the root, both included.
        """
        nodes, owner = self.leaf[architectures], torch.arange(len(architectures))
        found_nodes, found_owners = [nodes], [owner]
        while len(nodes):
            above = self.parent[nodes]
            inside = above >= 0
            nodes, owner = above[inside], owner[inside]
            found_nodes.append(nodes)
            found_owners.append(owner)
        return torch.cat(found_nodes), torch.cat(found_owners)

    def sum_up(self, values: Tensor) -> Tensor:
        """Add to each node's value those of all nodes below; (M,) to (M,)."""
        total = values.clone()
        for level in reversed(self.levels[1:]):
            total.index_add_(0, self.parent[level], total[level].clone())
        return total

    def sum_down(self, values: Tensor) -> Tensor:
        """Add to each node's value those of all nodes above; (M,) to (M,)."""
        total = values.clone()
        for level in self.levels[1:]:
            total[level] += total[self.parent[level]]
        return total

    @cached_property
    def order(self) -> Tensor:
        """(N,) int64, the architectures from the first leaf to the last, as a picture has them."""
        # Where the leaves of each node begin: after those of the siblings before it.
        before = self.num_leaves.cumsum(0) - self.num_leaves
        first = torch.zeros_like(before)
        for level in self.levels[1:]:
            above = self.parent[level]
            eldest = self.first_child[above]
            first[level] = first[above] + before[level] - before[eldest]
        order = torch.empty(self.num_architectures, dtype=torch.int64)
        leaves = self.architecture >= 0
        order[first[leaves]] = self.architecture[leaves]
        return order

    def below(self, node: int) -> Tensor:
        """Return the architectures below a node, in the order of the leaves."""
        inside = torch.zeros(self.num_nodes, dtype=torch.int64)
        inside[node] = 1
        kept = self.sum_down(inside)[self.leaf] > 0
        return self.order[kept[self.order]]

    # --- files ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Return the four arrays by name, what `ArchitectureTree(**state)` takes."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def digest(self) -> str:
        """Return what tells this tree from others, 16 hexadecimal digits."""
        content = hashlib.sha256()
        for name in ("parent", "architecture", "group"):
            content.update(getattr(self, name).numpy().tobytes())
        return content.hexdigest()[:16]

    def save(self, path: str | PathLike[str]) -> None:
        """Write an `.npz` file, complete or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        buffer = io.BytesIO()
        arrays = {name: values.numpy() for name, values in self.state_dict().items()}
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_bytes(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "ArchitectureTree":
        """Read what `save` wrote.

        Raises:
            OSError: The file cannot be read.
            ValueError: It holds no tree, or one of more than 16,777,216 nodes.
        """
        try:
            with open_ordinary(Path(path)) as file, zipfile.ZipFile(file) as archive:
                state = {
                    field.name: torch.from_numpy(read_array(archive, field.name, most=_MOST_BYTES))
                    for field in fields(cls)
                }
            return cls(**state)
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f"{path} holds no tree of architectures: {error}") from error

    # --- validation -------------------------------------------------------------------------------

    def _check_numbering(self) -> None:
        parent = self.parent
        if parent[0] != -1:
            raise ValueError(
                f"parent[0] must be -1, node 0 being the root; got {int(parent[0])} "
                "(from_parents takes nodes in any order)"
            )
        nodes = torch.arange(1, len(parent))
        wrong = (parent[1:] < 0) | (parent[1:] >= nodes)
        wrong[1:] |= parent[2:] < parent[1:-1]
        if wrong.any():
            node = 1 + int(wrong.nonzero()[0, 0])
            raise ValueError(
                f"parent[{node}] must be a node before {node} and not before its neighbour's "
                f"parent; got {int(parent[node])} (nodes go breadth first; from_parents takes them "
                "in any order)"
            )

    def _check_leaves(self) -> None:
        architecture = self.architecture
        inner = torch.zeros(len(architecture), dtype=torch.bool)
        inner[self.parent[1:]] = True
        wrong = inner != (architecture < 0)
        if wrong.any():
            node = int(wrong.nonzero()[0, 0])
            kind, expected = ("inner node", "-1") if inner[node] else ("leaf", "an architecture")
            raise ValueError(
                f"architecture[{node}] must be {expected}, as node {node} is "
                f"{'an' if inner[node] else 'a'} {kind}; got {int(architecture[node])}"
            )
        found = architecture[~inner].sort().values
        missing = found != torch.arange(len(found))
        if missing.any():
            raise ValueError(
                f"architecture must hold each of 0..{len(found) - 1} once over the {len(found)} "
                f"leaves; {int(missing.nonzero()[0, 0])} is missing or stands twice"
            )

    def _levels_above_leaves(self) -> Tensor:
        height = torch.zeros(self.num_nodes, dtype=torch.float64)
        for level in reversed(self.levels[1:]):
            height.scatter_reduce_(0, self.parent[level], 1.0 + height[level], "amax")
        return height

    def __repr__(self) -> str:
        return (
            f"ArchitectureTree({self.num_architectures} architectures, {self.num_nodes} nodes, "
            f"{len(self.levels)} levels)"
        )


def _breadth_first(parent: Ints) -> Ints:
    """Return the nodes breadth first, children of a node in the order of their numbers."""
    size = len(parent)
    if parent.ndim != 1:
        raise ValueError(f"parent must have one dimension; got shape {parent.shape}")
    roots = np.flatnonzero(parent == -1)
    if len(roots) != 1:
        raise ValueError(f"parent must hold -1 once, for the root; got it {len(roots)} times")
    outside = (parent < -1) | (parent >= size)
    if outside.any():
        node = int(outside.argmax())
        raise ValueError(f"parent[{node}] must be one of {size} nodes; got {parent[node]}")
    by_parent = np.argsort(parent, kind="stable")
    ends = np.cumsum(np.bincount(parent + 1, minlength=size + 1))
    order = [roots]
    reached = 1
    while len(level := order[-1]):
        counts = ends[level + 1] - ends[level]
        starts = np.repeat(ends[level] - np.cumsum(counts) + counts, counts)
        order.append(by_parent[starts + np.arange(counts.sum())])
        reached += len(order[-1])
    if reached != size:
        raise ValueError(f"parent must lead every node to the root; {size - reached} form a cycle")
    return np.concatenate(order)
