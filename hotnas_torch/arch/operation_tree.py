# Over 400 lines: a tree, a cost matrix and what they check.
"""Costs of exchanging one operation for another, as path lengths in a tree."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arch._json import check_keys, check_list, check_value
from hotnas_torch.errors import ArchitectureError

__all__ = ["OperationTree"]


class OperationTree:
    """A rooted tree whose leaves are operation labels and whose edges have lengths.

    The cost D of exchanging two operations is the length of the path between their leaves. Lengths
    may be tensors that require gradients; D is then differentiable in them. A cost matrix without a
    tree behind it has the same interface through `from_matrix`.

    Args:
        parents: Parent of every node; None for the root, of which there is one. The leaves are the
            labels, in the order given here.
        lengths: Length of the edge from each node but the root to its parent, finite and >= 0: a
            number, or a floating 0-d tensor. All tensors share dtype and device; if one length is a
            tensor, numbers are constants of its dtype.

    Raises:
        TypeError: A name or a length is of the wrong kind.
        ArchitectureError: No or several roots, an unknown parent, a cycle, a missing or superfluous
            length, or a length that is negative or not finite. The message names the node.

    Example:
        >>> tree = OperationTree(
        ...     parents={"op": None, "conv": "op", "conv1": "conv", "conv3": "conv", "pool": "op"},
        ...     lengths={"conv": 0.95, "conv1": 0.05, "conv3": 0.05, "pool": 1.0},
        ... )
        >>> tree.labels
        ('conv1', 'conv3', 'pool')
        >>> tree.distance_matrix(dtype=torch.float64).tolist()
        [[0.0, 0.1, 2.0], [0.1, 0.0, 2.0], [2.0, 2.0, 0.0]]
    """

    def __init__(
        self, parents: Mapping[str, str | None], lengths: Mapping[str, float | Tensor]
    ) -> None:
        _check_tree(parents)
        self._parents = dict(parents)
        self._edges = tuple(node for node, parent in parents.items() if parent is not None)
        for node in self._edges:
            if node not in lengths:
                raise ArchitectureError(
                    f"lengths must give the length of the edge above every node but the root; "
                    f"{node!r} is missing"
                )
        for node in lengths:
            if node not in self._edges:
                known = "is the root" if node in parents else "is not in parents"
                raise ArchitectureError(f"lengths has an entry for {node!r}, which {known}")
        inner = set(parents.values())
        self._set_labels(tuple(node for node in parents if node not in inner))
        self._set_lengths([lengths[node] for node in self._edges], self._edges)
        self._crossed = self._crossed_edges()
        shape = (len(self._labels), len(self._labels), len(self._edges))
        self._paths = torch.zeros(shape, dtype=torch.float64, device="cpu")
        for i, row in enumerate(self._crossed):
            for j, path in enumerate(row):
                self._paths[i, j, path] = 1.0

    @classmethod
    def from_matrix(
        cls, labels: Sequence[str], matrix: Tensor | Sequence[Sequence[float]]
    ) -> "OperationTree":
        """Wrap a matrix of operation costs in the interface of a tree.

        `lengths_tensor` and `with_lengths` then work on the costs themselves, the
        entries above the diagonal row by row. Gradients reach a tensor `matrix`.

        Args:
            labels: L distinct labels.
            matrix: (L, L) floating tensor or nested sequence of numbers: finite, >= 0, symmetric,
                zero on the diagonal.

        Raises:
            TypeError: `matrix` is no floating tensor or sequence of numbers.
            ArchitectureError: Wrong shape or values; the message names the pair of labels.
        """
        return _CostMatrix(labels, matrix)

    @property
    def labels(self) -> tuple[str, ...]:
        """The operation labels, in the order of the rows of `distance_matrix`."""
        return self._labels

    @property
    def parents(self) -> dict[str, str | None]:
        """Parent of every node, None for the root (a copy)."""
        return dict(self._parents)

    @property
    def edges(self) -> tuple[str, ...]:
        """Names of the lengths in the order of `lengths_tensor`.

        An edge is named by its lower node; in a cost matrix `"a|b"` names the cost of a pair.
        """
        return self._edges

    @property
    def lengths(self) -> dict[str, float | Tensor]:
        """Length per edge; 0-d tensors if the tree holds tensors, otherwise floats (a copy)."""
        if isinstance(self._lengths, Tensor):
            return dict(zip(self._edges, self._lengths.unbind(), strict=True))
        return dict(zip(self._edges, self._lengths, strict=True))

    def index(self, label: str) -> int:
        """Return the row of `label` in `distance_matrix`.

        Raises:
            ArchitectureError: The label is unknown; the message lists the known ones.
        """
        place = self._index.get(label)
        if place is None:
            known = ", ".join(repr(known) for known in self._labels)
            raise ArchitectureError(
                f"label {label!r} is not an operation of this tree; known labels: {known} "
                "(add it as a leaf, or pass the tree of the search space the cell is from)"
            )
        return place

    def lengths_tensor(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Return the lengths as one vector, shape (number of edges,), in the order of `edges`.

        Args:
            dtype: Default: that of the tensors it was built with, otherwise torch's default dtype.
            device: Default: that of the tensors, otherwise torch's default device.

        Differentiability: in the tensors that the tree was built with.
        """
        if isinstance(self._lengths, Tensor):
            return self._lengths.to(device=device, dtype=dtype)
        return torch.tensor(self._lengths, dtype=dtype or torch.get_default_dtype(), device=device)

    def with_lengths(self, lengths: Tensor) -> "OperationTree":
        """Return the same tree with other lengths.

        Args:
            lengths: Floating tensor of shape (number of edges,), finite and >= 0, in the order of
                `edges`. Its gradient is kept.

        Raises:
            TypeError: `lengths` is not a floating tensor.
            ArchitectureError: Wrong shape, or a negative or non-finite entry.
        """
        if not isinstance(lengths, Tensor) or not lengths.is_floating_point():
            raise TypeError(f"lengths must be a floating tensor; got {_kind(lengths)}")
        if lengths.shape != (len(self._edges),):
            raise ArchitectureError(
                f"lengths must have shape ({len(self._edges)},), one entry per edge of {self!r}; "
                f"got {tuple(lengths.shape)}"
            )
        _check_vector(lengths, self._edges)
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._lengths = lengths
        return other

    def distance_matrix(
        self,
        labels: Iterable[str] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return the cost of exchanging each label for each other, shape (L, L).

        Args:
            labels: Labels of rows and columns, repeats allowed. Default: `labels`.
            dtype: Floating dtype; default as in `lengths_tensor`.
            device: Default as in `lengths_tensor`.

        Returns:
            Symmetric, >= 0, zero on the diagonal. Costs of lengths that are plain numbers are
            correctly rounded sums.

        Raises:
            ArchitectureError: A label is unknown.

        Differentiability: linear in the lengths.

        Complexity: O(L^2 * edges), once per call.

        Reference: HOTNAS (Yang, Liu and Xu, CVPR 2023), Section 3.1, operation cost D.
        """
        names = self._labels if labels is None else tuple(labels)
        if isinstance(self._lengths, Tensor):
            matrix = self._distances(self.lengths_tensor(dtype=dtype, device=device))
        else:
            # Sums of floats are rounded once, so that 0.95 + 0.05 + 1 is 2 and not 2 + 4e-16.
            matrix = torch.tensor(
                self._float_distances(self._lengths),
                dtype=dtype or torch.get_default_dtype(),
                device=device,
            )
        if names == self._labels:
            return matrix
        rows = torch.tensor(
            [self.index(name) for name in names], dtype=torch.int64, device=matrix.device
        )
        return matrix[rows[:, None], rows[None, :]]

    def to_json(self) -> dict[str, Any]:
        """Return a description ready for `json.dumps`; tensors are written as numbers."""
        return {"parents": dict(self._parents), "lengths": self._length_values()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "OperationTree":
        """Build what `to_json` described: a tree, or a cost matrix.

        Raises:
            TypeError: `data` is not a mapping.
            ArchitectureError: A key is missing or unknown, or a value is not what it should be.
        """
        if isinstance(data, Mapping) and "matrix" in data:
            check_keys(data, "a cost matrix", required=("labels", "matrix"))
            rows = check_list(data["matrix"], list, "matrix")
            return cls.from_matrix(
                check_list(data["labels"], str, "labels"),
                [check_list(row, float, f"matrix[{i}]") for i, row in enumerate(rows)],
            )
        check_keys(data, "an operation tree", required=("parents", "lengths"))
        parents = {}
        for node, parent in check_value(data["parents"], dict, "parents").items():
            if parent is not None:
                check_value(parent, str, f"parents[{node!r}]")
            parents[node] = parent
        lengths = check_value(data["lengths"], dict, "lengths")
        for node, length in lengths.items():
            check_value(length, float, f"lengths[{node!r}]")
        return cls(parents, lengths)

    def __repr__(self) -> str:
        values = ", ".join(f"{edge}={v:.4g}" for edge, v in self._length_values().items())
        return f"OperationTree({len(self._labels)} labels; {values})"

    def _length_values(self) -> dict[str, float]:
        values: Sequence[float]
        if isinstance(self._lengths, Tensor):
            values = self._lengths.detach().tolist()
        else:
            values = self._lengths
        return dict(zip(self._edges, values, strict=True))

    def _set_labels(self, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self._index = {label: place for place, label in enumerate(labels)}

    def _set_lengths(self, values: Sequence[Any], names: Sequence[str]) -> None:
        """Store plain numbers as floats, and anything with a tensor in it as one tensor."""
        self._lengths: tuple[float, ...] | Tensor
        sample: Tensor | None = None
        for name, value in zip(names, values, strict=True):
            if isinstance(value, Tensor):
                if value.dim() != 0 or not value.is_floating_point():
                    raise TypeError(
                        f"lengths[{name!r}] must be a number or a floating 0-d tensor; got a "
                        f"tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
                    )
                if sample is not None and (value.dtype, value.device) != (
                    sample.dtype,
                    sample.device,
                ):
                    raise TypeError(
                        f"lengths must share dtype and device; lengths[{name!r}] has {value.dtype} "
                        f"on {value.device}, others {sample.dtype} on {sample.device}"
                    )
                sample = value
            elif isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(
                    f"lengths[{name!r}] must be a number or a floating 0-d tensor; got "
                    f"{_kind(value)}"
                )
            elif not 0 <= value < math.inf:
                raise ArchitectureError(f"lengths[{name!r}] must be finite and >= 0; got {value}")
        if sample is None:
            self._lengths = tuple(float(value) for value in values)
            return
        self._lengths = torch.stack(
            [torch.as_tensor(value, dtype=sample.dtype, device=sample.device) for value in values]
        )
        _check_vector(self._lengths, names)

    def _crossed_edges(self) -> list[list[list[int]]]:
        """Return for each pair of labels the edges on the path between them."""
        place = {node: position for position, node in enumerate(self._edges)}
        above = []
        for label in self._labels:
            node: str = label
            edges = set()
            while (parent := self._parents[node]) is not None:
                edges.add(place[node])
                node = parent
            above.append(edges)
        return [[sorted(first ^ second) for second in above] for first in above]

    def _float_distances(self, lengths: Sequence[float]) -> list[list[float]]:
        return [
            [math.fsum(lengths[edge] for edge in path) for path in row] for row in self._crossed
        ]

    def _distances(self, lengths: Tensor) -> Tensor:
        return self._paths.to(lengths) @ lengths


class _CostMatrix(OperationTree):
    """Costs without a tree: one length per pair of labels."""

    def __init__(self, labels: Sequence[str], matrix: Tensor | Sequence[Sequence[float]]) -> None:
        names = tuple(labels)
        for position, name in enumerate(names):
            if not isinstance(name, str) or not name:
                raise TypeError(f"labels[{position}] must be a non-empty str; got {name!r}")
            if names.index(name) != position:
                raise ArchitectureError(
                    f"labels[{position}] = {name!r} is repeated; labels must be distinct"
                )
        costs = _cost_tensor(names, matrix)
        size = len(names)
        self._set_labels(names)
        self._rows, self._columns = torch.triu_indices(size, size, 1, device="cpu").unbind()
        self._edges = tuple(
            f"{names[i]}|{names[j]}"
            for i, j in zip(self._rows.tolist(), self._columns.tolist(), strict=True)
        )
        # The mean of both halves is exact for a symmetric matrix and shares the gradient fairly.
        upper = 0.5 * (costs[self._rows, self._columns] + costs[self._columns, self._rows])
        self._lengths = upper if isinstance(matrix, Tensor) else tuple(upper.tolist())

    @property
    def parents(self) -> dict[str, str | None]:
        """Not available for a matrix: raises ArchitectureError."""
        raise ArchitectureError("parents: these operation costs are a matrix, without a tree")

    def to_json(self) -> dict[str, Any]:
        """Return `{"labels": [...], "matrix": [[...]]}`."""
        matrix = self.distance_matrix(dtype=torch.float64)
        return {"labels": list(self._labels), "matrix": matrix.detach().tolist()}

    def _float_distances(self, lengths: Sequence[float]) -> list[list[float]]:
        return self._distances(torch.tensor(lengths, dtype=torch.float64)).tolist()

    def _distances(self, lengths: Tensor) -> Tensor:
        size = len(self._labels)
        rows, columns = self._rows.to(lengths.device), self._columns.to(lengths.device)
        upper = lengths.new_zeros(size, size).index_put((rows, columns), lengths)
        return upper + upper.T


def _check_tree(parents: Mapping[str, str | None]) -> None:
    if not isinstance(parents, Mapping):
        raise TypeError(f"parents must be a mapping of node to parent; got {_kind(parents)}")
    roots = []
    for node, parent in parents.items():
        if not isinstance(node, str) or not node:
            raise TypeError(f"parents has the node {node!r}; nodes are non-empty strings")
        if parent is None:
            roots.append(node)
        elif parent not in parents:
            raise ArchitectureError(
                f"parents[{node!r}] = {parent!r} is not a node itself (add {parent!r}: None if it "
                "is the root)"
            )
    if len(roots) != 1:
        raise ArchitectureError(
            f"parents must have exactly one root (a node whose parent is None); got {roots}"
        )
    settled = set(roots)
    for node in parents:
        path: list[str] = []
        walked: str | None = node
        while walked is not None and walked not in settled:
            if walked in path:
                cycle = " -> ".join([*path[path.index(walked) :], walked])
                raise ArchitectureError(f"parents must form a tree; found the cycle {cycle}")
            path.append(walked)
            walked = parents[walked]
        settled.update(path)


def _cost_tensor(names: tuple[str, ...], matrix: Tensor | Sequence[Sequence[float]]) -> Tensor:
    size = len(names)
    if isinstance(matrix, Tensor):
        if not matrix.is_floating_point():
            raise TypeError(f"matrix must be a floating tensor; got dtype {matrix.dtype}")
        costs = matrix
    else:
        try:
            costs = torch.tensor(matrix, dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"matrix must be a floating tensor or a square nest of numbers: {error}"
            ) from None
    if costs.shape != (size, size):
        raise ArchitectureError(
            f"matrix must have shape ({size}, {size}), one row and column per label; got "
            f"{tuple(costs.shape)}"
        )
    values = costs.detach()
    scale = values.abs().amax() if size else values.new_zeros(())
    faults = (
        (~(torch.isfinite(values) & (values >= 0)), "must be finite and >= 0"),
        (torch.diag(values.diagonal() != 0), "must be 0 on the diagonal"),
        ((values - values.T).abs() > 1e-6 * scale, "must be symmetric"),
    )
    for fault, rule in faults:
        if _holds("matrix", fault.any()):
            i, j = fault.nonzero()[0].tolist()
            raise ArchitectureError(
                f"matrix {rule}; the cost of {names[i]!r} and {names[j]!r} (row {i}, column {j}) "
                f"is {values[i, j].item():g}, of {names[j]!r} and {names[i]!r} "
                f"{values[j, i].item():g}"
            )
    return costs


def _holds(name: str, condition: Tensor) -> bool:
    try:
        return bool(condition)
    except RuntimeError as error:  # torch has no one type for what has no value here
        raise ArchitectureError(
            f"{name} must be one set of numbers that can be read; got a tensor without data, or"
            " what torch.vmap maps or a tracer records (make one tree per set, in a loop)"
        ) from error


def _check_vector(lengths: Tensor, names: Sequence[str]) -> None:
    values = lengths.detach()
    valid = torch.isfinite(values) & (values >= 0)
    if not _holds("lengths", valid.all()):
        place = int((~valid).nonzero()[0].item())
        raise ArchitectureError(
            f"lengths[{names[place]!r}] (entry {place}) must be finite and >= 0; got "
            f"{values[place].item():g}"
        )


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of dtype {value.dtype} and shape {tuple(value.shape)}"
    return f"{value!r} of type {type(value).__name__}"
