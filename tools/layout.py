"""Measure the house: folders, long modules, exported names, constructors, repeated passages, lines.

    python -m tools.layout [CHECKOUT ...]

Each checkout's package is imported with this interpreter, one after the other, each in a process of
its own.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tools.checkout import environment

PACKAGE = "hotnas_torch"
LONGEST = 400
PARAMETERS = 10
PASSAGE = 40
"""Tokens of a passage that counts as repeated where it stands twice, about five lines."""

# Runs inside each checkout.
_FACE = f"""
import importlib, inspect, json, pkgutil
package = importlib.import_module("{PACKAGE}")
names, constructors = [], {{}}
walked = pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=lambda _: None)
public = [m.name for m in walked if m.ispkg and "._" not in m.name]
for name in [package.__name__, *public]:
    module = importlib.import_module(name)
    for exported in getattr(module, "__all__", ()):
        names.append((name, exported))
        value = getattr(module, exported, None)
        if not inspect.isclass(value):
            continue
        try:
            parameters = inspect.signature(value).parameters.values()
        except ValueError:
            continue
        counted = sum(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
        constructors[value.__module__ + "." + value.__qualname__] = counted
distinct = len(set(exported for _, exported in names))
print(json.dumps([len(names), distinct, len(public) + 1, constructors]))
"""


def repeated(files: Sequence[Path]) -> tuple[int, int]:
    """Count passages that stand in more than one place, names as they are.

    Comments, line ends, imports, strings of several lines and `__all__` do not count.

    Args:
        files: Python modules.

    Returns:
        Pairs of places, neighbouring ones of the same two files counted once, and the lines that
        are in any of them.
    """
    places: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    lines: list[list[int]] = []
    for number, file in enumerate(files):
        tokens = _tokens(file)
        lines.append([line for _, line in tokens])
        texts = [text for text, _ in tokens]
        for start in range(len(texts) - PASSAGE + 1):
            places[tuple(texts[start : start + PASSAGE])].append((number, start))
    pairs: set[tuple[int, int, int, int]] = set()
    for found in places.values():
        for (first, start), (other, again) in itertools.pairwise(found):
            if first != other or again - start >= PASSAGE:
                pairs.add((first, start, other, again))
    apart = [pair for pair in pairs if (pair[0], pair[1] - 1, pair[2], pair[3] - 1) not in pairs]
    covered = {
        (place, lines[place][token])
        for first, start, other, again in pairs
        for place, begin in ((first, start), (other, again))
        for token in range(begin, begin + PASSAGE)
    }
    return len(apart), len(covered)


def _tokens(file: Path) -> list[tuple[str, int]]:
    skipped = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    )
    found: list[tuple[str, int]] = []
    muted = False
    with file.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            first = token.line.lstrip()
            if token.start[1] == 0 and first.startswith(("import ", "from ", "__all__")):
                muted = True
            if token.type == tokenize.NEWLINE:
                muted = False
            elif not muted and token.type not in skipped and token.start[0] == token.end[0]:
                found.append((token.string, token.start[0]))
    return found


def measure(checkout: Path) -> dict[str, str]:
    """Measure a checkout.

    Args:
        checkout: Folder of it.

    Returns:
        Texts by what they say.
    """
    package = checkout / PACKAGE
    files = sorted(package.rglob("*.py"))
    long = {
        file.relative_to(package).as_posix(): count
        for file in files
        if (count := len(file.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    done = subprocess.run(
        [sys.executable, "-c", _FACE],
        cwd=checkout,
        env=environment(checkout, PYTHONWARNINGS="ignore"),
        capture_output=True,
        text=True,
        check=True,
    )
    exported, distinct, public, constructors = json.loads(done.stdout.splitlines()[-1])
    largest = max(constructors, key=lambda name: constructors[name])
    many = sum(count > PARAMETERS for count in constructors.values())
    passages, lines = repeated(files)
    top = [path for path in package.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    inside = {file.parent for file in files} - {package}
    longest = max(long, key=lambda name: long[name], default="")
    return {
        "folders of the package": f"{len(top)} and {len(inside) - len(top)} inside them",
        "modules at the root": str(len(list(package.glob("*.py")))),
        "modules": str(len(files)),
        f"modules over {LONGEST} lines": f"{len(long)}"
        + (f" (longest: {longest}, {long[longest]})" if long else ""),
        "exported names": f"{exported:,} by {public} public packages, {distinct} distinct",
        "largest public constructor": f"{constructors[largest]} parameters ({largest})",
        f"public constructors over {PARAMETERS} parameters": str(many),
        "repeated passages": f"{passages}, in {lines:,} lines",
        "lines of the package": f"{sum(map(_lines, files)):,}",
        "lines of the benchmarks": f"{sum(map(_lines, (checkout / 'benchmarks').rglob('*.py'))):,}",
        "lines of the tests": f"{sum(map(_lines, (checkout / 'tests').rglob('*.py'))):,}",
    }


def _lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table, a column per checkout.

    Args:
        argv: Arguments without the program's name; None takes those of the process.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("checkouts", nargs="*", type=Path, default=[here], help="default: this one")
    columns = [measure(checkout.resolve()) for checkout in parser.parse_args(argv).checkouts]
    print("| |" + " |" * len(columns) + "\n|---|" + "---|" * len(columns))
    for name in columns[0]:
        print(f"| {name} | {' | '.join(column[name] for column in columns)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
