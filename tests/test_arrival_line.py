"""New point files become a new model by themselves: a real Prefect server, worker and watcher, and an inbox in real S3.

The tests share one project and go through its life in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.processes.login import FILE
from flows.serve.watch import EVENT
from tests.prefect_processes import Prefect, answers, free_port, prefect_processes, wait_for
from tests.s3_server import environment
from tests.tasks.conftest import ROOT
from tests.test_line import Project

pytestmark = [pytest.mark.line, pytest.mark.timeout(3600)]

BUCKET = "arrivals"
LONGEST = 180 * max(1.0, os.getloadavg()[1] / (os.cpu_count() or 1))
"""Seconds from a file in the inbox to the end of the run, at most; more on a machine that others keep busy."""


@dataclass
class Operated:
    """A project whose line has run once by hand, with a server, a worker and a watcher beside it."""

    project: Project
    prefect: Prefect
    client: Any

    def drop(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"in/{name}", Body=content)

    def clicks(self, images: int, at: float) -> bytes:
        """A file with a new click on each of so many images."""
        content = json.loads((self.project.folder / "points/clicks.json").read_text())
        rows = {row["image_id"]: row for row in content["annotations"]}
        new = [row | {"id": int(at * 10**6) + n, "point": [at, at]} for n, row in enumerate(rows.values())]
        return json.dumps(content | {"annotations": new[:images]}).encode()

    def next_runs(self, before: int, count: int = 1) -> list[dict[str, Any]]:
        """The runs that come after the first `before` ones, once so many have ended."""
        runs = wait_for("end of the run", lambda: self.prefect.ended(before + count), 3 * LONGEST)
        return runs[before:]

    def ledger(self) -> dict[str, str]:
        """What became of each file."""
        entries = [json.loads(path.read_text()) for path in self.project.folder.glob("arrivals/*/*.json")]
        return {entry["name"]: entry["state"] for entry in sorted(entries, key=lambda one: one["when"])}

    def points(self) -> int:
        manifest = json.loads((self.project.folder / "workspace/points/manifest.json").read_text())
        points: int = manifest["counts"]["points"]
        return points


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    with prefect_processes(tmp_path_factory.mktemp("prefect")) as prefect:
        yield prefect


@pytest.fixture(scope="module")
def operated(
    prefect: Prefect, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operated]:
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(s3_endpoint).items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        project = Project(tmp_path_factory.mktemp("project"))
        shutil.copy(ROOT / "prefect.yaml", project.folder / "prefect.yaml")
        project.recipe["points"] |= {"files": "points", "on_reject": "stop"}
        inbox = {"source": f"s3://{BUCKET}/in", "poll_seconds": 1, "stable_seconds": 3, "min_points": 1}
        project.recipe["operate"]["inbox"] |= inbox
        project.save()
        assert project.call("tasks.make_demo").returncode == 0
        shutil.copytree(project.folder / "workspace/demo/points", project.folder / "points")
        here = project.folder
        env = prefect.env({**environment(s3_endpoint), "PYTHONPATH": str(here)})

        def call(*command: str) -> None:
            done = subprocess.run(
                [str(Path(shutil.which("python", path=env["PATH"]) or "python")), "-m", *command],
                cwd=here, env=env, capture_output=True, text=True, timeout=600, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr

        call("flows.cli.main", "run")
        call("prefect", "work-pool", "create", "line", "--type", "process")
        call("prefect", "--no-prompt", "deploy", "--all")
        prefect.start("worker", "prefect", "worker", "start", "--pool", "line", cwd=here, env=env)
        prefect.start("watcher", "flows.cli.main", "watch", cwd=here, env=env)
        wait_for("watcher", lambda: "nothing new" in prefect.said("watcher"), 120)
        yield Operated(project, prefect, client)


def test_a_file_in_the_inbox_becomes_a_decided_model(operated: Operated) -> None:
    """Event, one run, only the new images labelled, a model promoted or refused."""
    prefect, before = operated.prefect, operated.points()
    known = len(prefect.runs())
    started = time.monotonic()
    operated.drop("june/a.json", operated.clicks(2, at=1.25))
    (run,) = operated.next_runs(known)
    seconds = time.monotonic() - started
    assert run["state_type"] == "COMPLETED", prefect.log_of(run)
    assert run["parameters"]["reason"] == "2 new points in 1 file"
    (event,) = prefect.events(EVENT)
    assert event["payload"]["files"] == ["june/a.json"] and event["payload"]["points"] == 2
    assert event["resource"]["prefect.resource.name"] == f"s3://{BUCKET}/in"
    assert operated.ledger() == {"june/a.json": "taken"} and operated.points() == before + 2
    assert (operated.project.folder / "points.dvc").is_file()
    entry = json.loads((operated.project.folder / "registry/v2/entry.json").read_text())
    assert entry["decision"] in ("promoted", "refused") and entry["reason"] == "2 new points in 1 file"
    log = prefect.log_of(run)
    assert "inbox: june/a.json: taken in, 2 points" in log
    assert re.search(r"pseudo_label: 2 images computed, 12 carried over from earlier runs", log)
    assert seconds < LONGEST, f"{seconds:.0f} s"


def test_a_burst_is_one_run_and_a_corrupt_file_is_set_aside(operated: Operated) -> None:
    prefect, before = operated.prefect, operated.points()
    known, told = len(prefect.runs()), len(prefect.events(EVENT))
    operated.drop("b.json", operated.clicks(1, at=2.25))
    time.sleep(1.5)
    operated.drop("c.json", operated.clicks(1, at=3.25))
    operated.drop("broken.json", b'{"images": [')
    time.sleep(1.5)
    operated.drop("d.json", operated.clicks(2, at=4.25))
    (run,) = operated.next_runs(known)
    assert run["state_type"] == "COMPLETED", prefect.log_of(run)
    assert run["parameters"]["reason"] == "4 new points in 3 files, 1 file that can't be used"
    assert len(prefect.events(EVENT)) == told + 1
    decided = {"b.json": "taken", "c.json": "taken", "d.json": "taken", "broken.json": "rejected"}
    assert operated.ledger() == {"june/a.json": "taken", **decided}
    assert operated.points() == before + 4
    log = prefect.log_of(run)
    assert "inbox: broken.json: rejected: file: found broken JSON" in log
    assert "broken.json can't be used" in prefect.said("watcher")


def test_the_same_file_again_is_nothing_new(operated: Operated) -> None:
    """Stored once more, and under another name."""
    prefect = operated.prefect
    known, told = len(prefect.runs()), len(prefect.events(EVENT))
    operated.drop("d.json", operated.clicks(2, at=4.25))
    operated.drop("copy of d.json", operated.clicks(2, at=4.25))
    wait_for("watcher's word", lambda: "1 with nothing new" in prefect.said("watcher"), 60)
    time.sleep(10)
    assert (len(prefect.runs()), len(prefect.events(EVENT))) == (known, told)


def test_the_watcher_ends_cleanly(operated: Operated) -> None:
    assert operated.prefect.stop("watcher") == 0
    said = operated.prefect.said("watcher")
    assert said.rstrip().endswith("stopped") and "Traceback" not in said


def test_serve_does_all_of_it_and_leaves_nothing_behind(operated: Operated) -> None:
    """Schedule, inbox and server in one process tree; a scheduled run really comes, which breaks silently with some
    versions of SQLAlchemy."""
    project, other = operated.project, operated.prefect
    other.stop("worker")
    project.recipe["operate"]["schedule"] = "* * * * *"
    project.save()
    prefect = Prefect(project.folder / ".prefect", free_port(), other.logs)
    env = {name: value for name, value in other.env().items() if not name.startswith("PREFECT_")}
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    env |= {**aws, "PYTHONPATH": str(project.folder)}
    process = prefect.start(
        "serve", "flows.cli.main", "serve", "--port", str(prefect.port), cwd=project.folder, env=env
    )
    try:
        wait_for("serving", lambda: "nothing new" in prefect.said("serve"), 300)
        served = datetime.now(UTC)
        first = wait_for("scheduled run", lambda: _done(prefect, "schedule"), 120 + LONGEST)
        due = datetime.fromisoformat(first["expected_start_time"])
        assert due < served + timedelta(seconds=61) and first["name"].startswith("schedule, ")
        states = prefect.ask("/task_runs/filter", task_runs={"flow_run_id": {"any_": [first["id"]]}})
        # The decision on the student is made in each run that has a report; it is no stage, and costs nothing.
        stages = {row["name"]: row["state_name"] for row in states if row["name"] != "promote"}
        assert stages and set(stages.values()) == {"Cached"}, stages
        _unschedule(prefect)  # a run that is due would take the file in by itself
        wait_for("quiet", lambda: prefect.ended(1), 120 + LONGEST)
        operated.drop("e.json", operated.clicks(1, at=5.25))
        run = wait_for("run of the event", lambda: _done(prefect, "1 new point in 1 file"), 120 + 2 * LONGEST)
        assert "pseudo_label: 1 images computed, 13 carried over" in prefect.log_of(run)
        tree = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        assert len(tree) >= 3
    finally:
        code = prefect.stop("serve", signal.SIGTERM, 120)
    told = prefect.said("serve")
    login = (project.folder / FILE).read_text().strip()
    assert f"the UI needs a login: it is in {FILE}" in told and login not in told
    assert code == 0 and "Error logging to API" not in told, told
    assert re.search(r"run '1 new point in 1 file, .*' has ended: Completed, after \d+", told), told
    assert not [pid for pid in tree if psutil.pid_exists(pid)]
    assert not _at_work_in(project.folder) and not answers(prefect.url)


def _unschedule(prefect: Prefect) -> None:
    for deployment in prefect.ask("/deployments/filter"):
        for schedule in deployment["schedules"]:
            path = f"/deployments/{deployment['id']}/schedules/{schedule['id']}"
            httpx.delete(prefect.url + path, auth=prefect.auth, timeout=60).raise_for_status()


def _done(prefect: Prefect, reason: str) -> dict[str, Any] | None:
    """The first run for a reason, once it has completed."""
    runs = [run for run in prefect.runs() if run["parameters"]["reason"] == reason]
    assert all(run["state_type"] not in ("FAILED", "CRASHED", "CANCELLED") for run in runs), prefect.said(
        "serve"
    )
    return next((run for run in runs if run["state_type"] == "COMPLETED"), None)


def _at_work_in(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder):
                found.append(" ".join(process.cmdline()))
    return found
