"""Runs a command on several machines at once, in this folder, which all of them share. For `runtime.launcher`.

    python -m tasks.common.on_hosts HOST,HOST... COMMAND...

The machines are reached by ssh without a password, or by the command in POINTS2MODEL_RSH. When the command fails on one
machine, the others get 10 s to end by themselves; then they are ended. The exit code is the highest of those that ended
by themselves. When this process ends, even by SIGKILL, the command ends on all machines.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tasks.common import launcher

SHELL = "ssh -o BatchMode=yes -o ServerAliveInterval=15"
FORWARDED = (launcher.MARK, "OMP_NUM_THREADS", "POINTS2MODEL_LOG_LEVEL", "PYTHONPATH")
"""Environment variables that the command gets on each machine, if they are set here."""
WAIT_S = 10.0
GRACE_S = launcher.GRACE - 1
_HERE = "--here"


def on_hosts(hosts: list[str], command: list[str]) -> int:
    """Runs the command on all hosts; returns the exit code.

    Exits with a message if a host has no name, or there is no ssh.
    """
    shell = shlex.split(os.environ.get("POINTS2MODEL_RSH") or SHELL)
    if not all(hosts) or any(host.startswith("-") for host in hosts):
        sys.exit(f"on_hosts: found hosts {','.join(hosts)!r}; expected names with commas between them")
    if shutil.which(shell[0]) is None:
        sys.exit(f"on_hosts: found no program {shell[0]!r}; install ssh, or set POINTS2MODEL_RSH")
    set_here = [f"{name}={os.environ[name]}" for name in FORWARDED if name in os.environ]
    there = ["env", *set_here, sys.executable, "-m", "tasks.common.on_hosts", _HERE, *command]
    line = f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join(there)}"
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # The command ends when its standard input is closed, which the kernel does when this process ends.
    machines = [subprocess.Popen([*shell, host, line], stdin=subprocess.PIPE) for host in hosts]
    try:
        _wait(machines, None)
        if any(machine.returncode for machine in machines):
            _wait(machines, WAIT_S)
        return max(_exit_code(machine.returncode) for machine in machines if machine.returncode is not None)
    finally:
        for machine in machines:
            if machine.stdin is not None:
                with contextlib.suppress(OSError):
                    machine.stdin.close()
        _wait(machines, GRACE_S)
        for machine in machines:
            machine.kill()


def _wait(machines: list[subprocess.Popen[bytes]], seconds: float | None) -> None:
    """Waits until all have ended, and not longer than `seconds`; None: until all have ended or one has failed."""
    end = None if seconds is None else time.monotonic() + seconds
    while None in [machine.poll() for machine in machines]:
        if any(machine.returncode for machine in machines) if end is None else time.monotonic() > end:
            return
        time.sleep(0.1)


def here(command: list[str]) -> int:
    """Runs the command on this machine until it ends, or until standard input is closed."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    return _exit_code(launcher.supervise(command, dict(os.environ)))


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _exit_code(code: int) -> int:
    """128 + N for signal N, as a shell has it."""
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python -m tasks.common.on_hosts HOST,HOST... COMMAND...")
    names, words = sys.argv[1], sys.argv[2:]
    sys.exit(here(words) if names == _HERE else on_hosts(names.split(","), words))
