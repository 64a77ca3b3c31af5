"""Tells people what became of a run: a failure, a crash, a cancellation, a promotion.

Where to is `operate.notify` in params.yaml, or the environment variable POINTS2MODEL_NOTIFY, which wins and keeps a
secret out of git: the URL of a webhook, which gets JSON by POST, or a Prefect notification block as type/name. A notice
that can't be sent is a warning in the run's log, never the end of a run; what the URL holds is never told.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from data.messages import plain
from tasks.common.config import NOTIFY_BLOCK, load_params

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

ADDRESS = "POINTS2MODEL_NOTIFY"
TIMEOUT_S = 10.0
LONGEST = 2000
"""Characters of a reason: Slack and others refuse very long texts; the run's log has all."""
_muted = False
Log = logging.Logger | logging.LoggerAdapter


@dataclass(frozen=True)
class Notice:
    """What a webhook gets. `text` says all of it in words, and is what Slack and its like show."""

    text: str
    project: str
    run: str | None
    url: str | None
    state: str
    reason: str


def tell(
    state: str,
    reason: str,
    run: str | None = None,
    url: str | None = None,
    log: Log | None = None,
) -> bool:
    """Sends a notice about a run of the project in the current folder; whether one was sent.

    Args:
        state: what happened, such as Failed or Promoted.
        reason: why, in a few words or lines.
        run: the flow run's name; None takes that of the flow run that calls this, if one does.
        url: where it can be seen.
        log: takes a warning where it can't be sent; None takes the log of the flow run that calls this.
    """
    try:
        if _muted or (address := _address()) is None:
            return False
        if run is None:
            run, url = _this_run()
        project = Path.cwd().name
        reason = plain(reason, lines=True)
        reason = reason if len(reason) <= LONGEST else reason[: LONGEST - 1] + "…"
        words = f"{project}: {'run ' + run if run else 'a run'}: {state}: {reason}" + (
            f"\n{url}" if url else ""
        )
        problem = _send(address, Notice(words, project, run, url, state, reason))
    except Exception as error:  # a notice must never end a run; the error's text may hold the address
        problem = f"it can't be sent ({type(error).__name__})"
    if problem is not None:
        (log or _log()).warning("operate.notify: %s", problem)
    return problem is None


def of_state(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook of Prefect's: tells that a flow run failed, crashed or was cancelled.

    Prefect calls it in the run's own process; where that is dead or was cancelled, in the worker's.
    """
    from prefect.logging.loggers import flow_run_logger
    from prefect.utilities.urls import url_for

    said = ("Cancelled", "somebody cancelled it") if state.is_cancelling() else (state.name or "Failed", "")
    reason = state.message or said[1] or "no reason is told"
    tell(
        said[0],
        reason,
        flow_run.name,
        url_for("flow-run", obj_id=flow_run.id),
        flow_run_logger(flow_run, flow),
    )


def mute() -> None:
    """No notices of what this process's user does on purpose: Ctrl-C."""
    global _muted  # noqa: PLW0603  (one user, one process)
    _muted = True


def _address() -> str | None:
    """Where to, None where nobody wants to know."""
    return os.environ.get(ADDRESS) or (
        load_params().operate.notify if Path("params.yaml").is_file() else None
    )


def _log() -> Log:
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_logger, get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("notices")


def _this_run() -> tuple[str | None, str | None]:
    from prefect.runtime import flow_run

    return flow_run.name, flow_run.ui_url if flow_run.id else None


def _send(address: str, notice: Notice) -> str | None:
    """Sends it; returns what went wrong."""
    if address.startswith(("http://", "https://")):
        return _within_time(lambda: _post(address, notice), f"the webhook on {urlsplit(address).hostname}")
    if not NOTIFY_BLOCK.fullmatch(address):
        return "found neither the URL of a webhook (https://...) nor a Prefect notification block (type/name)"
    import prefect.blocks.notifications  # noqa: F401  (makes their types known)
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block

    try:
        block = Block.load(address)
    except ValueError:
        return f"the Prefect server has no block {address}"
    if not isinstance(block, NotificationBlock):
        return f"the block {address} sends no notices; expected one such as slack-webhook/NAME"
    cast(Any, block).notify(notice.text, subject=f"{notice.project}: {notice.state}")
    return None


def _post(address: str, notice: Notice) -> str | None:
    """Posts it. Nothing of the answer but its status is read, and no redirection is followed: it would lead elsewhere
    what was meant for this host."""
    import httpx

    host = urlsplit(address).hostname
    # Its own log line would tell the URL.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        with httpx.stream(
            "POST", address, json=asdict(notice), timeout=TIMEOUT_S, follow_redirects=False
        ) as answer:
            if answer.is_success:
                return None
            further = "; redirections aren't followed, name the address itself" * answer.is_redirect
            return f"the webhook on {host} answered {answer.status_code}{further}"
    except httpx.HTTPError as error:
        return f"the webhook on {host} can't be reached ({type(error).__name__})"


def _within_time(send: Callable[[], str | None], what: str) -> str | None:
    """What `send` returns. httpx limits the time of a single read only: a server may drip its answer for hours."""
    problem: list[str | None] = []

    def run() -> None:
        try:
            problem.append(send())
        except Exception as error:  # the error's text may hold the address
            problem.append(f"it can't be sent ({type(error).__name__})")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S + 1)
    return problem[0] if problem else f"{what} didn't answer within {TIMEOUT_S:g} s"
