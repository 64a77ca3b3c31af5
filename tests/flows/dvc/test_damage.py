"""Damaged bytes are never used: a remote replaces them, or their stage runs again, with the same hash."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from flows.cli.doctor import check_outputs
from flows.dvc.damage import RECORD, remove_damaged
from flows.dvc.remote_config import RemoteError
from flows.dvc.remote_setup import set_up
from flows.dvc.repo import DvcRepo
from flows.dvc.send import send_all
from tasks.doctor.finding import Diagnosis
from tests.conftest import Bucket
from tests.flows.whole import OUTS, STAGES, Whole, damage, lose_workspace


def object_of(whole: Whole, what: str) -> Path:
    """The cache's file of a stage's output, or of a file in the folder."""
    return whole.stored(whole.member() if what == "member" else whole.digest(OUTS[what]))


def run(whole: Whole) -> dict[str, str]:
    """The real flow: the state of each stage."""
    from flows.run.pipeline import annotation_to_model

    return {one["name"]: one["state"] for one in annotation_to_model(target="last")}


WAYS = [*STAGES, "member"]


@pytest.mark.parametrize("what", WAYS)
def test_without_a_remote_the_stage_runs_again_and_nothing_else(whole: Whole, what: str) -> None:
    before, lock = whole.outputs(), whole.path("dvc.lock").read_bytes()
    bad = object_of(whole, what)
    damage(bad)
    lose_workspace(whole)
    said = whole.run()
    assert any("in DVC's cache is damaged: found" in line and bad.name in line for line in said)
    assert whole.ran() == ["folder" if what == "member" else what]
    assert whole.outputs() == before and whole.path("dvc.lock").read_bytes() == lock
    assert whole.run() == [] and whole.ran() == []


@pytest.mark.parametrize("what", WAYS)
def test_with_a_remote_it_is_replaced(whole: Whole, store: Path, what: str) -> None:
    before = whole.outputs()
    bad = object_of(whole, what)
    sound = bad.read_bytes()
    damage(bad)
    lose_workspace(whole)
    whole.run()
    assert whole.ran() == []
    assert whole.outputs() == before and bad.read_bytes() == sound


@pytest.mark.parametrize("kind", ["copy", "hardlink", "symlink"])
@pytest.mark.parametrize("what", WAYS)
def test_a_damaged_output_in_the_workspace_is_removed(whole: Whole, what: str, kind: str) -> None:
    """DVC has restored damaged bytes and has their expected hash in its state."""
    before = whole.outputs()
    whole.links(kind)
    bad = object_of(whole, what)
    rows = json.loads(bad.read_text())[1:] if what == "folder" else []
    damage(bad, json.dumps(rows).encode() if rows else None)
    lose_workspace(whole)
    whole.check_out()
    assert whole.outputs() != before
    whole.run()
    assert whole.ran() == ["folder" if what == "member" else what]
    assert whole.outputs() == before


def test_a_remote_that_is_damaged_too_is_named_and_not_used(whole: Whole, store: Path) -> None:
    before = whole.outputs()
    digest = whole.member()
    damage(whole.stored(digest))
    damage(whole.stored(digest, store))
    lose_workspace(whole)
    said = "\n".join(whole.run())
    at = f"{store}/files/md5/{digest[:2]}/{digest[2:]}"
    assert (
        f"{at} in remote store is damaged: found" in said
        and "not used for ws/folder. Delete it there" in said
    )
    assert whole.ran() == ["folder"] and whole.outputs() == before
    # The steps of the message repair it.
    listed = whole.stored(whole.digest("ws/folder"), store)
    assert str(listed) in said
    Path(at).unlink()
    listed.unlink()
    send_all(whole.root, print, pauses=())
    assert Path(at).read_bytes() == whole.stored(digest).read_bytes() and listed.exists()


def test_nothing_damaged_is_sent(whole: Whole, tmp_path: Path) -> None:
    set_up(whole.root, "store", {"url": str(tmp_path / "s")}, share=True, replace=False, seconds=60)
    damage(object_of(whole, "file"))
    with pytest.raises(RemoteError, match=r"nothing was sent(.|\n)*is damaged(.|\n)*points2model run"):
        send_all(whole.root, print, pauses=())
    assert not whole.stored(whole.digest("ws/file"), tmp_path / "s").exists()
    whole.run()
    assert whole.ran() == ["file"]
    assert "files" in send_all(whole.root, print, pauses=())


def test_results_of_an_earlier_run_are_hashed_before_dvc_restores_them(whole: Whole) -> None:
    before = whole.outputs()
    bad = object_of(whole, "file")
    whole.set(file=2)
    whole.run()
    assert whole.ran() == STAGES
    damage(bad)
    whole.set()
    said = whole.run()
    assert len(said) == 1 and "in DVC's cache is damaged" in said[0]  # it never came into the workspace
    assert whole.ran() == ["file"]  # the others are restored
    assert whole.outputs() == before


def test_a_run_with_nothing_to_do_reads_no_output_again(whole: Whole) -> None:
    whole.run()
    record = Path(DvcRepo(whole.root).dvc.tmp_dir) / RECORD
    assert set(json.loads(record.read_text())) == {*OUTS.values(), "data/in.txt"}
    before = record.stat().st_mtime_ns
    for path in whole.path("ws").rglob("*"):
        if path.is_file():
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))  # the inode's own time only
    whole.run()
    again = record.stat().st_mtime_ns
    assert again != before
    began = time.perf_counter()
    assert remove_damaged(DvcRepo(whole.root), STAGES, print) == []
    assert time.perf_counter() - began < 1
    assert record.stat().st_mtime_ns == again


def test_the_doctor_reports_it_and_removes_nothing(whole: Whole) -> None:
    damage(object_of(whole, "file"))
    lose_workspace(whole)
    whole.check_out()
    diagnosis = Diagnosis()
    check_outputs(Path(), diagnosis)
    (found,) = diagnosis.warnings
    assert found.fault.file == "ws/file" and "as dvc.lock says" in found.fault.found
    assert "points2model run" in found.fault.next_step and whole.path("ws/file").exists()
    whole.run()
    diagnosis = Diagnosis()
    check_outputs(Path(), diagnosis)
    assert diagnosis.warnings == []


def test_an_edited_output_is_not_damaged(whole: Whole) -> None:
    before = whole.outputs()
    whole.path("ws/file").unlink()
    whole.path("ws/file").write_text("scribbled over")
    whole.path("data/in.txt").unlink()
    whole.path("data/in.txt").write_text("new\n")
    assert whole.run() == []
    assert whole.ran() == STAGES
    assert whole.path("data/in.txt").read_text() == "new\n" and whole.outputs() != before


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("what", ["file", "member"])
def test_the_flow_runs_it_again(whole: Whole, what: str) -> None:
    before = whole.outputs()
    damage(object_of(whole, what))
    lose_workspace(whole)
    ran = "folder" if what == "member" else what
    assert run(whole) == dict.fromkeys(STAGES, "Cached") | {ran: "Completed"}
    assert whole.ran() == [ran] and whole.outputs() == before
    assert run(whole) == dict.fromkeys(STAGES, "Cached")


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_runs_a_stage_again_whose_output_became_a_link_to_a_damaged_object(whole: Whole) -> None:
    """A stage computes the content of a damaged object: DVC keeps the object and drops the new output."""
    before = whole.outputs()
    whole.links("hardlink")
    shutil.rmtree(whole.path(".dvc/cache/runs"))  # so that DVC restores nothing
    bad = object_of(whole, "file")
    whole.path("dvc.lock").unlink()
    damage(bad)
    lose_workspace(whole)
    run(whole)
    assert whole.ran() == ["file", "file", "folder", "last"] and whole.outputs() == before


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_fetches_whole_objects_from_s3(whole: Whole, bucket: Bucket) -> None:
    before = whole.outputs()
    set_up(whole.root, "store", {"url": f"s3://{bucket.name}/line"}, share=True, replace=False, seconds=60)
    send_all(whole.root, print, pauses=())
    for bad in [object_of(whole, what) for what in WAYS]:
        damage(bad, b"")
    lose_workspace(whole)
    assert run(whole) == dict.fromkeys(STAGES, "Cached")
    assert whole.ran() == [] and whole.outputs() == before


@pytest.mark.usefixtures("prefect_server")
def test_data_that_are_whole_nowhere_stop_the_run(whole: Whole) -> None:
    from flows.run.pipeline import annotation_to_model

    bad = whole.stored(whole.digest("data/in.txt"))
    damage(bad)
    whole.path("data/in.txt").unlink()
    state: Any = annotation_to_model(target="last", return_state=True)
    assert state.is_failed() and whole.ran() == []
    assert "data/in.txt: the data of data/in.txt.dvc are damaged" in state.message
    assert "no remote was used" in state.message
    assert (whole.path(".dvc/tmp/damaged") / whole.digest("data/in.txt")).exists()
