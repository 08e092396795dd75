import dataclasses
import hashlib
import io
import json
import tarfile

import numpy as np
import ot
import pytest
import torch

import hotnas_torch as ht
from benchmarks.peers import command, pot, sources
from benchmarks.peers.points import Points
from hotnas_torch import spaces
from hotnas_torch.integrations import pot as ours

PROBLEM = (np.array([0.5, 0.5]), np.array([0.25, 0.75]), np.array([[0.0, 1.0], [3.0, 1.0]]))

CASE = """
import numpy as np
import ot

def test_the_plan_is_optimal():
    cost = np.array([[0.0, 1.0], [3.0, 1.0]])
    plan = ot.emd([0.5, 0.5], [0.25, 0.75], cost)
    np.testing.assert_allclose(plan, [[0.25, 0.25], [0.0, 0.5]])

def test_of_nothing_of_ours():
    assert ot.unif(2).sum() == 1

def test_that_is_wrong():
    assert ot.unif(2).sum() == 2
"""
BROKEN = """
import dataclasses
from hotnas_torch.integrations.pot import lp

solve = lp.transport
lp.transport = lambda *args: dataclasses.replace(
    solve(*args), plan=args[1][:, None] * args[2]
)
"""


def test_the_adapter_answers_with_our_solver_and_a_broken_one_shows(monkeypatch):
    adapted = pot.adapt(ot.emd, ours.emd)
    np.testing.assert_allclose(adapted(*PROBLEM), ot.emd(*PROBLEM))
    solve = ht.ot.transport

    def broken(cost, a, b):
        return dataclasses.replace(solve(cost, a, b), plan=a[:, None] * b)

    monkeypatch.setattr(ours.lp, "transport", broken)
    assert np.abs(adapted(*PROBLEM) - ot.emd(*PROBLEM)).max() > 0.1


def test_a_call_outside_our_domain_goes_to_pot(monkeypatch):
    monkeypatch.delattr(ours.lp, "transport")
    a, b, cost = PROBLEM
    adapted = pot.adapt(ot.emd, ours.emd)
    found = adapted(a, b, cost, potentials_init=(np.zeros(2), np.zeros(2)))
    np.testing.assert_allclose(found, ot.emd(a, b, cost))
    with pytest.raises(NameError):
        adapted(a, b, cost)


def test_gradients_and_masses_of_another_sum_pass_through():
    a, b, cost = (torch.from_numpy(array) for array in PROBLEM)
    adapted, theirs = pot.adapt(ot.emd2, ours.emd2), ot.emd2
    found = []
    for function in (adapted, theirs):
        leaf = cost.clone().requires_grad_()
        value = function(3 * a, 3 * b, leaf)
        value.backward()
        found.append((value.item(), leaf.grad))
    assert found[0][0] == pytest.approx(found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_a_run_tells_who_reached_us_and_fails_when_ours_is_wrong(tmp_path, broken):
    (tmp_path / "test_case.py").write_text(CASE)
    if broken:
        (tmp_path / "conftest.py").write_text(BROKEN)
    cases, trouble = command.run_cases(tmp_path, ["test_case.py"], "pot")
    assert trouble == ""
    plain = [command.Case("test_case.py::test_that_is_wrong", "failed")]
    outcome = command.judge(command.Outcome("POT", "1", "1", "test_case.py"), cases, plain, [])
    assert (outcome.cases, outcome.reach_us) == (3, 1)
    assert outcome.reached == {"emd": 1}
    assert (outcome.passed, outcome.unexpected) == ((0, 1) if broken else (1, 0))


def test_a_failure_with_a_known_reason_is_expected():
    failed = command.Case("test_x.py::test_y[numpy]", "failed", {"emd": 1})
    known = command.Known("POT", "test_x.py::test_y[numpy]", "convention", "because")

    def unexpected(*known):
        outcome = command.Outcome("POT", "1", "1", "test_x.py")
        return command.judge(outcome, [failed], [], known).unexpected

    assert unexpected() == 1
    assert unexpected(known) == 0
    assert unexpected(dataclasses.replace(known, peer="botorch")) == 1
    with pytest.raises(ValueError, match="kind must be"):
        command.Known("POT", "*", "shrug", "because")


def test_every_known_reason_can_be_read():
    peers = {suite.peer for suite in command.SUITES}
    assert all(known.peer in peers and known.reason for known in command.read_known())


def test_a_part_that_is_run_again_replaces_its_rows_alone(tmp_path):
    file = tmp_path / "outcomes.json"
    old = [
        command.Outcome("POT", "1", "1", "test/test_ot.py", cases=1),
        command.Outcome("optuna", "1", "1", "optuna_cases.py", cases=1),
    ]
    file.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in old]))
    new = command.Outcome("optuna", "1", "1", "optuna_cases.py", cases=2)
    assert command._merged(file, [new]) == [old[0], new]


def test_an_archive_other_than_the_recorded_one_is_refused(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in ("peer-1/test/test_x.py", "peer-1/peer/code.py"):
            archive.addfile(tarfile.TarInfo(name))
    file = tmp_path / "peer-1.tar.gz"
    file.write_bytes(stream.getvalue())
    digest = hashlib.sha256(stream.getvalue()).hexdigest()
    source = sources.Archive("peer", "1", digest, file.name)
    folder = source.obtain(tmp_path, None)
    assert (folder / "test" / "test_x.py").is_file()
    assert not (folder / "peer").exists()
    with pytest.raises(sources.Missing, match="digest"):
        dataclasses.replace(source, sha256="0" * 64).obtain(tmp_path, None)


def test_an_archive_is_downloaded_from_where_the_index_says(tmp_path, monkeypatch):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("peer-1/test/test_x.py"))
    files = [{"filename": "Peer-1.tar.gz", "url": "https://example.org/file"}]
    answers = {
        "https://pypi.org/simple/peer/": json.dumps({"files": files}).encode(),
        "https://example.org/file": stream.getvalue(),
    }
    monkeypatch.setattr(sources, "_read", answers.__getitem__)
    digest = hashlib.sha256(stream.getvalue()).hexdigest()
    source = sources.Archive("Peer", "1", digest, "peer-1.tar.gz")
    assert (source.obtain(tmp_path, None) / "test" / "test_x.py").is_file()

    with pytest.raises(sources.Missing, match="no file peer-2"):
        dataclasses.replace(source, file="peer-2.tar.gz").obtain(tmp_path, None)

    def unreachable(url):
        raise OSError("no route to the index")

    monkeypatch.setattr(sources, "_read", unreachable)
    with pytest.raises(sources.Missing, match=r"peer-2.tar.gz could not.*no route"):
        dataclasses.replace(source, file="peer-2.tar.gz").obtain(tmp_path, None)


def test_a_clone_without_the_recorded_commit_is_refused(tmp_path):
    source = sources.Checkout("peer", "https://example.org/peer", "0" * 40)
    with pytest.raises(sources.Missing):
        source.obtain(tmp_path, tmp_path)


@pytest.mark.parametrize("dim", [1, 2, 8])
def test_every_point_stands_for_a_network_and_near_ones_for_the_same(dim, rng):
    space = Points(dim)
    X = 4 * torch.rand(200, dim, generator=rng, dtype=torch.float64) - 2
    nets = space.decode(X)
    assert all(net in spaces.NASBenchMacro() for net in nets)
    assert space.decode(X + 1e-9) == nets
    assert len({net.spec for net in nets}) > 150
