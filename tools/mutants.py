# Over 400 lines: a script on its own, read from what is broken to what is printed.
"""Break lines of a package one at a time and see whether its tests notice.

    python -m tools.mutants hotnas_torch/gp hotnas_torch/distances --number 100 --seed 0

Draws lines that hold something to break, breaks each in one way (a comparison turned, a constant
changed, an operator swapped, an argument dropped, a returned value lost, a statement removed, a
condition negated), and runs the tests that can notice in a copy of the working tree: the mirrored
file with the module's own examples first, then the folder of the package. What came of each is kept
as it comes; the same command goes on where it was interrupted.
"""

import argparse
import ast
import concurrent.futures
import hashlib
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.checkout import environment

ROOT = Path(__file__).resolve().parents[1]

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One broken line.

    Attributes:
        file: Path from the root of the checkout.
        line: Number of the line.
        kind: What was done.
        before: The text that was replaced.
        after: What stands there instead.
        start: Offset of the text in the file, bytes.
    """

    file: str
    line: int
    kind: str
    before: str
    after: str
    start: int

    def applied(self, source: bytes) -> bytes:
        """Return the file with the line broken."""
        end = self.start + len(self.before.encode())
        return source[: self.start] + self.after.encode() + source[end:]


def mutants(file: str, source: bytes) -> Iterator[Mutant]:
    """Generate every mutant of a file, in the order of its syntax tree.

    Args:
        file: Its path, for the mutants.
        source: Its content.
    """
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    for kind, node, after in _changes(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        before = source[start:end].decode()
        yield Mutant(file, node.lineno, kind, before, after, start)


def is_program(mutant: Mutant, source: bytes) -> bool:
    """Check that a mutant can be compiled and is another program than its source."""
    try:
        return ast.dump(ast.parse(mutant.applied(source))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


_Change = tuple[str, ast.expr | ast.stmt, str]


def _changes(tree: ast.AST) -> Iterator[_Change]:
    annotations = [getattr(tree, name, None) for name in ("annotation", "returns")]
    for child in ast.iter_child_nodes(tree):
        if child in annotations:
            continue
        if isinstance(child, ast.expr | ast.stmt):
            yield from _change(child)
        if not _is_mute(child):
            yield from _changes(child)


def _is_mute(node: ast.AST) -> bool:
    """Whether nothing inside can be noticed by a test, or is not meant to be."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.AnnAssign(value=None) | ast.JoinedStr():
            return True
        case ast.Raise() | ast.Assert():  # the words of a message, and what never fails
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id="warnings"))):
            return True
        case ast.keyword(arg="strict"):  # of zip: another assertion
            return True
    return False


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _change(node: ast.expr | ast.stmt) -> Iterator[_Change]:
    """Generate what can be broken at a node itself."""
    match node:
        case ast.Compare(left=left, ops=[op, *ops], comparators=comparators):
            turned = ast.Compare(left, [_COMPARISONS[type(op)](), *ops], comparators)
            yield "comparison turned", node, f"({ast.unparse(turned)})"
        case ast.Constant(value=bool(value)):
            yield "constant changed", node, str(not value)
        case ast.Constant(value=int(value)):
            yield "constant changed", node, str(value + 1)
        case ast.Constant(value=float(value)):
            yield "constant changed", node, repr(2.0 * value if value else 1.0)
        case ast.BinOp() if any(_is_text(part) for part in ast.walk(node)):
            pass  # texts can only be added
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            swapped = ast.BinOp(left, _OPERATORS[type(op)](), right)
            yield "operator swapped", node, f"({ast.unparse(swapped)})"
        case ast.BoolOp(op=op, values=values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield "operator swapped", node, f"({ast.unparse(ast.BoolOp(other, values))})"
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert(), operand=operand):
            yield "operator dropped", node, f"({ast.unparse(operand)})"
        case ast.Call(func=ast.Name(id="dataclass" | "zip")):
            pass  # whose last argument is a precaution
        # The only argument would be missed by Python itself.
        case ast.Call(func=function, args=args, keywords=keywords) if len(args) + len(keywords) > 1:
            fewer = ast.Call(function, args if keywords else args[:-1], keywords[:-1])
            yield "argument dropped", node, ast.unparse(fewer)
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "returned value lost", node, "return None"
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue():
            yield "statement removed", node, "pass"
        case ast.Break() | ast.Delete():
            yield "statement removed", node, "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement removed", node, "pass"
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield "condition negated", node.test, f"(not ({ast.unparse(node.test)}))"


def draw(packages: Sequence[str], number: int, seed: int) -> list[Mutant]:
    """Draw lines of packages at random, and one mutant of each.

    Args:
        packages: Folders or files, from the root of the checkout.
        number: How many lines; all where there are fewer.
        seed: Of the draw, which else depends on the sources alone.
    """
    by_line: dict[tuple[str, int], list[Mutant]] = {}
    for package in packages:
        path = ROOT / package
        if not path.exists():
            raise SystemExit(f"{package} must be a folder or file below {ROOT}; there is none")
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            for mutant in mutants(name, file.read_bytes()):
                by_line.setdefault((mutant.file, mutant.line), []).append(mutant)
    rng = random.Random(seed)
    drawn: list[Mutant] = []
    lines = sorted(by_line)
    rng.shuffle(lines)
    while lines and len(drawn) < number:
        ways = by_line[lines.pop()]
        source = (ROOT / ways[0].file).read_bytes()
        ways = [mutant for mutant in ways if is_program(mutant, source)]
        if ways:
            # The kind first: most of what can be done to a line is to drop an argument.
            kind = rng.choice(sorted({mutant.kind for mutant in ways}))
            drawn.append(rng.choice([mutant for mutant in ways if mutant.kind == kind]))
    return drawn


def targets(file: str) -> list[list[str]]:
    """List what pytest runs for a module, from its own tests to all of its package.

    Args:
        file: Path of the module from the root of the checkout.
    """
    parts = [part.lstrip("_") for part in Path(file).with_suffix("").parts[1:]]
    folder = Path("tests", *parts[:-1])
    mirrored = folder / f"test_{parts[-1]}.py"
    while not (ROOT / folder).is_dir():
        folder = folder.parent
    turns = [[file], [folder.as_posix()]]
    if (ROOT / mirrored).is_file():
        turns[0].insert(0, mirrored.as_posix())
    package = Path(*folder.parts[:2])
    if package != folder:
        turns.append([package.as_posix(), f"--ignore={folder}"])
    return turns


class Copy:
    """A copy of the working tree in which tests run.

    Args:
        folder: Where it is made.
        options: Further options of pytest.
    """

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self.folder = folder
        self._options = options
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout.decode()
        built = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("hotnas_torch/*.so")]
        for name in [*names.split("\0")[:-1], *built]:
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        asked = [sys.executable, "-c", "import hotnas_torch; print(hotnas_torch.__file__)"]
        imported = subprocess.run(
            asked, cwd=folder, env=environment(folder), check=True, capture_output=True, text=True
        ).stdout.strip()
        if not Path(imported).is_relative_to(folder):
            raise RuntimeError(f"tests would run on {imported}, not on {folder}")

    def test(self, names: Sequence[str], limit: float | None = None) -> tuple[str, str, float]:
        """Run tests.

        Args:
            names: Files and folders.
            limit: Seconds that they may take.

        Returns:
            `"passed"`, `"failed"` or `"timeout"`; the end of what pytest printed; seconds.
        """
        variables = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        data = ROOT.parent / "shared" / "data"
        if data.is_dir():
            variables["HOTNAS_DATA"] = os.environ.get("HOTNAS_DATA", str(data))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=line"]
        command += ["-p", "no:cacheprovider", *self._options, *names]
        started = time.monotonic()
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(self.folder, **variables),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that a time-out ends what the tests have started, too
            )
            try:
                code = process.wait(limit)
                # 5: nothing was collected
                outcome = "passed" if code in (0, 5) else "failed"
            except subprocess.TimeoutExpired:
                outcome = "timeout"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            output.seek(0)
            text = output.read()[-2000:]
        return outcome, text, time.monotonic() - started


class Trial:
    """Tries mutants, each in a copy that is free.

    Args:
        copies: Copies of the working tree.
        limit: Least seconds after which tests count as hanging; five times what they take
            unbroken, where that is more.
    """

    def __init__(self, copies: Sequence[Copy], limit: float) -> None:
        self._free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for copy in copies:
            self._free.put(copy)
        self._least = limit
        self._unbroken: dict[tuple[str, ...], float] = {}
        self._measuring = threading.Lock()

    def __call__(self, mutant: Mutant) -> dict[str, object]:
        """Break a line, run its tests until one notices, and mend it."""
        copy = self._free.get()
        found: dict[str, object] = {"outcome": "survived", "by": "", "said": ""}
        started = time.monotonic()
        try:
            for names in targets(mutant.file):
                outcome, text = self._broken(copy, mutant, names)
                if outcome != "passed":
                    lines = [line for line in text.splitlines() if line.startswith(("FAIL", "ERR"))]
                    said = lines[0] if lines else text.strip()[-200:]
                    kind = "killed" if outcome == "failed" else "timeout"
                    found = {"outcome": kind, "by": " ".join(names), "said": said}
                    break
        finally:
            self._free.put(copy)
        return found | {"seconds": round(time.monotonic() - started, 1)}

    def _broken(self, copy: Copy, mutant: Mutant, names: Sequence[str]) -> tuple[str, str]:
        """Run tests on a broken line; return their outcome and what they printed."""
        path = copy.folder / mutant.file
        source = path.read_bytes()
        limit = self._limit(copy, tuple(names))
        try:
            path.write_bytes(mutant.applied(source))
            outcome, text, _ = copy.test(names, limit)
        finally:
            path.write_bytes(source)
        return outcome, text

    def _limit(self, copy: Copy, names: tuple[str, ...]) -> float:
        """Return how long tests may take, by how long they take unbroken."""
        with self._measuring:
            if names not in self._unbroken:
                outcome, text, self._unbroken[names] = copy.test(names)
                if outcome != "passed":  # they would notice anything
                    raise SystemExit(f"{' '.join(names)} must pass before a line is broken\n{text}")
            return max(self._least, 5.0 * self._unbroken[names])


def table(found: Sequence[dict[str, object]]) -> str:
    """Tabulate what became of mutants by folder, then the survivors."""
    rows: dict[str, list[str]] = {}
    for one in found:
        for name in (str(Path(str(one["file"])).parent), "all"):
            rows.setdefault(name, []).append(str(one["outcome"]))
    lines = ["| lines of | broken | noticed | of them by time-out | share |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name in sorted(rows, key=lambda name: (name == "all", name)):
        outcomes = rows[name]
        noticed = len(outcomes) - outcomes.count("survived")
        share = f"{noticed / len(outcomes):.0%}"
        lines.append(
            f"| {name} | {len(outcomes)} | {noticed} | {outcomes.count('timeout')} | {share} |"
        )
    survivors = [one for one in found if one["outcome"] == "survived"]
    lines += ["", f"Not noticed ({len(survivors)}):", ""]
    lines += [
        f"- {one['file']}:{one['line']}: {one['kind']}: `{one['before']}` -> `{one['after']}`"
        for one in survivors
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw mutants, try those that were not tried yet, and print a table.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        0, or 1 where fewer than `--least` of them were noticed.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", nargs="+", help="folders or files, from the root")
    parser.add_argument("--number", type=int, default=100, help="lines, %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the draw, %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="at once, %(default)s")
    parser.add_argument("--limit", type=float, default=120.0, help="least time-out, %(default)s s")
    parser.add_argument("--least", type=float, default=0.85, help="share, %(default)s")
    parser.add_argument("--record", type=Path, default=ROOT / "runs" / "mutants.jsonl")
    parser.add_argument("--list", action="store_true", help="show what is drawn, run nothing")
    parser.add_argument("--option", action="append", default=[], help="of pytest; repeatable")
    arguments = parser.parse_args(argv)
    drawn = draw(arguments.packages, arguments.number, arguments.seed)
    if arguments.list:
        for mutant in drawn:
            print(f"{mutant.file}:{mutant.line}: {mutant.kind}: {mutant.before} -> {mutant.after}")
        return 0
    found = _tried(drawn, arguments)
    print(table(found))
    noticed = sum(one["outcome"] != "survived" for one in found)
    return int(noticed < arguments.least * len(found))


def _tried(drawn: Sequence[Mutant], arguments: argparse.Namespace) -> list[dict[str, object]]:
    """What became of each mutant; those that are not on record are tried."""
    record: Path = arguments.record
    keys = {mutant: _key(mutant) for mutant in drawn}
    lines = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    found = {str(one["key"]): one for one in map(json.loads, filter(None, lines))}
    missing = [mutant for mutant in drawn if keys[mutant] not in found]
    if missing:
        record.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory() as scratch,
            record.open("a", encoding="utf-8") as file,
            concurrent.futures.ThreadPoolExecutor(arguments.workers) as pool,
        ):
            places = [Path(scratch) / str(number) for number in range(arguments.workers)]
            trial = Trial([Copy(place, arguments.option) for place in places], arguments.limit)
            for mutant, outcome in zip(missing, pool.map(trial, missing), strict=True):
                one = {"key": keys[mutant], **asdict(mutant), **outcome}
                found[keys[mutant]] = one
                file.write(json.dumps(one) + "\n")
                file.flush()
                print(
                    f"{outcome['outcome']:8} {mutant.file}:{mutant.line}: {mutant.kind}", flush=True
                )
    return [found[keys[mutant]] for mutant in drawn]


def _key(mutant: Mutant) -> str:
    """Name of a mutant, which is another one where its file has changed anywhere."""
    source = (ROOT / mutant.file).read_bytes()
    return hashlib.sha256(source + repr(mutant).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
