"""Names of architectures and operations that are short enough to be labels."""

import re
from collections.abc import Iterable, Mapping, Sequence

from hotnas_torch.arch import Operation
from hotnas_torch.errors import ArchitectureError

__all__ = ["operation_names", "short_name"]

# Numbers of imported operations; those that say most about one come first.
_TELLING = ("kernel", "heads", "width", "layers", "stride", "groups", "dilation", "factor")

_FEW_NUMBERS, _MOST_NUMBERS = 2, 3

_LINE = 20
"""Letters of numbers in a line."""


def short_name(text: str, limit: int = 56) -> str:
    """Shorten an architecture string for a label.

    Args:
        text: Official string of an architecture.
        limit: Longest result.

    Returns:
        The string with the spelled-out operation names of NAS-Bench-201 contracted, and cut in the
        middle if it is still too long.

    Example:
        >>> short_name("|nor_conv_3x3~0|+|none~0|skip_connect~1|")
        'conv3 + none skip'
    """
    name = re.sub(r"nor_conv_(\d)x\d", r"conv\1", text)
    name = re.sub(r"(avg|max)_pool_(\d)x\d", r"\1pool\2", name)
    name = re.sub(r"(sep|dil)_conv_(\d)x\d", r"\1\2", name)
    name = re.sub(r"~\d+", "", name.replace("skip_connect", "skip"))
    name = name.replace("|+|", " + ").strip("|").replace("|", " ")
    if len(name) <= limit:
        return name
    head = (limit - 1) // 2
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def operation_names(labels: Iterable[str]) -> dict[str, str]:
    r"""Return what is written in the node of each operation: its kind, and below it numbers.

    Of the numbers that labels carry (`arch.Operation`) those are shown that tell the operations of
    one kind apart, at least two if there are two that are not 1 everywhere, and at most three.

    Args:
        labels: All operations of a picture, repeats allowed; those without numbers stay.

    Example:
        >>> names = operation_names(["relu", "conv[groups=1,kernel=3,width=8]", "conv[kernel=5]"])
        >>> list(names.values())
        ['relu', 'conv\nkernel 3, width 8', 'conv\nkernel 5']
    """
    names: dict[str, str] = {}
    by_kind: dict[str, dict[str, Mapping[str, float]]] = {}
    for label in labels:
        names[label] = label
        try:
            operation = Operation.parse(label)
        except ArchitectureError:  # brackets that mean something else
            continue
        by_kind.setdefault(operation.kind, {})[label] = operation.numbers
    for kind, numbers in by_kind.items():
        chosen = _telling(list(numbers.values()))
        for label, values in numbers.items():
            shown = [f"{name} {_written(values[name])}" for name in chosen if name in values]
            below = ", ".join(shown)
            if len(below) > _LINE:
                half = (len(shown) + 1) // 2
                below = ", ".join(shown[:half]) + "\n" + ", ".join(shown[half:])
            names[label] = f"{kind}\n{below}" if below else kind
    return names


def _telling(operations: Sequence[Mapping[str, float]]) -> list[str]:
    """Choose the numbers that tell most about operations of one kind."""
    left = sorted({name for numbers in operations for name in numbers}, key=_rank)
    left = [name for name in left if any(numbers.get(name, 1.0) != 1.0 for numbers in operations)]

    def distinct(names: Sequence[str]) -> int:
        return len({tuple(numbers.get(name) for name in names) for numbers in operations})

    chosen: list[str] = []
    while left and len(chosen) < _MOST_NUMBERS:
        if len(chosen) >= _FEW_NUMBERS and distinct(chosen) == distinct([*chosen, *left]):
            break
        apart = distinct(chosen)
        best = next((name for name in left if distinct([*chosen, name]) > apart), left[0])
        chosen.append(best)
        left.remove(best)
    return sorted(chosen, key=_rank)


def _rank(name: str) -> tuple[int, str]:
    return _TELLING.index(name) if name in _TELLING else len(_TELLING), name


def _written(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() and value < 1e9 else f"{value:.3g}"
