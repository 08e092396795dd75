"""Multi-objective Bayesian optimisation over a box: asking, telling, fronts."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from botorch.utils.multi_objective.box_decompositions.dominated import DominatedPartitioning
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from hotnas_torch.arguments import integer, takes
from hotnas_torch.nago.box import Box, check_box, check_rows, describe_box, distinct_from
from hotnas_torch.nago.selection import Selection, SelectionInputs, UncertainPareto
from hotnas_torch.nago.surrogates import BNNSurrogate, Surrogate
from hotnas_torch.search.asking import AskTell
from hotnas_torch.search.bayesian.targets import targets

__all__ = ["MOBO", "hypervolume"]

# Draws in a row that meet known points before a known one is taken.
_SPARE_DRAWS = 256
# No model can be fitted to fewer.
_FEWEST = 2


class MOBO(AskTell):
    """Minimise several objectives over a box by asking for points and observing their values.

    The first points are random. Then a surrogate is fitted to all values, and a selection chooses
    points by it: by default NAGO's, the most uncertain compromise between the objectives'
    acquisition functions on a heteroscedastic Bayesian network, see `UncertainPareto`.
    `HypervolumeImprovement` is BoTorch's qLogNEHVI, `RandomChoice` random search;
    each works with each surrogate.

    Points that are asked for and not observed yet are pending: further points keep away from them.
    A point is not asked for twice, unless the box has no other. Everything random comes from
    `generator`, which only `ask` advances.

    Args:
        space: What is searched.
        num_objectives: m, >= 2.
        selection: How points are chosen; None takes `UncertainPareto()`.
        surrogate: What is fitted to the values; None takes `BNNSurrogate()`.
        num_initial: Random points at the start, those observed without being asked for
            included, >= 2.
        generator: Source of all randomness.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: A number out of range.

    Reference: Ru, Esperanca and Carlucci, Neural Architecture Generator Optimization, NeurIPS 2020,
        Section 2.2; Belakaria et al., Uncertainty-Aware Search Framework for Multi-Objective
        Bayesian Optimization, AAAI 2020 (USeMO).

    Example:
        >>> from hotnas_torch.nago.surrogates import GPSurrogate
        >>> from hotnas_torch.nago import UnitBox
        >>> generator = torch.Generator().manual_seed(0)
        >>> search = MOBO(UnitBox(2), surrogate=GPSurrogate(), generator=generator)
        >>> for num in (5, 3):
        ...     rows = search.ask(num)
        ...     x, y = rows.T
        ...     search.tell(rows, torch.stack([x + y, (1 - x).square() + y], dim=1))
        >>> rows, values = search.front()
        >>> bool((values[:, 0].sort().values.diff() > 0).all())
        True
    """

    name = "mobo"

    @takes()
    def __init__(
        self,
        space: Box,
        *,
        num_objectives: int = 2,
        selection: Selection | None = None,
        surrogate: Surrogate | None = None,
        num_initial: int = 5,
        generator: torch.Generator | None,
    ) -> None:
        self.space = check_box(space)
        super().__init__(generator)
        self.num_objectives = num_objectives = integer("num_objectives", num_objectives, least=2)
        self.num_initial = integer("num_initial", num_initial, least=2)
        self.selection = UncertainPareto() if selection is None else selection
        self.surrogate = BNNSurrogate() if surrogate is None else surrogate
        if not callable(self.selection) or not callable(self.surrogate):
            raise TypeError("selection and surrogate must be callable")
        self._X = torch.empty(0, space.dim, dtype=torch.float64)
        self._Y = torch.empty(0, num_objectives, dtype=torch.float64)
        self._pending = torch.empty(0, space.dim, dtype=torch.float64)

    # --- asking and telling -----------------------------------------------------------------------

    def ask(self, num: int = 1) -> Tensor:
        """Propose points to evaluate; they are pending until observed.

        Args:
            num: How many, >= 1.

        Returns:
            Rows, (num, d) float64.

        Raises:
            ValueError: `num` is below 1.
        """
        num = integer("num", num, least=1)
        with self._asking():
            rows = self._propose(num)
        self._pending = torch.cat([self._pending, rows])
        return rows

    def tell(self, rows: Tensor, values: Tensor) -> None:
        """Record values. Either everything is recorded or, on an error, nothing.

        Args:
            rows: Points in [0, 1], (N, d), also such as were not asked for; x if values are noisy.
            values: Their values, to be minimised, (N, m); a NaN in a row is a failed evaluation.

        Raises:
            TypeError: No tensors.
            ValueError: Shapes do not fit, a row lies outside, or a value is infinite.
        """
        check_rows("rows", rows, self.space.dim)
        if not isinstance(values, Tensor):
            raise TypeError(f"values must be a tensor; got {type(values).__name__}")
        if values.dtype is torch.bool or values.dtype.is_complex:
            raise TypeError(f"values must be real numbers; got {values.dtype}")
        if values.shape != (len(rows), self.num_objectives):
            raise ValueError(
                f"values must have shape ({len(rows)}, {self.num_objectives}); got"
                f" {tuple(values.shape)}"
            )
        if bool(values.isinf().any()):
            row = int(values.isinf().any(dim=1).nonzero()[0])
            raise ValueError(
                f"values must be finite, or NaN for a failed evaluation; row {row} is"
                f" {values[row].tolist()}"
            )
        with torch.inference_mode(False):
            # Copies: what came from inference mode could not be fitted to.
            rows = rows.detach().cpu().double().clone()
            values = values.detach().cpu().double().clone()
        for row in rows:
            same = (self._pending == row).all(dim=1).nonzero()
            if len(same):
                kept = torch.arange(len(self._pending)) != same[0]
                self._pending = self._pending[kept]
        self._X = torch.cat([self._X, rows])
        self._Y = torch.cat([self._Y, values])

    @property
    def observations(self) -> tuple[Tensor, Tensor]:
        """All that was observed, in order: rows (N, d) and values (N, m)."""
        return self._X.clone(), self._Y.clone()

    @property
    def pending(self) -> Tensor:
        """Rows that were asked for and not observed yet, (p, d)."""
        return self._pending.clone()

    def front(self) -> tuple[Tensor, Tensor]:
        """Return the observations that no other one dominates: rows (F, d) and values (F, m).

        They are ordered by the first objective; of equal values the earliest is kept.
        """
        X, Y = self._finite()
        chosen = is_non_dominated(-Y, deduplicate=True)
        order = Y[chosen][:, 0].argsort(stable=True)
        return X[chosen][order], Y[chosen][order]

    def hypervolume(self, reference: Tensor) -> float:
        """Return what the observations dominate below a point, see `hypervolume`."""
        return hypervolume(self._finite()[1], reference)

    def _finite(self) -> tuple[Tensor, Tensor]:
        """Return the observations that have values."""
        known = ~self._Y.isnan().any(dim=1)
        return self._X[known], self._Y[known]

    def _propose(self, num: int) -> Tensor:
        known = torch.cat([self._X, self._pending])
        X, Y = self._finite()
        num_random = min(num, max(self.num_initial - len(known), 0))
        if len(X) < _FEWEST:
            num_random = num
        rows = self._random(num_random, known)
        if num_random == num:
            return rows
        Y = torch.stack([targets(column) for column in Y.unbind(dim=1)], dim=1)
        inputs = SelectionInputs(
            space=self.space,
            X=X,
            Y=Y,
            known=torch.cat([known, rows]),
            pending=torch.cat([self._pending, rows]),
            generator=self._generator,
            fit=lambda: self.surrogate(X, Y, self._generator),
        )
        chosen = self.selection(inputs, num - num_random)
        rows = torch.cat([rows, chosen])
        return torch.cat([rows, self._random(num - len(rows), torch.cat([known, rows]))])

    def _random(self, num: int, known: Tensor) -> Tensor:
        rows = self._X[:0]
        misses = 0
        while len(rows) < num:
            row = self.space.sample(1, generator=self._generator)
            if misses < _SPARE_DRAWS and not distinct_from(row, torch.cat([known, rows])).item():
                misses += 1
                continue
            rows, misses = torch.cat([rows, row]), 0
        return rows

    # --- state ------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """Return the settings, the parts by what they show."""
        return {
            "num_objectives": self.num_objectives,
            "num_initial": self.num_initial,
            "selection": repr(self.selection),
            "surrogate": repr(self.surrogate),
        }

    def _space_description(self) -> dict[str, Any]:
        return describe_box(self.space)

    def _memory(self) -> dict[str, Any]:
        return {
            "rows": self._X.tolist(),
            "values": [
                [None if math.isnan(value) else value for value in row] for row in self._Y.tolist()
            ],
            "pending": self._pending.tolist(),
        }

    def _remembered(self, state: Mapping[str, Any]) -> dict[str, Any]:
        values = [
            [math.nan if value is None else value for value in row] for row in state["values"]
        ]
        return {
            "_X": self._read(state["rows"], self.space.dim),
            "_Y": self._read(values, self.num_objectives),
            "_pending": self._read(state["pending"], self.space.dim),
        }

    @staticmethod
    def _read(rows: list[list[float]], columns: int) -> Tensor:
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, columns)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.space!r}, selection={self.selection!r},"
            f" surrogate={self.surrogate!r})"
        )


def hypervolume(values: Tensor, reference: Tensor) -> float:
    """Volume that points dominate below a reference point, smaller values being better.

    Args:
        values: N points, (N, m), without NaN.
        reference: A point, (m,), what lies above it in any objective counts for nothing.

    Returns:
        The volume, 0 for no points; by BoTorch's box decomposition.

    Raises:
        ValueError: Shapes do not fit.

    Example:
        >>> hypervolume(torch.tensor([[1.0, 3.0], [2.0, 2.0]]), torch.tensor([4.0, 4.0]))
        5.0
    """
    if values.ndim != 2 or reference.shape != values.shape[1:]:
        raise ValueError(
            "values must have shape (N, m) and reference (m,); got"
            f" {tuple(values.shape)} and {tuple(reference.shape)}"
        )
    if len(values) == 0:
        return 0.0
    boxes = DominatedPartitioning(ref_point=-reference.double(), Y=-values.double())
    return float(boxes.compute_hypervolume())
