"""A run's name in Prefect's UI: why it runs, and when."""

from __future__ import annotations

import logging
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prefect import get_client
from prefect.runtime import flow_run

from data import strict_yaml

log = logging.getLogger(__name__)

LAST_STAGE = "report"


def run_name() -> str:
    """The name of the flow run that is about to start, from its parameters `reason` and `target`."""
    given: dict[str, Any] = flow_run.parameters
    return compose(str(given.get("reason") or "by hand"), str(given.get("target") or LAST_STAGE))


def compose(reason: str, target: str, now: datetime | None = None) -> str:
    """`12 new points in 3 files, 21 Nov 20:14:05`; with the target if it isn't the whole pipeline.

    The time has seconds, since a run may take a few; it is in the time zone of the schedule (operate.timezone).
    """
    now = now or datetime.now(_timezone(Path.cwd() / "params.yaml"))
    shown = target not in (LAST_STAGE, "") or reason == "by hand"
    what = f"{reason}: {target}" if shown else reason
    return f"{what}, {now.day} {now:%b %H:%M:%S}"


def rename_run(reason: str) -> None:
    """Renames the current run, whose reason may be found after its start. Errors are warnings in its log."""
    try:
        name = compose(reason, str(flow_run.parameters.get("target") or LAST_STAGE))
        with get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, name=name)
    except Exception as error:
        log.warning("the run can't be renamed: %s", error)


def _timezone(params: Path) -> tzinfo | None:
    """operate.timezone of a params file; None (the machine's own) if it can't be read."""
    try:
        return ZoneInfo(strict_yaml.read(params)["operate"]["timezone"])
    except (OSError, KeyError, TypeError, ValueError, ZoneInfoNotFoundError):
        return None
