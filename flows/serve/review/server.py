"""The server of the review page: on this machine only, behind request_guard.py and a login of its own."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from data.errors import DataError, Fault
from data.storage import atomic_write
from flows.processes.login import of_server
from flows.processes.request_guard import HEADERS, Guard, own_names
from flows.serve.review.app import Project, create_app
from tasks.common.config import Params
from tasks.common.errors import TaskError

HOST = "127.0.0.1"
FILE = Path(".prefect/review_login")
"""Login of the page; it allows to see the images and to decide."""
VARIABLE = "POINTS2MODEL_REVIEW_AUTH"
"""Environment variable with the login, used instead of the file."""
OPENER = Path(".prefect/review.html")
"""Leads a browser to the page with the login, which is then on no command line."""
SHUTDOWN = 3
"""Seconds that running requests have when the server ends."""
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def listener(port: int) -> socket.socket:
    """A socket that listens on the port; 0 takes a free one.

    Raises:
        TaskError: the port is in use.
    """
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        step = "choose another one with --port; 0 takes a free one"
        found = error.strerror or str(error)
        raise TaskError(str(Fault(f"port {port}", HOST, found, "a free port", step))) from None
    # Connections inherit it; asyncio sets it on sockets of another kind only. Without it each response takes 40 ms
    # more, until the browser confirms its headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def address(listening: socket.socket) -> str:
    """Of the page."""
    return f"http://{HOST}:{listening.getsockname()[1]}/"


def guarded(project: Project, login: str, port: int) -> Guard:
    """The application behind the checks of requests and the login, as a server on the port has it."""
    headers = {**HEADERS, "Content-Security-Policy": _PAGE}
    return Guard(create_app(project), own_names(HOST, port), login, headers)


def make_server(project: Project, login: str, port: int) -> Any:
    """uvicorn's server; `run([socket])` serves until a signal, or until its `should_exit` is set."""
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            guarded(project, login, port), lifespan="off", log_level="warning", access_log=False, proxy_headers=False,
            server_header=False, timeout_graceful_shutdown=SHUTDOWN,
        )
    )  # fmt: skip


def open_browser(root: Path, place: str, login: str) -> bool:
    """Opens the page in a browser, logged in; whether there is a browser.

    A file that only this user can read leads there: the command line of a browser is seen by all users.
    """
    path = root / OPENER
    target = json.dumps(f"{place}#login={quote(login, safe='')}").replace("<", "\\u003c")
    with atomic_write(path) as partial:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        partial.write_text(
            f'<!doctype html><meta charset="utf-8"><title>Review</title><script>location.replace({target})</script>\n',
            encoding="utf-8",
        )
    try:
        return webbrowser.open(path.resolve().as_uri())
    except (webbrowser.Error, OSError):
        return False


@contextmanager
def review_served(root: Path, params: Params, say: Callable[[str], None], port: int) -> Iterator[None]:
    """Serves the page in a thread meanwhile. If it can't be served, a line says why, and nothing is raised.

    Args:
        root: the project's folder.
        params: of the project.
        say: takes a line for people.
        port: where it is in use, or 0, a free one is taken.
    """
    in_use = ""
    try:
        login, _ = of_server(root, FILE, VARIABLE)
        project = Project(params, root, user_name() or "reviewer")
        try:
            listening = listener(port)
        except TaskError:
            in_use = f" (port {port} is in use; choose one with --review-port)"
            listening = listener(0)
    except (TaskError, DataError, OSError) as error:
        say(f"the review page isn't served: {error}")
        yield
        return
    with listening:
        server = make_server(project, login, listening.getsockname()[1])
        thread = threading.Thread(target=server.run, args=([listening],), name="review", daemon=True)
        thread.start()
        place = f"that of {VARIABLE}" if VARIABLE in os.environ else f"it is in {FILE}"
        say(f"review: {address(listening)}{in_use}; it needs a login: {place}")
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(2 * SHUTDOWN)


def user_name() -> str:
    """The user's name in the form of a reviewer's; "" if there is none."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        name = ""
    return re.sub(r"[^a-z0-9._@+-]+", "-", name.lower()).strip("._@+-")[:64]
