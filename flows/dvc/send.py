"""Sends what was made here to DVC's default remote: `points2model push`, and the last task of a run.

What a run made goes there whole: data, models and the run-cache, so that nobody computes it again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flows.dvc.remote_config import RemoteError, default_remote

PAUSES_S = (5.0, 20.0, 60.0)
"""Before another attempt where a network or a busy server is to blame."""
NOTHING_LOST = (
    "Nothing is lost: what was made is here; the next run, or `points2model push`, sends what is missing"
)
Say = Callable[[str], None]


def send_all(root: Path, say: Say, pauses: Sequence[float] = PAUSES_S) -> str:
    """Sends what the remote lacks, again after a while where what went wrong may pass; what was done, in words.

    Raises:
        RemoteError: no remote, or not all arrived.
    """
    from flows.dvc.remote import probe, send  # dvc takes a second

    remote = default_remote(root)
    if remote is None:
        raise RemoteError("no default remote is set; set one up with `points2model remote URL`")
    where = f"{remote.name} ({remote.url})"
    for pause in [*pauses, None]:
        try:
            reached = probe(root, remote.name, None, 60.0)
            if reached.error is not None:
                raise RemoteError(reached.error, reached.passing)
            done = send(root, say)
            break
        except RemoteError as error:
            if pause is None or not error.passing:
                raise RemoteError(f"{_named(error, where).rstrip('.')}. {NOTHING_LOST}") from None
            say(f"{_named(error, where)}; again in {pause:g} s")
            time.sleep(pause)
    told = f"{done.files} files, {done.bytes / 1e6:.1f} MB, and {done.runs} entries of the run-cache sent to {where}"
    if done.missing:
        say(f"{len(done.missing)} files are neither here nor there; `dvc status` names their stages")
    return told if done.files or done.runs else f"all is in {where} already"


def _named(error: RemoteError, where: str) -> str:
    return f"remote {where}: {error}"


def main() -> int:
    """`python -m flows.dvc.send`, in the project's folder."""
    try:
        print("push:", send_all(Path.cwd(), lambda line: print("push:", line, flush=True)), flush=True)
    except RemoteError as error:
        print("push:", error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
