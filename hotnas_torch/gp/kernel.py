"""HOTNNKernel: exp(-HOTNN / lengthscale) on encoded rows, positive semi-definite with landmarks."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Unpack, overload

import torch
from gpytorch.constraints import Interval, Positive
from gpytorch.priors import Prior
from torch import Tensor

from hotnas_torch.arguments import takes
from hotnas_torch.distances import HOTNN
from hotnas_torch.gp.hotnn_memory import Holding, HOTNNMemory
from hotnas_torch.gp.hotnn_settings import (
    FRACTIONS,
    LEARNABLE,
    KernelSettings,
    MetricSettings,
    all_priors,
    inside,
    learned_parameters,
)
from hotnas_torch.gp.landmarks import NetworkKernel
from hotnas_torch.gp.memory import typical_distance
from hotnas_torch.gp.network_lists import space_or_any
from hotnas_torch.gp.psd import DEFAULT_CUTOFF
from hotnas_torch.spaces import SearchSpace

__all__ = ["HOTNNKernel"]

_SMALLEST_LENGTH = 1e-3


class _Parameter:
    """A parameter of the distance by its value, shape (*batch_shape, n)."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, kernel: None, owner: type) -> "_Parameter": ...
    @overload
    def __get__(self, kernel: "HOTNNKernel", owner: type) -> Tensor: ...
    def __get__(self, kernel: "HOTNNKernel | None", owner: type) -> "Tensor | _Parameter":
        # Of the class, itself, as properties are.
        return self if kernel is None else kernel._value(self._name)

    def __set__(self, kernel: "HOTNNKernel", value: Tensor | float) -> None:
        kernel._set(self._name, value)


class HOTNNKernel(NetworkKernel):
    r"""Exponential kernel of the HOTNN distance between the networks behind encoded rows.

    .. math:: k(x, x') = \exp(-\mathrm{HOTNN}(x, x') / \ell)

    The output scale is that of GPyTorch's `ScaleKernel`, as usual. The exponential of an optimal
    transport distance has negative eigenvalues. With `landmarks` Z, the kernel is replaced by inner
    products of features phi(x) = k(x, Z) g(K_ZZ), see `hotnas_torch.gp.psd`: positive semi-definite
    for any rows, and k(x, x) = 1 as before. Landmarks should be the training rows, which is how
    `HOTNNGP` sets them; without them the kernel is the plain exponential.

    The parameters of the distance are parameters of the kernel: `lam`, `eps`, `eta`, `zeta`,
    `tree_lengths`, and `number_weights` where operations carry numbers, each learned or fixed.
    Distances are remembered by row and parameter values, so that a change of the lengthscale
    computes none, and a change of eta or zeta none between cells.

    The distances move smoothly with the parameters only while the couplings of the architectures
    stay as they are. A training that `train()` begins, as fits do, therefore holds the couplings
    that its first evaluations with gradients find, until `eval()`, the next `train()`, or
    until parameters are set by name or loaded. Evaluations without gradients, in evaluation mode,
    or before `train()` is called are exact.

    Args:
        space: Search space of the rows; None takes `spaces.AnyNetwork` of `tree`, for networks that
            no space describes: `kernel.space.encode` makes the rows.
        learn: Which of `"lam"`, `"eps"`, `"eta"`, `"zeta"`, `"tree"`, `"weights"` and
            `"unreachable"` to learn; the others are fixed. None learns lam, eps, the tree and the
            weights of numbers, and eta and zeta unless the networks of the space repeat one cell on
            one skeleton, where these are only scales; and nothing where cells are nested.
        priors: Priors by the names of parameters: of lam, eps, eta and zeta, and of each length and
            each weight of the tree relative to its start (`"tree"`, `"weights"`).
        landmarks: Rows Z, shape (..., n, d); equal networks count once.
        cutoff: Eigenvalues of K_ZZ below it are dropped, see `hotnas_torch.gp.psd.inverse_root`.
        **settings: `KernelSettings`: starts of the parameters and settings of HOTNN, such as
            `eta=0.3` or `num_starts=1`; and those of every GPyTorch kernel, such as `batch_shape`.

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

    lam = _Parameter("Weight of the node term inside a cell, shape (*batch_shape, 1).")
    eps = _Parameter("Share of operations against places inside a cell, shape (*batch_shape, 1).")
    eta = _Parameter("Share of the position in the network, shape (*batch_shape, 1).")
    zeta = _Parameter("Share of the state against the inside of cells, shape (*batch_shape, 1).")
    tree_lengths = _Parameter("Lengths of the tree, shape (*batch_shape, E), as its edges are.")
    number_weights = _Parameter("Weights of numbers, (*batch_shape, F), where the tree has any.")

    @takes(*KernelSettings.__annotations__)
    def __init__(
        self,
        space: SearchSpace | None = None,
        *,
        learn: Collection[str] | None = None,
        priors: Mapping[str, Prior | None] | None = None,
        landmarks: Tensor | None = None,
        cutoff: float = DEFAULT_CUTOFF,
        **settings: Unpack[KernelSettings],
    ) -> None:
        chosen: dict[str, Any] = dict(settings)
        space = space_or_any(space, chosen)
        every_prior = all_priors(priors, chosen)
        of_metric = {
            name: chosen.pop(name) for name in MetricSettings.__annotations__ if name in chosen
        }
        for name in every_prior:
            chosen.pop(f"{name}_prior", None)
        super().__init__(space, cutoff=cutoff, **chosen)
        start = HOTNN(space=space, **of_metric)
        self._tree = start.ifgw.tree
        self._fixed = {k: v for k, v in of_metric.items() if k not in LEARNABLE}
        unreachable = of_metric.get("unreachable")
        self.learned = learned_parameters(learn, start, unreachable)
        for name in FRACTIONS:
            value = float(getattr(start if name in ("eta", "zeta") else start.ifgw, name))
            if name in self.learned:
                value = inside(name, value, chosen=of_metric.get(name) is not None)
            self._register(name, torch.tensor([value]), Interval(0.0, 1.0))
            if (prior := every_prior[name]) is not None:
                self.register_prior(
                    f"{name}_prior", prior, partial(_parameter, name), partial(_set_parameter, name)
                )
        if unreachable is not None:
            self._register("unreachable", torch.tensor([float(unreachable)]), Positive())
        self._starts: dict[str, list[float]] = {}
        of_tree = {"tree": ("tree_lengths", self._tree.lengths_tensor)}
        if self._tree.weights:
            of_tree["weights"] = ("number_weights", self._tree.weights_tensor)
        for key, (name, values) in of_tree.items():
            found = values(dtype=torch.get_default_dtype()).detach()
            self._starts[name] = found.clamp_min(_SMALLEST_LENGTH).tolist()
            self._register(name, torch.tensor(self._starts[name]), Positive())
            if (prior := every_prior[key]) is not None:
                self.register_prior(
                    f"{key}_prior", prior, partial(_relative, name), partial(_set_relative, name)
                )
        self._memory = HOTNNMemory(space)
        self._held: Holding | None = None
        if landmarks is not None:
            self.landmarks = landmarks

    # --- parameters -------------------------------------------------------------------------------

    def _register(self, name: str, start: Tensor, constraint: Interval) -> None:
        raw = constraint.inverse_transform(start).expand(*self.batch_shape, -1).clone()
        key = {"tree_lengths": "tree", "number_weights": "weights"}.get(name, name)
        self.register_parameter(
            f"raw_{name}", torch.nn.Parameter(raw, requires_grad=key in self.learned)
        )
        self.register_constraint(f"raw_{name}", constraint)

    def _value(self, name: str) -> Tensor:
        raw, constraint = getattr(self, f"raw_{name}"), getattr(self, f"raw_{name}_constraint")
        value: Tensor = constraint.transform(raw)
        return value

    def _of(self, name: str, element: int) -> Tensor:
        """Return the value of one batch element, rounded as if it were the only one.

        A solver that is given another last digit may find another optimum.
        """
        raw, constraint = getattr(self, f"raw_{name}"), getattr(self, f"raw_{name}_constraint")
        value: Tensor = constraint.transform(raw.reshape(-1, raw.shape[-1])[element])
        return value

    def _set(self, name: str, value: Tensor | float) -> None:
        raw, constraint = getattr(self, f"raw_{name}"), getattr(self, f"raw_{name}_constraint")
        tensor = torch.as_tensor(value, dtype=raw.dtype, device=raw.device).expand_as(raw)
        self.initialize(**{f"raw_{name}": constraint.inverse_transform(tensor)})

    @property
    def unreachable(self) -> Tensor | None:
        """Cost where no information flows, (*batch_shape, 1); None where it is derived."""
        return self._value("unreachable") if hasattr(self, "raw_unreachable") else None

    @unreachable.setter
    def unreachable(self, value: Tensor | float) -> None:
        self._set("unreachable", value)

    def metric(self, element: int = 0) -> HOTNN:
        """Return the distance with the current parameters, attached to their graph.

        Args:
            element: Which element of the flattened batch shape.
        """
        derived = not hasattr(self, "raw_unreachable")
        tree = self._tree.with_lengths(self._of("tree_lengths", element))
        if "number_weights" in self._starts:
            tree = tree.with_weights(self._of("number_weights", element))
        return HOTNN(
            space=self.space,
            tree=tree,
            lam=self._of("lam", element)[0],
            eps=self._of("eps", element)[0],
            eta=self._of("eta", element)[0],
            zeta=self._of("zeta", element)[0],
            unreachable=None if derived else self._of("unreachable", element)[0],
            dtype=self.dtype,
            device=self.device,
            **self._fixed,
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
        return typical_distance(self.landmark_distances()) or 1.0

    def landmark_distances(self) -> Tensor:
        """Distances between the landmarks' distinct networks, shape (n, n), without a graph.

        Raises:
            ValueError: There are no landmarks.
        """
        numbers = self._landmark_numbers()
        with torch.no_grad():
            metric = self.metric()
            if self.training and not self.space.nests_cells:
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
        before, self._held = self._held, Holding(chosen=True)
        try:
            yield
        finally:
            self._held = before
            self._forget()

    def train(self, mode: bool = True) -> "HOTNNKernel":
        """As for every module; begins or ends a training, see the class."""
        super().train(mode)
        if self._held is None or not self._held.chosen:
            self._held = Holding(chosen=False) if mode else None
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
        if self.space.nests_cells:
            return self._memory.attached(metric, rows, cols, element)
        # A backward pass is about to follow, so couplings are found at once.
        learning = self.training and torch.is_grad_enabled() and self._learns()
        if self._held is not None and (self._held.chosen or learning):
            return self._held.find(self._memory, metric, rows, cols, element).distances(metric)
        if learning and torch.equal(rows, cols):
            return self._memory.couplings(metric, rows, cols, element).distances(metric)
        return self._memory.attached(metric, rows, cols, element)


def _parameter(name: str, kernel: HOTNNKernel) -> Tensor:
    return kernel._value(name)


def _set_parameter(name: str, kernel: HOTNNKernel, value: Tensor) -> None:
    kernel._set(name, value)


def _relative(name: str, kernel: HOTNNKernel) -> Tensor:
    value = kernel._value(name)
    return value / value.new_tensor(kernel._starts[name])


def _set_relative(name: str, kernel: HOTNNKernel, value: Tensor) -> None:
    kernel._set(name, value * value.new_tensor(kernel._starts[name]))
