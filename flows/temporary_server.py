"""Prefect's temporary server, out of reach of the terminal's Ctrl-C.

A signal to the whole process group (Ctrl-C, `timeout`, systemd) would end the server first; the run, asking it in vain
to note that it was stopped, would then hang for a minute and end with a traceback. In a session of its own it ends with
us: Prefect stops it at our exit, and flows/run_guard.py sees to it should we be killed.
"""

from __future__ import annotations

import subprocess
from functools import partial
from typing import Any

from prefect.server.api import server


class _OwnSessions:
    """The module `subprocess`, but that its processes have a session of their own. Prefect gives no setting for it."""

    Popen = staticmethod(partial(subprocess.Popen, start_new_session=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)


def keep_from_signals() -> None:
    """From here on; tests/flows/test_cli.py sees whether a newer Prefect still starts its server like this."""
    vars(server)["subprocess"] = _OwnSessions()
