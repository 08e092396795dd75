"""Gaussian processes on random generators of networks, by the networks that they generate."""

import math
from typing import Any, Literal, Protocol

import torch
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.utils.types import DEFAULT, _DefaultType
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import Likelihood
from gpytorch.means import Mean
from gpytorch.priors import LogNormalPrior
from torch import Tensor

from hotnas_torch.arch import Network, OperationTree
from hotnas_torch.arguments import integer, takes
from hotnas_torch.distances import HOTNN, sample_distances
from hotnas_torch.gp.kernel_gp import KernelGP
from hotnas_torch.gp.landmarks import LandmarkKernel
from hotnas_torch.gp.memory import PairMemory, RowIndex, typical_distance
from hotnas_torch.gp.psd import DEFAULT_CUTOFF
from hotnas_torch.gp.scales import matern_kernel, scaled, start_lengthscale
from hotnas_torch.gp.settings import KERNEL_SETTINGS, LENGTHSCALE_SETTINGS
from hotnas_torch.nago.theta import ThetaBox

__all__ = [
    "GeneratorGP",
    "GeneratorKernel",
    "GeneratorSamples",
    "NetworkGenerator",
    "generator_metric",
]

_LENGTHSCALE_RANGE = 1e3
_SMALLEST_LENGTHSCALE = 2.5e-2


Sample = list[Network]


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


@takes(*HOTNN.SETTINGS)
def generator_metric(family: NetworkGenerator, **options: Any) -> HOTNN:
    """`HOTNN` with a generator's operation costs and state scale, and one start per pair.

    What three starts would change is measured by `python -m benchmarks nested`.

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


class _SamplePairs(PairMemory):
    """Transport between samples of networks."""

    distance: HOTNN

    def _num_parts(self) -> int:
        return 1

    def _between(self, things_a: list[Sample], things_b: list[Sample] | None) -> Tensor:
        found = sample_distances(self.distance, things_a, things_b)
        return found.to("cpu", torch.float64).unsqueeze(0)


class GeneratorSamples(RowIndex[Sample]):
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
        TypeError: `space` is neither a ThetaSpace nor a FlatThetaSpace, or a setting is unknown
            or of the wrong kind.
        ValueError: `size` is less than 1, or `seed` is negative.

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
        integer("size", size, least=1)
        integer("seed", seed, least=0)
        if metric is not None and not isinstance(metric, HOTNN):
            raise TypeError(f"metric must be a HOTNN or None; got {type(metric).__name__}")
        super().__init__(space.dim)
        self.family, self.space = family, space
        self.size, self.seed = size, seed
        self.metric = generator_metric(family) if metric is None else metric
        self._memory = _SamplePairs(self.metric, self)

    @property
    def samples(self) -> list[Sample]:
        """The networks of each number."""
        return self.things

    def key(self, thing: Sample) -> tuple[str, ...]:
        """Return the keys of the networks, in order."""
        return tuple(sorted(net.key for net in thing))

    def _columns(self) -> str:
        return ", ".join(self.space.columns)

    def _check(self, rows: Tensor) -> None:
        outside = ~((rows >= 0.0) & (rows <= 1.0))
        if bool(outside.any()):
            row, column = outside.nonzero()[0].tolist()
            raise ValueError(
                f"X must lie in [0, 1]; row {row} has {rows[row, column].item():g} for"
                f" {self.space.columns[column]}"
            )

    def _rounded(self, rows: Tensor) -> Tensor:
        return self.space.round(rows)

    def _decoded(self, rows: Tensor) -> list[Sample]:
        return [
            [self._drawn(theta, number) for number in range(self.size)]
            for theta in self.space.decode(rows)
        ]

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
        return self._memory(rows, cols)[0]


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
        **kwargs: `batch_shape`, `active_dims`, `lengthscale_prior`,
            `lengthscale_constraint`, as for every `gpytorch.kernels.Kernel`.

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
        return [" ".join(self.samples.key(sample)) for sample in self.samples.select(numbers)]

    def _similarity(self, rows: Tensor, cols: Tensor) -> Tensor:
        lengthscale = self.lengthscale.reshape(-1, 1, 1)
        return torch.exp(-self.samples.distances(rows, cols).to(lengthscale) / lengthscale)

    def median_distance(self) -> float:
        """Median distance between different landmarks, 1 if there is none.

        Raises:
            ValueError: There are no landmarks.
        """
        numbers = self._landmark_numbers()
        return typical_distance(self.samples.distances(numbers, numbers)) or 1.0


class GeneratorGP(KernelGP):
    """Gaussian process on generators: their networks, their hyperparameters, or both.

    A `botorch.models.SingleTaskGP` on rows of the unit cube. Targets are standardised unless
    another `outcome_transform` is given; several outputs are modelled independently.

    Args:
        train_X: Rows in [0, 1], shape (..., n, d), float64 recommended.
        train_Y: Targets, shape (..., n, m), larger is better where BoTorch's acquisition functions
            are used.
        train_Yvar: Known variances of the targets' noise, shape (..., n, m); None infers it.
        samples: Samples networks; not needed with `by="theta"`.
        by: `"networks"`: a `GeneratorKernel` with the training rows as landmarks; `"theta"`: a
            Matern-5/2 kernel with a lengthscale per hyperparameter; `"product"` or
            `"additive"`: both.
        likelihood: Of the observations; None takes Gaussian noise.
        mean_module: Prior mean; None takes a constant that is learned.
        outcome_transform: What is done to targets first; by default they are standardised.

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

        def covariance(rows: Tensor, batch_shape: torch.Size) -> Kernel:
            outside = ~((rows >= 0.0) & (rows <= 1.0))
            if bool(outside.any()):
                raise ValueError(f"train_X must lie in [0, 1]; got {rows[outside][0].item():g}")
            kernels: list[Kernel] = []
            if samples is not None and by != "theta":
                kernels.append(_networks_kernel(samples, rows, batch_shape))
            if by != "networks":
                kernels.append(_theta_kernel(rows, batch_shape))
            if by == "additive":
                return scaled(kernels[0], bounded=True) + scaled(kernels[1], bounded=True)
            return scaled(kernels[0] * kernels[1] if by == "product" else kernels[0], bounded=True)

        super().__init__(
            train_X,
            train_Y,
            train_Yvar,
            covariance=covariance,
            likelihood=likelihood,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
        )


def _theta_kernel(rows: Tensor, batch_shape: torch.Size) -> Kernel:
    """Matern-5/2 kernel on a unit cube, with BoTorch's dimension-scaled prior of lengthscales.

    Reference: Hvarfner, Hellsten and Nardi, "Vanilla Bayesian Optimization Performs Great in High
        Dimensions", ICML 2024.
    """
    dim = rows.shape[-1]
    return matern_kernel(
        math.sqrt(dim),
        num_columns=dim,
        batch_shape=batch_shape,
        constraint=GreaterThan(_SMALLEST_LENGTHSCALE),
        prior=LogNormalPrior(math.sqrt(2.0) + 0.5 * math.log(dim), math.sqrt(3.0)),
    ).to(rows)


def _networks_kernel(
    samples: GeneratorSamples, rows: Tensor, batch_shape: torch.Size
) -> GeneratorKernel:
    """Return the kernel with a lengthscale that starts at three times the median distance."""
    kernel: GeneratorKernel = GeneratorKernel(samples, landmarks=rows, batch_shape=batch_shape)
    kernel = kernel.to(rows)
    start_lengthscale(kernel, kernel.median_distance(), rows, range_=_LENGTHSCALE_RANGE)
    return kernel
