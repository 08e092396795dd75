import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.cli.main import main
from hotnas_torch.distances import HOTNN
from hotnas_torch.matrices import GramStore, load_gram
from hotnas_torch.plot.report import read_search

GRAM = ["gram", "--space", "nasbench_macro", "--sample", "30", "--quiet"]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_gram_on_a_cluster_is_gram(cluster, tmp_path):
    expected = HOTNN(space=spaces.NASBenchMacro(), dtype=torch.float32)(
        spaces.NASBenchMacro().sample(30, generator=torch.Generator().manual_seed(0), distinct=True)
    )
    out, store = tmp_path / "gram.npz", tmp_path / "gram.zarr"
    assert main([*GRAM, "--out", str(out), "--no-pictures", "--ray", cluster]) == 0
    assert torch.equal(load_gram(out).distances, expected)
    assert main([*GRAM, "--store", str(store), "--ray", cluster, "--task-cpus", "2"]) == 0
    assert torch.equal(GramStore(store).tensor(), expected)


@pytest.mark.slow
def test_search_on_a_cluster_is_asynchronous(cluster, tmp_path, data_dir):
    out = tmp_path / "pooling.sqlite"
    table = str(data_dir / "pooling-cifar10-resnet20" / "pooling36.csv")
    arguments = ["search", "--table", "pooling", table, "--strategy", "random", "--quiet"]
    arguments += ["--out", str(out), "--no-pictures", "--ray", cluster, "--workers", "3"]
    assert main([*arguments, "--evaluations", "7"]) == 0
    assert main([*arguments, "--evaluations", "9", "--resume", "--time-limit", "60"]) == 0
    _, result = read_search(out)
    assert len({trial.network for trial in result.trials}) == 9
    assert not any(trial.failed for trial in result.trials)


def test_a_cluster_without_room_is_a_failure_in_one_line(cluster, tmp_path, capsys):
    out = str(tmp_path / "gram.npz")
    assert main([*GRAM, "--out", out, "--ray", cluster, "--task-gpus", "8"]) == 1
    printed = capsys.readouterr().err
    assert "failed: no node of the cluster offers 1 processors and 8 GPUs" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--store", "x.zarr", "--out", "x.npz"], "not allowed with argument"),
        ([], "one of the arguments --out --store is required"),
        (["--out", "x.npz", "--stored-as", "float16"], "--stored-as goes with --store"),
        (["--store", "x.zarr", "--task-gpus", "1"], "--task-gpus is an option of --ray"),
        (["--store", "x.zarr", "--ray", "auto", "--retries", "-1"], "retries must be an integer"),
    ],
)
def test_wrong_options_of_gram_are_refused(options, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main([*GRAM, *options]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray", "auto", "--batch", "3"], "--batch is for searches in batches"),
        (["--asynchronous", "--batch", "3"], "--batch is for searches in batches"),
        (["--time-limit", "0"], "--time-limit must be positive and finite; got 0"),
        (["--time-limit", "nan"], "--time-limit must be positive and finite; got nan"),
        (["--task-cpus", "3"], "--task-cpus is an option of --ray"),
    ],
)
def test_wrong_options_of_search_are_refused(options, message, capsys, tmp_path):
    out = tmp_path / "search.sqlite"
    assert main(["search", "--strategy", "random", "--out", str(out), *options]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
