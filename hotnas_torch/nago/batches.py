"""The batch that fits into a memory, and NAGO's learning rate for it."""

from dataclasses import replace

from hotnas_torch.arguments import integer
from hotnas_torch.nago.modules import GeneratedModule, memory_per_sample
from hotnas_torch.nn import TrainingSettings

__all__ = ["fitted_batch"]

_LEAST = 2
_BATCHES = (96, 512)
_RATES = (0.025, 0.1)


def fitted_batch(
    settings: TrainingSettings,
    module: GeneratedModule,
    input_shape: tuple[int, int, int],
    memory: int,
    *,
    most: int = 512,
) -> TrainingSettings:
    """Return settings with the largest batch that fits into a memory, and its learning rate.

    What is counted: the activations that autograd keeps, measured, and parameters with their
    gradients and momenta. Leave room for what is not, working memory of kernels and the images. The
    rate is on the line through 0.025 at 96 images and 0.1 at 512, as in NAGO's searches.

    Args:
        settings: The rest of them.
        module: What is to be trained; it stays as it is.
        input_shape: Channels, height and width of an image.
        memory: In bytes; of the machine that values are to be those of, whatever computes them.
        most: Images at most.

    Raises:
        TypeError: A number is no integer.
        ValueError: `most` is below 2, or not even two images fit; the message says what they need.

    Complexity: two forward passes.

    Reference: Ru, Esperanca and Carlucci, NAGO, NeurIPS 2020, Section 4.2.

    Example:
        >>> import torch
        >>> from hotnas_torch.nago import RNAG, FlatTheta, GeneratedSkeleton, WattsStrogatz
        >>> generator = torch.Generator().manual_seed(0)
        >>> net = RNAG().sample(FlatTheta((WattsStrogatz(4, 2, 0.5),) * 3), generator=generator)
        >>> skeleton = GeneratedSkeleton(input_channels=1, head_channels=32)
        >>> module = GeneratedModule(net, skeleton, generator=generator)
        >>> fitted = fitted_batch(TrainingSettings.of("nago"), module, (1, 8, 8), 2**24)
        >>> 2 <= fitted.batch_size <= 512
        True
    """
    integer("memory", memory, least=1)
    integer("most", most, least=_LEAST)
    parameters = sum(one.numel() * one.element_size() for one in module.parameters())
    of_image = memory_per_sample(module, input_shape) - parameters
    # Parameters, their gradients and momenta.
    left = memory - 3 * parameters
    batch = min(most, left // of_image)
    if batch < _LEAST:
        raise ValueError(
            f"memory must hold {_LEAST} images, {3 * parameters + _LEAST * of_image} bytes with the"
            f" parameters; got {memory}"
        )
    slope = (_RATES[1] - _RATES[0]) / (_BATCHES[1] - _BATCHES[0])
    rate = _RATES[0] + slope * (batch - _BATCHES[0])
    return replace(settings, batch_size=batch, learning_rate=rate)
