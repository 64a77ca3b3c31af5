"""Serves a project's reports over HTTP: the newest, and each in DVC's cache, by its hash.

Prefect's UI links to them; a browser follows no link from a web page to a file.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
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

REPORT, PAGES = Path("workspace/report.html"), Path("workspace/report")
_PAGE = b"<!doctype html"
_OF_HASH = re.compile(
    r"/reports/([0-9a-f]{32})(?:\.html|/report\.html|/report/([a-z]+(?:-[0-9]+)?\.(?:html|csv)))"
)
"""A report by its hash, or a file of the folder report/ that it links to."""
_NEWEST = re.compile(r"/(?:report\.html)?|/report/([a-z]+(?:-[0-9]+)?\.(?:html|csv))")
_FOLDER = re.compile(rb'<meta name="report-pages" content="([0-9a-f]{32}\.dir)">')
"""In a report: the hash of its folder."""
_CONTENT = (  # a report has no script and loads nothing
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEAD = 1000
"""Bytes at a report's beginning, before anything that comes from data."""
REQUEST_SECONDS, RESPONSE_SECONDS = 5.0, 120.0
MAX_CONNECTIONS = 32
"""At once; a browser has few."""


class ReportServer(http.server.ThreadingHTTPServer):
    """Serves the newest report at `/` and `/report.html`, and the one of a hash at `/reports/MD5.html`.

    The pages that it links to are at `/report/NAME` and `/reports/MD5/report/NAME`. Nothing else is served, and no file
    of DVC's cache that isn't a report or named in one's folder. On this machine a report's hash is enough to
    see it, so that links in Prefect's UI need no login; hashes can't be guessed. Other requests need the login.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, root: Path, login: str | None, host: str = HOST, port: int = PORT) -> None:
        """
        Args:
            root: the project's folder.
            login: `user:password`; None serves reports by their hash only.
            host: the address to listen on.
            port: 0 takes a free one.

        Raises:
            PipelineError: `root` is no project.
            TaskError: other machines can reach the address, and there is no login.
            OSError: the port is in use.
        """
        self.is_local = is_loopback(host)
        if login is None and not self.is_local:
            step = f"set {REPORTS}, or listen on 127.0.0.1"
            raise TaskError(
                str(Fault("--host", host, "no login", "one, where other machines reach it", step))
            )
        self.root, self.repo = root, DvcRepo(root)
        self._connections: dict[socket.socket, bool] = {}  # the oldest first; True once the request is read
        self._lock = threading.Lock()
        if ":" in host:
            self.address_family = socket.AF_INET6
        self._login = None if login is None else b"Basic " + base64.b64encode(login.encode())
        super().__init__((host, port), _Handler)
        self.names = own_names(host, self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handles it in a thread. With too many connections, closes the oldest one that has sent no request yet."""
        with self._lock:
            waiting = next((one for one, is_read in self._connections.items() if not is_read), None)
            if len(self._connections) >= MAX_CONNECTIONS and waiting is not None:
                del self._connections[waiting]
                with contextlib.suppress(OSError):
                    waiting.shutdown(socket.SHUT_RDWR)
            is_accepted = len(self._connections) < MAX_CONNECTIONS
            if is_accepted:
                self._connections[request] = False
        if is_accepted:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def request_is_read(self, request: socket.socket) -> None:
        """Notes that the request was read, so that it isn't closed for a newer one."""
        with self._lock:
            if request in self._connections:
                self._connections[request] = True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handles one request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._connections.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores a connection that breaks off."""

    def is_allowed(self, path: str, logins: list[str]) -> bool:
        """Whether a path is served to a request with these headers `Authorization`."""
        if self.is_local and _OF_HASH.fullmatch(path):
            return True
        return (
            self._login is not None
            and len(logins) == 1
            and hmac.compare_digest(logins[0].encode("latin-1", "replace"), self._login)
        )

    @property
    def address(self) -> str:
        """The address of the newest report."""
        host = f"{self.server_address[0]!s}"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/report.html"

    def page(self, path: str) -> bytes | None:
        """The page, or CSV file, at a path; None if there is none."""
        if (found := _NEWEST.fullmatch(path)) is not None:
            file = PAGES / found[1] if found[1] else REPORT
            return _read(self.root / file, file.name)
        found = _OF_HASH.fullmatch(path)
        if found is None:
            return None
        newest = _read(self.root / REPORT)
        # The newest report too, if the cache was cleared. Both are hashed: an object may be damaged.
        report = next(
            (
                one
                for one in (_read(self.repo.cache_file(found[1])), newest)
                if one is not None and _md5(one) == found[1]
            ),
            None,
        )
        if report is None or not found[2]:
            return report
        cached = self._cached(report, found[2])
        return (
            _read(self.root / PAGES / found[2], found[2]) if cached is None and report == newest else cached
        )

    def _cached(self, report: bytes, name: str) -> bytes | None:
        """A file of a report's folder from DVC's cache; None if the cache doesn't have it, or a damaged one."""
        folder = _FOLDER.search(report, 0, _HEAD)
        try:
            hash = folder[1].decode() if folder else ""
            listed = self.repo.cache_file(hash).read_bytes() if folder else b"[]"
            if folder and f"{_md5(listed)}.dir" != hash:
                return None
            for row in json.loads(listed):
                if row["relpath"] == name:
                    content = _read(self.repo.cache_file(row["md5"]), name)
                    return content if content is not None and _md5(content) == row["md5"] else None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ReportServer
    timeout = REQUEST_SECONDS

    def handle(self) -> None:
        """Handles one request; closes the connection if it is too slow: `timeout` limits single reads only."""
        self._late = threading.Timer(REQUEST_SECONDS, self._cut)
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
        """Sends a page, or an error."""
        self._late.cancel()
        self.server.request_is_read(self.connection)
        self.connection.settimeout(RESPONSE_SECONDS)
        path = self.path.split("?", maxsplit=1)[0]
        why = refusal(self.server.names, lambda name: self.headers.get_all(name, []), self.command)
        if why is not None:
            self._respond(HTTPStatus.FORBIDDEN, why.encode("ascii", "replace"), "text/plain")
        elif not self.server.is_allowed(path, self.headers.get_all("Authorization", [])):
            self._respond(
                HTTPStatus.UNAUTHORIZED,
                b"<!doctype html><title>Login</title><p>The login for reports is in the project's folder, in "
                b"<code>.prefect/reports_login</code>, as user:password. Links in Prefect's UI need none.",
                "text/html",
                {"WWW-Authenticate": 'Basic realm="reports"'},
            )
        elif (page := self.server.page(path)) is None:
            self._respond(
                HTTPStatus.NOT_FOUND,
                b"<!doctype html><title>No such report</title><p>This project's DVC cache has no such report, or a "
                b"damaged one: it may be another project's, or on another machine (<code>dvc pull</code>). "
                b'<a href="/report.html">The newest one here</a>',
                "text/html",
            )
        elif path.startswith("/reports/") and path.count("/") == 2:
            # Its links are relative to a folder of its own.
            place = f"{path.removesuffix('.html').rpartition('/')[2]}/report.html"
            self._respond(HTTPStatus.FOUND, b"", "text/html", {"Location": place})
        else:
            self._respond(HTTPStatus.OK, page, "text/csv" if path.endswith(".csv") else "text/html")

    do_HEAD = do_GET

    def _respond(
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
        """Adds the headers that protect the page from other sites."""
        for name, value in {
            **HEADERS,
            "Content-Security-Policy": _CONTENT,
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        """Hides Python's version."""
        return "points2model"

    def log_message(self, format: str, *args: object) -> None:
        """Logs no requests."""


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _read(path: Path, name: str = REPORT.name) -> bytes | None:
    """The file called `name`; None if there is none, or it should be a page and isn't (the cache has models too)."""
    try:
        with path.open("rb") as file:
            if name.endswith(".html") and file.read(len(_PAGE)).lower() != _PAGE:
                return None
            file.seek(0)
            return file.read()
    except OSError:
        return None


def login_place() -> str:
    """Where the login for reports is, for messages."""
    return f"that of {REPORTS}" if REPORTS in os.environ else f"it is in {REPORTS_FILE}"


@contextmanager
def reports_served(root: Path, say: Callable[[str], None], port: int) -> Iterator[None]:
    """Serves reports in a thread meanwhile; runs that this process starts have the address in their environment.

    Where the port is in use, such as by another project, a free one is taken; links of earlier runs then lead to that
    other project, which doesn't have these reports. If reports can't be served, a line says why, and nothing is raised.

    Args:
        root: the project's folder.
        say: takes a line for people.
        port: of `serve --reports-port`; 0 takes a free one.
    """
    in_use = ""
    try:
        login, _ = of_server(root, REPORTS_FILE, REPORTS)
        try:
            server = ReportServer(root, login, port=port)
        except OSError as error:
            in_use = f" (port {port}: {error.strerror or error}; choose one with --reports-port)"
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
        say(f"reports: {newest_address()}{behind}{in_use}; the newest one needs a login: {login_place()}")
        try:
            yield
        finally:
            if named is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = named
            server.shutdown()
            thread.join()
