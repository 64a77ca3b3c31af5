"""Whether a run has nothing to do, found out without Prefect, torch or the doctor: in a second, not half a minute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.dvc.damage import remove_damaged
from flows.dvc.repo import DvcRepo, PipelineError
from flows.processes.prefect_local import has_server
from flows.registry.decide import is_decided
from tasks.common import installed_tool
from tasks.common.config import load_params
from tasks.common.errors import TaskError
from tasks.promotion.checkpoint_start import unrecorded_checkpoints

Say = Callable[[str], None]


def done_stages(root: Path, target: str, say: Say) -> list[dict[str, Any]] | None:
    """The stages up to `target` as rows of a run's result, if all are up to date and a run would take in no points,
    promote nothing and push nothing.

    None if there is something to do, or a fault: the run itself reports it. None too if there is a Prefect
    server, which is to show every run.

    Args:
        root: the project's folder; the caller holds the run lock.
        target: a stage of dvc.yaml.
        say: takes a line about each damaged output, which is removed.
    """
    try:
        if has_server(root) or installed_tool.change(root) is not None:
            return None
        params = load_params(root / "params.yaml")
        fetches_or_sends = params.operate.inbox.source is not None or params.operate.push
        if fetches_or_sends or unrecorded_checkpoints(root, params):
            return None
        repo = DvcRepo(root)
        with repo.locked():
            names = list(repo.graph(target))
            if not repo.all_done(names) or remove_damaged(repo, names, say):
                return None
            outs = repo.outs(names)
        if not is_decided(repo, names, params):
            return None
        return [
            {"name": name, "state": "Cached", "seconds": 0.0, "message": "", "outs": outs[name]}
            for name in names
        ]
    except (PipelineError, TaskError, OSError):
        return None
