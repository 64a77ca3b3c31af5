from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.annotations.detect import format_of
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.errors import DataError
from tests.data.scalabel_files import frames, written

COCO = {
    "images": [{"id": 1, "file_name": "x.jpg", "width": 9, "height": 8}],
    "annotations": [],
    "categories": [],
}


def bitmask(folder: Path) -> Path:
    folder.mkdir(parents=True)
    Image.fromarray(np.full((2, 3, 4), (3, 0, 0, 1), dtype=np.uint8)).save(folder / "x.png")
    return folder


@pytest.mark.parametrize(
    ("value", "format"),
    [
        (COCO, "coco"),
        ({"info": {}} | COCO, "coco"),
        ({"version": "1.0", "flags": {}} | COCO, "coco"),
        ({"version": {"images": 0}, "frames": []}, "scalabel"),
        ({"a" * 5000: 1, "config": None, "frames": []}, "scalabel"),
        ({"groups": None, "frames": []}, "scalabel"),
        (frames(), "scalabel"),
        ([], "scalabel"),
        ("\n\t " + json.dumps(frames()), "scalabel"),
        ("\ufeff[]", "scalabel"),
    ],
)
def test_the_format_is_found_by_content(tmp_path: Path, value: Any, format: str) -> None:
    assert format_of(written(tmp_path / "labels.json", value)) == format


def test_the_format_of_a_folder(tmp_path: Path) -> None:
    assert format_of(bitmask(tmp_path / "bits")) == "bdd-bitmask"
    written(tmp_path / "films/a.json", frames())
    assert format_of(tmp_path / "films") == "scalabel"


@pytest.mark.parametrize("content", ["3", "{}", '{"shapes": {}}', '"images"', "", "\x00\x01", "nul"])
def test_files_of_no_format_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match="COCO"):
        format_of(written(tmp_path / "labels.json", content))


def test_all_formats_are_read_below_a_folder(tmp_path: Path) -> None:
    given = {
        "coco": written(tmp_path / "coco.json", COCO),
        "scalabel": written(tmp_path / "frames.json", frames()[1:]),
        "bdd-bitmask": bitmask(tmp_path / "bits"),
    }
    for format, path in given.items():
        for named in ("auto", format):
            coco = read_annotations(path, named, ReadOptions(folder="10k/train"))
            assert [row["file_name"].rpartition("/")[0] for row in coco.images] == ["10k/train"]


def test_wrong_use(tmp_path: Path) -> None:
    path = written(tmp_path / "labels.json", COCO)
    with pytest.raises(DataError, match="found 'yolov8'; expected auto, coco, yolo-seg, label-maps"):
        read_annotations(path, "yolov8")
    for folder in ("..", "/data", "a/../.."):
        with pytest.raises(DataError, match="a folder below the image root"):
            read_annotations(path, options=ReadOptions(folder=folder))
    with pytest.raises(DataError, match="no such file"):
        read_annotations(tmp_path / "absent.json")
    with pytest.raises(DataError, match="no list 'images'"):
        read_annotations(written(tmp_path / "frames.json", frames()), "coco")
