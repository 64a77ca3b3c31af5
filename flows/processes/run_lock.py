"""One run at a time in a workspace: a lock that the kernel takes back when its holder dies, and who holds it.

The lock is `flock` on ROOT/.prefect/run.lock; the file tells who holds it, and which earlier runs died with it. It
lies in the project, not in PREFECT_HOME: whatever server or worker a run belongs to, it writes this workspace. The
supervisors of a run's stages hold it too (see flows/processes/children.py): it is free when they have ended, not
before.

Over NFS the lock holds between machines where the server and its mount support locks; with `nolock` each machine is
alone with its own.
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
_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_taken: dict[Path, Taken] = {}


@dataclass(frozen=True)
class Holder:
    """Who runs: user, host, process, since when (ISO 8601, UTC), and why. Prefect's flow run, once there is one."""

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
    """This run can't have the workspace; the text says why and what to do next."""


class Busy(RunLockError):
    """Another run has the workspace: `holder`, None where the file doesn't tell."""

    def __init__(self, path: Path, holder: Holder | None) -> None:
        self.holder = holder
        gone = holder is not None and _is_gone(holder)
        ending = (
            " That process has been killed; what it started is being ended, which takes seconds."
            if gone
            else ""
        )
        super().__init__(
            f"another run is under way: {holder or 'by whom isn’t told'}.{ending} Wait for its end, or run with --wait "
            f"(the lock is {path})"
        )


@dataclass
class Taken:
    """The lock while it is held. `died`: earlier runs that ended without giving it back, and that nobody has told
    Prefect of yet."""

    path: Path
    descriptor: int
    holder: Holder
    died: list[Holder] = field(default_factory=list)

    def name(self, run_id: str, run_name: str, url: str | None) -> None:
        """Tells which flow run this is."""
        self.holder = replace(self.holder, run_id=run_id, run_name=run_name, url=url)
        self._write(self.holder)

    def told(self, still: list[Holder]) -> None:
        """The runs that died are known to Prefect, but for `still`."""
        self.died = still
        self._write(self.holder)

    def _write(self, holder: Holder | None) -> None:
        content = {"holder": asdict(holder) if holder else None, "died": [asdict(one) for one in self.died]}
        # In place: the lock is on this very file. A full disk must not end the run here: the lock holds all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, json.dumps(content, indent=2).encode() + b"\n", 0)


@contextmanager
def held(root: Path, reason: str, *, wait: bool, say: Callable[[str], None]) -> Iterator[Taken]:
    """Holds the lock of the project at `root` for the length of the block; within one process it may be held anew.

    Args:
        root: the project's folder.
        reason: why this run was started, for others to read.
        wait: until it is free; else another holder is an error at once.
        say: takes lines about waiting, and about a file system without locks.

    Raises:
        Busy: another run holds it, and `wait` is false.
        RunLockError: the lock's file can't be written.
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
    """Who runs in the project at `root` now, None where nobody does (or doesn't say so)."""
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
    """Its folder may be a link to another disk; the file may not: what it led to would be written over."""
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
                f"{path}: found a link, a folder or a device, expected a file of ours; remove it, and run again"
            ) from None
        raise RunLockError(
            f"{path}: {error.strerror}; a run writes its lock, logs and results in this folder: give yourself the "
            "right to write there, or run in a clone of your own"
        ) from None


def _lock(path: Path, descriptor: int, wait: bool, say: Callable[[str], None]) -> None:
    said = 0.0
    patience = time.monotonic() + 0.2  # someone who only asks who holds it holds it for a moment
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            other, _ = _read(descriptor)
            now = time.monotonic()
            if not wait and now > patience:
                raise Busy(path, other) from None
            if now > patience and (not said or now - said > REMIND_S):
                said = now
                say(f"waiting for another run to end: {other or 'by whom isn’t told'}")
            time.sleep(POLL_S if now > patience else 0.02)
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise RunLockError(f"{path}: can't be locked: {error.strerror}") from None
            say(
                f"{path}: this file system knows no locks; see to it that only one run is under way at a time"
            )
            return


def _died(descriptor: int) -> list[Holder]:
    """Who held the lock and didn't give it back, of those that Prefect knows."""
    last, before = _read(descriptor, patience=0)
    return [one for one in [*before, *([last] if last else [])] if one.run_id]


def _read(descriptor: int, patience: float = 1.0) -> tuple[Holder | None, list[Holder]]:
    """What the file says; read again for `patience` seconds while its holder is writing it."""
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
    """A holder as the file has it; raises ValueError or TypeError where somebody else wrote that."""
    one = Holder(**content)
    texts = (one.user, one.host, one.since, one.reason)
    if (
        not all(isinstance(text, str) for text in texts)
        or type(one.pid) is not int
        or not 0 < one.pid < 2**31
    ):
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
    """Whether the holder's own process has ended; of another machine's processes we know nothing."""
    if holder.host != socket.gethostname():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
