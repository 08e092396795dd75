"""What a Python callable computes, as far as that can be told without calling it."""

import dataclasses
import dis
import functools
import hashlib
import inspect
import json
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path, PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["describe_callable"]

_LONGEST = 60
_LIBRARIES = tuple(
    {
        str(Path(folder).resolve()) + "/"
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
        if (folder := sysconfig.get_path(name))
    }
    | {str(Path(__file__).resolve().parent) + "/"}
)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), range, PurePath)
_NAMED = (torch.dtype, torch.device, np.dtype)
_WRITES = {
    *("append", "appendleft", "extend", "insert", "add", "update", "setdefault", "put", "write"),
    *("pop", "popleft", "popitem", "remove", "discard", "clear", "sort", "reverse"),
}
"""Methods that change what they are called on."""


def describe_callable(function: Callable[..., Any]) -> dict[str, Any]:
    """Describe a callable so that one that computes something else is described differently.

    Args:
        function: A function, lambda, partial, bound method, or an object that can be called.

    Returns:
        Ready for `json.dumps`: `"kind"`; `"name"`, its qualified name; `"code"`, a digest
        of its compiled code, with the kind of Python that compiled it; and, where there are any,
        `"arguments"` that a partial holds and `"captured"` values: defaults, variables of
        enclosing functions and of the module, attributes of the object. What the code itself
        writes to is left out, so that a function may count its calls. Of large values there is a
        digest. Of objects of unknown kinds only the class counts.
    """
    described: dict[str, Any] = {"kind": "function"}
    arguments: dict[str, str] = {}
    while isinstance(function, functools.partial):
        arguments |= {str(place): _short(value) for place, value in enumerate(function.args)}
        arguments |= {name: _short(value) for name, value in function.keywords.items()}
        function = function.func
    function = _inner(function)
    described["name"] = getattr(function, "__qualname__", type(function).__qualname__)
    code, captured = _parts(function)
    if code is not None:
        digest = hashlib.sha256(_code(code, _docstring(function)).encode()).hexdigest()[:16]
        described["code"] = f"{sys.implementation.cache_tag}:{digest}"
    if arguments:
        described["arguments"] = arguments
    if captured:
        described["captured"] = {name: _short(value) for name, value in captured.items()}
    return described


def _inner(function: Any) -> Any:
    """Return what a wrapper of a library, such as a cache or `torch.no_grad`, is around."""
    while hasattr(function, "__wrapped__") and not _is_own(function):
        function = function.__wrapped__
    return function


def _is_own(function: Any) -> bool:
    """Whether it is the user's own Python code."""
    code = getattr(function, "__code__", None)
    return isinstance(code, CodeType) and not code.co_filename.startswith(_LIBRARIES)


def _call(function: Any) -> Any:
    """Return what the class of an object runs when it is called."""
    return inspect.getattr_static(type(function), "__call__", None)


def _docstring(function: Any) -> str | None:
    return getattr(function, "__doc__", None)


def _parts(function: Any) -> tuple[CodeType | None, dict[str, Any]]:
    """Code of a callable, and the values it works with, by name, in a fixed order."""
    if isinstance(function, FunctionType):
        return function.__code__, _captured(function)
    if isinstance(function, MethodType):
        code, captured = _parts(function.__func__)
        return code, {**captured, **_attributes(function.__self__)}
    call = _call(function)
    if isinstance(function, BuiltinFunctionType | type) or not isinstance(call, FunctionType):
        return None, {}
    return call.__code__, {**_captured(call), **_attributes(function)}


def _captured(function: FunctionType) -> dict[str, Any]:
    code = function.__code__
    values: dict[str, Any] = {}
    defaults = function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    values |= dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    values |= function.__kwdefaults__ or {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    values |= {
        name: function.__globals__[name]
        for name in sorted(_names(code))
        if name in function.__globals__ and name not in values
    }
    written = _written(code)
    return {
        name: value
        for name, value in values.items()
        if name not in written and value is not function and not isinstance(value, ModuleType)
    }


def _attributes(owner: Any) -> dict[str, Any]:
    """Return the state of an object less what its methods write, and the code of its class."""
    if isinstance(owner, type | ModuleType):
        return {}
    kind = type(owner)
    methods = {name: value for name, value in vars(kind).items() if isinstance(value, FunctionType)}
    written = {
        name
        for method, function in methods.items()
        if method not in ("__init__", "__post_init__", "__setstate__")
        for name in _written(function.__code__)
    }
    slots = [name for name in getattr(kind, "__slots__", ()) if hasattr(owner, name)]
    state = {**{name: getattr(owner, name) for name in slots}, **getattr(owner, "__dict__", {})}
    found = {f"self.{name}": value for name, value in state.items() if name not in written}
    return {"class": kind, **found}


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _written(code: CodeType) -> set[str]:
    """Names of variables and attributes that some code assigns, or whose content it changes."""
    steps = [(step.opname, step.argval) for step in dis.get_instructions(code)]
    written: set[str] = set()
    for place, (name, value) in enumerate(steps):
        if name in ("STORE_DEREF", "STORE_GLOBAL", "STORE_ATTR") and value not in code.co_cellvars:
            written.add(str(value))
        later = [step for step in steps[place + 1 : place + 5] if step[0] != "CACHE"]
        if not name.startswith("LOAD_") or not later:
            continue
        if later[0][0] in ("LOAD_METHOD", "LOAD_ATTR") and later[0][1] in _WRITES:
            written.add(str(value))
        # x[key] = ..., x[key] += ...
        following = [step[0] for step in later[1:3]]
        if later[0][0].startswith("LOAD_") and (
            following[:1] in (["STORE_SUBSCR"], ["DELETE_SUBSCR"]) or following == ["COPY", "COPY"]
        ):
            written.add(str(value))
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return written.union(*map(_written, inner))


# --- texts ----------------------------------------------------------------------------------------


def _short(value: Any) -> str:
    """Return a text of a value: itself where it is short, else its type and a digest."""
    text = _text(value, ())
    if len(text) <= _LONGEST:
        return text
    return f"{type(value).__qualname__} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _text(value: Any, within: tuple[int, ...]) -> str:
    """Return a text that is equal for equal values, also in another process."""
    kind = type(value).__qualname__
    if isinstance(value, Enum):
        return f"{kind}.{value.name}"
    if isinstance(value, _PLAIN):
        return ascii(value)
    if isinstance(value, _NAMED):
        return str(value)
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return _numbers(value)
    if id(value) in within:
        return f"{kind} ..."
    inside = (*within, id(value))
    if isinstance(value, Mapping):
        return _listed(kind, (f"{_text(k, inside)}: {_text(v, inside)}" for k, v in value.items()))
    if isinstance(value, list | tuple):
        return f"{kind}[{', '.join(_text(entry, inside) for entry in value)}]"
    if isinstance(value, set | frozenset):
        return _listed(kind, (_text(entry, inside) for entry in value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return f"{kind}{_text(fields, inside)}"
    if isinstance(value, SimpleNamespace):
        return f"{kind}{_text(vars(value), inside)}"
    if isinstance(value, type):
        return _class(value, inside)
    if callable(value):
        return _function(value, inside)
    return kind


def _listed(kind: str, entries: Iterable[str]) -> str:
    return f"{kind}{{{', '.join(sorted(entries))}}}"


def _numbers(values: Tensor | np.ndarray[Any, Any] | np.generic) -> str:
    if isinstance(values, Tensor):
        what = f"Tensor {values.dtype} {tuple(values.shape)}"
        if values.is_meta or values.layout != torch.strided or values.is_quantized:
            return what
        plain = values.detach().resolve_conj().resolve_neg().cpu().contiguous()
        content = plain.flatten().view(torch.uint8).numpy().tobytes()
    else:
        what = f"{type(values).__qualname__} {values.dtype} {values.shape}"
        if values.dtype.hasobject:
            return what
        content = values.tobytes()
    return f"{what} {hashlib.sha256(content).hexdigest()[:16]}"


def _class(kind: type, within: tuple[int, ...]) -> str:
    """Return a class by its name; one of the user's own with its methods and plain attributes."""
    functions = [value for value in vars(kind).values() if isinstance(value, FunctionType)]
    if not any(map(_is_own, functions)) and kind.__module__ in sys.stdlib_module_names:
        return kind.__qualname__
    members: dict[str, Any] = {
        name: value
        for name, value in vars(kind).items()
        if isinstance(value, FunctionType) and _is_own(value)
    }
    if members or not functions:
        members |= {
            name: value
            for name, value in vars(kind).items()
            if not name.startswith("__") and isinstance(value, (*_PLAIN, list, tuple, dict))
        }
    return f"{kind.__qualname__}{_text(members, within)}" if members else kind.__qualname__


def _function(function: Any, within: tuple[int, ...]) -> str:
    if isinstance(function, functools.partial):
        held = _text([list(function.args), dict(function.keywords)], within)
        return f"partial {_text(function.func, within)} {held}"
    describe = getattr(function, "describe", None)
    if callable(describe):
        try:
            return json.dumps(describe(), sort_keys=True)
        except Exception:
            return type(function).__qualname__
    function = _inner(function)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    underlying = function.__func__ if isinstance(function, MethodType) else function
    if isinstance(underlying, FunctionType) and not _is_own(underlying):
        return f"{underlying.__module__}.{name}"
    if not isinstance(underlying, FunctionType) and not _is_own(_call(underlying)):
        return f"{getattr(underlying, '__module__', '')}.{name}"
    code, captured = _parts(function)
    text = "" if code is None else _code(code, _docstring(function))
    return f"{name} {text} {_text(captured, within)}"


def _code(code: CodeType, docstring: str | None = None) -> str:
    """Return what determines the working of compiled code: neither lines nor file names."""
    constants = [
        _code(value) if isinstance(value, CodeType) else _text(value, ())
        for value in code.co_consts
        if docstring is None or value is not docstring
    ]
    parts = (
        code.co_code.hex(),
        constants,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
        code.co_exceptiontable.hex(),
    )
    return ascii(parts)
