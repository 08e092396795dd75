# Over 400 lines: the network, how it is sampled, and the posterior that it gives are one model.
"""Bayesian neural networks as BoTorch models, with noise that depends on the input."""

import copy
import itertools
import math
from typing import Literal, NamedTuple

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.exceptions.errors import UnsupportedError
from botorch.models.ensemble import EnsembleModel
from botorch.posteriors.ensemble import EnsemblePosterior
from torch import Tensor

from hotnas_torch.arguments import integer, kind, number, takes
from hotnas_torch.gp.observations import check_spread, checked_observations
from hotnas_torch.nago.sghmc import descended, sample_sghmc

__all__ = ["BNN", "NoisyEnsemblePosterior", "Sampling"]

Noise = Literal["heteroscedastic", "homoscedastic"]

_LOG_NOISE_RANGE = (-10.0, 5.0)
_DESCENTS = 2
"""Descents for each chain; chains begin at the best of them."""


class Sampling(NamedTuple):
    """How networks are drawn from their posterior, see `sample_sghmc`.

    Attributes:
        num_chains: Chains that run side by side, >= 1.
        num_samples: Networks that are kept of each, >= 1; two networks or more in all.
        num_burn_in: Steps before the first is kept.
        thinning: Steps from one to the next.
        step_size: Of the sampler.
        friction: Of the sampler.
        batch_size: Observations per step, drawn for each chain; None takes all of them in every
            step, which small data sets can afford.
        num_descent: Steps downhill before a chain begins, >= 0, from twice as many draws from the
            prior as there are chains, which begin at the better half. Chains that begin at draws
            from the prior may stay where all of the function is taken for noise, however long they
            are.

    The default step is smaller than that of Springenberg et al. (0.1), with which chains on data of
    little noise jump out of the posterior.
    """

    num_chains: int = 10
    num_samples: int = 10
    num_burn_in: int = 1500
    thinning: int = 50
    step_size: float = 0.03
    friction: float = 0.05
    batch_size: int | None = None
    num_descent: int = 1500


class NoisyEnsemblePosterior(EnsemblePosterior):
    r"""What would be observed: a mixture of normal distributions, one of each member.

    Its mean is that of the members, its variance their variance plus their mean noise variance.
    Given the member, observations at different points are independent.

    Args:
        values: Values of s members at q points, (..., s, q, m).
        noise: Noise variances that the members predict there, same shape, >= 0.
    """

    def __init__(self, values: Tensor, noise: Tensor) -> None:
        if noise.shape != values.shape:
            raise ValueError(
                f"noise must have the shape of values, {tuple(values.shape)}; got"
                f" {tuple(noise.shape)}"
            )
        super().__init__(values)
        self.noise = noise

    @property
    def variance(self) -> Tensor:
        """Variance of an observation, (..., q, m)."""
        return super().variance + self.noise.mean(dim=-3)

    def log_prob(self, Y: Tensor) -> Tensor:
        """Log density of one observation at each point, (..., q, m).

        Args:
            Y: Observations, (..., q, m).
        """
        apart = (Y.unsqueeze(-3) - self.values).square() / self.noise
        each = -0.5 * (apart + self.noise.log() + math.log(2.0 * math.pi))
        log_density: Tensor = each.logsumexp(dim=-3) - math.log(self.ensemble_size)
        return log_density

    def rsample(self, sample_shape: torch.Size | None = None) -> Tensor:
        """Draw observations from torch's global random state, as BoTorch's posteriors do.

        Args:
            sample_shape: Shape of the sample, one by default.

        Returns:
            (*sample_shape, ..., q, m), differentiable in values and noise.
        """
        both = EnsemblePosterior(torch.cat([self.values, self.noise.sqrt()], dim=-1))
        centre, deviation = both.rsample(sample_shape).chunk(2, dim=-1)
        return centre + deviation * torch.randn_like(centre)

    def rsample_from_base_samples(self, sample_shape: torch.Size, base_samples: Tensor) -> Tensor:
        """Not available: members are numbered, noise is not.

        Raises:
            UnsupportedError: Always.
        """
        del sample_shape, base_samples
        raise UnsupportedError(
            "a posterior with observation noise cannot be sampled from base samples (ask for"
            " observation_noise=False)"
        )


class BNN(EnsembleModel):
    r"""Bayesian neural networks whose weights are drawn from their posterior by SGHMC.

    Fully connected, with tanh units. Each output has networks of its own, and each network says
    with f(x) also how noisy observations are there:

        y ~ N(f(x), s^2(x)),   log s^2(x) = log s_0^2 + a second output of the network,

    or, homoscedastic, log s_0^2 plus one parameter. Inputs and targets are standardised. All
    parameters have standard normal priors; weights count by `weight_scale` times the root of
    1 / fan-in, which at 1 keeps the variance of every layer, and biases by `weight_scale`. Such
    networks are smooth: a function that is steeper than its prior is flattened, and what the
    network then misses it takes for noise. log s^2 is kept between -10 and 5.

    The posterior is that of the ensemble, of what is observed on average; with
    `observation_noise=True` it is the predictive one, whose variance is that of NAGO's Eq. 1,

        1/N sum_i (f_i(x)^2 + s_i^2(x)) - (1/N sum_i f_i(x))^2

    (the first part with N - 1 in place of N, as BoTorch's ensembles have it).

    Args:
        train_X: Inputs, (n, d), float64 recommended.
        train_Y: Targets, (n, m), finite.
        noise: Whether noise depends on the input (`"heteroscedastic"`) or not
            (`"homoscedastic"`).
        num_layers: Hidden layers, >= 0; none is linear regression.
        width: Units per hidden layer, >= 1.
        noise_variance: s_0^2, the centre of the prior of noise variances of standardised targets.
        weight_scale: How steep functions may be a priori, > 0; the prior of the noise does not
            depend on it.
        sampling: How networks are drawn.
        generator: Source of randomness.

    Raises:
        TypeError: A setting that is unknown, or of the wrong kind.
        ValueError: Shapes do not fit, inputs or targets are not finite or vary so little or so much
            that variances cannot be told, or a number is out of range.
        SolverError: The sampler diverged.

    Complexity: `num_descent + num_burn_in + num_samples * thinning` steps, each the gradient of
        m * num_chains networks on the data as batched products.

    Reference: Ru, Esperanca and Carlucci, Neural Architecture Generator Optimization, NeurIPS 2020,
        Section 2.2: three layers of ten units; Springenberg et al., NeurIPS 2016.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> X = torch.rand(30, 1, generator=generator, dtype=torch.float64)
        >>> noise = 0.3 * X * torch.randn(30, 1, generator=generator, dtype=torch.float64)
        >>> few = Sampling(num_burn_in=500, thinning=10, num_descent=100)
        >>> model = BNN(X, X.square() + noise, sampling=few, generator=generator)
        >>> ends = torch.tensor([[0.1], [0.9]], dtype=torch.float64)
        >>> low, high = model.noise_variance(ends).mean(dim=0).squeeze(-1).tolist()
        >>> low < high
        True
    """

    _centre_X: Tensor
    _scale_X: Tensor
    _centre_Y: Tensor
    _scale_Y: Tensor
    _networks: Tensor
    """Parameters, (m, s, p)."""

    @takes()
    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        *,
        noise: Noise = "heteroscedastic",
        num_layers: int = 3,
        width: int = 10,
        noise_variance: float = 1e-2,
        weight_scale: float = 1.0,
        sampling: Sampling | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        sampling = Sampling() if sampling is None else sampling
        kind("sampling", sampling, Sampling)
        kind("generator", generator, torch.Generator)
        if noise not in ("heteroscedastic", "homoscedastic"):
            raise ValueError(f"noise must be 'heteroscedastic' or 'homoscedastic'; got {noise!r}")
        for name, value, smallest in (
            ("num_layers", num_layers, 0),
            ("width", width, 1),
            ("num_chains", sampling.num_chains, 1),
            ("num_samples", sampling.num_samples, 1),
            ("num_burn_in", sampling.num_burn_in, 0),
            ("thinning", sampling.thinning, 1),
            ("num_descent", sampling.num_descent, 0),
            ("batch_size", 1 if sampling.batch_size is None else sampling.batch_size, 1),
        ):
            integer(name, value, least=smallest)
        integer("num_chains * num_samples", sampling.num_chains * sampling.num_samples, least=2)
        number("noise_variance", noise_variance, above=0.0)
        number("weight_scale", weight_scale, above=0.0)
        number("step_size", sampling.step_size, above=0.0)
        number("friction", sampling.friction, above=0.0)
        train_X, train_Y = _checked(train_X, train_Y)
        self.noise = noise
        self._num_outputs = train_Y.shape[1]
        self._sizes = (train_X.shape[1], *(width,) * num_layers, 1 + (noise == "heteroscedastic"))
        self._log_noise = math.log(noise_variance)
        self._weight_scale = float(weight_scale)
        for name, (centre, scale) in (("X", _standard(train_X)), ("Y", _standard(train_Y))):
            self.register_buffer(f"_centre_{name}", centre)
            self.register_buffer(f"_scale_{name}", scale)
        drawn = self._drawn(
            (train_X - self._centre_X) / self._scale_X,
            ((train_Y - self._centre_Y) / self._scale_Y).T,
            sampling,
            generator,
        )
        self.register_buffer("_networks", drawn)

    @property
    def num_members(self) -> int:
        """Networks of each output, s."""
        return self._networks.shape[1]

    @property
    def batch_shape(self) -> torch.Size:
        """No batch dimensions of its own."""
        return torch.Size()

    def forward(self, X: Tensor) -> Tensor:
        """Return every network's f at X (..., q, d), (..., s, q, m)."""
        return self._evaluated(X)[0]

    def noise_variance(self, X: Tensor) -> Tensor:
        """Return every network's noise variance at X (..., q, d), (..., s, q, m)."""
        return self._evaluated(X)[1]

    def posterior(  # type: ignore[override]
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> EnsemblePosterior:
        """Return the posterior of what is observed on average, or of observations.

        Args:
            X: Points, (..., q, d).
            output_indices: Which outputs; None takes all.
            observation_noise: Whether of observations, see `NoisyEnsemblePosterior`.
            posterior_transform: As for every BoTorch model.

        Raises:
            UnsupportedError: `observation_noise` is a tensor.
        """
        if isinstance(observation_noise, Tensor):
            raise UnsupportedError("observation_noise must be a bool: the networks know the noise")
        values, noise = self._evaluated(X)
        if output_indices is not None:
            values, noise = values[..., output_indices], noise[..., output_indices]
        posterior = (
            NoisyEnsemblePosterior(values, noise)
            if observation_noise
            else EnsemblePosterior(values)
        )
        return posterior if posterior_transform is None else posterior_transform(posterior)

    def subset_output(self, idcs: list[int]) -> "BNN":
        """Return the model of some of the outputs, with the same networks."""
        subset = copy.deepcopy(self)
        subset._num_outputs = len(idcs)
        subset._centre_Y, subset._scale_Y = self._centre_Y[idcs], self._scale_Y[idcs]
        subset._networks = self._networks[idcs]
        return subset

    def _evaluated(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Values and noise variances of all networks in the units of the targets."""
        inputs = (X.reshape(-1, X.shape[-1]) - self._centre_X) / self._scale_X
        f, log_noise = self._outputs(self._networks.flatten(0, 1), inputs)

        def arranged(outputs: Tensor) -> Tensor:
            by_output = outputs.reshape(self._num_outputs, self.num_members, *X.shape[:-1])
            return by_output.movedim((0, 1), (-1, -3))

        values = self._centre_Y + self._scale_Y * arranged(f)
        return values, self._scale_Y.square() * arranged(log_noise).exp()

    def _outputs(self, parameters: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """F and log s^2 of b networks (b, p) at inputs (N, d) or their own (b, N, d), (b, N)."""
        values = inputs.expand(len(parameters), *inputs.shape[-2:])
        start = 0
        for fan_in, fan_out in itertools.pairwise(self._sizes):
            if start:
                values = values.tanh()
            end = start + fan_in * fan_out
            weights = parameters[:, start:end].reshape(-1, fan_in, fan_out) / math.sqrt(fan_in)
            start = end + fan_out
            values = torch.baddbmm(parameters[:, None, end:start], values, weights)
            if self._weight_scale != 1.0:
                values = self._weight_scale * values
        if self.noise == "heteroscedastic":
            f, log_noise = values.unbind(dim=-1)
            log_noise = log_noise / self._weight_scale
        else:
            f, log_noise = values.squeeze(-1), parameters[:, start:].expand(values.shape[:-1])
        return f, (self._log_noise + log_noise).clamp(*_LOG_NOISE_RANGE)

    def _drawn(
        self, inputs: Tensor, targets: Tensor, sampling: Sampling, generator: torch.Generator
    ) -> Tensor:
        """Draw networks (m, s, p) for standardised inputs (n, d) and targets (m, n)."""
        num_outputs, num = targets.shape
        num_weights = sum((fan_in + 1) * out for fan_in, out in itertools.pairwise(self._sizes))
        num_parameters = num_weights + (self.noise == "homoscedastic")
        batch = None if sampling.batch_size is None else min(sampling.batch_size, num)

        def potential(parameters: Tensor, inputs: Tensor, targets: Tensor, share: float) -> Tensor:
            f, log_noise = self._outputs(parameters, inputs)
            misfit = (targets - f).square() * torch.exp(-log_noise) + log_noise
            return 0.5 * parameters.square().sum(1) + 0.5 * share * misfit.sum(1)

        def gradient(parameters: Tensor) -> Tensor:
            # As many networks of each output, one after the other.
            own = targets.repeat_interleave(len(parameters) // num_outputs, dim=0)
            chosen_inputs, chosen_targets, share = inputs, own, 1.0
            if batch is not None:
                places = torch.randint(
                    num, (len(parameters), batch), generator=generator, device=generator.device
                ).to(targets.device)
                chosen_inputs, chosen_targets = inputs[places], own.gather(1, places)
                share = num / batch
            with torch.enable_grad():
                moving = parameters.detach().requires_grad_()
                total = potential(moving, chosen_inputs, chosen_targets, share).sum()
                return torch.autograd.grad(total, moving)[0]

        # One descent in ten ends where the function is taken for noise, and a chain stays there.
        num_starts = sampling.num_chains * (_DESCENTS if sampling.num_descent else 1)
        initial = torch.randn(
            (num_outputs * num_starts, num_parameters),
            generator=generator,
            dtype=torch.float64,
            device=generator.device,
        )
        start = descended(gradient, initial.to(targets), num_steps=sampling.num_descent)
        if num_starts > sampling.num_chains:
            with torch.no_grad():
                depth = potential(start, inputs, targets.repeat_interleave(num_starts, 0), 1.0)
            best = depth.reshape(num_outputs, num_starts).argsort(dim=1, stable=True)
            best = best[:, : sampling.num_chains].sort(1).values
            first = torch.arange(num_outputs, device=best.device)[:, None] * num_starts
            start = start[(first + best).flatten()]
        samples = sample_sghmc(
            gradient,
            start,
            generator=generator,
            num_burn_in=sampling.num_burn_in,
            num_samples=sampling.num_samples,
            thinning=sampling.thinning,
            step_size=sampling.step_size,
            friction=sampling.friction,
            noisy=batch is not None,
        )
        return (
            samples.reshape(sampling.num_samples, num_outputs, sampling.num_chains, num_parameters)
            .transpose(0, 1)
            .flatten(1, 2)
        )


def _checked(train_X: Tensor, train_Y: Tensor) -> tuple[Tensor, Tensor]:
    kind("train_X", train_X, Tensor)
    kind("train_Y", train_Y, Tensor)
    if train_X.ndim != 2 or train_Y.ndim != 2 or len(train_X) != len(train_Y):
        raise ValueError(
            "train_X and train_Y must have shapes (n, d) and (n, m); got"
            f" {tuple(train_X.shape)} and {tuple(train_Y.shape)}"
        )
    smallest = torch.finfo(torch.float32).tiny
    X, Y, _ = checked_observations(train_X, train_Y, outcome_transform=None, smallest=smallest)
    finite = torch.isfinite(X)
    if not bool(finite.all()):
        row, column = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"train_X must be finite; row {row}, column {column} is {X[row, column].item()}"
        )
    check_spread("train_X", X, smallest)
    return X, Y


def _standard(given: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of columns; 1 for constant ones."""
    spread = given.std(dim=0, correction=0)
    return given.mean(dim=0), torch.where(spread > 0.0, spread, 1.0)
