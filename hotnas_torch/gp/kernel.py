"""HOTNNKernel: exp(-HOTNN / lengthscale) on encoded rows, positive semi-definite with landmarks."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from gpytorch.constraints import Interval, Positive
from gpytorch.priors import Prior
from torch import Tensor

from hotnas_torch.arch import OperationTree
from hotnas_torch.distances import HOTNN, HeldCouplings
from hotnas_torch.gp.distances import DistanceMemory, NetworkIndex
from hotnas_torch.gp.landmarks import NetworkKernel
from hotnas_torch.gp.observations import check_space
from hotnas_torch.gp.psd import DEFAULT_CUTOFF
from hotnas_torch.gp.settings import (
    KERNEL_SETTINGS,
    LENGTHSCALE_SETTINGS,
    check_kind,
    takes,
)
from hotnas_torch.spaces import SearchSpace

__all__ = ["LEARNABLE", "HOTNNKernel"]

LEARNABLE = ("lam", "eps", "eta", "zeta", "tree", "unreachable")
"""Parameters of the distance that can be learned, by their names in `learn`."""

# A learned fraction needs room on both sides: the sigmoid has no slope at its ends.
_ROOM = 0.05
_SMALLEST_LENGTH = 1e-3

_MOST_HELD = 16
"""Sets of couplings held per batch element, enough for a few mini-batches."""


class HOTNNKernel(NetworkKernel):
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

    The distances move smoothly with the parameters only while the couplings of the architectures
    stay as they are. A training that ``train()`` begins, as fits do, therefore holds the couplings
    that its first evaluations with gradients find, until ``eval()``, the next ``train()``, or
    until parameters are set by name or loaded. Evaluations without gradients, in evaluation mode,
    or before ``train()`` is called are exact.

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
        TypeError: `space` is no search space, or a setting is unknown or of the wrong kind.
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

    @takes(*KERNEL_SETTINGS, *LENGTHSCALE_SETTINGS)
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
        check_space(space)
        priors = {
            "lam": lam_prior,
            "eps": eps_prior,
            "eta": eta_prior,
            "zeta": zeta_prior,
            "tree": tree_prior,
        }
        for name, prior in priors.items():
            check_kind(f"{name}_prior", prior, Prior)
        super().__init__(space, cutoff=cutoff, **kwargs)
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
        for name in given:
            value = float(getattr(start if name in ("eta", "zeta") else start.ifgw, name))
            if name in self.learned:
                value = _inside(name, value, chosen=given[name] is not None)
            self._register(name, torch.tensor([value]), Interval(0.0, 1.0))
            if priors[name] is not None:
                self._register_prior(name, priors[name])
        if unreachable is not None:
            self._register("unreachable", torch.tensor([float(unreachable)]), Positive())
        lengths = self._tree.lengths_tensor(dtype=torch.get_default_dtype()).detach()
        self._start_lengths = lengths.clamp_min(_SMALLEST_LENGTH).tolist()
        self._register("tree_lengths", torch.tensor(self._start_lengths), Positive())
        if tree_prior is not None:
            self.register_prior("tree_prior", tree_prior, _relative_lengths, _set_relative_lengths)
        self._memory = DistanceMemory(space)
        self._held: _Held | None = None
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

    def _of(self, name: str, element: int) -> Tensor:
        """The value of one batch element, rounded as if it were the only one.

        A solver that is told another last digit may find another optimum.
        """
        raw, constraint = getattr(self, f"raw_{name}"), getattr(self, f"raw_{name}_constraint")
        value: Tensor = constraint.transform(raw.reshape(-1, raw.shape[-1])[element])
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
    def _index(self) -> NetworkIndex:
        return self._memory.index

    def metric(self, element: int = 0) -> HOTNN:
        """The distance with the current parameters, attached to their graph.

        Args:
            element: Which element of the flattened batch shape.
        """
        derived = not hasattr(self, "raw_unreachable")
        return HOTNN(
            space=self.space,
            tree=self._tree.with_lengths(self._of("tree_lengths", element)),
            lam=self._of("lam", element)[0],
            eps=self._of("eps", element)[0],
            eta=self._of("eta", element)[0],
            zeta=self._of("zeta", element)[0],
            unreachable=None if derived else self._of("unreachable", element)[0],
            dtype=self.dtype,
            device=self.device,
            **self._options,
        )

    def _learns(self) -> bool:
        """Whether a gradient could reach a parameter of the distance."""
        parameters = self.named_parameters(recurse=False)
        return any(raw.requires_grad for name, raw in parameters if name != "raw_lengthscale")

    # --- landmarks --------------------------------------------------------------------------------

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

    # --- couplings --------------------------------------------------------------------------------

    @contextmanager
    def couplings_held(self) -> Iterator[None]:
        """Keep the couplings that the first evaluation inside finds.

        Evaluations at other parameters then cost a matrix product in place of optimal transport,
        with the same gradient where the couplings were found. Leaving forgets them.
        """
        before, self._held = self._held, _Held(chosen=True)
        try:
            yield
        finally:
            self._held = before
            self._forget()

    def train(self, mode: bool = True) -> "HOTNNKernel":
        """As for every module; begins or ends a training, see the class."""
        super().train(mode)
        if self._held is None or not self._held.chosen:
            self._held = _Held(chosen=False) if mode else None
        return self

    def initialize(self, **kwargs: Any) -> "HOTNNKernel":
        """As for every GPyTorch module; a training finds its couplings again."""
        self._forget()
        initialized: HOTNNKernel = super().initialize(**kwargs)
        return initialized

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*args, **kwargs)

    def _forget(self) -> None:
        if self._held is not None and not self._held.chosen:
            self._held.couplings.clear()

    def __getstate__(self) -> dict[str, Any]:
        # A copy finds its own: its parameters move on their own, and couplings are large.
        return self.__dict__ | {"_held": None}

    # --- values -----------------------------------------------------------------------------------

    def _similarity(self, rows: Tensor, cols: Tensor) -> Tensor:
        """exp(-distance / lengthscale) between distinct networks, shape (B, r, c)."""
        lengthscale = self.lengthscale.reshape(-1, 1, 1)
        distances = [self._distances(element, rows, cols) for element in range(len(lengthscale))]
        return torch.exp(-torch.stack(distances) / lengthscale)

    def _distances(self, element: int, rows: Tensor, cols: Tensor) -> Tensor:
        metric = self.metric(element)
        # A backward pass is about to follow, so couplings are found at once.
        learning = self.training and torch.is_grad_enabled() and self._learns()
        if self._held is not None and (self._held.chosen or learning):
            return self._held.find(self._memory, metric, rows, cols, element).distances(metric)
        if learning and torch.equal(rows, cols):
            return self._memory.couplings(metric, rows, cols, element).distances(metric)
        return self._memory.attached(metric, rows, cols, element)


@dataclass(slots=True)
class _Held:
    """Couplings that stay as they were found.

    Attributes:
        chosen: Whether `couplings_held` asked for it, for all evaluations; otherwise a training
            did, for those with gradients.
        couplings: By batch element, rows and columns.
    """

    chosen: bool
    couplings: dict[tuple[int, bytes, bytes], HeldCouplings] = field(default_factory=dict)

    def find(
        self, memory: DistanceMemory, metric: HOTNN, rows: Tensor, cols: Tensor, element: int
    ) -> HeldCouplings:
        """Arguments as for `DistanceMemory.couplings`."""
        name = element, rows.numpy().tobytes(), cols.numpy().tobytes()
        if name not in self.couplings:
            found = memory.couplings(metric, rows, cols, element)
            mine = [other for other in self.couplings if other[0] == element]
            if len(mine) >= _MOST_HELD:
                del self.couplings[mine[0]]
            self.couplings[name] = found
        return self.couplings[name]


def _learned(
    learn: Collection[str] | None, space: SearchSpace, unreachable: float | None
) -> frozenset[str]:
    if learn is None:
        scales = () if space.repeats_one_cell else ("eta", "zeta")
        return frozenset(("lam", "eps", "tree", *scales))
    if isinstance(learn, str):
        raise TypeError(f"learn must be a collection of names; got a str (pass [{learn!r}])")
    if not isinstance(learn, Collection):
        raise TypeError(f"learn must be a collection of names; got {type(learn).__name__}")
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
