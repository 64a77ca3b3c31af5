"""What Prefect's UI is given to show of a run, read back over the API of a real server."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.run.artifacts import AP, GALLERY, LINK, SUMMARY, publish
from tests.flows.conftest import Toy
from tests.flows.finished import DONE, write_project

pytestmark = pytest.mark.usefixtures("prefect_server")


def run(**arguments: Any) -> State[Any]:
    from flows.run.pipeline import annotation_to_model

    return annotation_to_model(**arguments, return_state=True)


def artifacts(run_id: UUID | None) -> dict[str, dict[str, Any]]:
    assert run_id is not None
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    with get_client(sync_client=True) as client:
        return {str(one.key): one.model_dump() for one in client.read_artifacts(artifact_filter=mine)}


def test_name_edges_logs_and_summary_of_a_run(toy: Toy) -> None:
    for how, states in (("Completed", {"COMPLETED"}), ("Cached", {"COMPLETED"})):
        state = run(reason="nightly")
        run_id = state.state_details.flow_run_id
        assert run_id is not None
        with get_client(sync_client=True) as client:
            assert client.read_flow_run(run_id).name.startswith("nightly, ")
            for _ in range(60):  # task states come from events: the last ones may arrive after the run's end
                graph = client.request("GET", "/flow_runs/{id}/graph-v2", path_params={"id": run_id}).json()
                if {node["state_type"] for _, node in graph["nodes"]} == states:
                    break
                time.sleep(0.5)
            tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
        nodes = dict(graph["nodes"])
        names = {id: node["label"] for id, node in nodes.items()}
        drawn = {
            node["label"]: {names[parent["id"]] for parent in node["parents"]} for node in nodes.values()
        }
        assert drawn == {"a": set(), "b": {"a"}, "c": {"a"}, "report": {"b", "c"}}
        assert {node["state_type"] for node in nodes.values()} == states
        assert {task.name: task.state_name for task in tasks} == dict.fromkeys(drawn, how)
        shown = artifacts(run_id)
        assert set(shown) == {SUMMARY}  # a toy has no AP, no report of ours
        assert shown[SUMMARY]["data"].startswith("# nightly, ")
        assert shown[SUMMARY]["data"].count(f"| {how} |") == 4
        if how == "Completed":
            first = run_id
    _wait_for_logs()
    with get_client(sync_client=True) as client:
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[first])), limit=200)
    lines = {line.message: line.level for line in logs}
    assert lines["a: reads []"] == logging.INFO
    assert lines["report: reads ['ws/b', 'ws/c']"] == logging.INFO


def _wait_for_logs() -> None:
    """Prefect sends logs in batches, from a thread."""
    from prefect.logging.handlers import APILogWorker

    APILogWorker.instance().drain_all(timeout=10)


def test_a_failed_run_says_why(toy: Toy) -> None:
    toy.set(b="fail")
    state = run()
    assert state.is_failed()
    text = artifacts(state.state_details.flow_run_id)[SUMMARY]["data"]
    assert "**Failed: b**" in text
    assert "| report | Not run |  |  |" in text
    assert "## Why b failed\n\n```\nb: 2 faults\n  - one\n  - two\n" in text


def test_no_artifact_ever_fails_a_run(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr("flows.run.artifacts.create_markdown_artifact", broken)
    state = run(target="a")
    assert state.is_completed()
    assert artifacts(state.state_details.flow_run_id) == {}
    assert "the summary isn't shown in Prefect's UI (RuntimeError: disk full)" in caplog.text


def test_what_the_server_knows_already_is_not_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What can't be drawn is a warning: this project has no images."""
    write_project(tmp_path)

    @flow
    def line(stages: list[dict[str, Any]]) -> UUID:
        publish(tmp_path, stages, ["2 new points in 1 file", ""])
        return UUID(flow_run.id)

    first = artifacts(line(DONE))
    assert set(first) == {SUMMARY, AP, LINK}
    assert "the gallery isn't shown in Prefect's UI" in caplog.text
    assert "- 2 new points in 1 file\n" in first[SUMMARY]["data"]
    assert first[AP]["type"] == "table" and '"promoted (v3)": "40.0"' in first[AP]["data"]
    assert f"/reports/{'a' * 32}.html" in first[LINK]["data"]
    assert set(artifacts(line(DONE))) == {SUMMARY}
    newer = [*DONE[:-1], {**DONE[-1], "outs": {"workspace/report.html": "f" * 32}}]
    assert set(artifacts(line(newer))) == {SUMMARY, LINK}
    assert GALLERY not in first
