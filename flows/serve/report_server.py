"""Serves a project's reports to a browser: the newest, and each that DVC's cache has, by its hash.

Prefect's UI links to them; a browser follows no link from there to a file.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.server
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from data.errors import Fault
from flows.dvc.repo import DvcRepo, PipelineError
from flows.processes.login import REPORTS, REPORTS_FILE, of_server
from flows.processes.request_guard import HEADERS, is_loopback, own_names, refusal
from flows.run.report_address import HOST, PORT, VARIABLE, newest_address
from tasks.common.errors import TaskError

REPORT = Path("workspace/report.html")
_PAGE = b"<!doctype html"
_OF_HASH = re.compile(r"/reports/([0-9a-f]{32})\.html")
_CONTENT = (  # a report has no script and loads nothing
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
ASKING, SENDING = 5.0, 120.0
"""Seconds that a request and its answer may take."""
MOST = 32
"""Connections at once; a browser has few."""


class ReportServer(http.server.ThreadingHTTPServer):
    """Answers `/` and `/report.html` with the project's present report, `/reports/MD5.html` with the one of that hash.

    Nothing else is served, nor anything in DVC's cache that is no page. Who knows a report's hash may see it, on this
    machine: a link in Prefect's UI needs no login, and nobody guesses one. All else needs the login.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, root: Path, login: str | None, host: str = HOST, port: int = PORT) -> None:
        """
        Args:
            root: the project's folder.
            login: `user:password`; None shows reports by their hash alone.
            host: the address to listen on.
            port: 0 takes a free one.

        Raises:
            PipelineError: `root` is no project.
            TaskError: others than this machine would reach it, and there is no login.
            OSError: the port is taken.
        """
        self.is_local = is_loopback(host)
        if login is None and not self.is_local:
            step = f"set {REPORTS}, or listen on 127.0.0.1"
            raise TaskError(
                str(Fault("--host", host, "no login", "one, where other machines reach it", step))
            )
        self.root, self.repo = root, DvcRepo(root)
        self._connections: dict[socket.socket, bool] = {}  # the oldest first; whether its request is read
        self._lock = threading.Lock()
        if ":" in host:
            self.address_family = socket.AF_INET6
        self._login = None if login is None else b"Basic " + base64.b64encode(login.encode())
        super().__init__((host, port), _Handler)
        self.names = own_names(host, self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread. Where there are many connections, the oldest one that waits for its request ends."""
        with self._lock:
            waiting = next((one for one, is_read in self._connections.items() if not is_read), None)
            if len(self._connections) >= MOST and waiting is not None:
                del self._connections[waiting]
                with contextlib.suppress(OSError):
                    waiting.shutdown(socket.SHUT_RDWR)
            is_taken = len(self._connections) < MOST
            if is_taken:
                self._connections[request] = False
        if is_taken:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def request_is_read(self, request: socket.socket) -> None:
        """It isn't ended for a newer one from now on."""
        with self._lock:
            if request in self._connections:
                self._connections[request] = True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One request, from beginning to end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._connections.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks off is no matter."""

    def may_see(self, path: str, shown: list[str]) -> bool:
        """Whether a path is served to someone who shows these headers `Authorization`."""
        if self.is_local and _OF_HASH.fullmatch(path):
            return True
        return (
            self._login is not None
            and len(shown) == 1
            and hmac.compare_digest(shown[0].encode("latin-1", "replace"), self._login)
        )

    @property
    def address(self) -> str:
        """Of the newest report."""
        host = f"{self.server_address[0]!s}"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/report.html"

    def page(self, path: str) -> bytes | None:
        """What is to be found at a path; None for nothing."""
        wanted = _OF_HASH.fullmatch(path)
        if wanted is None:
            return _read(self.root / REPORT) if path in ("/", "/report.html") else None
        # The newest where the cache was cleared. Both are hashed: an object may be damaged.
        for page in map(_read, (self.repo.cache_file(wanted[1]), self.root / REPORT)):
            if page is not None and hashlib.md5(page, usedforsecurity=False).hexdigest() == wanted[1]:
                return page
        return None


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ReportServer
    timeout = ASKING

    def handle(self) -> None:
        """One request, cut off where it comes too slowly: the timeout is of each read alone."""
        self._late = threading.Timer(ASKING, self._cut)
        self._late.daemon = True
        self._late.start()
        try:
            super().handle()
        finally:
            self._late.cancel()

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        """A page, or why there is none."""
        self._late.cancel()
        self.server.request_is_read(self.connection)
        self.connection.settimeout(SENDING)
        path = self.path.split("?", maxsplit=1)[0]
        why = refusal(self.server.names, lambda name: self.headers.get_all(name, []), self.command)
        if why is not None:
            self._answer(HTTPStatus.FORBIDDEN, why.encode("ascii", "replace"), "text/plain")
        elif not self.server.may_see(path, self.headers.get_all("Authorization", [])):
            self._answer(
                HTTPStatus.UNAUTHORIZED,
                b"<!doctype html><title>Login</title><p>The login for reports is in the project's folder, in "
                b"<code>.prefect/reports_login</code>, as user:password. Links in Prefect's UI need none.",
                "text/html",
                {"WWW-Authenticate": 'Basic realm="reports"'},
            )
        elif (page := self.server.page(path)) is not None:
            self._answer(HTTPStatus.OK, page, "text/html")
        else:
            self._answer(
                HTTPStatus.NOT_FOUND,
                b"<!doctype html><title>No such report</title><p>This project's DVC cache has no such report, or a "
                b"damaged one: it may be another project's, or on another machine (<code>dvc pull</code>). "
                b'<a href="/report.html">The newest one here</a>',
                "text/html",
            )

    do_HEAD = do_GET

    def _answer(
        self, status: HTTPStatus, content: bytes, kind: str, further: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (further or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def end_headers(self) -> None:
        """With what keeps other pages from this one."""
        for name, value in {
            **HEADERS,
            "Content-Security-Policy": _CONTENT,
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        """Not Python's version."""
        return "points2model"

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of each request."""


def _read(path: Path) -> bytes | None:
    """A page; None where the file is absent or something else (the cache has data and models too)."""
    try:
        with path.open("rb") as file:
            if file.read(len(_PAGE)).lower() != _PAGE:
                return None
            file.seek(0)
            return file.read()
    except OSError:
        return None


def login_place() -> str:
    """Where people find the login for reports."""
    return f"that of {REPORTS}" if REPORTS in os.environ else f"it is in {REPORTS_FILE}"


@contextmanager
def reports_served(root: Path, say: Callable[[str], None], port: int) -> Iterator[None]:
    """Serves reports in a thread meanwhile, for runs that this process starts: they learn by their environment where.

    Where the port is taken, by another project for one, a free one is used; links that runs have left before then lead
    to that other project, which has no such reports and says so. What can't be served is said, and ends nothing.

    Args:
        root: the project's folder.
        say: gets a line for people.
        port: the wanted one, of `serve --reports-port`; 0 takes a free one.
    """
    taken = ""
    try:
        login, _ = of_server(root, REPORTS_FILE, REPORTS)
        try:
            server = ReportServer(root, login, port=port)
        except OSError as error:
            taken = f" (port {port}: {error.strerror or error}; choose one with --reports-port)"
            server = ReportServer(root, login, port=0)
    except (PipelineError, TaskError, OSError) as error:
        say(f"reports aren't served: {error}")
        yield
        return
    here = server.address.removesuffix("/report.html")
    named = os.environ.get(VARIABLE)
    with server:
        thread = threading.Thread(target=server.serve_forever, name="reports", daemon=True)
        thread.start()
        os.environ[VARIABLE] = named or here
        behind = f" ({VARIABLE}), served on {here}" if named else ""
        say(f"reports: {newest_address()}{behind}{taken}; the newest one asks for a login: {login_place()}")
        try:
            yield
        finally:
            if named is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = named
            server.shutdown()
            thread.join()
