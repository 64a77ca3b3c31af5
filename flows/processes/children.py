"""Child processes that stream their lines and never outlive this process: see tasks/common/supervisor.py."""

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
from tasks.common import supervisor

GRACE = 10.0
"""Seconds between the interrupt and the kill of a child. A training writes nothing then: its states are on disk."""

_running: set[_Child] = set()
_lock = threading.Lock()
_held: set[int] = set()
_stopped = threading.Event()


@dataclass(eq=False)
class _Child:
    """A supervisor process with the command below it.

    `socket`: this process's end of the pair; closing it ends both. `is_ended`: whether this process ended them.
    """

    process: subprocess.Popen[str]
    socket: socket.socket
    is_ended: bool = False


def hold(descriptor: int) -> None:
    """Lets the supervisors of later children inherit this descriptor, so that a lock on it lasts until they end."""
    _held.add(descriptor)


def let_go(descriptor: int) -> None:
    """Undoes `hold` for children that start from now on."""
    _held.discard(descriptor)


def stream(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    on_line: Callable[[str], None],
    pass_fds: tuple[int, ...] = (),
) -> int:
    """Runs `command` in a process group of its own and passes each line of its output to `on_line` at once.

    Killing a parent leaves its children running (`dvc repro` starts the stage as its own child). So the whole group
    ends when this call is interrupted, when `stop_all` is called, and when this process ends, even by SIGKILL.

    Args:
        command: the program and its arguments.
        cwd: the working directory.
        env: the environment.
        on_line: called with each line.
        pass_fds: file descriptors that the command inherits.

    Returns:
        The exit code; negative if a signal ended the command: -SIGINT after `stop_all`; 127 if the command isn't found.
    """
    ours, theirs = socket.socketpair()
    held = tuple(_held)
    script = [sys.executable, "-I", "-S", supervisor.__file__]
    settings = [str(theirs.fileno()), str(int(signal.SIGINT)), str(GRACE)]
    with ours:
        with theirs:
            process = subprocess.Popen(
                [*script, *settings, *command],
                cwd=cwd,
                env={**env, "POINTS2MODEL_HELD": " ".join(map(str, held))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C on the terminal reaches this process, which then ends the child
                pass_fds=(theirs.fileno(), *held, *pass_fds),
            )
        child = _Child(process, ours)
        watcher = threading.Thread(target=_watch, args=(child,), daemon=True)
        watcher.start()
        with _lock:
            _running.add(child)
        if _stopped.is_set():
            _end(child)
        try:
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    on_line(plain(line.rstrip(), lines=True))
            code = process.wait()
            return -signal.SIGINT if child.is_ended else code
        except BaseException:
            _end(child)
            process.wait()
            raise
        finally:
            watcher.join()
            with _lock:
                _running.discard(child)


def begin() -> None:
    """Allows children to start again after `stop_all`."""
    _stopped.clear()


def wait(seconds: float) -> bool:
    """Waits for `seconds` or until `stop_all`; returns whether `stop_all` ended the wait."""
    return _stopped.wait(seconds)


def stop_all() -> None:
    """Interrupts every running group and kills what is left after `GRACE` seconds; returns when all have ended.

    Also ends every `wait`, and lets no child start until `begin`.
    """
    _stopped.set()
    with _lock:
        children = list(_running)
    for child in children:
        _end(child)
    end = time.monotonic() + GRACE + 2 * supervisor.AFTERMATH + 5
    for child in children:
        try:
            child.process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:  # the supervisor hangs; once it is killed, `_watch` kills the group
            child.process.kill()


def _end(child: _Child) -> None:
    """Shuts the socket down: to the supervisor, this is the same as the death of this process."""
    child.is_ended = True
    with contextlib.suppress(OSError):  # the supervisor has ended
        child.socket.shutdown(socket.SHUT_WR)


def _watch(child: _Child) -> None:
    """Waits for the end of the supervisor; kills the group if the supervisor was killed before it could."""
    received = b""
    with contextlib.suppress(OSError):
        while chunk := child.socket.recv(64):
            received += chunk
    pid, _, rest = received.partition(b"\n")
    if pid and rest != supervisor.DONE:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(int(pid), signal.SIGKILL)
