"""Why a stage failed, and whether to retry it: by exit codes if there are any, else by DVC's messages."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tasks.common import disk
from tasks.common.errors import TaskError
from tasks.common.stage_main import PASSING

DELAYS = "POINTS2MODEL_RETRY_SECONDS"
"""The environment variable with the seconds before each further try, such as "10,60,300"; empty: no further try."""
LONGEST_S = 1e6
_RAN = "> "
_FAILED = re.compile(r"ERROR: failed to reproduce .*, exited with (-?\d+)$")
# DVC has one exit code for all errors, so these are recognised by its messages, which tests check.
_BUSY = ("is busy, it is being blocked by:", "Unable to acquire lock")
_TORN = "Unable to read RWLock-file"
_AWAY = re.compile(  # messages of botocore
    r"Could not connect to the endpoint URL|[Tt]imeout on endpoint URL|Failed to connect to proxy URL"
    r"|Connection was closed before we received a valid response|An HTTP Client (raised|failed to establish)"
    r"|An error occurred while reading from response stream"
    r"|An error occurred \((429|50[0234]|SlowDown|InternalError|ServiceUnavailable|RequestTimeout|Throttling\w*)\)"
)


class Cause(Enum):
    """The kind of a failure; its value is the text for people."""

    FINAL = "it needs a fix"
    AWAY = "a server is out of reach"
    BUSY = "another dvc is using the same files"
    KILLED = "it was killed (SIGKILL: too little memory, or a person)"
    STOPPED = "this run is being stopped"

    @property
    def tries(self) -> int:
        """How often a stage with this failure is run at most; fewer times if there are fewer delays."""
        return {Cause.AWAY: 99, Cause.BUSY: 99, Cause.KILLED: 2}.get(self, 1)


@dataclass(frozen=True)
class Failure:
    """Why a stage failed: the cause, and the part of its output that explains it."""

    cause: Cause
    message: str


def examine(stage: str, code: int, lines: list[str], log_path: Path, root: Path) -> Failure:
    """Finds out why a stage failed.

    Args:
        stage: its name.
        code: the exit code of its `dvc repro`; negative if a signal ended it.
        lines: its output.
        log_path: the file with these lines, for the message.
        root: the project; full disks there are in the message too.
    """
    cause = _cause(code, lines)
    message = _explanation(stage, lines)
    if cause is Cause.KILLED:
        message = f"{message}\nit was ended by SIGKILL, often because there was too little memory"
    full = [] if cause is Cause.STOPPED else disk.tight(root, root / "workspace", root / ".dvc/cache")
    return Failure(cause, "\n".join([message, *full, f"(its whole output: {log_path})"]))


def delays() -> list[float]:
    """Seconds before the second try, the third and so on.

    Raises:
        TaskError: the environment variable isn't numbers with commas between.
    """
    value = os.environ.get(DELAYS, "10,60,300")
    try:
        seconds = [float(part) for part in value.split(",") if part.strip()]
        if all(0 <= one <= LONGEST_S for one in seconds):  # false for NaN
            return seconds
    except ValueError:
        pass
    raise TaskError(
        f"{DELAYS}: found {value[:100]!r}, expected seconds such as 10,60,300; correct or unset it"
    )


def _cause(code: int, lines: list[str]) -> Cause:
    if code == -signal.SIGINT:
        return Cause.STOPPED
    if code == -signal.SIGKILL:  # dvc itself, or the supervisor above it
        return Cause.KILLED
    errors = [line for line in lines if line.startswith("ERROR: ")]
    ended = next((found for line in reversed(errors) if (found := _FAILED.match(line))), None)
    if ended is not None:
        status = int(ended[1])
        if status == PASSING:
            return Cause.AWAY
        killed = status in (-signal.SIGKILL, 128 + signal.SIGKILL)
        return Cause.KILLED if killed else Cause.FINAL
    if any(word in line for line in errors for word in (*_BUSY, _TORN)):
        return Cause.BUSY
    return Cause.AWAY if any(_AWAY.search(line) for line in errors) else Cause.FINAL


def _explanation(stage: str, lines: list[str]) -> str:
    """The part of a failed stage's output that explains the failure."""
    started = max((n for n, line in enumerate(lines) if line.startswith(_RAN)), default=-1)
    own = [
        line for line in lines[started + 1 :] if line.strip() and not line.startswith(("ERROR:", "WARNING:"))
    ]
    if started < 0 or not own:
        first = next((n for n, line in enumerate(lines) if line.startswith("ERROR:")), len(lines))
        errors = [line.removeprefix("ERROR: ") for line in lines[first:] if line.strip()]
        return "\n".join(errors or ["it ended without a message"])
    message = max((n for n, line in enumerate(own) if line.startswith(f"{stage}: ")), default=-1)
    trace = max((n for n, line in enumerate(own) if line.startswith("Traceback ")), default=-1)
    if trace > message:
        return own[-1]
    return "\n".join(own[message:] if message >= 0 else own[-20:])
