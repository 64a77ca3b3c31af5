from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.common import tracking
from tasks.common.config import Params
from tasks.common.tracking import journal
from tasks.common.tracking.backend import Target, UnusableError, cause, shown_address
from tasks.common.tracking.journal import Journal, Runs
from tasks.common.tracking.sender import Sender
from tasks.common.tracking.to_dvc import Tracker
from tasks.common.tracking.tracked import curve_of
from tasks.training.setup import ROUNDING
from tests.tasks.conftest import ROOT

Read = Callable[[dict[str, Any]], Params]


@pytest.fixture
def params(recipe: dict[str, Any], params_of: Read) -> Params:
    return params_of(recipe)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "tracking")


def whole_run(runs: Runs, params: Params, *stages: str) -> Journal:
    for stage in stages:
        one = runs.begin(stage, params)
        runs.end(one, stage, "finished")
    return one


def statuses(one: Journal) -> list[str]:
    return [event.name for event in one.events() if event.kind == "status"]


def test_a_run_goes_on_until_its_report(runs: Runs, params: Params) -> None:
    first = whole_run(runs, params, "ingest", "train_teacher", "report")
    second = whole_run(runs, params, "train_teacher")
    assert first.folder != second.folder and runs.current() is not None
    assert [one.folder.name for one in runs.journals()] == sorted(
        [first.folder.name, second.folder.name], reverse=True
    )


def test_a_stage_that_failed_goes_on_in_its_run(runs: Runs, params: Params) -> None:
    one = whole_run(runs, params, "ingest")
    runs.end(runs.begin("train_teacher", params), "train_teacher", "failed")
    assert statuses(one) == ["running", "finished", "running", "failed"]
    assert runs.begin("train_teacher", params).folder == one.folder
    assert runs.begin("ingest", params).folder != one.folder  # it was done already: a new run
    assert statuses(one)[-1] == "killed"


def test_stages_at_once(runs: Runs, params: Params) -> None:
    a = runs.begin("import_points", params)
    assert runs.begin("train_teacher", params).folder == a.folder
    runs.end(a, "import_points", "finished")
    assert statuses(a) == ["running", "running"]  # one of them still runs
    runs.end(a, "train_teacher", "finished")
    assert statuses(a)[-1] == "finished"


def test_other_params_are_another_run(runs: Runs, recipe: dict[str, Any], params_of: Read) -> None:
    first = whole_run(runs, params_of(recipe), "ingest")
    recipe["runtime"]["workers"] = 2
    recipe["operate"]["push"] = True
    recipe["report"]["title"] = "another"
    for name in ROUNDING - {"compile"}:
        recipe["teacher"][name] = {"accumulate": 2, "checkpoint_every": 6}.get(name, True)
    assert runs.begin("train_teacher", params_of(recipe)).folder == first.folder
    recipe["student"]["lr"] = 0.1
    assert runs.begin("train_refiner", params_of(recipe)).folder != first.folder


def test_rounding_keys_are_the_trainings_own() -> None:
    assert set(journal.ROUNDING) == ROUNDING


def test_a_training_that_starts_over_is_another_run(runs: Runs, params: Params) -> None:
    one = runs.begin("train_teacher", params)
    assert runs.begin_curve(one, "teacher", "key", "train_teacher", params).folder == one.folder
    runs.end(one, "train_teacher", "killed")
    again = runs.begin("train_teacher", params)
    assert runs.begin_curve(again, "teacher", "key", "train_teacher", params).folder == one.folder
    other = runs.begin_curve(again, "teacher", "other", "train_teacher", params)
    assert other.folder != one.folder and statuses(other) == ["running"]
    assert [event.kind for event in other.events()] == ["params", "status"]


def test_repeated_steps_and_cut_lines_are_left_out(tmp_path: Path) -> None:
    one = Journal(tmp_path)
    for step, value in ((2, 1.0), (4, 0.5), (4, 0.6)):
        one.add("curve", {"loss": value}, "student", step)
    one.add("curve", {"loss": 3.0}, "teacher", 4)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"kind": "curve", "at": 1')
    assert [(event.name, event.step, event.values) for event in one.events()] == [
        ("student", 2, {"loss": 1.0}), ("student", 4, {"loss": 0.5}), ("teacher", 4, {"loss": 3.0}),
    ]  # fmt: skip


def test_few_runs_are_kept(runs: Runs, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "KEPT_RUNS", 2)
    folders = [whole_run(runs, params, "report").folder for _ in range(3)]
    assert [one.folder for one in runs.journals()] == [folders[2], folders[1]]


def test_damaged_state_begins_a_new_run(runs: Runs, params: Params) -> None:
    first = whole_run(runs, params, "ingest")
    (runs.root / "run.json").write_text('{"run": 3}')
    assert runs.begin("train_teacher", params).folder != first.folder


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("workspace/runs/train_student", "student"),
        ("/runs/a/workspace/runs/train_repeats/seed-3", "repeats/seed-3"),
        ("workspace/runs/train_rounds/all/round-2", "rounds/round-2"),
    ],
)
def test_names_of_curves(folder: str, expected: str) -> None:
    assert curve_of(Path(folder)) == expected


def test_only_the_first_process_tracks(
    recipe: dict[str, Any], params_of: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe["runtime"]["trackers"] = ["tensorboard"]
    params = params_of(recipe)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with tracking.stage("evaluate", params, tmp_path / "workspace"):
        pass
    assert not (tmp_path / "workspace").exists()


def test_a_journal_that_cant_be_written_is_a_warning(
    recipe: dict[str, Any], params_of: Read, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe["runtime"]["trackers"] = ["tensorboard"]
    (tmp_path / "workspace" / "runs").mkdir(parents=True)
    (tmp_path / "workspace" / "runs" / "tracking").write_text("a file where the folder should be")
    with tracking.stage("train_teacher", params_of(recipe), tmp_path / "workspace"):
        tracking.log(tmp_path / "workspace/runs/train_teacher", "key", {"step": 2, "loss": 1.0}, 4)
    assert len(caplog.records) == 1 and "tracking: off for the rest of train_teacher" in caplog.text


def test_errors_are_shown_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc-123")
    error = OSError("http://ada:secret@host/x?token=77 with abc-123\nsecond line")
    assert cause(error) == "OSError: http://host/x?token=... with ..."
    assert cause(OSError("http://ada:secret@host: [Errno 111] Connection refused")) == (
        "can't be reached (connection refused)"
    )
    assert cause(OSError("http://ada:p@ss@host: 500")) == "OSError: http://host: 500"
    assert shown_address("https://ada:p@ss@host/a@b?token=7") == "https://host/a@b"


@pytest.mark.parametrize("killed", [False, True])
def test_a_tracker_that_hangs_ends(runs: Runs, params: Params, killed: bool) -> None:
    """While its stage runs, and after a stage that was killed: whoever reads that one's output waits for it."""
    events = runs.begin("train_teacher", params).folder / "events.jsonl"
    events.unlink()
    os.mkfifo(events)  # nobody writes: reading it hangs
    lines = "sender.HUNG_S = sender.KILLED_S = sender.GRACE_S = 1; sender.main()"
    child = subprocess.Popen(
        [sys.executable, "-c", f"from tasks.common.tracking import sender; {lines}"],
        stdin=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stdin is not None
    tracker = {"name": "dvc", "to": None, "project": None, "registered_model": None}
    places = {"runs": str(runs.root), "root": str(runs.root.parent)}
    child.stdin.write(json.dumps({"tracker": tracker, "state": "dvc-1", **places}) + "\n")
    child.stdin.flush()
    if killed:
        child.stdin.close()
    assert child.wait(60) == -signal.SIGALRM


def test_what_a_tracker_refused_is_sent_again(runs: Runs, params: Params) -> None:
    """Events count as sent only once the tracker has them."""
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = runs.begin("train_teacher", params)
    run.add("curve", {"loss": "no number"}, "teacher", 2)
    tracker = {"name": "tensorboard", "to": None, "project": None, "registered_model": None}
    settings = {"tracker": tracker, "state": "tb", "runs": str(runs.root), "root": str(runs.root.parent)}

    def send() -> str:
        output = io.StringIO()
        sender = Sender(settings, output)
        sender.send(last=True)
        assert sender._lock is not None
        sender._lock.close()  # as at the end of its process
        return output.getvalue()

    assert "tracking: tensorboard: " in send()
    events = run.folder / "events.jsonl"
    events.write_text(events.read_text().replace('"no number"', "0.5"))
    assert send() == ""
    found = board.EventAccumulator(str(runs.root / "tensorboard" / run.folder.name)).Reload()
    assert [one.step for one in found.Tensors("teacher/loss")] == [2]


def test_a_pipeline_is_not_replaced_by_plots(tmp_path: Path) -> None:
    target = Target("20261129-080000-0", ".", "fruit", None, tmp_path / "dvc", tmp_path)
    pipeline = tmp_path / "dvc.yaml"
    pipeline.write_text("stages: {report: {cmd: echo}}\n")
    with pytest.raises(UnusableError, match=r"dvc\.yaml has more than plots, such as a pipeline"):
        Tracker(target, {})
    assert pipeline.read_text() == "stages: {report: {cmd: echo}}\n"
    pipeline.unlink()
    rows = [journal.Event("curve", 0.0, "student", 2, {"loss": 1.0})]
    Tracker(target, {}).send(rows, [])
    Tracker(target, {}).send(rows, [])  # its own file
    assert pipeline.read_text().startswith("plots:")


TRACKER_FAULTS = [
    (
        {"name": "mlflow", "to": "https://ada:hunter2@host"},
        "trackers.0.to: found an address with a login or token",
    ),
    (
        {"name": "mlflow", "to": "https://host/?token=hunter2"},
        "trackers.0.to: found an address with a login or token",
    ),
    ({"name": "tensorboard", "to": "workspace/student"}, "trackers.0.to: found a folder in workspace/"),
    ({"name": "wandb", "to": "s3://bucket/x"}, "trackers.0.to: found an address"),
    ({"name": "wandb", "registered_model": "x"}, "trackers.0.registered_model: found one of wandb"),
    ({"name": "dvc", "project": "x"}, "trackers.0.project: found one of dvc"),
    ({"name": "mlflow", "projekt": "x"}, "trackers.0.projekt: found an unknown key; expected project"),
    ("mlflo", "trackers.0.name: found 'mlflo'; expected mlflow, tensorboard, wandb or dvc"),
]


@pytest.mark.parametrize(("tracker", "expected"), TRACKER_FAULTS)
def test_faults_of_trackers(recipe: dict[str, Any], params_of: Read, tracker: Any, expected: str) -> None:
    recipe["runtime"]["trackers"] = [tracker]
    with pytest.raises(Exception, match="fault") as raised:
        params_of(recipe)
    assert f"runtime.{expected}" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_params_without_trackers_have_none(recipe: dict[str, Any], params_of: Read) -> None:
    recipe["runtime"].pop("trackers", None)
    assert params_of(recipe).runtime.trackers == ()
    recipe["runtime"]["trackers"] = ["wandb", {"name": "tensorboard", "to": "workspace/runs/boards"}]
    assert [one.name for one in params_of(recipe).runtime.trackers] == ["wandb", "tensorboard"]
