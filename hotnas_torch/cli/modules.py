"""Networks of one's own models: what `MODULE:NAME`, `FILE.py:NAME` and `--modules` name."""

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from hotnas_torch.arch import Network
from hotnas_torch.cli.messages import BadInput
from hotnas_torch.importing import from_module, operation_tree
from hotnas_torch.spaces import AnyNetwork

__all__ = ["MODEL", "imported_space", "network_named", "networks_of_file"]

MODEL = (
    "MODULE:NAME or FILE.py:NAME of a pair (torch module, example inputs), of a Network, or of a"
    " function that returns one of these"
)
"""What stands for a model, for the help."""


def imported_space() -> AnyNetwork:
    """Return what imported networks are compared in."""
    return AnyNetwork(operation_tree())


def network_named(option: str, text: str) -> Network:
    """Return the network of a model that is named by where it is.

    Args:
        option: What the user passed it as, for messages.
        text: `MODULE:NAME` or `FILE.py:NAME`; NAME is a key of the dict `models` there, or a name
            of the module.

    Raises:
        BadInput: There is no such model, or it cannot be imported.
    """
    where, colon, name = text.partition(":")
    if not (where and colon and name):
        raise BadInput(f"{option}: {text!r} is no {MODEL} (or pass --space)")
    module = _module(option, where)
    listed = getattr(module, "models", None)
    if callable(listed) and not hasattr(module, name):
        listed = _called(f"{option}: {where}:models", listed)
    models = _by_name(listed) if isinstance(listed, Mapping) else {}
    if name not in models and not hasattr(module, name):
        known = f", and its `models` has {', '.join(models)}" if models else ""
        raise BadInput(f"{option}: {where} has no {name!r}{known}")
    # What `models` lists comes first: the name is then the model that `gram --modules` compares.
    model = models[name] if name in models else getattr(module, name)
    return replace(_network(f"{option}: {name}", model), spec=text)


def networks_of_file(path: Path) -> list[Network]:
    """Return the networks of all models that a file lists, at least two.

    Args:
        path: A Python file with `models`, a dict of models by name or a function that returns it.

    Raises:
        BadInput: The file has no such dict, or a model cannot be imported.
    """
    found = getattr(_module("--modules", str(path)), "models", None)
    if callable(found):
        found = _called(f"--modules: {path}:models", found)
    if not isinstance(found, Mapping) or len(found) < 2:
        raise BadInput(
            f"--modules: {path} must have `models`, a dict of at least two models by name, each a"
            " pair (torch module, example inputs), a Network, or a function that returns one"
        )
    return [
        replace(_network(f"--modules: models[{name!r}]", model), spec=name)
        for name, model in _by_name(found).items()
    ]


def _by_name(models: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): model for name, model in models.items()}


def _module(option: str, where: str) -> ModuleType:
    # As `python -m` does: modules of the folder in which the command is called.
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        if not where.endswith(".py"):
            return importlib.import_module(where)
        path = Path(where)
        if not path.is_file():
            raise BadInput(f"{option}: {where} is no file")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except BadInput:
        raise
    except Exception as error:  # whatever the user's file raises
        raise BadInput(f"{option}: cannot import {where}: {_said(error)}") from error
    finally:
        sys.path.remove(here)


def _called(name: str, function: Any) -> Any:
    try:
        return function()
    except Exception as error:  # whatever the user's function raises
        raise BadInput(f"{name}() raised {_said(error)}") from error


def _network(name: str, model: Any) -> Network:
    """Import a model; what is said about it begins with its name."""
    if callable(model) and not hasattr(model, "forward"):
        model = _called(name, model)
    if isinstance(model, tuple) and len(model) == 2:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                model = from_module(*model)
            except Exception as error:  # the module's own code runs
                raise BadInput(f"{name} cannot be imported: {_said(error)}") from error
        said = {f"{name}: {warning.message}": warning.category for warning in caught}
        for sentence, category in said.items():
            warnings.warn(sentence, category, stacklevel=3)
    if not isinstance(model, Network):
        raise BadInput(
            f"{name} must be a pair (torch module, example inputs), a Network, or a function that"
            f" returns one; got {type(model).__name__}"
        )
    return model


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
