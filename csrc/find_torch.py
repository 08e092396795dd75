"""Print ``version;include folder;library folder`` of the torch that CMake should compile against.

Reads torch's files without importing torch, which would take seconds and load its libraries.
"""

import importlib.util
import re
import sys
from pathlib import Path

OLDEST = (2, 13)


def main() -> int:
    """Write the CMake list to standard output, or the reason to standard error."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        print(
            f"torch is not installed for {sys.executable}; install torch>={OLDEST[0]}.{OLDEST[1]}"
            " first, then hotnas-torch (an installation without it has no compiled core)",
            file=sys.stderr,
        )
        return 1
    root = Path(next(iter(spec.submodule_search_locations)))
    text = (root / "version.py").read_text(encoding="utf-8")
    match = re.search(r"^__version__ = ['\"]((\d+)\.(\d+)[^'\"]*)['\"]", text, re.MULTILINE)
    if match is None:
        print(f"{root / 'version.py'} does not state torch's version", file=sys.stderr)
        return 1
    if (int(match[2]), int(match[3])) < OLDEST:
        print(
            f"torch {match[1]} is older than {OLDEST[0]}.{OLDEST[1]}, the oldest that the compiled"
            " core supports; upgrade torch",
            file=sys.stderr,
        )
        return 1
    print(match[1], (root / "include").as_posix(), (root / "lib").as_posix(), sep=";")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
