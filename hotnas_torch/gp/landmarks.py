"""Similarities of what rows stand for as kernels on these rows, with landmarks."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import torch
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel
from gpytorch.priors import Prior
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, kind, number, takes
from hotnas_torch.gp.memory import NetworkIndex
from hotnas_torch.gp.psd import DEFAULT_CUTOFF, Spectrum, landmark_features, spectrum, whitener
from hotnas_torch.gp.settings import KERNEL_SETTINGS, LENGTHSCALE_SETTINGS
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.joint import check_architectures

__all__ = ["LandmarkKernel", "NetworkKernel"]

_BLOCKS = 4
"""How many times more entries than wanted are still computed as one matrix product."""


class _Landmarks(torch.nn.Module):
    """Rows that follow the kernel's dtype and device, and are no part of its state."""

    rows: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows, persistent=False)


class LandmarkKernel(Kernel):  # type: ignore[misc]
    """A similarity k(x, x') <= 1 = k(x, x) between what rows stand for.

    Subclasses say what the similarity of numbered things is (`_similarity`) and who numbers them
    (`_index`). With landmarks Z, the similarity is replaced by inner products of features phi(x) =
    k(x, Z) g(K_ZZ), see `hotnas_torch.gp.psd`: positive semi-definite for any rows, and k(x, x) = 1
    as before.

    Args:
        cutoff: Eigenvalues of K_ZZ below it are dropped, see `hotnas_torch.gp.psd.inverse_root`.
        **kwargs: As for every `gpytorch.kernels.Kernel`.

    Raises:
        TypeError: A setting that is unknown, or of the wrong kind.
        ValueError: `cutoff` is not positive.
    """

    _members: Tensor | None

    @takes(*KERNEL_SETTINGS, *LENGTHSCALE_SETTINGS)
    def __init__(self, *, cutoff: float = DEFAULT_CUTOFF, **kwargs: Any) -> None:
        cutoff = number("cutoff", cutoff, above=0.0)
        kind("lengthscale_prior", kwargs.get("lengthscale_prior"), Prior, optional=True)
        kind(
            "lengthscale_constraint", kwargs.get("lengthscale_constraint"), Interval, optional=True
        )
        kind("batch_shape", kwargs.get("batch_shape"), Sequence, optional=True)
        kwargs["batch_shape"] = torch.Size(kwargs.get("batch_shape") or ())
        if isinstance(dims := kwargs.get("active_dims"), Tensor):
            dims = dims.tolist()
        kind("active_dims", dims, Sequence, optional=True)
        if dims is not None:
            kwargs["active_dims"] = tuple(
                integer(f"active_dims[{place}]", column, least=0)
                for place, column in enumerate(dims)
            )
        super().__init__(**kwargs)
        self.cutoff = cutoff
        self._landmarks: _Landmarks | None = None
        # Which landmarks each batch element has, (*batch_shape, n); None if all of them.
        self.register_buffer("_members", None, persistent=False)

    # --- for subclasses ---------------------------------------------------------------------------

    @property
    @abstractmethod
    def _index(self) -> Callable[[Tensor], Tensor]:
        """Numbers of what rows stand for, (..., d) to (...); equal things share one."""

    @abstractmethod
    def _similarity(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Similarities between distinct numbers, shape (B, r, c), B batch elements."""

    def _names(self, numbers: Tensor) -> list[str]:
        """Return what is numbered, by names that do not depend on the numbers."""
        return [str(number) for number in numbers.tolist()]

    # --- landmarks --------------------------------------------------------------------------------

    @property
    def is_stationary(self) -> bool:
        """False: with landmarks, the kernel depends on more than the distance of two rows."""
        return False

    @property
    def landmarks(self) -> Tensor | None:
        """Distinct rows Z of the feature map, shape (n, d).

        Set to rows of shape (..., n, d): leading dimensions that broadcast to the batch shape give
        every batch element landmarks of its own.
        """
        return None if self._landmarks is None else self._landmarks.rows

    @landmarks.setter
    def landmarks(self, rows: Tensor | None) -> None:
        self._members = None
        if rows is None:
            self._landmarks = None
            return
        if not isinstance(rows, Tensor) or rows.ndim < 2 or not rows.numel():
            given = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise ValueError(f"landmarks must be rows, a tensor of shape (..., n, d); got {given}")
        numbers = self._index(rows)
        flat = numbers.flatten().tolist()
        first = {number: place for place, number in reversed(list(enumerate(flat)))}
        places = sorted(first.values())
        kept = rows.detach().reshape(-1, rows.shape[-1])[places]
        self._landmarks = _Landmarks(kept.to(self._like))
        if len(self.batch_shape) and numbers.shape[:-1].numel() > 1:
            distinct = torch.tensor([flat[place] for place in places])
            own = (numbers.unsqueeze(-1) == distinct).any(-2)
            try:
                own = own.expand(*self.batch_shape, -1)
            except RuntimeError:
                raise ValueError(
                    f"landmarks of shape {tuple(rows.shape)} do not broadcast to batch_shape"
                    f" {tuple(self.batch_shape)} (pass (n, d) for what all elements share)"
                ) from None
            if not bool(own.all()):
                self._members = own.clone().to(kept.device)

    @property
    def _like(self) -> Tensor:
        """A tensor of the kernel's dtype and device."""
        floating = (x for x in (*self.parameters(), *self.buffers()) if x.is_floating_point())
        return next(floating, torch.empty(()))

    def _own(self) -> Tensor | None:
        """Which landmarks each batch element has, in the order of their numbers, (B, n)."""
        if self._members is None:
            return None
        own = self._members.reshape(-1, self._members.shape[-1])
        return own[:, self._landmark_order().to(own.device)]

    def spectrum(self, element: int = 0) -> Spectrum:
        """Return what the feature map drops at the current parameters.

        Args:
            element: Which element of the flattened batch shape.

        Raises:
            ValueError: There are no landmarks.
        """
        numbers, own = self._landmark_numbers(), self._own()
        with torch.no_grad():
            among = self._similarity(numbers, numbers)[element]
        if own is not None:
            among = among[own[element]][:, own[element]]
        return spectrum(among, self.cutoff)

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
        numbers: Tensor = torch.unique(self._landmark_index())
        return numbers

    def _landmark_order(self) -> Tensor:
        """Which of the stored rows each of these numbers is."""
        return self._landmark_index().argsort()

    def _landmark_index(self) -> Tensor:
        if self.landmarks is None:
            raise ValueError("the kernel has no landmarks (pass landmarks=, or set them)")
        return self._index(self.landmarks)

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
        # Rows may be integers, covariances are not.
        like = x1 if x1.is_floating_point() else self._like.to(x1.device)
        if torch.equal(of_x1, of_x2) and (diag or of_x1.shape[-1] == 1):
            shape = torch.broadcast_shapes(of_x1.shape, (*self.batch_shape, 1))
            return like.new_ones(shape if diag else (*shape, 1))
        rows, row_place = torch.unique(of_x1, return_inverse=True)
        cols, col_place = torch.unique(of_x2, return_inverse=True)
        element = torch.arange(self.batch_shape.numel()).reshape(*self.batch_shape, 1)
        if not diag:
            element = element.unsqueeze(-1)
            row_place, col_place = row_place.unsqueeze(-1), col_place.unsqueeze(-2)
        place = tuple(index.to(x1.device) for index in (element, row_place, col_place))
        if self.landmarks is None:
            return self._similarity(rows, cols).to(like)[place]
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
        return torch.where(same, 1.0, product).to(like)

    def landmark_features(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Features phi of rows, and a number for what each row is.

        Args:
            X: Rows, shape (..., q, d).

        Returns:
            Features, shape (*batch_shape, ..., q, n) for n landmarks, batch and rows broadcast;
            and numbers, shape (..., q) int64 on the CPU, which are below n for landmarks, at least
            n for others, and the same in every process.

        Raises:
            ValueError: There are no landmarks.
        """
        landmarks, numbers = self._landmark_numbers(), self._index(X)
        rows, place = torch.unique(numbers, return_inverse=True)
        element = torch.arange(self.batch_shape.numel()).reshape(*self.batch_shape, 1)
        features, _ = self._features(rows, rows)
        where = torch.searchsorted(landmarks, rows).clamp_max(len(landmarks) - 1)
        named = torch.tensor([crc32(name.encode()) for name in self._names(rows)])
        # The stored rows are in the same order in every process, numbers are not.
        stored = self._landmark_order()
        known = torch.where(landmarks[where] == rows, stored[where], len(landmarks) + named)
        like = X if X.is_floating_point() else self._like
        chosen = features[element.to(features.device), place.to(features.device)]
        return chosen.to(like), known[place]

    def _features(self, rows: Tensor, cols: Tensor) -> tuple[Tensor, Tensor]:
        """Features of distinct numbers, shapes (B, r, n) and (B, c, n) for n landmarks."""
        landmarks = self._landmark_numbers()
        among, own = self._similarity(landmarks, landmarks), self._own()
        # With zeros for those of other elements, their features are 0: the function of a block
        # matrix is that of its blocks, and g(0) = 0.
        columns = torch.ones_like(among[:, :1]) if own is None else own.unsqueeze(-2).to(among)
        whitening = whitener(among * columns * columns.mT, self.cutoff)

        def features(numbers: Tensor) -> Tensor:
            same = torch.equal(numbers, landmarks)
            similarity = among if same else self._similarity(numbers, landmarks)
            return landmark_features(similarity * columns, whitening)

        left = features(rows)
        return left, left if torch.equal(rows, cols) else features(cols)


class NetworkKernel(LandmarkKernel):
    """A `LandmarkKernel` on rows that encode networks of a search space.

    Subclasses have a `_memory` of what is known of networks, whose `index` numbers them.

    Args:
        space: Search space of the rows.
        **kwargs: As for `LandmarkKernel`.

    Raises:
        TypeError: `space` is no search space, or a setting is unknown or of the wrong kind.
        ValueError: `cutoff` is not positive.
    """

    @takes("cutoff", *KERNEL_SETTINGS, *LENGTHSCALE_SETTINGS)
    def __init__(self, space: SearchSpace, **kwargs: Any) -> None:
        check_space(space)
        check_architectures(type(self).__name__, space)
        super().__init__(**kwargs)
        if self.active_dims is not None and self.active_dims.numel() != space.dim:
            raise ValueError(
                f"active_dims must name {space.dim} columns, those of space.encode for {space!r};"
                f" got {self.active_dims.numel()}"
            )
        self.space = space

    @property
    def _index(self) -> NetworkIndex:
        index: NetworkIndex = self._memory.index
        return index

    def _names(self, numbers: Tensor) -> list[str]:
        return [network.key for network in self._index.select(numbers)]

    def landmark_networks(self) -> list[Network]:
        """Return the distinct networks of the landmarks, in the order of the features.

        Raises:
            ValueError: There are no landmarks.
        """
        return self._index.select(self._landmark_numbers())
