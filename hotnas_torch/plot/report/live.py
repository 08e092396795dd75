"""The report of a search that is running, served to a browser on this machine."""

import errno
import json
import os
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hotnas_torch.arguments import integer
from hotnas_torch.errors import StorageError
from hotnas_torch.files import is_locked, open_ordinary
from hotnas_torch.plot.report.page import render_page, render_waiting
from hotnas_torch.plot.report.reading import NothingYetError, read_search
from hotnas_torch.spaces import SearchSpace

__all__ = ["LiveReport"]

_HOST = "127.0.0.1"
# What a browser on this machine may call it, also through a tunnel with another port; a page from
# elsewhere whose name was made to point here has another one.
_OWN_NAMES = {"127.0.0.1", "localhost"}
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Reading anew takes at most this share of the time.
_SHARE = 0.25


class LiveReport:
    """Serves the report of a search on 127.0.0.1 while the search runs; a context manager.

    The page asks once a second whether there is news and takes over what has changed; what was
    typed, sorted, opened and scrolled stays. Nothing but the page and its state is served, to
    nobody but browsers on this machine. The file need not be there yet, and may be of a search
    that several processes share.

    Args:
        storage: File that `hotnas_torch.search.run` writes.
        port: Port to listen on; 0 takes a free one.
        space: As for `write_report`.

    Attributes:
        url: Where the page is.
        state: What is said of the search, in one line.

    Raises:
        TypeError: `port` is no integer.
        ValueError: `port` is not in 0..65535.
        StorageError: The file is there and cannot be reported, see `write_report`; or its folder
            is not there.
        OSError: The port is in use, or not to be had.

    Example:
        Not run here, as it goes on until it is interrupted::

            with LiveReport("digits.sqlite") as report:
                print(report.url)
                while True:
                    report.update()
                    time.sleep(1.0)
    """

    def __init__(
        self, storage: str | PathLike[str], *, port: int = 0, space: SearchSpace | None = None
    ) -> None:
        port = integer("port", port, least=0)
        if port > 65535:
            raise ValueError(f"port must be in 0..65535; got {port}")
        self._path = Path(storage)
        if not self._path.absolute().parent.is_dir():
            raise StorageError(
                f"the folder of {self._path} does not exist (make it, or check the path)"
            )
        self._space = space
        self._version = 0
        self._seen: object = None
        self._content: object = None
        self._count = 0
        self._resting = 0.0  # not read again before this time
        self.state = ""
        self._page = b""
        self._answer = b""
        self._look()
        try:
            self._server = _Server((_HOST, port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(
                    errno.EADDRINUSE,
                    f"port {port} is in use (choose another one, or 0 for a free one)",
                ) from error
            raise
        self._server.report = self
        self.url = f"http://{_HOST}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="hotnas-report", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def answers(self) -> dict[str, tuple[str, bytes]]:
        """What is served, by path: its type and its content."""
        return {
            "/": ("text/html; charset=utf-8", self._page),
            "/state": ("application/json", self._answer),
        }

    def update(self) -> None:
        """Read the file again if it has changed; one that cannot be read just now is said so."""
        if time.monotonic() < self._resting:
            return
        try:
            self._look()
        except StorageError as error:
            self._say(f"Cannot be read at the moment: {error}")

    def _look(self) -> None:
        started = time.monotonic()
        changed = self._changed()
        if changed is None:
            self._wait(f"Waiting for {self._path}: it is not there yet.")
            return
        running = is_locked(Path(os.path.realpath(self._path)))
        if changed != self._seen:
            try:
                identity, result = read_search(self._path, space=self._space)
            except NothingYetError:
                self._wait(
                    "The search has begun; no evaluation has finished yet."
                    if running
                    else f"Waiting: {self._path} holds no finished evaluation yet."
                )
                return
            trials = [(trial.number, trial.elapsed) for trial in result.trials]
            content = (identity, trials, len(result.earlier))
            self._count = len(trials)
            # The writers of a shared search write signs of life, which change nothing here.
            if content != self._content:
                self._content = content
                self._version += 1
                live = (str(self._version), self._described(running))
                self._page = render_page(identity, result, self._path.name, live=live)
            self._seen = changed
            self._resting = time.monotonic() + (time.monotonic() - started) / _SHARE
        self._say(self._described(running))

    def _described(self, running: bool) -> str:
        count = f"{self._count:,} evaluation{'s' if self._count != 1 else ''}"
        if running:
            return f"Running: {count} so far."
        return f"Not running: the search has ended or was interrupted after {count}."

    def _changed(self) -> object:
        """Return what differs once the file was written; None: there is nothing to read."""
        try:
            found = self._path.stat()
            with open_ordinary(self._path) as file:
                header = file.read(28)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {self._path}: {error.strerror}") from error
        # SQLite counts its transactions there; the clock of a file may stand still for some.
        return (found.st_ino, found.st_mtime_ns, header[24:]) if found.st_size else None

    def _wait(self, state: str) -> None:
        self._seen = self._content = None
        if self.state != state or not self._page:
            self._version += 1
            self._page = render_waiting(self._path.name, (str(self._version), state))
        self._say(state)

    def _say(self, state: str) -> None:
        self.state = state
        described = {"version": str(self._version), "state": state}
        self._answer = json.dumps(described).encode()


class _Server(ThreadingHTTPServer):
    """Answers with what a report holds at the moment."""

    daemon_threads = True
    report: LiveReport

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a browser that went away while it was answered is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "hotnas", ""
    timeout = 30  # a connection on which nothing comes

    def parse_request(self) -> bool:
        """Refuse all but GET of what there is, by a name of this machine."""
        if not super().parse_request():
            return False
        host = (self.headers.get("Host") or "").rpartition(":")
        name = host[0] if host[2].isdigit() and host[1] else self.headers.get("Host") or ""
        if self.command != "GET":
            return self._refuse(HTTPStatus.METHOD_NOT_ALLOWED)
        if name.lower() not in _OWN_NAMES or len(self.headers.get_all("Host") or []) != 1:
            return self._refuse(HTTPStatus.FORBIDDEN)
        if self.path.partition("?")[0] not in self.server.report.answers:
            return self._refuse(HTTPStatus.NOT_FOUND)
        return True

    def do_GET(self) -> None:
        """Send the page or its state."""
        kind, content = self.server.report.answers[self.path.partition("?")[0]]
        self._send(HTTPStatus.OK, kind, content)

    def _refuse(self, status: HTTPStatus) -> bool:
        self.close_connection = True  # the body of what was refused is not read
        self._send(status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode())
        return False

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(content)), **_HEADERS}
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = "GET"
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing about requests."""
