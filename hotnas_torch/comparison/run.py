"""Running a comparison: every method on every task with every seed, each once."""

import json
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from hotnas_torch.comparison.code import code_version
from hotnas_torch.comparison.methods import METHODS
from hotnas_torch.comparison.records import Record, path_of, read_record, write_record
from hotnas_torch.comparison.tasks import TASKS, Task
from hotnas_torch.errors import StorageError
from hotnas_torch.objectives import Table

__all__ = ["compare", "search_once"]


def compare(
    tasks: Sequence[str],
    methods: Sequence[str],
    *,
    data: Path,
    folder: Path,
    num_seeds: int = 20,
    num_initial: int = 10,
    num_evaluations: int = 90,
    batch: int = 4,
    processes: int = 1,
    progress: bool = True,
) -> list[Record]:
    """Run every method on every task with the seeds 0, 1, ...

    Each search is written to a file of its own when it ends, and not run again, so that an
    interrupted comparison continues. Searches with equal seeds start from the same networks where
    the methods draw them in the same way, which makes paired tests sharp.

    Args:
        tasks: Names in `TASKS`.
        methods: Names in `METHODS`.
        data: Folder of the published tables.
        folder: Where the records go.
        num_seeds: Searches per task and method, >= 1.
        num_initial: Random networks at the start of each, >= 2.
        num_evaluations: Evaluations of each search in all, the initial ones included.
        batch: Networks that are asked for at once after the initial ones.
        processes: Searches that run at the same time, one thread each.
        progress: Show a progress bar.

    Returns:
        All records of what was asked, old and new, ordered by task, method and seed.

    Raises:
        ValueError: An unknown name or a number out of range.
        TableError: A table is missing.
        StorageError: A record in `folder` is damaged or of other settings.
    """
    for kind, names, known in (("tasks", tasks, TASKS), ("methods", methods, METHODS)):
        for place, name in enumerate(names):
            if name not in known:
                options = ", ".join(map(repr, known))
                raise ValueError(f"{kind}[{place}] must be one of {options}; got {name!r}")
    for argument, value, smallest in (
        ("num_seeds", num_seeds, 1),
        ("num_initial", num_initial, 2),
        ("num_evaluations", num_evaluations, num_initial),
        ("batch", batch, 1),
        ("processes", processes, 1),
    ):
        if value < smallest:
            raise ValueError(f"{argument} must be at least {smallest}; got {value}")
    records: dict[tuple[str, str, int], Record] = {}
    open_runs: list[tuple[str, str, int]] = []
    for name in tasks:
        table = _table(TASKS[name], data)
        for method in methods:
            expected = _identity(name, method, table, num_initial, num_evaluations, batch)
            for seed in range(num_seeds):
                path = path_of(folder, name, method, seed)
                if path.exists():
                    records[name, method, seed] = _checked(path, expected)
                else:
                    open_runs.append((name, method, seed))
    # By seed first: an unfinished comparison has all methods with some seeds.
    open_runs.sort(key=lambda one: one[2])
    search = partial(
        search_once,
        data=data,
        folder=folder,
        num_initial=num_initial,
        num_evaluations=num_evaluations,
        batch=batch,
    )
    bar = tqdm(total=len(open_runs), desc="searches", unit="", disable=not progress)
    with bar:
        if processes == 1:
            for one in open_runs:
                records[one] = search(*one)
                bar.update()
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(processes, context, initializer=_start_worker) as pool:
                futures = {pool.submit(search, *one): one for one in open_runs}
                try:
                    for future in as_completed(futures):
                        records[futures[future]] = future.result()
                        bar.update()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    asked = (
        (task, method, seed) for task in tasks for method in methods for seed in range(num_seeds)
    )
    return [records[one] for one in asked]


def search_once(
    task: str,
    method: str,
    seed: int,
    *,
    data: Path,
    folder: Path,
    num_initial: int,
    num_evaluations: int,
    batch: int,
) -> Record:
    """Run one search in a table and write its record."""
    code_version()  # before the search: the folder may change while it runs
    table = _table(TASKS[task], data)
    space = table.space
    generator = torch.Generator().manual_seed(seed)
    strategy = METHODS[method].build(space, generator, num_initial)
    networks: list[str] = []
    values: list[float] = []
    seconds: list[float] = []
    while len(values) < num_evaluations:
        wanted = num_initial if not values else min(batch, num_evaluations - len(values))
        before = time.process_time()
        asked = strategy.ask(wanted)
        took = time.process_time() - before
        if not asked:
            break
        found = [table(net).value for net in asked]
        strategy.tell(asked, found)
        networks += [net.spec for net in asked]
        values += found
        seconds += [took / len(asked)] * len(asked)
    judge = _judge(TASKS[task], data)
    reported: list[float] = []
    best, chosen = math.inf, math.nan
    for spec, value in zip(networks, values, strict=True):
        if value < best:
            best, chosen = value, judge(judge.space.from_string(spec)).value
        reported.append(chosen)
    record = Record(
        task=task,
        method=method,
        seed=seed,
        identity=_identity(task, method, table, num_initial, num_evaluations, batch),
        networks=tuple(networks),
        values=tuple(values),
        seconds=tuple(seconds),
        reported=tuple(reported),
        best_value=judge.best_value,
        better=tuple(judge.rank(value) for value in reported),
    )
    write_record(record, folder)
    return record


@cache
def _table(task: Task, data: Path) -> Table:
    return task.open(data)


def _judge(task: Task, data: Path) -> Table:
    return _table(task, data) if task.reported is None else _reported(task, data)


@cache
def _reported(task: Task, data: Path) -> Table:
    return task.open_reported(data)


def _start_worker() -> None:
    code_version()  # of what was just imported, not of what the folder holds after the first search
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End a worker whose parent was killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _identity(
    task: str, method: str, table: Table, num_initial: int, num_evaluations: int, batch: int
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    config = METHODS[method].build(table.space, generator, num_initial).config()
    del config["seed"]
    identity: dict[str, Any] = {
        "strategy": config,
        "table": table.describe(),
        "num_initial": num_initial,
        "num_evaluations": num_evaluations,
        "batch": batch,
        "code": code_version(),
    }
    if TASKS[task].reported is not None:
        identity["reported"] = TASKS[task].reported
    # As it will be read again.
    return dict(json.loads(json.dumps(identity)))


def _checked(path: Path, expected: Mapping[str, Any]) -> Record:
    record = read_record(path)
    for name, value in expected.items():
        if record.identity.get(name) != value:
            raise StorageError(
                f"{path} was made with {name} = {record.identity.get(name)!r}, now it is "
                f"{value!r} (choose another folder, or delete the file to run it again)"
            )
    return record
