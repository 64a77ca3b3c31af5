"""Real processes, by torchrun and Gloo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks.common import processes

ROOT = Path(__file__).resolve().parents[3]
MEMBER = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tasks.common import processes
processes.start(2, "member", sys.argv[1:], 1)
processes.join()
out = Path(sys.argv[1])
if sys.argv[2:] == ["sleep"]:
    (out / f"{{processes.index()}}.pid").write_text(str(__import__("os").getpid()))
    time.sleep(600)
found = processes.gather({{"index": processes.index(), "of": processes.count()}})
with processes.first_alone() as first:
    if first:
        time.sleep(0.5)
        (out / "written").write_text("")
(out / f"{{processes.index()}}.txt").write_text(f"{{found}} {{(out / 'written').exists()}}")
processes.leave()
"""


def member(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    (folder / "member.py").write_text(MEMBER.format(root=str(ROOT)))
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, "-m", "member", str(folder), *arguments],
        cwd=folder, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=(folder / "log").open("wb"),
    )  # fmt: skip


def sleepers(folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Two processes that sleep: torchrun, and the numbers of the two, once both are there."""
    started = member(folder, "sleep")
    pids = [folder / f"{index}.pid" for index in (0, 1)]
    end = time.monotonic() + 120
    while not all(pid.exists() and pid.read_text() for pid in pids):
        assert time.monotonic() < end and started.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    return started, [int(pid.read_text()) for pid in pids]


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (processes.index(), processes.count(), processes.local_index()) == (0, 1, 0)
    assert processes.is_first()
    processes.start(1, "no.such.module", [], 1)
    processes.join()
    processes.barrier()
    processes.leave()
    assert processes.gather("mine") == ["mine"]
    with processes.first_alone() as first:
        assert first


def test_torchrun_is_not_started_within_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    processes.start(2, "no.such.module", [], 1)
    assert not processes.is_first()


def test_a_cluster_s_own_variables_are_not_torchrun_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubeflow and Azure ML set WORLD_SIZE to the number of machines, and RANK."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert (processes.started(), processes.index(), processes.count()) == (False, 0, 1)


def test_two_processes_know_each_other_and_wait_for_the_first(tmp_path: Path) -> None:
    started = member(tmp_path)
    assert started.wait(timeout=120) == 0, (tmp_path / "log").read_text()
    said = [(tmp_path / f"{index}.txt").read_text() for index in (0, 1)]
    assert said == ["[{'index': 0, 'of': 2}, {'index': 1, 'of': 2}] True"] * 2


def test_processes_die_with_the_step(tmp_path: Path) -> None:
    """torchrun gives each a session of its own: killing the step's process group doesn't reach them."""
    started, pids = sleepers(tmp_path)
    members = [psutil.Process(pid) for pid in pids]
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    _, alive = psutil.wait_procs(members, timeout=20)
    for one in alive:
        one.kill()
    assert not alive


def test_a_process_that_the_system_kills_is_named(tmp_path: Path) -> None:
    started, pids = sleepers(tmp_path)
    os.kill(pids[1], signal.SIGKILL)
    assert started.wait(timeout=60) == 128 + signal.SIGKILL  # as a shell tells it: the flow tries it again
    said = (tmp_path / "log").read_text()
    assert said.startswith("process 1 was ended by SIGKILL") and len(said.splitlines()) == 1
