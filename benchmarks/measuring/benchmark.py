"""What a benchmark is: a module of the folder `benchmarks`, found by its name."""

import ast
import importlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.measuring.machine import Load
from benchmarks.measuring.report import Report

__all__ = ["Benchmark", "benchmarks"]

_FOLDER = Path(__file__).parents[1]
_LOCAL = ("data", "storage")
"""Fields of settings that say where, not what: reports leave them out."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark that may not be imported yet.

    Attributes:
        name: Name of its module.
        question: What it answers.
        on_request: Why it runs only when it is named; empty where it always does.
    """

    name: str
    question: str
    on_request: str = ""

    @property
    def module(self) -> ModuleType:
        """The module, see `benchmarks`."""
        return importlib.import_module(f"benchmarks.{self.name}")

    @property
    def choices(self) -> Mapping[str, Collection[str]]:
        """What the elements of some fields of the settings may be."""
        return getattr(self.module, "CHOICES", {})

    def measure(self, settings: Any) -> Report:
        """Measure and draw.

        Args:
            settings: An object of the module's `Settings`.

        Raises:
            Unavailable: Something that is measured, or measured with, is not there.
        """
        module, threads = self.module, torch.get_num_threads()
        try:
            with Load() as load:
                report: Report = module.run(settings)
        finally:
            torch.set_num_threads(threads)
        report.benchmark, report.question, report.load = self.name, self.question, load
        report.settings = {k: v for k, v in asdict(settings).items() if not _is_place(k, v)}
        if settings == module.QUICK:
            report.notes.append("Measured with --quick: few problems and rounds, for a first look.")
        if hasattr(module, "draw"):
            report.figures = {"": module.draw(report)} | report.figures
        return report


def benchmarks(folder: Path = _FOLDER) -> dict[str, Benchmark]:
    """Find all benchmarks by name, without importing any.

    Args:
        folder: Where their modules are.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        source = path / "__init__.py" if path.is_dir() else path
        name = path.stem
        if name.startswith("_") or name == "measuring" or source.suffix != ".py":
            continue
        if source.is_file():
            found[name] = _read(name, ast.parse(source.read_text(encoding="utf-8")))
    return found


def _read(name: str, module: ast.Module) -> Benchmark:
    on_request = ""
    for statement in module.body:
        match statement:
            case ast.Assign(
                targets=[ast.Name(id="ON_REQUEST")], value=ast.Constant(value=str(why))
            ):
                on_request = why
    question = (ast.get_docstring(module) or "").partition("\n")[0]
    return Benchmark(name, question, on_request)


def _is_place(name: str, value: Any) -> bool:
    """Whether a setting says where something lies on this machine, which no result depends on."""
    return name in _LOCAL or (isinstance(value, str | Path) and Path(value).is_absolute())
