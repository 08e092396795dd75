"""An ensemble of small neural networks as a BoTorch model, all trained in one computation."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from botorch.models.ensemble import EnsembleModel
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, number, takes
from hotnas_torch.gp import NetworkFeatures
from hotnas_torch.spaces import SearchSpace

__all__ = ["EnsembleSettings", "MLPEnsemble"]

Layers = list[tuple[Tensor, Tensor]]
"""Weights (s, fan-in, fan-out) and biases (s, 1, fan-out) of each layer of s networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSettings:
    """Size and training of an ensemble.

    Attributes:
        num_members: Networks s, >= 2.
        num_layers: Hidden layers, >= 1.
        width: Units per hidden layer, >= 1.
        epochs: Passes over the data, >= 0.
        batch_size: Examples per step, >= 1.
        learning_rate: Of Adam, with decays 0.9 and 0.99, > 0.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.
    """

    num_members: int = 5
    num_layers: int = 10
    width: int = 20
    epochs: int = 150
    batch_size: int = 32
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        for name, least in (
            ("num_members", 2),
            ("num_layers", 1),
            ("width", 1),
            ("epochs", 0),
            ("batch_size", 1),
        ):
            object.__setattr__(self, name, integer(name, getattr(self, name), least=least))
        rate = number("learning_rate", self.learning_rate)
        if not 0.0 < rate < math.inf:
            raise ValueError(f"learning_rate must be > 0 and finite; got {rate}")
        object.__setattr__(self, "learning_rate", rate)


class MLPEnsemble(EnsembleModel):
    """Fully connected networks on encoded architectures, whose disagreement is the uncertainty.

    Every member has hidden layers with rectifiers, Glorot's uniform initialisation, and is trained
    for the mean absolute error of standardised targets by Adam on batches in an order of its own.
    Members are a batch dimension of all matrix products, so that five cost little more than one.

    Args:
        train_X: Rows of the space, (n, d).
        train_Y: Targets, (n, 1), finite.
        space: Search space of the rows.
        encoding: Maps N networks to inputs (N, P).
        generator: Source of initial weights and orders of batches.
        **settings: Fields of `EnsembleSettings`.

    Raises:
        TypeError, ValueError: Shapes do not fit, or a setting is unknown or out of range.

    Complexity: `epochs` * n / `batch_size` steps, each of 3 products of a (batch_size, fan-in)
        and a (fan-in, fan-out) matrix per layer and member. Inputs that are 0 throughout the
        training data cost nothing.

    Reference: White, Neiswanger and Savani, BANANAS: Bayesian Optimization with Neural
        Architectures for Neural Architecture Search, AAAI 2021.

    Example:
        >>> import hotnas_torch as ht
        >>> from hotnas_torch.spaces.encodings import PathEncoding
        >>> space = ht.spaces.NASBench201()
        >>> generator = torch.Generator().manual_seed(0)
        >>> X = space.encode(space.sample(20, generator=generator))
        >>> Y = (X == 3).sum(dim=1, keepdim=True).double()  # number of 3x3 convolutions
        >>> paths = PathEncoding(space)
        >>> model = MLPEnsemble(X, Y, space=space, encoding=paths, generator=generator)
        >>> model.posterior(X[:3]).variance.shape
        torch.Size([3, 1])
    """

    @takes(*(field.name for field in fields(EnsembleSettings)))
    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        *,
        space: SearchSpace,
        encoding: Callable[[Sequence[Network]], Tensor],
        generator: torch.Generator,
        **settings: Any,
    ) -> None:
        super().__init__()
        if train_X.ndim != 2 or train_Y.shape != (len(train_X), 1):
            raise ValueError(
                "train_X and train_Y must have shapes (n, d) and (n, 1); got"
                f" {tuple(train_X.shape)} and {tuple(train_Y.shape)}"
            )
        options = EnsembleSettings(**settings)
        self._num_outputs = 1
        self._features = NetworkFeatures(space, encoding)
        self._mean = train_Y.mean()
        spread = train_Y.std(correction=0)
        self._scale = torch.where(spread > 0.0, spread, 1.0)
        inputs = self._features.encoded(train_X).to(train_Y)
        sizes = (inputs.shape[1], *(options.width,) * options.num_layers, 1)
        layers = _initial(sizes, options.num_members, generator, train_Y)
        self._layers = _trained(
            layers,
            inputs,
            ((train_Y - self._mean) / self._scale).squeeze(1),
            orders=_orders(options.epochs, options.num_members, len(inputs), generator),
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
        )

    def forward(self, X: Tensor) -> Tensor:
        """Return the prediction of every member at rows (..., q, d), (..., s, q, 1)."""
        inputs = self._features.encoded(X.reshape(-1, X.shape[-1])).to(self._mean)
        with torch.no_grad():
            values = self._mean + self._scale * _outputs(self._layers, inputs)
        return values.reshape(-1, *X.shape[:-1], 1).movedim(0, -3)


def _initial(
    sizes: Sequence[int], num_members: int, generator: torch.Generator, like: Tensor
) -> Layers:
    """Glorot's uniform initialisation: variance 2 / (fan-in + fan-out); biases 0."""
    layers = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        uniform = torch.rand(
            num_members, fan_in, fan_out, generator=generator, device=generator.device
        ).to(like)
        weights = (2.0 * uniform - 1.0) * math.sqrt(6.0 / (fan_in + fan_out))
        layers.append((weights, like.new_zeros(num_members, 1, fan_out)))
    return layers


def _orders(epochs: int, num_members: int, num: int, generator: torch.Generator) -> Tensor:
    """Return an order of the examples per epoch and member, (epochs, s, n)."""
    drawn = torch.rand(epochs, num_members, num, generator=generator, device=generator.device)
    return drawn.argsort(dim=-1).cpu()


def _trained(
    layers: Layers,
    inputs: Tensor,
    targets: Tensor,
    *,
    orders: Tensor,
    batch_size: int,
    learning_rate: float,
) -> Layers:
    """Minimise the mean absolute error; inputs (n, P), targets (n,)."""
    # A weight whose input is always 0 gets no gradient and stays what it was.
    active = inputs.ne(0.0).any(0)
    (first, bias), *rest = layers
    small = [(first[:, active], bias), *rest]
    parameters = [tensor.clone().requires_grad_() for layer in small for tensor in layer]
    learned = list(zip(parameters[::2], parameters[1::2], strict=True))
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.99), fused=True)
    inputs = inputs[:, active]
    with torch.enable_grad():
        for order in orders:
            for batch in order.split(batch_size, dim=1):
                errors = _outputs(learned, inputs[batch]).squeeze(-1) - targets[batch]
                optimizer.zero_grad()
                # Members share no parameter: the sum of their losses is minimised by each alone.
                errors.abs().mean(1).sum().backward()
                optimizer.step()
    (learned_first, learned_bias), *learned_rest = [
        (weights.detach(), biases.detach()) for weights, biases in learned
    ]
    whole = first.clone()
    whole[:, active] = learned_first
    return [(whole, learned_bias), *learned_rest]


def _outputs(layers: Layers, inputs: Tensor) -> Tensor:
    """Return outputs (s, N, 1) of s networks on inputs (N, P), or on own ones (s, N, P)."""
    *hidden, (weights, biases) = layers
    values = inputs.expand(len(weights), *inputs.shape[-2:])
    for inner_weights, inner_biases in hidden:
        values = torch.baddbmm(inner_biases, values, inner_weights).relu()
    return torch.baddbmm(biases, values, weights)
