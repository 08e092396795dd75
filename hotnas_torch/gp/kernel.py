"""HOTNNKernel: exp(-HOTNN / lengthscale) on encoded rows, positive semi-definite with landmarks."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from gpytorch.constraints import Interval, Positive
from gpytorch.kernels import Kernel
from gpytorch.priors import Prior
from torch import Tensor

from hotnas_torch.arch import Network, OperationTree
from hotnas_torch.gp.distances import DistanceMemory
from hotnas_torch.gp.psd import DEFAULT_CUTOFF, Spectrum, landmark_features, spectrum, whitener
from hotnas_torch.metrics import HOTNN, HeldCouplings
from hotnas_torch.spaces import SearchSpace

__all__ = ["LEARNABLE", "HOTNNKernel"]

LEARNABLE = ("lam", "eps", "eta", "zeta", "tree", "unreachable")
"""Parameters of the distance that can be learned, by their names in `learn`."""

# A learned fraction needs room on both sides: the sigmoid has no slope at its ends.
_ROOM = 0.05
_SMALLEST_LENGTH = 1e-3

_BLOCKS = 4
"""How many times more entries than wanted are still computed as one matrix product."""


class _Landmarks(torch.nn.Module):
    """Rows that follow the kernel's dtype and device, and are no part of its state."""

    rows: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows, persistent=False)


class HOTNNKernel(Kernel):  # type: ignore[misc]
    r"""Exponential kernel of the HOTNN distance between the networks behind encoded rows.

    .. math:: k(x, x') = \exp(-\mathrm{HOTNN}(x, x') / \ell)

    As usual in GPyTorch, the output scale is :class:`gpytorch.kernels.ScaleKernel`'s. The
    exponential of an optimal transport distance has negative eigenvalues. With `landmarks` Z, the
    kernel is replaced by inner products of features phi(x) = k(x, Z) g(K_ZZ), see
    `hotnas_torch.gp.psd`: positive semi-definite for any rows, and k(x, x) = 1 as before. Landmarks
    should be the training rows, which is how `HOTNNGP` sets them; without them the kernel is the
    plain exponential.

    The parameters of the distance are parameters of the kernel: `lam`, `eps`, `eta`, `zeta`,
    `tree_lengths`, each learned or fixed. Distances are remembered by row and parameter values, so
    that a change of the lengthscale computes none, and a change of eta or zeta none between cells.

    Args:
        space: Search space of the rows.
        lam: Start of lam, in [0, 1].
        eps: Start of eps, in [0, 1].
        eta: Start of eta; None takes the space's default.
        zeta: Start of zeta; None takes the space's default.
        unreachable: Start of the cost where no information flows; None derives it from eps and
            the tree at all times, and cannot be learned.
        tree: Operation tree with the starts of its lengths; None takes the space's.
        learn: Which of `LEARNABLE` to learn; the others are fixed. None learns lam, eps and the
            tree, and eta and zeta unless the networks of the space repeat one cell on one
            skeleton, where these are only scales.
        landmarks: Rows Z, shape (..., n, d); equal networks count once.
        cutoff: Eigenvalues of K_ZZ below it are dropped, see `hotnas_torch.gp.psd.inverse_root`.
        lam_prior: Prior on lam.
        eps_prior: Prior on eps.
        eta_prior: Prior on eta.
        zeta_prior: Prior on zeta.
        tree_prior: Prior on each length of the tree relative to its start.
        pairs: As for `hotnas_torch.HOTNN`, like the following.
        linear_term: See `HOTNN`.
        normalize: See `HOTNN`.
        mass: See `HOTNN`.
        num_starts: See `HOTNN`.
        tol: See `HOTNN`.
        max_iter: See `HOTNN`.
        backend: See `HOTNN`.
        **kwargs: ``batch_shape``, ``active_dims``, ``lengthscale_prior``,
            ``lengthscale_constraint``, as for every :class:`gpytorch.kernels.Kernel`. Each batch
            element has parameters and distances of its own.

    Raises:
        TypeError: `space` is no search space.
        ValueError: An argument out of range, or a learned fraction that starts at 0 or 1.
        ArchitectureError: A row that encodes no network of the space, here or when called.

    Differentiability: in all parameters, once; not in the rows (see `hotnas_torch.gp.relaxed`).

    Complexity: one HOTNN distance per pair of a new row and a landmark, per change of a parameter
        of the distance; O(n^3) per evaluation with n landmarks.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> nets = space.sample(4, generator=torch.Generator().manual_seed(0))
        >>> kernel = HOTNNKernel(space, landmarks=space.encode(nets)).double()
        >>> kernel(space.encode(nets)).to_dense().diagonal().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    has_lengthscale = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        lam: float = 0.5,
        eps: float = 0.8,
        eta: float | None = None,
        zeta: float | None = None,
        unreachable: float | None = None,
        tree: OperationTree | None = None,
        learn: Collection[str] | None = None,
        landmarks: Tensor | None = None,
        cutoff: float = DEFAULT_CUTOFF,
        lam_prior: Prior | None = None,
        eps_prior: Prior | None = None,
        eta_prior: Prior | None = None,
        zeta_prior: Prior | None = None,
        tree_prior: Prior | None = None,
        pairs: Literal["directed", "ordered"] | None = None,
        linear_term: Literal["separable", "literal"] | None = None,
        normalize: bool | None = None,
        mass: Literal["channels", "uniform"] | None = None,
        num_starts: int = 3,
        tol: float = 1e-3,
        max_iter: int = 200,
        backend: Literal["auto", "ext", "torch"] = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(space, SearchSpace):
            raise TypeError(
                f"space must be a SearchSpace; got {type(space).__name__}"
                " (hotnas_torch.spaces.get(name) makes one)"
            )
        if not cutoff > 0.0:
            raise ValueError(f"cutoff must be > 0; got {cutoff}")
        self.space = space
        self.cutoff = float(cutoff)
        self._options: dict[str, Any] = {
            "pairs": pairs,
            "linear_term": linear_term,
            "normalize": normalize,
            "mass": mass,
            "num_starts": num_starts,
            "tol": tol,
            "max_iter": max_iter,
            "backend": backend,
        }
        start = HOTNN(
            space=space,
            tree=tree,
            lam=lam,
            eps=eps,
            eta=eta,
            zeta=zeta,
            unreachable=unreachable,
            **self._options,
        )
        self._tree = start.ifgw.tree
        self.learned = _learned(learn, space, unreachable)
        given = {"lam": lam, "eps": eps, "eta": eta, "zeta": zeta}
        for name, prior in (
            ("lam", lam_prior),
            ("eps", eps_prior),
            ("eta", eta_prior),
            ("zeta", zeta_prior),
        ):
            value = float(getattr(start if name in ("eta", "zeta") else start.ifgw, name))
            if name in self.learned:
                value = _inside(name, value, chosen=given[name] is not None)
            self._register(name, torch.tensor([value]), Interval(0.0, 1.0))
            if prior is not None:
                self._register_prior(name, prior)
        if unreachable is not None:
            self._register("unreachable", torch.tensor([float(unreachable)]), Positive())
        lengths = self._tree.lengths_tensor(dtype=torch.get_default_dtype()).detach()
        self._start_lengths = lengths.clamp_min(_SMALLEST_LENGTH).tolist()
        self._register("tree_lengths", torch.tensor(self._start_lengths), Positive())
        if tree_prior is not None:
            self.register_prior("tree_prior", tree_prior, _relative_lengths, _set_relative_lengths)
        self._memory = DistanceMemory(space)
        self._held: dict[tuple[int, tuple[int, ...]], HeldCouplings] | None = None
        self._landmarks: _Landmarks | None = None
        if landmarks is not None:
            self.landmarks = landmarks

    # --- parameters -------------------------------------------------------------------------------

    def _register(self, name: str, start: Tensor, constraint: Interval) -> None:
        raw = constraint.inverse_transform(start).expand(*self.batch_shape, -1).clone()
        key = "tree" if name == "tree_lengths" else name
        self.register_parameter(
            f"raw_{name}", torch.nn.Parameter(raw, requires_grad=key in self.learned)
        )
        self.register_constraint(f"raw_{name}", constraint)

    def _register_prior(self, name: str, prior: Prior) -> None:
        self.register_prior(
            f"{name}_prior", prior, partial(_parameter, name), partial(_set_parameter, name)
        )

    def _value(self, name: str) -> Tensor:
        raw, constraint = getattr(self, f"raw_{name}"), getattr(self, f"raw_{name}_constraint")
        value: Tensor = constraint.transform(raw)
        return value

    def _set(self, name: str, value: Tensor | float) -> None:
        raw, constraint = getattr(self, f"raw_{name}"), getattr(self, f"raw_{name}_constraint")
        tensor = torch.as_tensor(value, dtype=raw.dtype, device=raw.device).expand_as(raw)
        self.initialize(**{f"raw_{name}": constraint.inverse_transform(tensor)})

    @property
    def lam(self) -> Tensor:
        """Weight of the node term inside a cell, shape (*batch_shape, 1)."""
        return self._value("lam")

    @lam.setter
    def lam(self, value: Tensor | float) -> None:
        self._set("lam", value)

    @property
    def eps(self) -> Tensor:
        """Share of operations against places inside a cell, shape (*batch_shape, 1)."""
        return self._value("eps")

    @eps.setter
    def eps(self, value: Tensor | float) -> None:
        self._set("eps", value)

    @property
    def eta(self) -> Tensor:
        """Share of the position in the network, shape (*batch_shape, 1)."""
        return self._value("eta")

    @eta.setter
    def eta(self, value: Tensor | float) -> None:
        self._set("eta", value)

    @property
    def zeta(self) -> Tensor:
        """Share of the state against the inside of cells, shape (*batch_shape, 1)."""
        return self._value("zeta")

    @zeta.setter
    def zeta(self, value: Tensor | float) -> None:
        self._set("zeta", value)

    @property
    def tree_lengths(self) -> Tensor:
        """Lengths of the operation tree, shape (*batch_shape, E), in the order of its edges."""
        return self._value("tree_lengths")

    @tree_lengths.setter
    def tree_lengths(self, value: Tensor | float) -> None:
        self._set("tree_lengths", value)

    @property
    def unreachable(self) -> Tensor | None:
        """Cost where no information flows, (*batch_shape, 1); None where it is derived."""
        return self._value("unreachable") if hasattr(self, "raw_unreachable") else None

    @unreachable.setter
    def unreachable(self, value: Tensor | float) -> None:
        self._set("unreachable", value)

    @property
    def is_stationary(self) -> bool:
        """False: with landmarks, the kernel depends on more than the distance of two rows."""
        return False

    def metric(self, element: int = 0) -> HOTNN:
        """The distance with the current parameters, attached to their graph.

        Args:
            element: Which element of the flattened batch shape.
        """

        def scalar(value: Tensor) -> Tensor:
            return value.reshape(-1)[element]

        lengths = self.tree_lengths.reshape(-1, self.tree_lengths.shape[-1])[element]
        unreachable = self.unreachable
        return HOTNN(
            space=self.space,
            tree=self._tree.with_lengths(lengths),
            lam=scalar(self.lam),
            eps=scalar(self.eps),
            eta=scalar(self.eta),
            zeta=scalar(self.zeta),
            unreachable=None if unreachable is None else scalar(unreachable),
            dtype=self.dtype,
            device=self.device,
            **self._options,
        )

    def _learns(self) -> bool:
        """Whether a gradient could reach a parameter of the distance."""
        parameters = self.named_parameters(recurse=False)
        return any(raw.requires_grad for name, raw in parameters if name != "raw_lengthscale")

    # --- landmarks --------------------------------------------------------------------------------

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
        numbers = self._memory.index(rows)
        first = {number: place for place, number in reversed(list(enumerate(numbers.tolist())))}
        kept = rows[sorted(first.values())]
        self._landmarks = _Landmarks(kept.to(self.raw_lengthscale))

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

    def landmark_networks(self) -> list[Network]:
        """The distinct networks of the landmarks, in the order of the features.

        Raises:
            ValueError: There are no landmarks.
        """
        return self._memory.index.select(self._landmark_numbers())

    def landmark_places(self, rows: Tensor) -> Tensor:
        """Which landmark each row is, shape (n,) int64, for rows (n, d) that are landmarks.

        Raises:
            ValueError: There are no landmarks, or a row is none.
        """
        numbers, asked = self._landmark_numbers(), self._memory.index(rows)
        places = torch.searchsorted(numbers, asked).clamp_max(len(numbers) - 1)
        wrong = numbers[places] != asked
        if bool(wrong.any()):
            raise ValueError(f"row {int(wrong.int().argmax())} of the given rows is no landmark")
        return places

    def median_distance(self) -> float:
        """Median distance between different landmarks, 1 if there is none.

        Raises:
            ValueError: There are no landmarks.
        """
        distances = self.landmark_distances()
        row, col = torch.triu_indices(len(distances), len(distances), offset=1)
        median = float(distances[row, col].median()) if len(row) else 1.0
        return median if median > 0.0 else 1.0

    def landmark_distances(self) -> Tensor:
        """Distances between the landmarks' distinct networks, shape (n, n), without a graph.

        Raises:
            ValueError: There are no landmarks.
        """
        numbers = self._landmark_numbers()
        with torch.no_grad():
            metric = self.metric()
            if self.training:
                # Where training begins, it will want the couplings as well.
                return self._memory.couplings(metric, numbers, numbers).distances(metric)
            return self._memory.distances(metric, numbers, numbers)

    def _landmark_numbers(self) -> Tensor:
        """Sorted distinct numbers of the landmarks' networks."""
        if self.landmarks is None:
            raise ValueError("the kernel has no landmarks (pass landmarks=, or set them)")
        numbers: Tensor = torch.unique(self._memory.index(self.landmarks))
        return numbers

    @contextmanager
    def couplings_held(self) -> Iterator[None]:
        """Keep the couplings between landmarks that the first evaluation inside finds.

        Evaluations at other parameters then cost a matrix product in place of optimal transport,
        with the same gradient where the couplings were found. Leaving forgets them.
        """
        self._held = {}
        try:
            yield
        finally:
            self._held = None

    # --- values -----------------------------------------------------------------------------------

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        diag: bool = False,
        last_dim_is_batch: bool = False,
        **params: Any,
    ) -> Tensor:
        """Covariance of encoded rows, as for every GPyTorch kernel.

        Raises:
            ValueError: `last_dim_is_batch`: one column of a row encodes nothing.
        """
        del params
        if last_dim_is_batch:
            raise ValueError("last_dim_is_batch: a single column of a row encodes no network")
        of_x1, of_x2 = self._memory.index(x1), self._memory.index(x2)
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
        # What a row lacks to length 1 is its own, and that of rows with the same network.
        same = (rows[row_place.cpu()] == cols[col_place.cpu()]).to(x1.device)
        return torch.where(same, 1.0, product).to(x1)

    def _features(self, rows: Tensor, cols: Tensor) -> tuple[Tensor, Tensor]:
        """Features of distinct networks, shapes (B, r, n) and (B, c, n) for n landmarks."""
        landmarks = self._landmark_numbers()
        among = self._similarity(landmarks, landmarks)
        whitening = whitener(among, self.cutoff)

        def features(numbers: Tensor) -> Tensor:
            same = torch.equal(numbers, landmarks)
            similarity = among if same else self._similarity(numbers, landmarks)
            return landmark_features(similarity, whitening)

        left = features(rows)
        return left, left if torch.equal(rows, cols) else features(cols)

    def _similarity(self, rows: Tensor, cols: Tensor) -> Tensor:
        """exp(-distance / lengthscale) between distinct networks, shape (B, r, c)."""
        lengthscale = self.lengthscale.reshape(-1, 1, 1)
        distances = [self._distances(element, rows, cols) for element in range(len(lengthscale))]
        return torch.exp(-torch.stack(distances) / lengthscale)

    def _distances(self, element: int, rows: Tensor, cols: Tensor) -> Tensor:
        metric = self.metric(element)
        if not torch.equal(rows, cols):
            return self._memory.attached(metric, rows, cols, element)
        if self._held is not None:
            name = (element, tuple(rows.tolist()))
            if name not in self._held:
                self._held[name] = self._memory.couplings(metric, rows, cols, element)
            return self._held[name].distances(metric)
        if self.training and torch.is_grad_enabled() and self._learns():
            # A backward pass is about to follow, so the couplings are found at once.
            return self._memory.couplings(metric, rows, cols, element).distances(metric)
        return self._memory.attached(metric, rows, cols, element)


def _learned(
    learn: Collection[str] | None, space: SearchSpace, unreachable: float | None
) -> frozenset[str]:
    if learn is None:
        scales = () if space.repeats_one_cell else ("eta", "zeta")
        return frozenset(("lam", "eps", "tree", *scales))
    if isinstance(learn, str):
        raise TypeError(f"learn must be a collection of names; got a str (pass [{learn!r}])")
    for name in learn:
        if name not in LEARNABLE:
            known = ", ".join(repr(known) for known in LEARNABLE)
            raise ValueError(f"learn must hold names among {known}; got {name!r}")
    if "unreachable" in learn and unreachable is None:
        raise ValueError(
            "unreachable cannot be learned where it is derived from eps and the tree (pass"
            " unreachable=, the value to start from)"
        )
    return frozenset(learn)


def _inside(name: str, value: float, *, chosen: bool) -> float:
    if 0.0 < value < 1.0:
        return value
    if chosen:
        raise ValueError(
            f"{name} must start inside (0, 1) to be learned; got {value} (start inside, or leave"
            f" {name!r} out of learn to fix it there)"
        )
    return min(max(value, _ROOM), 1.0 - _ROOM)


def _parameter(name: str, kernel: HOTNNKernel) -> Tensor:
    return kernel._value(name)


def _set_parameter(name: str, kernel: HOTNNKernel, value: Tensor) -> None:
    kernel._set(name, value)


def _relative_lengths(kernel: HOTNNKernel) -> Tensor:
    return kernel.tree_lengths / kernel.tree_lengths.new_tensor(kernel._start_lengths)


def _set_relative_lengths(kernel: HOTNNKernel, value: Tensor) -> None:
    kernel.tree_lengths = value * kernel.tree_lengths.new_tensor(kernel._start_lengths)
