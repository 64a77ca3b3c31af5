"""The task `promote`, after the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed

from flows.dvc.lock import Manifest
from flows.registry import decide
from flows.run import notices
from tasks.common.errors import TaskError

LAST = "report"
"""The stage after which a candidate is decided on."""


@task(name="promote", task_run_name="promote", cache_policy=NO_CACHE, retries=0)
def promote(root: Path, reason: str, report: Manifest) -> Any:
    """Promotes or refuses the student, and sends a notice; returns flows.registry.decide.Outcome.

    Args:
        root: the project's folder.
        reason: why it ran.
        report: the last stage's manifest; it draws the edge in Prefect's UI.
    """
    logger = get_run_logger()
    try:
        outcome = decide.decide(root, reason)
    except (TaskError, OSError) as error:
        return Failed(message=str(error))
    logger.info("%s", outcome.text)
    if outcome.decision != "none":
        notices.send(outcome.decision.capitalize(), outcome.text)
    return Completed(data=outcome, message=outcome.text)
