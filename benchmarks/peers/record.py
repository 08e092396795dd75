"""A pytest plugin that notes how each case ended and what of ours it reached, a line a case."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

__all__ = ["CASES", "PLAIN", "outside", "plain", "reached"]

CASES = "PEERS_CASES"
"""Environment variable: the file that the lines go to."""

PLAIN = "PEERS_PLAIN"
"""Environment variable: when set, adapters do nothing, and the library is tested as it came."""

_MESSAGE = 300

_reached: Counter[str] = Counter()
_outside: Counter[str] = Counter()
_failed: dict[str, str] = {}
_skipped: set[str] = set()


def plain() -> bool:
    """Whether the library is to be tested as it came."""
    return bool(os.environ.get(PLAIN))


def reached(name: str) -> None:
    """Note that the running case has reached a function or class of ours."""
    _reached[name] += 1


def outside(reason: str) -> None:
    """Note that a call of the running case was outside what ours solves."""
    _outside[reason] += 1


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Start every case from the same seeds, so that counts can be repeated."""
    _reached.clear()
    _outside.clear()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what the peers' tests draw from
    result = yield
    _write(item.nodeid)
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the first failure of a case; subtests report under the name of their case."""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash is not None else str(report.longrepr).strip()[-_MESSAGE:]
        _failed.setdefault(report.nodeid, " ".join(text.split())[:_MESSAGE])
    elif report.skipped and report.when != "teardown":
        _skipped.add(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be collected is a failed case."""
    if report.failed:
        _failed[report.nodeid] = " ".join(str(report.longrepr).split())[-_MESSAGE:]
        _write(report.nodeid)


def _write(case: str) -> None:
    outcome = "failed" if case in _failed else "skipped" if case in _skipped else "passed"
    line: dict[str, Any] = {"case": case, "outcome": outcome, "reached": dict(_reached)}
    line["outside"] = dict(_outside)
    if case in _failed:
        line["message"] = _failed[case]
    with Path(os.environ[CASES]).open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")
