"""Progress of a stage, read from its lines and back from a real server."""

from __future__ import annotations

import logging
import time
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, get_client, task
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.runtime import flow_run

import flows.run.stage_progress
from flows.run.stage_progress import Progress, StageProgress, read_line
from tasks.common.progress import Bar


@pytest.mark.parametrize(
    ("line", "percent"),
    [
        ("train_teacher: 22/1000 steps, 2.2/s, 7 min 27 s left, loss 1.234", 2.2),
        ("train_refiner: held-out images: 3/4 images, 10.0 s/image, 10 s left", 75.0),
        ("predict with student: 6/6 images, 23.4/s, 0 s left", 100.0),
        ("pseudo_label: 1/3 images, 9.5 s/image, unknown left", 33.3),
        ("train_teacher: 12 steps in 2 s (7.8/s)", None),
        ("train_student: 31 of 41 points have a usable mask, on 14 of 14 weak images", None),
        ("ingest: images/1/2 steps", None),
        ("x: 0/0 images, 1/s, 0 s left", None),
        ("", None),
    ],
)
def test_read_line(line: str, percent: float | None) -> None:
    assert read_line(line) == (None if percent is None else Progress(percent, line))


def test_the_bars_own_lines_are_read(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr("tasks.common.progress.time.monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO), Bar("train_teacher", 8, "step") as bar:
        for _ in range(8):
            bar.advance(facts="loss 1.0")
    read = [read_line(line) for line in caplog.messages]
    assert [one.percent for one in read if one is not None] == [25.0, 50.0, 75.0]


def _artifacts(run: UUID) -> list[dict[str, Any]]:
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    with get_client(sync_client=True) as client:
        return [artifact.model_dump() for artifact in client.read_artifacts(artifact_filter=mine)]


@flow
def line_of(lines: list[str], well: bool) -> UUID:
    @task
    def stage() -> None:
        with StageProgress("train_teacher", logging.getLogger()) as progress:
            for one in lines:
                progress.line(one)
                time.sleep(0.05)
            progress.end(well)

    stage()
    return UUID(flow_run.id)


STEPS = [f"train_teacher: {n}/20 steps, 2.2/s, 7 s left" for n in range(1, 19)]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("lines", "well", "expected"),
    [
        (STEPS, True, (100.0, "train_teacher: done")),
        (STEPS, False, (90.0, "train_teacher: ended early, at 90%")),
        (["train_teacher: 12 steps in 2 s (7.8/s)"], True, None),
    ],
    ids=["well", "failed", "short"],
)
def test_what_the_server_knows_at_the_end(
    lines: list[str], well: bool, expected: tuple[float, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.run.stage_progress, "EVERY_S", 0.2)
    updates = []
    update = flows.run.stage_progress.update_progress_artifact
    monkeypatch.setattr(
        flows.run.stage_progress,
        "update_progress_artifact",
        lambda *given, **named: (updates.append(named["progress"]), update(*given, **named)),
    )
    found = _artifacts(line_of(lines, well))
    if expected is None:
        assert found == []
        return
    (artifact,) = found
    assert (artifact["data"], artifact["description"]) == expected
    assert artifact["key"] == "progress-train-teacher"
    assert artifact["task_run_id"] is not None
    assert updates == sorted(updates)
    assert len(updates) <= 0.05 * len(lines) / 0.2 + 2, "too many updates"


def test_a_server_that_is_gone_holds_up_no_stage(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(flows.run.stage_progress, "create_progress_artifact", gone)
    started = time.monotonic()
    with StageProgress("train_teacher", logging.getLogger()) as progress:
        for line in STEPS:
            progress.line(line)
        progress.end(well=True)
    assert time.monotonic() - started < 2
    assert caplog.messages == ["train_teacher: its progress isn't shown in Prefect's UI (no server)"]
