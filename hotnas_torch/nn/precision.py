"""What convolutions and linear layers compute with."""

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["autocast_to", "precision_of"]


def precision_of(wanted: str, device: torch.device) -> torch.dtype:
    """Return what to compute with: the dtype of that name, or what is good on a device."""
    if wanted != "auto":
        named: torch.dtype = getattr(torch, wanted)
        return named
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def autocast_to(precision: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Compute with a dtype inside a `with`; float32 changes nothing."""
    if precision == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=precision)
