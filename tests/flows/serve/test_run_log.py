"""The log of runs: made-up ones, and those of a real Prefect server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flows.serve.prefect_api import FLOW, PrefectApi
from flows.serve.run_log import Run, RunLog, duration


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (143, "2 min 23 s"),
        (3600, "1 h 0 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_how_long_it_took(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def run(n: int, state: str, ended: bool = False) -> Run:
    return Run(str(n), f"run {n}", state, ended, 61.0)


class Responses:
    """A server that returns one response after the other."""

    def __init__(self, *responses: Sequence[Run] | Exception) -> None:
        self.responses = list(responses)

    def started(self, deployment: str, since: datetime) -> Sequence[Run]:
        response = self.responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response


def test_each_run_is_logged_once_when_it_starts_and_once_when_it_ends() -> None:
    lines: list[str] = []
    one, two = run(1, "Running"), run(2, "Failed", True)
    done = run(1, "Completed", True)
    responses: tuple[Any, ...] = ([], [one], [one], ConnectionError("away"), [done, two], [done, two], [two])
    runs = RunLog("serve", Responses(*responses), lines.append)
    for _ in responses:
        runs.update()
    assert lines == [
        "run 'run 1' has started",
        "run 'run 1' has ended: Completed, after 1 min 1 s",
        "run 'run 2' has started",  # and ended between two requests
        "run 'run 2' has ended: Failed, after 1 min 1 s",
    ]


@pytest.mark.usefixtures("prefect_server")
def test_runs_of_a_real_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled, Running

    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    with get_client(sync_client=True) as client:
        line = client.create_flow_from_name(FLOW)
        mine, other = (client.create_deployment(line, name) for name in ("mine", "other's"))
        before, _due, now = (
            client.create_flow_run_from_deployment(mine, name=name) for name in ("before", "due", "now")
        )
        elsewhere = client.create_flow_run_from_deployment(other, name="elsewhere")
        client.set_flow_run_state(before.id, Running(), force=True)
        time.sleep(0.01)
        runs = RunLog("mine", PrefectApi(), lines.append)
        runs.update()
        for one in (now, elsewhere):
            client.set_flow_run_state(one.id, Running(), force=True)
        runs.update()
        assert lines == ["run 'now' has started"]
        client.set_flow_run_state(now.id, Cancelled(), force=True)
        runs.update()
        client.delete_deployment(mine)
        client.delete_deployment(other)
    assert len(lines) == 2 and lines[1].startswith("run 'now' has ended: Cancelled, after ")
