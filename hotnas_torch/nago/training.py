"""Training one network of a generator as an objective on the generator's hyperparameters."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Generic, Protocol, TypeVar

import torch

from hotnas_torch.arch import Network
from hotnas_torch.arguments import boolean, integer, kind
from hotnas_torch.nago.modules import (
    GeneratedModule,
    GeneratedSkeleton,
    fit_channels,
    memory_per_sample,
)
from hotnas_torch.nago.theta import FlatTheta, Theta
from hotnas_torch.nn import ClassificationData, EpochResult, TrainingSettings, digits, train
from hotnas_torch.objectives.base import Evaluation
from hotnas_torch.objectives.training import seeded_generator, threads, training_metrics

__all__ = ["GeneratorTraining", "NetworkGenerator"]

T = TypeVar("T", bound=Theta | FlatTheta)
_Contra = TypeVar("_Contra", bound=Theta | FlatTheta, contravariant=True)


class NetworkGenerator(Protocol[_Contra]):
    """What samples networks from hyperparameters, as HNAG and RNAG do."""

    def sample(self, theta: _Contra, *, generator: torch.Generator) -> Network:
        """Draw a network."""
        ...


class GeneratorTraining(Generic[T]):
    """Samples a network from a generator, trains it, and measures error, memory and time.

    The network, its initial parameters and the order of the images depend on `seed`, the
    hyperparameters and the number of the sample alone: an evaluation gives the same error and
    memory whenever and in whichever process it is made (on the same kind of device, with the same
    `num_threads`). A longer training starts from the same parameters as a shorter one.

    Args:
        generator: `HNAG` or
            `RNAG`.
        data: Images to train and to validate on; None takes scikit-learn's digits, split by
            `seed`.
        parameter_limit: Largest number of trainable parameters; widths are solved from it.
        skeleton: What surrounds the sampled graph; None takes 64 channels in the head and no
            dropout. Its `input_channels` and `num_classes` must fit the data.
        settings: How to train; its `epochs` are the full budget.
        seed: See above.
        device: Where to train.
        num_threads: torch threads during a training; None leaves the process's setting.
        mixed_precision: Whether to train in bfloat16 where that is safe.

    Raises:
        ValueError: The skeleton does not fit the data, or an argument is out of range.
        ImportError: `data` is None and scikit-learn is not installed.

    Reference: Ru, Esperanca and Carlucci, NAGO, NeurIPS 2020, Section 2.2: one network stands for
        its generator.

    Example:
        >>> from hotnas_torch.nago import RNAG, FlatTheta, WattsStrogatz
        >>> objective = GeneratorTraining(RNAG(), parameter_limit=5_000)
        >>> result = objective(FlatTheta((WattsStrogatz(3, 2, 0.5),) * 3), epochs=1)
        >>> sorted(result.metrics)[:3]
        ['epochs', 'memory', 'operations']
    """

    def __init__(
        self,
        generator: NetworkGenerator[T],
        data: ClassificationData | None = None,
        *,
        parameter_limit: int = 20_000,
        skeleton: GeneratedSkeleton | None = None,
        settings: TrainingSettings | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        num_threads: int | None = 1,
        mixed_precision: bool = False,
    ) -> None:
        integer("parameter_limit", parameter_limit, least=1)
        boolean("mixed_precision", mixed_precision)
        integer("seed", seed)
        kind("skeleton", skeleton, GeneratedSkeleton, optional=True)
        kind("settings", settings, TrainingSettings, optional=True)
        if num_threads is not None:
            integer("num_threads", num_threads, least=1)
        self.generator = generator
        self.data = digits(generator=seeded_generator(seed, "data")) if data is None else data
        shape = {"input_channels": self.data.input_shape[0], "num_classes": self.data.num_classes}
        if skeleton is None:
            skeleton = GeneratedSkeleton(head_channels=64, dropout=0.0, **shape)
        for name, expected in shape.items():
            if getattr(skeleton, name) != expected:
                raise ValueError(
                    f"skeleton.{name} must be {expected} for {self.data.name!r}; got "
                    f"{getattr(skeleton, name)}"
                )
        self.skeleton = skeleton
        self.parameter_limit = parameter_limit
        self.settings = TrainingSettings() if settings is None else settings
        self.seed = seed
        self.device = torch.device(device)
        self.num_threads = num_threads
        self.mixed_precision = mixed_precision

    def network(self, theta: T, *, sample: int = 0) -> Network:
        """Return the network that is trained for a sample, with the widths it is trained with.

        Args:
            theta: Hyperparameters.
            sample: Number of the sample, >= 0.

        Raises:
            ArchitectureError: It has more parameters than allowed even with one channel per cell.
        """
        drawn = self.generator.sample(theta, generator=self._source("network", theta, sample))
        return fit_channels(drawn, self.parameter_limit, self.skeleton)

    def __call__(
        self,
        theta: T,
        *,
        epochs: int | None = None,
        sample: int = 0,
        every_epoch: Callable[[EpochResult], None] | None = None,
    ) -> Evaluation:
        """Train one network; a loss that becomes non-finite is a failed evaluation.

        Args:
            theta: Hyperparameters.
            epochs: Budget; None takes the settings'. The learning rate falls to 0 within it.
            sample: Which network of the generator, and which initial parameters.
            every_epoch: Called with the figures of each finished epoch.

        Returns:
            The value is the validation error in percent, the cost the seconds of the training.
            Metrics: those of `Training`, `memory` (bytes per image, see
            `memory_per_sample`) and `operations` (nodes of the network).

        Raises:
            ArchitectureError: As `network`.
        """
        settings = self.settings if epochs is None else replace(self.settings, epochs=epochs)
        with threads(self.num_threads):
            net = self.network(theta, sample=sample)
            module = GeneratedModule(
                net,
                self.skeleton,
                generator=self._source("parameters", theta, sample),
                device=self.device,
                mixed_precision=self.mixed_precision,
            )
            memory = memory_per_sample(module, self.data.input_shape)
            result = train(
                module,
                self.data,
                settings,
                generator=self._source("order", theta, sample),
                every_epoch=every_epoch,
            )
        if result.diverged:
            return Evaluation.failure(
                f"the loss became non-finite in epoch {len(result.epochs)} (a smaller "
                "learning_rate may help)",
                cost=result.seconds,
            )
        metrics = training_metrics(result, module.num_parameters())
        metrics["memory"] = float(memory)
        metrics["operations"] = float(sum(cell.num_operations for cell in net.cells))
        error = 100.0 * (1.0 - result.epochs[-1].validation_accuracy)
        return Evaluation(error, metrics, result.seconds)

    def describe(self) -> dict[str, Any]:
        """Return what the values depend on, ready for `json.dumps`."""
        return {
            "kind": "generator training",
            "generator": repr(self.generator),
            "data": self.data.name,
            "data_sha256": self.data.digest(),
            "parameter_limit": self.parameter_limit,
            "skeleton": asdict(self.skeleton),
            "settings": self.settings.to_json(),
            "seed": self.seed,
            "mixed_precision": self.mixed_precision,
        }

    def __repr__(self) -> str:
        return f"GeneratorTraining({self.generator!r}, {self.data.name!r}, {self.settings!r})"

    def _source(self, purpose: str, theta: T, sample: int) -> torch.Generator:
        described = json.dumps(theta.to_json(), sort_keys=True)
        return seeded_generator(self.seed, purpose, described, str(sample))
