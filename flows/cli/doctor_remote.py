"""The doctor's look at DVC's remote, where `operate.push` makes a run end with a push to it."""

from __future__ import annotations

from pathlib import Path

from data.errors import Fault
from tasks.common.config import Params
from tasks.doctor.finding import Diagnosis

ANSWER_SECONDS = 30.0


def check_remote(root: Path, params: Params | None, diagnosis: Diagnosis) -> None:
    """Tries the default remote by a real write, if runs are to push there.

    An error is what a push would end with; a server that doesn't answer now may do so when the run ends: a warning.
    """
    if params is None or not params.operate.push or not (root / ".dvc" / "config").is_file():
        return
    from flows.dvc.probe import probe  # dvc takes a second
    from flows.dvc.remote_config import RemoteError, default_remote

    try:
        remote = default_remote(root)
    except RemoteError as error:
        step = "mend that file"
        diagnosis.error("remote", Fault(".dvc", "remote", str(error), "DVC's configuration", step))
        return
    if remote is None:
        step = "run `points2model remote URL`, or set operate.push to false"
        found = "true, and no default remote is set"
        diagnosis.error("remote", Fault("params.yaml", "operate.push", found, "a remote to push to", step))
        return
    result = probe(root, remote.name, None, ANSWER_SECONDS)
    if result.error is None:
        return
    where = remote.files.get("url", ".dvc/config")
    step = "mend that, or lead it elsewhere with `points2model remote URL --replace`"
    fault = Fault(
        where, f"remote {remote.name}", f"{remote.url} {result.error}", "one that can be written", step
    )
    if result.passing:
        diagnosis.warn("remote", fault)
    else:
        diagnosis.error("remote", fault)
