"""Ingest gives the same tables whatever the format of the masks, and reads BDD100K's folders as they unpack."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data.annotations.describe import splits_of
from data.annotations.export import write_frames
from data.annotations.frames import Frame, Label, frames_of_file, name_id
from data.annotations.read import read_annotations
from data.errors import DataError
from data.masks import rle
from data.remote import s3
from data.tables import Category, Split, read_parquet
from tasks.common.config import Params
from tasks.ingest import run
from tasks.intake.rejected import REJECTED_IMAGES
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


@pytest.fixture
def own(tmp_path: Path, recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params]) -> Go:
    """Ingests a folder `set` that holds images and labels; returns the dataset's folder."""

    def ingest(**changes: Any) -> Path:
        root = str(tmp_path / "set")
        recipe["ingest"] |= {"images": root, "annotations": root, "weak": None, "kept_aside": None, **changes}
        run(params_of(recipe), tmp_path / "workspace")
        return tmp_path / "workspace/dataset"

    return ingest


def picture(path: Path, pixels: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blank = np.full((HEIGHT, WIDTH, 3), len(path.stem), dtype=np.uint8)
    assert cv2.imwrite(str(path), blank if pixels is None else pixels)


def names_of(dataset: Path) -> dict[str, list[str]]:
    splits = {name: Split.open(dataset / name) for name in ("strong", "val", "weak")}
    return {name: sorted(split.images["file_name"].to_pylist()) for name, split in splits.items()}


def test_label_maps_next_to_their_images_need_no_key(tmp_path: Path, own: Go) -> None:
    """As Cellpose writes them; images without a map are weak, and maps are no images."""
    for name in ("one", "two", "three", "four", "five"):
        picture(tmp_path / f"set/{name}.png")
    for n, name in enumerate(("one", "two", "three"), start=2):
        label = np.zeros((HEIGHT, WIDTH), np.uint16)
        label[1:3, 1:n], label[6:9, 4:8] = 1, 700
        picture(tmp_path / f"set/{name}_cp_masks.png", label)
        picture(tmp_path / f"set/{name}_cp_output.png")
    dataset = own(strong=".", val=0.4, mask_class="cell")
    found = names_of(dataset)
    assert sorted(found["strong"] + found["val"]) == ["one.png", "three.png", "two.png"]
    assert found["weak"] == ["five.png", "four.png"]
    strong, val = (Split.open(dataset / name) for name in ("strong", "val"))
    assert strong.categories == val.categories == [(1, "cell")]
    areas = [*strong.instances["area"].to_pylist(), *val.instances["area"].to_pylist()]
    assert sorted(areas) == [2, 4, 6, 12, 12, 12]


def test_an_export_of_roboflow_needs_no_conversion(tmp_path: Path, own: Go) -> None:
    """train and valid number their images from 0, name them by their bare names, and have a class of nothing."""
    groups = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "a", "supercategory": "cells"},
    ]
    for split in ("train", "valid"):
        picture(tmp_path / f"set/{split}/x_jpg.rf.1.jpg")
        annotation = {"id": 0, "image_id": 0, "category_id": 1, "bbox": [3, 2, 6, 4], "area": 24, "iscrowd": 0,
                      "segmentation": [[3, 2, 9, 2, 9, 6, 3, 6]]}  # fmt: skip
        row = {"id": 0, "file_name": "x_jpg.rf.1.jpg", "width": WIDTH, "height": HEIGHT, "license": 1}
        document = {"info": {}, "images": [row], "annotations": [annotation], "categories": groups}
        (tmp_path / f"set/{split}/_annotations.coco.json").write_text(json.dumps(document))
    splits = splits_of(tmp_path / "set")
    assert splits == {"train": "train/_annotations.coco.json", "val": "valid/_annotations.coco.json"}
    dataset = own(strong=splits["train"], val=splits["val"])
    assert names_of(dataset) == {
        "strong": ["train/x_jpg.rf.1.jpg"], "val": ["valid/x_jpg.rf.1.jpg"], "weak": [],
    }  # fmt: skip
    strong, val = (Split.open(dataset / name) for name in ("strong", "val"))
    assert strong.categories == val.categories == [(1, "a")]
    assert strong.images["image_id"].to_pylist() == [0]
    assert val.images["image_id"].to_pylist() == [name_id("valid/x_jpg.rf.1.jpg")]
    assert len(strong.instances) == len(val.instances) == 1


def test_yolo_and_labelme_are_joined(tmp_path: Path, own: Go) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / f"set/images/{name}.jpg")
    (tmp_path / "set/labels").mkdir()
    (tmp_path / "set/labels/a.txt").write_text("1 0.1 0.1 0.5 0.1 0.5 0.5")
    (tmp_path / "set/data.yaml").write_text("names: [cat, dog]")
    shape = {"label": "cat", "points": [[3, 2], [9, 2], [9, 6]], "shape_type": "polygon"}
    for name in ("b", "c"):
        document = {
            "shapes": [shape],
            "imagePath": f"../images/{name}.jpg",
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        (tmp_path / f"set/{name}").mkdir()
        (tmp_path / f"set/{name}/{name}.json").write_text(json.dumps(document))
    dataset = own(strong=["labels", "b"], val="c")
    strong, val = (Split.open(dataset / name) for name in ("strong", "val"))
    assert strong.categories == val.categories == [(1, "cat"), (2, "dog")]
    by_name = dict(
        zip(strong.images["image_id"].to_pylist(), strong.images["file_name"].to_pylist(), strict=True)
    )
    found = {by_name[row["image_id"]]: row["category_id"] for row in strong.instances.to_pylist()}
    assert found == {"images/a.jpg": 2, "images/b.jpg": 1}
    assert val.instances["category_id"].to_pylist() == [1]


def test_masks_of_missing_images_are_rejected_one_by_one(tmp_path: Path, own: Go) -> None:
    for name in ("one", "two", "three"):
        picture(tmp_path / f"set/images/{name}.jpg")
    label = np.ones((HEIGHT, WIDTH), np.uint8)
    for name in ("one", "two", "three", "gone", "lost"):
        picture(tmp_path / f"set/masks/{name}.png", label)
    picture(tmp_path / "set/masks/two.png", label[:5])
    dataset = tmp_path / "workspace/dataset"
    with pytest.raises(DataError) as caught:
        own(strong="masks", val=0.5)
    assert [fault.found for fault in caught.value.faults] == [
        "no image 'gone'", "no image 'lost'", f"{WIDTH} x {HEIGHT} pixels",
    ]  # fmt: skip
    assert not dataset.exists()
    dataset = own(strong="masks", val=0.5, on_reject="report")
    found = names_of(dataset)
    assert sorted(found["strong"] + found["val"]) == ["images/one.jpg", "images/three.jpg"]
    rows = [row for name in ("strong", "val") for row in
            read_parquet(dataset / name / "rejected.parquet", REJECTED_IMAGES).to_pylist()]  # fmt: skip
    assert sorted((row["reason"], row["found"]) for row in rows) == [
        ("annotation", "no image 'gone'"), ("annotation", "no image 'lost'"), ("size", f"{WIDTH} x {HEIGHT} pixels"),
    ]  # fmt: skip


def test_label_maps_next_to_their_images_in_s3(
    tmp_path: Path, own: Go, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "BACKOFF_S", 0.01)
    for name in ("one", "two", "three"):
        picture(tmp_path / f"set/{name}.png")
    for name in ("one", "two"):
        picture(tmp_path / f"set/{name}_masks.png", np.eye(HEIGHT, WIDTH, dtype=np.uint8))
    local = names_of(own(strong=".", val=0.5))
    bucket.fill({f"set/{path.name}": path.read_bytes() for path in (tmp_path / "set").iterdir()})
    place = f"s3://{bucket.name}/set"
    assert names_of(own(strong=".", val=0.5, images=place, annotations=place)) == local
    assert local["weak"] == ["three.png"]
