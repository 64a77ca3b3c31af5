"""`runtime.launcher`: a command that starts the processes of a step, on one machine or several; see docs/engine.md.

The step starts the command under a supervisor and waits for it. Most launchers replace exit codes by their own, so the
step's processes write their outcome into workspace/runs/STAGE/launch.json, and the step ends with that.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from data.messages import plain
from data.storage import atomic_write
from tasks.common import processes, supervisor
from tasks.common.config import Params, ParamsError
from tasks.common.config.faults import ParamFault
from tasks.common.config.operation import LAUNCHER_VALUE
from tasks.common.errors import TaskError

log = logging.getLogger(__name__)

KEY = "runtime.launcher"
MARK = "POINTS2MODEL_LAUNCHED"
"""Environment variable of the launcher's processes: the stage. Not all launchers pass it on to other machines."""
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL; fewer than a run gives its `dvc` (flows/processes/children.py)."""
OUTCOME = "launch.json"
"""In the step's folder of workspace/runs; there only while a launcher runs."""


def faults(template: str, root: Path) -> list[ParamFault]:
    """What can't be used on this machine: variables that aren't set, a missing program. Paths are relative to `root`,
    the project's folder."""
    names = [found["variable"] for word in shlex.split(template) for found in LAUNCHER_VALUE.finditer(word)]
    unset = [name for name in dict.fromkeys(names) if name and name not in os.environ]
    if unset:
        expected = "a variable of the environment; $$ for a dollar sign"
        return [ParamFault(KEY, f"${name}, which isn't set", expected) for name in unset]
    program = _filled(template, module="", params="", processes="")[0]
    if _find(program, root) is None:
        expected = "a program on PATH, or the path of an executable file"
        return [ParamFault(KEY, f"program {program!r}, which isn't there", expected)]
    return []


def run(stage: str, params_file: str, params: Params, folder: Path) -> int:
    """Starts the processes of a step by `runtime.launcher` and waits until they have ended.

    Args:
        stage: the step's name.
        params_file: as `--params` names it.
        params: its content.
        folder: the step's folder of workspace/runs.

    Returns:
        The step's exit code: 0, that of the process that failed first, or the launcher's (128 + N for signal N).

    Raises:
        ParamsError: the command can't be used on this machine.
        TaskError: this is a process that the launcher started, without torchrun's variables.
    """
    if MARK in os.environ:  # a launcher that starts itself would never end
        raise TaskError(
            f"{KEY}: found a process without RANK, WORLD_SIZE and LOCAL_RANK; expected a command that sets them for "
            "each process, as torchrun does, see docs/engine.md"
        )
    template = params.runtime.launcher or ""
    if found := faults(template, Path()):
        raise ParamsError(Path(params_file), found)
    command = _filled(
        template, module=f"tasks.{stage}", params=params_file, processes=str(params.runtime.processes)
    )
    name, command[0] = command[0], _find(command[0], Path()) or command[0]
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(params.threads))}
    log.info("%s: %s", KEY, template)
    _write(folder / OUTCOME, {"state": "running"})
    try:
        code = supervise(command, {**os.environ, **threads, MARK: stage})
        outcome = _read(folder / OUTCOME)
    finally:
        (folder / OUTCOME).unlink(missing_ok=True)
    text, code = _result(stage, name, code, outcome)
    if text is not None:
        print(plain(text, lines=True), file=sys.stderr)
    return code


def _result(stage: str, program: str, code: int, outcome: dict[str, Any]) -> tuple[str | None, int]:
    """The step's last message and its exit code, from the launcher's exit code and the outcome of the processes."""
    if outcome["state"] == "failed":
        return f"{stage}: {outcome['message']}", outcome["code"]
    if code < 0:
        return (
            f"{KEY}: {program} was ended by {signal.Signals(-code).name}; see its messages above",
            128 - code,
        )
    if code > 0:
        return f"{KEY}: {program} ended with exit code {code}; see its messages above", code
    if outcome["state"] == "running":
        expected = "a command that waits for all processes, such as srun, or sbatch --wait"
        return f"{stage}: {KEY}: found {program}, which ended before the step did; expected {expected}", 1
    return None, 0


def record(folder: Path, message: str | None = None, code: int = 0) -> None:
    """In a process of a step: writes how it ended for the step that started the launcher, if one is waiting.

    `folder` is the step's in workspace/runs, `message` None for success. The first failure stays. Errors of the disk
    are ignored, since a failed process prints its message too."""
    if not processes.started() and MARK not in os.environ:
        return
    state = "done" if message is None else "failed"
    with contextlib.suppress(OSError):
        earlier = _read(folder / OUTCOME)["state"]
        if earlier == "running" or (earlier == "done" and state == "failed"):
            _write(folder / OUTCOME, {"state": state, "message": message, "code": code})


def _filled(template: str, **values: str) -> list[str]:
    """The command's words, with placeholders and variables replaced; each stays one word."""
    values["python"] = sys.executable

    def value(found: re.Match[str]) -> str:
        if found["variable"]:
            return os.environ[found["variable"]]
        return values[found["placeholder"]] if found["placeholder"] else "$"

    return [LAUNCHER_VALUE.sub(value, word) for word in shlex.split(template)]


def _find(program: str, root: Path) -> str | None:
    """The path of a program: in Python's folder, on PATH, or relative to `root`."""
    if os.sep in program:
        return shutil.which(root.absolute() / program)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return shutil.which(program, path=path)


def supervise(command: list[str], environment: dict[str, str]) -> int:
    """Runs the command; returns its exit code, negative if a signal ended it.

    SIGTERM and SIGINT to this process end the command and all that it started on this machine, and so does the end of
    this process."""
    ours, theirs = socket.socketpair()
    script = [sys.executable, "-I", "-S", supervisor.__file__]
    settings = [str(theirs.fileno()), str(int(signal.SIGTERM)), str(GRACE)]
    signal.signal(signal.SIGTERM, _stop)
    with ours:
        with theirs:
            process = subprocess.Popen(
                [*script, *settings, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C on the terminal reaches this process, which then ends the command
                pass_fds=(theirs.fileno(),),
            )
        try:
            return process.wait()
        finally:
            with contextlib.suppress(OSError):  # the supervisor has ended
                ours.shutdown(socket.SHUT_WR)
            process.wait()


def _stop(number: int, _: object) -> None:
    print("stopped; run the step again to go on", file=sys.stderr)
    sys.exit(128 + number)


def _write(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    """Opened anew each time: NFS then reads what another machine has written."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
