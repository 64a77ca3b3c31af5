from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from data.annotations.describe import describe
from data.annotations.detect import format_of
from data.annotations.frames import ImageFolder
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.errors import DataError
from tests.data.annotations.formats.conftest import HEIGHT, WIDTH, read

Images = Callable[..., ImageFolder]
SQUARE, BAR = (slice(2, 6), slice(3, 7)), (slice(10, 12), slice(4, 14))
"""16 and 20 pixels, boxes 3, 2, 4, 4 and 4, 10, 10, 2."""
TWO = [("object", 16, (3, 2, 4, 4)), ("object", 20, (4, 10, 10, 2))]


def numbers(square: int = 1, bar: int = 2, kind: type = np.uint8) -> np.ndarray:
    drawn = np.zeros((HEIGHT, WIDTH), kind)
    drawn[SQUARE], drawn[BAR] = square, bar
    return drawn


def save(path: Path, pixels: np.ndarray, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette([n for k in range(256) for n in (k, 255 - k, k)])
    image.save(path)
    return path


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.png", numbers()),
        ("a.png", numbers(3, 60_000, np.uint16)),
        ("a.tif", numbers(1, 1_000_000, np.int32)),
        ("a_masks.tiff", numbers(7, 255)),
        ("a_label.png", np.repeat(numbers(5, 9)[..., None], 3, 2)),
        ("frame/a_cp_masks.png", numbers(254, 255)),
    ],
)
def test_numbers_of_8_16_and_32_bits(tmp_path: Path, images: Images, name: str, pixels: np.ndarray) -> None:
    save(tmp_path / "maps" / name, pixels)
    assert read(tmp_path / "maps", images(), mask_class=None)["a"] == [
        (("frame" if "/" in name else "object"), *rest) for _, *rest in TWO
    ]


def test_masks_of_pennfudan(tmp_path: Path, images: Images) -> None:
    """PNGMasks/X_mask.png with a palette whose indices are the numbers; images in PNGImages/X.png."""
    save(tmp_path / "PennFudanPed/PedMasks/FudanPed00001_mask.png", numbers(), palette=True)
    folder = images("PNGImages/FudanPed00001.png", "PNGImages/FudanPed00002.png", below="PennFudanPed")
    assert read(tmp_path / "PennFudanPed", folder, "person") == {
        "FudanPed00001": [("person", *rest) for _, *rest in TWO]
    }
    coco = read_annotations(tmp_path / "PennFudanPed", options=ReadOptions(images=folder))
    assert coco.not_images == {"PedMasks/FudanPed00001_mask.png"}  # no weak image
    assert describe(tmp_path / "PennFudanPed", folder).not_images == coco.not_images


def test_masks_of_cellposes_data_set(tmp_path: Path, images: Images) -> None:
    folder = images("000_img.png", "001_img.png", below="train")
    save(tmp_path / "train/000_masks.png", numbers(kind=np.uint16))
    assert read(tmp_path / "train", folder) == {"000_img": TWO}


def test_masks_of_the_data_science_bowl(tmp_path: Path, images: Images) -> None:
    """A folder an image with a file an object, whose names are hashes."""
    root = tmp_path / "stage1_train"
    folder = images("0a1b/images/0a1b.png", "2c3d/images/2c3d.png", below="stage1_train")
    save(root / "0a1b/masks/77.png", numbers(255, 0))
    save(root / "0a1b/masks/88.png", numbers(0, 255))
    two_parts = numbers(0, 0)
    two_parts[0, 0] = two_parts[15, 23] = 255
    save(root / "2c3d/masks/99.png", two_parts)  # of one object, though not connected
    assert format_of(root) == "label-maps"
    assert read(root, folder) == {"0a1b": TWO, "2c3d": [("object", 2, (0, 0, 24, 16))]}
    coco = read_annotations(root, options=ReadOptions(images=folder))
    assert coco.not_images == {"0a1b/masks/77.png", "0a1b/masks/88.png", "2c3d/masks/99.png"}


def test_binary_masks_of_several_objects(tmp_path: Path, images: Images, caplog: Any) -> None:
    """Where no file has two numbers, connected parts are objects; diagonal neighbours are connected."""
    pixels = numbers(255, 255)
    pixels[6, 7] = 255
    save(tmp_path / "maps/a.png", pixels)
    save(tmp_path / "maps/b.png", numbers(255, 0))
    assert read(tmp_path / "maps", images()) == {
        "a": [("object", 17, (3, 2, 5, 5)), TWO[1]], "b": [TWO[0]],
    }  # fmt: skip
    assert "binary masks: each connected part is an object (1 masks have several)" in caplog.text
    save(tmp_path / "maps/b.png", numbers(1, 2))
    assert read(tmp_path / "maps", images()) == {"a": [("object", 37, (3, 2, 11, 10))], "b": TWO}


def test_a_folder_of_the_bowl_without_its_image_is_a_fault_of_its_masks(
    tmp_path: Path, images: Images
) -> None:
    root = tmp_path / "stage1_train"
    for name in ("0a1b", "2c3d", "4e5f"):
        save(root / name / "masks/77.png", numbers(255, 0))
    folder = images("0a1b/images/0a1b.png", "2c3d/images/2c3d.png", below="stage1_train")
    with pytest.raises(DataError) as caught:
        read(root, folder)
    assert [fault.found for fault in caught.value.faults] == ["no image '4e5f'"]


def test_one_number_a_file_other_than_1_and_255_is_one_object(tmp_path: Path, images: Images) -> None:
    save(tmp_path / "maps/a.png", numbers(7, 7))
    save(tmp_path / "maps/b.png", numbers(0, 8))
    assert read(tmp_path / "maps", images()) == {"a": [("object", 36, (3, 2, 11, 10))], "b": [TWO[1]]}


def test_a_class_by_folder_and_one_for_all(tmp_path: Path, images: Images) -> None:
    save(tmp_path / "set/masks/nucleus/a.png", numbers(1, 0))
    save(tmp_path / "set/masks/vessel/a.png", numbers(0, 3))
    save(tmp_path / "set/masks/vessel/b.png", numbers(1, 3))
    folder = images("a.jpg", "b.jpg", below="set/images")
    by_folder = {
        "a": [("nucleus", *TWO[0][1:]), ("vessel", *TWO[1][1:])],
        "b": [("vessel", *row[1:]) for row in TWO],
    }
    assert read(tmp_path / "set/masks", folder) == by_folder
    assert read(tmp_path / "set", ImageFolder(tmp_path / "set")) == by_folder
    assert read(tmp_path / "set/masks", folder, "cell")["a"] == [("cell", *row[1:]) for row in TWO]


def test_folders_of_splits_are_no_classes(tmp_path: Path, images: Images) -> None:
    save(tmp_path / "masks/train/a.png", numbers())
    save(tmp_path / "masks/site 7/b.png", numbers())
    folder = images("train/a.jpg", "site 7/b.jpg")
    assert read(tmp_path / "masks", folder) == {"a": TWO, "b": TWO}


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path, images: Images) -> None:
    for n, place in enumerate(("train", "val"), start=1):
        save(tmp_path / "masks" / place / "a.png", numbers(n, 0))
        save(tmp_path / "masks" / place / "b.png", numbers(1, 2))
    folder = images("train/a.jpg", "val/a.jpg", "train/b.jpg", "val/b.jpg")
    coco = read_annotations(tmp_path / "masks", options=ReadOptions(images=folder))
    assert {row["file_name"] for row in coco.images} == folder.names()
    assert describe(tmp_path / "masks", folder).splits == {"train": "train", "val": "val"}


def random_labels(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int32).reshape(500, -1)


BAD = [
    ("300,000 numbers", "a.tif", np.repeat(np.repeat(random_labels(300_000), 2, 0), 2, 1),
     "299,999 different values, more than 65,535"),
    ("a photograph", "a.png", np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8),
     "an image whose neighbouring pixels differ"),
    ("colours", "a.png", np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8), "a colour image"),
    ("halves", "a.tif", np.full((4, 5), 1.5, np.float32), "numbers that aren't whole"),
    ("nan", "a.tif", np.full((4, 5), np.nan, np.float32), "numbers that aren't whole"),
    ("negative", "a.tif", np.full((4, 5), -3, np.int32), "numbers below 0, down to -3"),
    ("no image", "none.png", numbers(), "no image 'none'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "pixels", "found"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_bad_label_maps(tmp_path: Path, images: Images, name: str, pixels: np.ndarray, found: str) -> None:
    save(tmp_path / "maps/b.png", numbers())
    path = save(tmp_path / "maps" / name, pixels)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "maps", images())
    (fault,) = caught.value.faults
    assert fault.file == str(path) and found in fault.found
    options = ReadOptions(images=images(), reject=True)
    coco = read_annotations(tmp_path / "maps", options=options)
    assert [Path(row["file_name"]).name for row in coco.images] == ["b.jpg"]
    assert len(coco.annotations) == 2 and len(coco.rejected) == 1


def test_bad_files_are_all_listed(tmp_path: Path, images: Images) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (tmp_path / "maps/b.tif").write_bytes(b"II*\0" + bytes(4))
    frames = [Image.fromarray(numbers())] * 2
    frames[0].save(tmp_path / "maps/c.tif", save_all=True, append_images=frames[1:])
    save(tmp_path / "maps/d.png", numbers())
    with pytest.raises(DataError) as caught:
        read(tmp_path / "maps", images(*(f"{name}.jpg" for name in "abc")))
    records = {Path(fault.file).name: fault.found for fault in caught.value.faults}
    assert records.keys() == {"a.png", "b.tif", "c.tif", "d.png"}
    assert records["a.png"].startswith("not readable") and records["c.tif"] == "2 pages"


def test_a_label_map_whose_size_fits_no_memory_is_not_decoded(tmp_path: Path, images: Images) -> None:
    bomb = bytearray(cv2.imencode(".png", numbers())[1].tobytes())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/a.png").write_bytes(bytes(bomb))
    with pytest.raises(DataError, match=r"a\.png: pixels: found (not readable|60000 x 60000 pixels)"):
        read(tmp_path / "maps", images())


def test_a_name_that_fits_two_images(tmp_path: Path, images: Images) -> None:
    save(tmp_path / "maps/a.png", numbers())
    with pytest.raises(DataError, match=r"image 'a', which fits 2: x/a\.jpg, y/a\.jpg; expected one image"):
        read(tmp_path / "maps", images("x/a.jpg", "y/a.jpg"))
