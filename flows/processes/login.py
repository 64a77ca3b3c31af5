"""Logins of the servers: made at the first start and kept in a file that only its owner can read.

A login is `user:password`, in Prefect's form. Processes pass it on in the environment, never on a command line, which
all users of the machine can read.
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
"""Login of the server of `points2model serve`; it allows to run commands as the owner of the server."""
REPORTS_FILE = Path(".prefect/reports_login")
"""Login of `points2model reports`; it allows to read reports, nothing else."""
REPORTS = "POINTS2MODEL_REPORTS_AUTH"
"""Environment variable with the login for reports, used instead of the file."""
SERVER, CLIENT = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"
"""Prefect's variables for the login: the one that a server requires, and the one that a client sends."""
API = "PREFECT_API_URL"
FORM = "user:password, of printable characters without blanks, the password of 16 or more"
_FORM = re.compile(r"[!-9;-~]+:[!-~]{16,}")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LISTENING = "0A"
"""State of a socket in /proc/net/tcp."""
_WRITTEN_WITHIN = 1.0
"""Seconds for which an empty file may be one that another process is writing."""


def new_login() -> str:
    """A random login of 256 bits."""
    return f"points2model:{secrets.token_urlsafe(32)}"


def check(login: str, where: str) -> str:
    """Returns the login.

    Raises:
        TaskError: it has another form, or is too short; the message doesn't contain it.
    """
    if _FORM.fullmatch(login):
        return login
    found = "nothing" if not login else f"{len(login)} characters that aren't one"
    step = "unset it: then one is made; or take what `python -m flows.processes.login` prints"
    raise TaskError(str(Fault(where, "login", found, FORM, step)))


def of_server(root: Path, file: Path = FILE, variable: str = SERVER) -> tuple[str, bool]:
    """The login that a server of the project at `root` requires, and whether this call made it.

    It comes from the environment, else from the file, which is made if it is absent.

    Raises:
        TaskError: it has another form, or others can read or replace the file.
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
    except FileExistsError:  # another process was first
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
    """The login of a file; None if the file is absent.

    Another user who can write to its folder can replace the file, but only by one of another owner, which is an error.
    The opened file is checked, so that it can't be replaced in between.

    Raises:
        TaskError: it isn't a plain file of this user that only this user can read, or it contains no login.
    """
    step = f"remove it: the next start makes a new {path.name}, and the old login becomes invalid"
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
        return "a folder, a pipe or a device"
    if facts.st_uid not in (os.geteuid(), 0):
        return f"a file of user {facts.st_uid}"
    return f"mode {stat.S_IMODE(facts.st_mode):04o}" if facts.st_mode & 0o077 else None


def set_client_login(root: Path) -> None:
    """Puts the project's login into the environment if PREFECT_API_URL names a server of this user on this machine.

    A login in the environment is kept. The login is not sent to another user's server, which may use the port while
    the project's own server is off.

    Raises:
        TaskError: see `read`; or PREFECT_API_URL isn't an address.
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
    step = f"correct {API}, or unset it: then a run starts a server of its own"
    raise TaskError(str(Fault(API, "address", repr(address), expected, step)))


def is_ours(port: int) -> bool:
    """Whether processes of this user, and no others, listen on a port of this machine; always False but on Linux."""
    users = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state, _, _, _, user, *_ = line.split()
                if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                    users.add(int(user))
    return users == {os.geteuid()}


if __name__ == "__main__":
    print(new_login())
