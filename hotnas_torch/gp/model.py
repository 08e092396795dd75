"""HOTNNGP: a BoTorch model of a quantity that depends on an architecture."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, Unpack

import torch
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.utils.types import DEFAULT, _DefaultType
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import Likelihood
from gpytorch.means import Mean
from gpytorch.mlls import MarginalLogLikelihood
from gpytorch.priors import LogNormalPrior, Prior
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, takes
from hotnas_torch.distances import HOTNN
from hotnas_torch.gp.distribution import distribution_kernel
from hotnas_torch.gp.hotnn_settings import FRACTIONS, KernelSettings, ModelSettings, all_priors
from hotnas_torch.gp.kernel import HOTNNKernel
from hotnas_torch.gp.kernel_gp import KernelGP
from hotnas_torch.gp.network_lists import as_rows, space_or_any
from hotnas_torch.gp.observations import check_modules
from hotnas_torch.gp.priors import LogitNormalPrior
from hotnas_torch.gp.psd import Spectrum
from hotnas_torch.gp.rounds import fit_in_rounds
from hotnas_torch.gp.scales import matern_kernel, scaled, start_lengthscale
from hotnas_torch.gp.settings import KERNEL_SETTINGS
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.joint import network_space

__all__ = ["HOTNNGP", "architecture_kernel", "combined_kernel"]

# Prior widths on log scales: the trade-offs move freely where data ask for it, and small data sets
# stay near the defaults.
_FRACTION_SCALE = 1.0
_LENGTH_SCALE = 0.5


@takes(*KernelSettings.__annotations__, "cutoff")
def architecture_kernel(
    space: SearchSpace,
    landmarks: Tensor,
    *,
    learn: Collection[str] | None = None,
    priors: Mapping[str, Prior | None] | None = None,
    **settings: Any,
) -> HOTNNKernel:
    """Return a `HOTNNKernel` with priors and starts that suit small data sets.

    The lengthscale starts at three times the median distance between landmarks, with a log-normal
    prior there; the learned fractions have logit-normal priors and the lengths and weights of the
    operation tree log-normal ones, all centred at their starts.

    Args:
        space: Search space of the rows.
        landmarks: Training rows, shape (..., n, d).
        learn: What to learn, as for `HOTNNKernel`.
        priors: Priors that replace those, by the names of parameters.
        **settings: Others of `HOTNNKernel`; a prior that is passed wins.

    Returns:
        The kernel, in the dtype and on the device of `landmarks`.

    Raises:
        TypeError, ValueError, ArchitectureError: As `HOTNNKernel`.
    """
    alone = {k: v for k, v in settings.items() if k not in KERNEL_SETTINGS}
    probe = HOTNNKernel(space, learn=learn, priors=priors, **alone)
    chosen = all_priors(priors, settings)
    for name in FRACTIONS:
        if name in probe.learned and chosen[name] is None:
            chosen[name] = LogitNormalPrior(float(getattr(probe, name).detach()), _FRACTION_SCALE)
    for name in ("tree", "weights"):
        if name in probe.learned and chosen[name] is None:
            chosen[name] = LogNormalPrior(0.0, _LENGTH_SCALE)
    taken = {f"{name}_prior" for name in chosen}
    others = {k: v for k, v in settings.items() if k not in taken}
    kernel: HOTNNKernel = HOTNNKernel(space, learn=learn, priors=chosen, **others).to(landmarks)
    kernel.landmarks = landmarks
    typical = kernel.median_distance()
    start_lengthscale(kernel, typical, landmarks, prior="lengthscale_prior" not in settings)
    return kernel


@takes()
def combined_kernel(
    architecture: Kernel, num_features: int, how: Literal["product", "additive"]
) -> Kernel:
    """Combine an architecture kernel with a Matern kernel on numeric columns that follow the row.

    Args:
        architecture: Kernel on the leading columns, its `active_dims` set.
        num_features: Numeric columns k >= 1 at the end, scaled to comparable ranges.
        how: `"product"`: rows must agree in both; `"additive"`: each explains a part.

    Returns:
        The combination, without an output scale of its own in the product.

    Raises:
        ValueError: Another `how`, no numeric column, or `architecture` takes all columns.
    """
    integer("num_features", num_features, least=1)
    if how not in ("product", "additive"):
        raise ValueError(f"how must be 'product' or 'additive'; got {how!r}")
    if architecture.active_dims is None:
        raise ValueError(
            "architecture must have active_dims, the leading columns that hold the row; it takes"
            " all columns (pass active_dims=range(space.dim) when making it)"
        )
    first = architecture.active_dims.numel()
    numeric = matern_kernel(
        math.sqrt(num_features),
        num_columns=num_features,
        active_dims=range(first, first + num_features),
        batch_shape=architecture.batch_shape,
        prior=LogNormalPrior(0.5 * math.log(num_features), 1.0),
    ).to(architecture.lengthscale)
    return architecture * numeric if how == "product" else scaled(architecture) + scaled(numeric)


class HOTNNGP(KernelGP):
    """Gaussian process on architectures, with everything that BoTorch expects of a model.

    A `botorch.models.SingleTaskGP` whose covariance is outputscale * exp(-HOTNN /
    lengthscale), made positive semi-definite with the training rows as landmarks. Inputs are rows
    that `space.encode` returned, followed by numeric columns if there are any; of a `Joint` space,
    the kernel is multiplied with one between hyperparameters (`values_kernel`). Targets are
    standardised unless another `outcome_transform` is given; several outputs are modelled
    independently with parameters of their own.

    `fit_gpytorch_mll` learns all parameters, those of the distance included: each round holds the
    couplings of the architectures while L-BFGS moves the parameters, then finds the couplings
    again and keeps the move if the marginal likelihood has grown.

    Args:
        train_X: Networks; or rows, shape (..., n, d) with d = space.dim plus the number of numeric
            columns, float64 recommended; integers and the narrower of two types are converted.
        train_Y: Targets, shape (..., n, m), larger is better where BoTorch's acquisition functions
            are used; finite.
        train_Yvar: Known variances of the targets' noise, shape (..., n, m); None infers it.
        space: Search space of the rows. None takes `spaces.AnyNetwork` of `tree=`, for networks
            that no space describes: pass these as `train_X`, or rows of such a space beside numeric
            columns.
        likelihood: Of the observations; None takes Gaussian noise.
        covar_module: Covariance in place of the default one.
        mean_module: Prior mean; None takes a constant that is learned.
        outcome_transform: What is done to targets first; by default they are standardised.
        input_transform: What is done to rows first; it must leave the columns of the row as they
            are.
        **settings: `ModelSettings`: what to learn, how other columns enter, starts and settings of
            HOTNN, such as `learn=["lam"]`, `combine="additive"` or `eta=0.3`.

    Raises:
        TypeError: `space` is no search space, or a setting is unknown or of the wrong kind.
        ValueError: Fewer than two observations; targets that are not finite, are constant, or vary
            so little or so much that variances cannot be told; too few columns; an
            `input_transform` that changes rows; or an option out of range.
        ArchitectureError: A row that encodes no network of the space; the message names it.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> nets = space.sample(6, generator=torch.Generator().manual_seed(0))
        >>> X = space.encode(nets)
        >>> Y = (X == 3).sum(dim=1, keepdim=True).double()  # number of 3x3 convolutions
        >>> model = HOTNNGP(X, Y, space=space)
        >>> model.posterior(X[:2]).mean.shape
        torch.Size([2, 1])
    """

    _takes_numbers = True

    @takes(*ModelSettings.__annotations__)
    def __init__(
        self,
        train_X: Tensor | Sequence[Network],
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        *,
        space: SearchSpace | None = None,
        likelihood: Likelihood | None = None,
        covar_module: Kernel | None = None,
        mean_module: Mean | None = None,
        outcome_transform: OutcomeTransform | _DefaultType | None = DEFAULT,
        input_transform: InputTransform | None = None,
        **settings: Unpack[ModelSettings],
    ) -> None:
        check_modules(covar_module=covar_module)
        of_kernel: dict[str, Any] = dict(settings)
        space = space_or_any(space, of_kernel)
        networks = network_space(space)
        train_X = as_rows("train_X", train_X, space)
        combine = of_kernel.pop("combine", "product")
        if combine not in ("product", "additive"):
            raise ValueError(f"combine must be 'product' or 'additive'; got {combine!r}")
        distribution = of_kernel.pop("distribution", None)
        if distribution not in (None, "product", "additive"):
            raise ValueError(
                f"distribution must be 'product', 'additive' or None; got {distribution!r}"
            )

        def covariance(rows: Tensor, batch_shape: torch.Size) -> Kernel:
            num_features = rows.shape[-1] - networks.dim
            if distribution is not None and num_features:
                raise ValueError(
                    "distribution must be None with numeric columns, of which there are"
                    f" {num_features}"
                )
            if covar_module is not None:
                return covar_module
            kernel = architecture_kernel(
                networks,
                rows[..., : networks.dim],
                batch_shape=batch_shape,
                active_dims=range(networks.dim) if num_features else None,
                **of_kernel,
            )
            if num_features:
                both = combined_kernel(kernel, num_features, combine)
                return both if combine == "additive" else scaled(both)
            if distribution is None:
                return scaled(kernel)
            coarse = distribution_kernel(networks, batch_shape=batch_shape).to(rows)
            if distribution == "product":
                return scaled(kernel * coarse)
            return scaled(kernel) + scaled(coarse)

        given = [name for name in (*of_kernel, "distribution") if settings.get(name) is not None]
        if covar_module is not None and given:
            raise ValueError(
                f"covar_module replaces the default kernel, to which {', '.join(given)} would apply"
                " (set them on the kernel that is passed)"
            )
        super().__init__(
            train_X,
            train_Y,
            train_Yvar,
            covariance=covariance,
            space=space,
            combine=combine,
            likelihood=likelihood,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
            input_transform=input_transform,
        )
        self.space = space

    @property
    def architecture_kernels(self) -> list[HOTNNKernel]:
        """The HOTNN kernels inside the covariance, usually one."""
        return [module for module in self.covar_module.modules() if isinstance(module, HOTNNKernel)]

    @property
    def metric(self) -> HOTNN:
        """The distance with the current parameters, without their graph.

        Raises:
            ValueError: The covariance has no HOTNN kernel.
        """
        with torch.no_grad():
            return self._kernel().metric()

    def spectrum(self) -> Spectrum:
        """Return what the feature map of the kernel drops, see `HOTNNKernel.spectrum`.

        Raises:
            ValueError: The covariance has no HOTNN kernel, or it has no landmarks.
        """
        return self._kernel().spectrum()

    def _kernel(self) -> HOTNNKernel:
        kernels = self.architecture_kernels
        if not kernels:
            raise ValueError("the covariance of this model holds no HOTNNKernel")
        return kernels[0]

    @contextmanager
    def couplings_held(self) -> Iterator[None]:
        """`HOTNNKernel.couplings_held` for all kernels of the model."""
        with ExitStack() as stack:
            for kernel in self.architecture_kernels:
                stack.enter_context(kernel.couplings_held())
            yield

    def custom_fit(self, mll: MarginalLogLikelihood, **options: Any) -> MarginalLogLikelihood:
        """Fit the model; `fit_gpytorch_mll` calls this.

        Args:
            mll: Marginal log likelihood of this model.
            **options: Of `fit_gpytorch_mll`, and `max_rounds`, the most rounds of L-BFGS with held
                couplings.

        Returns:
            `mll`, in evaluation mode, with the best parameters that each batch element met.

        Raises:
            RuntimeError: The model was built under `torch.inference_mode()`.
        """
        shape = self._aug_batch_shape
        return fit_in_rounds(mll, self.couplings_held, batch_shape=shape, **options)
