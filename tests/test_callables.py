"""What a callable is described by: equal for equal ones, different where results may differ."""

import functools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hotnas_torch.callables import describe_callable

SCALE = 2.0
CALLS = []


def scaled(net, scale=1.0):
    """Scales."""
    return scale * len(net)


def by_helper(net):
    return scaled(net) * SCALE


def holding(value):
    return lambda net: (value, net)


class Scaled:
    def __init__(self, scale):
        self.scale = scale
        self.calls = 0
        self.seen = []
        self.last = {}

    def __call__(self, net):
        self.calls += 1
        self.seen.append(net)
        self.last["net"] = net
        return self.scale * len(net)

    def other(self, net):
        return self(net)


@dataclass
class Settings:
    scale: float


DIFFERENT = [
    (lambda _: 1.0, lambda _: 2.0),
    (lambda net: net.a, lambda net: net.b),
    (functools.partial(scaled, scale=1.0), functools.partial(scaled, scale=2.0)),
    (functools.partial(scaled, scale=1.0), scaled),
    (functools.partial(max, 1), functools.partial(max, 2)),
    (Scaled(1), Scaled(2)),
    (Scaled(1).other, Scaled(2).other),
    (functools.lru_cache(lambda _: 1), functools.lru_cache(lambda _: 2)),
    (torch.no_grad()(lambda _: 1), torch.no_grad()(lambda _: 2)),
    *(
        (holding(first), holding(second))
        for first, second in [
            (1, 2),
            (1, 1.0),
            (0.0, -0.0),
            ("1", 1),
            ((1, 2), (2, 1)),
            ([1, 2], [1, 3]),
            ({"lr": 0.1}, {"lr": 0.2}),
            ({1, 2}, {1, 3}),
            (torch.zeros(3), torch.ones(3)),
            (torch.zeros(3), torch.zeros(3, dtype=torch.float64)),
            (np.zeros(3), np.ones(3)),
            (Settings(1.0), Settings(2.0)),
            (SimpleNamespace(a=1), SimpleNamespace(a=2)),
            (len, max),
            (lambda: 1, lambda: 2),
            ([lambda: 1], [lambda: 2]),
            (functools.partial(scaled, scale=1), functools.partial(scaled, scale=2)),
            (Path("a"), Path("b")),
            (torch.float32, torch.float64),
            ("x" * 100 + "a", "x" * 100 + "b"),
        ]
    ),
]


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_what_may_compute_something_else_is_described_differently(first, second):
    from hotnas_torch.objectives import Function  # seconds, of which other processes have no need

    assert describe_callable(first) != describe_callable(second)
    assert Function(first, name="f").describe() != Function(second, name="f").describe()
    assert describe_callable(first) == describe_callable(first)


def test_variables_and_functions_of_the_module_count(monkeypatch):
    before = describe_callable(by_helper)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    changed = describe_callable(by_helper)
    assert changed != before
    monkeypatch.setitem(globals(), "scaled", lambda _: 7)
    assert describe_callable(by_helper) != changed


def test_what_a_function_writes_does_not_count():
    count, log, table, total = [0], [], {}, 0

    def objective(net):
        nonlocal total
        total += 1
        count[0] += 1
        log.append(net)
        table[net] = 1
        CALLS.append(net)
        return len(log)

    before = describe_callable(objective)
    objective("a")
    assert describe_callable(objective) == before
    counted = Scaled(1)
    before = describe_callable(counted)
    counted("abc")
    assert describe_callable(counted) == before == describe_callable(Scaled(1))


def test_neither_place_nor_docstring_count():
    parts = ["def f(net):\n    '''{}'''\n    return net.a + (lambda: 2)()", "f"]
    functions = []
    for text in ("One.", "Two."):
        space = {}
        exec(compile("\n" * len(functions) + parts[0].format(text), text, "exec"), space)
        functions.append(space["f"])
    assert describe_callable(functions[0]) == describe_callable(functions[1])


def test_things_that_hold_themselves_and_odd_objects_are_described():
    loop = []
    loop.append(loop)
    module = torch.nn.ReLU()
    for value in (loop, torch, module, open, object(), torch.Generator(), print):
        assert describe_callable(holding(value)) == describe_callable(holding(value))
    for function in (len, torch.sum, module, Scaled, str.upper, functools.partial(len)):
        assert describe_callable(function)["kind"] == "function"


def test_another_process_describes_it_the_same():
    program = (
        "from tests.test_callables import *;"
        "print(describe_callable(holding({'a', 'b', 'c'})), describe_callable(by_helper))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[1],
            env={"PYTHONHASHSEED": str(seed), "PATH": ""},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(texts) == 1
