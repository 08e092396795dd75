"""Gaussian processes on random generators of networks, by the networks that they generate."""

import inspect
import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.utils.types import DEFAULT, _DefaultType
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel, MaternKernel, ScaleKernel
from gpytorch.likelihoods import Likelihood
from gpytorch.means import Mean
from gpytorch.priors import LogNormalPrior
from torch import Tensor

from hotnas_torch.arch import Network, OperationTree
from hotnas_torch.distances import HOTNN, sample_distances
from hotnas_torch.gp.distance_kernel import LogInterval
from hotnas_torch.gp.distances import distinct_rows
from hotnas_torch.gp.landmarks import LandmarkKernel
from hotnas_torch.gp.observations import check_modules, checked_observations
from hotnas_torch.gp.outputs import IndependentOutputs, rows_of_elements
from hotnas_torch.gp.psd import DEFAULT_CUTOFF
from hotnas_torch.gp.settings import (
    KERNEL_SETTINGS,
    LENGTHSCALE_SETTINGS,
    takes,
    whole,
)
from hotnas_torch.nago.theta import ThetaBox

__all__ = [
    "GeneratorGP",
    "GeneratorKernel",
    "GeneratorSamples",
    "NetworkGenerator",
    "generator_metric",
    "matern_kernel",
]

_LENGTHSCALE_FACTOR = 3.0
_LENGTHSCALE_RANGE = 1e3
_SMALLEST_LENGTHSCALE = 2.5e-2
_OUTPUT_SCALES = 1e-2, 1e2


_METRIC_SETTINGS = tuple(inspect.signature(HOTNN).parameters)


class NetworkGenerator(Protocol):
    """What samples networks, `hotnas_torch.nago.HNAG` and `RNAG` among others."""

    @property
    def tree(self) -> OperationTree:
        """Costs of exchanging operations."""
        ...

    @property
    def state_scale(self) -> tuple[float, float]:
        """Divisors of a cell's state."""
        ...

    def sample(self, theta: Any, *, generator: torch.Generator) -> Network:
        """Draw a network with the hyperparameters theta."""
        ...


@takes(*_METRIC_SETTINGS)
def generator_metric(family: NetworkGenerator, **options: Any) -> HOTNN:
    """`HOTNN` with a generator's operation costs and state scale, and one start per pair.

    What three starts would change is measured by ``python -m benchmarks nested``.

    Args:
        family: The generator.
        **options: Of `HOTNN`; what is passed wins.
    """
    defaults: dict[str, Any] = {
        "tree": family.tree,
        "state_scale": family.state_scale,
        "num_starts": 1,
    }
    return HOTNN(**(defaults | options))


class GeneratorSamples:
    """Numbers for the generators behind rows, a sample of networks of each, their distances.

    The sth network of every generator is drawn from the same seed, so that generators that hardly
    differ have samples that hardly differ. Deep copies share what was sampled and compared.

    Args:
        family: Samples networks.
        space: Hyperparameters as the unit cube.
        size: Networks per generator, >= 1.
        seed: Of the networks.
        metric: Distance between networks; None takes `generator_metric`.

    Raises:
        TypeError: ``space`` is neither a ThetaSpace nor a FlatThetaSpace, or a setting is unknown
            or of the wrong kind.
        ValueError: ``size`` is less than 1, or ``seed`` is negative.

    Attributes:
        samples: The networks of each number.
    """

    @takes()
    def __init__(
        self,
        family: NetworkGenerator,
        space: ThetaBox[Any],
        *,
        size: int = 3,
        seed: int = 0,
        metric: HOTNN | None = None,
    ) -> None:
        if not isinstance(space, ThetaBox):
            raise TypeError(
                f"space must be a ThetaSpace or FlatThetaSpace; got {type(space).__name__}"
            )
        whole("size", size, 1)
        whole("seed", seed, 0)
        if metric is not None and not isinstance(metric, HOTNN):
            raise TypeError(f"metric must be a HOTNN or None; got {type(metric).__name__}")
        self.family, self.space = family, space
        self.size, self.seed = size, seed
        self.metric = generator_metric(family) if metric is None else metric
        self.samples: list[list[Network]] = []
        self._by_row: dict[bytes, int] = {}
        self._by_sample: dict[tuple[str, ...], int] = {}
        self._table = torch.empty(0, 0, dtype=torch.float64)

    def __deepcopy__(self, memo: dict[int, Any]) -> "GeneratorSamples":
        return self

    def __call__(self, X: Tensor) -> Tensor:
        """Numbers of the generators of rows, which samples those that are new.

        Args:
            X: Rows in [0, 1], shape (..., d). Rows with equal samples share a number, as do those
                that agree once integers are rounded.

        Returns:
            Shape (...), int64 on the CPU.

        Raises:
            ValueError: Rows of another length than the space's, or outside the cube.
        """
        if X.shape[-1] != self.space.dim:
            raise ValueError(
                f"X must have {self.space.dim} columns, {', '.join(self.space.columns)}; got shape"
                f" {tuple(X.shape)}"
            )
        flat = X.detach().reshape(-1, X.shape[-1]).to("cpu", torch.float64)
        outside = ~((flat >= 0.0) & (flat <= 1.0))
        if bool(outside.any()):
            row, column = outside.nonzero()[0].tolist()
            raise ValueError(
                f"X must lie in [0, 1]; row {row} has {flat[row, column].item():g} for"
                f" {self.space.columns[column]}"
            )
        # Adding 0 turns -0 into 0, which are different bytes.
        distinct, inverse = distinct_rows(flat + 0.0)
        names = [row.tobytes() for row in self.space.round(distinct).numpy()]
        unknown = [place for place, name in enumerate(names) if name not in self._by_row]
        for place, theta in zip(unknown, self.space.decode(distinct[unknown]), strict=True):
            self._by_row[names[place]] = self._number(
                [self._drawn(theta, number) for number in range(self.size)]
            )
        numbers = torch.tensor([self._by_row[name] for name in names], dtype=torch.int64)
        return numbers[inverse].reshape(X.shape[:-1])

    def _number(self, sample: list[Network]) -> int:
        key = tuple(sorted(net.key for net in sample))
        number = self._by_sample.setdefault(key, len(self.samples))
        if number == len(self.samples):
            self.samples.append(sample)
        return number

    def _drawn(self, theta: Any, number: int) -> Network:
        generator = torch.Generator().manual_seed(self.seed * self.size + number)
        return self.family.sample(theta, generator=generator)

    def distances(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Distances between the samples of generators, each pair computed once.

        Args:
            rows: Distinct numbers, shape (r,).
            cols: Distinct numbers, shape (c,).

        Returns:
            Shape (r, c), float64 on the CPU, without a graph; see `distances.sample_distances`.
        """
        self._make_room()
        unknown = self._table[rows[:, None], cols].isnan()
        # New rows first: where they are columns as well, they fill the others' gaps.
        self._compute(rows[unknown.all(1)], cols)
        unknown = self._table[rows[:, None], cols].isnan()
        self._compute(rows[unknown.any(1)], cols[unknown.any(0)])
        return self._table[rows[:, None], cols]

    def _compute(self, rows: Tensor, cols: Tensor) -> None:
        if len(rows) == 0 or len(cols) == 0:
            return
        left, right = ([self.samples[k] for k in side.tolist()] for side in (rows, cols))
        same = torch.equal(rows, cols)
        found = sample_distances(self.metric, left, None if same else right)
        found = found.to("cpu", torch.float64)
        self._table[rows[:, None], cols] = found
        self._table[cols[:, None], rows] = found.T

    def _make_room(self) -> None:
        known = len(self._table)
        if known < len(self.samples):
            # Room for as many again: the table is copied a logarithmic number of times.
            size = max(len(self.samples), 2 * known)
            grown = self._table.new_full((size, size), torch.nan)
            grown[:known, :known] = self._table
            self._table = grown


class GeneratorKernel(LandmarkKernel):
    r"""Exponential kernel on generators, by exact transport between samples of their networks.

    .. math:: k(x, x') = \exp(-d(x, x') / \ell)

    d is the transport between samples of `samples.size` networks under HOTNN, a further level of
    the hierarchy. With landmarks it is positive semi-definite, see `LandmarkKernel`.

    Args:
        samples: Numbers generators, samples networks and remembers distances; share one between
            kernels.
        landmarks: Rows Z of the feature map, shape (..., n, d).
        cutoff: Eigenvalues of K_ZZ below it are dropped, see `hotnas_torch.gp.psd.inverse_root`.
        **kwargs: ``batch_shape``, ``active_dims``, ``lengthscale_prior``,
            ``lengthscale_constraint``, as for every :class:`gpytorch.kernels.Kernel`.

    Raises:
        TypeError: `samples` is no GeneratorSamples, or a setting is unknown or of the wrong kind.
        ValueError: `cutoff` is not positive.

    Differentiability: in the lengthscale; not in the rows.

    Complexity: size^2 HOTNN distances per pair of a new row and a landmark; O(n^3) per evaluation
        with n landmarks.

    Example:
        >>> from hotnas_torch.nago import HNAG, ThetaSpace
        >>> space = ThetaSpace(nodes=(3, 4), mid_nodes=(1, 2))
        >>> X = space.sample(3, generator=torch.Generator().manual_seed(0))
        >>> kernel = GeneratorKernel(GeneratorSamples(HNAG(), space, size=2)).double()
        >>> kernel(X).to_dense().diagonal().tolist()
        [1.0, 1.0, 1.0]
    """

    has_lengthscale = True

    @takes(*KERNEL_SETTINGS, *LENGTHSCALE_SETTINGS)
    def __init__(
        self,
        samples: GeneratorSamples,
        *,
        landmarks: Tensor | None = None,
        cutoff: float = DEFAULT_CUTOFF,
        **kwargs: Any,
    ) -> None:
        if not isinstance(samples, GeneratorSamples):
            raise TypeError(f"samples must be GeneratorSamples; got {type(samples).__name__}")
        super().__init__(cutoff=cutoff, **kwargs)
        self.samples = samples
        if landmarks is not None:
            self.landmarks = landmarks

    @property
    def _index(self) -> GeneratorSamples:
        return self.samples

    def _names(self, numbers: Tensor) -> list[str]:
        samples = (self.samples.samples[number] for number in numbers.tolist())
        return [" ".join(sorted(net.key for net in sample)) for sample in samples]

    def _similarity(self, rows: Tensor, cols: Tensor) -> Tensor:
        lengthscale = self.lengthscale.reshape(-1, 1, 1)
        return torch.exp(-self.samples.distances(rows, cols).to(lengthscale) / lengthscale)

    def median_distance(self) -> float:
        """Median distance between different landmarks, 1 if there is none.

        Raises:
            ValueError: There are no landmarks.
        """
        numbers = self._landmark_numbers()
        distances = self.samples.distances(numbers, numbers)
        row, col = torch.triu_indices(len(numbers), len(numbers), offset=1)
        median = float(distances[row, col].median()) if len(row) else 0.0
        return median if median > 0.0 else 1.0


class GeneratorGP(IndependentOutputs):
    """Gaussian process on generators: their networks, their hyperparameters, or both.

    A :class:`botorch.models.SingleTaskGP` on rows of the unit cube. Targets are standardised unless
    another `outcome_transform` is given; several outputs are modelled independently.

    Args:
        train_X: Rows in [0, 1], shape (..., n, d), float64 recommended.
        train_Y: Targets, shape (..., n, m), larger is better where BoTorch's acquisition functions
            are used.
        train_Yvar: Known variances of the targets' noise, shape (..., n, m); None infers it.
        samples: Samples networks; not needed with ``by="theta"``.
        by: ``"networks"``: a `GeneratorKernel` with the training rows as landmarks; ``"theta"``: a
            Matern-5/2 kernel with a lengthscale per hyperparameter; ``"product"`` or
            ``"additive"``: both.
        likelihood: As for `SingleTaskGP`, like the following.
        mean_module: See `SingleTaskGP`.
        outcome_transform: See `SingleTaskGP`.

    Raises:
        TypeError: A setting that is unknown or of the wrong kind.
        ValueError: Another `by`, `samples` missing, fewer than two observations, targets that are
            not finite or vary so little or so much that variances cannot be told, or rows of
            another length than the space's or outside the cube.

    Example:
        >>> from hotnas_torch.nago import HNAG, ThetaSpace
        >>> space = ThetaSpace(nodes=(3, 4), mid_nodes=(1, 2))
        >>> X = space.sample(4, generator=torch.Generator().manual_seed(0))
        >>> model = GeneratorGP(X, X[:, :1], samples=GeneratorSamples(HNAG(), space, size=1))
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
        samples: GeneratorSamples | None = None,
        by: Literal["networks", "theta", "product", "additive"] = "additive",
        likelihood: Likelihood | None = None,
        mean_module: Mean | None = None,
        outcome_transform: OutcomeTransform | _DefaultType | None = DEFAULT,
    ) -> None:
        if by not in ("networks", "theta", "product", "additive"):
            raise ValueError(f"by must be 'networks', 'theta', 'product' or 'additive'; got {by!r}")
        if by != "theta" and samples is None:
            raise ValueError(f"samples is required with by={by!r} (pass GeneratorSamples(...))")
        if samples is not None and not isinstance(samples, GeneratorSamples):
            raise TypeError(f"samples must be GeneratorSamples; got {type(samples).__name__}")
        check_modules(
            likelihood=likelihood, mean_module=mean_module, outcome_transform=outcome_transform
        )
        train_X, train_Y, train_Yvar = checked_observations(
            train_X, train_Y, train_Yvar, outcome_transform=outcome_transform
        )
        outside = ~((train_X >= 0.0) & (train_X <= 1.0))
        if bool(outside.any()):
            raise ValueError(f"train_X must lie in [0, 1]; got {train_X[outside][0].item():g}")
        _, batch_shape = self.get_batch_dimensions(train_X=train_X, train_Y=train_Y)
        kernels: list[Kernel] = []
        if samples is not None and by != "theta":
            rows = rows_of_elements(train_X, batch_shape)
            kernels.append(_networks_kernel(samples, rows, batch_shape))
        if by != "networks":
            kernels.append(matern_kernel(train_X.shape[-1], batch_shape=batch_shape).to(train_X))
        if by == "additive":
            covar_module = _scaled(kernels[0]) + _scaled(kernels[1])
        else:
            covar_module = _scaled(kernels[0] * kernels[1] if by == "product" else kernels[0])
        super().__init__(
            train_X,
            train_Y,
            train_Yvar,
            likelihood=likelihood,
            covar_module=covar_module,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
        )
        self._tell_outputs_apart()


def matern_kernel(dim: int, *, batch_shape: Sequence[int] = ()) -> MaternKernel:
    """Matern-5/2 kernel on a unit cube, with BoTorch's dimension-scaled prior of lengthscales.

    Args:
        dim: Dimensions of the cube.
        batch_shape: As for every :class:`gpytorch.kernels.Kernel`.

    Reference: Hvarfner, Hellsten and Nardi, "Vanilla Bayesian Optimization Performs Great in High
        Dimensions", ICML 2024.
    """
    kernel = MaternKernel(
        nu=2.5,
        ard_num_dims=dim,
        batch_shape=torch.Size(batch_shape),
        lengthscale_constraint=GreaterThan(_SMALLEST_LENGTHSCALE),
        lengthscale_prior=LogNormalPrior(math.sqrt(2.0) + 0.5 * math.log(dim), math.sqrt(3.0)),
    )
    kernel.lengthscale = math.sqrt(dim)
    return kernel


def _networks_kernel(
    samples: GeneratorSamples, rows: Tensor, batch_shape: torch.Size
) -> GeneratorKernel:
    """The kernel with a lengthscale that starts at three times the median distance."""
    kernel: GeneratorKernel = GeneratorKernel(samples, landmarks=rows, batch_shape=batch_shape)
    kernel = kernel.to(rows)
    start = _LENGTHSCALE_FACTOR * kernel.median_distance()
    kernel.register_constraint(
        "raw_lengthscale", LogInterval(start / _LENGTHSCALE_RANGE, start * _LENGTHSCALE_RANGE)
    )
    kernel.register_prior(
        "lengthscale_prior",
        LogNormalPrior(math.log(start), 1.0).to(rows),
        kernel._lengthscale_param,
        kernel._lengthscale_closure,
    )
    kernel.lengthscale = start
    return kernel


def _scaled(kernel: Kernel) -> ScaleKernel:
    # Bounded, as a scale of 0 has no density, and a line search may try it.
    scaled = ScaleKernel(
        kernel,
        batch_shape=kernel.batch_shape,
        outputscale_prior=LogNormalPrior(0.0, 1.0),
        outputscale_constraint=LogInterval(*_OUTPUT_SCALES),
    )
    scaled.outputscale = 1.0
    return scaled
