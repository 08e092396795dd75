"""Checkpoints of searches that train: complete or absent, and of one search only."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hotnas_torch.files import write_bytes

__all__ = ["read_checkpoint", "write_checkpoint"]

_VERSION = 1


def write_checkpoint(path: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes a checkpoint in one step, and the folder it lies in.

    Args:
        path: The file.
        identity: What the search depends on, ready for ``json.dumps``.
        state: Tensors, plain values and containers of them.

    Raises:
        OSError: The file cannot be written; an old one is then untouched.
    """
    buffer = io.BytesIO()
    torch.save({"version": _VERSION, "identity": json.dumps(identity), **state}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


def read_checkpoint(
    path: Path, identity: Mapping[str, Any], *, kind: str, device: torch.device
) -> dict[str, Any]:
    """Reads what :func:`write_checkpoint` wrote, without running anything that the file says.

    Args:
        path: The file.
        identity: Of the search that goes on.
        kind: What the search is called in messages.
        device: Where tensors go.

    Raises:
        ValueError: It is no checkpoint, of a newer version, or of another search; the message names
            the difference.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        version, found = state["version"], json.loads(state["identity"])
    except Exception as error:
        raise ValueError(
            f"{path} is no checkpoint of a {kind}: {error} (delete it to begin anew)."
        ) from error
    if version > _VERSION:
        raise ValueError(f"{path} was written by a newer version of hotnas_torch.")
    # Through JSON, as the other came from there.
    for name, value in json.loads(json.dumps(identity)).items():
        if found.get(name) != value:
            raise ValueError(
                f"{path} belongs to another search: its {name} is {found.get(name)!r}, here it "
                f"is {value!r} (choose another file)."
            )
    return state
