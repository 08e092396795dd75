"""Gram matrices on disk: what a file says about itself, and reading it safely.

A finished file is an ordinary NumPy `.npz` archive, which holds no Python objects.
"""

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hotnas_torch._version import __version__
from hotnas_torch.errors import GramFileError
from hotnas_torch.files import (
    InUseError,
    WriteLock,
    is_version,
    open_ordinary,
    read_array,
)
from hotnas_torch.notebook import matrix_html

__all__ = [
    "Gram",
    "check_same",
    "describe_gram",
    "differing_settings",
    "digest_of",
    "finished_gram",
    "load_gram",
    "lock",
]

FORMAT = "hotnas-gram"
FORMAT_VERSION = 1

NUMPY_DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype("<f4"),
    torch.float64: np.dtype("<f8"),
}


class Gram(NamedTuple):
    """Contents of a finished file.

    Attributes:
        distances: Symmetric matrix, shape (X, X), float32/float64, on the CPU.
        networks: X architecture strings (JSON for networks computed without a space).
        meta: `"format"`, `"format_version"`, `"settings"` (of the metric) and
            `"fingerprint"` (digest of settings and networks).
    """

    distances: Tensor
    networks: list[str]
    meta: dict[str, Any]

    def _repr_html_(self) -> str:
        settings = self.meta.get("settings", {})
        caption = f"Gram: {settings.get('distance', 'distances')} of {len(self.networks)} networks"
        names = [name if len(name) <= 60 else f"{name[:57]}..." for name in self.networks[:10]]
        first = self.distances[:10, :10].double().tolist()
        return matrix_html(first, names, caption, size=len(self.networks))


def load_gram(path: str | PathLike[str]) -> Gram:
    """Read a finished Gram file.

    Args:
        path: File that the `gram` of a distance or `hotnas gram` wrote.

    Returns:
        Distances, architecture strings and a description of how they were computed.

    Raises:
        FileNotFoundError: There is no such file.
        GramFileError: The file is truncated, damaged, or of another kind.
    """
    path = Path(path)
    try:
        with open_ordinary(path) as file, zipfile.ZipFile(file) as archive:
            meta = read_array(archive, "meta")
            networks = read_array(archive, "networks")
            distances = read_array(archive, "distances")
        description = json.loads(str(meta))
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # whatever numpy, zipfile and json raise for damaged content
        raise GramFileError(
            f"{path} is not a readable Gram file ({error}); it is truncated, damaged, or was"
            " written by another program (compute it again with overwrite=True)"
        ) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise GramFileError(f"{path} is an .npz archive, but not a Gram file of this library")
    if not is_version(description.get("format_version"), FORMAT_VERSION):
        raise GramFileError(
            f"{path} has Gram file version {description.get('format_version')!r}; this version of"
            f" hotnas_torch reads version {FORMAT_VERSION} (install the version that wrote it)"
        )
    if networks.ndim != 1 or networks.dtype.kind != "U":
        raise GramFileError(
            f"{path} holds networks of shape {networks.shape} and dtype {networks.dtype}; expected"
            " a list of strings"
        )
    size = len(networks)
    if distances.dtype not in NUMPY_DTYPES.values() or distances.shape != (size, size):
        raise GramFileError(
            f"{path} holds distances of shape {distances.shape} and dtype {distances.dtype} for"
            f" {size} networks; expected ({size}, {size}) in float32 or float64"
        )
    # The least and the largest entry are NaN where any is.
    if size and not (distances.min() >= 0.0 and distances.max() < math.inf):
        raise GramFileError(
            f"{path} holds distances that are negative or not finite; it is damaged (compute it"
            " again with overwrite=True)"
        )
    return Gram(torch.from_numpy(distances), [str(name) for name in networks], description)


def finished_gram(
    path: str | PathLike[str], settings: Mapping[str, Any], keys: Sequence[str]
) -> Tensor | None:
    """Distances of a finished file, if it is there and of this computation.

    Args:
        path: Output path.
        settings: Settings of the metric, JSON-ready.
        keys: Keys of the networks in order.

    Returns:
        The distances, or None if there is no file.

    Raises:
        GramFileError: The file is damaged or of another computation.
    """
    path = Path(path)
    if not path.exists():
        return None
    gram = load_gram(path)
    check_same(path, gram.meta, describe_gram(settings, keys))
    return gram.distances


def lock(path: Path, *, take_over: bool = False) -> WriteLock:
    """Keep other processes from writing a result, until it is closed.

    Args:
        path: The file or folder of the result.
        take_over: Take it from the process that is writing it.

    Raises:
        GramFileError: Another process is writing it, or the lock cannot be written.
    """
    try:
        return WriteLock(Path(os.path.realpath(path)), take_over=take_over)
    except InUseError as error:
        raise GramFileError(
            f"out: another process is writing {path} ({error}); wait for it, choose another file,"
            " or pass take_over=True: then that one stops"
        ) from error
    except OSError as error:
        raise GramFileError(
            f"out: cannot write {path}: {error} (choose a file in a folder that exists and is"
            " writable)"
        ) from error


def describe_gram(settings: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Describe a result file: settings, version, and a digest with the networks."""
    # The version counts: another one may round differently, and a file must not mix two.
    settings = {**settings, "hotnas_torch": __version__}
    networks = digest_of(keys)
    text = json.dumps({"settings": settings, "networks": networks}, sort_keys=True)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
        "num_networks": len(keys),
        "networks_digest": networks,
        "settings": settings,
    }


def digest_of(keys: Sequence[str]) -> str:
    """Return the digest by which a result knows its networks, of their keys in order."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def check_same(
    path: Path, found: Mapping[str, Any], expected: Mapping[str, Any], *, argument: str = "out"
) -> None:
    """Raise a GramFileError that names the differences of two descriptions, if there are any.

    `argument` is what names the path.
    """
    if not isinstance(found, Mapping):
        raise GramFileError(f"{argument}: {path} has no description; it is damaged (delete it)")
    if found.get("fingerprint") == expected["fingerprint"]:
        return
    differences = list(_differences(found, expected)) or ["it describes another computation"]
    raise GramFileError(
        f"{argument}: {path} belongs to another computation: {'; '.join(differences)}"
        " (choose another place, or pass overwrite=True to replace it)"
    )


def differing_settings(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Say how the settings of a result differ from those of a computation."""
    for name in dict.fromkeys((*here, *there)):
        if there.get(name) != here.get(name):
            if name == "tree":
                yield "its operation tree differs"
            else:
                yield f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    there = found.get("settings")
    if isinstance(there, Mapping):
        yield from differing_settings(there, expected["settings"])
    if found.get("num_networks") != expected["num_networks"]:
        yield (
            f"it holds {found.get('num_networks')} networks, this computation has"
            f" {expected['num_networks']}"
        )
    elif found.get("networks_digest") != expected["networks_digest"]:
        yield "its networks are others, or in another order"
