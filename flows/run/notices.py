"""Notices about runs, sent to people: a failure, a crash, a cancellation, a promotion, a refusal.

The address is the value of the environment variable POINTS2MODEL_NOTIFY (to keep a secret out of git), or else of
`operate.notify` in params.yaml. It is the URL of a webhook, which gets JSON by POST, or the type/name of a Prefect
notification block. If a notice can't be sent, the run's log gets a warning, and the run continues. No message contains
the URL.
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
"""Characters of a reason: Slack and others reject very long texts; the run's log has all of it."""
_muted = False
Log = logging.Logger | logging.LoggerAdapter


@dataclass(frozen=True)
class Notice:
    """The JSON for a webhook. `text` has all of it in words; it is what Slack shows."""

    text: str
    project: str
    run: str | None
    url: str | None
    state: str
    reason: str


def send(
    state: str,
    reason: str,
    run: str | None = None,
    url: str | None = None,
    log: Log | None = None,
) -> bool:
    """Sends a notice about a run of the project in the current folder; returns whether one was sent.

    Args:
        state: the event, such as Failed or Promoted.
        reason: why, in a few words or lines.
        run: the flow run's name; None uses the current flow run, if there is one.
        url: its page in the UI.
        log: for the warning if the notice can't be sent; None uses the current flow run's log.
    """
    try:
        if _muted or (address := _address()) is None:
            return False
        if run is None:
            from prefect.runtime import flow_run

            run, url = flow_run.name, flow_run.ui_url if flow_run.id else None
        project = Path.cwd().name
        reason = plain(reason, lines=True)
        reason = reason if len(reason) <= LONGEST else reason[: LONGEST - 1] + "…"
        words = f"{project}: {'run ' + run if run else 'a run'}: {state}: {reason}" + (
            f"\n{url}" if url else ""
        )
        problem = _send_to(address, Notice(words, project, run, url, state, reason))
    except Exception as error:  # the run must continue; the error's text may contain the address
        problem = f"it can't be sent ({type(error).__name__})"
    if problem is not None:
        (log or _log()).warning("operate.notify: %s", problem)
    return problem is None


def notify_about_state(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Prefect's hook: sends a notice that a flow run failed, crashed or was cancelled.

    Prefect calls it in the run's process, or in the worker's if the run's process was killed or cancelled.
    """
    from prefect.logging.loggers import flow_run_logger
    from prefect.utilities.urls import url_for

    name, default = (
        ("Cancelled", "by a user") if state.is_cancelling() else (state.name or "Failed", "no reason")
    )
    url, log = url_for("flow-run", obj_id=flow_run.id), flow_run_logger(flow_run, flow)
    send(name, state.message or default, flow_run.name, url, log)


def mute() -> None:
    """Sends no notices from now on: the user stops the run with Ctrl-C."""
    global _muted  # noqa: PLW0603  (one user, one process)
    _muted = True


def _address() -> str | None:
    """The address of notices; None if none is set."""
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


def _send_to(address: str, notice: Notice) -> str | None:
    """Sends it; returns the error."""
    if address.startswith(("http://", "https://")):
        return _within_time(lambda: _post(address, notice), f"the webhook on {urlsplit(address).hostname}")
    if not NOTIFY_BLOCK.fullmatch(address):
        return "found neither the URL of a webhook (https://...) nor a Prefect notification block (type/name)"
    import prefect.blocks.notifications  # noqa: F401  (registers their types)
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
    """Posts it. Only the status of the response is read. Redirects aren't followed, since they could send the notice to
    another host."""
    import httpx

    host = urlsplit(address).hostname
    # httpx would log the URL.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        with httpx.stream(
            "POST", address, json=asdict(notice), timeout=TIMEOUT_S, follow_redirects=False
        ) as response:
            if response.is_success:
                return None
            further = "; redirects aren't followed: set the final URL" * response.is_redirect
            return f"the webhook on {host} returned status {response.status_code}{further}"
    except httpx.HTTPError as error:
        return f"the webhook on {host} can't be reached ({type(error).__name__})"


def _within_time(post: Callable[[], str | None], what: str) -> str | None:
    """The result of `post`, within a time limit: httpx limits only single reads, and a response may have many."""
    problem: list[str | None] = []

    def run() -> None:
        try:
            problem.append(post())
        except Exception as error:  # the error's text may contain the address
            problem.append(f"it can't be sent ({type(error).__name__})")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S + 1)
    return problem[0] if problem else f"{what} didn't respond within {TIMEOUT_S:g} s"
