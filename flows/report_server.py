"""Serves a project's reports to a browser: the newest, and each that DVC's cache has, by its hash.

Prefect's UI links to them; a browser follows no link from there to a file.
"""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from flows.dvc_repo import DvcRepo, PipelineError
from flows.report_address import HOST, PORT, VARIABLE, newest_address

REPORT = Path("workspace/report.html")
_PAGE = b"<!doctype html"
_OF_HASH = re.compile(r"/reports/([0-9a-f]{32})\.html")


class ReportServer(http.server.ThreadingHTTPServer):
    """Answers `/` and `/report.html` with the project's present report, `/reports/MD5.html` with the one of that hash.

    Nothing else is served, nor anything in DVC's cache that is no page. There is no login: `host` is this machine
    alone unless told otherwise.
    """

    daemon_threads = True

    def __init__(self, root: Path, host: str = HOST, port: int = PORT) -> None:
        """
        Raises:
            PipelineError: `root` is no project.
            OSError: the port is taken.
        """
        self.root, self.repo = root, DvcRepo(root)
        super().__init__((host, port), _Handler)

    @property
    def address(self) -> str:
        """Of the newest report."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/report.html"

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

    def do_GET(self) -> None:
        page = self.server.page(self.path.split("?", maxsplit=1)[0])
        status = HTTPStatus.OK if page is not None else HTTPStatus.NOT_FOUND
        if page is None:
            page = (
                b"<!doctype html><title>No such report</title><p>This project's DVC cache has no such report, or a "
                b"damaged one: it may "
                b"be another project's, or on another machine (<code>dvc pull</code>). "
                b'<a href="/report.html">The newest one here</a>'
            )
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(page)

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
        try:
            server = ReportServer(root, port=port)
        except OSError as error:
            taken = f" (port {port}: {error.strerror or error}; choose one with --reports-port)"
            server = ReportServer(root, port=0)
    except (PipelineError, OSError) as error:
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
        say(f"reports: {newest_address()}{behind}{taken}")
        try:
            yield
        finally:
            if named is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = named
            server.shutdown()
            thread.join()
