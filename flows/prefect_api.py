"""What the watcher asks of a Prefect server, through its API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events import Event
from prefect.events.schemas.events import Resource

from flows.watch import EVENT

FLOW = "annotation_to_model"


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
