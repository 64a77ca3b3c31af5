"""A round's begin and end in the flow: a line in its log, and task `promote` after the report, so that runs show it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed

from flows.dvc.lock import Manifest
from flows.dvc.repo import DvcRepo
from flows.registry import decide
from flows.run import notices
from tasks.common.errors import TaskError

LAST = "report"
"""The stage after which there is a candidate."""


def begin_round(repo: DvcRepo, names: Collection[str], force: Collection[str]) -> str | None:
    """See `flows.registry.decide.begin_round`; tells the run's log of a new round, and returns what is wrong."""
    try:
        said = decide.begin_round(repo, names, force)
    except (TaskError, OSError) as error:
        return str(error)
    if said is not None:
        get_run_logger().info("%s", said)
    return None


@task(name="promote", task_run_name="promote", cache_policy=NO_CACHE, retries=0)
def promote(root: Path, reason: str, report: Manifest) -> Any:
    """Promotes the student or notes its refusal, and tells people of it; returns flows.registry.decide.Outcome.

    Args:
        root: the project's folder.
        reason: why the run was made.
        report: the last stage's manifest; it draws the edge in Prefect's UI.
    """
    logger = get_run_logger()
    try:
        outcome = decide.decide(root, reason)
    except (TaskError, OSError) as error:
        return Failed(message=str(error))
    logger.info("%s", outcome.text)
    if outcome.decision != "none":
        notices.tell(outcome.decision.capitalize(), outcome.text)
    return Completed(data=outcome, message=outcome.text)
