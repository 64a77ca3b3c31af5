"""What is told of runs, of made-up ones and of those of a real Prefect server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flows.serve.prefect_api import FLOW, PrefectApi
from flows.serve.run_log import Run, RunTeller, lasted


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (143, "2 min 23 s"),
        (3600, "1 h 0 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_how_long_it_took(seconds: float, told: str) -> None:
    assert lasted(seconds) == told


def run(n: int, state: str, ended: bool = False) -> Run:
    return Run(str(n), f"run {n}", state, ended, 61.0)


class Answers:
    """A server that gives one answer after the other."""

    def __init__(self, *answers: Sequence[Run] | Exception) -> None:
        self.answers = list(answers)

    def begun(self, deployment: str, since: datetime) -> Sequence[Run]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_each_run_is_told_once_as_it_begins_and_once_as_it_ends() -> None:
    said: list[str] = []
    one, two = run(1, "Running"), run(2, "Failed", True)
    done = run(1, "Completed", True)
    answers: tuple[Any, ...] = ([], [one], [one], ConnectionError("away"), [done, two], [done, two], [two])
    teller = RunTeller("serve", Answers(*answers), said.append)
    for _ in answers:
        teller.look()
    assert said == [
        "run 'run 1' has begun",
        "run 'run 1' has ended: Completed, after 1 min 1 s",
        "run 'run 2' has begun",  # and ended between two looks
        "run 'run 2' has ended: Failed, after 1 min 1 s",
    ]


@pytest.mark.usefixtures("prefect_server")
def test_runs_of_a_real_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled, Running

    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    with get_client(sync_client=True) as client:
        line = client.create_flow_from_name(FLOW)
        mine, other = (client.create_deployment(line, name) for name in ("mine", "other's"))
        before, _due, now = (
            client.create_flow_run_from_deployment(mine, name=name) for name in ("before", "due", "now")
        )
        elsewhere = client.create_flow_run_from_deployment(other, name="elsewhere")
        client.set_flow_run_state(before.id, Running(), force=True)
        time.sleep(0.01)
        teller = RunTeller("mine", PrefectApi(), said.append)
        teller.look()
        for one in (now, elsewhere):
            client.set_flow_run_state(one.id, Running(), force=True)
        teller.look()
        assert said == ["run 'now' has begun"]
        client.set_flow_run_state(now.id, Cancelled(), force=True)
        teller.look()
        client.delete_deployment(mine)
        client.delete_deployment(other)
    assert len(said) == 2 and said[1].startswith("run 'now' has ended: Cancelled, after ")
