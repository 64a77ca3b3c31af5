"""Ingest gives the same tables whatever the format of the masks, and reads BDD100K's folders as they unpack."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data.annotations.export import write_frames
from data.annotations.frames import Frame, Label, frames_of_file, name_id
from data.annotations.read import read_annotations
from data.errors import DataError
from data.masks import rle
from data.remote import s3
from data.tables import Category, Split
from tasks.common.config import Params
from tasks.ingest import run
from tasks.tools.export_labels import ExportRequest, export_labels
from tests.conftest import Bucket

CLASSES = [Category(i, name) for i, name in enumerate(("pedestrian", "rider", "car"), start=1)]
NAMES = {"strong": ("a.jpg", "b.jpg"), "val": ("c.jpg",), "weak": ("d.jpg", "e.jpg")}
FOLDERS = {"strong": "10k/train", "val": "10k/val", "weak": "100k/train", "kept_aside": ""}
HEIGHT, WIDTH = 12, 20
Go = Callable[..., Path]


def frames(split: str) -> list[Frame]:
    """A car and an occluded crowd of riders on each image."""
    car, riders = np.zeros((2, HEIGHT, WIDTH), dtype=bool)
    car[2:6, 3:9], riders[8:, :5] = True, True
    found = []
    for n, name in enumerate(NAMES[split]):
        labels = (
            Label(2 * n + 1, 3, rle.encode(car)),
            Label(2 * n + 2, 2, rle.encode(riders), frozenset({"crowd", "occluded"})),
        )
        found.append(Frame(name_id(f"{FOLDERS[split]}/{name}"), name, WIDTH, HEIGHT, labels))
    return found


@pytest.fixture
def go(tmp_path: Path, recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params]) -> Go:
    """BDD100K's images as they unpack, ingested with the given labels; returns the dataset's folder."""
    for split, names in NAMES.items():
        folder = tmp_path / "images" / FOLDERS[split]
        folder.mkdir(parents=True)
        for name in names:
            cv2.imwrite(
                str(folder / name), np.full((HEIGHT, WIDTH, 3), 9 * ord(name[0]) % 256, dtype=np.uint8)
            )
    weak = [{"name": name} for name in NAMES["weak"]]
    (tmp_path / "labels/ins_seg").mkdir(parents=True)
    (tmp_path / "labels/weak.json").write_text(json.dumps(weak))

    def ingest(**changes: Any) -> Path:
        recipe["ingest"] |= {
            "images": str(tmp_path / "images"), "annotations": str(tmp_path / "labels"), "folders": FOLDERS,
            "weak": "weak.json", "kept_aside": None, **changes,
        }  # fmt: skip
        run(params_of(recipe), tmp_path / "workspace")
        return tmp_path / "workspace/dataset"

    return ingest


def written(folder: Path, format: str) -> dict[str, str]:
    """The strong and val masks in a format; what to put into params."""
    paths = {}
    for split, place in (("strong", "train"), ("val", "val")):
        (folder / "ins_seg" / format).mkdir(parents=True, exist_ok=True)
        write_frames(folder / "ins_seg" / format, place, format, frames(split), CLASSES)
        paths[split] = f"ins_seg/{format}/{place}" + ("" if format == "bdd-bitmask" else ".json")
    return paths


@pytest.mark.parametrize("format", ["coco", "scalabel", "bdd-bitmask"])
@pytest.mark.parametrize("named", [False, True])
def test_each_format_gives_the_same_tables(tmp_path: Path, go: Go, format: str, named: bool) -> None:
    dataset = go(**written(tmp_path / "labels", format), format=format if named else "auto")
    splits = {name: Split.open(dataset / name) for name in ("strong", "val", "weak", "kept_aside")}
    assert {name: len(split) for name, split in splits.items()} == {
        "strong": 2, "val": 1, "weak": 2, "kept_aside": 0,
    }  # fmt: skip
    strong = splits["strong"]
    assert sorted(strong.images["file_name"].to_pylist()) == ["10k/train/a.jpg", "10k/train/b.jpg"]
    assert strong.images["image_id"].to_pylist() == sorted(frame.image_id for frame in frames("strong"))
    assert strong.categories == CLASSES
    expected = [(label.category_id, label.iscrowd, label.counts) for label in frames("strong")[0].labels]
    for i in range(2):
        rows = strong.instances_of(i).to_pylist()
        assert [(row["category_id"], row["iscrowd"], row["rle_counts"]) for row in rows] == expected
        assert strong.image_path(i).is_file()
    assert splits["weak"].images["file_name"].to_pylist()[0].startswith("100k/train/")


def write_polygons(folder: Path) -> None:
    """The strong and val masks as BDD100K's own files say them: without size, without config."""
    corners = [[3, 2], [9, 2], [9, 6], [3, 6]]
    for split, place in (("strong", "train"), ("val", "val")):
        label = {"id": "00", "category": "person", "attributes": {"crowd": False, "occluded": True},
                 "poly2d": [{"vertices": corners, "types": "LLLL", "closed": True}]}  # fmt: skip
        rows = [{"name": name, "labels": [label]} for name in NAMES[split]]
        (folder / f"ins_seg_{place}.json").write_text(json.dumps(rows))


def test_bdd100ks_polygons_need_no_size_and_no_config(tmp_path: Path, go: Go) -> None:
    write_polygons(tmp_path / "labels/ins_seg")
    dataset = go(strong="ins_seg/ins_seg_train.json", val="ins_seg/ins_seg_val.json")
    strong = Split.open(dataset / "strong")
    assert strong.images["width"].to_pylist() == [WIDTH, WIDTH]
    assert len(strong.categories) == 8
    assert strong.instances["category_id"].to_pylist() == [1, 1]
    assert strong.instances["area"].to_pylist() == [24, 24]


def test_a_broken_image_without_a_size_is_rejected_like_any_other(
    tmp_path: Path, go: Go, caplog: pytest.LogCaptureFixture
) -> None:
    write_polygons(tmp_path / "labels/ins_seg")
    (tmp_path / "images/10k/train/a.jpg").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        go(strong="ins_seg/ins_seg_train.json", val="ins_seg/ins_seg_val.json")
    assert any("a.jpg" in str(fault) for fault in caught.value.faults)
    dataset = go(strong="ins_seg/ins_seg_train.json", val="ins_seg/ins_seg_val.json", on_reject="report")
    strong = Split.open(dataset / "strong")
    assert strong.images["file_name"].to_pylist() == ["10k/train/b.jpg"]
    assert len(strong.instances) == 1


def test_files_of_another_named_format_are_refused(tmp_path: Path, go: Go) -> None:
    with pytest.raises(DataError, match="no list 'images'"):
        go(**written(tmp_path / "labels", "scalabel"), weak=None, format="coco")


def test_what_ingest_read_goes_out_and_comes_back(tmp_path: Path, go: Go) -> None:
    dataset = go(**written(tmp_path / "labels", "bdd-bitmask"))
    summary = export_labels(ExportRequest("dataset", "scalabel"), tmp_path / "out", dataset.parent)
    assert {name: part["labels"] for name, part in summary["parts"].items()} == {"strong": 4, "val": 2}
    again = list(frames_of_file(read_annotations(tmp_path / "out/strong.json")))
    assert [frame.image_id for frame in again] == Split.open(dataset / "strong").images[
        "image_id"
    ].to_pylist()


def test_sizes_are_taken_from_images_in_s3(
    tmp_path: Path, go: Go, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only images tell the sizes of BDD100K's frames, so they come before the masks are drawn, and come once."""
    monkeypatch.setattr(s3, "BACKOFF_S", 0.01)
    write_polygons(tmp_path / "labels/ins_seg")
    here = ("images", "labels")
    bucket.fill(
        {
            path.relative_to(tmp_path).as_posix(): path.read_bytes()
            for folder in here
            for path in (tmp_path / folder).rglob("*.*")
        }
    )
    files = {"strong": "ins_seg/ins_seg_train.json", "val": "ins_seg/ins_seg_val.json"}
    local = {
        path.name: path.read_bytes()
        for path in (go(**files) / "strong").iterdir()
        if path.name != "split.json"
    }
    dataset = go(**files, images=f"s3://{bucket.name}/images", annotations=f"s3://{bucket.name}/labels")
    remote = {
        path.name: path.read_bytes() for path in (dataset / "strong").iterdir() if path.name != "split.json"
    }
    assert remote == local
    came = [path for path in map(str, bucket.proxy.gets()) if ".jpg" in path]
    assert len(came) == len(set(came)) == 5
    bucket.fill({"images/10k/train/a.jpg": b""})
    with pytest.raises(DataError) as caught:
        go(**files, images=f"s3://{bucket.name}/images", annotations=f"s3://{bucket.name}/labels")
    assert "10k/train/a.jpg" in str(caught.value)
