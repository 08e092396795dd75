# Over 400 lines: all checks in one place.
"""Checks of what callers pass: what is wrong is said by name, before work starts.

Every message reads "<name> must be <expected>; got <value> (<what to do>)".
"""

import difflib
import functools
import inspect
import json
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch

from hotnas_torch.errors import NonFiniteValueError

__all__ = [
    "boolean",
    "checked_options",
    "choice",
    "finite",
    "integer",
    "interval",
    "items",
    "kind",
    "known_settings",
    "number",
    "random_generator",
    "refuse_unknown",
    "refused_by",
    "takes",
    "usable_device",
    "working_dtype",
]

P = ParamSpec("P")
R = TypeVar("R")
Value = TypeVar("Value")
Choice = TypeVar("Choice", bound=str | int)


_LARGEST = 2**63 - 1
# Bits of an integer that messages show; Python refuses to write out very long ones.
_LONGEST = 256

# --- numbers --------------------------------------------------------------------------------------


def integer(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """Return a whole number of any kind as an int.

    Args:
        name: What the message calls it.
        value: An int, or an integer of NumPy or torch; a bool is none.
        least: Smallest that is allowed.
        most: Largest that is allowed; None is what 64 bits hold, so that records and tensors can.

    Raises:
        TypeError: It is no integer.
        ValueError: It is below `least` or above `most`.
    """
    try:
        if _is_boolean(value):
            raise TypeError
        found = value if type(value) is int else operator.index(value)
    except TypeError:
        wanted = "an integer" if least is None else f"an integer >= {least}"
        raise TypeError(f"{name} must be {wanted}; got {shown(value)}") from None
    got = shown(found)
    if least is not None and most is not None and not least <= found <= most:
        raise ValueError(f"{name} must be between {least} and {most}; got {got}")
    if found < (least := -_LARGEST if least is None else least):
        raise ValueError(f"{name} must be at least {least}; got {got}")
    if found > (most := _LARGEST if most is None else most):
        raise ValueError(f"{name} must be at most {most}; got {got}")
    return found


def number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> float:
    """Return a number of any kind as a float.

    Args:
        name: What the message calls it.
        value: A real number, or an array or tensor that holds just one. A text that reads like a
            number is none, and a bool neither.
        least: Smallest that is allowed. With any bound NaN and infinities are refused; without
            one all numbers are taken.
        above: What it has to be greater than.
        most: Largest that is allowed.
        below: What it has to be smaller than.

    Raises:
        TypeError: It is no number.
        ValueError: It is out of bounds.
    """
    found = value
    if callable(item := getattr(value, "item", None)):
        try:
            found = item()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{name} must be one number; got {shown(value)}") from None
    noun, verb = _bounds(least, above, most, below)
    if _is_boolean(found) or not hasattr(type(found), "__float__"):
        raise TypeError(f"{name} must be {noun}; got {shown(value)}")
    try:
        result = float(found)
    except OverflowError:
        result = math.inf if found > 0 else -math.inf
    if verb and not (
        math.isfinite(result)
        and (least is None or result >= least)
        and (above is None or result > above)
        and (most is None or result <= most)
        and (below is None or result < below)
    ):
        raise ValueError(f"{name} must {verb}; got {result:g}")
    return result


def _bounds(
    least: float | None, above: float | None, most: float | None, below: float | None
) -> tuple[str, str]:
    """Return what a number "must be" and what it "must" within bounds; no verb without any."""
    lower = f"[{least:g}" if least is not None else f"({above:g}" if above is not None else ""
    upper = f"{most:g}]" if most is not None else f"{below:g})" if below is not None else ""
    if lower and upper:
        return f"a number in {lower}, {upper}", f"be in {lower}, {upper}"
    for sign, bound in ((">=", least), (">", above), ("<=", most), ("<", below)):
        if bound is not None:
            return f"a finite number {sign} {bound:g}", f"be finite and {sign} {bound:g}"
    return "a number", ""


def finite(name: str, value: Any) -> float:
    """Return a value of an objective as a float, NaN being a failed evaluation.

    Raises:
        TypeError: It is no number.
        NonFiniteValueError: It is infinite.
    """
    found = number(name, value)
    if math.isinf(found):
        raise NonFiniteValueError(
            f"{name} must be finite, or NaN for a failed evaluation; got {found}"
        )
    return found


def interval(name: str, value: object) -> tuple[float, float]:
    """Return a pair (low, high) with 0 < low < high < inf.

    Raises:
        TypeError: It is no pair of numbers.
        ValueError: The ends are not in this order.
    """
    expected = f"{name} must be a range (low, high) with 0 < low < high"
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{expected}; got {shown(value)}")
    try:
        low, high = (number(name, end) for end in value)
    except TypeError:
        raise TypeError(f"{expected}; got ({', '.join(map(shown, value))})") from None
    if not 0.0 < low < high < math.inf:
        raise ValueError(f"{expected}; got ({low:g}, {high:g})")
    return low, high


# --- kinds and choices ----------------------------------------------------------------------------


def divisors(name: str, value: object) -> tuple[float, float]:
    """Return two numbers > 0 that others are divided by.

    Raises:
        TypeError: It is no pair, or one of the two is no number.
        ValueError: It has more or less than two entries, or one is not finite and > 0.
    """
    if not isinstance(value, tuple | list):
        raise TypeError(f"{name} must be two numbers > 0; got {shown(value)}")
    if len(value) != 2 or not all(0.0 < number(name, one) < math.inf for one in value):
        raise ValueError(f"{name} must be two numbers > 0; got {value!r}")
    return number(name, value[0]), number(name, value[1])


def boolean(name: str, value: Any) -> bool:
    """Return True or False.

    Raises:
        TypeError: It is neither.
    """
    if not _is_boolean(value) or getattr(value, "shape", ()) != ():
        raise TypeError(f"{name} must be True or False; got {shown(value)}")
    return bool(value)


def choice(name: str, value: Choice, allowed: Sequence[Choice]) -> Choice:
    """Return `value` if it is one of `allowed`.

    Raises:
        ValueError: It is none of them, which the message lists.
    """
    if not any(isinstance(value, type(one)) and value == one for one in allowed):
        known = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {known}; got {value!r}")
    return value


def kind(
    name: str, value: Any, wanted: type[Value], *, optional: bool = False, hint: str = ""
) -> Value:
    """Return `value` if it is of a class, or None where that is allowed.

    Args:
        name: What the message calls it.
        value: What the caller passed.
        wanted: The class.
        optional: Whether None is allowed.
        hint: What to do instead.

    Raises:
        TypeError: It is of another class.
    """
    if not isinstance(value, wanted) and not (optional and value is None):
        expected = _class_name(wanted) + (" or None" if optional else "")
        raise TypeError(
            f"{name} must be {expected}; got {shown(value)}{f' ({hint})' if hint else ''}"
        )
    return value  # type: ignore[return-value]


def items(name: str, values: Sequence[Value], wanted: type[Value]) -> list[Value]:
    """Return a list or tuple of items of one class as a list; it must not be empty.

    Raises:
        TypeError: No list or tuple, or an item of another class, which the message names.
        ValueError: It is empty.
    """
    if not isinstance(values, list | tuple):
        hint = " (wrap it in a list)" if isinstance(values, wanted) else ""
        raise TypeError(
            f"{name} must be a list or tuple of {wanted.__name__}; got {shown(values)}{hint}"
        )
    if not values:
        raise ValueError(f"{name} must hold at least one {wanted.__name__}; got an empty list")
    return [kind(f"{name}[{place}]", value, wanted) for place, value in enumerate(values)]


def random_generator(value: Any) -> torch.Generator:
    """Return the argument `generator`, which has no default.

    Raises:
        TypeError: It is no generator of torch.
        ValueError: It is missing.
    """
    remedy = "pass generator=torch.Generator().manual_seed(0)"
    if value is None:
        raise ValueError(
            f"generator must be given: randomness comes from the caller only ({remedy})"
        )
    return kind("generator", value, torch.Generator, hint=remedy)


def working_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Return float32 or float64, torch's default when `dtype` is None."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64; got {dtype!r}")
    return dtype


def usable_device(device: torch.device | str | None) -> torch.device:
    """Read `device`; None is the CPU.

    Raises:
        ValueError: No device is called so, or it is a GPU that this process does not have.
    """
    try:
        found = torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise ValueError(
            f"device must be 'cpu', 'cuda', 'cuda:1' or alike; got {device!r}"
        ) from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r} needs a GPU that torch can use, and there are"
            f" {torch.cuda.device_count()} (see torch.cuda.device_count(); device='cpu' needs none)"
        )
    return found


# --- settings by name -----------------------------------------------------------------------------


def refuse_unknown(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names of settings that are not known.

    Args:
        what: What is being set: a class, a function, an argument that holds settings.
        given: Names that the caller passed.
        known: Names that there are, for example `known_settings` of a class or function.

    Raises:
        TypeError: One is not known; the message names it, the one that was perhaps meant, and all
            that are known.
    """
    names = sorted(set(known))
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise TypeError(f"{what} has no setting {name!r}{meant}; it knows {', '.join(names)}")


def known_settings(function: Callable[..., Any], *, without: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of the settings of a function, class or dataclass.

    Args:
        function: What is called with them; `takes` adds what it passes on.
        without: Names that somebody else sets.
    """
    left_out = {"self", *without}
    called = function.__init__ if inspect.isclass(function) else function
    known = getattr(called, "known_settings", None)
    if known is None:
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = inspect.signature(function).parameters.values()
        known = tuple(found.name for found in parameters if found.kind in named)
    return tuple(name for name in known if name not in left_out)


def takes(*passed_on: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a constructor or function refuse names that it does not know, before any work.

    Args:
        *passed_on: Names that it takes beyond those of its signature, through its `**kwargs`.

    Returns:
        A decorator; what it decorates raises as `refuse_unknown` does.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = (*known_settings(function), *passed_on)
        what = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            refuse_unknown(what, kwargs, known)
            return function(*args, **kwargs)

        checked.known_settings = known  # type: ignore[attr-defined]
        return checked

    return decorate


def checked_options(
    name: str, options: Mapping[str, Any] | None, known: Iterable[str]
) -> dict[str, Any]:
    """Return settings that are handed on as a dict, which has to fit into a record.

    Args:
        name: The argument that holds them.
        options: Settings by name; None is none.
        known: Names that there are.

    Raises:
        TypeError: They are no mapping, a name is not known, or they are not ready for
            `json.dumps`.
        ValueError: A number is not finite.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError(f"{name} must be a mapping of settings by name; got {shown(options)}")
    found = dict(options)
    refuse_unknown(name, found, known)
    try:
        json.dumps(found, allow_nan=False)
    except TypeError as error:
        raise TypeError(f"{name} must be ready for json.dumps; got {error}") from error
    except ValueError as error:
        raise ValueError(f"{name} must hold finite numbers; got {found!r}") from error
    return found


@contextmanager
def refused_by(name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Say which settings were meant where what is built from them refuses one.

    Raises:
        TypeError, ValueError: What is built within refuses one.
    """
    try:
        yield
    except Exception as error:
        refused = ValueError if isinstance(error, ValueError) else TypeError
        raise refused(f"{name} = {dict(options)!r} cannot be used: {error}") from error


# --- words ----------------------------------------------------------------------------------------


def shown(value: object) -> str:
    """Return what a message says of a value: numbers and texts themselves, else the class."""
    if isinstance(value, int) and value.bit_length() > _LONGEST:
        return f"an integer of {value.bit_length():,} bits"
    if value is None or isinstance(value, bool | int | float | complex):
        return repr(value)
    if isinstance(value, str):
        text = value if len(value) <= 60 else f"{value[:60]}..."
        return f"{text!r} of type str"
    return type(value).__name__


def _class_name(wanted: type) -> str:
    library = wanted.__module__.partition(".")[0]
    ours = library in (__package__, "builtins")
    name = wanted.__name__ if ours else f"{library} {wanted.__name__}"
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _is_boolean(value: Any) -> bool:
    # NumPy's and torch's have a dtype that says so.
    return isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
