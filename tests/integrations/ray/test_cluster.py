import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hotnas_torch as ht
from hotnas_torch.errors import ClusterError, ConvergenceWarning, SolverError
from hotnas_torch.integrations.ray import RayExecutor
from hotnas_torch.integrations.ray.broadcast import Software
from hotnas_torch.matrices.pairwise import Tiling, fill
from tests.integrations.ray import programs

ROOT = Path(__file__).parents[3]
SPACE = ht.spaces.NASBenchMacro()


@pytest.fixture(scope="module")
def executor(cluster):
    with RayExecutor() as executor:
        yield executor


@pytest.fixture(scope="module")
def nets():
    return SPACE.sample(60, generator=torch.Generator().manual_seed(0))


def filled(blocks, executor, items=12, edge=2):
    return fill(
        Tiling(torch.arange(items), None, edge),
        blocks,
        dtype=torch.float64,
        device=torch.device("cpu"),
        stage="test",
        executor=executor,
    )


# --- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "num"), [(2**20, 60), (60_000, 60), (64, 24)])
def test_distances_are_those_of_one_process(executor, nets, budget, num):
    # Cells first; several tiles of networks; tiles of networks that each compute their cells.
    nets = nets[:num]
    metric = ht.HOTNN(space=SPACE, memory_budget=budget)
    assert torch.equal(metric(nets, executor=executor), metric(nets))
    assert torch.equal(
        metric(nets[:9], nets[5:30], executor=executor), metric(nets[:9], nets[5:30])
    )


def test_cells_files_and_stores_are_those_of_one_process(executor, nets, tmp_path):
    metric = ht.HOTNN(space=SPACE, memory_budget=60_000)
    expected = metric(nets)
    cells = [cell for net in nets[:3] for cell in net.cells]
    assert torch.equal(metric.ifgw(cells, executor=executor), metric.ifgw(cells))
    gram = metric.gram(nets, out=tmp_path / "gram.npz", progress=False, executor=executor)
    assert torch.equal(gram, expected)
    seen = []
    store = metric.gram_store(
        nets, tmp_path / "gram.zarr", progress=lambda *c: seen.append(c), executor=executor
    )
    assert torch.equal(store.tensor(), expected)
    assert seen[-1][1] == seen[-1][2] > 0


def test_gradients_flow_through_a_matrix_of_the_cluster(executor, nets):
    gradients = []
    for chosen in (None, executor):
        eta = torch.tensor(0.4, requires_grad=True)
        ht.HOTNN(space=SPACE, eta=eta)(nets[:8], executor=chosen).sum().backward()
        gradients.append(float(eta.grad))
    assert gradients[0] == gradients[1] != 0.0


def test_what_solvers_report_arrives(executor, nets):
    blocks = programs.Products()
    filled(blocks, executor, items=8)
    with pytest.warns(ConvergenceWarning, match="10 of 10 cell pairs stopped after max_iter=7"):
        blocks.log.warn()
    with pytest.raises(SolverError, match="has no finite value"):
        filled(programs.Failing(), executor)


# --- losses ---------------------------------------------------------------------------------------


def test_tiles_are_computed_by_other_processes_and_survive_their_loss(executor, tmp_path):
    pids = filled(programs.Pids(), executor)
    assert os.getpid() not in pids
    expected = filled(programs.Products(), None)
    killed = tmp_path / "killed"
    assert torch.equal(filled(programs.Products(5, killed), executor), expected)
    assert killed.exists()


def test_a_tile_that_kills_every_worker_is_given_up(cluster):
    with (
        RayExecutor(retries=0) as executor,
        pytest.raises(ClusterError, match="tile 20 lost its worker once"),
    ):
        filled(programs.Products(11), executor)


# --- the cluster ----------------------------------------------------------------------------------


def test_room_is_counted_by_node(cluster):
    assert RayExecutor().room() == 3
    assert RayExecutor(num_cpus=2).room() == 1
    assert RayExecutor(num_cpus=0.5).room() == 6
    with pytest.raises(ClusterError, match="no node of the cluster offers 3 processors"):
        RayExecutor(num_cpus=3)
    with pytest.raises(ClusterError, match="offers 1 processors and 2 GPUs"):
        RayExecutor(num_gpus=2)


@pytest.mark.slow
def test_a_task_takes_its_gpu(cluster):
    with RayExecutor(num_gpus=1, device="cpu") as executor:
        assert executor.room() == 1
        (pid,) = filled(programs.Pids(), executor, items=8).unique().tolist()
        assert pid < 0  # Ray names a GPU to tasks that asked for one
    assert not filled(programs.Pids(), RayExecutor(), items=8).lt(0).any()


def test_a_connected_program_stays_connected(cluster):
    import ray

    for address in (None, "auto", cluster):
        RayExecutor(address).close()
    assert ray.is_initialized()
    with pytest.raises(ValueError, match="to which this program is connected already"):
        RayExecutor("192.0.2.1:6379")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_cpus": 0}, "num_cpus must be a number > 0; got 0"),
        ({"num_gpus": -1}, "num_gpus must be a number >= 0; got -1"),
        ({"num_gpus": math.nan}, "num_gpus must be a number >= 0; got nan"),
        ({"retries": -1}, "retries must be an integer >= 0; got -1"),
        ({"timeout": 0.0}, "timeout must be a positive number"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RayExecutor(**arguments)


def test_a_worker_with_other_software_is_refused(cluster):
    here = Software.here()
    here.check_same(here)
    with pytest.raises(ClusterError, match=r"the worker on [\d.]+ has compiled = "):
        here.check_same(here._replace(compiled=not here.compiled))


def test_without_a_cluster_nothing_is_started_and_nobody_waits():
    program = """
import sys
import hotnas_torch.cli.main
from hotnas_torch.integrations.ray import RayExecutor
assert not {"ray", "zarr", "optuna"} & sys.modules.keys()
for address in (None, "127.0.0.1:9", "local"):
    try:
        RayExecutor(address)
    except Exception as error:
        print(type(error).__name__, error)
sys.modules["ray"] = None
try:
    RayExecutor("auto")
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    unconnected, nobody, local, missing = done.stdout.splitlines()
    assert unconnected.startswith("ClusterError this program is not connected to Ray")
    assert nobody.startswith("ClusterError cannot reach a Ray cluster at '127.0.0.1:9'")
    assert local.startswith("ValueError address must be 'auto' or 'host:port'")
    assert "pip install 'hotnas-torch[ray]'" in missing
