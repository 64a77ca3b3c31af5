"""The Prefect server of a run without a server of its own: it lives as long as this process, with a login of its own.

Prefect's own temporary server has no login, and it is in the run's process group. A signal to that group (Ctrl-C,
`timeout`, systemd) ends the server first; the run then hangs for a minute, because it can't record that it was stopped.
This server has a session of its own. It ends when this process ends, in whatever way, because it waits for the end of a
pipe from this process.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import IO

from flows.processes.login import API, CLIENT, new_login
from flows.processes.prefect_local import has_server
from flows.processes.server_process import COMMAND, LOG, WITH_INPUT, server_environment
from tasks.common.errors import TaskError

STARTUP = 180.0
"""Seconds until the first response; a busy machine with a new database needs half a minute."""
SHUTDOWN = 12.0
"""Seconds from the end of this process's pipe until the server is killed."""


class TemporaryServer:
    """Starts at once, while Prefect is still being imported; call `wait` before the first flow runs."""

    def __init__(self, root: Path) -> None:
        """
        Args:
            root: the project's folder; the server's log is in its .prefect/.
        """
        self._root = root
        # Bound here, so that no other process can take the port. A request waits until the server is up.
        with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
            login = new_login()
            os.environ[API] = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            os.environ[CLIENT] = login
            os.environ["PREFECT_UI_URL"] = ""  # it has no UI, so nothing may link to it
            log: IO[bytes] | int = subprocess.DEVNULL
            with contextlib.suppress(OSError):  # a full disk
                (root / LOG).parent.mkdir(parents=True, exist_ok=True)
                log = stack.enter_context((root / LOG).open("ab"))
            kind = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
            self._process = subprocess.Popen(
                [*COMMAND, str(listener.fileno()), WITH_INPUT],
                cwd=root, env={**server_environment(login), **kind}, pass_fds=(listener.fileno(),),
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        # Registered before Prefect's own functions, which still send their last events: last in, first out.
        atexit.register(self._end)

    def wait(self) -> None:
        """Returns when the server is up.

        Raises:
            TaskError: it doesn't respond within STARTUP seconds.
        """
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            opener.open(f"{os.environ[API]}/health", timeout=STARTUP).close()
        except OSError as error:
            log = self._root / LOG
            raise TaskError(f"the run's Prefect server doesn't start ({error}); see {log}") from None

    def _end(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(SHUTDOWN)
        except subprocess.TimeoutExpired:
            self._process.kill()


def server_if_none(root: Path) -> TemporaryServer | None:
    """Starts a server if none is configured, see `has_server`."""
    if has_server(root):
        return None
    server = TemporaryServer(root)
    from prefect.context import refresh_global_settings_context  # while the server starts

    refresh_global_settings_context()
    return server
