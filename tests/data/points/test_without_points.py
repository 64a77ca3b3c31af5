"""Files of masks, boxes or predictions among the point files are reported as that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.points import SNIFFED
from data.points.folder import read_folder
from data.points.without_points import BOX_STEP, MASK_STEP


def labelme(*kinds: str) -> dict[str, Any]:
    shapes = [{"label": "bolt", "shape_type": kind, "points": [[1, 2], [3, 4], [5, 6]]} for kind in kinds]
    return {"imagePath": "a.png", "imageWidth": 40, "imageHeight": 24, "shapes": shapes}


def cvat(*tags: str) -> str:
    body = "".join(f'<{tag} label="bolt" points="1,2;3,4;5,6"/>' for tag in tags)
    return f'<annotations><image id="0" name="a.png">{body}</image></annotations>'


def studio(*kinds: str) -> list[Any]:
    results = [{"id": str(n), "type": kind, "value": {}} for n, kind in enumerate(kinds)]
    return [{"id": 1, "data": {"image": "a.png"}, "annotations": [{"id": 2, "result": results}]}]


REGION = {"shape_attributes": {"name": "circle", "cx": 3, "cy": 4, "r": 2}, "region_attributes": {}}


@pytest.mark.parametrize(
    ("content", "found", "step"),
    [
        (labelme(*["polygon"] * 11, "rectangle", "polygon"), "12 polygons, 1 box and no point", MASK_STEP),
        (labelme("rectangle"), "1 box and no point", BOX_STEP),
        (labelme("linestrip", "mask"), "1 line, 1 mask and no point", MASK_STEP),
        (cvat("polygon", "mask", "polygon"), "2 polygons, 1 mask and no point", MASK_STEP),
        (cvat("box", "polyline"), "1 box, 1 line and no point", BOX_STEP),
        (studio("polygonlabels", "brushlabels"), "1 polygon, 1 mask and no point", MASK_STEP),
        ({"a.png": {"filename": "a.png", "regions": [REGION]}}, "1 ellipse and no point", MASK_STEP),
    ],
)
def test_a_file_of_shapes(tmp_path: Path, content: Any, found: str, step: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    read = read_folder(path, "auto", SNIFFED)
    assert not read.faults
    assert [(doubt.file, doubt.found, doubt.next_step) for doubt in read.doubts] == [("a.json", found, step)]


def test_many_files_are_one_warning_and_a_file_with_a_point_is_none(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.json").write_text(json.dumps(labelme("polygon") | {"imagePath": f"{n}.png"}))
    point = {"label": "bolt", "shape_type": "point", "points": [[1, 2]]}
    mixed = labelme("polygon") | {"imagePath": "m.png"}
    mixed["shapes"].append(point)
    (tmp_path / "mixed.json").write_text(json.dumps(mixed))
    (doubt,) = read_folder(tmp_path, "auto", SNIFFED).doubts
    assert (doubt.file, doubt.found) == ("0.json and 2 more files", "3 polygons and no point")


@pytest.mark.parametrize(
    ("rows", "found", "step"),
    [
        (
            [{"segmentation": [[1, 2, 3, 4, 5, 6]], "bbox": [1, 2, 3, 4]}] * 12,
            "12 polygons and no point",
            MASK_STEP,
        ),
        ([{"segmentation": {"counts": "x", "size": [2, 2]}}], "1 mask and no point", MASK_STEP),
        ([{"bbox": [1, 2, 3, 4]}] * 2, "2 boxes and no point", BOX_STEP),
    ],
)
def test_a_coco_file_of_masks_is_one_fault(tmp_path: Path, rows: list[Any], found: str, step: str) -> None:
    path = tmp_path / "instances.json"
    rows = [{"id": n, "image_id": 1, "category_id": 1, **row} for n, row in enumerate(rows)]
    path.write_text(json.dumps({"images": [], "categories": [], "annotations": rows}))
    read = read_folder(path, "auto", SNIFFED)
    assert not read.records
    assert [(fault.found, fault.next_step) for fault in read.faults] == [(found, step)]
