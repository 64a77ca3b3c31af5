"""Settings of Prefect for work without a server, an account or a network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flows.processes.login import API, LOOPBACK, set_client_login

# The environment overrides each of these. With PREFECT_API_URL set, the same flow reports to that server.
LOCAL = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    # Prefect's own temporary server has no login: flows/processes/temporary_server.py starts one with a login.
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    # The terminal shows the lines of this package; Prefect's lines go to the run's log.
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    # The run's log still gets the lines of the run and of its stages.
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "INFO",
}


def use_local_prefect(root: Path) -> None:
    """Puts Prefect's files into ROOT/.prefect and makes Prefect quiet and offline; the environment has precedence.

    If PREFECT_API_URL names the project's own server, its login is set too. Requests to this machine use no proxy: it
    would read the login.

    Raises:
        TaskError: the login file or PREFECT_API_URL has a fault, see `flows.processes.login.set_client_login`.
        RuntimeError: prefect is already imported and has read its settings.
    """
    if "prefect" in sys.modules and not LOCAL.keys() <= os.environ.keys():
        raise RuntimeError("use_local_prefect() must run before prefect is imported")
    os.environ.setdefault("PREFECT_HOME", str(root / ".prefect"))
    for name, value in LOCAL.items():
        os.environ.setdefault(name, value)
    # Programs read either name; if both are set, most read the one in lower case.
    excepted = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    if excepted.strip() != "*":
        excepted = ",".join(dict.fromkeys([*filter(None, excepted.split(",")), *LOOPBACK]))
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = excepted
    set_client_login(root)


def has_server(root: Path) -> bool:
    """Whether PREFECT_API_URL or a settings file of Prefect names a server, for runs in the folder `root`.

    Imports Prefect, which takes a second, only if there is such a file.

    Raises:
        TaskError: see `use_local_prefect`.
    """
    if os.environ.get(API):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or root / ".prefect")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    files = {
        profiles: "",
        root / "prefect.toml": "",
        root / "pyproject.toml": "tool.prefect",
        root / ".env": "prefect_",
    }
    if not any(_contains(file, text) for file, text in files.items()):
        return False
    use_local_prefect(root)
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)


def _contains(file: Path, text: str) -> bool:
    return file.is_file() and text in file.read_text(encoding="utf-8", errors="replace").lower()
