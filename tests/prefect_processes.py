"""A real Prefect server, and commands against it, each in processes of their own; and questions to its API."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from flows.processes.login import CLIENT, FILE, new_login, read
from flows.processes.prefect_local import LOCAL
from flows.processes.server_process import server_environment

T = TypeVar("T")


# As a server does at its start.
CREATE = """\
import asyncio
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""


def make_database(path: Path) -> None:
    """Writes a new database of Prefect."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    setting = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{new}"}
    subprocess.run([sys.executable, "-c", CREATE], env=os.environ | setting, check=True)
    with contextlib.closing(sqlite3.connect(new)) as database:  # all of it in one file
        assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    new.rename(path)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(what: str, look: Callable[[], T], seconds: float, every: float = 0.5) -> T:
    """The first thing that `look` gives which counts as true; it must come in time."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"no {what} within {seconds} s"
        time.sleep(every)


@dataclass
class Prefect:
    """A server of our own with its login, and what runs beside it."""

    home: Path
    port: int
    logs: Path
    login: str = field(default_factory=new_login)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def env(self, more: Mapping[str, str] = {}) -> dict[str, str]:
        """A clean environment with this server in it."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "AWS_"))}
        quiet = {name: value for name, value in LOCAL.items() if "LOGGING" not in name}
        return {**mine, **quiet, "PATH": path, "OMP_NUM_THREADS": "1", "PREFECT_HOME": str(self.home),
                "PREFECT_API_URL": self.url, CLIENT: self.login, **more}  # fmt: skip

    def start(self, name: str, *command: str, cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Starts `python -m COMMAND...`; its output goes to a file."""
        with (self.logs / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=cwd, env=dict(env), stdout=log, stderr=log
            )
        return self.processes[name]

    def said(self, name: str) -> str:
        """What a process has printed so far."""
        return (self.logs / f"{name}.log").read_text(errors="replace")

    def stop(self, name: str, number: signal.Signals = signal.SIGINT, seconds: float = 60) -> int:
        """Ends a process by a signal; its exit code."""
        process = self.processes.pop(name)
        process.send_signal(number)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            if name == "worker":  # Prefect's own, which may wait for a server that is busy
                return -signal.SIGKILL
            raise

    @property
    def auth(self) -> tuple[str, str]:
        """The login as httpx has it: of the project whose server this is, where `serve` has made one."""
        user, _, password = (read(self.home / FILE.name) or self.login).partition(":")
        return user, password

    def ask(self, path: str, **question: Any) -> Any:
        """A question to the server's API."""
        for _ in range(60):
            answer = httpx.post(f"{self.url}{path}", json=question, auth=self.auth, timeout=60)
            if answer.status_code != 503:  # SQLite is locked, on a busy machine
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer.json()

    def runs(self) -> list[dict[str, Any]]:
        """The line's runs that are due, the oldest first."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        due = {"expected_start_time": {"before_": now}}
        found: list[dict[str, Any]] = self.ask(
            "/flow_runs/filter", flow_runs=due, sort="EXPECTED_START_TIME_ASC"
        )
        return found

    def ended(self, count: int) -> list[dict[str, Any]]:
        """The runs, once there are so many and all have ended; else nothing."""
        runs = self.runs()
        final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        return runs if len(runs) >= count and all(run["state_type"] in final for run in runs) else []

    def log_of(self, run: dict[str, Any]) -> str:
        """All lines of a run's log."""
        lines: list[str] = []
        while True:
            logs = {"flow_run_id": {"any_": [run["id"]]}}
            page = self.ask("/logs/filter", logs=logs, sort="TIMESTAMP_ASC", limit=200, offset=len(lines))
            lines += [row["message"] for row in page]
            if len(page) < 200:
                return "\n".join(lines)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Events of a name, the oldest first."""
        found = self.ask("/events/filter", filter={"event": {"name": [name]}, "order": "ASC"}, limit=50)
        events: list[dict[str, Any]] = found["events"]
        return events


@contextmanager
def prefect_processes(folder: Path, server: bool = True) -> Iterator[Prefect]:
    """A server in a folder of its own; ends it, and all that was started beside it."""
    home, logs = folder / "home", folder / "logs"
    home.mkdir(parents=True)
    logs.mkdir()
    prefect = Prefect(home, free_port(), logs)
    try:
        if server:
            place = {"PREFECT_SERVER_API_HOST": "127.0.0.1", "PREFECT_SERVER_API_PORT": str(prefect.port)}
            env = {**server_environment(prefect.login), **prefect.env(place)}
            prefect.start("server", "flows.processes.server_process", cwd=folder, env=env)
            wait_for("server", lambda: answers(prefect.url), 240)
        yield prefect
    finally:
        for process in reversed(prefect.processes.values()):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(url: str) -> bool:
    """Whether a server is up."""
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
