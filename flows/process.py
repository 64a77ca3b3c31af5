"""Child processes that stream their lines and never outlive us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_running: set[subprocess.Popen[str]] = set()
_lock = threading.Lock()


def stream(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], on_line: Callable[[str], None]
) -> int:
    """Runs `command` in a process group of its own and hands over each line that it prints as it comes.

    Killing a parent leaves its children running (`dvc repro` starts the stage as a child of its own), so
    signals go to the group. Whatever ends this call early ends the group too.

    Returns:
        The exit code; negative where a signal ended it.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    with _lock:
        _running.add(process)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            on_line(line.rstrip())
        return process.wait()
    except BaseException:
        _signal(process, signal.SIGKILL)
        process.wait()
        raise
    finally:
        with _lock:
            _running.discard(process)


def stop_all(grace: float = 10.0) -> None:
    """Interrupts every running group (a training then says how to go on); kills what is left after `grace` s."""
    with _lock:
        processes = list(_running)
    for process in processes:
        _signal(process, signal.SIGINT)
    end = time.monotonic() + grace
    while time.monotonic() < end and any(_alive(process) for process in processes):
        time.sleep(0.05)
    for process in processes:
        _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _alive(process: subprocess.Popen[str]) -> bool:
    """Whether anything of the group is left, not only its first process."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
