"""One run at a time in a workspace: a lock that the kernel releases when its holder dies, and the name of the holder.

The lock is `flock` on ROOT/.prefect/run.lock. The file names the holder and the earlier runs that died with the lock.
It is in the project, not in PREFECT_HOME, because a run of any server or worker writes this workspace. The supervisors
of a run's stages hold the lock too (flows/processes/children.py), so it is free only after they have ended. The library
filelock can't do that: its release unlocks the file for the processes that inherited the descriptor too (tested).

Over NFS the lock works between machines if the server and the mount support locks; with the mount option `nolock` it
works on one machine only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data.messages import plain
from flows.processes import children
from tasks.common.errors import TaskError

PATH = Path(".prefect/run.lock")
POLL_S, REMIND_S = 0.5, 60.0
UNKNOWN = "the lock file doesn't name its holder"
_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_taken: dict[Path, Taken] = {}


@dataclass(frozen=True)
class Holder:
    """Who holds the lock, since when (ISO 8601, UTC), and why; and Prefect's flow run, once there is one."""

    user: str
    host: str
    pid: int
    since: str
    reason: str
    run_id: str | None = None
    run_name: str | None = None
    url: str | None = None

    def __str__(self) -> str:
        named = f", flow run {self.run_name}" if self.run_name else ""
        why = f" ({self.reason})" if self.reason else ""
        at = f"; see {self.url}" if self.url else ""
        since = self.since.replace("T", " ").replace("+00:00", " UTC")
        return plain(f"{self.user} on {self.host}, process {self.pid}{named}{why}, since {since}{at}")


class RunLockError(TaskError):
    """The workspace can't be locked; the text gives the reason and the next step."""


class Busy(RunLockError):
    """Another run has the workspace: `holder`, None if the file doesn't name it."""

    def __init__(self, path: Path, holder: Holder | None) -> None:
        self.holder = holder
        ending = ""
        if holder is not None and _is_gone(holder):
            ending = (
                " That process has been killed; its child processes are being ended, which takes seconds."
            )
        super().__init__(
            f"another run is under way: {holder or UNKNOWN}.{ending} Wait for its end, or run with --wait (the lock is "
            f"{path})"
        )


@dataclass
class Taken:
    """The lock while it is held. `died`: earlier runs that died with the lock and aren't reported to Prefect yet."""

    path: Path
    descriptor: int
    holder: Holder
    died: list[Holder] = field(default_factory=list)

    def name(self, run_id: str, run_name: str, url: str | None) -> None:
        """Adds Prefect's flow run to the holder."""
        self.holder = replace(self.holder, run_id=run_id, run_name=run_name, url=url)
        self._write(self.holder)

    def keep_unreported(self, died: list[Holder]) -> None:
        """Keeps only these of the dead runs: all others are reported to Prefect."""
        self.died = died
        self._write(self.holder)

    def _write(self, holder: Holder | None) -> None:
        content = {"holder": asdict(holder) if holder else None, "died": [asdict(one) for one in self.died]}
        # In place, since the lock is on this file. If the disk is full, the run goes on: it has the lock anyway.
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, json.dumps(content, indent=2).encode() + b"\n", 0)


@contextmanager
def held(root: Path, reason: str, *, wait: bool, say: Callable[[str], None]) -> Iterator[Taken]:
    """Holds the lock of the project at `root` during the block. A nested call in the same process holds the same lock.

    Args:
        root: the project's folder.
        reason: why this run was started; shown to others.
        wait: whether to wait while another run holds the lock.
        say: called with lines about waiting, and about a file system without locks.

    Raises:
        Busy: another run holds the lock, and `wait` is false.
        RunLockError: the lock file can't be written.
    """
    path = _path(root)
    if path in _taken:
        yield _taken[path]
        return
    descriptor = _open(path)
    try:
        _lock(path, descriptor, wait, say)
        taken = Taken(path, descriptor, _me(reason))
        taken.died = _died(descriptor)
        taken._write(taken.holder)
        _taken[path] = taken
        children.hold(descriptor)
        try:
            yield taken
        finally:
            children.let_go(descriptor)
            del _taken[path]
            taken._write(None)
    finally:
        os.close(descriptor)


def holder(root: Path) -> Holder | None:
    """The run that holds the lock of the project at `root`; None if there is none, or the file doesn't name it."""
    path = _path(root)
    if path in _taken:
        return _taken[path].holder
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read(descriptor)[0]
    finally:
        os.close(descriptor)
    return None


def _path(root: Path) -> Path:
    """The folder may be a link to another disk. The file may not be a link: its target would be overwritten."""
    return (root / PATH.parent).resolve() / PATH.name


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file")
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.ENOTDIR):
            raise RunLockError(
                f"{path}: found a link, a folder or a device, expected a regular file; remove it, and run again"
            ) from None
        raise RunLockError(
            f"{path}: {error.strerror}; a run writes its lock, logs and results into this folder: get the right to "
            "write there, or run in a clone of your own"
        ) from None


def _lock(path: Path, descriptor: int, wait: bool, say: Callable[[str], None]) -> None:
    reported: float | None = None
    patience = time.monotonic() + 0.2  # `holder` locks the file for a moment
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            now = time.monotonic()
            if now <= patience:
                time.sleep(0.02)
                continue
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise RunLockError(f"{path}: can't be locked: {error.strerror}") from None
            say(
                f"{path}: this file system supports no locks; make sure that only one run is under way at a time"
            )
            return
        other, _ = _read(descriptor)
        if not wait:
            raise Busy(path, other)
        if reported is None or now - reported > REMIND_S:
            reported = now
            say(f"waiting for another run to end: {other or UNKNOWN}")
        time.sleep(POLL_S)


def _died(descriptor: int) -> list[Holder]:
    """The runs with a flow run of Prefect that died with the lock."""
    last, before = _read(descriptor, patience=0)
    return [one for one in [*before, *([last] if last else [])] if one.run_id]


def _read(descriptor: int, patience: float = 1.0) -> tuple[Holder | None, list[Holder]]:
    """The holder and the dead runs of the file; tries for `patience` seconds, since its holder may be writing it."""
    end = time.monotonic() + patience
    while True:
        try:
            content: dict[str, Any] = json.loads(os.pread(descriptor, 1 << 20, 0))
            return (
                _holder(content["holder"]) if content["holder"] else None,
                [_holder(one) for one in content["died"]],
            )
        except (ValueError, KeyError, TypeError, RecursionError, OSError):
            if time.monotonic() >= end:
                return None, []
            time.sleep(0.05)


def _holder(content: dict[str, Any]) -> Holder:
    """Raises ValueError or TypeError if the content isn't a holder."""
    one = Holder(**content)
    has_texts = all(isinstance(text, str) for text in (one.user, one.host, one.since, one.reason))
    if not has_texts or type(one.pid) is not int or not 0 < one.pid < 2**31:
        raise ValueError("no holder")
    return one


def _me(reason: str) -> Holder:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(user, socket.gethostname(), os.getpid(), now, reason)


def _is_gone(holder: Holder) -> bool:
    """Whether the holder's own process has ended; False on another machine, where this can't be checked."""
    if holder.host != socket.gethostname():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
