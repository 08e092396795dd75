"""``keep_report.py REPORT COMPILER ARGUMENTS...``: run a compiler, keep its assembler's report."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run the compiler; what is not about kernels goes on to stderr."""
    report, *command = sys.argv[1:]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    kept: list[str] = []
    for line in done.stderr.splitlines(keepends=True):
        about_kernels = line.startswith("ptxas info") or "bytes stack frame" in line
        if about_kernels:
            kept.append(line)
        else:
            sys.stderr.write(line)
    if kept:
        Path(report).parent.mkdir(parents=True, exist_ok=True)
        Path(report).write_text("".join(kept), encoding="utf-8")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
