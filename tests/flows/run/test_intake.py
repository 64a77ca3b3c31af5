"""Intake with real git, real DVC, the line's own images and a real S3 server."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.errors import DataError
from flows.run.intake import Intake, ShownLog, take_in
from flows.run.stage import show_lines
from tasks.common.config import Params, load_params
from tasks.common.errors import TaskError
from tasks.doctor.setup import awaits_points
from tasks.inbox.ledger import Ledger
from tests.conftest import Bucket
from tests.tasks.conftest import run_step, tiny_recipe
from tests.tasks.inbox.test_pending import clicks, with_inbox

log = logging.getLogger("intake")


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    """A folder with the tiny demo's images, read, and its clicks."""
    folder = tmp_path_factory.mktemp("ingested")
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_recipe()), encoding="utf-8")
    params = load_params(folder / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for step in ("make_demo", "ingest"):
            run_step(step, params, Path("workspace"))
    return folder, params


@pytest.fixture
def params(ingested: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project in git and DVC, the current folder: points in `points`, an inbox `inbox`."""
    folder, params = ingested
    shutil.copytree(folder / "workspace/dataset", tmp_path / "workspace/dataset")
    shutil.copytree(folder / "workspace/demo/points", tmp_path / "points")
    (tmp_path / "inbox").mkdir()
    (tmp_path / ".gitignore").write_text("/workspace/\n")
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    git("config", "user.email", "a@b.c")
    git("config", "user.name", "A")
    dvc("init", "-q")
    return with_inbox(params, "inbox")


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def dvc(*arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def on_reject(params: Params, value: str) -> Params:
    return params.model_copy(update={"points": params.points.model_copy(update={"on_reject": value})})


def intake(params: Params, **more: Any) -> Intake:
    return take_in(Path.cwd(), params, log, **more)


def states(result: Intake) -> dict[str, str]:
    return {one.name: one.state for one in result.arrivals}


@pytest.mark.parametrize("reject", ["stop", "report"])
def test_good_files_are_taken_in_and_bad_ones_set_aside(
    params: Params, reject: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    Path("inbox/june").mkdir()
    Path("inbox/june/a.json").write_bytes(clicks(2))
    Path("inbox/broken.json").write_text("{")
    shutil.copy("points/clicks.json", "inbox/copy.json")
    params = on_reject(params, reject)
    first = intake(params)
    assert states(first) == {"june/a.json": "taken", "broken.json": "rejected", "copy.json": "same"}
    assert (first.points, first.problems, first.settling) == (2, [], [])
    assert str(first) == "2 new points in 1 file, 1 file rejected, 1 with nothing new"
    assert Path("points/june/a.json").read_bytes() == clicks(2)
    assert sorted(path.name for path in Path("points").rglob("*.json")) == ["a.json", "clicks.json"]
    assert "inbox: broken.json: rejected: file: found broken JSON" in caplog.text
    assert "inbox: copy.json: nothing new: the content of clicks.json, which counts" in caplog.text
    assert not Path("workspace/runs/arrivals/intake").exists()
    assert {path.name for path in Path("inbox").rglob("*.json")} == {"a.json", "broken.json", "copy.json"}
    again = intake(params)
    assert again.arrivals == [] and str(again) == "nothing new"


def test_each_arrival_is_a_version_of_the_folder(params: Params) -> None:
    before = Path("points/clicks.json").read_bytes()
    Path("inbox/a.json").write_bytes(clicks(1))
    intake(params)
    git("add", "-A")
    git("commit", "-qm", "first")
    assert {"points.dvc", "arrivals"} <= {name.split("/")[0] for name in git("ls-files").splitlines()}
    three = clicks(3)
    Path("inbox/a.json").write_bytes(three)
    Path("inbox/clicks.json").write_bytes(clicks(2, at=3.5))
    second = intake(params)
    assert states(second) == {"a.json": "taken", "clicks.json": "taken"}
    reasons = {one.name: one.reason for one in second.arrivals}
    assert reasons["a.json"].startswith("replaces the version of 20")
    assert reasons["clicks.json"] == "replaces the version of this folder"
    assert Path("points/a.json").read_bytes() == three
    assert "up to date" in dvc("status", "points.dvc")
    git("checkout", "-q", "--", "points.dvc")
    dvc("checkout", "-q", "--force", "points.dvc")
    assert Path("points/clicks.json").read_bytes() == before
    assert Path("points/a.json").read_bytes() == clicks(1)


def test_a_folder_that_git_keeps_is_left_to_git(params: Params) -> None:
    git("add", "points")
    git("commit", "-qm", "points")
    Path("inbox/a.json").write_bytes(clicks(1))
    assert intake(params).points == 1
    assert not Path("points.dvc").exists()
    assert git("status", "--porcelain", "points") == "?? points/a.json\n"


def test_outside_of_the_project_nothing_is_lost_either(params: Params, tmp_path: Path) -> None:
    """There no version is kept: a file that the inbox didn't bring isn't replaced, one that it brought is."""
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    shutil.move("points", outside)
    Path("points").mkdir()
    shutil.copy(outside / "clicks.json", "points")  # for clicks()
    params = with_inbox(params, "inbox", files=str(outside))
    Path("inbox/a.json").write_bytes(clicks(1))
    Path("inbox/clicks.json").write_bytes(clicks(2, at=3.5))
    first = intake(params)
    assert states(first) == {"a.json": "taken", "clicks.json": "rejected"}
    assert "no version of it is kept; rename one" in first.of("rejected")[0].reason
    Path("inbox/a.json").write_bytes(clicks(2))
    assert states(intake(params)) == {"a.json": "taken"}
    assert (outside / "a.json").read_bytes() == clicks(2)


def test_a_rejected_file_is_looked_at_again_when_it_changes(params: Params) -> None:
    Path("inbox/a.json").write_text("{")
    assert states(intake(params)) == {"a.json": "rejected"}
    assert intake(params).arrivals == []
    Path("inbox/a.json").write_bytes(clicks(1))
    assert states(intake(params)) == {"a.json": "taken"}


def test_a_kill_between_copy_and_ledger_is_made_good(params: Params) -> None:
    Path("inbox/a.json").write_bytes(clicks(1))
    intake(params)
    for path in Path("arrivals").rglob("*.json"):
        path.unlink()
    Path("points/.a.json.0123.partial").write_text("half")
    again = intake(params)
    assert states(again) == {"a.json": "taken"} and again.points == 0
    assert sorted(path.name for path in Path("points").iterdir()) == ["a.json", "clicks.json"]


def test_images_are_brought_up_to_date_before_clicks_are_looked_up(params: Params) -> None:
    shutil.move("workspace/dataset", "later")
    Path("inbox/a.json").write_bytes(clicks(2))
    broken = clicks(1).replace(b'"point": [1.25, 1.25]', b'"point": [-1.0, 1.0]')
    Path("inbox/b.json").write_bytes(broken)

    def ingest() -> bool:
        shutil.move("later", "workspace/dataset")
        return True

    result = intake(on_reject(params, "stop"), before=ingest)
    assert states(result) == {"a.json": "taken", "b.json": "rejected"}
    Path("inbox/c.json").write_bytes(clicks(3))
    assert intake(params, before=lambda: False).arrivals == []
    assert not Path("points/c.json").exists() and Ledger(Path()).last_taken("c.json") is None


@pytest.mark.slow  # botocore tries again and again
def test_an_inbox_out_of_reach_does_not_end_the_run(
    params: Params, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.fill({"in/a.json": clicks(2), "in/b.json": clicks(1, at=2.5)})
    params = with_inbox(params, f"s3://{bucket.name}/in")
    for plan in (  # no listing; a listing, but no object
        lambda method, path, nth: "503",
        lambda method, path, nth: None if "list-type" in path else "503",
    ):
        bucket.proxy.plan = plan
        result = intake(params)
        assert result.arrivals == [] and len(result.problems) == 1
        said = f"inbox: nothing was taken in, the run goes on with the points that are here: s3://{bucket.name}/in"
        assert said in caplog.text
        assert [path.name for path in Path("points").iterdir()] == ["clicks.json"]
        assert not Path("arrivals").exists()
    bucket.proxy.plan = lambda method, path, nth: None
    assert states(intake(params)) == {"a.json": "taken", "b.json": "taken"}
    bucket.proxy.requests.clear()
    assert intake(params).arrivals == [] and bucket.proxy.gets() == []


def test_the_same_object_again_or_under_another_key(params: Params, bucket: Bucket) -> None:
    params = with_inbox(params, f"s3://{bucket.name}/in")
    bucket.fill({"in/a.json": clicks(2)})
    assert states(intake(params)) == {"a.json": "taken"}
    bucket.fill({"in/a.json": clicks(2), "in/again.json": clicks(2)})
    assert states(intake(params)) == {"again.json": "same"}
    assert intake(params).arrivals == []


def test_an_inbox_that_the_line_reads_itself_needs_no_copy(params: Params) -> None:
    params = on_reject(with_inbox(params, "points", files="points"), "report")
    Path("points/broken.json").write_text("{")
    result = intake(params)
    assert states(result) == {"clicks.json": "taken", "broken.json": "rejected"}
    assert not Path("points.dvc").exists() and Path("points/broken.json").exists()
    assert intake(params).arrivals == []


def test_settings_that_cannot_work_end_the_run(params: Params) -> None:
    with pytest.raises(TaskError, match=r"points\.files.*s3"):
        intake(with_inbox(params, "inbox", files="s3://bucket/points"))
    with pytest.raises(DataError, match="no such folder"):
        raise_of(intake(with_inbox(params, "absent")))
    assert intake(with_inbox(params, None)) == Intake()


def raise_of(result: Intake) -> None:
    """An inbox that isn't there is out of reach, like a server: a share may not be mounted."""
    raise DataError(result.problems[0])


def test_a_version_that_cannot_be_kept_is_a_problem_told(params: Params) -> None:
    shutil.rmtree(".dvc")
    Path("inbox/a.json").write_bytes(clicks(1))
    result = intake(params)
    assert states(result) == {"a.json": "taken"}
    assert "`dvc add points` failed" in result.problems[0]


def test_the_first_file_of_all_makes_the_folder(params: Params) -> None:
    content = clicks(2)
    for name in ("points", "workspace/dataset"):
        shutil.rmtree(name)
    Path("inbox/a.json").write_bytes(content)
    assert awaits_points(params, Path())
    assert intake(params).points == 2 and Path("points/a.json").read_bytes() == content
    assert Path("points.dvc").exists() and not awaits_points(params, Path())


def test_who_watches_a_run_sees_what_is_taken_in(params: Params) -> None:
    Path("inbox/a.json").write_bytes(clicks(1))
    seen: list[tuple[str, str]] = []
    show_lines(lambda stage, line: seen.append((stage, line)))
    try:
        take_in(Path.cwd(), params, ShownLog(log, {}))
    finally:
        show_lines(None)
    assert ("inbox", "inbox: a.json: taken in, 1 point") in seen


def test_the_ledger_is_readable_json(params: Params) -> None:
    Path("inbox/a.json").write_bytes(clicks(1))
    intake(params)
    (path,) = Path("arrivals").rglob("*.json")
    entry = json.loads(path.read_text())
    assert entry["name"] == "a.json" and entry["state"] == "taken" and entry["points"] == 1
