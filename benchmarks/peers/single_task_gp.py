"""A pytest plugin that puts HOTNNGP in the place of BoTorch's SingleTaskGP.

Points become networks as `Points` says. A model with a covariance or with inputs of its own stays
BoTorch's, as it would for a user.
"""

import inspect
import sys
from typing import Any

import torch
from botorch.models import SingleTaskGP
from botorch.utils.types import DEFAULT
from torch import Tensor

from benchmarks.peers.points import Points, count_covariances
from benchmarks.peers.record import outside, plain
from hotnas_torch.gp import HOTNNGP

__all__ = ["PointsGP"]

_MOST_COLUMNS = 8


class PointsGP(HOTNNGP):
    """HOTNNGP with the signature of SingleTaskGP."""

    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        likelihood: Any = None,
        covar_module: Any = None,
        mean_module: Any = None,
        outcome_transform: Any = DEFAULT,
        input_transform: Any = None,
    ) -> None:
        super().__init__(
            train_X,
            train_Y,
            train_Yvar,
            space=Points(train_X.shape[-1]),
            likelihood=likelihood,
            covar_module=covar_module,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
            input_transform=input_transform,
        )


def _inside(arguments: dict[str, Any]) -> bool:
    """Whether a model is one that HOTNNGP documents; notes why not."""
    X, Y = arguments["train_X"], arguments["train_Y"]
    if arguments.get("covar_module") is not None:
        outside("a covariance of its own")
    elif not 1 <= X.shape[-1] <= _MOST_COLUMNS or X.shape[-2] < 2:
        outside("more columns than choices, or a single observation")
    elif Y.dim() < 2 or not bool(torch.isfinite(Y).all()):
        outside("targets of another shape, or not finite")
    elif bool((Y.amax(-2) == Y.amin(-2)).any()):
        outside("constant targets")
    else:
        return True
    return False


def pytest_configure() -> None:
    """Take SingleTaskGP's place where tests and BoTorch's own helpers make models of it."""
    torch.set_num_threads(1)
    count_covariances()
    if plain():
        return
    signature = inspect.signature(SingleTaskGP)

    class Chooser(type(SingleTaskGP)):  # type: ignore[misc]
        """Make ours where SingleTaskGP is called; know every SingleTaskGP as its own."""

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            if cls is not Stand:
                return super().__call__(*args, **kwargs)
            try:
                arguments = signature.bind(*args, **kwargs).arguments
            except TypeError:
                return SingleTaskGP(*args, **kwargs)
            if not _inside(arguments):
                return SingleTaskGP(*args, **kwargs)
            return PointsGP(*args, **kwargs)

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, SingleTaskGP)

    class Stand(SingleTaskGP, metaclass=Chooser):
        """What the name SingleTaskGP stands for in tests."""

    import botorch.utils.test_helpers

    for name, module in list(sys.modules.items()):
        if name in ("botorch.models", "botorch.models.gp_regression", "botorch.utils.test_helpers"):
            module.SingleTaskGP = Stand
    del botorch
