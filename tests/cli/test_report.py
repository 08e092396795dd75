import signal
import socket
import threading

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.cli import report
from hotnas_torch.cli.main import main
from hotnas_torch.plot.report import write_report
from hotnas_torch.search import RandomSearch, run
from tests.generators.searches import objective, strategy


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    path = tmp_path_factory.mktemp("reported") / "search.sqlite"
    run(strategy(), objective, budget=3, storage=path, progress=False)
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--watch", "--out", "x.html"], "--out: --watch writes no file"),
        (["--watch", "--overwrite"], "--overwrite: --watch writes no file"),
        (["--port", "80"], "--port is for --watch"),
        (["--watch", "--port", "70000"], "--port: must be in 0..65535; got 70000"),
        (["--watch", "--port", "-1"], "--port: must be in 0..65535; got -1"),
        (["--watch", "--port", "many"], "invalid int value: 'many'"),
        (["--watch", "--space", "nowhere"], "--space"),
    ],
)
def test_options_that_do_not_fit_are_refused(storage, capsys, options, message):
    assert main(["report", str(storage), *options]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_a_folder_and_a_missing_folder_are_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--watch"]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "absent" / "x.sqlite"), "--watch"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_port_in_use_is_named(storage, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["report", str(storage), "--watch", "--port", str(port)]) == 2
    assert f"--port: port {port} is in use" in capsys.readouterr().err


def test_the_page_is_opened_and_what_changes_is_said(tmp_path, capsys, monkeypatch):
    opened = []
    storage = tmp_path / "later.sqlite"

    def begin(url):
        opened.append(url)
        run(strategy(), objective, budget=2, storage=storage, progress=False)
        threading.Timer(1.0, signal.raise_signal, [signal.SIGTERM]).start()
        return False

    monkeypatch.setattr(report.webbrowser, "open", begin)
    monkeypatch.setattr(report, "_SECONDS", 0.05)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["report", str(storage), "--watch", "--open"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    told = capsys.readouterr().out.splitlines()
    assert opened[0] in told[0]
    assert told[1] == f"there is no browser to open {opened[0]} with"
    assert told[2:] == [
        f"Waiting for {storage}: it is not there yet.",
        "Not running: the search has ended or was interrupted after 2 evaluations.",
    ]


def test_what_is_counted_is_said_while_a_search_runs(tmp_path, capsys, monkeypatch):
    states = ["Running: 2 evaluations so far.", "Running: 2 evaluations so far."]
    states += ["Running: 5 evaluations so far.", "Not running: ..."]
    looks = iter(states)

    class Report:
        url, state = "http://127.0.0.1:1/", next(looks)

        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self):
            before, self.state = self.state, next(looks, self.state)
            if (
                self.state != before and self.state == states[-1]
            ):  # once: it ends what comes later, too
                threading.Timer(0.5, signal.raise_signal, [signal.SIGTERM]).start()

    monkeypatch.setattr(report, "LiveReport", Report)
    monkeypatch.setattr(report, "_SECONDS", 0.1)
    assert main(["report", str(tmp_path / "s.sqlite"), "--watch"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [states[0], states[2], states[3]]


def test_a_page_says_how_much_of_a_front_is_drawn_and_what_was_searched(tmp_path, capsys):
    space = spaces.Joint(spaces.NASBenchMacro(), {"lr": spaces.Log(1e-4, 1.0), "batch": [32, 64]})

    def two(net):
        return {"loss": net.values["lr"], "gain": net.values["lr"]}

    path = tmp_path / "s.sqlite"
    strategy = RandomSearch(
        space,
        generator=torch.Generator().manual_seed(0),
        objectives={"loss": "minimize", "gain": "maximize"},
    )
    run(strategy, two, budget=9, storage=path, progress=False)
    write_report(path, tmp_path / "s.html", space=space)
    page = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert "4 of the 9 on the front, from one end to the other." in page
    assert "<title>random on nasbench_macro with lr, batch</title>" in page


def test_a_written_page_is_opened(storage, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(report.webbrowser, "open", lambda url: opened.append(url) or True)
    out = tmp_path / "a b.html"
    assert main(["report", str(storage), "--out", str(out), "--open"]) == 0
    assert opened == [out.as_uri()]
