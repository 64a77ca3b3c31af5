"""The doctor's look at results: whether what lies in the workspace is what dvc.lock says."""

from __future__ import annotations

from pathlib import Path

from data.errors import Fault
from tasks.doctor.finding import Diagnosis


def check_outputs(root: Path, diagnosis: Diagnosis) -> None:
    """Warns of outputs that DVC takes for whole and that are damaged: a run would make them anew, `dvc repro` by hand
    uses them. Reads only what changed since it was last found whole."""
    if not (root / "dvc.lock").is_file() or not (root / ".dvc/config").is_file():
        return
    from flows.dvc.damage import damaged_outputs  # dvc takes a second
    from flows.dvc.objects import DamageError
    from flows.dvc.repo import DvcRepo, PipelineError

    try:
        repo = DvcRepo(root.resolve())
        found = damaged_outputs(repo, repo.stages())
    except DamageError as error:
        where, _, rest = str(error).partition(": ")
        why = rest.partition(", so that")[0]
        step = "look at the disk and the rights, or remove it; then `points2model run`"
        diagnosis.warn("outputs", Fault(where, "output", f"a file that {why}", "one that can be read", step))
        return
    except PipelineError:
        return  # other checks, or the run, say it
    for text in found:
        where, _, fault = text.partition(" is damaged: ")
        step = "`points2model run` fetches it, or makes it anew"
        diagnosis.warn("outputs", Fault(where, "output", f"damaged: {fault}", "the bytes of that hash", step))
