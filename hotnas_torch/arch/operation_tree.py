# Over 400 lines: a tree, a cost matrix and what they check.
"""Costs of exchanging one operation for another: path lengths in a tree, and weighed numbers."""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arch._json import check_keys, check_list, check_value
from hotnas_torch.arch.number_costs import read_numbers, weighed
from hotnas_torch.arch.operation import Operation, check_name
from hotnas_torch.arguments import divisors
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.notebook import matrix_html, table_html

__all__ = ["OperationTree"]

_Stored = tuple[float, ...] | Tensor


class OperationTree:
    """A rooted tree whose leaves are operation labels and whose edges have lengths.

    The cost D of exchanging two operations is the length of the path between their leaves. Lengths
    may be tensors that require gradients; D is then differentiable in them. A cost matrix without a
    tree behind it has the same interface through `from_matrix`.

    Where operations carry numbers (`arch.Operation`), a leaf is a kind, and each number f of weight
    w_f adds to the cost of exchanging a and b ::

        w_f * (1 - sqrt(min(a_f, b_f) / max(a_f, b_f)))

    (0.29 w_f for a factor of 2, half of w_f for 4, at most w_f), and w_f / 2 if one of the two has
    no such number: the least price that keeps the triangle inequality. D stays a metric where the
    tree's is one, and only ratios of numbers matter. A number without a weight is refused; a weight
    of 0 leaves it out.

    Args:
        parents: Parent of every node; None for the root, of which there is one. The leaves are the
            labels, in the order given here.
        lengths: Length of the edge from each node but the root to its parent, finite and >= 0: a
            number, or a floating 0-d tensor. All tensors share dtype and device; if one length is a
            tensor, numbers are constants of its dtype.
        weights: Weight of each number that operations may carry, as the lengths are. With weights,
            names of nodes have no brackets. None is none.
        state_scale: Divisors of the state of cells (log2 of relative width, log2 of downsampling)
            in the networks that these operations are of, both > 0; where no search space says it,
            distances between networks take it from here. None says nothing about them.

    Raises:
        TypeError: A name, a length or a weight is of the wrong kind.
        ArchitectureError: No or several roots, an unknown parent, a cycle, a missing or superfluous
            length, or a length or weight that is negative or not finite. The message names it.

    Example:
        >>> tree = OperationTree(
        ...     parents={"op": None, "conv": "op", "conv1": "conv", "conv3": "conv", "pool": "op"},
        ...     lengths={"conv": 0.95, "conv1": 0.05, "conv3": 0.05, "pool": 1.0},
        ... )
        >>> tree.labels
        ('conv1', 'conv3', 'pool')
        >>> tree.distance_matrix(dtype=torch.float64).tolist()
        [[0.0, 0.1, 2.0], [0.1, 0.0, 2.0], [2.0, 2.0, 0.0]]
        >>> tree = OperationTree({"op": None, "conv": "op"}, {"conv": 1.0}, {"kernel": 0.5})
        >>> tree.distance_matrix(["conv[kernel=1]", "conv[kernel=4]", "conv"])[0].tolist()
        [0.0, 0.25, 0.25]
    """

    _state_scale: tuple[float, float] | None = None

    def __init__(
        self,
        parents: Mapping[str, str | None],
        lengths: Mapping[str, float | Tensor],
        weights: Mapping[str, float | Tensor] | None = None,
        *,
        state_scale: tuple[float, float] | None = None,
    ) -> None:
        _check_tree(parents)
        if state_scale is not None:
            self._state_scale = divisors("state_scale", state_scale)
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
        self._set_kinds(tuple(node for node in parents if node not in inner))
        self._lengths = _stored("lengths", [lengths[node] for node in self._edges], self._edges)
        self._set_weights(weights, parents)
        self._crossed = self._crossed_edges()
        shape = (len(self._kinds), len(self._kinds), len(self._edges))
        self._paths = torch.zeros(shape, dtype=torch.float64, device="cpu")
        for i, row in enumerate(self._crossed):
            for j, path in enumerate(row):
                self._paths[i, j, path] = 1.0

    @classmethod
    def from_matrix(
        cls,
        labels: Sequence[str],
        matrix: Tensor | Sequence[Sequence[float]],
        weights: Mapping[str, float | Tensor] | None = None,
    ) -> "OperationTree":
        """Wrap a matrix of operation costs in the interface of a tree.

        `lengths_tensor` and `with_lengths` then work on the costs themselves, the
        entries above the diagonal row by row. Gradients reach a tensor `matrix`.

        Args:
            labels: L distinct labels.
            matrix: (L, L) floating tensor or nested sequence of numbers: finite, >= 0, symmetric,
                zero on the diagonal.
            weights: Weights of numbers, as for the class.

        Raises:
            TypeError: `matrix` is no floating tensor or sequence of numbers.
            ArchitectureError: Wrong shape or values; the message names the pair of labels.
        """
        return _CostMatrix(labels, matrix, weights)

    @property
    def labels(self) -> tuple[str, ...]:
        """The operation labels, in the order of the rows of `distance_matrix`.

        They are the `kinds`, or what `with_labels` was given.
        """
        return self._kinds if self._labels is None else self._labels

    @property
    def kinds(self) -> tuple[str, ...]:
        """The leaves: labels without numbers."""
        return self._kinds

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
        return _by_name(self._edges, self._lengths)

    @property
    def weights(self) -> dict[str, float | Tensor]:
        """Weight per number, as `lengths`; empty where operations carry none (a copy)."""
        return _by_name(self._names, self._weights)

    @property
    def state_scale(self) -> tuple[float, float] | None:
        """Divisors of the state of cells in networks of these operations, if they are known."""
        return self._state_scale

    def index(self, label: str) -> int:
        """Return the row of `label` in `distance_matrix`.

        Raises:
            ArchitectureError: The label is unknown, or one that carries numbers and has no row;
                the message says which.
        """
        place = self._index.get(label)
        if place is None:
            self.check(label)
            raise ArchitectureError(
                f"label {label!r} has no row of its own (with_labels gives it one)"
            )
        return place

    def check(self, label: str) -> None:
        """Raise unless the tree knows what an operation of this label costs.

        Raises:
            ArchitectureError: The label is not written as `arch.Operation` writes it, its kind is
                unknown, or one of its numbers has no weight; the message says what is known.
        """
        self._read(label)

    def lengths_tensor(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Return the lengths as one vector, shape (number of edges,), in the order of `edges`.

        Args:
            dtype: Default: that of the tensors it was built with, otherwise torch's default dtype.
            device: Default: that of the tensors, otherwise torch's default device.

        Differentiability: in the tensors that the tree was built with.
        """
        return _tensor(self._lengths, dtype, device)

    def weights_tensor(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Return the weights as one vector, shape (number of weights,), as `lengths_tensor`."""
        return _tensor(self._weights, dtype, device)

    def with_lengths(self, lengths: Tensor) -> "OperationTree":
        """Return the same tree with other lengths.

        Args:
            lengths: Floating tensor of shape (number of edges,), finite and >= 0, in the order of
                `edges`. Its gradient is kept.

        Raises:
            TypeError: `lengths` is not a floating tensor.
            ArchitectureError: Wrong shape, or a negative or non-finite entry.
        """
        self._check_vector("lengths", lengths, self._edges, "edge")
        other = copy.copy(self)
        other._lengths = lengths
        return other

    def with_weights(self, weights: Tensor) -> "OperationTree":
        """Return the same tree with other weights of the numbers.

        Args:
            weights: Floating tensor of shape (number of weights,), finite and >= 0, in the order of
                `weights`. Its gradient is kept.

        Raises:
            TypeError, ArchitectureError: As `with_lengths`.
        """
        self._check_vector("weights", weights, self._names, "weight")
        other = copy.copy(self)
        other._weights = weights
        return other

    def with_labels(self, labels: Iterable[str]) -> "OperationTree":
        """Return the same costs with other rows: those of operations that occur, say.

        Args:
            labels: Distinct labels, with numbers or without.

        Raises:
            ArchitectureError: A label is repeated, or as `check`.
        """
        names = tuple(labels)
        for name in names:
            self.check(name)
        other = copy.copy(self)
        other._labels, other._index = names, {name: row for row, name in enumerate(names)}
        if len(other._index) < len(names):
            position = next(row for row, name in enumerate(names) if names.index(name) < row)
            raise ArchitectureError(
                f"labels[{position}] = {names[position]!r} is repeated; labels must be distinct"
            )
        return other

    def largest_cost(self) -> Tensor:
        """Return what no cost exceeds, whichever labels occur, shape (), float64 and with a graph.

        The largest cost between kinds, and the sum of the weights.
        """
        largest = self._between_kinds(torch.float64, None).max()
        return largest + self.weights_tensor(dtype=torch.float64, device=largest.device).sum()

    def kinds_and_numbers(self, labels: Iterable[str] | None = None) -> tuple[Tensor, Tensor]:
        """Return what the costs of labels are made from.

        Args:
            labels: L labels; default: `labels`.

        Returns:
            Place of each label's kind among `kinds`, (L,) int64, and its numbers in the order of
            `weights`, (L, F) float64, NaN where it has none; both on the CPU.

        Raises:
            ArchitectureError: As `check`.
        """
        read = [self._read(label) for label in (self.labels if labels is None else labels)]
        kinds = torch.tensor([kind for kind, _ in read], dtype=torch.int64, device="cpu")
        return kinds, read_numbers([numbers for _, numbers in read], self._names)

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
            Symmetric, >= 0, zero on the diagonal. Costs between kinds of lengths that are plain
            numbers are correctly rounded sums. A cost depends on its two labels alone, to the bit.

        Raises:
            ArchitectureError: As `check`.

        Differentiability: linear in the lengths and in the weights.

        Complexity: O(K^2 * edges + L^2 * weights) for K kinds, once per call.

        Reference: HOTNAS (Yang, Liu and Xu, CVPR 2023), Section 3.1, operation cost D.
        """
        names = self.labels if labels is None else tuple(labels)
        held = [one for one in (self._lengths, self._weights) if isinstance(one, Tensor)]
        if held:
            dtype, device = dtype or held[0].dtype, device or held[0].device
        matrix = self._between_kinds(dtype, device)
        if names == self._kinds:
            return matrix
        kinds, numbers = self.kinds_and_numbers(names)
        rows = kinds.to(matrix.device)
        matrix = matrix[rows[:, None], rows]
        present = ~numbers.isnan().all(0)
        if not bool(present.any()):
            return matrix
        used = present.nonzero().squeeze(1)
        weights = self.weights_tensor(dtype=matrix.dtype, device=matrix.device)
        return matrix + weighed(numbers[:, used], weights[used.to(matrix.device)])

    def to_json(self) -> dict[str, Any]:
        """Return a description ready for `json.dumps`; tensors are written as numbers.

        `{"parents": ..., "lengths": ...}`, and `"weights"` and `"state_scale"` if there are any;
        not the rows that `with_labels` gave it.
        """
        scale = {} if self.state_scale is None else {"state_scale": list(self.state_scale)}
        tree = {"parents": dict(self._parents), "lengths": self._length_values()}
        return tree | self._written() | scale

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "OperationTree":
        """Build what `to_json` described: a tree, or a cost matrix.

        Raises:
            TypeError: `data` is not a mapping.
            ArchitectureError: A key is missing or unknown, or a value is not what it should be.
        """
        if isinstance(data, Mapping) and "matrix" in data:
            check_keys(data, "a cost matrix", required=("labels", "matrix"), optional=("weights",))
            rows = check_list(data["matrix"], list, "matrix")
            return cls.from_matrix(
                check_list(data["labels"], str, "labels"),
                [check_list(row, float, f"matrix[{i}]") for i, row in enumerate(rows)],
                _read_values(data, "weights"),
            )
        check_keys(
            data,
            "an operation tree",
            required=("parents", "lengths"),
            optional=("weights", "state_scale"),
        )
        parents = {}
        for node, parent in check_value(data["parents"], dict, "parents").items():
            if parent is not None:
                check_value(parent, str, f"parents[{node!r}]")
            parents[node] = parent
        return cls(
            parents,
            _read_values(data, "lengths"),
            _read_values(data, "weights"),
            state_scale=_read_scale(data),
        )

    def __repr__(self) -> str:
        values = ", ".join(f"{edge}={v:.4g}" for edge, v in self._length_values().items())
        weights = ", ".join(f"{name}={v:.4g}" for name, v in self._weight_values().items())
        weights = f"; weights {weights}" if weights else ""
        return f"OperationTree({len(self.labels)} labels; {values}{weights})"

    def _repr_html_(self) -> str:
        rows = [
            (node, "" if parent is None else parent, self._length_values().get(node, ""))
            for node, parent in self.parents.items()
        ]
        weights = [(f"[{name}=]", "", weight) for name, weight in self._weight_values().items()]
        caption = f"OperationTree of {len(self.labels)} labels"
        return table_html(("node", "parent", "length or weight"), [*rows, *weights], caption)

    def _length_values(self) -> dict[str, float]:
        return _by_name(self._edges, _values(self._lengths))

    def _weight_values(self) -> dict[str, float]:
        return _by_name(self._names, _values(self._weights))

    def _written(self) -> dict[str, Any]:
        return {"weights": self._weight_values()} if self._names else {}

    def _set_kinds(self, kinds: tuple[str, ...]) -> None:
        self._kinds = kinds
        self._labels: tuple[str, ...] | None = None
        self._index = {kind: place for place, kind in enumerate(kinds)}
        self._kind_index = self._index

    def _set_weights(
        self, weights: Mapping[str, float | Tensor] | None, nodes: Iterable[str]
    ) -> None:
        if weights is not None and not isinstance(weights, Mapping):
            raise TypeError(f"weights must be a mapping of number to weight; got {_kind(weights)}")
        self._names = tuple(weights or ())
        for name in self._names:
            check_name("weights", name)
        self._weights = _stored("weights", list((weights or {}).values()), self._names)
        for node in nodes if self._names else ():
            if "[" in node or "]" in node:
                raise ArchitectureError(
                    f"names of operations must be without '[' and ']' where weights are given, as"
                    f" numbers stand in these; got {node!r}"
                )

    def _read(self, label: str) -> tuple[int, Mapping[str, float]]:
        """Return the place of a label's kind, and its numbers."""
        place = self._kind_index.get(label)
        if place is not None:
            return place, {}
        unknown = ""
        if isinstance(label, str) and "[" in label:
            operation = Operation.parse(label)
            place = self._kind_index.get(operation.kind)
            if place is not None:
                for name in operation.numbers:
                    if name not in self._names:
                        weighed = ", ".join(map(repr, self._names)) or "none"
                        raise ArchitectureError(
                            f"label {label!r} carries the number {name!r}, to which this tree gives"
                            f" no weight; numbers with a weight: {weighed} (add it to weights=, at"
                            " 0.0 to leave it out)"
                        )
                return place, operation.numbers
            unknown = f" (its kind is {operation.kind!r})"
        known = ", ".join(map(repr, self._kinds))
        raise ArchitectureError(
            f"label {label!r} is not an operation of this tree{unknown}; known labels: {known} "
            "(add it as a leaf, or pass the tree of the search space the cell is from)"
        )

    def _between_kinds(
        self, dtype: torch.dtype | None, device: torch.device | str | None
    ) -> Tensor:
        if isinstance(self._lengths, Tensor):
            return self._distances(self.lengths_tensor(dtype=dtype, device=device))
        # Sums of floats are rounded once, so that 0.95 + 0.05 + 1 is 2 and not 2 + 4e-16.
        return torch.tensor(
            self._float_distances(self._lengths),
            dtype=dtype or torch.get_default_dtype(),
            device=device,
        )

    def _check_vector(self, what: str, values: object, names: Sequence[str], one: str) -> None:
        if not isinstance(values, Tensor) or not values.is_floating_point():
            raise TypeError(f"{what} must be a floating tensor; got {_kind(values)}")
        if values.shape != (len(names),):
            raise ArchitectureError(
                f"{what} must have shape ({len(names)},), one entry per {one} of {self!r}; "
                f"got {tuple(values.shape)}"
            )
        _check_vector(what, values, names)

    def _crossed_edges(self) -> list[list[list[int]]]:
        """Return for each pair of labels the edges on the path between them."""
        place = {node: position for position, node in enumerate(self._edges)}
        above = []
        for label in self._kinds:
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

    def __init__(
        self,
        labels: Sequence[str],
        matrix: Tensor | Sequence[Sequence[float]],
        weights: Mapping[str, float | Tensor] | None,
    ) -> None:
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
        self._set_kinds(names)
        self._set_weights(weights, names)
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

    def _repr_html_(self) -> str:
        size = len(self.kinds)
        costs = self.distance_matrix(labels=self.kinds).detach().double().tolist()
        caption = f"OperationTree of {size} labels, their costs"
        return matrix_html(costs, self.kinds, caption, size=size)

    def to_json(self) -> dict[str, Any]:
        """Return `{"labels": [...], "matrix": [[...]]}`, and `"weights"` if there are any."""
        matrix = self._between_kinds(torch.float64, None)
        return {"labels": list(self._kinds), "matrix": matrix.detach().tolist()} | self._written()

    def _float_distances(self, lengths: Sequence[float]) -> list[list[float]]:
        return self._distances(torch.tensor(lengths, dtype=torch.float64)).tolist()

    def _distances(self, lengths: Tensor) -> Tensor:
        size = len(self._kinds)
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


def _check_vector(what: str, vector: Tensor, names: Sequence[str]) -> None:
    values = vector.detach()
    valid = torch.isfinite(values) & (values >= 0)
    if not _holds(what, valid.all()):
        place = int((~valid).nonzero()[0].item())
        raise ArchitectureError(
            f"{what}[{names[place]!r}] (entry {place}) must be finite and >= 0; got "
            f"{values[place].item():g}"
        )


def _stored(what: str, values: Sequence[Any], names: Sequence[str]) -> _Stored:
    """Return plain numbers as floats, and anything with a tensor in it as one tensor."""
    sample: Tensor | None = None
    for name, value in zip(names, values, strict=True):
        if isinstance(value, Tensor):
            if value.dim() != 0 or not value.is_floating_point():
                raise TypeError(
                    f"{what}[{name!r}] must be a number or a floating 0-d tensor; got a "
                    f"tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
                )
            if sample is not None and (value.dtype, value.device) != (sample.dtype, sample.device):
                raise TypeError(
                    f"{what} must share dtype and device; {what}[{name!r}] has {value.dtype} "
                    f"on {value.device}, others {sample.dtype} on {sample.device}"
                )
            sample = value
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(
                f"{what}[{name!r}] must be a number or a floating 0-d tensor; got {_kind(value)}"
            )
        elif not 0 <= value < math.inf:
            raise ArchitectureError(f"{what}[{name!r}] must be finite and >= 0; got {value}")
    if sample is None:
        return tuple(float(value) for value in values)
    stacked = torch.stack(
        [torch.as_tensor(value, dtype=sample.dtype, device=sample.device) for value in values]
    )
    _check_vector(what, stacked, names)
    return stacked


def _tensor(
    values: _Stored, dtype: torch.dtype | None, device: torch.device | str | None
) -> Tensor:
    if isinstance(values, Tensor):
        return values.to(device=device, dtype=dtype)
    return torch.tensor(values, dtype=dtype or torch.get_default_dtype(), device=device)


def _values(values: _Stored) -> Sequence[float]:
    return values.detach().tolist() if isinstance(values, Tensor) else values


def _by_name(names: Sequence[str], values: Any) -> dict[str, Any]:
    return dict(zip(names, values.unbind() if isinstance(values, Tensor) else values, strict=True))


def _read_values(data: Mapping[str, Any], key: str) -> dict[str, float]:
    values: dict[str, float] = check_value(data.get(key, {}), dict, key)
    for name, value in values.items():
        check_value(value, float, f"{key}[{name!r}]")
    return values


def _read_scale(data: Mapping[str, Any]) -> tuple[float, float] | None:
    if "state_scale" not in data:
        return None
    try:
        return divisors("state_scale", check_list(data["state_scale"], float, "state_scale"))
    except ValueError as error:
        raise ArchitectureError(str(error)) from None


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of dtype {value.dtype} and shape {tuple(value.shape)}"
    return f"{value!r} of type {type(value).__name__}"
