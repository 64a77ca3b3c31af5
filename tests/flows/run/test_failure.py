"""After a failure no further stage starts, whichever stage ends last; without Prefect's engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.dvc.repo import DvcRepo, StageNode
from flows.run import pipeline

NODES = {
    name: StageNode(name, upstream, "", False)
    for name, upstream in {"a": (), "b": ("a",), "c": ("a",), "report": ("a", "b", "c")}.items()
}


class Future:
    """A stage that has ended."""

    def __init__(self, completed: bool) -> None:
        self.state = SimpleNamespace(
            is_completed=lambda: completed, message="", name="Completed" if completed else "Failed"
        )

    def wait(self) -> None:
        pass

    def result(self) -> dict[str, Any]:
        return {"outs": {}}


@pytest.mark.parametrize("failing", ["b", "c"])
def test_no_stage_starts_after_a_failure(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """Of two stages that run at once, b ends first."""
    started = []

    def submit(_: Any, node: StageNode, *__: Any) -> Future:
        started.append(node.name)
        return Future(node.name != failing)

    monkeypatch.setattr(pipeline, "_submit", submit)
    monkeypatch.setattr(pipeline, "as_completed", iter)
    monkeypatch.setattr(pipeline, "remove_damaged", lambda *_: [])
    monkeypatch.setattr(pipeline, "line_logger", lambda _: None)
    repo = cast(DvcRepo, SimpleNamespace(done_keys=lambda _: {}))
    runs = pipeline._run_all(repo, NODES, set(), pipeline.StartedStages({}, {}))
    assert started == ["a", "b", "c"]
    states = {"a": "Completed", "b": "Completed", "c": "Completed", "report": "Not run"}
    assert {run.name: run.state for run in runs} == states | {failing: "Failed"}
