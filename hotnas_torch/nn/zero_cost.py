"""What untrained networks tell: SynFlow, covariance of Jacobians, number of parameters."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hotnas_torch.arch import Network
from hotnas_torch.arguments import choice as chosen
from hotnas_torch.arguments import items

__all__ = ["ZeroCost", "jacobian_covariance", "num_parameters", "synflow"]

# Of the logarithms and inverses of eigenvalues, which may be 0.
_LEAST_EIGENVALUE = 1e-5


def num_parameters(module: nn.Module) -> float:
    """Return the logarithm of one more than the number of trainable parameters."""
    return math.log1p(sum(one.numel() for one in module.parameters() if one.requires_grad))


def synflow(module: nn.Module, images: Tensor) -> float:
    r"""Return the logarithm of one more than the synaptic flow of a module.

    .. math:: \sum_\theta \theta \, \partial R / \partial \theta, \quad R = 1^T f_{|\theta|}(1)

    with all parameters replaced by their absolute values, normalisations left out, and an image of
    ones. The module stays as it is.

    Args:
        module: Maps images to logits (N, classes).
        images: Of the shape that it takes, (N, C, H, W); their values do not matter.

    Raises:
        ValueError: The flow is not finite.

    Complexity: a copy of the module, one forward and one backward pass in float64.

    Reference: Tanaka et al., Pruning neural networks without any data by iteratively conserving
        synaptic flow, NeurIPS 2020; Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR
        2021.
    """
    positive = copy.deepcopy(module).double()
    with torch.no_grad():
        for one in positive.parameters():
            one.abs_()
    ones = torch.ones_like(images[:1], dtype=torch.float64)
    _drop_normalisation(positive)
    with torch.enable_grad():
        flow = positive(ones).sum()
        parameters = [one for one in positive.parameters() if one.requires_grad]
        slopes = torch.autograd.grad(flow, parameters, allow_unused=True)
    total = sum(
        float((one.detach() * slope).sum())
        for one, slope in zip(parameters, slopes, strict=True)
        if slope is not None
    )
    if not math.isfinite(total):
        raise ValueError(f"module must have a finite synaptic flow; got {total}")
    return math.log1p(max(total, 0.0))


def jacobian_covariance(module: nn.Module, images: Tensor) -> float:
    r"""Return how differently a module responds to different images.

    .. math:: -\sum_i \log(\lambda_i + \epsilon) + \frac{1}{\lambda_i + \epsilon}

    over the eigenvalues of the correlations between the images' input gradients. Larger is better;
    where nothing flows, the gradients count as equal. The module stays as it is.

    Args:
        module: Maps images to logits (N, classes), in training mode or not.
        images: N >= 2 different images, (N, C, H, W).

    Raises:
        ValueError: Fewer than two images, or gradients that are not finite.

    Complexity: a copy of the module, one forward and one backward pass; O(N^3).

    Reference: Mellor et al., Neural Architecture Search without Training, ICML 2021 (first
        version); Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021.
    """
    if images.ndim != 4 or len(images) < 2:
        raise ValueError(f"images must be (N, C, H, W) with N >= 2; got {tuple(images.shape)}")
    own = copy.deepcopy(module)  # running statistics are not to move
    with torch.enable_grad():
        inputs = images.detach().clone().requires_grad_()
        (slopes,) = torch.autograd.grad(own(inputs).sum(), inputs, allow_unused=True)
    jacobian = torch.zeros_like(images) if slopes is None else slopes
    jacobian = jacobian.flatten(1).double()
    if not bool(jacobian.isfinite().all()):
        raise ValueError("module must have finite gradients at images; some are not")
    centred = jacobian - jacobian.mean(1, keepdim=True)
    length = torch.linalg.vector_norm(centred, dim=1)
    flat = length == 0.0
    unit = centred / length.masked_fill(flat, 1.0)[:, None]
    correlation = (unit @ unit.mT).masked_fill(flat[:, None] & flat, 1.0)
    eigenvalues = torch.linalg.eigvalsh(correlation).clamp_min(0.0) + _LEAST_EIGENVALUE
    return -float((eigenvalues.log() + eigenvalues.reciprocal()).sum())


class ZeroCost:
    """A score of untrained networks, as an encoding of one column.

    Args:
        build: Makes the module of a network, with the same seed each time.
        images: Images that modules take, (N, C, H, W).
        score: `"synflow"`, `"jacobian_covariance"` or `"num_parameters"`.

    Raises:
        TypeError: `build` is not callable, or `images` no tensor.
        ValueError: Another score, or images of another shape.

    Complexity: builds and scores one module per network.

    Example:
        >>> import hotnas_torch as ht
        >>> from hotnas_torch.nn import NASBench201Module, Skeleton
        >>> small = Skeleton(channels=4, num_stages=2, cells_per_stage=1, input_channels=1)
        >>> def build(net):
        ...     return NASBench201Module(net, small, generator=torch.Generator().manual_seed(0))
        >>> space = ht.spaces.NASBench201()
        >>> nets = space.sample(3, generator=torch.Generator().manual_seed(0))
        >>> ZeroCost(build, torch.zeros(1, 1, 8, 8), "synflow")(nets).shape
        torch.Size([3, 1])
    """

    def __init__(
        self,
        build: Callable[[Network], nn.Module],
        images: Tensor,
        score: Literal["synflow", "jacobian_covariance", "num_parameters"] = "synflow",
    ) -> None:
        if not callable(build):
            raise TypeError(f"build must be a function of a network; got {build!r}")
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a Tensor; got {type(images).__name__}")
        if images.ndim != 4 or not images.numel():
            raise ValueError(f"images must be (N, C, H, W); got {tuple(images.shape)}")
        scores = ("synflow", "jacobian_covariance", "num_parameters")
        self.score = chosen("score", score, scores)
        if self.score == "jacobian_covariance" and len(images) < 2:
            raise ValueError("images must be at least two for 'jacobian_covariance'; got one")
        self.build, self.images = build, images

    def __call__(self, nets: Sequence[Network]) -> Tensor:
        """Score networks, (N, 1) float64."""
        items("nets", nets, Network)
        found = torch.tensor([self._scored(net) for net in nets], dtype=torch.float64)
        return found.reshape(len(nets), 1)

    def _scored(self, net: Network) -> float:
        module = self.build(net)
        if self.score == "num_parameters":
            return num_parameters(module)
        if self.score == "synflow":
            return synflow(module, self.images)
        return jacobian_covariance(module, self.images)


def _drop_normalisation(module: nn.Module) -> None:
    """Let normalisations pass on what they get."""

    def passed(_: nn.Module, inputs: tuple[Any, ...], __: object) -> Any:
        return inputs[0]

    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()  # in training, it refuses single values
            layer.register_forward_hook(passed)
