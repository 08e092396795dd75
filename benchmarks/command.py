"""The command ``python -m benchmarks``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import (
    backward,
    coarse,
    digits,
    dnas,
    entropic,
    exactness,
    generators,
    gram,
    hierarchy,
    learned,
    metric_quality,
    nested,
    outliers,
    quality,
    relaxed,
    scaling,
    speed,
    spread,
    step,
    supernet,
    threads,
)
from benchmarks.machine import Load
from benchmarks.report import Claim, Report
from hotnas_torch import _ext

__all__ = ["BENCHMARKS", "main"]

BENCHMARKS = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        speed,
        threads,
        scaling,
        quality,
        exactness,
        gram,
        nested,
        generators,
        step,
        backward,
        entropic,
        metric_quality,
        learned,
        relaxed,
        spread,
        coarse,
        digits,
        outliers,
        dnas,
        hierarchy,
        supernet,
    )
}
"""Modules by the name that the command line uses, in the order in which they run."""

_EXAMPLES = """\
examples:
  python -m benchmarks                            everything, into runs/bench
  python -m benchmarks speed quality --quick      two of them, small problems, for a first look
  python -m benchmarks gram --output /tmp/bench   another folder
  python -m benchmarks speed --check              exit status 1 if a promise is not kept

benchmarks:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run benchmarks, print their tables, and write JSON, Markdown and pictures.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        0, or with ``--check`` 1 if a claim is not met.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.benchmarks if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    if not _ext.loaded:
        parser.error(f"the compiled core is what is measured, and it is not there: {_ext.reason}")
    folder: Path = arguments.output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output: cannot make {folder}: {error.strerror}")
    claims: list[Claim] = []
    for name in arguments.benchmarks or BENCHMARKS:
        report = _run(name, folder, quick=arguments.quick)
        claims.extend(report.claims)
    missed = [claim for claim in claims if not claim.met]
    print(f"{len(claims) - len(missed)} of {len(claims)} claims met; results in {folder}")
    for claim in missed:
        print(f"  not met: {claim.text}: {claim.measured:.4g} {claim.relation} {claim.target:.4g}")
    return 1 if arguments.check and missed else 0


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, BENCHMARKS))
    listed = "\n".join(f"  {name:<{width}}  {mod.QUESTION}" for name, mod in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure hotnas_torch, beside POT and (where it is installed) OTT-JAX.",
        epilog=_EXAMPLES + listed,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("benchmarks", nargs="*", metavar="NAME", help="which; default all")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/bench"), metavar="FOLDER", help="%(default)s"
    )
    parser.add_argument("--quick", action="store_true", help="few small problems")
    parser.add_argument("--check", action="store_true", help="fail if a claim is not met")
    return parser


def _run(name: str, folder: Path, *, quick: bool) -> Report:
    module = BENCHMARKS[name]
    print(f"{name}: {module.QUESTION}", file=sys.stderr, flush=True)
    threads_before = torch.get_num_threads()
    with Load() as load:
        report: Report = module.run(module.QUICK if quick else module.Settings())
    torch.set_num_threads(threads_before)
    report.load = load
    if quick:
        report.notes.append("Measured with --quick: few problems and rounds, for a first look.")
    picture = f"{name}.png"
    module.draw(report).savefig(folder / picture, dpi=150, facecolor="white")
    report.write(folder, picture)
    print(report.markdown(), flush=True)
    return report
