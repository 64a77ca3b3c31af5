"""Predictions as label files: the rows of results.json, images without any, scores and clicks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.annotations.frames import ImageFolder
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.masks import rle
from data.tables import IMAGES, INSTANCES, Category, Split
from tasks.common.errors import TaskError
from tasks.tools.label_files import FORMATS, SUMMARY, check, relative_names, write_label_files

NAMES = ["a.png", "sub/b.png", "c.png"]


def row(image_id: int, score: float, x: int, **more: Any) -> dict[str, Any]:
    mask = np.zeros((10, 20), bool)
    mask[2:6, x : x + 4] = True
    code = {"size": [10, 20], "counts": rle.encode(mask).decode()}
    return {"image_id": image_id, "category_id": 5, "score": score, "segmentation": code, **more}


ROWS = [row(2, 0.9, 0), row(2, 0.5, 8), row(2, 0.49, 15), row(3, 0.1, 3, point=[4, 4], status="ok")]
ROWS.append(row(3, 0.9, 3, point=[4, 4], status="empty"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """As predict writes them: a row a line. Image 1 has none."""
    path = tmp_path / "results.json"
    path.write_text("[" + ",\n".join(json.dumps(one) for one in ROWS) + "]\n")
    return path


def split() -> Split:
    rows = [dict.fromkeys(IMAGES.names) | {"image_id": n, "width": 20, "height": 10} for n in (1, 2, 3)]
    table = pa.Table.from_pylist(rows, schema=IMAGES)
    return Split(Path(), table, INSTANCES.empty_table(), [Category(5, "cell")], ".")


def test_all_formats_have_the_same_instances(results: Path, tmp_path: Path) -> None:
    """Two of image 2 reach the score; that at a click stays, whatever its score; an empty one is none."""
    counts = write_label_files(tmp_path, FORMATS, results, split(), NAMES, 0.5)
    assert {(one["images"], one["labels"]) for one in counts.values()} == {(3, 3)} and len(counts) == 7
    coco = json.loads((tmp_path / "coco/predictions.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == NAMES
    assert [(a["id"], a["image_id"], a["score"]) for a in coco["annotations"]] == [
        (1, 2, 0.9), (2, 2, 0.5), (3, 3, 0.1)
    ]  # fmt: skip
    lines = {
        name: len(
            (tmp_path / f"yolo-seg/predictions/labels/{Path(name).with_suffix('.txt')}")
            .read_text()
            .split("\n")
        )
        - 1
        for name in NAMES
    }
    assert lines == {"a.png": 0, "sub/b.png": 2, "c.png": 1}
    tasks = json.loads((tmp_path / "label-studio/predictions/tasks.json").read_text())
    assert [len(task["predictions"][0]["result"]) for task in tasks] == [0, 2, 1]
    summary = json.loads((tmp_path / "label-maps" / SUMMARY).read_text())
    assert summary["min_score"] == 0.5 and summary["labels"] == 3


def test_no_results_at_all(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]\n")
    counts = write_label_files(tmp_path, FORMATS, tmp_path / "results.json", split(), NAMES, 0.5)
    assert {(one["images"], one["labels"]) for one in counts.values()} == {(3, 0)}


def test_a_label_file_of_predictions_is_read_as_labels(results: Path, tmp_path: Path) -> None:
    import cv2

    for name in NAMES:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((10, 20, 3), np.uint8))
    write_label_files(tmp_path, ["cvat", "yolo-seg"], results, split(), NAMES, 0.5)
    options = ReadOptions(images=ImageFolder(tmp_path / "images"))
    for path in ("cvat/predictions.xml", "yolo-seg/predictions"):
        coco = read_annotations(tmp_path / path, options=options)
        assert len(coco.annotations) == 3 and [c.name for c in coco.categories] == ["cell"]


def test_names_are_below_the_folder_that_all_images_have_in_common(tmp_path: Path) -> None:
    paths = [tmp_path / "x/a.png", tmp_path / "x/y/b.png", tmp_path / "x/../x/c.png"]
    assert relative_names(paths) == ["a.png", "y/b.png", "c.png"]
    assert relative_names(paths[1:2]) == ["b.png"]


def test_what_can_t_be_written_is_reported_before_anything_is_predicted(tmp_path: Path) -> None:
    (tmp_path / "cvat").mkdir()
    (tmp_path / "cvat/mine.xml").write_text("mine")
    with pytest.raises(TaskError) as error:
        check(tmp_path, ["cvat", "pascal", "label-maps"], ["a.png", "a.jpg", "b.png"])
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("--format: found 'pascal', expected one of coco, scalabel,")
    assert "cvat: found files that aren't from an export" in lines[1]
    assert lines[2].startswith("a.png, a.jpg: images whose names differ only in their suffix")
    check(tmp_path, ["coco"], ["a.png", "a.jpg"])
