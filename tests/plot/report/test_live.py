import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import timedelta

import pytest

from hotnas_torch import spaces
from hotnas_torch.errors import StorageError
from hotnas_torch.plot.report import LiveReport
from hotnas_torch.search import run
from tests.generators.searches import objective, strategy


def state(report):
    with urllib.request.urlopen(report.url + "state") as answer:
        return json.load(answer)


def asked(report, method="GET", path="/", **headers):
    host, port = report.url.split("/")[2].split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


@pytest.fixture
def report(searched):
    with LiveReport(searched) as served:
        yield served


def test_the_page_and_its_state_are_served_and_nothing_else(report, searched):
    status, headers, page = asked(report)
    assert status == 200
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers
    assert b"connect-src &#39;self&#39;" in page
    assert set(state(report)) == {"version", "state"}
    for path in ("/x", "/../etc/passwd", f"/{searched.name}", str(searched), "/state/", "*"):
        assert asked(report, path=path)[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"):
        status, headers, _ = asked(report, method)
        assert (status, headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost@evil", "[::1"],
)
def test_a_page_from_elsewhere_that_points_here_is_refused(report, host):
    assert asked(report, Host=host)[0] == 403
    assert asked(report, path="/state", Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:70"])
def test_a_tunnel_may_have_another_port(report, host):
    assert asked(report, Host=host)[0] == 200


def test_what_is_no_request_ends_nothing(report):
    address = ("127.0.0.1", int(report.url.split(":")[2].strip("/")))
    for text in (b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 70_000, b""):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(text)
    assert asked(report)[0] == 200


def test_only_this_machine_reaches_it(report):
    assert report._server.server_address[0] == "127.0.0.1"


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path):
    storage = tmp_path / "later.sqlite"
    with LiveReport(storage) as report:
        assert state(report)["state"] == f"Waiting for {storage}: it is not there yet."
        assert b"later.sqlite" in asked(report)[2]
        first = state(report)["version"]
        run(strategy(), objective, budget=3, storage=storage, progress=False)
        report.update()
        told = state(report)
        assert told["version"] != first
        assert told["state"] == (
            "Not running: the search has ended or was interrupted after 3 evaluations."
        )
        again = state(report)["version"]
        report.update()
        assert state(report)["version"] == again  # nothing has changed
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(report.url)


@pytest.mark.parametrize("shared", [False, timedelta(seconds=60)])
def test_a_search_is_followed_while_it_runs(tmp_path, shared):
    storage = tmp_path / "search.sqlite"
    seen = []
    with LiveReport(storage) as report:

        def watched(net):
            report._resting = 0.0
            report.update()
            seen.append(report.state)
            return objective(net)

        run(strategy(), watched, budget=3, storage=storage, progress=False, shared=shared)
    assert seen == [
        "The search has begun; no evaluation has finished yet.",
        "Running: 1 evaluation so far.",
        "Running: 2 evaluations so far.",
    ]


def test_what_cannot_be_reported_is_refused_before_anything_is_served(tmp_path, searched):
    with pytest.raises(StorageError, match=r"folder of .* does not exist"):
        LiveReport(tmp_path / "absent" / "x.sqlite")
    (tmp_path / "text.sqlite").write_text("no database")
    with pytest.raises(StorageError, match="it must be a file that hotnas_torch wrote"):
        LiveReport(tmp_path / "text.sqlite")
    own = tmp_path / "own.sqlite"
    space = spaces.NASBench201(contract_skip=True)
    run(strategy(space), objective, budget=2, storage=own, progress=False)
    with pytest.raises(StorageError, match=r"pass space="):
        LiveReport(own)
    with pytest.raises(ValueError, match=r"port must be in 0\.\.65535; got 70000"):
        LiveReport(searched, port=70_000)
    with pytest.raises(TypeError, match="port must be an integer"):
        LiveReport(searched, port="80")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is in use"):
            LiveReport(searched, port=port)


def test_a_file_that_breaks_leaves_the_last_page(tmp_path, searched):
    storage = tmp_path / "s.sqlite"
    storage.write_bytes(searched.read_bytes())
    with LiveReport(storage) as report:
        before = asked(report)[2]
        storage.write_text("no database any more")
        report._resting = 0.0
        report.update()
        assert state(report)["state"].startswith("Cannot be read at the moment: ")
        assert asked(report)[2] == before


def test_an_open_page_follows_and_keeps_what_was_typed_and_where_it_was(visit, tmp_path):
    storage = tmp_path / "search.sqlite"
    run(strategy(), objective, budget=8, storage=storage, progress=False)
    with LiveReport(storage) as report:
        page = visit(report.url)
        page.locator("#filter").fill("conv_3x3")
        page.locator("#table th button").nth(2).click()
        page.locator("#identity").evaluate("it => { it.open = true }")
        page.evaluate("scrollTo(0, 700)")
        page.locator("#filter").focus()
        assert page.locator("#table tbody tr").count() == 8
        place = page.locator("#filter").bounding_box()["y"]
        run(strategy(), objective, budget=12, storage=storage, progress=False)
        report._resting = 0.0
        report.update()
        page.locator("#table tbody tr").nth(11).wait_for(state="attached")
        assert page.locator("#filter").input_value() == "conv_3x3"
        assert page.evaluate("document.activeElement.id") == "filter"
        assert page.locator("#identity").get_attribute("open") is not None
        assert abs(page.locator("#filter").bounding_box()["y"] - place) < 2.0
        head = page.locator("#table th").nth(2)
        assert head.get_attribute("aria-sort") == "ascending"
        shown = page.locator("#table tbody tr:not([hidden])")
        assert 0 < shown.count() < 12
        assert all("conv_3x3" in text for text in shown.all_text_contents())
        assert "12 evaluations" in page.locator("#state").inner_text()


def test_a_waiting_page_becomes_the_report(visit, tmp_path):
    storage = tmp_path / "search.sqlite"
    with LiveReport(storage) as report:
        page = visit(report.url)
        assert "not there yet" in page.locator("#state").inner_text()
        run(strategy(), objective, budget=4, storage=storage, progress=False)
        report.update()
        page.wait_for_selector("#map .dot")
        assert page.locator("h1").inner_text() == "random on nasbench201"
        page.locator("#values .lead").hover(force=True)
        assert page.locator("#tip").is_visible()


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_a_signal_ends_the_command_well(searched, number):
    command = [sys.executable, "-m", "hotnas_torch", "report", str(searched), "--watch"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        timer = threading.Timer(120, process.kill)
        timer.start()
        url = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())[0]
        with urllib.request.urlopen(url) as answer:
            assert answer.status == 200
        assert "Not running" in process.stdout.readline()
        started = time.monotonic()
        os.kill(process.pid, number)
        _, errors = process.communicate()
        timer.cancel()
    assert (process.returncode, errors) == (0, "")
    assert time.monotonic() - started < 5.0
