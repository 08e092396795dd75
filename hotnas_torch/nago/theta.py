# Over 400 lines: two spaces of hyperparameters and what they share.
"""Hyperparameters of network generators, and boxes of them as unit cubes."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from hotnas_torch.arch._json import check_keys, check_list, check_value
from hotnas_torch.nago.box import Box
from hotnas_torch.nago.random_graphs import ErdosRenyi, WattsStrogatz

__all__ = [
    "MERGES",
    "NUM_STAGES",
    "OPERATIONS",
    "Dimension",
    "FlatTheta",
    "FlatThetaSpace",
    "Theta",
    "ThetaBox",
    "ThetaSpace",
]

NUM_STAGES = 3
MERGES = ("sum", "attention", "concat")
"""How tensors that enter a node are merged."""
OPERATIONS = (
    "conv_3x3",
    "conv_5x5",
    "conv_1x1",
    "conv_3x1",
    "conv_1x3",
    "avg_pool_3x3",
    "avg_pool_5x5",
)
"""Operations of a bottom node."""

_SUM = (1.0, 0.0, 0.0)
_CONV_3X3 = (1.0, *(0.0,) * (len(OPERATIONS) - 1))
_NUM_CONVOLUTIONS = sum(name.startswith("conv") for name in OPERATIONS)


@dataclass(frozen=True, slots=True)
class Theta:
    """Hyperparameters of the hierarchical generator (HNAG).

    Args:
        top: Graph of cells.
        mid: Graph inside a cell; one node gives two levels, as in DARTS.
        bottom: Graph of operations inside a node of a cell.
        stage_ratio: Relative length of the three stages, each > 0.
        channel_ratio: Relative width of the three stages, each > 0.
        merge_weights: Weight of each of `MERGES`, >= 0, not all 0.
        operation_weights: Weight of each of `OPERATIONS`, >= 0, at least one of a
            convolution positive (what makes a graph's output never pools).

    Raises:
        TypeError: A graph model of another kind.
        ValueError: Weights or ratios of the wrong number, negative, or all 0.

    Reference: Ru, Esperanca and Carlucci, Neural Architecture Generator Optimization, NeurIPS 2020,
        Section 2.1.

    Example:
        >>> theta = Theta(
        ...     WattsStrogatz(8, 5, 0.6), ErdosRenyi(1, 0.7), WattsStrogatz(5, 4, 0.2)
        ... )
        >>> Theta.from_json(theta.to_json()) == theta
        True
    """

    top: WattsStrogatz
    mid: ErdosRenyi
    bottom: WattsStrogatz
    stage_ratio: tuple[float, ...] = (1.0, 1.0, 1.0)
    channel_ratio: tuple[float, ...] = (1.0, 2.0, 4.0)
    merge_weights: tuple[float, ...] = _SUM
    operation_weights: tuple[float, ...] = _CONV_3X3

    def __post_init__(self) -> None:
        _check_model("top", self.top, WattsStrogatz)
        _check_model("mid", self.mid, ErdosRenyi)
        _check_model("bottom", self.bottom, WattsStrogatz)
        _check_ratio("stage_ratio", self.stage_ratio)
        _check_shared(self.channel_ratio, self.merge_weights, self.operation_weights)

    def to_json(self) -> dict[str, Any]:
        """Return the hyperparameters by name, ready for `json.dumps`."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Theta":
        """Build what `to_json` described.

        Raises:
            TypeError: `data` is not a mapping.
            ArchitectureError: A key is missing or unknown, or a value of another kind.
            ValueError: A value out of range.
        """
        check_keys(data, "a Theta", ("top", "mid", "bottom", "stage_ratio", *_SHARED))
        return cls(
            _watts_strogatz("top", data["top"]),
            _erdos_renyi("mid", data["mid"]),
            _watts_strogatz("bottom", data["bottom"]),
            *(tuple(check_list(data[name], float, name)) for name in ("stage_ratio", *_SHARED)),
        )


@dataclass(frozen=True, slots=True)
class FlatTheta:
    """Hyperparameters of the flat generator (RNAG): three graphs of operations in sequence.

    Args:
        stages: One graph of operations per stage.
        channel_ratio: As for `Theta`.
        merge_weights: As for `Theta`.
        operation_weights: As for `Theta`.

    Raises:
        TypeError: A graph model of another kind.
        ValueError: As for `Theta`, or not three stages.

    Reference: Xie, Kirillov, Girshick and He, Exploring Randomly Wired Neural Networks for Image
        Recognition, ICCV 2019; its best generator is `WattsStrogatz(32, 4, 0.75)` three times.
    """

    stages: tuple[WattsStrogatz, ...] = (WattsStrogatz(32, 4, 0.75),) * NUM_STAGES
    channel_ratio: tuple[float, ...] = (1.0, 2.0, 4.0)
    merge_weights: tuple[float, ...] = _SUM
    operation_weights: tuple[float, ...] = _CONV_3X3

    def __post_init__(self) -> None:
        if len(self.stages) != NUM_STAGES:
            raise ValueError(f"stages must hold {NUM_STAGES} graphs; got {len(self.stages)}")
        for stage, model in enumerate(self.stages):
            _check_model(f"stages[{stage}]", model, WattsStrogatz)
        _check_shared(self.channel_ratio, self.merge_weights, self.operation_weights)

    def to_json(self) -> dict[str, Any]:
        """Return the hyperparameters by name, ready for `json.dumps`."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "FlatTheta":
        """Build what `to_json` described; errors as for `Theta.from_json`."""
        check_keys(data, "a FlatTheta", ("stages", *_SHARED))
        return cls(
            tuple(
                _watts_strogatz(f"stages[{stage}]", entry)
                for stage, entry in enumerate(check_list(data["stages"], dict, "stages"))
            ),
            *(tuple(check_list(data[name], float, name)) for name in _SHARED),
        )


@dataclass(frozen=True, slots=True)
class Dimension:
    """One hyperparameter of a box.

    Attributes:
        name: What it is.
        low: Smallest value.
        high: Largest value, >= low.
        integer: Whether only integers count. The unit interval then falls into equal bins, one per
            integer, and an integer's coordinate is the middle of its bin.
    """

    name: str
    low: float
    high: float
    integer: bool = False

    @property
    def num_values(self) -> int:
        """Number of integers in the range."""
        return int(self.high - self.low) + 1

    def decode(self, unit: Tensor) -> Tensor:
        """Map coordinates in [0, 1] to values, float64 of the same shape."""
        if self.integer:
            place = (unit * self.num_values).floor().clamp(0, self.num_values - 1)
            return self.low + place
        return self.low + (self.high - self.low) * unit

    def encode(self, values: Tensor) -> Tensor:
        """Map values to coordinates in [0, 1], float64 of the same shape."""
        if self.integer:
            return (values - self.low + 0.5) / self.num_values
        return (values - self.low) / (self.high - self.low)


T = TypeVar("T", Theta, FlatTheta)


class ThetaBox(Box, Generic[T]):
    """What both boxes of hyperparameters share: columns with a name, a range and a scale.

    Attributes:
        dimensions: The d hyperparameters, in the order of the columns.
    """

    dimensions: tuple[Dimension, ...]

    @property
    def dim(self) -> int:
        """Number of coordinates d."""
        return len(self.dimensions)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the d hyperparameters."""
        return tuple(dimension.name for dimension in self.dimensions)

    def round(self, X: Tensor, /) -> Tensor:
        """Move integer coordinates to the middle of their bins, (..., d) float64 in and out.

        Points that are equal afterwards are the same hyperparameters. Where a group of weights is
        searched over, only their ratios count; that is not undone here.
        """
        columns = [
            dimension.encode(dimension.decode(column)) if dimension.integer else column
            for dimension, column in zip(self.dimensions, X.unbind(dim=-1), strict=True)
        ]
        return torch.stack(columns, dim=-1)

    def decode(self, X: Tensor, /) -> list[T]:
        """Return the hyperparameters of points of the cube.

        Args:
            X: (n, d) floating, in [0, 1].

        Raises:
            ValueError: Wrong shape, or a coordinate outside [0, 1]; the message names it.
        """
        self._check(X)
        rows = torch.stack(
            [
                dimension.decode(column)
                for dimension, column in zip(
                    self.dimensions, X.detach().cpu().double().unbind(dim=1), strict=True
                )
            ],
            dim=1,
        )
        return [self._build(row) for row in rows.tolist()]

    def encode(self, thetas: Sequence[T]) -> Tensor:
        """Return the points of hyperparameters, (n, d) float64; `decode` is its inverse.

        Hyperparameters that are not searched over must have the values that this box fixes.

        Raises:
            ValueError: A value outside the box, or one that the box fixes otherwise.
        """
        rows = [self._values(theta) for theta in thetas]
        values = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), self.dim)
        for column, dimension in enumerate(self.dimensions):
            outside = (values[:, column] < dimension.low) | (values[:, column] > dimension.high)
            if outside.any():
                row = int(outside.nonzero()[0])
                raise ValueError(
                    f"thetas[{row}] must have {dimension.name} in [{dimension.low:g}, "
                    f"{dimension.high:g}]; got {values[row, column].item():g}"
                )
        X = torch.stack(
            [
                dimension.encode(column)
                for dimension, column in zip(self.dimensions, values.unbind(dim=1), strict=True)
            ],
            dim=1,
        )
        for row, (theta, back) in enumerate(zip(thetas, self.decode(X), strict=True)):
            if not _close(theta.to_json(), back.to_json()):
                raise ValueError(
                    f"thetas[{row}] must agree with what this space does not search over; got "
                    f"{theta} where the space has {back}"
                )
        return X

    @abstractmethod
    def _build(self, row: list[float]) -> T:
        """Build the hyperparameters of d values in the dimensions' units."""

    @abstractmethod
    def _values(self, theta: T) -> list[float]:
        """Return the d values of hyperparameters, in the dimensions' units."""

    def _check(self, X: Tensor) -> None:
        if X.dim() != 2 or X.shape[1] != self.dim:
            raise ValueError(
                f"X must have shape (n, {self.dim}), one column per hyperparameter "
                f"{self.columns}; got {tuple(X.shape)}"
            )
        inside = (X >= 0.0) & (X <= 1.0)
        if not inside.all():
            row, column = (~inside).nonzero()[0].tolist()
            raise ValueError(
                f"X[{row}, {column}] ({self.columns[column]}) must be in [0, 1]; got "
                f"{X[row, column].item():g}"
            )


class ThetaSpace(ThetaBox[Theta]):
    """The box of HNAG's hyperparameters; by default the paper's eight.

    A vector of ratios or weights that is searched over takes one coordinate per entry and is scaled
    so that its largest entry is 1. Weights that are all 0, and operations without a convolution,
    count as the defaults.

    Args:
        nodes: Range of N of the top and bottom graphs.
        mid_nodes: Range of N of the middle graph.
        neighbors: Range of K.
        rewiring: Range of P of the top and bottom graphs.
        edge_probability: Range of P of the middle graph.
        stage_ratio: Fixed ratio, or None to search over it, entries in [0.1, 1].
        channel_ratio: Fixed ratio, or None to search over it, entries in [0.25, 1].
        merge_weights: Fixed weights, or None to search over them, entries in [0, 1].
        operation_weights: Fixed weights, or None to search over them, entries in [0, 1].

    Raises:
        ValueError: A range that is empty or a single value.

    Example:
        >>> space = ThetaSpace()
        >>> space.columns
        ('top N', 'top K', 'top P', 'mid N', 'mid P', 'bottom N', 'bottom K', 'bottom P')
        >>> X = space.sample(3, generator=torch.Generator().manual_seed(0))
        >>> bool(torch.allclose(space.encode(space.decode(X)), X))
        True
    """

    def __init__(
        self,
        *,
        nodes: tuple[int, int] = (3, 10),
        mid_nodes: tuple[int, int] = (1, 10),
        neighbors: tuple[int, int] = (2, 5),
        rewiring: tuple[float, float] = (0.1, 1.0),
        edge_probability: tuple[float, float] = (0.1, 1.0),
        stage_ratio: tuple[float, ...] | None = (1.0, 1.0, 1.0),
        channel_ratio: tuple[float, ...] | None = (1.0, 2.0, 4.0),
        merge_weights: tuple[float, ...] | None = _SUM,
        operation_weights: tuple[float, ...] | None = _CONV_3X3,
    ) -> None:
        self._fixed = {
            "stage_ratio": stage_ratio,
            "channel_ratio": channel_ratio,
            "merge_weights": merge_weights,
            "operation_weights": operation_weights,
        }
        self.dimensions = (
            *_small_world("top ", nodes, neighbors, rewiring),
            _dimension("mid N", mid_nodes, integer=True),
            _dimension("mid P", edge_probability),
            *_small_world("bottom ", nodes, neighbors, rewiring),
            *_vectors(self._fixed),
        )

    def _build(self, row: list[float]) -> Theta:
        top_n, top_k, top_p, mid_n, mid_p, bottom_n, bottom_k, bottom_p = row[:8]
        return Theta(
            WattsStrogatz(int(top_n), int(top_k), top_p),
            ErdosRenyi(int(mid_n), mid_p),
            WattsStrogatz(int(bottom_n), int(bottom_k), bottom_p),
            **_read_vectors(row[8:], self._fixed),
        )

    def _values(self, theta: Theta) -> list[float]:
        return [
            *(theta.top.num_nodes, theta.top.num_neighbors, theta.top.rewiring),
            *(theta.mid.num_nodes, theta.mid.edge_probability),
            *(theta.bottom.num_nodes, theta.bottom.num_neighbors, theta.bottom.rewiring),
            *_write_vectors(theta, self._fixed),
        ]


class FlatThetaSpace(ThetaBox[FlatTheta]):
    """The box of RNAG's hyperparameters; by default three graphs with three each.

    Args:
        nodes: Range of N.
        neighbors: Range of K.
        rewiring: Range of P.
        channel_ratio: As for `ThetaSpace`, and so the rest.
        merge_weights: Fixed weights, or None.
        operation_weights: Fixed weights, or None.

    Raises:
        ValueError: A range that is empty or a single value.
    """

    def __init__(
        self,
        *,
        nodes: tuple[int, int] = (3, 32),
        neighbors: tuple[int, int] = (2, 8),
        rewiring: tuple[float, float] = (0.1, 1.0),
        channel_ratio: tuple[float, ...] | None = (1.0, 2.0, 4.0),
        merge_weights: tuple[float, ...] | None = _SUM,
        operation_weights: tuple[float, ...] | None = _CONV_3X3,
    ) -> None:
        self._fixed = {
            "channel_ratio": channel_ratio,
            "merge_weights": merge_weights,
            "operation_weights": operation_weights,
        }
        self.dimensions = (
            *(
                dimension
                for stage in range(1, NUM_STAGES + 1)
                for dimension in _small_world(f"stage {stage} ", nodes, neighbors, rewiring)
            ),
            *_vectors(self._fixed),
        )

    def _build(self, row: list[float]) -> FlatTheta:
        return FlatTheta(
            tuple(
                WattsStrogatz(int(row[at]), int(row[at + 1]), row[at + 2])
                for at in range(0, 3 * NUM_STAGES, 3)
            ),
            **_read_vectors(row[3 * NUM_STAGES :], self._fixed),
        )

    def _values(self, theta: FlatTheta) -> list[float]:
        graphs = [
            value
            for model in theta.stages
            for value in (model.num_nodes, model.num_neighbors, model.rewiring)
        ]
        return [*graphs, *_write_vectors(theta, self._fixed)]


_SHARED = ("channel_ratio", "merge_weights", "operation_weights")
_ENTRIES = {
    "stage_ratio": ("stage 1", "stage 2", "stage 3"),
    "channel_ratio": ("width 1", "width 2", "width 3"),
    "merge_weights": MERGES,
    "operation_weights": OPERATIONS,
}
_LOWEST = {
    "stage_ratio": 0.1,
    "channel_ratio": 0.25,
    "merge_weights": 0.0,
    "operation_weights": 0.0,
}

Vectors = dict[str, "tuple[float, ...] | None"]


def _dimension(name: str, bounds: tuple[float, float], *, integer: bool = False) -> Dimension:
    low, high = bounds
    if not low < high:
        raise ValueError(f"the range of {name!r} must have low < high; got {bounds}")
    return Dimension(name, low, high, integer)


def _small_world(
    name: str,
    nodes: tuple[float, float],
    neighbors: tuple[float, float],
    rewiring: tuple[float, float],
) -> list[Dimension]:
    return [
        _dimension(f"{name}N", nodes, integer=True),
        _dimension(f"{name}K", neighbors, integer=True),
        _dimension(f"{name}P", rewiring),
    ]


def _vectors(fixed: Vectors) -> list[Dimension]:
    return [
        Dimension(entry, _LOWEST[name], 1.0)
        for name, value in fixed.items()
        if value is None
        for entry in _ENTRIES[name]
    ]


def _read_vectors(row: list[float], fixed: Vectors) -> dict[str, tuple[float, ...]]:
    """Take searched vectors from the rest of a row, others as they are fixed."""
    vectors = {}
    for name, value in fixed.items():
        if value is not None:
            vectors[name] = value
            continue
        entries, row = row[: len(_ENTRIES[name])], row[len(_ENTRIES[name]) :]
        if name == "operation_weights" and not any(entries[:_NUM_CONVOLUTIONS]):
            entries = [*_CONV_3X3[:_NUM_CONVOLUTIONS], *entries[_NUM_CONVOLUTIONS:]]
        elif not any(entries):
            entries = list(_SUM)
        vectors[name] = _scaled(entries)
    return vectors


def _write_vectors(theta: Theta | FlatTheta, fixed: Vectors) -> list[float]:
    return [
        entry
        for name, value in fixed.items()
        if value is None
        for entry in _scaled(getattr(theta, name))
    ]


def _scaled(vector: Sequence[float]) -> tuple[float, ...]:
    largest = max(vector)
    return tuple(entry / largest for entry in vector)


def _close(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two descriptions agree up to the scale of vectors and to rounding."""
    return all(_numbers_close(name, first[name], second[name]) for name in first)


def _numbers_close(name: str, first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return all(_numbers_close(key, first[key], second[key]) for key in first)
    if isinstance(first, list):
        if name in _ENTRIES:
            first, second = _scaled(first), _scaled(second)
        return len(first) == len(second) and all(
            _numbers_close("", a, b) for a, b in zip(first, second, strict=True)
        )
    return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-9)


def _check_model(name: str, model: object, kind: type) -> None:
    if not isinstance(model, kind):
        raise TypeError(f"{name} must be a {kind.__name__}; got {model!r}")


def _check_ratio(name: str, ratio: tuple[float, ...]) -> None:
    if len(ratio) != NUM_STAGES or not all(0.0 < entry < math.inf for entry in ratio):
        raise ValueError(f"{name} must be {NUM_STAGES} finite numbers > 0; got {ratio}")


def _check_weights(name: str, weights: tuple[float, ...], entries: tuple[str, ...]) -> None:
    if len(weights) != len(entries) or not all(0.0 <= entry < math.inf for entry in weights):
        raise ValueError(
            f"{name} must be {len(entries)} finite weights >= 0, of {entries}; got {weights}"
        )
    if not any(weights):
        raise ValueError(f"{name} must have a positive entry; got {weights}")


def _check_shared(
    channel_ratio: tuple[float, ...],
    merge_weights: tuple[float, ...],
    operation_weights: tuple[float, ...],
) -> None:
    _check_ratio("channel_ratio", channel_ratio)
    _check_weights("merge_weights", merge_weights, MERGES)
    _check_weights("operation_weights", operation_weights, OPERATIONS)
    if not any(operation_weights[:_NUM_CONVOLUTIONS]):
        raise ValueError(
            "operation_weights must have a positive entry for a convolution, which nodes that make "
            f"a graph's output draw from; got {operation_weights}"
        )


def _plain(data: Any) -> Any:
    """Turn tuples into lists, all the way down."""
    if isinstance(data, dict):
        return {name: _plain(value) for name, value in data.items()}
    if isinstance(data, tuple):
        return [_plain(value) for value in data]
    return data


def _watts_strogatz(name: str, data: Any) -> WattsStrogatz:
    check_keys(data, name, ("num_nodes", "num_neighbors", "rewiring"))
    return WattsStrogatz(
        check_value(data["num_nodes"], int, f"{name}.num_nodes"),
        check_value(data["num_neighbors"], int, f"{name}.num_neighbors"),
        check_value(data["rewiring"], float, f"{name}.rewiring"),
    )


def _erdos_renyi(name: str, data: Any) -> ErdosRenyi:
    check_keys(data, name, ("num_nodes", "edge_probability"))
    return ErdosRenyi(
        check_value(data["num_nodes"], int, f"{name}.num_nodes"),
        check_value(data["edge_probability"], float, f"{name}.edge_probability"),
    )
