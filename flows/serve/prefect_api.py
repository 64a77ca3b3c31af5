"""Requests of `serve` and the watcher to the API of a Prefect server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

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

from flows.serve.run_log import Run
from flows.serve.watch import EVENT

FLOW = "annotation_to_model"
NEWEST = 20
"""Runs in a response; more don't start within seconds."""


class PrefectApi:
    """The server of PREFECT_API_URL."""

    def announce(self, resource: dict[str, str], payload: dict[str, Any]) -> None:
        """Sends the event `point-labels.arrived`.

        By a request with a response: `emit_event` doesn't report whether the event arrived.

        Raises:
            httpx.HTTPError: the server can't be reached, or rejects it.
        """
        event = Event(event=EVENT, resource=Resource(resource), payload=payload)
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[event.model_dump(mode="json")])

    def waiting(self) -> int:
        """How many runs of the pipeline are due and haven't started."""
        return self._count([StateType.SCHEDULED, StateType.PENDING])

    def running(self) -> int:
        """How many runs of the pipeline have started and haven't ended."""
        return self._count([StateType.RUNNING, StateType.CANCELLING])

    def started(self, deployment: str, since: datetime) -> list[Run]:
        """The newest runs of a deployment that started since then, the oldest first."""
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
