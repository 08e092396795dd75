"""Other checkouts than the installed one, run with this interpreter."""

import os
from pathlib import Path

__all__ = ["environment"]

_ELSEWHERE = Path(__file__).resolve().parent / "elsewhere"


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment in which Python imports the package of a checkout.

    Args:
        folder: The checkout.
        more: Further variables.
    """
    path = os.pathsep.join([str(folder), str(_ELSEWHERE)])
    return os.environ | {"PYTHONPATH": path} | more
