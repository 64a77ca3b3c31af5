"""Sends results to DVC's default remote: `points2model push`, and the last task of a run.

It sends data, models and the run-cache, so that no other checkout computes them again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flows.dvc.remote_config import RemoteError, default_remote

PAUSES_S = (5.0, 20.0, 60.0)
"""Before each further attempt, after a failure of the network or of a busy server."""
NOTHING_LOST = (
    "Nothing is lost: the results are here; the next run, or `points2model push`, sends what is missing"
)
Say = Callable[[str], None]


def send_all(root: Path, say: Say, pauses: Sequence[float] = PAUSES_S) -> str:
    """Sends what the remote lacks, in several attempts if the failure may pass; returns a line about what was sent.

    Raises:
        RemoteError: no remote is set, or not everything was sent.
    """
    from flows.dvc.probe import probe  # dvc takes a second
    from flows.dvc.remote import send

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
            message = f"remote {where}: {error}"
            if pause is None or not error.passing:
                raise RemoteError(f"{message.rstrip('.')}. {NOTHING_LOST}") from None
            say(f"{message}; again in {pause:g} s")
            time.sleep(pause)
    sent = f"{done.files} files, {done.bytes / 1e6:.1f} MB, and {done.runs} entries of the run-cache sent to {where}"
    if done.lost:
        paths, pointers = ", ".join(done.lost), " ".join(done.lost.values())
        raise RemoteError(
            f"{sent}, but not {paths}: not whole in the workspace, in DVC's cache or in the remote. Run `dvc push "
            f"{pointers}` in a checkout that has it, or delete {pointers} if it isn't needed"
        )
    if done.missing:
        say(f"{len(done.missing)} files are neither here nor in the remote; `dvc status` names their stages")
    return sent if done.files or done.runs else f"all is in {where} already"


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
