"""Names of architectures that are short enough to be labels."""

import re

__all__ = ["short_name"]


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
