"""Similarities of what rows stand for as kernels on these rows, with landmarks."""

from abc import abstractmethod
from typing import Any, Protocol

import torch
from gpytorch.kernels import Kernel
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.gp.distances import NetworkIndex
from hotnas_torch.gp.psd import DEFAULT_CUTOFF, Spectrum, landmark_features, spectrum, whitener
from hotnas_torch.spaces import SearchSpace

__all__ = ["LandmarkKernel", "NetworkKernel", "RowIndex"]

_BLOCKS = 4
"""How many times more entries than wanted are still computed as one matrix product."""


class _Landmarks(torch.nn.Module):
    """Rows that follow the kernel's dtype and device, and are no part of its state."""

    rows: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows, persistent=False)


class RowIndex(Protocol):
    """Numbers for what rows stand for; equal things share one."""

    def __call__(self, X: Tensor) -> Tensor:
        """Numbers of rows, shape (..., d) to (...), int64 on the CPU."""
        ...


class LandmarkKernel(Kernel):  # type: ignore[misc]
    """A similarity k(x, x') <= 1 = k(x, x) between what rows stand for.

    Subclasses say what the similarity of numbered things is (`_similarity`) and who numbers them
    (`_index`). With landmarks Z, the similarity is replaced by inner products of features phi(x) =
    k(x, Z) g(K_ZZ), see `hotnas_torch.gp.psd`: positive semi-definite for any rows, and k(x, x) = 1
    as before.

    Args:
        cutoff: Eigenvalues of K_ZZ below it are dropped, see `hotnas_torch.gp.psd.inverse_root`.
        **kwargs: As for every :class:`gpytorch.kernels.Kernel`.

    Raises:
        ValueError: `cutoff` is not positive.
    """

    def __init__(self, *, cutoff: float = DEFAULT_CUTOFF, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not cutoff > 0.0:
            raise ValueError(f"cutoff must be > 0; got {cutoff}")
        self.cutoff = float(cutoff)
        self._landmarks: _Landmarks | None = None

    # --- for subclasses ---------------------------------------------------------------------------

    @property
    @abstractmethod
    def _index(self) -> RowIndex:
        """Numbers of what rows stand for."""

    @abstractmethod
    def _similarity(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Similarities between distinct numbers, shape (B, r, c), B batch elements."""

    # --- landmarks --------------------------------------------------------------------------------

    @property
    def is_stationary(self) -> bool:
        """False: with landmarks, the kernel depends on more than the distance of two rows."""
        return False

    @property
    def landmarks(self) -> Tensor | None:
        """Rows Z of the feature map, shape (n, d)."""
        return None if self._landmarks is None else self._landmarks.rows

    @landmarks.setter
    def landmarks(self, rows: Tensor | None) -> None:
        if rows is None:
            self._landmarks = None
            return
        rows = rows.detach().reshape(-1, rows.shape[-1])
        numbers = self._index(rows)
        first = {number: place for place, number in reversed(list(enumerate(numbers.tolist())))}
        kept = rows[sorted(first.values())]
        self._landmarks = _Landmarks(kept.to(next(self.parameters())))

    def spectrum(self, element: int = 0) -> Spectrum:
        """What the feature map drops at the current parameters.

        Args:
            element: Which element of the flattened batch shape.

        Raises:
            ValueError: There are no landmarks.
        """
        numbers = self._landmark_numbers()
        with torch.no_grad():
            return spectrum(self._similarity(numbers, numbers)[element], self.cutoff)

    def landmark_places(self, rows: Tensor) -> Tensor:
        """Which landmark each row is, shape (n,) int64, for rows (n, d) that are landmarks.

        Raises:
            ValueError: There are no landmarks, or a row is none.
        """
        numbers, asked = self._landmark_numbers(), self._index(rows)
        places = torch.searchsorted(numbers, asked).clamp_max(len(numbers) - 1)
        wrong = numbers[places] != asked
        if bool(wrong.any()):
            raise ValueError(f"row {int(wrong.int().argmax())} of the given rows is no landmark")
        return places

    def _landmark_numbers(self) -> Tensor:
        """Sorted distinct numbers of the landmarks."""
        if self.landmarks is None:
            raise ValueError("the kernel has no landmarks (pass landmarks=, or set them)")
        numbers: Tensor = torch.unique(self._index(self.landmarks))
        return numbers

    # --- values -----------------------------------------------------------------------------------

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        diag: bool = False,
        last_dim_is_batch: bool = False,
        **params: Any,
    ) -> Tensor:
        """Covariance of rows, as for every GPyTorch kernel.

        Raises:
            ValueError: `last_dim_is_batch`: one column of a row stands for nothing.
        """
        del params
        if last_dim_is_batch:
            raise ValueError("last_dim_is_batch: a single column of a row stands for nothing")
        of_x1, of_x2 = self._index(x1), self._index(x2)
        if torch.equal(of_x1, of_x2) and (diag or of_x1.shape[-1] == 1):
            shape = torch.broadcast_shapes(of_x1.shape, (*self.batch_shape, 1))
            return x1.new_ones(shape if diag else (*shape, 1))
        rows, row_place = torch.unique(of_x1, return_inverse=True)
        cols, col_place = torch.unique(of_x2, return_inverse=True)
        element = torch.arange(self.batch_shape.numel()).reshape(*self.batch_shape, 1)
        if not diag:
            element = element.unsqueeze(-1)
            row_place, col_place = row_place.unsqueeze(-1), col_place.unsqueeze(-2)
        place = tuple(index.to(x1.device) for index in (element, row_place, col_place))
        if self.landmarks is None:
            return self._similarity(rows, cols).to(x1)[place]
        left, right = self._features(rows, cols)
        wanted = torch.broadcast_shapes(*(index.shape for index in place)).numel()
        if wanted * _BLOCKS < len(rows) * len(cols):
            # Many small blocks: their entries are few of those between all rows.
            element, row_place, col_place = place
            product = (left[element, row_place] * right[element, col_place]).sum(-1)
        else:
            product = (left @ right.mT)[place]
        # What a row lacks to length 1 is its own, and that of rows with the same number.
        same = (rows[row_place.cpu()] == cols[col_place.cpu()]).to(x1.device)
        return torch.where(same, 1.0, product).to(x1)

    def _features(self, rows: Tensor, cols: Tensor) -> tuple[Tensor, Tensor]:
        """Features of distinct numbers, shapes (B, r, n) and (B, c, n) for n landmarks."""
        landmarks = self._landmark_numbers()
        among = self._similarity(landmarks, landmarks)
        whitening = whitener(among, self.cutoff)

        def features(numbers: Tensor) -> Tensor:
            same = torch.equal(numbers, landmarks)
            similarity = among if same else self._similarity(numbers, landmarks)
            return landmark_features(similarity, whitening)

        left = features(rows)
        return left, left if torch.equal(rows, cols) else features(cols)


class NetworkKernel(LandmarkKernel):
    """A `LandmarkKernel` on rows that encode networks of a search space.

    Args:
        space: Search space of the rows.
        **kwargs: As for `LandmarkKernel`.

    Raises:
        TypeError: `space` is no search space.
        ValueError: `cutoff` is not positive.
    """

    def __init__(self, space: SearchSpace, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(space, SearchSpace):
            raise TypeError(
                f"space must be a SearchSpace; got {type(space).__name__}"
                " (hotnas_torch.spaces.get(name) makes one)"
            )
        self.space = space

    @property
    @abstractmethod
    def _index(self) -> NetworkIndex:
        """Numbers of networks."""

    def landmark_networks(self) -> list[Network]:
        """The distinct networks of the landmarks, in the order of the features.

        Raises:
            ValueError: There are no landmarks.
        """
        return self._index.select(self._landmark_numbers())
