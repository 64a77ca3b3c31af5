"""YOLO, CVAT and label maps: what is written, by hand, and read again by our own readers."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from PIL import Image

from data.annotations.export import write_frames
from data.annotations.formats.cvat import from_row_runs
from data.annotations.frames import Frame, ImageFolder, Label
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.annotations.writers.cvat import _mask
from data.errors import DataError
from data.masks import rle
from data.masks.outlines import outlines
from data.masks.polygons import from_segmentation
from data.tables import Category

CLASSES = [Category(9, "ring"), Category(4, 'a "b" & <c>')]
HEIGHT, WIDTH = 20, 32


def square(x: int, y: int, side: int) -> bytes:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + side, x : x + side] = True
    return rle.encode(mask)


def ring() -> bytes:
    """A frame of 12 x 12 pixels around a hole of 4 x 4, and a second part."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:14, 2:14] = True
    mask[6:10, 6:10] = False
    mask[15:19, 20:28] = True
    return rle.encode(mask)


FRAMES = [
    Frame(
        1,
        "a/one.png",
        WIDTH,
        HEIGHT,
        (
            Label(1, 9, ring(), score=0.25),
            Label(2, 4, square(4, 4, 8), score=0.75),
            Label(3, 4, square(20, 0, 9), flags=frozenset({"crowd"})),
        ),
    ),
    Frame(2, "two.jpg", WIDTH, HEIGHT, ()),
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for frame in FRAMES:
        path = root / frame.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return root


def write(folder: Path, format: str, frames: list[Frame] = FRAMES) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return write_frames(folder, "found", format, frames, CLASSES)


def masks_of(path: Path, images: Path) -> dict[tuple[str, str], list[np.ndarray]]:
    """The masks that our readers get out of a file, by image and class."""
    coco = read_annotations(path, options=ReadOptions(images=ImageFolder(images)))
    names = {category.id: category.name for category in coco.categories}
    files = {row["id"]: row["file_name"] for row in coco.images}
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for row in coco.annotations:
        mask = rle.decode(from_segmentation(row["segmentation"], HEIGHT, WIDTH), HEIGHT, WIDTH)
        found.setdefault((files[row["image_id"]], names[row["category_id"]]), []).append(mask)
    return found


@pytest.mark.parametrize(("format", "path"), [("yolo-seg", "found"), ("cvat", "found.xml")])
def test_what_is_written_is_read(format: str, path: str, tmp_path: Path, images: Path) -> None:
    """Parts and holes too; the crowd is left out, and counted."""
    counts = write(tmp_path / "out", format)
    assert counts == {"images": 2, "labels": 2, "crowds_left_out": 1}
    found = masks_of(tmp_path / "out" / path, images)
    assert {key: len(masks) for key, masks in found.items()} == {
        ("a/one.png", "ring"): 1,
        ("a/one.png", 'a "b" & <c>'): 1,
    }
    for label in FRAMES[0].labels[:2]:
        name = next(category.name for category in CLASSES if category.id == label.category_id)
        (mask,) = found["a/one.png", name]
        true = rle.decode(label.counts, HEIGHT, WIDTH)
        assert (mask & true).sum() / (mask | true).sum() > (0.9 if format == "yolo-seg" else 0.9999)


def test_label_maps_are_read_but_for_classes(tmp_path: Path, images: Path) -> None:
    """The mask on top comes back whole, the other one without what is covered."""
    write(tmp_path / "out", "label-maps")
    found = masks_of(tmp_path / "out/found/maps", images)
    areas = {key: sorted(int(mask.sum()) for mask in masks) for key, masks in found.items()}
    assert list(areas.values()) == [[64, 160 - 48]] and {image for image, _ in areas} == {"a/one.png"}


def test_yolo_by_hand(tmp_path: Path) -> None:
    """Classes by their ids: 0 is category 4. A square of 8 pixels at 4, 4 of 32 x 20."""
    write(tmp_path / "out", "yolo-seg")
    folder = tmp_path / "out/found"
    assert (folder / "labels/two.txt").read_text() == ""
    lines = [line.split() for line in (folder / "labels/a/one.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["1", "0"]
    shares = np.array(lines[1][1:], float).reshape(-1, 2) * (WIDTH, HEIGHT)
    assert len(shares) == 4
    np.testing.assert_allclose(sorted(shares.tolist()), [[4, 4], [4, 12], [12, 4], [12, 12]], atol=0.13)
    assert '  0: "a \\"b\\" & <c>"\n  1: "ring"\n' in (folder / "data.yaml").read_text()


def test_cvat_by_hand(tmp_path: Path) -> None:
    """A square fills its box: no pixel off, then 64 on. The first row of the ring: 12 on, 14 off to the box's end."""
    write(tmp_path / "out", "cvat")
    text = (tmp_path / "out/found.xml").read_text()
    assert 'rle="0, 64" left="4" top="4" width="8" height="8"' in text
    assert 'rle="0, 12, 14, 12, 14, ' in text and 'left="2" top="2" width="26" height="17"' in text
    assert '<name>a "b" &amp; &lt;c&gt;</name>' in text and text.count("<mask ") == 2
    assert '<image id="1" name="two.jpg" width="32" height="20">' in text


def test_label_maps_by_hand(tmp_path: Path) -> None:
    """Label 2 has the higher score, and covers 64 - 16 of the ring's pixels; the ring is not on its hole."""
    counts = write(tmp_path / "out", "label-maps")
    assert counts["labels"] == 2 and counts["hidden_labels"] == [] and counts["covered_pixels"] == 48
    folder = tmp_path / "out/found"
    numbers = np.asarray(Image.open(folder / "maps/a/one_masks.png"))
    assert Image.open(folder / "maps/a/one_masks.png").mode in ("I;16", "I")
    assert np.bincount(numbers.ravel()).tolist() == [HEIGHT * WIDTH - 160 - 16, 160 - 48, 64]
    assert not np.asarray(Image.open(folder / "maps/two_masks.png")).any()
    rows = list(csv.reader((folder / "objects.csv").open(newline="")))
    assert rows == [
        ["file", "number", "class", "score"],
        ["maps/a/one_masks.png", "1", "ring", "0.25"],
        ["maps/a/one_masks.png", "2", 'a "b" & <c>', "0.75"],
    ]


def test_a_mask_that_is_covered_is_listed(tmp_path: Path) -> None:
    under = Label(7, 9, square(5, 5, 3), score=0.1)
    frame = replace(FRAMES[0], labels=(under, FRAMES[0].labels[1]))
    counts = write(tmp_path / "out", "label-maps", [frame])
    assert counts["hidden_labels"] == [{"image": "a/one.png", "label": 7}] and counts["covered_pixels"] == 9
    assert counts["labels"] == 1


@pytest.mark.parametrize("format", ["yolo-seg", "label-maps"])
@pytest.mark.parametrize(
    ("name", "said"), [("a/one.jpg", "second image"), ("../x.png", "outside"), ("/x.png", "outside")]
)
def test_names_that_clash_or_leave_the_folder(format: str, name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        write(tmp_path / "out", format, [*FRAMES, replace(FRAMES[1], file_name=name)])
    assert not list(tmp_path.glob("x*"))


@settings(deadline=None, max_examples=40)
@given(arrays(bool, (12, 15)))
def test_any_mask_survives_cvat(mask: np.ndarray) -> None:
    line = _mask(Label(1, 4, rle.encode(mask)), Frame(1, "a.png", 15, 12, ()), "x")
    assert bool(line) == mask.any()
    if line:
        values = dict(part.split("=", 1) for part in line.replace(", ", ",").split() if "=" in part)
        left, top, width, height = (int(values[key].strip('"')) for key in ("left", "top", "width", "height"))
        runs = [int(run) for run in values["rle"].strip('"').split(",")]
        drawn = np.zeros_like(mask)
        drawn[top : top + height, left : left + width] = from_row_runs(runs, width * height).reshape(
            height, width
        )
        assert np.array_equal(drawn, mask)


def test_outlines_have_a_ring_for_each_part_and_hole() -> None:
    mask = rle.decode(ring(), HEIGHT, WIDTH)
    rings = outlines(mask, 0.3)
    assert len(rings) == 3 and outlines(np.zeros((3, 3), bool), 0.3) == []
    boxes = sorted([ring.min(0).round().tolist() + ring.max(0).round().tolist() for ring in rings])
    assert boxes == [[2, 2, 14, 14], [6, 6, 10, 10], [20, 15, 28, 19]]
