"""Former place of `hotnas_torch.arguments` and `hotnas_torch.ot.scalars`."""

from hotnas_torch.arguments import choice, integer, items, usable_device, working_dtype
from hotnas_torch.ot.scalars import Scalar, constant, fraction, not_negative, value_of

__all__ = [
    "Scalar",
    "check_items",
    "choice",
    "constant",
    "count",
    "fraction",
    "not_negative",
    "number",
    "usable_device",
    "working_dtype",
]

check_items, number = items, value_of


def count(name: str, value: object, *, at_most: int | None = None, why: str = "") -> int:
    """Call `integer`."""
    del why
    return integer(name, value, least=1, most=at_most)
