"""From what a function of the user's returns to a network."""

from collections.abc import Callable
from typing import Any

import torch

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.arguments import shown
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.importing import from_module, operation_tree

__all__ = ["as_network", "called", "is_module", "tree_of_models"]


def called(name: str, function: Callable[[Any], Any], argument: Any, described: str) -> Any:
    """Call a function of the user's, which may fail in any way.

    Raises:
        ArchitectureError: It raised; the message names it and what it was called for.
    """
    try:
        return function(argument)
    except Exception as error:
        raise ArchitectureError(
            f"{name} raised {type(error).__name__}: {error}, for {described}"
        ) from error


def is_module(built: object) -> bool:
    """Return whether this is a model of PyTorch, from which a network has to be imported."""
    return isinstance(built, torch.nn.Module | torch.export.ExportedProgram)


def as_network(name: str, built: Any, example_inputs: Any, described: str) -> Network:
    """Return the network of what a function of the user's returned.

    Args:
        name: Of the function.
        built: A network, a cell (a network of this cell alone), or a model of PyTorch, which
            `from_module` reads.
        example_inputs: For a model.
        described: What it was called for.

    Raises:
        TypeError: It is none of these, or a model without inputs.
        ArchitectureError: The model cannot be read.
    """
    if isinstance(built, Network):
        return built
    if isinstance(built, Cell):
        return Network((built,), (1,), (1,))
    if not is_module(built):
        raise TypeError(
            f"{name} must return a Network, a Cell or a torch.nn.Module; got {shown(built)}, for "
            f"{described}"
        )
    if example_inputs is None and isinstance(built, torch.nn.Module):
        raise TypeError(
            f"{name} returns a torch.nn.Module, which has to be called to be read (pass "
            "example_inputs=, a tensor or a tuple of what it takes)"
        )
    if isinstance(built, torch.export.ExportedProgram):
        example_inputs = None  # it has its own
    network: Network = called(
        f"reading the model that {name} returned",
        lambda model: from_module(model, example_inputs),
        built,
        described,
    )
    return network


def tree_of_models() -> OperationTree:
    """Return the costs of operations that models consist of."""
    return operation_tree()
