"""Child processes that stream their lines and never outlive us, however we end: see flows/processes/supervisor.py."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.messages import plain
from flows.processes import supervisor as lifeline

GRACE = 10.0
"""Seconds that an interrupted child has before it is killed. A training writes nothing then: its states lie on disk."""

_running: set[_Child] = set()
_lock = threading.Lock()
_held: set[int] = set()
_stopped = threading.Event()


@dataclass(eq=False)
class _Child:
    """A supervisor with the command below it, our end of the socket whose closing ends both, and whether we did so."""

    supervisor: subprocess.Popen[str]
    line: socket.socket
    is_cut: bool = False


def hold(descriptor: int) -> None:
    """Children's supervisors hold this file descriptor open too: a lock on it ends when they have ended, not before."""
    _held.add(descriptor)


def let_go(descriptor: int) -> None:
    """The end of `hold`, for children that start from now on."""
    _held.discard(descriptor)


def stream(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    on_line: Callable[[str], None],
    pass_fds: tuple[int, ...] = (),
) -> int:
    """Runs `command` in a process group of its own and hands over each line that it prints as it comes.

    Killing a parent leaves its children running (`dvc repro` starts the stage as a child of its own), so the group is
    ended as one: by what ends this call early, by `stop_all`, and by our own end, be it by SIGKILL.

    Args:
        command: the program and its arguments.
        cwd: where it runs.
        env: its environment.
        on_line: takes each line.
        pass_fds: file descriptors that the command inherits.

    Returns:
        The exit code; negative where a signal ended it: -SIGINT wherever it was `stop_all`; 127 where there is no such
        command.
    """
    ours, theirs = socket.socketpair()
    held = tuple(_held)
    script = [sys.executable, "-I", "-S", lifeline.__file__, str(theirs.fileno()), str(GRACE)]
    with ours:
        with theirs:
            supervisor = subprocess.Popen(
                [*script, *command],
                cwd=cwd,
                env={**env, "POINTS2MODEL_HELD": " ".join(map(str, held))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C on the terminal goes to us, who then end the child
                pass_fds=(theirs.fileno(), *held, *pass_fds),
            )
        child = _Child(supervisor, ours)
        guard = threading.Thread(target=_outlive, args=(child,), daemon=True)
        guard.start()
        with _lock:
            _running.add(child)
        if _stopped.is_set():
            _cut(child)
        try:
            assert supervisor.stdout is not None
            with supervisor.stdout:
                for line in supervisor.stdout:
                    on_line(plain(line.rstrip(), lines=True))
            code = supervisor.wait()
            return -signal.SIGINT if child.is_cut else code
        except BaseException:
            _cut(child)
            supervisor.wait()
            raise
        finally:
            guard.join()
            with _lock:
                _running.discard(child)


def begin() -> None:
    """The end of `stop_all`: children may start again."""
    _stopped.clear()


def wait(seconds: float) -> bool:
    """Waits, or until `stop_all`; whether it was that."""
    return _stopped.wait(seconds)


def stop_all() -> None:
    """Interrupts every running group (a training then says how to go on); kills what is left after `GRACE` seconds.
    Ends every `wait` too, and lets nothing start until `begin`.

    Returns when all have ended.
    """
    _stopped.set()
    with _lock:
        children = list(_running)
    for child in children:
        _cut(child)
    end = time.monotonic() + GRACE + 2 * lifeline.AFTERMATH + 5
    for child in children:
        try:
            child.supervisor.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:  # it hangs: without it, `_outlive` kills the group
            child.supervisor.kill()


def _cut(child: _Child) -> None:
    """Tells the supervisor what it would hear if we died."""
    child.is_cut = True
    with contextlib.suppress(OSError):  # it has ended
        child.line.shutdown(socket.SHUT_WR)


def _outlive(child: _Child) -> None:
    """Waits for the supervisor's end; should someone have killed it, ends the group in its place."""
    told = b""
    with contextlib.suppress(OSError):
        while chunk := child.line.recv(64):
            told += chunk
    pid, _, rest = told.partition(b"\n")
    if pid and rest != lifeline.DONE:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(int(pid), signal.SIGKILL)
