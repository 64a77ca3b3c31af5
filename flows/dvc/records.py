"""Repairs DVC's own files after a dvc process was killed while it wrote them: it writes them in place.

dvc.lock is the only record of the finished stages; a copy of the last whole one is in .prefect/. A half-written one
lacks the entry of the stage that was ending, and DVC has the results of that stage in its run-cache. .dvc/tmp/rwlock
lists the paths that running dvc processes use; if it is half-written, every dvc command fails.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from dvc.rwlock import SCHEMA as RWLOCK_SCHEMA
from voluptuous import Invalid

from data import strict_yaml
from data.storage import atomic_write
from flows.dvc.lock import TornError, parse_lock
from flows.dvc.repo import PipelineError
from tasks.common.project_files import LOCK_BYTES, faults

LOCK, COPY, REPLACED = Path("dvc.lock"), Path(".prefect/dvc.lock.last"), Path(".prefect/dvc.lock.torn")
RWLOCK, GUARD = Path(".dvc/tmp/rwlock"), Path(".dvc/tmp/rwlock.lock")
PATIENCE_S = 2.0
"""How long a running dvc process may take to write a file."""


def repair(root: Path) -> list[str]:
    """Copies a whole dvc.lock, or replaces a half-written one by the copy; removes a half-written rwlock.

    The caller holds the run's lock (flows/processes/run_lock.py).

    Returns:
        a line about each repair.
    """
    done = []
    lock, copy = root / LOCK, root / COPY
    if lock.exists() and not faults(root):  # a merge must be ended by the user
        if not _within_patience(lambda: not _is_torn(lock)):
            if _is_sound(copy):
                shutil.copyfile(lock, root / REPLACED)
                with atomic_write(lock) as partial:
                    shutil.copyfile(copy, partial)
                done.append(
                    "dvc.lock was half-written by a dvc process that was killed; the last whole one is back, and the "
                    f"other is kept as {REPLACED}"
                )
            else:
                done.append(
                    "dvc.lock is half-written, and there is no copy: `git checkout dvc.lock`, or remove it; finished "
                    "stages come back from DVC's run-cache"
                )
        elif _is_sound(lock) and not (copy.exists() and copy.read_bytes() == lock.read_bytes()):
            with atomic_write(copy) as partial:
                shutil.copyfile(lock, partial)
    if (root / RWLOCK).exists() and not _within_patience(lambda: _is_rwlock(root / RWLOCK)):
        with (root / GUARD).open("a") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)  # dvc holds it while it writes that file
            if not _is_rwlock(root / RWLOCK):
                (root / RWLOCK).unlink(missing_ok=True)
                done.append(
                    f"{RWLOCK} was not as dvc writes it, or half-written by a dvc process that was killed; removed"
                )
    return done


def _is_torn(path: Path) -> bool:
    """Whether the file is cut off. A cut between two lines may be missed; DVC then restores the stage from its cache.
    A whole file with a fault, or one that can't be read, is reported by its readers."""
    try:
        text = strict_yaml.read_text(path, max_bytes=LOCK_BYTES)
        parse_lock(text)
        return not text.endswith("\n")
    except TornError:
        return True
    except (OSError, ValueError, PipelineError):
        return False


def _is_sound(path: Path) -> bool:
    try:
        return bool(parse_lock(strict_yaml.read_text(path, max_bytes=LOCK_BYTES)))
    except (OSError, ValueError, PipelineError):
        return False


def _is_rwlock(path: Path) -> bool:
    try:
        RWLOCK_SCHEMA(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return True
    except (OSError, ValueError, RecursionError, Invalid):
        return False
    return True


def _within_patience(condition: Callable[[], bool]) -> bool:
    """Whether the condition holds now or within PATIENCE_S: a running dvc process may be writing."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
