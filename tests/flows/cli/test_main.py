"""The command line, as a user calls it."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.processes.login import SERVER
from tests.flows.conftest import Toy
from tests.flows.processes.test_children import gone
from tests.flows.processes.test_run_lock import other


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["run", "--help"],
        ["demo", "--help"],
        ["doctor", "--help"],
        ["split", "--help"],
        ["import-checkpoint", "--help"],
        ["predict", "--help"],
        ["import-points", "--help"],
    ],
)
def test_help(command: list[str]) -> None:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    if len(command) > 1:
        assert f"Example: points2model {command[0]}" in result.output


def test_help_loads_nothing_slow() -> None:
    """What takes longer than the rest of --help together."""
    slow = {"cv2", "dvc", "numpy", "pandas", "prefect", "pyarrow", "pydantic", "torch", "yaml"}
    code = f"import sys, flows.cli.main; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--target", "end"], "no stage 'end'; the stages are a, b, c, report, stranger"),
        (["run", "--target", "repor-t"], "no stage 'repor-t' (did you mean report?)"),
        (["demo"], "seed: found no value; expected a whole number from 0"),
    ],
)
@pytest.mark.usefixtures("toy")
def test_wrong_use(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


def test_the_demo_leaves_your_own_data_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = (Path(__file__).parents[3] / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(recipe.replace("workspace/demo/dataset/images", "mine/images"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 1
    assert "params.yaml names data of your own (ingest.images: mine/images" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        (
            "workspace/demo/dataset/images",
            "mine/imagez",
            "ingest.images: found no such file or folder, mine/imagez",
        ),
        (
            "  images: workspace",
            "  image: workspace",
            "ingest.image: found an unknown key; expected images, the nearest key",
        ),
    ],
)
def test_params_are_checked_before_dvc_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was: str, now: str, message: str
) -> None:
    root = Path(__file__).parents[3]
    (tmp_path / "dvc.yaml").write_text((root / "dvc.yaml").read_text())
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text().replace(was, now))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["run"])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


def test_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["run"])
    assert result.exit_code == 1
    assert "no dvc.yaml here" in result.output


@pytest.fixture
def on_a_server(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line reports to the tests' server: starting one of its own takes longer than all else that it does."""
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))


@pytest.mark.usefixtures("on_a_server")
def test_a_failing_stage_ends_with_its_own_message(toy: Toy) -> None:
    toy.set(a="fail")
    process = toy.cli("run", "--json", merge=False)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    message = "a: 2 faults\n  - one\n  - two\n(its whole output: .prefect/logs/a.log)"
    assert errors.rstrip().endswith(f"failed a: {message}")
    assert "Traceback" not in errors
    summary = json.loads(output)
    assert (summary["state"], summary["error"]) == ("Failed", f"a: {message}")
    shown = [(stage["name"], stage["state"], stage["message"]) for stage in summary["stages"]]
    assert shown[:2] == [("a", "Failed", message), ("b", "Not run", "")]
    assert toy.ran() == ["a"]


@pytest.mark.usefixtures("on_a_server")
def test_the_table_tells_what_ran(toy: Toy) -> None:
    toy.dvc("repro", "a")
    process = toy.cli("run", "--target", "c")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    rows = [line.replace("│", " ").split()[:2] for line in output.splitlines() if "│" in line]
    assert rows == [["a", "Cached"], ["c", "Completed"]]
    assert "c | reads ['ws/a']" in output


def test_a_second_run_by_hand_is_refused_at_once(toy: Toy) -> None:
    with other(toy.root) as (process, _):
        result = CliRunner().invoke(app, ["run"])
        assert result.exit_code == 1
        assert f"another run is under way: {getpass.getuser()} on" in result.output
        assert f"process {process.pid}, flow run brisk-owl (a test), since" in result.output
    assert toy.ran() == []


def refuses_strangers(pid: int) -> str:
    """The login of a run's temporary server, which lets nobody in who hasn't it, nor pages of other sites."""
    (server,) = (
        one
        for one in psutil.Process(pid).children()
        if "flows.processes.server_process" in " ".join(one.cmdline())
    )
    (port,) = {one.laddr.port for one in server.net_connections() if one.status == psutil.CONN_LISTEN}
    login = server.environ()[SERVER]
    auth, address = httpx.BasicAuth(*login.split(":")), f"http://127.0.0.1:{port}/api/deployments/filter"
    assert httpx.post(address, json={}, auth=auth).status_code == 200
    assert httpx.post(address, json={}).status_code == 401
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        assert httpx.post(address, json={}, auth=auth, headers=headers).status_code == 403
    return login


@pytest.mark.slow  # a server of its own
@pytest.mark.usefixtures("prefect_home")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to look at processes")
def test_ctrl_c_leaves_nothing_running(toy: Toy) -> None:
    """As on a terminal: all processes of the group get the signal."""
    toy.set(a="sleep")
    process = toy.cli("run", new_session=True)
    pid_file = toy.path("sleeper.pid")
    end = time.monotonic() + 240
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < end:
        time.sleep(0.1)
    login = refuses_strangers(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert login not in output
    assert process.returncode == 130 and "ConnectError" not in output
    assert "points2model run` goes on from here" in output
    assert gone(int(pid_file.read_text()))


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_home")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to look at processes")
def test_a_killed_run_leaves_no_temporary_server(toy: Toy) -> None:
    toy.set(a="sleep")
    process = toy.cli("run")
    pid_file = toy.path("sleeper.pid")
    end = time.monotonic() + 240
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < end:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("flows.processes.server_process" in " ".join(child.cmdline()) for child in children)
    process.kill()
    process.wait()
    assert all(gone(child.pid, 30) for child in children)
