from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.masks import rle
from data.masks.polygons import from_segmentation
from data.points import read_points
from data.points.units import MIN_CLICKS, Clicks, find_doubts

FIXTURES = (
    "cvat/datumaro_for_images_export_project_annotations.xml", "cvat/datumaro_for_images_export_task_train.xml",
    "cvat/datumaro_for_video_annotations.xml", "cvat/job_points_5_per_element.xml", "label_studio/keypoints.json",
    "label_studio/keypoint_rectangle_polygon.json",
)  # fmt: skip
DEVIATION = 0.05  # of a factor that is advised from some thousand clicks


def clicks_of(images: Any, sides: Any, xy: Any, files: Any = None) -> Clicks:
    count = len(xy)
    return Clicks(
        np.zeros(count, np.int64) if files is None else files,
        np.asarray(images, np.int64),
        np.asarray(sides, np.float64).reshape(count, 2),
        np.asarray(xy, np.float64).reshape(count, 2),
    )


def real(path: Path) -> Clicks:
    """A click at a pixel of each object of a COCO file."""
    document = json.loads(path.read_text())
    sizes = {row["id"]: (row["width"], row["height"]) for row in document["images"]}
    rng = np.random.default_rng(0)
    rows = []
    for one in document["annotations"]:
        width, height = sizes[one["image_id"]]
        pixels = rle.object_pixels(from_segmentation(one["segmentation"], height, width), height)
        at = rng.integers(len(pixels[0]))
        x, y = (int(axis[at]) + rng.random() for axis in pixels[::-1])
        rows.append((one["image_id"], width, height, x, y))
    found = np.array(rows)
    return clicks_of(found[:, 0], found[:, 1:3], found[:, 3:])


def advised(clicks: Clicks) -> str:
    (fault,) = find_doubts(clicks, ["a.csv"])
    return str(fault)


@pytest.mark.parametrize("name", ["data/nuclei/val.json", "data/facade/val.json"])
def test_real_clicks_are_doubted_where_they_are_no_pixels_alone(shared_dir: Path, name: str) -> None:
    good = real(shared_dir / name)
    assert find_doubts(good, ["a.csv"]) == []
    for factor in (0.1, 0.31, 0.5, 1.5, 2.0, 10.0):
        step = advised(good._replace(xy=good.xy * factor))
        fits = float(step.partition("points.scale: ")[2].split()[0])
        assert fits * factor == pytest.approx(1, abs=DEVIATION)
    assert "fractions" in advised(good._replace(xy=good.xy / good.sides))
    assert "percent" in advised(good._replace(xy=100 * good.xy / good.sides))


@pytest.mark.parametrize("name", ["data/nuclei/val.json", "data/facade/val.json"])
def test_parts_of_real_clicks_are_not_doubted(shared_dir: Path, name: str) -> None:
    """Few images or many, one object an image, thirty clicks."""
    good = real(shared_dir / name)
    rng = np.random.default_rng(1)
    ids = np.unique(good.images)
    for images in (3, 4, 6, 10, 30, 100) * 15:
        rows = np.flatnonzero(np.isin(good.images, rng.choice(ids, images, replace=False)))
        first = np.unique(good.images[rows], return_index=True)[1]
        for some in (rows, rows[first], rng.permutation(rows)[:MIN_CLICKS]):
            assert find_doubts(Clicks(*(column[some] for column in good)), ["a.csv"]) == []  # type: ignore[arg-type]


def test_files_of_real_tools_are_not_doubted(shared_dir: Path) -> None:
    rows = [
        (hash(record.image) & 0xFFFF, *record.size, record.x, record.y, n)
        for n, name in enumerate(FIXTURES)
        for record in read_points(str(shared_dir / "fixtures" / name))
        if record.size is not None and record.x is not None
    ]
    assert len(rows) > MIN_CLICKS
    found = np.array(rows, np.float64)
    clicks = clicks_of(found[:, 0], found[:, 1:3], found[:, 3:5], found[:, 5].astype(np.int64))
    assert find_doubts(clicks, FIXTURES) == []


def test_files_with_one_cause_are_one_fault() -> None:
    rng = np.random.default_rng(2)
    places = rng.random((300, 2))
    files = np.repeat([0, 1, 2], 100)
    images = np.tile(np.arange(10), 30)
    clicks = clicks_of(
        images, np.full((300, 2), 64), places * np.array([[32, 32, 64]]).repeat(100).reshape(-1, 1), files
    )
    (fault,) = find_doubts(clicks, ["a.csv", "b.csv", "c.csv"])
    assert fault.file == "a.csv and 1 more files"
    assert fault.found.startswith("200 points of 10 images within 49% of the width and 48% of the height")
    assert "points.scale: 2 " in fault.next_step and "convert these" in fault.next_step


@pytest.mark.parametrize(("count", "images"), [(29, 29), (200, 2)])
def test_few_clicks_or_images_are_not_judged(count: int, images: int) -> None:
    places = np.random.default_rng(2).random((count, 2)) * 20
    assert find_doubts(clicks_of(np.arange(count) % images, np.full((count, 2), 64), places), ["a"]) == []


def test_no_click_at_all() -> None:
    assert find_doubts(clicks_of([], [], []), []) == []
