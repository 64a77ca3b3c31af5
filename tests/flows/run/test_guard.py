"""Only one flow run at a time uses a project, and it marks earlier runs that were killed as Crashed."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from typing import Any
from uuid import UUID, uuid4

import pytest

from flows.processes.run_lock import PATH, Holder
from tests.flows.conftest import Toy
from tests.flows.processes.test_run_lock import other

pytestmark = pytest.mark.usefixtures("prefect_server")


def left_behind(toy: Toy, *run_ids: UUID) -> None:
    """The lock's file as runs leave it that are killed with -9."""
    runs = [
        asdict(Holder("ann", "far-away", 7, "2026-11-21T10:00:00+00:00", "schedule", str(one), "brisk-owl"))
        for one in run_ids
    ]
    (toy.path(str(PATH))).parent.mkdir(exist_ok=True)
    toy.path(str(PATH)).write_text(json.dumps({"holder": runs[-1], "died": runs[:-1]}))


def run(**arguments: Any) -> Any:
    from flows.run.pipeline import annotation_to_model

    return annotation_to_model(target="c", return_state=True, **arguments)


def test_runs_that_died_are_crashed_when_the_next_begins(done: Toy) -> None:
    from prefect import flow, get_client, task
    from prefect.states import Completed, Running

    @flow(name="annotation_to_model")
    def earlier() -> None:
        pass

    with get_client(sync_client=True) as client:
        running = client.create_flow_run(earlier, state=Running())
        ended = client.create_flow_run(earlier, state=Completed())
        step = client.create_task_run(
            task(name="step")(lambda: None), running.id, dynamic_key="0", state=Running()
        )
        left_behind(done, running.id, ended.id, uuid4())
        assert run().is_completed()
        crashed = client.read_flow_run(running.id).state
        assert crashed is not None and crashed.is_crashed()
        assert crashed.message is not None and "its process was killed: ann on far-away" in crashed.message
        still = client.read_flow_run(ended.id).state
        assert still is not None and still.is_completed()
        state = client.read_task_run(step.id).state
        assert state is not None and state.is_crashed()
    assert json.loads(done.path(str(PATH)).read_text()) == {"holder": None, "died": []}


def test_a_flow_waits_for_the_run_before_it(done: Toy, logged: list[str]) -> None:
    with other(done.root) as (process, _):
        stdin = process.stdin
        assert stdin is not None
        threading.Timer(1, lambda: (stdin.write("stop\n"), stdin.flush())).start()
        assert run().is_completed()
    assert "waiting for another run to end: " in "\n".join(logged) and "brisk-owl" in "\n".join(logged)
