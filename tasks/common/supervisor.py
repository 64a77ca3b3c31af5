"""The process between a run and a child: it ends the child, and all that the child started, when the run has died.

    python -I -S supervisor.py SOCKET SIGNAL GRACE COMMAND...

A process that is killed with -9 can't end its children: a training would go on for hours and write files that the next
run writes too. So each child gets a supervisor as its parent. It waits for the child to end, or for SOCKET to close:
the run holds the other end, and the kernel closes that when the run dies, even by SIGKILL. The child gets SIGNAL then,
and SIGKILL after GRACE seconds. flows/processes/children.py and tasks/common/launcher.py start this file as a script
without packages, which takes some 15 ms.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

DONE = b"done"
"""Written into the socket when nothing is left to end; before it, the child's process id and a newline."""
AFTERMATH = 2.0
"""Seconds that processes of an ended child have to end."""
_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code, negative if a signal ended it."""
    socket, first, grace = int(arguments[0]), signal.Signals(int(arguments[1])), float(arguments[2])
    command = arguments[3:]
    os.set_inheritable(socket, False)  # else the child would keep it open
    for inherited in os.environ.pop("POINTS2MODEL_HELD", "").split():
        os.set_inheritable(int(inherited), False)
    # A terminal or a service manager signals this process too; only the socket may end it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # Linux: processes that lose their parent become children of this one, in whatever session they are.
    _set(_SET_CHILD_SUBREAPER, 1)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if child == 0:
        _become(socket, command)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)  # parent and child both do this: either may run first
    code = None
    while code is None:
        ready, _, _ = select.select([socket, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        code = _reap().get(child)
        if code is None and socket in ready and _is_closed(socket):
            code = _end(child, first, grace, everything=True).get(child, -signal.SIGKILL)
    _end(child, first, AFTERMATH, everything=False)
    with contextlib.suppress(OSError):
        os.write(socket, DONE)
    return code


def _become(socket: int, command: list[str]) -> None:
    """The child's side of the fork: a group of its own, then the command."""
    try:
        os.setpgid(0, 0)
        _set(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)  # Linux: if this supervisor is killed
        os.write(socket, b"%d\n" % os.getpid())
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606 (no shell is right)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def _is_closed(socket: int) -> bool:
    try:
        return not os.read(socket, 64)
    except ConnectionResetError:  # closed by the other side before it had read all
        return True


def _reap() -> dict[int, int]:
    """The exit codes of all children that have ended, by process id."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def _end(group: int, first: signal.Signals, grace: float, everything: bool) -> dict[int, int]:
    """Sends `first` to the group and kills what is left of it after `grace` seconds.

    `everything`: on Linux, all descendants of this process too. Returns the exit codes of the ended ones, by process
    id.
    """
    ended: dict[int, int] = {}
    for number, seconds in ((first, grace), (signal.SIGKILL, AFTERMATH)):
        end = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        while time.monotonic() < end:
            ended |= _reap()
            others = _children() if everything else []
            if not others and not _alive(group):
                return ended
            if number == signal.SIGKILL:
                for pid in others:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
            time.sleep(0.02)
    return ended


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _children() -> list[int]:
    """Linux: the children of this process, with those whose own parents have ended."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _set(option: int, value: int) -> None:
    """Linux: prctl(option, value); nothing elsewhere."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code < 0:  # end by the same signal, as a shell does
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
