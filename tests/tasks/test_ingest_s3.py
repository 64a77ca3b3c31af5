"""Ingest from a real S3 server: the same tables as from folders, whatever breaks on the way."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from data.remote import s3
from data.remote.s3 import S3Error
from data.tables import DataError, Split, read_parquet
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.common.stage_main import PASSING
from tasks.ingest import run
from tasks.intake.rejected import REJECTED_IMAGES
from tests.conftest import Bucket
from tests.s3_server import SECRET, at_random
from tests.tasks.conftest import ROOT
from tests.tasks.test_ingest import document

Ingest = Callable[..., Path]


def png(seed: int, side: int = 0) -> bytes:
    """A 20 x 10 picture; with `side` a large one that takes some time to come."""
    shape = (side, side, 3) if side else (10, 20, 3)
    return cv2.imencode(".png", np.random.default_rng(seed).integers(0, 255, shape, np.uint8))[1].tobytes()


def fill(bucket: Bucket, strong: int = 2, weak: int = 3, side: int = 0) -> None:
    """Annotations under `labels/`, images under `photos/`, one in a folder with a space and an umlaut."""
    documents = {
        "strong": document(1, strong, masks=True),
        "val": document(strong + 1, 1, masks=True),
        "weak": document(strong + 2, weak, masks=False),
    }
    documents["weak"]["images"][0]["file_name"] = "süd west/1.png"
    objects = {f"labels/{name}.json": json.dumps(content).encode() for name, content in documents.items()}
    for content in documents.values():
        for row in content["images"]:
            if side:
                row |= {"width": side, "height": side}
            objects[f"photos/{row['file_name']}"] = png(row["id"], side)
    for name, content in documents.items():
        objects[f"labels/{name}.json"] = json.dumps(content).encode()
    bucket.fill(objects)


@pytest.fixture
def ingest(
    tmp_path: Path,
    bucket: Bucket,
    recipe: dict[str, Any],
    params_of: Callable[[dict[str, Any]], Params],
    monkeypatch: pytest.MonkeyPatch,
) -> Ingest:
    """Ingests the bucket; returns the workspace."""
    monkeypatch.setattr(s3, "BACKOFF_S", 0.01)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")

    def go(**changes: Any) -> Path:
        at = {"images": f"s3://{bucket.name}/photos", "annotations": f"s3://{bucket.name}/labels"}
        recipe["ingest"] |= at | {"kept_aside": None} | changes
        run(params_of(recipe), tmp_path / "workspace")
        return tmp_path / "workspace"

    return go


def results(workspace: Path) -> dict[str, str]:
    """Hashes of all that DVC keeps."""
    files = [path for path in workspace.rglob("*") if path.is_file()]
    kept = [path for path in files if path.relative_to(workspace).parts[0] != "runs"]
    return {
        path.relative_to(workspace).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept
    }


def test_images_and_annotations_from_s3(bucket: Bucket, ingest: Ingest) -> None:
    fill(bucket)
    workspace = ingest()
    weak = Split.open(workspace / "dataset" / "weak")
    assert weak.images["file_name"].to_pylist() == ["süd west/1.png", "5.png", "6.png"]
    assert [weak.image_path(i).read_bytes() for i in range(3)] == [png(4), png(5), png(6)]
    assert weak.image_root == (workspace / "fetched" / "images").as_posix()
    assert len(Split.open(workspace / "dataset" / "strong").instances) == 2
    assert sorted(path.name for path in (workspace / "fetched/annotations").iterdir()) == [
        "strong.json", "val.json", "weak.json",
    ]  # fmt: skip
    asked = len(bucket.proxy.gets())
    before = results(workspace)
    assert results(ingest()) == before
    assert len(bucket.proxy.gets()) == asked  # nothing came twice


def test_the_tables_are_those_of_the_same_files_in_a_folder(
    bucket: Bucket, ingest: Ingest, tmp_path: Path
) -> None:
    fill(bucket)
    random = at_random(0.3, 3, ("500", "drop", "flip"))
    bucket.proxy.plan = lambda method, path, nth: None if "list-type" in path else random(method, path, nth)
    tables = {path.name: Split.open(path) for path in (ingest() / "dataset").iterdir()}
    fetched = tmp_path / "workspace" / "fetched"
    mine = fetched.rename(tmp_path / "mine")
    again = ingest(images=str(mine / "images"), annotations=str(mine / "annotations"))
    for name, split in tables.items():
        other = Split.open(again / "dataset" / name)
        assert other.images.equals(split.images) and other.instances.equals(split.instances)
        assert other.image_root == str(mine / "images")
    assert results(again).keys() & {"fetched/images"} == set()


def test_images_that_no_file_lists_are_weak_ones_and_unsafe_keys_are_rejected(
    bucket: Bucket, ingest: Ingest
) -> None:
    fill(bucket)
    bucket.fill({"photos/../up.png": png(1), "photos/.hidden/a.png": png(1), "photos/note.txt": b"a"})
    with pytest.raises(DataError, match=r"photos/\.\./up\.png: object: found key"):
        ingest(weak=None)
    workspace = ingest(weak=None, on_reject="report")
    weak = Split.open(workspace / "dataset/weak")
    assert set(weak.images["file_name"].to_pylist()) == {"süd west/1.png", "5.png", "6.png"}
    (row,) = read_parquet(workspace / "dataset/weak/rejected.parquet", REJECTED_IMAGES).to_pylist()
    assert (row["file_name"], row["reason"], row["image_id"]) == ("photos/../up.png", "unsafe_path", None)
    files = [path.name for path in (workspace / "fetched").rglob("*.png")]
    assert len(files) == 6 and not (workspace.parent / "up.png").exists()


def test_images_that_never_come_are_rejected_and_an_outage_is_not(bucket: Bucket, ingest: Ingest) -> None:
    fill(bucket)
    bucket.client.delete_object(Bucket=bucket.name, Key="photos/5.png")
    bucket.proxy.plan = lambda method, path, nth: "flip" if path.endswith("photos/6.png") else None
    with pytest.raises(DataError) as caught:
        ingest()
    told = [(fault.file.rpartition("/")[2], fault.record) for fault in caught.value.faults]
    assert told == [("5.png", "image 5"), ("6.png", "image 6")]
    assert f"s3://{bucket.name}/photos/5.png: image 5: found no such object" in str(caught.value)
    workspace = ingest(on_reject="report")
    rejected = read_parquet(workspace / "dataset/weak/rejected.parquet", REJECTED_IMAGES).to_pylist()
    assert [(row["image_id"], row["reason"]) for row in rejected] == [(5, "missing"), (6, "download")]
    bucket.proxy.plan = lambda method, path, nth: "500"
    with pytest.raises(S3Error, match="run again"):
        ingest(on_reject="report")


def test_faults_of_annotations_are_told_before_images_are_downloaded(bucket: Bucket, ingest: Ingest) -> None:
    fill(bucket)
    bad = document(1, 2, masks=True)
    bad["annotations"][0]["category_id"] = 9
    bucket.fill({"labels/strong.json": json.dumps(bad).encode()})
    with pytest.raises(
        DataError, match=f"s3://{bucket.name}/labels/strong.json: annotation 10: found category_id 9"
    ):
        ingest()
    assert not [path for path in bucket.proxy.gets() if "photos" in path]


@pytest.mark.parametrize("source", ["s3://me:SECRET@host/x", "s3://", "s3:///x", "s3://a b/x"])
def test_addresses_are_checked_with_the_params_and_not_repeated(ingest: Ingest, source: str) -> None:
    with pytest.raises(TaskError, match=r"ingest\.images: found .*; expected s3://BUCKET/PREFIX") as caught:
        ingest(images=source)
    assert "SECRET" not in str(caught.value)


class Command:
    """`python -m tasks.ingest` in a folder of its own."""

    def __init__(self, folder: Path, recipe: dict[str, Any], bucket: Bucket) -> None:
        self.folder = folder
        folder.mkdir()
        at = {"images": f"s3://{bucket.name}/photos", "annotations": f"s3://{bucket.name}/labels"}
        recipe["ingest"] |= at | {"kept_aside": None}
        (folder / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def start(self, **more: str) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more
        command = [sys.executable, "-m", "tasks.ingest"]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def finish(self, **more: str) -> str:
        process = self.start(**more)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        return output


def test_the_command_tells_no_secret(
    bucket: Bucket, tmp_path: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bucket)
    command = Command(tmp_path / "here", recipe, bucket)
    output = command.finish(POINTS2MODEL_LOG_LEVEL="DEBUG")
    assert "ingest: download: 6 objects" in output
    files = [path for path in command.folder.rglob("*") if path.is_file()]
    for text in (output, *(path.read_bytes().decode("latin-1") for path in files)):
        for secret in (SECRET, "AKIDOFTHETESTS", "Signature", "Authorization", bucket.proxy.address):
            assert secret not in text


def test_a_server_out_of_reach_is_told_by_the_exit_code(
    bucket: Bucket, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    away = Command(tmp_path / "away", recipe, bucket).start(
        AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1"
    )
    output, _ = away.communicate(timeout=240)
    assert away.returncode == PASSING == 75
    assert "Could not connect" in output and "Traceback" not in output


def test_an_endpoint_with_a_password_is_not_told(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:pass@127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(S3Error, match="Could not connect") as caught:
        ingest()
    assert "me:pass" not in str(caught.value) and SECRET not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "images", "side"), [(20, 60, 150)])
@pytest.mark.timeout(3600)
def test_killed_at_random_moments_the_result_is_the_same(
    bucket: Bucket, tmp_path: Path, recipe: dict[str, Any], kills: int, images: int, side: int
) -> None:
    """kill -9 at a random moment, again and again, while the server fails and breaks off; then to the end."""
    fill(bucket, strong=images // 3, weak=images, side=side)
    undisturbed = Command(tmp_path / "undisturbed", recipe, bucket)
    started = time.monotonic()
    undisturbed.finish(AWS_ENDPOINT_URL=bucket.endpoint)
    seconds = time.monotonic() - started
    expected = results(undisturbed.folder / "workspace")
    assert len(expected) > images
    command, draw = Command(tmp_path / "killed", recipe, bucket), random.Random(kills)
    at_objects, at_listings = (
        at_random(0.15, kills, ("503", "drop", "flip")),
        at_random(0.1, kills, ("503", "drop")),
    )
    bucket.proxy.plan = lambda method, path, nth: (
        at_listings(method, path, nth)  # nothing verifies a listing but TLS
        if "list-type" in path
        else at_objects(method, path, nth)
    )
    killed = 0
    while killed < kills:
        process = command.start(AWS_MAX_ATTEMPTS="3")
        begun = time.monotonic()
        try:
            process.wait(draw.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        else:  # it was done before: the next one starts anew
            seconds = time.monotonic() - begun
            assert results(command.folder / "workspace") == expected
            command.folder.rename(tmp_path / f"done{killed}-{time.monotonic_ns()}")
            command = Command(tmp_path / "killed", recipe, bucket)
        process.communicate()
    for _ in range(5):  # three faults in a row end a run, as one that may be run again
        last = command.start(AWS_MAX_ATTEMPTS="3")
        output, _ = last.communicate(timeout=240)
        if last.returncode != PASSING:
            break
    assert last.returncode == 0, output
    assert results(command.folder / "workspace") == expected
