"""Trackers get what stages do, and nothing that happens to them changes or ends a stage. The server is MLflow's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from tasks.common import tracking
from tasks.common.config import Params, TrackerConfig, load_params
from tasks.common.tracking.journal import Runs
from tasks.common.tracking.senders import Senders
from tasks.promotion.baseline import folder_hash
from tests.full_disk import on_own_disk
from tests.mlflow_server import MlflowServer
from tests.tasks.conftest import ROOT, run_step, tiny_recipe

mlflow = pytest.importorskip("mlflow", reason="MLflow's client isn't installed: pip install -e '.[mlflow]'")

STEPS = list(range(2, 13, 2))
"""Of a student in the tiny line: those that are logged."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    made = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    made.start()
    yield made
    made.kill()


def start_project(line: Path, folder: Path, *trackers: Any, **sections: dict[str, Any]) -> Params:
    """A copy of the tiny line with these trackers, and other values in sections."""
    shutil.copytree(line, folder, dirs_exist_ok=True)
    recipe = tiny_recipe()
    recipe["runtime"]["trackers"] = list(trackers)
    for name, values in sections.items():
        recipe[name] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return load_params(folder / "params.yaml")


def run(stage: str, params: Params) -> None:
    """As a stage's command does, in this process and folder."""
    with tracking.stage(stage, params, Path("workspace")):
        run_step(stage, params, Path("workspace"))


def runs_of(server: MlflowServer, project: str) -> list[Any]:
    client = mlflow.MlflowClient(server.address)
    found = client.get_experiment_by_name(project)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def history(server: MlflowServer, run: Any, key: str) -> list[tuple[int, float]]:
    found = mlflow.MlflowClient(server.address).get_metric_history(run.info.run_id, key)
    return [(one.step, one.value) for one in found]


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def untracked(line: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a student that was trained without trackers."""
    folder = tmp_path_factory.mktemp("untracked")
    params = start_project(line[0], folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("train_student", params)
    assert not (folder / "workspace/runs/tracking").exists()
    return bytes_of(folder / "workspace/student")


@dataclass
class Tracked:
    """A project whose pipeline was run from the student on, with MLflow."""

    root: Path
    params: Params

    def send_to(self, *trackers: Any) -> None:
        """Sends the run, which has ended, to other trackers."""
        configs = tuple(TrackerConfig(name=name) for name in trackers)
        runtime = self.params.runtime.model_copy(update={"trackers": configs})
        params = self.params.model_copy(update={"runtime": runtime})
        Senders(self.root / "workspace/runs/tracking", params, self.root).close("finished", 200)


@pytest.fixture(scope="module")
def tracked(
    line: tuple[Path, Params], server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Tracked:
    root = tmp_path_factory.mktemp("whole")
    mlflow_here = {"name": "mlflow", "to": server.address, "project": "whole", "registered_model": "cells"}
    # A webhook's address is a secret.
    params = start_project(line[0], root, mlflow_here, operate={"notify": "https://example.org/hook-4711"})
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    author = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*author, "commit", "-q", "--allow-empty", "-m", "first"], cwd=root, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for stage in ("train_student", "train_repeats", "evaluate", "compare"):
            run(stage, params)
        # As DVC does once the stage has ended.
        outs = [{"path": "workspace/student", "md5": folder_hash(root / "workspace/student")}]
        (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"train_student": {"outs": outs}}}))
        run("report", params)
    return Tracked(root, params)


def test_mlflow_has_one_run_of_the_whole_pipeline(tracked: Tracked, server: MlflowServer) -> None:
    (found,) = runs_of(server, "whole")
    assert found.info.status == "FINISHED"
    assert found.data.params["student.lr"] == "0.0015" and found.data.params["seed"] == "0"
    assert found.data.params["teacher.milestones"] == "[6, 10]"
    assert "hook-4711" not in json.dumps(found.data.params)
    assert not any(key.startswith(("runtime", "operate")) for key in found.data.params)
    rows = logged(tracked.root / "workspace/student")
    assert [row["step"] for row in rows] == STEPS
    for key in ("loss", "loss_mask", "loss_category", "lr"):
        assert history(server, found, f"student/{key}") == [(row["step"], row[key]) for row in rows]
    speeds = history(server, found, "student/images_per_second")
    assert [step for step, _ in speeds] == STEPS[1:] and all(value > 0 for _, value in speeds)
    # What wasn't trained anew in this run.
    for name in ("teacher", "refiner"):
        before = logged(tracked.root / "workspace" / name)
        assert history(server, found, f"{name}/loss") == [(row["step"], row["loss"]) for row in before]
    metrics = json.loads((tracked.root / "workspace/evaluation/metrics.json").read_text())
    for key in ("teacher/AP", "teacher/AP50", "student/AP", "pseudo/rough_iou"):
        section, _, name = key.partition("/")
        assert found.data.metrics[key] == pytest.approx(metrics[section][name])
    assert found.data.metrics["seconds/train_student"] > 0
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tracked.root, capture_output=True, text=True, check=True
    )
    assert (
        found.data.tags["git.commit"] == found.data.tags["mlflow.source.git.commit"] == commit.stdout.strip()
    )
    assert found.data.tags["dvc.student"] == folder_hash(tracked.root / "workspace/student")


def test_mlflow_has_report_and_metrics(tracked: Tracked, server: MlflowServer, tmp_path: Path) -> None:
    (found,) = runs_of(server, "whole")
    client = mlflow.MlflowClient(server.address)
    for name, path in (("report.html", "report.html"), ("metrics.json", "evaluation/metrics.json")):
        got = client.download_artifacts(found.info.run_id, name, str(tmp_path))
        assert Path(got).read_bytes() == (tracked.root / "workspace" / path).read_bytes()


@pytest.mark.slow
def test_a_promoted_model_is_registered_once_and_marked(
    tracked: Tracked, server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = tracked.root / "workspace/student"
    shutil.copytree(student, tracked.root / "registry/v1/model")
    for _ in range(2):  # promoted, and again after a roll-back
        tracking.promoted(tracked.params, tracked.root, "v1", folder_hash(student), Path("registry/v1/model"))
    client = mlflow.MlflowClient(server.address)
    (version,) = client.search_model_versions("name = 'cells'")
    assert version.tags["points2model.version"] == "v1"
    assert version.run_id == runs_of(server, "whole")[0].info.run_id
    assert client.get_model_version_by_alias("cells", "promoted").version == version.version
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    mlflow.set_tracking_uri(server.address)
    got = mlflow.artifacts.download_artifacts("models:/cells@promoted", dst_path=str(tmp_path))
    assert bytes_of(Path(got)) == bytes_of(student)


def test_tensorboard_reads_the_curves(tracked: Tracked) -> None:
    tracked.send_to("tensorboard")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.util.tensor_util import make_ndarray

    (folder,) = (tracked.root / "workspace/runs/tracking/tensorboard").iterdir()
    found = reader.EventAccumulator(str(folder)).Reload()

    def values(key: str) -> list[tuple[int, float]]:
        return [(one.step, make_ndarray(one.tensor_proto).item()) for one in found.Tensors(key)]

    rows = logged(tracked.root / "workspace/student")
    assert values("student/loss") == [(row["step"], pytest.approx(row["loss"])) for row in rows]
    metrics = json.loads((tracked.root / "workspace/evaluation/metrics.json").read_text())
    assert values("teacher/AP") == [(0, pytest.approx(metrics["teacher"]["AP"]))]


def wandb_records(path: Path) -> Iterator[Any]:
    """Of a .wandb file: LevelDB's log format after 7 bytes. The package has no reader of it any more."""
    from wandb.proto.wandb_internal_pb2 import Record

    raw, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(raw):
        if (room := 2**15 - at % 2**15) < 7:
            at += room
            continue
        size, kind = struct.unpack("<HB", raw[at + 4 : at + 7])
        whole += raw[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.mark.slow
def test_wandb_has_one_offline_run(tracked: Tracked) -> None:
    pytest.importorskip("wandb")
    tracked.send_to("wandb")
    # As if another stage had ended: the folder is written anew.
    next(Runs(tracked.root / "workspace/runs/tracking").root.glob("*/wandb-*.json")).unlink()
    tracked.send_to("wandb")
    folder = tracked.root / "workspace/runs/tracking/wandb/wandb"
    (run_folder,) = folder.glob("offline-run-*")
    rows: list[dict[str, Any]] = []
    config: dict[str, str] = {}
    for record in wandb_records(next(run_folder.glob("*.wandb"))):
        if record.HasField("run"):
            config |= {one.key: one.value_json for one in record.run.config.update}
        if record.HasField("history"):
            rows.append({one.nested_key[0]: json.loads(one.value_json) for one in record.history.item})
    assert json.loads(config["student.lr"]) == "0.0015"
    losses = [(row["student/step"], row["student/loss"]) for row in rows if "student/loss" in row]
    assert losses == [(row["step"], row["loss"]) for row in logged(tracked.root / "workspace/student")]
    assert (run_folder / "files/report.html").read_bytes() == (
        tracked.root / "workspace/report.html"
    ).read_bytes()


def test_dvc_plots_the_curves(tracked: Tracked) -> None:
    tracked.send_to("dvc")
    subprocess.run(["dvc", "init", "-q"], cwd=tracked.root, check=True, capture_output=True)
    shown = Repo(str(tracked.root)).plots.show()["workspace"]
    folder = "workspace/runs/tracking/dvc"
    plots = shown["definitions"]["data"][f"{folder}/dvc.yaml"]["data"]
    assert plots["student mask"]["x"] == "step"
    assert plots["student mask"]["y"] == {f"{folder}/student.tsv": "loss_mask"}
    rows = shown["sources"]["data"][f"{folder}/student.tsv"]["data"]
    assert [(int(row["step"]), float(row["loss_mask"])) for row in rows] == [
        (row["step"], row["loss_mask"]) for row in logged(tracked.root / "workspace/student")
    ]


def test_trackers_change_no_output(tracked: Tracked, untracked: dict[str, bytes]) -> None:
    assert bytes_of(tracked.root / "workspace/student") == untracked


def when_row(number: int, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Does something once a training has logged so many rows."""
    import tasks.training.loop

    rows: list[int] = []

    def log(*arguments: Any) -> None:
        tracking.log(*arguments)
        rows.append(1)
        if len(rows) == number:
            do()

    class Watched:
        """The module with another `log`."""

    watched = Watched()
    watched.log = log  # type: ignore[attr-defined]
    monkeypatch.setattr(tasks.training.loop, "tracking", watched)


@pytest.mark.slow
def test_a_server_that_is_killed_midway_gets_the_rest_later(
    line: tuple[Path, Params],
    server: MlflowServer,
    untracked: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    params = start_project(line[0], tmp_path, {"name": "mlflow", "to": server.address, "project": "killed"})
    monkeypatch.chdir(tmp_path)

    def kill() -> None:
        last = time.monotonic() + 200
        while not (runs := runs_of(server, "killed")) or not history(server, runs[0], "student/loss"):
            assert time.monotonic() < last
            time.sleep(0.1)
        server.kill()

    when_row(3, kill, monkeypatch)
    try:
        run("train_student", params)
        with tracking.stage("pseudo_label", params, Path("workspace")):
            pass  # another one, while the server is still away
    finally:
        server.start()
    assert bytes_of(tmp_path / "workspace/student") == untracked
    warnings = [one for one in capfd.readouterr().err.splitlines() if one.startswith("tracking:")]
    assert len(warnings) == 1 and server.address in warnings[0]
    assert "The run goes on; what is missing there lies in workspace/runs/tracking" in warnings[0]
    (found,) = runs_of(server, "killed")
    assert len(history(server, found, "student/loss")) < len(STEPS)
    with tracking.stage("evaluate", params, Path("workspace")):
        (tmp_path / "workspace/evaluation").mkdir()
        (tmp_path / "workspace/evaluation/metrics.json").write_text('{"student": {"AP": 1.5, "AP75": null}}')
    # On a busy machine an import of MLflow alone takes longer than a stage waits.
    Senders(tmp_path / "workspace/runs/tracking", params, tmp_path).close("finished", 200)
    (found,) = runs_of(server, "killed")
    assert [step for step, _ in history(server, found, "student/loss")] == STEPS
    assert found.data.metrics["student/AP"] == 1.5 and "student/AP75" not in found.data.metrics
    assert not [one for one in capfd.readouterr().err.splitlines() if one.startswith("tracking:")]


def test_a_server_that_isnt_there(
    line: tuple[Path, Params],
    untracked: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With its address, and a secret in it, from the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    params = start_project(line[0], tmp_path, "mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:hunter2@127.0.0.1:{port}/?key=hunter3")
    run("train_student", params)
    assert bytes_of(tmp_path / "workspace/student") == untracked
    output = capfd.readouterr().err
    assert re.search(
        rf"tracking: mlflow \(http://127\.0\.0\.1:{port}/\): can't be reached \(connection refused\)\. The run",
        output,
    ), output
    assert "hunter" not in output
    assert not [path for path in (tmp_path / "workspace/runs/tracking").rglob("*") if path.is_file()
                and b"hunter" in path.read_bytes()]  # fmt: skip


@pytest.mark.slow
def test_a_server_that_never_answers_delays_the_end_alone(
    line: tuple[Path, Params],
    untracked: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        params = start_project(line[0], tmp_path, {"name": "mlflow", "to": address})
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
        with tracking.stage("train_student", params, Path("workspace")):
            run_step("train_student", params, Path("workspace"))
            ended = time.monotonic()
        assert time.monotonic() - ended < 25
    assert bytes_of(tmp_path / "workspace/student") == untracked
    assert capfd.readouterr().err.count("tracking: mlflow") == 1


def test_a_package_that_isnt_installed(
    line: tuple[Path, Params],
    untracked: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    params = start_project(line[0], tmp_path, "tensorboard")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "without").mkdir()
    absent = "raise ModuleNotFoundError(\"No module named 'tensorboard'\", name='tensorboard')"
    (tmp_path / "without/tensorboard.py").write_text(absent)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'without'}{os.pathsep}{ROOT}")
    run("train_student", params)
    assert bytes_of(tmp_path / "workspace/student") == untracked
    output = capfd.readouterr().err
    assert output.count("tracking: ") == 1
    assert (
        "tracking: tensorboard: package tensorboard can't be imported: run `pip install 'points2model["
        in output
    )


@pytest.mark.slow
def test_a_stage_that_is_killed_goes_on_in_the_same_run(
    line: tuple[Path, Params], server: MlflowServer, tmp_path: Path
) -> None:
    """A real process, killed while it trains, and started again."""
    start_project(
        line[0], tmp_path, {"name": "mlflow", "to": server.address, "project": "resumed"},
        student={"steps": 40, "checkpoint_every": 4, "log_every": 1},
    )  # fmt: skip
    command = [sys.executable, "-m", "tasks.train_student"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    last = time.monotonic() + 400
    runs = Runs(tmp_path / "workspace/runs/tracking")
    while (begun := runs.current()) is None or sum(one.kind == "curve" for one in begun.events()) < 6:
        assert time.monotonic() < last and first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    while [one.info.status for one in runs_of(server, "resumed")] != ["KILLED"]:
        assert time.monotonic() < last
        time.sleep(0.1)
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    (found,) = runs_of(server, "resumed")
    assert found.info.status == "FINISHED"
    assert history(server, found, "student/loss") == [
        (row["step"], row["loss"]) for row in logged(tmp_path / "workspace/student")
    ]
    raw = next(runs.root.glob("*/events.jsonl")).read_text()
    assert len(re.findall('"curve"', raw)) > 40  # steps that were computed twice


@pytest.mark.slow
def test_a_full_disk_is_a_warning_for_each(line: tuple[Path, Params], tmp_path: Path) -> None:
    """That of W&B's and TensorBoard's folder; a real one. Each is warned of once."""
    trackers = ({"name": "wandb", "to": "full"}, {"name": "tensorboard", "to": "full/board"})
    start_project(line[0], tmp_path, *trackers)
    (tmp_path / "full").mkdir()
    script = """
        from pathlib import Path
        from tasks.common import tracking
        from tasks.common.config import load_params
        with tracking.stage("train_teacher", load_params(), Path("workspace")):
            for step in range(1, 400):
                row = {"step": step, "loss": 1 / step}
                tracking.log(Path("workspace/runs/train_teacher"), "key", row, 4)
        """
    (tmp_path / "stage.py").write_text(textwrap.dedent(script))
    done = on_own_disk(
        tmp_path / "full", "size=16k", f"'{sys.executable}' stage.py", tmp_path,
        os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = sorted(one for one in done.stderr.splitlines() if one.startswith("tracking:"))
    assert [one.split(" (")[0] for one in lines] == ["tracking: tensorboard", "tracking: wandb"]
    assert all("No space left on device. The run goes on" in one for one in lines)
