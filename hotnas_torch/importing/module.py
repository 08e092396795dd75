"""Networks of PyTorch modules: what a module computes, cut into cells."""

import functools
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves, tree_map

from hotnas_torch.arch import Network
from hotnas_torch.arguments import shown
from hotnas_torch.errors import TracingError
from hotnas_torch.importing.aten import ATEN
from hotnas_torch.importing.computation import Computation
from hotnas_torch.importing.eager import read_run
from hotnas_torch.importing.exported import name_of_target, read_program
from hotnas_torch.importing.kinds import Kind, kind_names, own_kinds

__all__ = ["from_module", "kinds_by_target", "names_of_numbers", "trace"]

Importable = nn.Module | ExportedProgram | Callable[..., Any]


def from_module(
    module: Importable,
    example_inputs: Any = None,
    *,
    granularity: int = 28,
    numbers: Sequence[str] | None = None,
    kinds: Mapping[Any, str | Kind] | None = None,
) -> Network:
    """Return the network that a PyTorch module computes.

    The module's calls are recorded for tensors that have shapes and no numbers: no weight is read
    and nothing is computed. What is recorded is how it runs in evaluation mode. Kept of every
    operation are its kind (`importing.FAMILIES`), its numbers (kernel, stride, dilation, groups,
    heads, ...), its width (channels of its result) and its positions (places per example: pixels,
    or tokens). Left out are other forms of the same elements (reshapes, slices, padding),
    dropout, casts, masks, and sums and products with a number. Attention, norms and activations
    that are written out in parts count as one operation.

    Cells are calls of submodules with at most `granularity` operations; larger ones are cut into
    their parts, and small ones are put together with their neighbours. Cells that are equal up to
    numbering are one object. The names of modules have no part in the result.

    Args:
        module: A module, on any device (`meta` too); any callable of tensors; a
            `torch.export.ExportedProgram`; or a `torch.fx.GraphModule`.
        example_inputs: A tensor, a tuple of arguments, or a dict of arguments by name; their first
            dimension counts examples. Not needed for an exported program.
        granularity: Operations that a cell has at most, >= 1.
        numbers: Names of the numbers that labels carry; None is all, () none.
        kinds: Kinds of operations by what is called: the name of an operator (`"aten::relu"`,
            `"mylib::scan"`) or the operator itself. A kind is the name of one of the library's
            (`importing.kind_names()`), or a `Kind` of your own, which
            `importing.operation_tree(kinds)` makes a leaf of.

    Returns:
        The network; `channels` are the widths that cells return, `downsampling` the ratio of the
        input's side (its length, for sequences) to theirs, at least 1, rounded.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: A granularity below 1, an unknown kind.
        TracingError: The module cannot be followed, its inputs do not fit, or it computes nothing
            from them; the message names the submodule.

    Warns:
        UserWarning: An operation of no known kind, or something that is lost: the text names it.

    Complexity: one export of the module, about a second per thousand operations.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 1))
        >>> network = from_module(model, torch.empty(1, 3, 33, 33), numbers=("kernel",))
        >>> network.cells[0].ops
        ('input', 'conv[kernel=3]', 'relu', 'pointwise_conv[kernel=1]', 'output')
        >>> network.channels, network.downsampling
        ((8,), (2,))
    """
    computation = trace(module, example_inputs, kinds=kinds)
    return computation.network(granularity=granularity, numbers=names_of_numbers(numbers))


def trace(
    module: Importable,
    example_inputs: Any = None,
    *,
    kinds: Mapping[Any, str | Kind] | None = None,
) -> Computation:
    """Return what a PyTorch module computes, operation by operation, with its counts.

    Arguments, errors and warnings as of `from_module`.

    Returns:
        The computation: `parameters`, `multiply_adds`, `nodes`; its `network` makes networks.

    Example:
        >>> from torch import nn
        >>> found = trace(nn.Linear(4, 5), torch.empty(2, 4))
        >>> found.parameters, found.multiply_adds
        (25, 40)
    """
    table = kinds_by_target(kinds)
    if isinstance(module, ExportedProgram):
        if example_inputs is not None:
            raise TypeError(
                "example_inputs must be left out for an ExportedProgram, which has its own; got"
                f" {shown(example_inputs)}"
            )
        return _said(read_program(module, table, _same(module.state_dict)))
    if isinstance(module, type) or not callable(module):
        hint = " (pass an object of the class)" if isinstance(module, type) else ""
        raise TypeError(
            "module must be a torch.nn.Module, a callable of tensors, or an ExportedProgram; got"
            f" {module.__name__ if isinstance(module, type) else shown(module)}{hint}"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            "module must be a torch.nn.Module in Python; got a ScriptModule, which has no graph of"
            " ATen operators (pass the module that was scripted)"
        )
    args, kwargs = _inputs(example_inputs)
    called = module if isinstance(module, nn.Module) else _Called(module)
    _check_lazy(called)
    _check_arguments(called, args, kwargs)
    args, kwargs, place = _placed(called, args, kwargs)
    names = dict(called.named_parameters(remove_duplicate=False))
    same = _same(names)
    with _evaluating(called):
        try:
            with _quiet(), warnings.catch_warnings(), torch.no_grad(), place:
                warnings.simplefilter("ignore")
                program = torch.export.export(called, args, kwargs, strict=False)
        except Exception as refused:
            with _quiet(), place:
                computation = _by_running(called, args, kwargs, table, same, refused)
        else:
            computation = read_program(program, table, same)
    return _said(computation)


# What these print in many lines is said in one, by our warning or error.
_TRACERS = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from printing why it cannot trace."""
    loggers = [logging.getLogger(name) for name in _TRACERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with redirect_stderr(io.StringIO()):  # a refused graph is printed there
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _said(computation: Computation) -> Computation:
    for sentence in computation.lost:
        warnings.warn(sentence, UserWarning, stacklevel=4)
    return computation


def _by_running(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    table: Mapping[str, str | Kind],
    same: Mapping[str, str],
    refused: Exception,
) -> Computation:
    try:
        return read_run(module, args, kwargs, table, same)
    except TracingError as error:
        raise error from refused


class _Called(nn.Module):
    """A callable as a module, with the modules that it reaches as parts."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        for name, part in _reached(function):
            if part not in set(self.children()):
                self.add_module(f"of_{name}", part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self.function(*args, **kwargs)

    def _get_name(self) -> str:
        return str(getattr(self.function, "__name__", type(self.function).__name__))


def _reached(function: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules that a callable holds: its owner, what it closes over, what is bound."""
    if isinstance(function, functools.partial):
        yield from _reached(function.func)
        held = {str(place): arg for place, arg in enumerate(function.args)} | function.keywords
    elif inspect.ismethod(function):
        yield from _reached(function.__func__)
        held = {"owner": function.__self__}
    elif inspect.isfunction(function):
        found = inspect.getclosurevars(function)
        held = {**found.nonlocals, **found.globals}
    else:
        held = dict(getattr(function, "__dict__", {}))
    for name, item in held.items():
        if isinstance(item, nn.Module):
            yield name.replace(".", "_"), item


def _inputs(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if example_inputs is None:
        raise TypeError(
            "example_inputs must be given: a tensor, a tuple of arguments, or a dict of arguments"
            " by name, of the shapes that the module takes (torch.empty(1, 3, 224, 224,"
            " device='meta') will do)"
        )
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(example_inputs, Mapping):
        for name in example_inputs:
            if not isinstance(name, str):
                raise TypeError(f"example_inputs must have names of arguments; got {shown(name)}")
        kwargs = dict(example_inputs)
    elif isinstance(example_inputs, tuple | list):
        args = tuple(example_inputs)
    elif isinstance(example_inputs, Tensor):
        args = (example_inputs,)
    else:
        raise TypeError(
            "example_inputs must be a tensor, a tuple of arguments, or a dict of arguments by name;"
            f" got {shown(example_inputs)}"
        )
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs))):
        raise TracingError(
            "example_inputs must hold at least one tensor; got none: there is nothing to follow"
            " through the module"
        )
    return args, kwargs


def _placed(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Put inputs where the module is: all on meta if any of it or of them is."""
    held = [*module.parameters(), *module.buffers()]
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if any(tensor.is_meta for tensor in held):
        device = torch.device("meta")
    elif held:
        device = held[0].device
    elif any(tensor.is_meta for tensor in given):
        device = torch.device("meta")
    else:
        return args, kwargs, nullcontext()

    def moved(item: Any) -> Any:
        if not isinstance(item, Tensor) or item.device == device:
            return item
        return torch.empty_strided(item.shape, item.stride(), dtype=item.dtype, device=device)

    place = device if device.type == "meta" else nullcontext()
    return tree_map(moved, args), tree_map(moved, kwargs), place


def _check_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse inputs that are not the arguments of what is called, where it says what these are."""
    if module._forward_pre_hooks:  # which may call it with others
        return
    function = module.function if isinstance(module, _Called) else module.forward
    try:
        taken = inspect.signature(function)
    except (TypeError, ValueError):  # what is written in C need not have one
        return
    try:
        taken.bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(function, "__qualname__", type(function).__name__)
        raise TracingError(
            f"example_inputs do not fit the arguments of {name}{taken}: {error} (pass a tuple of"
            " all that it takes, or a dict by name)"
        ) from None


def _check_lazy(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise TracingError(
                f"module must have shapes; its parameter {name!r} is uninitialized (call a lazy"
                " module once before)"
            )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Have all parts in evaluation mode, and leave them as they were."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def _same(named: Mapping[str, Any]) -> dict[str, str]:
    """Return the first name of every tensor that has several."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named.items()}


def names_of_numbers(numbers: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return names of numbers as a tuple; a single text is refused."""
    if numbers is None:
        return None
    if isinstance(numbers, str):
        raise TypeError(f"numbers must be names of numbers; got {shown(numbers)} (pass a tuple)")
    return tuple(numbers)


def kinds_by_target(kinds: Mapping[Any, str | Kind] | None) -> dict[str, str | Kind]:
    """Return kinds by the names that calls have in the table.

    Raises:
        TypeError: Not a mapping, or a key that names no operator.
        ValueError: An unknown kind, or one with the name of another.
    """
    if kinds is None:
        return {}
    if not isinstance(kinds, Mapping):
        raise TypeError(f"kinds must be a mapping from operators to kinds; got {shown(kinds)}")
    list(own_kinds(kinds))
    table: dict[str, str | Kind] = {}
    for key, kind in kinds.items():
        if isinstance(key, str) and key:
            name = key.removeprefix("aten::").removeprefix("aten.")
            if name.partition(".")[0] in ATEN:
                name = name.partition(".")[0]
        elif isinstance(key, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
            name = name_of_target(key)
        else:
            raise TypeError(
                "kinds must have names of operators ('aten::relu', 'mylib::scan') or operators"
                f" (torch.ops.aten.relu) as keys; got {shown(key)}"
            )
        if not isinstance(kind, Kind) and kind not in kind_names():
            raise ValueError(
                f"kinds[{name!r}] must be one of {', '.join(kind_names())}, or a Kind; got {kind!r}"
            )
        table[name] = kind
    return table
