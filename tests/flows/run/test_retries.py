"""What may pass is tried again, with pauses; nothing else is."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

from flows.run.stage_failure import DELAYS
from tests.flows.conftest import Toy

pytestmark = pytest.mark.usefixtures("prefect_server", "short_delays")


@pytest.fixture
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DELAYS, "0.1,0.2")


def run() -> Any:
    from flows.run.pipeline import annotation_to_model

    return annotation_to_model(target="a", return_state=True)


def story(state: Any) -> list[str]:
    """The names of the states that the run's only task went through."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    mine = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        end = time.monotonic() + 30
        while True:  # a task's states reach the server a little later
            (task,) = client.read_task_runs(flow_run_filter=mine)
            if task.state is not None and task.state.is_final():
                break
            assert time.monotonic() < end
            time.sleep(0.1)
        names = [
            one["name"]
            for one in client.request("GET", "/task_run_states/", params={"task_run_id": str(task.id)}).json()
        ]
    return [name for name in names if name not in ("Pending", "NotReady")]


def test_a_server_out_of_reach_is_asked_again(toy: Toy, logged: list[str]) -> None:
    toy.set(a="away")
    state = run()
    assert state.is_completed(), state.message
    assert toy.ran() == ["a"] * 3
    assert story(state) == ["Running", "AwaitingRetry", "Retrying", "AwaitingRetry", "Retrying", "Completed"]
    assert "a server is out of reach; try 2 of 3 in 0.1 s: a: nobody there" in "\n".join(logged)
    assert "try 3 of 3 in 0.2 s" in "\n".join(logged)
    assert toy.path(".prefect/logs/a.log").read_text().count("a: nobody there") == 2


@pytest.mark.slow
def test_a_killed_stage_is_tried_once_more(toy: Toy) -> None:
    toy.set(a="killed")
    assert run().is_completed()
    assert toy.ran() == ["a"] * 2
    toy.set(a="always killed")
    state = run()
    assert state.is_failed() and "ended by SIGKILL" in state.message
    assert toy.ran() == ["a"] * 2


@pytest.mark.parametrize("how", ["fail", "raise"])
def test_what_needs_mending_is_not_tried_again(toy: Toy, how: str) -> None:
    toy.set(a=how)
    state = run()
    assert story(state)[-1] == "Failed" and "AwaitingRetry" not in story(state)
    assert toy.ran() == ["a"]


@pytest.mark.slow
def test_what_another_dvc_works_on_is_waited_for(toy: Toy) -> None:
    """A dvc that lives, by the file where it says so, works on an output."""
    (toy.path(".dvc/tmp")).mkdir(exist_ok=True)
    held = {"write": {str(toy.path("ws/a")): {"pid": os.getppid(), "cmd": "dvc repro"}}, "read": {}}
    toy.path(".dvc/tmp/rwlock").write_text(json.dumps(held))
    state = run()
    assert state.is_failed() and "is busy, it is being blocked by:" in state.message
    assert f"(PID {os.getppid()}): dvc repro" in state.message and "(tried 3 times)" in state.message
    assert toy.ran() == []
