"""Logins of our servers: made at the first start, kept in a file that only its owner can read.

A login is `user:password`, as Prefect has it. It goes from process to process by the environment, never by a command
line, which everybody on the machine can read.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from pathlib import Path
from urllib.parse import urlsplit

from data.errors import Fault
from tasks.common.errors import TaskError

FILE = Path(".prefect/login")
"""Of the server of `points2model serve`; whoever has it can run commands as its owner."""
REPORTS_FILE = Path(".prefect/reports_login")
"""Of `points2model reports`; it shows reports and does nothing else."""
REPORTS = "POINTS2MODEL_REPORTS_AUTH"
"""The login for reports, in the environment of what serves them, in place of the file."""
SERVER, CLIENT = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"
"""Prefect's names for the login: what a server wants, and what a client shows."""
API = "PREFECT_API_URL"
FORM = "user:password, of printable characters without blanks, the password of 16 or more"
_FORM = re.compile(r"[!-9;-~]+:[!-~]{16,}")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LISTENS = "0A"
_WRITTEN_WITHIN = 1.0
"""Seconds after which a file that is still empty isn't being written by another process that has just made it."""


def new_login() -> str:
    """A login that nobody guesses."""
    return f"points2model:{secrets.token_urlsafe(32)}"


def check(login: str, where: str) -> str:
    """Returns the login.

    Raises:
        TaskError: it has not the form of one, or is short; the message doesn't repeat it.
    """
    if _FORM.fullmatch(login):
        return login
    found = "nothing" if not login else f"{len(login)} characters that aren't one"
    step = "unset it: then one is made; or take what `python -m flows.processes.login` prints"
    raise TaskError(str(Fault(where, "login", found, FORM, step)))


def of_server(root: Path, file: Path = FILE, variable: str = SERVER) -> tuple[str, bool]:
    """The login that a server of the project at `root` wants, and whether it was made just now.

    The environment's, else the file's, which is made where it is absent.

    Raises:
        TaskError: it isn't fit to be one, or others can read or replace the file.
    """
    if variable in os.environ:
        return check(os.environ[variable], variable), False
    kept = read(root / file)
    if kept is not None:
        return kept, False
    path = root / file
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = new_login()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:  # another one was first
        return of_server(root, file, variable)
    except OSError as error:
        step = f"make the folder writable, or set {variable}"
        raise TaskError(
            str(Fault(str(path), "login", error.strerror or str(error), "a new file", step))
        ) from None
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(made + "\n")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise TaskError(f"{path}: the login can't be written: {error.strerror or error}") from None
    return made, True


def read(path: Path) -> str | None:
    """The login of a file; None where there is no such file.

    Who can write in its folder can put another file there, but none that is ours: it is judged by its open descriptor.

    Raises:
        TaskError: it is no plain file of ours that only we can read, or holds no login.
    """
    step = f"remove it: {path.name} is made anew at the next start, and its former login is worth nothing"
    end = time.monotonic() + _WRITTEN_WITHIN
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            found = "a symbolic link" if path.is_symlink() else error.strerror or str(error)
            raise TaskError(str(Fault(str(path), "login", found, "a plain file", step))) from None
        try:
            unsafe = _unsafe(os.fstat(descriptor))
            if unsafe is not None:
                expected = "a plain file of mode 0600 of this user"
                raise TaskError(str(Fault(str(path), "login", unsafe, expected, step)))
            text = os.read(descriptor, 4096).decode("ascii", "replace")
        finally:
            os.close(descriptor)
        if text or time.monotonic() > end:
            break
        time.sleep(0.05)
    if not _FORM.fullmatch(text.strip()):
        found = "an empty file" if not text else f"{len(text)} characters that aren't one"
        raise TaskError(str(Fault(str(path), "login", found, FORM, step)))
    return text.strip()


def _unsafe(facts: os.stat_result) -> str | None:
    if not stat.S_ISREG(facts.st_mode):
        return "no plain file"
    if facts.st_uid not in (os.geteuid(), 0):
        return f"a file of user {facts.st_uid}"
    return f"mode {stat.S_IMODE(facts.st_mode):04o}" if facts.st_mode & 0o077 else None


def show_ours(root: Path) -> None:
    """Puts the project's login into the environment where PREFECT_API_URL names a server of this very user on this
    machine; what the environment has stands.

    Nobody else's server gets to see it, who may have taken the port while ours is off.

    Raises:
        TaskError: see `read`; or PREFECT_API_URL is no address.
    """
    host, port = _place(os.environ.get(API) or "http://nowhere")
    if os.environ.get(CLIENT) or host not in LOOPBACK or not is_ours(port):
        return
    login = read(root / FILE)
    if login is not None:
        os.environ[CLIENT] = login


def _place(address: str) -> tuple[str, int]:
    """Host and port of an http address."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    expected = "an address such as http://127.0.0.1:4200/api"
    step = f"correct {API}, or unset it: then a server of our own is started"
    raise TaskError(str(Fault(API, "address", repr(address), expected, step)))


def is_ours(port: int) -> bool:
    """Whether all that listens on a port of this machine is this user's, and something does; Linux alone can say."""
    owners = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state, _, _, _, owner, *_ = line.split()
                if state == _LISTENS and int(local.rpartition(":")[2], 16) == port:
                    owners.add(int(owner))
    return owners == {os.geteuid()}


if __name__ == "__main__":
    print(new_login())
