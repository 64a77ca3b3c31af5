"""`runtime.launcher`: faults, outcomes, ends. Real processes without torch; tests/tasks/test_machines.py trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tasks.common import launcher
from tasks.common import on_hosts as on_hosts_module
from tests.tasks.conftest import ROOT

# Starts processes with torchrun's variables and, as torchrun, ends with 1 if one of them fails.
FAKE = """\
import os, subprocess, sys
count, command = int(sys.argv[1]), sys.argv[2:]
started = [
    subprocess.Popen(command, env=os.environ | {"RANK": str(n), "LOCAL_RANK": str(n), "WORLD_SIZE": str(count)})
    for n in range(count)
]
sys.exit(int(any([one.wait() for one in started])))
"""
MEMBER = '''\
"""A step."""
import snippet
from tasks.common.stage_main import stage_main

if __name__ == "__main__":
    stage_main("member", snippet.run, parallel=True)
'''
SNIPPET = """\
import os
from tasks.common import processes
from tasks.common.errors import TaskError

def run(params, workspace):
    rank = processes.index()
    {body}
"""
STEP = "-m {module} --params {params}"


def member(folder: Path, recipe: dict[str, Any], command: str, body: str = "pass") -> subprocess.Popen[str]:
    """Starts a step of its own, `python -m tasks.member`, which runs `body`."""
    (folder / "tasks").mkdir()
    (folder / "tasks/__init__.py").write_text(f"__path__.append({str(ROOT / 'tasks')!r})\n")
    (folder / "tasks/member.py").write_text(MEMBER)
    (folder / "fake.py").write_text(FAKE)
    (folder / "snippet.py").write_text(SNIPPET.format(body=body))
    recipe["runtime"]["launcher"] = command
    (folder / "own.yaml").write_text(yaml.safe_dump(recipe))
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.member", "--params", "own.yaml"],
        cwd=folder, env=kept | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


TWO = "{python} fake.py {processes} {python} " + STEP


@pytest.mark.parametrize(
    ("command", "body", "code", "last"),
    [
        (TWO, "pass", 0, f"runtime.launcher: {TWO}"),
        (
            TWO,
            "error = TaskError('away'); error.passing = True; raise error",
            75,
            "member: away",
        ),
        (TWO, "if rank == 1: raise ValueError('a bug')", 1, "member: ValueError: a bug"),
        (
            "env {python} " + STEP,
            "pass",
            1,
            "member: runtime.launcher: found a process without RANK, WORLD_SIZE and LOCAL_RANK; expected",
        ),
        ("true " + STEP, "pass", 1, "member: runtime.launcher: found true, which ended before the step did"),
        ("sh -c 'kill -9 $$$$' " + STEP, "pass", 137, "runtime.launcher: sh was ended by SIGKILL"),
        (
            "{python} -m tasks.common.launch --standalone --nproc-per-node {processes} " + STEP,
            "os.kill(os.getpid(), 9) if rank == 1 else __import__('time').sleep(100)",
            137,
            "member: process 1 was ended by SIGKILL",
        ),
        ("no_launcher " + STEP, "pass", 1, "Correct them and run again"),
    ],
)
def test_a_step_ends_as_its_processes_do(
    tmp_path: Path, recipe: dict[str, Any], command: str, body: str, code: int, last: str
) -> None:
    recipe["runtime"]["processes"] = 2
    process = member(tmp_path, recipe, command, body)
    _, printed = process.communicate(timeout=250)
    assert process.returncode == code, printed
    assert last in printed.splitlines()[-1], printed
    runs = tmp_path / "workspace/runs/member"
    assert not (runs / launcher.OUTCOME).exists()
    if code == 0:
        run = json.loads((runs / "run.json").read_text())
        assert run["processes"] == 2


FAILED = {"state": "failed", "message": "own fault", "code": 75}


@pytest.mark.parametrize(
    ("code", "outcome", "expected"),
    [
        (0, {"state": "done"}, (None, 0)),
        (3, {"state": "done"}, ("runtime.launcher: srun ended with exit code 3; see its messages above", 3)),
        (-9, {"state": "done"}, ("runtime.launcher: srun was ended by SIGKILL; see its messages above", 137)),
        (
            1,
            {"state": "running"},
            ("runtime.launcher: srun ended with exit code 1; see its messages above", 1),
        ),
        (0, FAILED, ("step: own fault", 75)),
        (1, FAILED, ("step: own fault", 75)),
        (-15, FAILED, ("step: own fault", 75)),
    ],
)
def test_the_outcome_of_the_processes_comes_before_the_launchers_code(
    code: int, outcome: dict[str, Any], expected: tuple[str | None, int]
) -> None:
    assert launcher._result("step", "srun", code, outcome) == expected


def test_the_first_failure_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / launcher.OUTCOME

    def recorded(*failures: tuple[str, int] | tuple[()], before: str = "running") -> tuple[str, str | None]:
        path.write_text(json.dumps({"state": before}))
        for failure in failures:
            launcher.record(tmp_path, *failure)
        content = json.loads(path.read_text())
        return content["state"], content.get("message")

    assert recorded(("no launcher", 1)) == ("running", None)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    assert recorded(()) == ("done", None)
    assert recorded(("one", 1), ("two", 75), ()) == ("failed", "one")
    assert recorded((), ("late", 1)) == ("failed", "late")
    path.unlink()
    launcher.record(tmp_path, "nobody waits", 1)
    assert not path.exists()


DEAF = 'trap "" TERM; setsid sleep 600 & echo $$$$ $$! >pids; sleep 600'
POLITE = 'trap "touch ended; exit" TERM; sleep 600 & echo $$$$ $$! >pids; wait'


@pytest.mark.parametrize(
    ("number", "script", "code"),
    [
        (signal.SIGTERM, DEAF, 128 + signal.SIGTERM),
        (signal.SIGINT, POLITE, 128 + signal.SIGINT),
        (signal.SIGKILL, DEAF, -signal.SIGKILL),
    ],
)
def test_a_signal_to_the_step_ends_the_launcher_and_what_it_started(
    tmp_path: Path, recipe: dict[str, Any], number: signal.Signals, script: str, code: int
) -> None:
    process = member(tmp_path, recipe, f"sh -c '{script}' {STEP}")
    pids = tmp_path / "pids"
    end = time.monotonic() + 250
    while not (pids.exists() and pids.read_text().endswith("\n")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    started = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    process.send_signal(number)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == code, printed
    _, alive = psutil.wait_procs(started, timeout=30 if number == signal.SIGKILL else 0.5)
    for one in alive:
        one.kill()
    assert not alive
    assert (tmp_path / "ended").exists() == (script == POLITE)
    assert ("again to go on" in printed) == (number != signal.SIGKILL)


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("sh", None),
        ("{python}", None),
        ("sh $$UNSET_1 $1 ${} {}", None),
        ("bin/mine", None),
        ("sh $UNSET_1 ${UNSET_2}x", "$UNSET_1, which isn't set; expected a variable of the environment"),
        ("no_such_program", "program 'no_such_program', which isn't there; expected a program on PATH"),
        ("bin/other", "program 'bin/other', which isn't there"),
        ("bin", "program 'bin', which isn't there"),
        ("$EMPTY", "program '', which isn't there"),
    ],
)
def test_faults_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, fault: str | None
) -> None:
    monkeypatch.setenv("EMPTY", "")
    (tmp_path / "bin").mkdir()
    for name in ("mine", "other"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
    (tmp_path / "bin/mine").chmod(0o755)
    found = [str(one) for one in launcher.faults(f"{template} {STEP}", tmp_path)]
    if fault is None:
        assert found == []
    else:
        assert found[0].startswith(f"runtime.launcher: found {fault}")
        assert len(found) == template.count("UNSET") or len(found) == 1


# On each "machine" the command runs in a shell, as with ssh.
RSH = '#!/bin/sh\nhost=$1; shift\nexec env HOST=$host sh -c "$*"\n'


def on_hosts(folder: Path, script: str, **options: Any) -> subprocess.Popen[str]:
    """Runs a shell's script on hosts a and b."""
    (folder / "rsh").write_text(RSH)
    (folder / "rsh").chmod(0o755)
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.common.on_hosts", "a,b", "sh", "-c", script],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT), "POINTS2MODEL_RSH": str(folder / "rsh")},
        start_new_session=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ('echo "$PWD" >$HOST', 0),
        ("touch $HOST; [ $HOST = a ] || exit 75", 75),
        ("touch $HOST; [ $HOST = a ] && sleep 1 && exit 1; kill -9 $$", 137),  # both end by themselves
        (
            "touch $HOST; [ $HOST = b ] && exit 3; echo $$ >pid; sleep 600",
            3,
        ),  # a is ended, its 143 doesn't count
    ],
)
def test_a_command_on_two_machines(tmp_path: Path, script: str, code: int) -> None:
    assert on_hosts(tmp_path, script).wait(timeout=250) == code
    assert (tmp_path / "a").exists() and (tmp_path / "b").exists()
    if code == 0:
        assert (tmp_path / "a").read_text() == f"{tmp_path}\n"
    if (tmp_path / "pid").exists():
        assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("hosts", "shell", "message"),
    [
        ("a,", "true", "found hosts 'a,'; expected names with commas"),
        ("", "true", "found hosts ''"),
        ("a,-oProxyCommand=x", "true", "found hosts"),
        ("a,b", "no-such-ssh -o A=b", "found no program 'no-such-ssh'"),
    ],
)
def test_hosts_and_shells_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, hosts: str, shell: str, message: str
) -> None:
    monkeypatch.setenv("POINTS2MODEL_RSH", shell)
    with pytest.raises(SystemExit, match=message):
        on_hosts_module.on_hosts(hosts.split(","), ["true"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_on_all_machines_with_its_starter(tmp_path: Path, number: signal.Signals) -> None:
    process = on_hosts(tmp_path, "echo $$ >$HOST; exec sleep 600")
    end = time.monotonic() + 250
    files = [tmp_path / "a", tmp_path / "b"]
    while not all(file.exists() and file.read_text().endswith("\n") for file in files):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    there = [psutil.Process(int(file.read_text())) for file in files]
    process.send_signal(number)
    assert process.wait(timeout=60) == (143 if number == signal.SIGTERM else -number)
    _, alive = psutil.wait_procs(there, timeout=30)
    assert not alive
