"""HOTNNGP: a BoTorch model of a quantity that depends on an architecture."""

import math
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from botorch.exceptions.warnings import OptimizationWarning
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.optim.closures import get_loss_closure
from botorch.optim.fit import fit_gpytorch_mll_scipy
from botorch.utils.types import DEFAULT, _DefaultType
from gpytorch.kernels import Kernel, MaternKernel, ScaleKernel
from gpytorch.likelihoods import Likelihood
from gpytorch.means import Mean
from gpytorch.mlls import MarginalLogLikelihood
from gpytorch.priors import LogNormalPrior
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from hotnas_torch.distances import HOTNN
from hotnas_torch.gp.distribution import Coarse, distribution_kernel
from hotnas_torch.gp.kernel import HOTNNKernel
from hotnas_torch.gp.observations import check_input_transform, check_modules, checked_rows
from hotnas_torch.gp.outputs import IndependentOutputs, rows_of_elements
from hotnas_torch.gp.priors import LogitNormalPrior
from hotnas_torch.gp.psd import Spectrum
from hotnas_torch.gp.settings import known_settings, takes, whole
from hotnas_torch.spaces import SearchSpace

__all__ = ["HOTNNGP", "architecture_kernel", "combined_kernel"]

# Prior widths on log scales: the trade-offs move freely where data ask for it, and small data sets
# stay near the defaults.
_FRACTION_SCALE = 1.0
_LENGTH_SCALE = 0.5
_LENGTHSCALE_FACTOR = 3.0

_ROUNDS = 3
_ROUND_GAIN = 1e-2
_MARGIN = 1e-4
_ROUND_OPTIONS = {"maxiter": 60, "ftol": 1e-6, "gtol": 1e-4}

_KERNEL_OPTIONS = known_settings(
    HOTNNKernel.__init__, without=("space", "learn", "landmarks", "batch_shape", "active_dims")
)


@takes(*_KERNEL_OPTIONS)
def architecture_kernel(
    space: SearchSpace,
    landmarks: Tensor,
    *,
    learn: Collection[str] | None = None,
    batch_shape: torch.Size | None = None,
    active_dims: Sequence[int] | None = None,
    **options: Any,
) -> HOTNNKernel:
    """A `HOTNNKernel` with priors and starts that suit small data sets.

    The lengthscale starts at three times the median distance between landmarks, with a log-normal
    prior there; the learned fractions have logit-normal priors and the lengths of the operation
    tree log-normal ones, all centred at their starts.

    Args:
        space: Search space of the rows.
        landmarks: Training rows, shape (..., n, d).
        learn: What to learn, see `HOTNNKernel`.
        batch_shape: See `HOTNNKernel`.
        active_dims: Columns that hold the row, where there are others.
        **options: Starts and settings of `HOTNNKernel`; a prior that is passed wins.

    Returns:
        The kernel, in the dtype and on the device of `landmarks`.

    Raises:
        TypeError, ValueError, ArchitectureError: As `HOTNNKernel`.
    """
    probe = HOTNNKernel(space, learn=learn, **options)
    for name in ("lam", "eps", "eta", "zeta"):
        if name in probe.learned:
            start = float(getattr(probe, name).detach())
            options.setdefault(f"{name}_prior", LogitNormalPrior(start, _FRACTION_SCALE))
    if "tree" in probe.learned:
        options.setdefault("tree_prior", LogNormalPrior(0.0, _LENGTH_SCALE))
    kernel: HOTNNKernel = HOTNNKernel(
        space,
        learn=learn,
        batch_shape=torch.Size() if batch_shape is None else batch_shape,
        active_dims=active_dims,
        **options,
    ).to(landmarks)
    kernel.landmarks = landmarks
    start = _LENGTHSCALE_FACTOR * kernel.median_distance()
    if "lengthscale_prior" not in options:
        prior = LogNormalPrior(math.log(start), 1.0).to(landmarks)
        kernel.register_prior(
            "lengthscale_prior", prior, kernel._lengthscale_param, kernel._lengthscale_closure
        )
    kernel.lengthscale = start
    return kernel


@takes()
def combined_kernel(
    architecture: Kernel, num_features: int, how: Literal["product", "additive"]
) -> Kernel:
    """An architecture kernel together with a Matern kernel on numeric columns that follow the row.

    Args:
        architecture: Kernel on the leading columns, its ``active_dims`` set.
        num_features: Numeric columns k >= 1 at the end, scaled to comparable ranges.
        how: ``"product"``: rows must agree in both; ``"additive"``: each explains a part.

    Returns:
        The combination, without an output scale of its own in the product.

    Raises:
        ValueError: Another `how`, no numeric column, or `architecture` takes all columns.
    """
    whole("num_features", num_features, 1)
    if how not in ("product", "additive"):
        raise ValueError(f"how must be 'product' or 'additive'; got {how!r}")
    if architecture.active_dims is None:
        raise ValueError(
            "architecture must have active_dims, the leading columns that hold the row; it takes"
            " all columns (pass active_dims=range(space.dim) when making it)"
        )
    first = architecture.active_dims.numel()
    numeric = MaternKernel(
        nu=2.5,
        ard_num_dims=num_features,
        batch_shape=architecture.batch_shape,
        active_dims=tuple(range(first, first + num_features)),
        lengthscale_prior=LogNormalPrior(0.5 * math.log(num_features), 1.0),
    )
    numeric.lengthscale = math.sqrt(num_features)
    numeric = numeric.to(architecture.lengthscale)
    if how == "product":
        return architecture * numeric
    return _scaled(architecture) + _scaled(numeric)


def _scaled(kernel: Kernel) -> ScaleKernel:
    scaled = ScaleKernel(
        kernel, batch_shape=kernel.batch_shape, outputscale_prior=LogNormalPrior(0.0, 1.0)
    )
    scaled.outputscale = 1.0
    return scaled.to(kernel.lengthscale)


class HOTNNGP(IndependentOutputs):
    """Gaussian process on architectures, with everything that BoTorch expects of a model.

    A :class:`botorch.models.SingleTaskGP` whose covariance is outputscale * exp(-HOTNN /
    lengthscale), made positive semi-definite with the training rows as landmarks. Inputs are rows
    that ``space.encode`` returned, followed by numeric columns if there are any. Targets are
    standardised unless another `outcome_transform` is given; several outputs are modelled
    independently with parameters of their own.

    ``fit_gpytorch_mll`` learns all parameters, those of the distance included: each round holds the
    couplings of the architectures while L-BFGS moves the parameters, then finds the couplings
    again and keeps the move if the marginal likelihood has grown.

    Args:
        train_X: Rows, shape (..., n, d) with d = space.dim plus the number of numeric columns,
            float64 recommended; integers and the narrower of two types are converted.
        train_Y: Targets, shape (..., n, m), larger is better where BoTorch's acquisition functions
            are used; finite.
        train_Yvar: Known variances of the targets' noise, shape (..., n, m); None infers it.
        space: Search space of the rows.
        combine: How numeric columns enter, see `combined_kernel`. They should be scaled to
            comparable ranges (or pass ``input_transform=Normalize(d, indices=[...])``).
        distribution: A coarse level beside HOTNN: ``"product"`` multiplies its kernel with a Matern
            kernel between operation distributions (`distribution_kernel`), ``"additive"`` adds it.
            Without numeric columns only.
        learn: Which parameters of the distance to learn, see `HOTNNKernel`.
        likelihood: As for `SingleTaskGP`, like the following.
        covar_module: Covariance in place of the default one.
        mean_module: See `SingleTaskGP`.
        outcome_transform: See `SingleTaskGP`.
        input_transform: See `SingleTaskGP`; must leave the columns of the row as they are.
        **kernel_options: Starts and settings of `HOTNNKernel`, such as ``eta=0.3``.

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

    @takes(*_KERNEL_OPTIONS)
    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        *,
        space: SearchSpace,
        combine: Literal["product", "additive"] = "product",
        distribution: Coarse | None = None,
        learn: Collection[str] | None = None,
        likelihood: Likelihood | None = None,
        covar_module: Kernel | None = None,
        mean_module: Mean | None = None,
        outcome_transform: OutcomeTransform | _DefaultType | None = DEFAULT,
        input_transform: InputTransform | None = None,
        **kernel_options: Any,
    ) -> None:
        check_modules(
            likelihood=likelihood,
            covar_module=covar_module,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
            input_transform=input_transform,
        )
        train_X, train_Y, train_Yvar = checked_rows(
            train_X, train_Y, train_Yvar, space=space, outcome_transform=outcome_transform
        )
        check_input_transform(input_transform, train_X, space.dim)
        num_features = train_X.shape[-1] - space.dim
        if combine not in ("product", "additive"):
            raise ValueError(f"combine must be 'product' or 'additive'; got {combine!r}")
        if distribution not in (None, "product", "additive"):
            raise ValueError(
                f"distribution must be 'product', 'additive' or None; got {distribution!r}"
            )
        if distribution is not None and num_features:
            raise ValueError(
                f"distribution must be None with numeric columns, of which there are {num_features}"
            )
        _, batch_shape = self.get_batch_dimensions(train_X=train_X, train_Y=train_Y)
        if covar_module is None:
            kernel = architecture_kernel(
                space,
                rows_of_elements(train_X[..., : space.dim], batch_shape),
                learn=learn,
                batch_shape=batch_shape,
                active_dims=range(space.dim) if num_features else None,
                **kernel_options,
            )
            if num_features and combine == "additive":
                covar_module = combined_kernel(kernel, num_features, combine)
            elif num_features:
                covar_module = _scaled(combined_kernel(kernel, num_features, combine))
            elif distribution == "product":
                coarse = distribution_kernel(space, batch_shape=batch_shape)
                covar_module = _scaled(kernel * coarse.to(train_X))
            elif distribution == "additive":
                coarse = distribution_kernel(space, batch_shape=batch_shape)
                covar_module = _scaled(kernel) + _scaled(coarse.to(train_X))
            else:
                covar_module = _scaled(kernel)
        elif kernel_options or learn is not None or distribution is not None:
            given = ", ".join(
                [
                    *kernel_options,
                    *([] if learn is None else ["learn"]),
                    *([] if distribution is None else ["distribution"]),
                ]
            )
            raise ValueError(
                f"covar_module replaces the default kernel, to which {given} would apply (set them"
                " on the kernel that is passed)"
            )
        super().__init__(
            train_X,
            train_Y,
            train_Yvar,
            likelihood=likelihood,
            covar_module=covar_module,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
            input_transform=input_transform,
        )
        self.space = space
        self._tell_outputs_apart()

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
        """What the feature map of the kernel drops, see `HOTNNKernel.spectrum`.

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

    def custom_fit(
        self,
        mll: MarginalLogLikelihood,
        closure: Callable[[], Any] | None = None,
        optimizer: Callable[..., Any] = fit_gpytorch_mll_scipy,
        closure_kwargs: dict[str, Any] | None = None,
        optimizer_kwargs: dict[str, Any] | None = None,
        max_rounds: int = _ROUNDS,
        **ignored: Any,
    ) -> MarginalLogLikelihood:
        """Fit the model; ``fit_gpytorch_mll`` calls this.

        Args:
            mll: Marginal log likelihood of this model.
            closure: As for ``fit_gpytorch_mll``.
            optimizer: As for ``fit_gpytorch_mll``; runs once per round.
            closure_kwargs: As for ``fit_gpytorch_mll``.
            optimizer_kwargs: As for ``fit_gpytorch_mll``.
            max_rounds: Most rounds of L-BFGS with held couplings.
            **ignored: Other arguments of ``fit_gpytorch_mll``, which concern its restarts.

        Returns:
            `mll`, in evaluation mode, with the best parameters that each batch element met.

        Raises:
            RuntimeError: The model was built under ``torch.inference_mode()``.
        """
        del ignored
        if any(parameter.is_inference() for parameter in mll.parameters()):
            raise RuntimeError(
                "a model that was built under torch.inference_mode() cannot be fitted (build it"
                " outside, or under torch.no_grad())"
            )
        options: dict[str, Any] = {}
        if optimizer is fit_gpytorch_mll_scipy:
            options = {"options": _ROUND_OPTIONS, "bounds": _bounds(mll)}
        options |= optimizer_kwargs or {}
        alone = self._aug_batch_shape.numel() == 1
        if optimizer is fit_gpytorch_mll_scipy and closure is None and not alone:
            options["options"] = _for_batches(options["options"])
        if closure_kwargs is not None:
            options["closure_kwargs"] = closure_kwargs
        mll.train()
        loss = get_loss_closure(mll)
        best = torch.full(self._aug_batch_shape, torch.inf, dtype=torch.float64)
        kept = _snapshot(mll)
        start = best
        complaints: list[warnings.WarningMessage] = []
        for done in range(max_rounds + 1):
            with self.couplings_held():
                value = _value(loss, best)
                gain = (best - value).nan_to_num(nan=0.0)
                best = _keep(mll, kept, value, best)
                start = best if done == 0 else start
                if done == max_rounds or not float(gain.max()) >= _ROUND_GAIN:
                    break
                try:
                    with warnings.catch_warnings(record=True) as caught:
                        warnings.simplefilter("always", OptimizationWarning)
                        optimizer(mll, closure=closure, **options)
                    complaints += caught
                except (NanError, NotPSDError):
                    _restore(mll, kept)
                    break
        # A line search that ends abnormally matters only if nothing was gained.
        for complaint in complaints:
            if bool((best >= start).any()) or not issubclass(
                complaint.category, OptimizationWarning
            ):
                warnings.warn(complaint.message, complaint.category, stacklevel=3)
        return mll.eval()


def _for_batches(options: dict[str, Any] | None) -> dict[str, Any]:
    """Options of L-BFGS by the names that BoTorch's batched L-BFGS has for them."""
    options = dict(options or {})
    if "ftol" in options:
        options["factr"] = options.pop("ftol") / torch.finfo(torch.float64).eps
    return options


def _value(loss: Callable[[], Tensor], like: Tensor) -> Tensor:
    """The loss of each batch element, inf where it has none; float64 on the CPU."""
    try:
        with torch.no_grad():
            value = loss().double().cpu()
    except (NanError, NotPSDError):
        return torch.full_like(like, torch.inf)
    return value.reshape(like.shape).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)


def _keep(
    mll: MarginalLogLikelihood, kept: dict[str, Tensor], value: Tensor, best: Tensor
) -> Tensor:
    """Takes over the batch elements that are better than their best, and restores the others.

    Returns:
        The best values.
    """
    shape = best.shape
    better = value < best
    if any(tensor.shape[: len(shape)] != shape for tensor in kept.values()):
        # Elements that share a parameter move together.
        better = (value.sum() < best.sum()).expand(shape)
    with torch.no_grad():
        for name, parameter in mll.named_parameters():
            took = better.to(parameter.device)
            if parameter.shape[: len(shape)] == shape:
                took = took.reshape((*shape, *(1,) * (parameter.ndim - len(shape))))
            else:
                took = took.any()
            kept[name] = torch.where(took, parameter, kept[name])
            parameter.copy_(kept[name])
    return torch.where(better, value, best)


def _bounds(mll: MarginalLogLikelihood) -> dict[str, tuple[float, float]]:
    """Ranges of the raw parameters in which their transforms neither overflow nor saturate."""
    bounds = {}
    for name, raw, constraint in mll.named_parameters_and_constraints():
        if not raw.requires_grad or constraint is None or not constraint.enforced:
            continue
        if constraint.lower_bound.numel() > 1:
            continue
        low, high = float(constraint.lower_bound), float(constraint.upper_bound)
        room = _MARGIN * (high - low) if math.isfinite(high) else _MARGIN
        ends = raw.new_tensor([low + room, high - room if math.isfinite(high) else 1 / _MARGIN])
        lower, upper = constraint.inverse_transform(ends).tolist()
        bounds[name] = lower, upper
    return bounds


def _snapshot(mll: MarginalLogLikelihood) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in mll.named_parameters()}


def _restore(mll: MarginalLogLikelihood, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in mll.named_parameters():
            parameter.copy_(values[name])
