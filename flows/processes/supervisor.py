"""The process between us and a child: it ends the child, and all that the child started, when we are gone.

    python -I -S supervisor.py SOCKET GRACE COMMAND...

A process that is killed with -9 can't end its children: a training would go on for hours, at work on files that the
next run writes. So the child gets a parent of its own that waits for two things: the child's end, or the end of the
SOCKET whose other end we hold and which the kernel closes when we die, however we die. Run as a script, without
packages: it starts in some 15 ms. See flows/processes/children.py, which starts it.
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
"""What is written into the socket when nothing is left to end; before it, the child's process id and a newline."""
AFTERMATH = 2.0
"""Seconds that what a child left behind has to end, when the child itself has ended."""
_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code, negative where a signal ended it."""
    lifeline, grace, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    os.set_inheritable(lifeline, False)  # else the child would hold our death's sign open
    for inherited in os.environ.pop("POINTS2MODEL_HELD", "").split():
        os.set_inheritable(int(inherited), False)
    # Signals of a terminal or a service manager go to us too; the socket alone tells us to end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    _set(
        _SET_CHILD_SUBREAPER, 1
    )  # Linux: what loses its parent becomes our child, whatever session it fled to
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if child == 0:
        _become(lifeline, command)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)  # by both, for neither knows who is first
    code = None
    while code is None:
        ready, _, _ = select.select([lifeline, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        code = _reap().get(child)
        if code is None and lifeline in ready and not os.read(lifeline, 64):
            code = _end(child, grace, everything=True).get(child, -signal.SIGKILL)
    _end(child, AFTERMATH, everything=False)
    with contextlib.suppress(OSError):
        os.write(lifeline, DONE)
    return code


def _become(lifeline: int, command: list[str]) -> None:
    """The child's side of the fork: a group of its own, then the command."""
    try:
        os.setpgid(0, 0)
        _set(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)  # Linux: should someone kill this supervisor
        os.write(lifeline, b"%d\n" % os.getpid())
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606 (no shell is right)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


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


def _end(group: int, grace: float, everything: bool) -> dict[int, int]:
    """Interrupts the group, kills what is left of it after `grace` seconds; Linux: `everything` that descends from us.

    Returns the exit codes of those that ended, by process id.
    """
    ended: dict[int, int] = {}
    for number, seconds in ((signal.SIGINT, grace), (signal.SIGKILL, AFTERMATH)):
        end = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        while time.monotonic() < end:
            ended |= _reap()
            fled = _children() if everything else []
            if not fled and not _alive(group):
                return ended
            if number == signal.SIGKILL:
                for pid in fled:
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
    """Linux: our own children, among them those whose parents have ended."""
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
    if code < 0:  # a shell tells a signal so, and so do we
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
