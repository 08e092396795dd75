# Over 400 lines: one search, read top to bottom.
"""Differentiable architecture search: ANASOD-DNAS, and DARTS and GAEA-DARTS beside it."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hotnas_torch.arch import Network
from hotnas_torch.arguments import choice, integer, kind, number
from hotnas_torch.nn.data import ImageData, Split
from hotnas_torch.nn.supernets.checkpoint import applying, read_checkpoint, write_checkpoint
from hotnas_torch.nn.supernets.mixed import Supernet
from hotnas_torch.spaces.encodings import SlotEncoding
from hotnas_torch.spaces.encodings.simplex import exponentiated_gradient

__all__ = [
    "DifferentiableSearch",
    "DifferentiableSettings",
    "EdgeDistributions",
    "SearchEpoch",
    "sample_connected",
]

Method = Literal["anasod", "gaea", "darts"]

_FLOOR_RATE = 0.04  # the published learning rate falls from 0.025 to 0.001
_DARTS_BETAS = (0.5, 0.999)
_SAMPLES = 1000
_EVALUATION_BATCH = 1000


@dataclass(frozen=True, slots=True)
class DifferentiableSettings:
    """How a supernet and the distributions over its operations are trained.

    Args:
        method: `"anasod"`: all edges of all cells share one distribution, moved by exponentiated
            gradients, and networks are sampled from it; `"gaea"`: a distribution per edge, moved
            by exponentiated gradients, and the most probable network is taken; `"darts"`: the
            same with softmax parameters, moved by Adam.
        epochs: Passes over the training images, >= 1.
        batch_size: Images per step, >= 2, of the training and of the validation images each.
        learning_rate: Of the weights' SGD at the start, > 0; it falls along a cosine to 1/25 of it.
        momentum: Of the weights' SGD, in [0, 1).
        weight_decay: Of the weights, >= 0.
        clip: Largest norm of the weights' gradient, > 0.
        architecture_rate: Rate of the exponentiated gradient, or of Adam, > 0; None takes 0.1 for
            `"anasod"` and `"gaea"`, and 3e-4 for `"darts"`.
        architecture_decay: Weight decay of Adam in `"darts"`, >= 0.
        reduction: Whether the gradient of a shared distribution is the `"sum"` over the edges
            that share it or their `"mean"`, which keeps the rate comparable between spaces.
        num_samples: Networks that `"anasod"` draws at the end, >= 1; the one with the smallest
            validation loss in the supernet is taken. The paper takes one.

    Raises:
        ValueError: A setting out of range.

    Reference: the defaults are those of GAEA's code (Li et al., ICLR 2021) and of DARTS (Liu et
        al., ICLR 2019).
    """

    method: Method = "anasod"
    epochs: int = 25
    batch_size: int = 64
    learning_rate: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip: float = 5.0
    architecture_rate: float | None = None
    architecture_decay: float = 1e-3
    reduction: Literal["sum", "mean"] = "sum"
    num_samples: int = 16

    def __post_init__(self) -> None:
        choice("method", self.method, ("anasod", "gaea", "darts"))
        choice("reduction", self.reduction, ("sum", "mean"))
        for name, least in (("epochs", 1), ("batch_size", 2), ("num_samples", 1)):
            integer(name, getattr(self, name), least=least)
        number("learning_rate", self.learning_rate, above=0.0)
        number("momentum", self.momentum, least=0.0, below=1.0)
        for name in ("weight_decay", "architecture_decay"):
            number(name, getattr(self, name), least=0.0)
        if not number("clip", self.clip) > 0.0:
            raise ValueError(f"clip must be > 0; got {self.clip} (math.inf clips nothing)")
        if self.architecture_rate is not None:
            number("architecture_rate", self.architecture_rate, above=0.0)

    @property
    def rate(self) -> float:
        """The rate of the architecture's updates, the default filled in."""
        if self.architecture_rate is not None:
            return self.architecture_rate
        return 3e-4 if self.method == "darts" else 0.1

    def to_json(self) -> dict[str, Any]:
        """Return the settings, ready for `json.dumps`."""
        return asdict(self)


class EdgeDistributions:
    """Distributions over operations on the edges of a supernet, and how they are updated.

    Args:
        supernet: Whose edges.
        settings: Method and rates.
        device: Where they live.

    Attributes:
        values: What is learned, (groups, k): probabilities, or softmax parameters in `"darts"`.
            There is one group in `"anasod"`, else one per edge.
    """

    def __init__(
        self, supernet: Supernet, settings: DifferentiableSettings, device: torch.device
    ) -> None:
        self._settings = settings
        self._shape = supernet.num_cells, supernet.num_edges, len(supernet.operations)
        cells, edges, k = self._shape
        shared = settings.method == "anasod"
        start = 0.0 if settings.method == "darts" else 1.0 / k
        self.values = torch.full((1 if shared else cells * edges, k), start, device=device)
        self.values.requires_grad_()
        self._optimizer = torch.optim.Adam(
            [self.values],
            lr=settings.rate,
            betas=_DARTS_BETAS,
            weight_decay=settings.architecture_decay,
        )

    def weights(self) -> Tensor:
        """Return the probabilities of all edges, (cells, edges, k), attached to their graph."""
        cells, edges, k = self._shape
        probabilities = (
            self.values.softmax(dim=-1) if self._settings.method == "darts" else self.values
        )
        return probabilities.expand(cells * edges, k).reshape(cells, edges, k)

    def update(self, loss: Tensor) -> None:
        """Descends a loss of the weights."""
        (gradient,) = torch.autograd.grad(loss, self.values)
        if self._settings.method == "darts":
            self.values.grad = gradient
            self._optimizer.step()
            return
        if self._settings.method == "anasod" and self._settings.reduction == "mean":
            gradient = gradient / (self._shape[0] * self._shape[1])
        with torch.no_grad():
            self.values.copy_(exponentiated_gradient(self.values, gradient, self._settings.rate))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a continuation needs."""
        return {"values": self.values.detach(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        with torch.no_grad():
            self.values.copy_(state["values"])
        self._optimizer.load_state_dict(state["optimizer"])


@dataclass(frozen=True, slots=True)
class SearchEpoch:
    """Figures of one epoch.

    Attributes:
        train_loss: Mean loss of the weights' steps.
        validation_loss: Mean loss of the architecture's steps.
        probabilities: Mean over all edges of the probability of each operation, k numbers.
        network: Official string of the network that the search would end with here.
    """

    train_loss: float
    validation_loss: float
    probabilities: tuple[float, ...]
    network: str


class DifferentiableSearch:
    """Bi-level training of a supernet and of the distributions over its operations.

    For each batch of training images, the distributions first descend the loss of a batch of
    validation images, the weights being fixed, and then the weights descend the loss of the
    training images, the distributions being fixed (first-order: no derivative passes through the
    weights' step).

    With `checkpoint`, everything is written to a file after each epoch, in one step, and a search
    that was interrupted continues from there and ends as it would have uninterrupted on the same
    machine. The file holds tensors and plain numbers only and is read with `weights_only=True`.

    Args:
        supernet: A `NASBench201Supernet` or a `DARTSSupernet`.
        data: Training images for the weights, validation images for the distributions; test images
            are not looked at.
        settings: How to train.
        generator: Orders the images and samples networks, on the CPU.
        checkpoint: File to continue from, or to be written.

    Raises:
        ValueError: The checkpoint is of another search, or no checkpoint.

    Reference: Wan et al., ANASOD, CVPR 2022, Algorithm 1; it prints a step that divides by the sum,
        here it is the exponentiated gradient of GAEA, on which the paper says it builds.

    Example:
        >>> from hotnas_torch.nn.supernets.supernet201 import NASBench201Supernet
        >>> from hotnas_torch.nn.nasbench201 import Skeleton
        >>> from hotnas_torch.nn.data import digits
        >>> generator = torch.Generator().manual_seed(0)
        >>> search = DifferentiableSearch(
        ...     NASBench201Supernet(
        ...         Skeleton(channels=2, num_stages=1, cells_per_stage=1, input_channels=1),
        ...         generator=generator,
        ...     ),
        ...     digits(generator=generator, num_train=64, num_validation=64),
        ...     DifferentiableSettings(epochs=2),
        ...     generator=generator,
        ... )
        >>> epochs = search.run()
        >>> len(epochs), len(epochs[0].probabilities)
        (2, 4)
    """

    def __init__(
        self,
        supernet: Supernet,
        data: ImageData,
        settings: DifferentiableSettings,
        *,
        generator: torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        self._module: nn.Module = kind("supernet", supernet, nn.Module)
        self.supernet = supernet
        self.settings = settings
        self._generator = generator
        self._path = None if checkpoint is None else Path(checkpoint)
        self._device = next(self._module.parameters()).device
        self._data = data
        self._train, self._validation = data.train, data.validation
        self.distributions = EdgeDistributions(supernet, settings, self._device)
        self._optimizer = torch.optim.SGD(
            self._module.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            foreach=True,
        )
        self.epochs: list[SearchEpoch] = []
        """Figures of the finished epochs."""
        if self._path is not None and self._path.exists():
            self._load(self._path)

    # --- running ----------------------------------------------------------------------------------

    def run(self, *, every_epoch: Callable[[SearchEpoch], None] | None = None) -> list[SearchEpoch]:
        """Train until all epochs are done, and return their figures.

        Args:
            every_epoch: Called with each epoch that this call finishes.

        Raises:
            RuntimeError: A loss became non-finite.
        """
        train, validation = self._train.to(self._device), self._validation.to(self._device)
        while len(self.epochs) < self.settings.epochs:
            epoch = self._epoch(train, validation)
            self.epochs.append(epoch)
            if self._path is not None:
                self._save(self._path)
            if every_epoch is not None:
                every_epoch(epoch)
        return self.epochs

    def _epoch(self, train: Split, validation: Split) -> SearchEpoch:
        settings = self.settings
        progress = len(self.epochs) / settings.epochs
        share = _FLOOR_RATE + (1.0 - _FLOOR_RATE) * 0.5 * (1.0 + math.cos(math.pi * progress))
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * share
        self._module.train()
        starts = range(0, max(len(train) - 1, 1), settings.batch_size)
        order = torch.randperm(len(train), generator=self._generator)
        other = torch.randint(
            len(validation), (len(starts), settings.batch_size), generator=self._generator
        )
        losses = torch.zeros(2, device=self._device)
        for step, start in enumerate(starts):
            batch = other[step].to(self._device)
            loss = self._loss(validation, batch, self.distributions.weights())
            self.distributions.update(loss)
            losses[1] += loss.detach()
            batch = order[start : start + settings.batch_size].to(self._device)
            loss = self._loss(train, batch, self.distributions.weights().detach())
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self._module.parameters(), settings.clip)
            self._optimizer.step()
            losses[0] += loss.detach()
        train_loss, validation_loss = (losses / len(starts)).tolist()
        if not (math.isfinite(train_loss) and math.isfinite(validation_loss)):
            raise RuntimeError(
                f"the loss became non-finite in epoch {len(self.epochs) + 1} (a smaller "
                "learning_rate may help)"
            )
        weights = self.distributions.weights().detach()
        return SearchEpoch(
            train_loss,
            validation_loss,
            tuple(weights.mean(dim=(0, 1)).tolist()),
            self.network().spec,
        )

    def _loss(self, split: Split, batch: Tensor, weights: Tensor) -> Tensor:
        logits = self.supernet(split.images[batch], weights)
        return functional.cross_entropy(logits, split.labels[batch])

    # --- results ----------------------------------------------------------------------------------

    def network(self) -> Network:
        """Return what the search ends with.

        The most probable network; in `"anasod"`, where edges do not differ, the best of
        `num_samples` that are drawn by the search's generator.
        """
        weights = self.distributions.weights().detach().cpu()
        if self.settings.method != "anasod":
            return self.supernet.discretize(weights)
        drawn: dict[str, Network] = {}
        for _ in range(self.settings.num_samples):
            net = sample_connected(self.supernet, weights[0, 0], generator=self._generator)
            drawn.setdefault(net.spec, net)
        return min(drawn.values(), key=self._shared_loss) if len(drawn) > 1 else net

    @torch.no_grad()
    def _shared_loss(self, net: Network) -> float:
        """Return the validation loss of a network with the weights of the supernet."""
        # In training mode: the running statistics are those of mixtures.
        split = self._validation.to(self._device)
        weights = self.supernet.weights_of(net).to(self._device)
        losses = [
            functional.cross_entropy(self.supernet(images, weights), labels, reduction="sum")
            for images, labels in zip(
                split.images.split(_EVALUATION_BATCH),
                split.labels.split(_EVALUATION_BATCH),
                strict=True,
            )
        ]
        return float(torch.stack(losses).sum()) / len(split)

    # --- checkpoints ------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        return {
            "settings": self.settings.to_json(),
            "data": self._data.digest(),
            "space": repr(self.supernet.space),
            "operations": list(self.supernet.operations),
            "shapes": [list(parameter.shape) for parameter in self._module.parameters()],
        }

    def _save(self, path: Path) -> None:
        state = {
            "supernet": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "distributions": self.distributions.state_dict(),
            "generator": self._generator.get_state(),
            "epochs": json.dumps([asdict(epoch) for epoch in self.epochs]),
        }
        write_checkpoint(path, self._identity(), state)

    def _load(self, path: Path) -> None:
        state = read_checkpoint(
            path, self._identity(), kind="differentiable search", device=self._device
        )
        with applying(path, "differentiable search"):
            self._module.load_state_dict(state["supernet"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.distributions.load_state_dict(state["distributions"])
            self._generator.set_state(state["generator"].cpu())
            self.epochs = [
                SearchEpoch(**{**entry, "probabilities": tuple(entry["probabilities"])})
                for entry in json.loads(state["epochs"])
            ]


def sample_connected(
    supernet: Supernet, probabilities: Tensor, *, generator: torch.Generator
) -> Network:
    """Draw every operation of a network from one distribution (Eq. 2), and the wiring.

    Networks whose input and output are not connected are rejected.

    Args:
        supernet: Whose operations and space.
        probabilities: (k,), on the simplex; the share of `none` counts only where networks of the
            space may have it.
        generator: Source of randomness, on the CPU.

    Raises:
        RuntimeError: None of 1000 samples is connected.
    """
    encoding = SlotEncoding(supernet.space)
    point = torch.zeros(1, encoding.num_operations, dtype=torch.float64)
    for name, share in zip(supernet.operations, probabilities.double().tolist(), strict=True):
        if name in encoding.operations:
            point[0, encoding.operations.index(name)] = share
    point /= point.sum()
    for _ in range(_SAMPLES):
        (net,) = encoding.sample(point, generator=generator)
        # Unconnected cells are pruned to their ends.
        if net.cells[0].num_nodes > 2:
            return net
    raise RuntimeError(f"none of {_SAMPLES} networks of {point[0].tolist()} is connected")
