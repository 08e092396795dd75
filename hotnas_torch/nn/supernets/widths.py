"""Numbers of channels of supernets of any size."""

from hotnas_torch.arguments import integer, number

__all__ = ["check_sizes", "scaled"]


def scaled(channels: int, width: float) -> int:
    """Return so many channels times a width, rounded, at least 1."""
    return max(1, round(channels * width))


def check_sizes(width: float, input_channels: int, num_classes: int) -> None:
    """Check what a supernet is built from.

    Raises:
        TypeError: An argument is no number.
        ValueError: `width` is not positive and finite, or a number is too small.
    """
    number("width", width, above=0.0)
    integer("input_channels", input_channels, least=1)
    integer("num_classes", num_classes, least=2)
