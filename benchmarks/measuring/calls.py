"""Calls of the public functions, timed in a process that has one checkout's package on its path.

Runs by itself, so that it needs nothing but the package: it says where the package is, then answers
each line `NAME SECONDS` with the number of calls and the processor seconds that they took.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

import hotnas_torch as ht
from hotnas_torch.gp import HOTNNGP

__all__: list[str] = []


def _graphs(nodes: int, batch: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(nodes)
    cost, x, y = torch.rand(3, batch, nodes, nodes, generator=generator)
    return cost, x, y


def _solvers() -> dict[str, Callable[[], object]]:
    calls: dict[str, Callable[[], object]] = {}
    for nodes, batch in ((8, 4000), (11, 2000), (20, 500)):
        cost, x, y = _graphs(nodes, batch)
        wide = cost.double()

        fgw = partial(ht.ot.fgw, cost, x, y, tol=1e-4, max_iter=500, loss="l1")
        calls[f"fgw, l1, directed, n = {nodes}"] = partial(fgw, pairs="directed")
        calls[f"fgw, l1, ordered, n = {nodes}"] = partial(fgw, pairs="ordered")
        calls[f"transport, n = {nodes}"] = partial(ht.ot.transport, wide)
        calls[f"sinkhorn, n = {nodes}"] = partial(ht.ot.sinkhorn, wide, epsilon=0.1)
    cost, x, y = _graphs(8, 4000)
    symmetric = x + x.mT, y + y.mT
    calls["fgw, l2, all, n = 8"] = lambda: ht.ot.fgw(
        cost, *symmetric, loss="l2", pairs="all", tol=1e-4, max_iter=500
    )
    few = cost[:200], x[:200], y[:200]
    calls["entropic_fgw, n = 8"] = lambda: ht.ot.entropic_fgw(*few, epsilon=0.1)
    return calls


def _cells() -> dict[str, Callable[[], object]]:
    """Distances between NAS-Bench-201 cells of two sizes, by one start and by three."""
    generator = torch.Generator().manual_seed(0)
    space = ht.spaces.NASBench201()
    nets = space.sample(1000, generator=generator, distinct=True)
    cells = {cell.key: cell for net in nets for cell in net.cells}.values()
    calls: dict[str, Callable[[], object]] = {}
    for n, m in ((7, 7), (8, 8), (6, 7), (6, 8), (7, 8)):
        rows, cols = (
            sorted((cell for cell in cells if cell.num_nodes == size), key=lambda cell: cell.key)
            for size in (n, m)
        )
        chosen = rows[:60] if n == m else rows[:40] + cols[:40]
        first, second = torch.triu_indices(len(chosen), len(chosen), 1)
        if n != m:
            across = (first < len(rows[:40])) & (second >= len(rows[:40]))
            first, second = first[across], second[across]
        for starts in (1, 3):
            tables = ht.IFGW(space=space, num_starts=starts).prepare(chosen)
            calls[f"cells, {n} x {m}, {starts} starts"] = partial(tables.solve, first, second)
    return calls


def _models() -> dict[str, Callable[[], object]]:
    generator = torch.Generator().manual_seed(0)
    space = ht.spaces.NASBench201()
    nets = space.sample(300, generator=generator, distinct=True)
    distance = ht.HOTNN(space=space)
    macro = ht.spaces.TransNASMacro()
    stages = macro.sample(500, generator=generator, distinct=True)
    between_stages = ht.HOTNN(space=macro)
    eta = torch.tensor(0.4, requires_grad=True)
    learned = ht.HOTNN(space=space, eta=eta)
    rows = space.encode(nets[:60])
    targets = torch.randn(60, 1, generator=generator, dtype=torch.float64)

    def likelihood() -> object:
        model = HOTNNGP(rows, targets, space=space)
        return model(rows)

    return {
        "HOTNN of 300 NAS-Bench-201 networks": lambda: distance(nets),
        "HOTNN of 500 TransNAS macro networks": lambda: between_stages(stages),
        "HOTNN of 300 and its gradient": lambda: learned(nets).sum().backward(),
        "HOTNNGP of 60, made and called": likelihood,
    }


def _serve() -> None:
    torch.set_num_threads(1)
    calls = _solvers() | _cells() | _models()
    print(
        json.dumps({"file": ht.__file__, "version": ht.__version__, "calls": [*calls]}), flush=True
    )
    for line in sys.stdin:
        name, _, seconds = line.rstrip("\n").rpartition(" ")
        count, used, started = 0, 0.0, time.process_time()
        while count == 0 or used < float(seconds):
            calls[name]()
            count += 1
            used = time.process_time() - started
        print(json.dumps([count, used]), flush=True)


if __name__ == "__main__":
    _serve()
