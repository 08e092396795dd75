"""The state of a generator as JSON, and BoTorch's randomness from a generator."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["decode_state", "describe_state", "draw_seed", "seeded"]


def describe_state(generator: torch.Generator) -> dict[str, str]:
    """Return the state of a generator, ready for `json.dumps`."""
    return {
        "device": generator.device.type,
        "state": base64.b64encode(generator.get_state().numpy().tobytes()).decode(),
    }


def decode_state(described: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    """Return what to give to `generator.set_state`.

    Raises:
        ValueError: The description is damaged, or of a generator on another device.
    """
    try:
        device = str(described["device"])
        state = base64.b64decode(described["state"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise ValueError(
            f"state must be one that state_dict returned; got a damaged generator: {error!r}"
        ) from error
    if device != generator.device.type:
        raise ValueError(
            f"state belongs to a generator on {device!r}, this one is on {generator.device.type!r}"
        )
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)


def draw_seed(generator: torch.Generator, *, below: int = 2**31) -> int:
    """Draw a seed for somebody else's random numbers."""
    return int(torch.randint(below, (), generator=generator, device=generator.device))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global state, from which BoTorch's samplers draw, and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
