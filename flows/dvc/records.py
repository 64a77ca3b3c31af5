"""DVC's own files, kept whole where a dvc was killed as it wrote them: it writes them in place.

dvc.lock is the only record of what is done; a copy of the last whole one lies in .prefect/. What a torn one lost is
the entry of the stage that was ending, whose results DVC then has in its cache of runs. .dvc/tmp/rwlock says which dvc
is at work on what; a torn one stops every dvc.
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
"""How long a file may be half-written by a dvc that lives."""


def mend(root: Path) -> list[str]:
    """Copies a whole dvc.lock, or brings back the copy over a torn one; removes a torn rwlock. Says what was mended.

    Only for whoever holds the run's lock (flows/processes/run_lock.py).
    """
    done = []
    lock, copy = root / LOCK, root / COPY
    if lock.exists() and not faults(root):  # a merge is for people to end
        if not _within_patience(lambda: not _is_torn(lock)):
            if _is_sound(copy):
                shutil.copyfile(lock, root / REPLACED)
                with atomic_write(lock) as partial:
                    shutil.copyfile(copy, partial)
                done.append(
                    "dvc.lock was half-written by a dvc that was killed; the last whole one is back, and the other is "
                    f"kept as {REPLACED}"
                )
            else:
                done.append(
                    "dvc.lock is half-written, and there is no copy: `git checkout dvc.lock`, or remove it; what is "
                    "done comes back from DVC's cache of runs"
                )
        elif _is_sound(lock) and not (copy.exists() and copy.read_bytes() == lock.read_bytes()):
            with atomic_write(copy) as partial:
                shutil.copyfile(lock, partial)
    if (root / RWLOCK).exists() and not _within_patience(lambda: _is_rwlock(root / RWLOCK)):
        with (root / GUARD).open("a") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)  # dvc takes it to write that file
            if not _is_rwlock(root / RWLOCK):
                (root / RWLOCK).unlink(missing_ok=True)
                done.append(
                    f"{RWLOCK} was not as dvc writes it, or half-written by a dvc that was killed; removed"
                )
    return done


def _is_torn(path: Path) -> bool:
    """Whether it is cut off. What is cut off between two lines may pass, which only costs DVC a look at its cache; what
    is whole and at fault, or can't be read, is for whoever uses it to report."""
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


def _within_patience(whole: Callable[[], bool]) -> bool:
    """Whether it is so, now or a little later: a dvc that lives may be writing."""
    end = time.monotonic() + PATIENCE_S
    while not whole():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
