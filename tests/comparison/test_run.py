import csv
import gzip
import json
import subprocess
import sys
from unittest.mock import Mock

import pytest

from hotnas_torch.comparison import TASKS, compare, read_records
from hotnas_torch.comparison import run as module
from hotnas_torch.comparison.records import read_record
from hotnas_torch.errors import StorageError, TableError

SETTINGS = {"num_seeds": 3, "num_evaluations": 70, "progress": False}


def test_every_method_runs_on_every_task_with_every_seed(compared, data_dir):
    records, folder = compared
    assert [(one.task, one.method, one.seed) for one in records] == [
        (task, method, seed)
        for task in ("transnas_jigsaw", "nasbench_macro")
        for method in ("random", "evolution")
        for seed in range(3)
    ]
    assert sorted(read_records(folder), key=str) == sorted(records, key=str)
    for record in records:
        table = TASKS[record.task].open(data_dir)
        assert len(set(record.networks)) == 70
        looked_up = [table(table.space.from_string(text)).value for text in record.networks]
        assert list(record.values) == looked_up
        best = min(looked_up[:20])
        assert record.regrets()[19] == best - table.best_value
        assert record.better[19] == sum(value < best for value in table.values.tolist())


def test_methods_start_from_the_same_networks(compared):
    first, other = (
        [one for one in compared[0] if one.method == name] for name in ("random", "evolution")
    )
    for one, two in zip(first, other, strict=True):
        assert one.networks[:10] == two.networks[:10]
        assert one.networks != two.networks


def test_a_search_is_judged_by_the_network_that_it_would_choose(data_dir, tmp_path):
    [record] = compare(
        ["nb201_cifar10_val"],
        ["random"],
        data=data_dir,
        folder=tmp_path,
        num_seeds=1,
        num_evaluations=40,
        progress=False,
    )
    with gzip.open(data_dir / "nas-bench-201" / "nb201.csv.gz", "rt") as lines:
        rows = {row["arch"]: row for row in csv.DictReader(lines)}
    seen = [rows[text] for text in record.networks]
    assert record.values == pytest.approx([100 - float(row["cifar10_val_e12"]) for row in seen])
    for count in (1, 10, 40):
        chosen = max(seen[:count], key=lambda row: float(row["cifar10_val_e12"]))
        accuracy = float(chosen["cifar10_test"])
        assert record.reported[count - 1] == pytest.approx(100 - accuracy)
        better = sum(float(row["cifar10_test"]) > accuracy for row in rows.values())
        assert record.better[count - 1] == better
    assert record.best_value == pytest.approx(
        100 - max(float(row["cifar10_test"]) for row in rows.values())
    )
    # The validation after 12 epochs is not the test after 200: the choice is not always the best.
    assert record.reported[-1] >= min(100 - float(row["cifar10_test"]) for row in seen)


@pytest.mark.slow
def test_workers_end_with_a_killed_parent():
    program = (
        "import multiprocessing, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from hotnas_torch.comparison.run import _start_worker\n"
        "context = multiprocessing.get_context('spawn')\n"
        "with ProcessPoolExecutor(1, context, initializer=_start_worker) as pool:\n"
        "    pool.submit(abs, -1).result()\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    parent.kill()
    # The pipe ends when the last process that holds it does.
    parent.communicate(timeout=60)


def test_records_of_the_first_version_are_read(compared, data_dir, tmp_path):
    record = compared[0][0]
    path = compared[1] / record.task / record.method / f"{record.seed}.json"
    content = json.loads(path.read_text())
    del content["reported"]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(content | {"version": 1}))
    assert read_record(old) == record


def test_what_is_finished_is_not_run_again(compared, data_dir, monkeypatch):
    records, folder = compared
    monkeypatch.setattr(module, "search_once", Mock(side_effect=AssertionError))
    again = compare(["nasbench_macro"], ["evolution"], data=data_dir, folder=folder, **SETTINGS)
    assert again == records[-3:]


@pytest.mark.slow
def test_processes_give_the_same(compared, data_dir, tmp_path):
    records, _ = compared
    parallel = compare(
        ["transnas_jigsaw"],
        ["random", "evolution"],
        data=data_dir,
        folder=tmp_path,
        processes=2,
        **SETTINGS,
    )
    for one, other in zip(parallel, records[:6], strict=True):
        assert (one.networks, one.values) == (other.networks, other.values)


def test_records_of_other_settings_are_refused(compared, data_dir):
    with pytest.raises(StorageError, match=r"batch = 4, now it is 2.*another folder"):
        compare(
            ["nasbench_macro"],
            ["random"],
            data=data_dir,
            folder=compared[1],
            batch=2,
            **SETTINGS,
        )


def test_damaged_records_are_named(tmp_path, data_dir):
    path = tmp_path / "transnas_jigsaw" / "random" / "0.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"version": 1, "task"')
    with pytest.raises(StorageError, match=r"0\.json is no record.*delete it"):
        compare(["transnas_jigsaw"], ["random"], data=data_dir, folder=tmp_path, **SETTINGS)
    path.write_text('{"version": 99}')
    with pytest.raises(StorageError, match="newer version"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ["cifar"]}, r"tasks\[0\] must be one of 'nasbench_macro'.*got 'cifar'"),
        ({"methods": ["random", "grid"]}, r"methods\[1\] must be one of .*got 'grid'"),
        ({"num_seeds": 0}, "num_seeds must be at least 1"),
        ({"num_evaluations": 5}, "num_evaluations must be at least 10"),
    ],
)
def test_bad_arguments(change, message, tmp_path):
    given = {"tasks": ["nasbench_macro"], "methods": ["random"], "data": tmp_path}
    with pytest.raises(ValueError, match=message):
        compare(**(given | {"folder": tmp_path} | change))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(TableError, match=r"nas-bench-macro_cifar10\.json"):
        compare(["nasbench_macro"], ["random"], data=tmp_path, folder=tmp_path)
