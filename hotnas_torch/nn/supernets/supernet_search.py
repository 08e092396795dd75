# Over 400 lines: one training, with what it is set by and what it ends with.
"""Training of a supernet whose architectures a sampler draws and learns to choose."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from hotnas_torch.arch import Network
from hotnas_torch.arguments import choice, integer, kind, number
from hotnas_torch.hierarchy import Sampler
from hotnas_torch.nn.data import ImageSource, LabelledImages
from hotnas_torch.nn.precision import autocast_to, precision_of
from hotnas_torch.nn.supernets.checkpoint import applying, read_checkpoint, write_checkpoint
from hotnas_torch.nn.supernets.reward import Reward
from hotnas_torch.nn.supernets.single_path import SinglePathSupernet

__all__ = ["SupernetEpoch", "SupernetResult", "SupernetSearch", "SupernetSettings"]

_EVALUATION_BATCH = 1000
_LARGEST_LOSS = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetSettings:
    """How a supernet is trained and searched: SGD with a cosine learning rate, and rewards.

    Args:
        epochs: Passes over the training images, >= 1.
        batch_size: Training images per step, >= 2.
        reward_batch_size: Validation images that a reward is measured on, >= 2; None takes
            `batch_size`.
        learning_rate: At the start, > 0; it falls to 0 along half a cosine, per step.
        momentum: In [0, 1).
        weight_decay: L2 penalty on convolution and linear weights, >= 0.
        num_final: Architectures that the sampler proposes at the end, >= 1, of which the one with
            the best accuracy on all validation images is chosen; 1 takes the sampler's own choice.
        precision: What convolutions and linear layers compute with: `"float32"`, `"bfloat16"`
            or `"float16"` (with scaled losses); `"auto"` takes float32 on a CPU, and on a GPU
            bfloat16 where it has it and else float16.
        reward: What the sampler is told.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.

    Reference: "Neural Architecture Search by Learning a Hierarchical Search Space", 2025, Appendix
        B.1; the defaults are those of the search in the pooling space, the weight decay that of its
        pre-training.
    """

    epochs: int = 400
    batch_size: int = 256
    reward_batch_size: int | None = None
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-3
    num_final: int = 1
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    reward: Reward = field(default_factory=Reward)

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("num_final", 1)):
            integer(name, getattr(self, name), least=least)
        if self.reward_batch_size is not None:
            integer("reward_batch_size", self.reward_batch_size, least=2)
        number("learning_rate", self.learning_rate, above=0.0)
        number("momentum", self.momentum, least=0.0, below=1.0)
        number("weight_decay", self.weight_decay, least=0.0)
        choice("precision", self.precision, ("auto", "float32", "bfloat16", "float16"))
        kind("reward", self.reward, Reward)

    def to_json(self) -> dict[str, Any]:
        """Return the settings, ready for `json.dumps`; a reward that is the default is left out."""
        settings = asdict(self)
        if self.reward == Reward():
            del settings["reward"]
        return settings


@dataclass(frozen=True, slots=True)
class SupernetEpoch:
    """Figures of one epoch.

    Attributes:
        train_loss: Mean cross-entropy of the steps, each with its own architecture.
        reward: Mean of what the sampler was told of these architectures, see `Reward`.
        network: Official string of the network that the sampler would end with here.
    """

    train_loss: float
    reward: float
    network: str


@dataclass(frozen=True, slots=True)
class SupernetResult:
    """What a search ends with.

    Attributes:
        network: The chosen network.
        accuracy: Its accuracy on all validation images with the shared weights, in [0, 1].
        candidates: All networks that were compared with their accuracies, best first.
    """

    network: Network
    accuracy: float
    candidates: tuple[tuple[Network, float], ...]


class SupernetSearch:
    r"""Trains shared weights on architectures that a sampler draws, and tells it their accuracies.

    Each step draws one architecture a, descends the loss of a batch of training images on its path,

    .. math:: w \leftarrow w - \alpha \nabla_w L(f_a(X_t, w))

    and then tells the sampler the accuracy of a on a batch of validation images, or what else
    `settings.reward` says. With the sampler
    `Uniform` this is single-path one-shot training, with
    `TreeSampler` the tree search of the paper.

    With `checkpoint`, everything is written to a file after each epoch, in one step, and a search
    that was interrupted continues from there and ends as it would have uninterrupted on the same
    machine. The file holds tensors and plain values only and is read with `weights_only=True`.

    Args:
        supernet: The shared weights; trained in place, on its device.
        nets: The N networks that may be drawn, in the order that the sampler numbers them.
        sampler: Draws them; its schedule follows the share of the steps that are done.
        data: Training images for the weights, validation images for the rewards; test images are
            not looked at.
        settings: How to train.
        generator: Orders images and draws architectures, on the CPU.
        checkpoint: File to continue from, or to be written.

    Raises:
        ValueError: Sampler and networks, or supernet and data do not fit, or the checkpoint is of
            another search, or no checkpoint.
        ArchitectureError: A network is not of the supernet's space.

    Reference: "Neural Architecture Search by Learning a Hierarchical Search Space", 2025, Eq. 1 and
        Algorithm 1; Guo et al., Single Path One-Shot Neural Architecture Search with Uniform
        Sampling, ECCV 2020.

    Example:
        >>> from hotnas_torch.hierarchy import Boltzmann
        >>> from hotnas_torch.nn.supernets.pooling_supernet import PoolingSupernet
        >>> from hotnas_torch.nn.data import digits
        >>> generator = torch.Generator().manual_seed(0)
        >>> supernet = PoolingSupernet(width=0.25, input_channels=1, generator=generator)
        >>> search = SupernetSearch(
        ...     supernet,
        ...     list(supernet.space),
        ...     Boltzmann(36),
        ...     digits(generator=generator, num_train=64, num_validation=64),
        ...     SupernetSettings(epochs=2, batch_size=32),
        ...     generator=generator,
        ... )
        >>> result = search.run(progress=False)
        >>> len(search.epochs), result.network in supernet.space
        (2, True)
    """

    def __init__(
        self,
        supernet: SinglePathSupernet,
        nets: Sequence[Network],
        sampler: Sampler,
        data: LabelledImages,
        settings: SupernetSettings,
        *,
        generator: torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        if len(nets) != sampler.num_architectures:
            raise ValueError(
                f"nets must hold the {sampler.num_architectures} architectures of the sampler; got "
                f"{len(nets)}"
            )
        for name, expected in (
            ("input_channels", data.input_shape[0]),
            ("num_classes", data.num_classes),
        ):
            if getattr(supernet, name) != expected:
                raise ValueError(
                    f"supernet must have {name}={expected} for {data.name!r}; got "
                    f"{getattr(supernet, name)}"
                )
        self.supernet = supernet
        self.nets = list(nets)
        self.sampler = sampler
        self.settings = settings
        self._paths: list[list[int]] = supernet.paths(self.nets).tolist()
        self._data = data
        self._generator = generator
        self._path = None if checkpoint is None else Path(checkpoint)
        self._device = next(supernet.parameters()).device
        self._precision = precision_of(settings.precision, self._device)
        weights = [parameter for parameter in supernet.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in supernet.parameters() if parameter.dim() <= 1]
        self._optimizer = torch.optim.SGD(
            [
                {"params": group, "weight_decay": decay}
                for group, decay in ((weights, settings.weight_decay), (others, 0.0))
                if group
            ],
            lr=settings.learning_rate,
            momentum=settings.momentum,
            foreach=True,
        )
        self._scaler = torch.amp.GradScaler(
            self._device.type, enabled=self._precision == torch.float16
        )
        self._running: float | None = None
        self.epochs: list[SupernetEpoch] = []
        """Figures of the finished epochs."""
        if self._path is not None and self._path.exists():
            self._load(self._path)

    # --- running ----------------------------------------------------------------------------------

    def run(
        self,
        *,
        progress: bool = True,
        every_epoch: Callable[[SupernetEpoch], None] | None = None,
    ) -> SupernetResult:
        """Train until all epochs are done, and choose.

        Args:
            progress: Show a progress bar on a terminal.
            every_epoch: Called with each epoch that this call finishes.

        Raises:
            RuntimeError: A loss became non-finite.
        """
        train, validation = (
            part.to(self._device) for part in (self._data.train, self._data.validation)
        )
        with tqdm(
            total=self.settings.epochs,
            initial=len(self.epochs),
            desc=self.sampler.name,
            unit="epoch",
            disable=None if progress else True,
        ) as bar:
            while len(self.epochs) < self.settings.epochs:
                epoch = self._epoch(train, validation)
                self.epochs.append(epoch)
                if self._path is not None:
                    self._save(self._path)
                bar.update()
                bar.set_postfix(loss=f"{epoch.train_loss:.3f}", reward=f"{epoch.reward:.3f}")
                if every_epoch is not None:
                    every_epoch(epoch)
        return self._choose(validation)

    def _epoch(self, train: ImageSource, validation: ImageSource) -> SupernetEpoch:
        size = self.settings.batch_size
        # A last batch of one image is left out: normalisation over it may have no variance.
        starts = range(0, max(len(train) - 1, 1), size)
        order = torch.randperm(len(train), generator=self._generator)
        judged_size = min(self.settings.reward_batch_size or size, len(validation))
        drawn = torch.randint(
            len(validation), (len(starts), judged_size), generator=self._generator
        )
        batches = zip(
            train.batches([order[start : start + size] for start in starts]),
            validation.batches(list(drawn)),
            strict=True,
        )
        num_steps = self.settings.epochs * len(starts)
        self.supernet.train()
        total, rewards = torch.zeros((), device=self._device), 0.0
        for step, (fitted, judged) in enumerate(batches, start=len(self.epochs) * len(starts)):
            share = step / num_steps
            rate = 0.5 * self.settings.learning_rate * (1.0 + math.cos(math.pi * share))
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self.sampler.set_progress(share)
            index = self.sampler.sample(1, generator=self._generator)
            path = self._paths[int(index)]
            loss, *of_training = self._descend(path, *fitted)
            total += loss
            reward = self._reward(path, of_training, judged)
            self.sampler.update(index, torch.tensor([reward], dtype=torch.float64))
            rewards += reward
        mean_loss = float(total) / len(starts)
        if not math.isfinite(mean_loss):
            raise RuntimeError(
                f"the loss became non-finite in epoch {len(self.epochs) + 1} (a smaller "
                "learning_rate may help)"
            )
        if len(self.epochs) + 1 == self.settings.epochs:
            self.sampler.set_progress(1.0)
        greedy = int(self.sampler.best(1, generator=self._generator))
        return SupernetEpoch(mean_loss, rewards / len(starts), self.nets[greedy].spec)

    def _reward(
        self, path: Sequence[int], of_training: Sequence[Tensor], judged: tuple[Tensor, Tensor]
    ) -> float:
        rule = self.settings.reward
        logits, labels = of_training if rule.images == "train" else self._outputs(path, *judged)
        accuracy = float((logits.argmax(dim=1) == labels).double().mean())
        loss = float(functional.cross_entropy(logits.float(), labels))
        if not math.isfinite(loss):
            # Weights that have become useless: the epoch ends with an error if training has, too.
            accuracy, loss = 0.0, _LARGEST_LOSS
        reward, self._running = rule.of(accuracy, loss, self._running)
        return reward

    @torch.no_grad()
    def _outputs(
        self, path: Sequence[int], images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        with self._autocast():
            return self.supernet.follow(images, path), labels

    def _descend(
        self, path: Sequence[int], images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take a step on the weights of a path; return its loss, its logits and the labels."""
        with self._autocast():
            logits = self.supernet.follow(images, path)
            loss = functional.cross_entropy(logits, labels)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach(), logits.detach(), labels

    def _accuracy(self, path: Sequence[int], images: Tensor, labels: Tensor) -> float:
        logits, _ = self._outputs(path, images, labels)
        return float((logits.argmax(dim=1) == labels).double().mean())

    def _autocast(self) -> AbstractContextManager[object]:
        return autocast_to(self._precision, self._device)

    # --- the end ----------------------------------------------------------------------------------

    def _choose(self, validation: ImageSource) -> SupernetResult:
        # A copy: choosing twice chooses the same.
        generator = torch.Generator()
        generator.set_state(self._generator.get_state())
        proposed = self.sampler.best(self.settings.num_final, generator=generator).tolist()
        measured = [(self.nets[place], self._measure(place, validation)) for place in proposed]
        measured.sort(key=lambda pair: -pair[1])
        return SupernetResult(*measured[0], tuple(measured))

    def _measure(self, place: int, source: ImageSource) -> float:
        """Return the accuracy of a network on all images, with the shared weights."""
        self.supernet.eval()
        everything = torch.arange(len(source))
        batches = list(everything.tensor_split(math.ceil(len(source) / _EVALUATION_BATCH)))
        correct = sum(
            len(indices) * self._accuracy(self._paths[place], images, labels)
            for indices, (images, labels) in zip(batches, source.batches(batches), strict=True)
        )
        return correct / len(source)

    def accuracies(self) -> Tensor:
        """Return the accuracy of every network on all validation images, with the shared weights.

        Returns:
            (N,) float64, in [0, 1].

        Complexity: N passes over the validation images.
        """
        validation = self._data.validation.to(self._device)
        return torch.tensor(
            [self._measure(place, validation) for place in range(len(self.nets))],
            dtype=torch.float64,
        )

    # --- checkpoints ------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        return {
            "settings": self.settings.to_json(),
            "precision": str(self._precision),
            "data": self._data.digest(),
            "space": repr(self.supernet.space),
            "networks": hashlib.sha256(
                "\n".join(net.spec for net in self.nets).encode()
            ).hexdigest(),
            "shapes": [list(parameter.shape) for parameter in self.supernet.parameters()],
            "sampler": repr(self.sampler),
            "schedule": asdict(self.sampler.schedule),
        }

    def _save(self, path: Path) -> None:
        state = {
            "supernet": self.supernet.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "sampler": self.sampler.state_dict(),
            "generator": self._generator.get_state(),
            "epochs": json.dumps([asdict(epoch) for epoch in self.epochs]),
            "running": self._running,
        }
        write_checkpoint(path, self._identity(), state)

    def _load(self, path: Path) -> None:
        state = read_checkpoint(path, self._identity(), kind="supernet search", device=self._device)
        with applying(path, "supernet search"):
            self.supernet.load_state_dict(state["supernet"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._scaler.load_state_dict(state["scaler"])
            self.sampler.load_state_dict(state["sampler"])
            self._generator.set_state(state["generator"].cpu())
            self._running = state.get("running")
            self.epochs = [SupernetEpoch(**entry) for entry in json.loads(state["epochs"])]
