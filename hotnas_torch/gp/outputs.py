"""Models of several outputs, or of several sets of observations, are batches of models."""

import torch
from torch import Tensor

__all__ = ["output_dimensions", "rows_of_elements"]


def rows_of_elements(rows: Tensor, batch_shape: torch.Size) -> Tensor:
    """Training rows, shape (..., n, d), so that they broadcast to the batch of models.

    Args:
        rows: Rows that all outputs share.
        batch_shape: Shape of the batch, which ends with the outputs if there are several.
    """
    return rows.unsqueeze(-3) if len(batch_shape) > rows.ndim - 2 else rows


def output_dimensions(model: torch.nn.Module, batch_shape: torch.Size) -> dict[str, int]:
    """Which dimension of each parameter counts the outputs, as BoTorch's ``subset_output`` asks.

    Args:
        model: All dimensions of its parameters after the batch belong to one output; so do those
            of its buffers `_members`.
        batch_shape: Shape of the batch, which ends with the outputs.
    """
    found: dict[str, Tensor] = dict(model.named_parameters())
    found |= {k: v for k, v in model.named_buffers() if k.rsplit(".", 1)[-1] == "_members"}
    return {
        name: len(batch_shape) - 1 - tensor.ndim
        for name, tensor in found.items()
        if tensor.shape[: len(batch_shape)] == batch_shape
    }
