from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.annotations.describe import describe, splits_of
from data.annotations.detect import format_of
from data.annotations.frames import ImageFolder
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.errors import DataError
from tests.data.annotations.formats.conftest import read

Images = Callable[..., ImageFolder]
# 3 to 12 of 24 pixels, 2 to 8 of 16.
LINE = "1 0.125 0.125 0.5 0.125 0.5 0.5 0.125 0.5"
BOX = ("dog", 54, (3, 2, 9, 6))


def put(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        "names: [cat, dog]",
        "names:\n  0: cat\n  1: dog",
        "nc: 2\nnames: ['cat', 'dog']\nroboflow: {license: MIT}",
    ],
)
@pytest.mark.parametrize(
    ("labels", "image"),
    [
        ("labels/train/a.txt", "images/train/a.jpg"),  # Ultralytics
        ("train/labels/a.txt", "train/images/a.jpg"),  # Roboflow
        ("labels/a.txt", "images/a.jpg"),  # Label Studio
        ("a.txt", "a.jpg"),
    ],
)
def test_layouts(tmp_path: Path, images: Images, names: str, labels: str, image: str) -> None:
    root = put(tmp_path / "set", {"data.yaml": names, labels: f"{LINE}\n\n"})
    folder = images(image, "other/images/a.jpg", below="set") if "/" in labels else images(image, below="set")
    assert format_of(root) == "yolo-seg"
    assert read(root, folder) == {"a": [BOX]}
    assert read((root / labels).parent, folder) == {"a": [BOX]}  # data.yaml is found above
    assert read(root / "data.yaml", folder) == {"a": [BOX]}


def test_ids_are_the_numbers_plus_1_and_an_empty_file_is_an_image_without_objects(
    tmp_path: Path, images: Images
) -> None:
    root = put(tmp_path / "set", {"classes.txt": "cat\ndog\n", "labels/a.txt": LINE, "labels/b.txt": ""})
    coco = read_annotations(root, options=ReadOptions(images=images()))
    assert coco.categories == [(1, "cat"), (2, "dog")]
    assert [row["category_id"] for row in coco.annotations] == [2]
    assert sorted(row["file_name"] for row in coco.images) == ["a.jpg", "b.jpg"]


def test_a_box_is_a_region_to_ignore(
    tmp_path: Path, images: Images, caplog: pytest.LogCaptureFixture
) -> None:
    root = put(tmp_path / "set", {"data.yaml": "names: [cat]", "labels/a.txt": "0 0.5 0.5 0.25 0.5"})
    (row,) = read_annotations(root, options=ReadOptions(images=images())).annotations
    assert row["iscrowd"] == 1
    assert "1 boxes without a mask; they are regions to ignore" in caplog.text
    assert describe(root, images()).ignored == 1


BAD = [
    ("0 0.1 0.1 1.5 0.1 0.5 0.5", "coordinate 1.5"),
    ("0 10 10 200 10 100 100", "coordinate 10"),
    ("0 0.1 -0.2 0.5 0.1 0.5 0.5", "coordinate -0.2"),
    ("0 nan 0.2 0.5 0.1 0.5 0.5", "coordinate nan"),
    ("0 0.1 0.1 0.5", "part 0 with 3 numbers, not 3 or more pairs x, y"),
    ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.3", "part 0 with 7 numbers, not 3 or more pairs x, y"),
    ("2 0.1 0.1 0.5 0.1 0.5 0.5", "class 2"),
    ("-1 0.1 0.1 0.5 0.1 0.5 0.5", "class -1"),
    ("0.5 0.1 0.1 0.5 0.1 0.5 0.5", "class 0.5"),
    ("inf 0.1 0.1 0.5 0.1 0.5 0.5", "class inf"),
    ("cat 0.1 0.1 0.5 0.1 0.5 0.5", "'cat 0.1 0.1 0.5 0.1 0.5 0.5'"),
]


def test_bad_lines_are_all_listed(tmp_path: Path, images: Images) -> None:
    text = "\n".join([LINE, *(line for line, _ in BAD)])
    root = put(
        tmp_path / "set", {"data.yaml": "names: [cat, dog]", "labels/a.txt": text, "labels/c.txt": LINE}
    )
    with pytest.raises(DataError) as caught:
        read(root, images())
    faults = {fault.record: fault.found for fault in caught.value.faults}
    assert faults == {
        "image": "no image 'c'",
        **{f"line {n}": found for n, (_, found) in enumerate(BAD, start=2)},
    }
    coco = read_annotations(root, options=ReadOptions(images=images(), reject=True))
    assert (len(coco.annotations), len(coco.rejected)) == (1, len(BAD) + 1)


def test_corners_a_little_outside_are_moved_to_the_border(tmp_path: Path, images: Images) -> None:
    line = "0 -0.005 0 1.005 0 1.005 1.0001 -0.005 1.0001"
    root = put(tmp_path / "set", {"data.yaml": "names: [cat]", "labels/a.txt": line})
    assert read(root, images()) == {"a": [("cat", 24 * 16, (0, 0, 24, 16))]}


@pytest.mark.parametrize(
    "names", ["names: []", "names: [a, a]", "nc: 3", "names: {x: a}", "names: 3", "[1", "!!python/x"]
)
def test_bad_files_of_classes(tmp_path: Path, images: Images, names: str) -> None:
    root = put(tmp_path / "set", {"data.yaml": names, "labels/a.txt": LINE})
    with pytest.raises(DataError, match=r"data\.yaml: (names|file): found (names|unreadable)"):
        read(root, images())


def test_without_a_file_of_classes(tmp_path: Path, images: Images) -> None:
    root = put(tmp_path / "a/b/c/d/set", {"labels/a.txt": LINE})
    with pytest.raises(DataError, match=r"no file of classes; expected data\.yaml with `names`"):
        read(root, images())


def test_splits(tmp_path: Path, images: Images) -> None:
    files = {
        "data.yaml": "names: [cat, dog]",
        "train/labels/a.txt": LINE,
        "valid/labels/b.txt": f"{LINE}\n{BAD[0][0]}",
    }
    root = put(tmp_path / "set", files)
    folder = images("train/images/a.jpg", "valid/images/b.jpg", below="set")
    assert splits_of(root) == {"train": "train/labels", "val": "valid/labels"}
    found = describe(root, folder)
    assert (found.format, found.images, found.with_masks, found.instances) == ("yolo-seg", 2, 2, 2)
    assert found.classes == {"cat": 0, "dog": 2}
    assert [fault.found for fault in found.faults] == ["coordinate 1.5"]
    other = put(
        tmp_path / "other",
        {"labels/train/a.txt": LINE, "labels/val/b.txt": LINE, "data.yaml": "names: [cat, dog]"},
    )
    assert splits_of(other) == {"train": "labels/train", "val": "labels/val"}
