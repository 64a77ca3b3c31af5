from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.annotations.coco.file import to_instances
from data.annotations.describe import splits_of
from data.annotations.formats.voc import _palette
from data.annotations.frames import ImageFolder
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.errors import DataError
from tests.data.annotations.formats.conftest import HEIGHT, WIDTH, read

Images = Callable[..., ImageFolder]
FILES = Path(__file__).parent / "files/voc_datumaro"
CAT = ("cat", 54, (3, 2, 9, 6))


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels.astype(np.uint8))
    image.putpalette([n for k in range(256) for n in _palette(k)])
    image.save(path)


def voc(root: Path) -> Path:
    """An image with a person (15) and a boat (4) as VOC has it: indices of a palette, borders of 255."""
    objects, kinds = np.zeros((2, HEIGHT, WIDTH))
    objects[2:6, 2:6], kinds[2:6, 2:6] = 1, 15
    objects[8:12, 8:16], kinds[8:12, 8:16] = 2, 4
    for pixels in (objects, kinds):
        pixels[8:12, 8] = pixels[2, 2:6] = 255
    save(root / "SegmentationObject/2007_000032.png", objects)
    save(root / "SegmentationClass/2007_000032.png", kinds)
    return root


def test_palette() -> None:
    """The first colours of VOC's palette, and that of borders."""
    assert [_palette(n) for n in (0, 1, 2, 3, 4, 15, 20, 255)] == [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (192, 128, 128), (0, 64, 128),
        (224, 224, 192),
    ]  # fmt: skip


def test_borders_belong_to_no_object_and_ids_are_those_of_voc(tmp_path: Path, images: Images) -> None:
    root = voc(tmp_path / "VOC2012")
    folder = images("JPEGImages/2007_000032.jpg", "JPEGImages/2007_000033.jpg", below="VOC2012")
    coco = read_annotations(root, options=ReadOptions(images=folder))
    assert [tuple(one) for one in coco.categories][3::11] == [(4, "boat"), (15, "person")]
    found = [(row["category_id"], row["area"]) for row in to_instances(coco).to_pylist()]
    assert found == [(15, 12), (4, 28)]
    assert coco.not_images == {f"Segmentation{kind}/2007_000032.png" for kind in ("Object", "Class")}


def test_lists_are_splits(tmp_path: Path, images: Images) -> None:
    root = tmp_path / "set"
    shutil.copytree(FILES, root)
    lists = root / "ImageSets/Segmentation"
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b 1\n")
    assert splits_of(root) == {
        "train": "ImageSets/Segmentation/train.txt", "val": "ImageSets/Segmentation/val.txt",
    }  # fmt: skip
    assert read(lists / "train.txt", images()) == {"a": [CAT, ("dog", 28, (14, 10, 7, 4))]}
    assert read(lists / "val.txt", images()) == {"b": [("dog", 30, (1, 5, 6, 5))]}
    (lists / "val.txt").write_text("../../b\nc\n")
    with pytest.raises(DataError) as caught:
        read(lists / "val.txt", images("a.jpg", "c.jpg"))
    assert [fault.found[:30] for fault in caught.value.faults] == [
        "name '../../b'",
        "not readable (FileNotFoundErro",
    ]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("cat:1,2\n", "'cat:1,2'"),
        ("cat:1,2,999::", "'cat:1,2,999::'"),
        ("a:1,0,0::\na:2,0,0::", "'a:2,0,0::'"),
    ],
)
def test_bad_label_maps(tmp_path: Path, images: Images, lines: str, found: str) -> None:
    root = voc(tmp_path / "set")
    (root / "labelmap.txt").write_text(lines)
    with pytest.raises(DataError, match=r"labelmap\.txt: line \d: found " + found):
        read(root, images("2007_000032.jpg"))


def test_maps_of_two_sizes_and_a_colour_of_no_class(tmp_path: Path, images: Images) -> None:
    root = voc(tmp_path / "set")
    (root / "labelmap.txt").write_text("background:0,0,0::\ncat:1,2,3::")
    with pytest.raises(DataError) as caught:
        read(root, images("2007_000032.jpg"))
    assert [fault.found for fault in caught.value.faults] == ["class 15", "class 4"]
    save(root / "SegmentationClass/2007_000032.png", np.zeros((4, 5)))
    with pytest.raises(DataError, match="found 5 x 4 pixels; expected 24 x 16, as in SegmentationObject"):
        read(root, images("2007_000032.jpg"))


@pytest.mark.parametrize("background", ["background:0,0,0::\n", ""])
@pytest.mark.parametrize("colours", ["cat:{0}::\ndog:{1}::", "cat:::\ndog:::"])
def test_numbers_are_places_in_the_list(
    tmp_path: Path, images: Images, background: str, colours: str
) -> None:
    """Also without colours, and without a line for the background."""
    root = voc(tmp_path / "set")
    kinds = np.zeros((HEIGHT, WIDTH))
    kinds[2:6, 2:6], kinds[8:12, 8:16] = 1, 2
    save(root / "SegmentationClass/2007_000032.png", kinds)
    (root / "labelmap.txt").write_text(background + colours.format("128,0,0", "0,128,0"))
    names = [name for name, *_ in read(root, images("2007_000032.jpg"))["2007_000032"]]
    assert names == ["cat", "dog"]
