"""Files that other tools wrote: counts, classes, boxes and areas as drawn by hand (files/README.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.annotations.coco.file import to_instances
from data.annotations.describe import describe
from data.annotations.detect import format_of
from data.annotations.frames import ImageFolder
from data.annotations.label_image import read_label_image
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from tests.data.annotations.formats.conftest import HEIGHT, WIDTH, Found, read

FILES = Path(__file__).parent / "files"

CAT, DOG, OTHER_DOG = (54, (3, 2, 9, 6)), (28, (14, 10, 7, 4)), (30, (1, 5, 6, 5))
TRUTH: Found = {"a": [("cat", *CAT), ("dog", *DOG)], "b": [("dog", *OTHER_DOG)]}
OBJECTS: Found = {image: [("object", *rest) for _, *rest in rows] for image, rows in TRUTH.items()}  # type: ignore[misc]
# Cityscapes' own tool fills the pixels of the last corners too.
STREET: Found = {
    "a": [("car", 70, (3, 2, 10, 7)), ("person", 40, (14, 10, 8, 5))],
    "b": [("person", 42, (1, 5, 7, 6))],
}
# Outlines through the centres of border pixels: half a pixel less on each side.
TRACED: Found = {
    "a": [("cat", 40, (3, 2, 8, 5)), ("dog", 18, (14, 10, 6, 3))],
    "b": [("dog", 20, (1, 5, 5, 4))],
}

CASES = {
    "cellpose": ("cellpose", "label-maps", OBJECTS),
    "stardist": ("stardist", "label-maps", OBJECTS),
    "cityscapes": ("cityscapes", "cityscapes", STREET),
    "coco of datumaro": ("coco_datumaro/annotations/instances_default.json", "coco", TRUTH),
    "cvat of datumaro": ("cvat_datumaro/default.xml", "cvat", TRUTH),
    "voc": ("voc_datumaro", "voc", TRUTH),
    "list of voc": ("voc_datumaro/ImageSets/Segmentation/default.txt", "voc", TRUTH),
    "coco of supervision": ("coco_supervision/_annotations.coco.json", "coco", TRUTH),
    "yolo of supervision": ("yolo_supervision", "yolo-seg", TRACED),
    "label studio": ("label_studio/tasks.json", "label-studio", TRUTH),
    "coco of label studio": ("label_studio_coco/result.json", "coco", TRUTH),
    "yolo of label studio": ("label_studio_yolo", "yolo-seg", TRUTH),
    "labelme": ("labelme", "labelme", TRUTH),
    "yolo of labelformat": ("yolo_labelformat", "yolo-seg", TRUTH),
    "data.yaml of labelformat": ("yolo_labelformat/data.yaml", "yolo-seg", TRUTH),
}


@pytest.mark.parametrize("case", CASES)
def test_files_of_tools(case: str, images: Callable[..., ImageFolder]) -> None:
    name, format, expected = CASES[case]
    folder = images()
    if case == "cityscapes":
        stems = {"a": "aachen_000000_000019_leftImg8bit", "b": "aachen_000001_000019_leftImg8bit"}
        folder = images(*(f"leftImg8bit/{stem}.png" for stem in stems.values()))
        expected = {stems[image]: rows for image, rows in expected.items()}
    assert format_of(FILES / name) == format
    assert read(FILES / name, folder) == {image: sorted(rows) for image, rows in expected.items()}
    described = describe(FILES / name, folder)
    assert (described.format, described.images, described.with_masks, described.instances) == (
        format,
        2,
        2,
        3,
    )
    assert not described.faults
    assert sum(described.classes.values()) == 3


def test_regions_that_cityscapes_ignores(images: Callable[..., ImageFolder]) -> None:
    """The group of cars is a region of car, the trailer one of truck."""
    folder = images("aachen_000000_000019_leftImg8bit.png", "aachen_000001_000019_leftImg8bit.png")
    described = describe(FILES / "cityscapes", folder)
    assert (described.ignored, described.splits) == (4, {"train": "train", "val": "val"})
    coco = read_annotations(FILES / "cityscapes" / "train", options=ReadOptions(images=folder))
    regions = [row for row in to_instances(coco).to_pylist() if row["iscrowd"]]
    # The polygons reach one pixel further than their corners: 9 x 6 of (14, 1) to (22, 6), 6 x 4 of (0, 12) to (5, 15).
    assert [(row["category_id"], row["area"]) for row in regions] == [(26, 54), (27, 24)]


@pytest.mark.parametrize("name", ["a_uint32_zlib.tif", "a_float32_None.tif", "be.tif"])
def test_kinds_of_tiff(name: str) -> None:
    numbers = read_label_image(FILES / "tifffile" / name)
    assert numbers.shape == (HEIGHT, WIDTH)
    assert [int((numbers == n).sum()) for n in (0, 1, 2)] == [HEIGHT * WIDTH - 82, 54, 28]
    assert (numbers[2:8, 3:12] == 1).all() and (numbers[10:14, 14:21] == 2).all()
