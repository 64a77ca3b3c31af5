"""The Prefect server of a run that has no other: for as long as this process lives, with a login that only it knows.

Prefect would start one itself, without a login, and in our group of processes: a signal to all of it (Ctrl-C,
`timeout`, systemd) would end the server first, and the run, asking it in vain to note that it was stopped, would hang
for a minute. This one has a session of its own and ends with us, however we end: it waits for the end of a pipe that we
hold.
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
"""Seconds that it has to answer; a busy machine with a new database needs half a minute."""
PARTING = 12.0


class TemporaryServer:
    """Starts at once, while Prefect's flows are still being imported; `wait` before the first of them runs."""

    def __init__(self, root: Path) -> None:
        """
        Args:
            root: the project's folder, whose .prefect/ has the server's log.
        """
        self._root = root
        # Bound here, so that nobody else can take the port meanwhile; who asks before it serves waits.
        with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
            login = new_login()
            os.environ[API] = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            os.environ[CLIENT] = login
            os.environ["PREFECT_UI_URL"] = ""  # it has none, and nobody is to follow a link there
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
        atexit.register(
            self._end
        )  # before Prefect's own, which still send what they have: last in, first out

    def wait(self) -> None:
        """Returns when it answers.

        Raises:
            TaskError: it doesn't.
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
            self._process.wait(PARTING)
        except subprocess.TimeoutExpired:
            self._process.kill()


def server_if_none(root: Path) -> TemporaryServer | None:
    """Starts a server where there is none, see `has_server`."""
    if has_server(root):
        return None
    server = TemporaryServer(root)
    from prefect.context import refresh_global_settings_context  # while the server starts

    refresh_global_settings_context()
    return server
