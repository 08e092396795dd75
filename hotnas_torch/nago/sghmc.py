"""Stochastic-gradient Hamiltonian Monte Carlo with steps that adapt while it burns in."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hotnas_torch.arguments import integer, number, takes
from hotnas_torch.errors import SolverError

__all__ = ["descended", "sample_sghmc"]

_SMALLEST = 1e-10
_MEAN_DECAY, _SQUARE_DECAY = 0.9, 0.999


def descended(
    gradient: Callable[[Tensor], Tensor], initial: Tensor, *, num_steps: int, rate: float = 0.01
) -> Tensor:
    """Go downhill by Adam, every entry on its own; no number is drawn.

    Args:
        gradient: As that of `sample_sghmc`.
        initial: Where to start.
        num_steps: How many steps, >= 0.
        rate: Length of a step in a constant slope.

    Reference: Kingma and Ba, Adam, ICLR 2015.
    """
    theta = initial.detach().clone()
    mean, square = torch.zeros_like(theta), torch.zeros_like(theta)
    for step in range(1, num_steps + 1):
        slope = gradient(theta)
        mean = torch.lerp(slope, mean, _MEAN_DECAY)
        square = torch.lerp(slope.square(), square, _SQUARE_DECAY)
        size = (square / (1.0 - _SQUARE_DECAY**step)).sqrt() + _SMALLEST
        theta = theta - rate * mean / (1.0 - _MEAN_DECAY**step) / size
    return theta


@takes()
def sample_sghmc(
    gradient: Callable[[Tensor], Tensor],
    initial: Tensor,
    *,
    generator: torch.Generator,
    num_burn_in: int,
    num_samples: int,
    thinning: int,
    step_size: float = 0.03,
    friction: float = 0.05,
    noisy: bool = False,
) -> Tensor:
    r"""Draw from the density proportional to exp(-U) by the gradient of U.

    Every entry has a mass of its own, the root of the mean square V of its gradient, which is
    estimated over a window that adapts during burn-in and stays what it is then. With momentum v,
    step size e and friction a, a step is

        v <- (1 - a) v - e^2 V^(-1/2) dU + N(0, 2 a e^2 V^(-1/2) - [e^4]),   theta <- theta + v.

    The term in brackets takes away the noise that gradients of mini-batches bring themselves, for
    which V is the estimate; it is there only if `noisy`. As e goes to 0 the samples' distribution
    goes to exp(-U).

    Args:
        gradient: Maps parameters of the shape of `initial` to the gradient of U there, or to an
            unbiased estimate of it.
        initial: Where the chains start, any shape; entries that do not share a term of U form
            chains of their own.
        generator: Source of randomness.
        num_burn_in: Steps at the start that adapt and are thrown away, >= 0.
        num_samples: Samples T to keep, >= 1.
        thinning: Steps per sample, >= 1.
        step_size: e, > 0.
        friction: a, in (0, 1].
        noisy: Whether `gradient` is an estimate, see above.

    Returns:
        (T, *initial.shape), without gradients.

    Raises:
        TypeError: A setting that is unknown, or a number of the wrong kind.
        ValueError: A number out of range.
        SolverError: A chain has left all bounds.

    Complexity: num_burn_in + num_samples * thinning gradients.

    Reference: Springenberg, Klein, Falkner and Hutter, Bayesian Optimization with Robust Bayesian
        Neural Networks, NeurIPS 2016, Eqs. 8-10; Chen, Fox and Guestrin, Stochastic Gradient
        Hamiltonian Monte Carlo, ICML 2014.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> chains = torch.zeros(500, 1, dtype=torch.float64)
        >>> samples = sample_sghmc(  # of N(1, 2^2)
        ...     lambda x: (x - 1.0) / 4.0, chains, generator=generator, num_burn_in=500,
        ...     num_samples=1, thinning=500, step_size=0.1,
        ... )
        >>> samples.shape, round(samples.mean().item()), round(samples.std().item())
        (torch.Size([1, 500, 1]), 1, 2)
    """
    integer("num_burn_in", num_burn_in, least=0)
    integer("num_samples", num_samples, least=1)
    integer("thinning", thinning, least=1)
    number("step_size", step_size, above=0.0)
    if number("friction", friction, above=0.0) > 1.0:
        raise ValueError(f"friction must be in (0, 1]; got {friction}")
    theta = initial.detach().clone()
    momentum = torch.zeros_like(theta)
    window, mean, square = (torch.ones_like(theta) for _ in range(3))
    rate = torch.full_like(theta, step_size**2)
    deviation = torch.full_like(theta, math.sqrt(2.0 * friction) * step_size)
    samples = theta.new_empty(num_samples, *theta.shape)
    for step in range(num_burn_in + num_samples * thinning):
        slope = gradient(theta)
        if step < num_burn_in:
            share = 1.0 / (window + 1.0)
            window = window - window * mean.square() / (square + _SMALLEST) + 1.0
            mean = mean + share * (slope - mean)
            square = square + share * (slope.square() - square)
            inverse_mass = 1.0 / (square.sqrt() + _SMALLEST)
            rate = step_size**2 * inverse_mass
            variance = 2.0 * friction * rate - (step_size**4 if noisy else 0.0)
            deviation = variance.clamp_min(0.0).sqrt()
        drawn = torch.randn(
            theta.shape, generator=generator, dtype=theta.dtype, device=generator.device
        )
        momentum = (1.0 - friction) * momentum - rate * slope + deviation * drawn.to(theta)
        theta = theta + momentum
        kept, left = divmod(step - num_burn_in + 1, thinning)
        if kept >= 1 and left == 0:
            samples[kept - 1] = theta
    if not bool(torch.isfinite(samples).all()):
        raise SolverError(
            f"chains of SGHMC left all bounds with step_size {step_size} (take a smaller one)"
        )
    return samples
