"""Gaussian processes on distances that are computed once: exponential kernels of their parts."""

import math
from typing import Any

import torch
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.utils.types import DEFAULT, _DefaultType
from gpytorch.constraints import Interval
from gpytorch.kernels import ScaleKernel
from gpytorch.likelihoods import Likelihood
from gpytorch.means import Mean
from gpytorch.priors import LogNormalPrior
from torch import Tensor

from hotnas_torch.distances import NetworkDistance
from hotnas_torch.gp.distances import NetworkIndex
from hotnas_torch.gp.landmarks import NetworkKernel
from hotnas_torch.gp.observations import check_input_transform, check_modules, checked_rows
from hotnas_torch.gp.outputs import IndependentOutputs, rows_of_elements
from hotnas_torch.gp.psd import DEFAULT_CUTOFF
from hotnas_torch.gp.settings import KERNEL_SETTINGS, takes

__all__ = ["DistanceGP", "DistanceKernel", "LogInterval", "PartMemory"]

_MAX_ELEMENTS = 2**24
"""Remembered numbers beyond which rows that are no columns are forgotten."""

_OUTPUT_SCALES = 1e-2, 1e2

_ROOM = 0.02
"""Share of a range, on a log scale, that a start keeps from its ends: a sigmoid is flat there."""


class LogInterval(Interval):  # type: ignore[misc]
    """Numbers between positive bounds, parametrised by the sigmoid of their place on a log scale.

    Args:
        lower_bound: Smallest values, > 0, any shape.
        upper_bound: Largest values, of the same shape.
    """

    def __init__(self, lower_bound: Tensor | float, upper_bound: Tensor | float) -> None:
        super().__init__(lower_bound, upper_bound)

    def _ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.lower_bound.to(like).log(), self.upper_bound.to(like).log()

    def transform(self, tensor: Tensor) -> Tensor:
        """The number of a raw value."""
        low, high = self._ends(tensor)
        return torch.exp(low + tensor.sigmoid() * (high - low))

    def inverse_transform(self, transformed_tensor: Tensor) -> Tensor:
        """The raw value of a number; numbers at or beyond the ends are taken a little inside."""
        low, high = self._ends(transformed_tensor)
        share = (transformed_tensor.log() - low) / (high - low)
        return share.clamp(_ROOM, 1.0 - _ROOM).logit()


class PartMemory:
    """The parts of a distance between numbered networks, each pair computed once.

    Deep copies share the memory; a pickled one is empty.

    Args:
        distance: The distance.

    Attributes:
        index: Numbers of the networks.
    """

    def __init__(self, distance: NetworkDistance) -> None:
        self.distance = distance
        self.index = NetworkIndex(distance.space)
        self._forget()

    def __deepcopy__(self, memo: dict[int, Any]) -> "PartMemory":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"distance": self.distance}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["distance"])  # type: ignore[misc]

    def _forget(self) -> None:
        # Place of every network number among rows and columns of the table, -1 for none.
        self._row = torch.empty(0, dtype=torch.int64)
        self._col = torch.empty(0, dtype=torch.int64)
        self._table = torch.empty(len(self.distance.parts), 0, 0, dtype=torch.float64)

    def __call__(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Parts of distances, without a graph.

        Args:
            rows: Distinct numbers, shape (r,).
            cols: Distinct numbers, shape (c,).

        Returns:
            Shape (K, r, c), float64 on the CPU.
        """
        with torch.no_grad():
            self._make_room(rows, cols)
            unknown = self._unknown(rows, cols)
            if bool(unknown.any()):
                # New rows first: where they are columns as well, they fill the others' gaps.
                self._compute(rows[unknown.all(1)], cols)
                unknown = self._unknown(rows, cols)
                self._compute(rows[unknown.any(1)], cols[unknown.any(0)])
            return self._table[:, self._row[rows][:, None], self._col[cols]]

    def _unknown(self, rows: Tensor, cols: Tensor) -> Tensor:
        return self._table[0][self._row[rows][:, None], self._col[cols]].isnan()

    def _compute(self, rows: Tensor, cols: Tensor) -> None:
        if len(rows) == 0 or len(cols) == 0:
            return
        # The same list on both sides is half the work.
        columns = None if torch.equal(rows, cols) else self.index.select(cols)
        found = self.distance.part_distances(self.index.select(rows), columns)
        self._table[:, self._row[rows][:, None], self._col[cols]] = found
        as_rows, as_cols = self._row[cols] >= 0, self._col[rows] >= 0
        mirrored = found[:, as_cols][:, :, as_rows].mT
        place = self._row[cols[as_rows]][:, None], self._col[rows[as_cols]]
        self._table[:, place[0], place[1]] = mirrored

    def _make_room(self, rows: Tensor, cols: Tensor) -> None:
        parts, num_rows, num_cols = self._table.shape
        added = len(self.index.networks) - len(self._row)
        fresh = torch.full((added,), -1)
        self._row, self._col = torch.cat([self._row, fresh]), torch.cat([self._col, fresh])
        new_rows, new_cols = rows[self._row[rows] < 0], cols[self._col[cols] < 0]
        if parts * (num_rows + len(new_rows)) * (num_cols + len(new_cols)) > _MAX_ELEMENTS:
            stays = (self._row >= 0) & (self._col >= 0)
            self._table = self._table[:, self._row[stays]]
            self._row = torch.full_like(self._row, -1)
            self._row[stays] = torch.arange(self._table.shape[1])
            new_rows = rows[self._row[rows] < 0]
            num_rows = self._table.shape[1]
        if len(new_rows) == 0 and len(new_cols) == 0:
            return
        self._row[new_rows] = torch.arange(num_rows, num_rows + len(new_rows))
        self._col[new_cols] = torch.arange(num_cols, num_cols + len(new_cols))
        grown = self._table.new_full(
            (parts, num_rows + len(new_rows), num_cols + len(new_cols)), torch.nan
        )
        grown[:, :num_rows, :num_cols] = self._table
        self._table = grown
        self._mirror(new_cols[self._row[new_cols] >= 0])

    def _mirror(self, cols: Tensor) -> None:
        """Fills new columns of networks that were rows before."""
        both = ((self._row >= 0) & (self._col >= 0)).nonzero().squeeze(1)
        known = self._table[:, self._row[cols][:, None], self._col[both]]
        self._table[:, self._row[both][:, None], self._col[cols]] = known.mT


class DistanceKernel(NetworkKernel):
    r"""Sum of exponentials of the parts of a distance between the networks behind encoded rows.

    .. math:: k(x, x') = \sum_t s_t \exp\Big(-\sum_{k \in t} d_k(x, x')^{p_t} / \ell_k\Big)

    The terms t with their parts, powers and ranges are the distance's `kernel_terms`. The scales
    l_k and, with several terms, the shares s_t (positive, with sum 1) are learned. With landmarks
    it is positive semi-definite, see `LandmarkKernel`; a distance that is `negative_definite` needs
    none.

    Args:
        distance: The distance, with a space.
        memory: What remembers its values; None starts a new one. Share one between kernels of one
            search.
        landmarks: Rows Z of the feature map, shape (..., n, d).
        cutoff: Eigenvalues of K_ZZ below it are dropped, see `hotnas_torch.gp.psd.inverse_root`.
        **kwargs: ``batch_shape``, ``active_dims``, as for every :class:`gpytorch.kernels.Kernel`.

    Raises:
        TypeError: ``distance`` is no NetworkDistance, or a setting is unknown or of the wrong kind.
        ValueError: ``memory`` is of another distance, or ``cutoff`` is not positive.

    Differentiability: in the scales and shares, once; not in the rows.

    Complexity: one distance per pair of a new row and a landmark; O(n^3) per evaluation with n
        landmarks, O(n^2) without.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> kernel = DistanceKernel(ht.distances.TreeWasserstein(space)).double()
        >>> X = space.encode(space.sample(3, generator=torch.Generator().manual_seed(0)))
        >>> kernel(X).to_dense().diagonal().tolist()
        [1.0, 1.0, 1.0]
    """

    @takes(*KERNEL_SETTINGS)
    def __init__(
        self,
        distance: NetworkDistance,
        *,
        memory: PartMemory | None = None,
        landmarks: Tensor | None = None,
        cutoff: float = DEFAULT_CUTOFF,
        **kwargs: Any,
    ) -> None:
        if not isinstance(distance, NetworkDistance):
            raise TypeError(f"distance must be a NetworkDistance; got {type(distance).__name__}")
        if memory is not None and not isinstance(memory, PartMemory):
            raise TypeError(f"memory must be a PartMemory; got {type(memory).__name__}")
        if memory is not None and memory.distance is not distance:
            raise ValueError("memory must be one of the distance that is passed")
        super().__init__(distance.space, cutoff=cutoff, **kwargs)
        self.distance = distance
        self._memory = PartMemory(distance) if memory is None else memory
        num_parts, num_terms = len(distance.parts), len(distance.kernel_terms)
        lower, upper = torch.ones(num_parts), torch.ones(num_parts)
        for term in distance.kernel_terms:
            lower[list(term.parts)] = term.smallest
            upper[list(term.parts)] = term.largest
        self.register_parameter(
            "raw_scales", torch.nn.Parameter(torch.zeros(*self.batch_shape, num_parts))
        )
        self.register_constraint("raw_scales", LogInterval(lower, upper))
        if num_terms > 1:
            self.register_parameter(
                "raw_shares", torch.nn.Parameter(torch.zeros(*self.batch_shape, num_terms))
            )
        if landmarks is not None:
            self.landmarks = landmarks

    @property
    def _index(self) -> NetworkIndex:
        return self._memory.index

    @property
    def scales(self) -> Tensor:
        """Scales l_k, shape (*batch_shape, K)."""
        value: Tensor = self.raw_scales_constraint.transform(self.raw_scales)
        return value

    @scales.setter
    def scales(self, value: Tensor | float) -> None:
        tensor = torch.as_tensor(value, dtype=self.raw_scales.dtype, device=self.raw_scales.device)
        raw = self.raw_scales_constraint.inverse_transform(tensor.expand_as(self.raw_scales))
        self.initialize(raw_scales=raw)

    @property
    def shares(self) -> Tensor:
        """Shares s_t of the terms, shape (*batch_shape, T); one term has share 1."""
        if not hasattr(self, "raw_shares"):
            return torch.ones_like(self.raw_scales[..., :1])
        shares: Tensor = self.raw_shares.softmax(-1)
        return shares

    def part_distances(self, rows: Tensor) -> Tensor:
        """Parts of the distances between the distinct networks of rows (n, d), (K, r, r)."""
        numbers: Tensor = torch.unique(self._index(rows))
        return self._memory(numbers, numbers)

    def _similarity(self, rows: Tensor, cols: Tensor) -> Tensor:
        parts = self._memory(rows, cols).to(self.raw_scales)
        num_parts = len(parts)
        rates = self.scales.reshape(-1, num_parts).reciprocal()
        shares = self.shares.reshape(len(rates), -1)
        total = parts.new_zeros(len(rates), len(rows), len(cols))
        for place, term in enumerate(self.distance.kernel_terms):
            exponent = torch.einsum(
                "bk,krc->brc", rates[:, term.parts], parts[list(term.parts)] ** term.power
            )
            total = total + shares[:, place, None, None] * torch.exp(-exponent)
        return total


class DistanceGP(IndependentOutputs):
    """Gaussian process on architectures with the exponential kernel of a distance.

    A :class:`botorch.models.SingleTaskGP` whose covariance is an output scale times a
    `DistanceKernel`, with the training rows as landmarks unless the distance needs none. Targets
    are standardised unless another `outcome_transform` is given; several outputs are modelled
    independently. The scales start where a typical distance between training rows has a covariance
    of 1/e, or as near as their ranges allow.

    Args:
        train_X: Rows of ``distance.space.encode``, shape (..., n, d), float64 recommended.
        train_Y: Targets, shape (..., n, m), larger is better where BoTorch's acquisition functions
            are used; finite.
        train_Yvar: Known variances of the targets' noise, shape (..., n, m); None infers it.
        distance: The distance.
        memory: As for `DistanceKernel`.
        likelihood: As for `SingleTaskGP`, like the following.
        mean_module: See `SingleTaskGP`.
        outcome_transform: See `SingleTaskGP`.
        input_transform: See `SingleTaskGP`; must leave rows as they are.

    Raises:
        TypeError: ``distance`` is no NetworkDistance, or a setting is unknown.
        ValueError: Fewer than two observations; targets that are not finite, are constant, or vary
            so little or so much that variances cannot be told; rows of another length than the
            space's; or an `input_transform` that changes them.
        ArchitectureError: A row that encodes no network of the space; the message names it.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> X = space.encode(space.sample(6, generator=torch.Generator().manual_seed(0)))
        >>> Y = (X == 3).sum(dim=1, keepdim=True).double()  # number of 3x3 convolutions
        >>> model = DistanceGP(X, Y, distance=ht.distances.TreeWasserstein(space))
        >>> model.posterior(X[:2]).mean.shape
        torch.Size([2, 1])
    """

    @takes()
    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        *,
        distance: NetworkDistance,
        memory: PartMemory | None = None,
        likelihood: Likelihood | None = None,
        mean_module: Mean | None = None,
        outcome_transform: OutcomeTransform | _DefaultType | None = DEFAULT,
        input_transform: InputTransform | None = None,
    ) -> None:
        if not isinstance(distance, NetworkDistance):
            raise TypeError(f"distance must be a NetworkDistance; got {type(distance).__name__}")
        check_modules(
            likelihood=likelihood,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
            input_transform=input_transform,
        )
        train_X, train_Y, train_Yvar = checked_rows(
            train_X, train_Y, train_Yvar, space=distance.space, outcome_transform=outcome_transform
        )
        if train_X.shape[-1] != distance.space.dim:
            raise ValueError(
                f"train_X must have {distance.space.dim} columns, those of space.encode for"
                f" {distance.space!r}; got shape {tuple(train_X.shape)}"
            )
        check_input_transform(input_transform, train_X, distance.space.dim)
        _, batch_shape = self.get_batch_dimensions(train_X=train_X, train_Y=train_Y)
        kernel = DistanceKernel(distance, memory=memory, batch_shape=batch_shape).to(train_X)
        if not distance.negative_definite:
            kernel.landmarks = rows_of_elements(train_X, batch_shape)
        rows = train_X.reshape(-1, train_X.shape[-1])
        kernel.scales = _starts(distance, kernel.part_distances(rows))
        # Bounded, as a scale of 0 has no density, and noise alone would lead there.
        scaled = ScaleKernel(
            kernel,
            batch_shape=batch_shape,
            outputscale_prior=LogNormalPrior(0.0, 1.0),
            outputscale_constraint=LogInterval(*_OUTPUT_SCALES),
        )
        scaled.outputscale = 1.0
        super().__init__(
            train_X,
            train_Y,
            train_Yvar,
            likelihood=likelihood,
            covar_module=scaled,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
            input_transform=input_transform,
        )
        self.distance = distance
        self._tell_outputs_apart()

    @property
    def kernel(self) -> DistanceKernel:
        """The kernel of the distance."""
        kernel: DistanceKernel = self.covar_module.base_kernel
        return kernel


def _starts(distance: NetworkDistance, parts: Tensor) -> Tensor:
    """Where the scales start, from the parts (K, r, r) between training networks."""
    row, col = torch.triu_indices(parts.shape[1], parts.shape[1], offset=1)
    starts = torch.ones(len(parts), dtype=torch.float64)
    for term in distance.kernel_terms:
        middle = math.sqrt(term.smallest * term.largest)
        for part in term.parts:
            typical = parts[part, row, col].median() ** term.power if len(row) else 0.0
            starts[part] = len(term.parts) * typical if typical > 0.0 else middle
    return starts
