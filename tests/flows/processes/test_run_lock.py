"""One run at a time, also after a process was killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.processes import run_lock
from flows.processes.run_lock import PATH, Busy, Holder, RunLockError, held, holder
from tests.flows.processes.test_children import gone, proc

ROOT = Path(__file__).resolve().parents[3]

# Holds the lock of the current folder and has a child, as a run has, until it reads a line. "stop": ends the child
# first; another line: leaves it to its supervisor.
HOLDS = """\
import os, sys, threading
from pathlib import Path
from flows.processes import children, run_lock
children.GRACE = 3.0
with run_lock.held(Path(), "a test", wait=False, say=print) as taken:
    taken.name("6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "brisk-owl", "http://127.0.0.1/run")
    child = [sys.executable, "-c", sys.argv[1]]
    run = lambda: children.stream(child, cwd=Path(), env=os.environ, on_line=lambda line: print(line, flush=True))
    threading.Thread(target=run, daemon=True).start()
    stop = sys.stdin.readline() == "stop\\n"
    if stop:
        children.stop_all()
if not stop:
    print("released", flush=True)
    sys.stdin.readline()
"""
SLEEPS = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
# Takes half a second to end when interrupted.
LINGERS = """\
import os, time
try:
    print(os.getpid(), flush=True)
    time.sleep(60)
finally:
    time.sleep(0.5)
"""


@contextmanager
def other(folder: Path, child: str = SLEEPS) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that holds the lock of a folder, and its child's process id."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, child], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        yield process, int(process.stdout.readline())
        process.kill()


def take(folder: Path, wait: bool = False) -> list[str]:
    """Takes the lock and releases it; returns the lines about waiting."""
    lines: list[str] = []
    with held(folder, "mine", wait=wait, say=lines.append):
        pass
    return lines


def test_a_second_run_reports_who_runs_and_since_when(tmp_path: Path) -> None:
    with other(tmp_path) as (process, _):
        with pytest.raises(Busy) as error:
            take(tmp_path)
        found = holder(tmp_path)
        assert found is not None and (found.pid, found.reason, found.run_name) == (
            process.pid,
            "a test",
            "brisk-owl",
        )
        for part in (
            f"process {process.pid}, flow run brisk-owl (a test), since 20",
            "UTC",
            "/run",
            "--wait",
        ):
            assert part in str(error.value)
        process.communicate("stop\n", timeout=30)
    assert holder(tmp_path) is None
    assert take(tmp_path) == []


def test_waiting_names_the_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "POLL_S", 0.05)
    with other(tmp_path) as (process, _):
        assert process.stdin is not None
        threading.Timer(1, lambda: (process.stdin.write("stop\n"), process.stdin.flush())).start()  # type: ignore[union-attr]
        (line,) = take(tmp_path, wait=True)
        assert line.startswith("waiting for another run to end: ") and "brisk-owl" in line


@proc
def test_a_killed_run_releases_the_lock_when_its_children_have_ended(tmp_path: Path) -> None:
    with other(tmp_path, LINGERS) as (process, child):
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(Busy, match="has been killed; its child processes are being ended"):
            take(tmp_path)
        take(tmp_path, wait=True)
        assert gone(child, 0.2)


@proc
def test_a_run_that_ends_with_children_releases_the_lock_when_they_have_ended(tmp_path: Path) -> None:
    """Where filelock would release it at once: it unlocks the file for all who inherited the descriptor."""
    with other(tmp_path, LINGERS) as (process, child):
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("leave\n")
        process.stdin.flush()
        assert process.stdout.readline() == "released\n"
        with pytest.raises(Busy, match="the lock file doesn't name its holder"):
            take(tmp_path)
        process.kill()
        take(tmp_path, wait=True)
        assert gone(child, 0.2)


def test_dead_runs_are_kept_until_they_are_reported(tmp_path: Path) -> None:
    with other(tmp_path) as (process, _):
        process.send_signal(signal.SIGKILL)
        process.wait()
        with held(tmp_path, "mine", wait=True, say=print) as taken:
            assert [one.run_name for one in taken.died] == ["brisk-owl"]
        with held(tmp_path, "mine", wait=False, say=print) as taken:
            assert [one.run_name for one in taken.died] == ["brisk-owl"]
            taken.keep_unreported([])
    with held(tmp_path, "mine", wait=False, say=print) as taken:
        assert taken.died == []


def test_one_process_may_take_it_twice(tmp_path: Path) -> None:
    with held(tmp_path, "outer", wait=False, say=print) as outer:
        with held(tmp_path, "inner", wait=False, say=print) as inner:
            assert inner is outer
        assert holder(tmp_path) is not None
    assert holder(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", '{"holder": 3}', "\x00\x00"])
def test_a_damaged_lock_file_is_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / PATH).parent.mkdir()
    (tmp_path / PATH).write_text(content)
    assert take(tmp_path) == []
    assert json.loads((tmp_path / PATH).read_text()) == {"holder": None, "died": []}


def test_without_the_right_to_write_the_next_step_is_named(tmp_path: Path) -> None:
    (tmp_path / ".prefect").write_text("a file")
    with pytest.raises(RunLockError, match=r"run\.lock: .*exists; a run writes its lock"):
        take(tmp_path)


@pytest.mark.parametrize(
    ("host", "dead", "reported"), [("", True, True), ("", False, False), ("elsewhere", True, False)]
)
def test_processes_of_another_machine_are_not_checked(
    tmp_path: Path, host: str, dead: bool, reported: bool
) -> None:
    """A process id of another machine may be any process here, or none."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    pid = ended.pid if dead else os.getpid()
    one = Holder("ada", host or socket.gethostname(), pid, "2026-11-21T20:00:00+00:00", "a run")
    assert ("has been killed" in str(Busy(tmp_path / PATH, one))) == reported


def test_a_project_without_runs_has_no_holder(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    assert not list(tmp_path.iterdir())
