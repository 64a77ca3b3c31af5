"""What a run is called in Prefect's UI: why it runs, and when."""

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

WHOLE_LINE = "report"


def run_name() -> str:
    """The name of the flow run that is about to start, from its parameters `reason` and `target`."""
    given: dict[str, Any] = flow_run.parameters
    return compose(str(given.get("reason") or "by hand"), str(given.get("target") or WHOLE_LINE))


def compose(reason: str, target: str, now: datetime | None = None) -> str:
    """`12 new points in 3 files, 21 Nov 20:14:05`; the target stands there too where it isn't the whole line.

    The second keeps names apart: a needless run takes no longer than a few. It is told in the time zone that the
    schedule is written in (params.yaml, operate.timezone).
    """
    now = now or datetime.now(_timezone(Path.cwd() / "params.yaml"))
    shown = target not in (WHOLE_LINE, "") or reason == "by hand"
    what = f"{reason}: {target}" if shown else reason
    return f"{what}, {now.day} {now:%b %H:%M:%S}"


def rename_run(reason: str) -> None:
    """Gives the run that is under way another name: what it found to do is often known only after its start.

    Never fails a run: a name is not worth it.
    """
    try:
        name = compose(reason, str(flow_run.parameters.get("target") or WHOLE_LINE))
        with get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, name=name)
    except Exception as error:
        log.warning("the run's name stays as it was: %s", error)


def _timezone(params: Path) -> tzinfo | None:
    """operate.timezone of a params file; None (the machine's own) where it can't be read."""
    try:
        return ZoneInfo(strict_yaml.read(params)["operate"]["timezone"])
    except (OSError, KeyError, TypeError, ValueError, ZoneInfoNotFoundError):
        return None
