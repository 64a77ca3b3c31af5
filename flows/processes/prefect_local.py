"""Prefect set up for work without a server, an account or a network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flows.processes.login import API, LOOPBACK, show_ours

# Each can be overridden by the environment: with PREFECT_API_URL set, the same flow reports to a real server.
LOCAL = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    # Prefect's own temporary server has no login: flows/processes/temporary_server.py starts one that has.
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    # The terminal shows our own lines; Prefect's go to the run's log.
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    # The run's log keeps its own lines and the stages' all the same.
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "INFO",
}


def use_local_prefect(root: Path) -> None:
    """Puts Prefect's files into ROOT/.prefect and makes it quiet and offline; what the environment says stands.

    Where that names a server of the project itself, its login is shown to it. What goes to this machine goes through no
    proxy, which would read the login.

    Raises:
        TaskError: the login's file is at fault, or PREFECT_API_URL is, see `flows.processes.login.show_ours`.
        RuntimeError: prefect is imported already, so the settings would come too late.
    """
    if "prefect" in sys.modules and not LOCAL.keys() <= os.environ.keys():
        raise RuntimeError("use_local_prefect() must run before prefect is imported")
    os.environ.setdefault("PREFECT_HOME", str(root / ".prefect"))
    for name, value in LOCAL.items():
        os.environ.setdefault(name, value)
    # Programs read either name, and where both are set, most read the one in lower case.
    excepted = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    if excepted.strip() != "*":
        excepted = ",".join(dict.fromkeys([*filter(None, excepted.split(",")), *LOOPBACK]))
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = excepted
    show_ours(root)


def has_server(root: Path) -> bool:
    """Whether PREFECT_API_URL or a file of Prefect's settings names a server, for runs in the folder `root`.

    Prefect, whose import takes a second, is imported only where there is such a file.

    Raises:
        TaskError: see `use_local_prefect`.
    """
    if os.environ.get(API):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or root / ".prefect")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    named = ((profiles, ""), (root / "prefect.toml", ""), (root / "pyproject.toml", "tool.prefect"))
    if not any(_holds(file, text) for file, text in (*named, (root / ".env", "prefect_"))):
        return False
    use_local_prefect(root)
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)


def _holds(file: Path, text: str) -> bool:
    return file.is_file() and text in file.read_text(encoding="utf-8", errors="replace").lower()
