"""What serving refuses; that it works is shown by tests/test_arrival_line.py."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli.main import app
from flows.processes.children import GRACE, begin
from flows.processes.login import SERVER, new_login
from flows.processes.server_process import COMMAND, LOG, server_environment
from flows.serve import serve as serve_module
from flows.serve.serve import LocalServer, responds, schedules, serve, triggers
from tasks.common.config import Params, load_params
from tasks.common.errors import TaskError
from tests.prefect_processes import free_port
from tests.tasks.conftest import ROOT, tiny_recipe


def params_with(**operate: Any) -> Params:
    recipe = tiny_recipe()
    recipe["points"]["files"] = "points"
    inbox = operate.pop("inbox", {})
    recipe["operate"] |= operate
    recipe["operate"]["inbox"] |= inbox
    Path("params.yaml").write_text(yaml.safe_dump(recipe))
    return load_params("params.yaml")


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")


@pytest.mark.parametrize(
    ("schedule", "timezone", "message"),
    [
        ("0 2 * *", "UTC", "operate.schedule: found '0 2 * *'; expected a cron line"),
        ("tonight", "UTC", 'e.g. "0 2 * * *" for 2 o\'clock, or null'),
        ("61 2 * * *", "UTC", "operate.schedule: found '61 2 * * *'"),
        (
            "0 2 * * *",
            "Berlin",
            "operate.timezone: found 'Berlin'; expected a time zone such as Europe/Berlin",
        ),
        ("0 2 * * *", "", "operate.timezone: found ''"),
    ],
)
def test_a_bad_schedule_is_told(schedule: str, timezone: str, message: str) -> None:
    with pytest.raises(TaskError) as raised:
        schedules(params_with(schedule=schedule, timezone=timezone).operate)
    assert message in str(raised.value)


def test_schedules_and_triggers_say_why_a_run_runs() -> None:
    operate = params_with(schedule="0 2 * * 1-5", timezone="Europe/Berlin", inbox={"source": "inbox"}).operate
    (schedule,), (trigger,) = schedules(operate), triggers("serve", operate)
    assert (schedule.cron, schedule.timezone) == ("0 2 * * 1-5", "Europe/Berlin")
    assert schedule.parameters == {"reason": "schedule"}
    assert trigger.parameters == {"reason": "{{ event.payload.reason }}"}
    none = params_with(schedule=None).operate
    assert (schedules(none), triggers("serve", none)) == ([], [])


def test_a_port_that_is_taken_is_told_before_anything_starts() -> None:
    said: list[str] = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(TaskError, match=rf"port {port}: 127.0.0.1: found .*in use.*--port"):
            LocalServer(Path.cwd(), port, new_login(), said.append).start()
    assert said == [] and not Path(".prefect").exists()


def test_nobody_gets_the_port_while_no_server_process_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first response, and after each death of the server: another listener would get the login."""
    deaths: list[str] = []
    tried: list[int] = []
    server = LocalServer(tmp_path, free_port(), new_login(), deaths.append)

    def taken(url: str) -> bool:
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", server.port))
        tried.append(len(deaths))
        return False

    for name, value in {
        "COMMAND": (sys.executable, "-c", ""),
        "RESTART": 0.1,
        "STARTUP": 2,
        "responds": taken,
    }.items():
        monkeypatch.setattr(serve_module, name, value)
    try:
        with pytest.raises(TaskError, match="doesn't start"):
            server.start()
    finally:
        server.stop()
    begin()  # other tests start processes too
    assert tried[0] == 0 and tried[-1] > 1
    socket.create_server(("127.0.0.1", server.port)).close()


@pytest.mark.slow  # a server with a new database starts
def test_a_server_of_our_own_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's own process may hang at its end until it is killed."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    said: list[str] = []
    server = LocalServer(tmp_path, free_port(), new_login(), said.append)
    try:
        server.start()
        assert responds(server.url)
        began = time.monotonic()
    finally:
        server.stop()
    begin()  # other tests start processes too
    assert time.monotonic() - began < GRACE and said == []
    assert "Traceback" not in (tmp_path / LOG).read_text() and not responds(server.url)


@pytest.mark.parametrize(
    ("host", "login", "message"),
    [
        ("127.0.0.1", None, "server on 127.0.0.1: found nothing; expected a login, since without one every user"),
        ("10.1.2.3", None, "without one everybody who reaches 10.1.2.3 can run commands as this user. Next: export"),
        ("10.1.2.3", "", f"{SERVER}: login: found nothing; expected user:password"),
        ("10.1.2.3", "anna:short", f"{SERVER}: login: found 10 characters that aren't one"),
    ],
)  # fmt: skip
def test_no_server_starts_without_a_login(host: str, login: str | None, message: str) -> None:
    env = {**server_environment(login or ""), "PREFECT_SERVER_API_HOST": host}
    if login is None:
        del env[SERVER]
    done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and (not login or login not in done.stderr)


def test_a_server_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    url = f"http://127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    message = rf"PREFECT_API_URL: {url}: found no response.*unset it"
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(TaskError, match=message):
        serve(
            Path.cwd(),
            params_with(),
            port=None,
            login=None,
            reports_port=0,
            review_port=0,
            name="x",
            say=print,
            stopped=threading.Event(),
        )


@pytest.mark.parametrize(
    ("command", "inbox", "message"),
    [
        ("watch", {}, "operate.inbox.source: found null"),
        ("watch", {"source": "inbox"}, "PREFECT_API_URL isn't set"),
        ("watch", {"source": "points/new"}, "one is inside the other"),
        ("serve", {"source": "points/new"}, "one is inside the other"),
    ],
)
def test_commands_that_cannot_work(
    command: str, inbox: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    params_with(inbox=inbox)
    result = CliRunner().invoke(app, [command])
    assert result.exit_code == 1 and message in " ".join(result.output.split())


@pytest.mark.parametrize("command", ["watch", "serve"])
def test_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0 and "Example: " in result.output
