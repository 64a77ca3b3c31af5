"""What `run`, `serve` and the watcher ask of a Prefect server, through its API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import Event
from prefect.events.schemas.events import Resource
from prefect.settings import get_current_settings

from data.errors import Fault
from flows.login import API, CLIENT, FILE
from flows.run_teller import Run
from flows.watch import EVENT
from tasks.errors import TaskError

LOGIN_TIMEOUT = 60.0
"""Seconds; a busy server may take half of that."""
FLOW = "annotation_to_model"
NEWEST = 20
"""Runs that are asked for at once; more don't begin within seconds."""


def lets_us_in() -> bool:
    """Whether the server of Prefect's settings answers.

    Raises:
        TaskError: it refuses our login, or the name that we call it by.
    """
    api = get_current_settings().api
    login, key = (None if one is None else one.get_secret_value() for one in (api.auth_string, api.key))
    auth = httpx.BasicAuth(*login.split(":", maxsplit=1)) if login and ":" in login else None
    headers = {"Authorization": f"Bearer {key}"} if key and auth is None else {}
    try:
        answer = httpx.get(f"{api.url}/admin/version", auth=auth, headers=headers, timeout=LOGIN_TIMEOUT)
    except httpx.HTTPError:
        return False
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        found = f"a refusal (401) {'of the login that is set' if login or key else 'without it'}"
        step = f'export {CLIENT}="$(cat {FILE})" in the folder whose `points2model serve` that server is'
        raise TaskError(str(Fault(CLIENT, str(api.url), found, "the login of that server", step)))
    if answer.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.FORBIDDEN):
        raise TaskError(f"{API}: {api.url}: the server refuses us: {answer.status_code} {answer.text[:500]}")
    return True


def no_answer() -> TaskError:
    """What is said where nobody answers at PREFECT_API_URL."""
    step = f"start that server, correct {API}, or unset it: then a server of our own is started"
    return TaskError(
        str(Fault(API, str(get_current_settings().api.url), "no answer", "a Prefect server", step))
    )


class PrefectApi:
    """The server that PREFECT_API_URL names."""

    def announce(self, resource: dict[str, str], payload: dict[str, Any]) -> None:
        """Sends the event `point-labels.arrived`.

        By a request that the server answers, where `emit_event` sends it off and never tells whether it came.

        Raises:
            httpx.HTTPError: the server can't be reached, or refuses it.
        """
        event = Event(event=EVENT, resource=Resource(resource), payload=payload)
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[event.model_dump(mode="json")])

    def waiting(self) -> int:
        """Runs of the line that are due and haven't started."""
        return self._count([StateType.SCHEDULED, StateType.PENDING])

    def running(self) -> int:
        """Runs of the line that have started and haven't ended."""
        return self._count([StateType.RUNNING, StateType.CANCELLING])

    def begun(self, deployment: str, since: datetime) -> list[Run]:
        """The newest runs of one of the line's deployments that began since then, the oldest first."""
        with get_client(sync_client=True) as client:
            found = client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
                deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[deployment])),
                flow_run_filter=FlowRunFilter(start_time=FlowRunFilterStartTime(after_=since)),
                sort=FlowRunSort.START_TIME_DESC,
                limit=NEWEST,
            )
        now = datetime.now(UTC)
        return [
            Run(
                str(run.id), run.name, run.state.name or "", run.state.is_final(),
                ((run.end_time or now) - run.start_time).total_seconds(),
            )
            for run in reversed(found) if run.state is not None and run.start_time is not None
        ]  # fmt: skip

    def _count(self, types: list[StateType]) -> int:
        due = FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)),
            expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
        )
        with get_client(sync_client=True) as client:
            found = client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])), flow_run_filter=due, limit=1
            )
        return len(found)
