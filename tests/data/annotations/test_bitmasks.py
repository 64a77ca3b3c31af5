from __future__ import annotations

import io
import json
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.annotations import bitmasks
from data.annotations.bitmasks import read_bitmasks, write_bitmasks
from data.annotations.frames import FLAGS, Frame, Label, name_id
from data.errors import DataError
from data.masks import rle
from data.tables import Category
from tests.data.fuzzing import few_times, ten_thousand_times

CLASSES = [Category(3, "car"), Category(200, "pole")]


class Images:
    """Image files by name, none of which is ever opened."""

    def __init__(self, *names: str) -> None:
        self._names = frozenset(names)

    def names(self) -> frozenset[str]:
        return self._names

    def prepare(self, names: Collection[str]) -> None:
        raise AssertionError("nobody should look sizes up")

    def size(self, file_name: str) -> tuple[int, int]:
        raise AssertionError(f"nobody should look {file_name} up")


def save(path: Path, rgba: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(rgba, dtype=np.uint8)).save(path)
    return path


def pixels(**change: list[int]) -> np.ndarray:
    """A bitmask of 4 x 5 pixels: object 1 a car, object 258 an occluded, truncated bus; `row=[R, G, B, A]` changes."""
    rgba = np.zeros((4, 5, 4), dtype=np.uint8)
    rgba[0, :2] = (3, 0, 0, 1)
    rgba[1:3, 3] = (5, 12, 1, 2)
    for row, value in change.items():
        rgba[int(row[1:]), 4] = value
    return rgba


def test_objects_are_read_with_class_flags_and_mask(tmp_path: Path) -> None:
    save(tmp_path / "bits/a/1.png", pixels(r3=[8, 3, 0, 9]))
    coco = read_bitmasks(tmp_path / "bits", images=Images("10k/a/1.webp", "10k/a/2.jpg"), folder="10k")
    assert coco.images == [
        {"id": name_id("10k/a/1.webp"), "file_name": "10k/a/1.webp", "height": 4, "width": 5}
    ]
    assert [c.name for c in coco.categories][:3] == ["pedestrian", "rider", "car"]
    rows = coco.annotations
    assert [(row["id"], row["category_id"], row["iscrowd"]) for row in rows] == [
        (1, 3, 0),
        (2, 8, 1),
        (3, 5, 0),
    ]
    flags = [{name for name in FLAGS if row["attributes"][name]} for row in rows]
    assert flags == [set(), {"crowd", "ignored"}, {"truncated", "occluded"}]
    found = rle.decode(rows[2]["segmentation"]["counts"], 4, 5)
    assert np.argwhere(found).tolist() == [[1, 3], [2, 3]]
    assert read_bitmasks(tmp_path / "bits").images[0]["file_name"] == "a/1.jpg"


def test_the_real_file_gives_the_given_masks(shared_dir: Path, tmp_path: Path) -> None:
    folder = shared_dir / "fixtures/bdd100k"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    (tmp_path / "example_bitmask.png").write_bytes((folder / "example_bitmask.png").read_bytes())
    coco = read_bitmasks(tmp_path)
    given = np.load(folder / "example_bitmask_decoded.npz")
    assert coco.images[0]["height"], coco.images[0]["width"] == given["masks"].shape
    bits = {"truncated": 8, "occluded": 4, "crowd": 2, "ignored": 1}
    assert [row["category_id"] for row in coco.annotations] == given["cat_ids"].tolist()
    assert [
        sum(bits[name] for name, holds in row["attributes"].items() if holds) for row in coco.annotations
    ] == given["attrs"].tolist()
    for number, row in enumerate(coco.annotations, start=1):
        assert np.array_equal(rle.decode(row["segmentation"]["counts"], 720, 1280), given["masks"] == number)


@pytest.mark.parametrize(
    ("change", "record", "found"),
    [
        ({"r3": [3, 0, 0, 0]}, "pixels", "1 with a class but no object's number"),
        ({"r3": [3, 4, 0, 1]}, "object 1", "differ in class or flags"),
        ({"r3": [4, 0, 0, 1]}, "object 1", "differ in class or flags"),
        ({"r3": [0, 0, 0, 7]}, "object 7", "class id R = 0"),
        ({"r3": [9, 0, 0, 7]}, "object 7", "class id R = 9"),
        ({"r3": [3, 16, 0, 7]}, "object 7", "flags G = 16"),
    ],
)
def test_wrong_pixels_are_named(tmp_path: Path, change: Any, record: str, found: str) -> None:
    path = save(tmp_path / "1.png", pixels(**change))
    with pytest.raises(DataError) as caught:
        read_bitmasks(tmp_path)
    (fault,) = caught.value.faults
    assert (fault.file, fault.record) == (str(path), record)
    assert found in fault.found


def test_all_faults_of_all_files_are_listed(tmp_path: Path) -> None:
    save(tmp_path / "1.png", pixels(r3=[9, 0, 0, 7], r0=[3, 99, 0, 8]))
    save(tmp_path / "2.png", pixels()[..., :3])  # a colormap
    save(tmp_path / "3.png", pixels()[..., 0])  # a mask of classes
    save(tmp_path / "4.png", pixels())
    save(tmp_path / "5.png", pixels())
    content = save(tmp_path / "6.png", pixels()).read_bytes()
    (tmp_path / "6.png").write_bytes(content[:60])
    (tmp_path / "7.png").write_bytes(b"")
    (tmp_path / "8.png").write_bytes(b"GIF89a")
    images = Images("1.jpg", "2.jpg", "3.jpg", "4.jpg", "4.png", "6.jpg", "7.jpg", "8.jpg")
    with pytest.raises(DataError) as caught:
        read_bitmasks(tmp_path, images=images)
    found = [(Path(fault.file).name, fault.found) for fault in caught.value.faults]
    assert [name for name, _ in found] == [f"{n}.png" for n in (1, 1, 2, 3, 4, 5, 6, 7, 8)]
    for n, part in ((2, "mode RGB"), (3, "mode L"), (4, "4.jpg, 4.png"), (5, "none"), (6, "not readable")):
        assert part in found[n][1]


def test_absurd_sizes_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    content = bytearray(save(tmp_path / "1.png", pixels()).read_bytes())
    for side in (10_000, 60_000, 2**31 - 1):
        content[16:24] = side.to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        (tmp_path / "1.png").write_bytes(content)
        with pytest.raises(DataError, match=r"pixels|not readable"):
            read_bitmasks(tmp_path)


def test_a_photograph_is_one_fault(tmp_path: Path) -> None:
    save(tmp_path / "1.png", np.random.default_rng(0).integers(1, 256, (300, 300, 4)))
    with pytest.raises(DataError, match="different values, more than 65,535") as caught:
        read_bitmasks(tmp_path)
    assert len(caught.value.faults) == 1


def test_a_folder_without_bitmasks(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=r"no \.png in it|no such folder"):
            read_bitmasks(path)


def _label(
    number: int, mask: np.ndarray, score: float | None = None, flags: frozenset[str] = frozenset()
) -> Label:
    return Label(number, 3 if number % 2 else 200, rle.encode(mask), flags, score)


@st.composite
def parted(draw: st.DrawFn) -> Frame:
    """A frame of masks that don't overlap, none of them empty."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    owner = np.array(
        draw(st.lists(st.integers(0, 5), min_size=height * width, max_size=height * width))
    ).reshape(height, width)
    labels = [
        Label(
            int(n),
            draw(st.sampled_from([3, 200])),
            rle.encode(owner == n),
            frozenset(draw(st.sets(st.sampled_from(FLAGS)))),
            draw(st.none() | st.floats(0, 1)),
        )
        for n in np.unique(owner[owner > 0])
    ]
    return Frame(7, "a/x.jpg", width, height, tuple(labels))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(parted())
def test_masks_that_do_not_overlap_come_back_the_same(tmp_path: Path, frame: Frame) -> None:
    folder = tmp_path / f"out {np.random.default_rng().integers(2**60)}"
    folder.mkdir()
    drawn = write_bitmasks(folder, [frame], CLASSES)
    coco = read_bitmasks(folder)
    assert (drawn.images, drawn.labels, drawn.hidden, drawn.covered_pixels) == (1, len(frame.labels), [], 0)
    assert coco.categories == CLASSES
    assert [(row["file_name"], row["height"], row["width"]) for row in coco.images] == [
        ("a/x.jpg", frame.height, frame.width)
    ]
    found = [
        (row["category_id"], row["segmentation"]["counts"], {f for f in FLAGS if row["attributes"][f]})
        for row in coco.annotations
    ]
    assert found == [(label.category_id, label.counts, set(label.flags)) for label in frame.labels]


def test_the_higher_score_is_on_top_and_hidden_masks_are_reported(tmp_path: Path) -> None:
    mask = np.zeros((4, 6), dtype=bool)
    low, high, small = mask.copy(), mask.copy(), mask.copy()
    low[:, :4], high[:, 2:], small[1, 1] = True, True, True
    labels = (_label(1, high, 0.9), _label(2, low, 0.4), _label(3, small, 0.1), _label(4, mask, 0.8))
    drawn = write_bitmasks(tmp_path, [Frame(1, "x.jpg", 6, 4, labels)], CLASSES)
    assert (drawn.labels, drawn.hidden, drawn.covered_pixels) == (2, [("x.jpg", 3), ("x.jpg", 4)], 1 + 8)
    first, second = read_bitmasks(tmp_path).annotations
    assert rle.decode(first["segmentation"]["counts"], 4, 6).sum() == 16
    assert rle.decode(second["segmentation"]["counts"], 4, 6).sum() == 8
    (scores,) = json.loads((tmp_path / bitmasks.SCORES).read_text())
    assert [(row["index"], row["score"], row["category"]) for row in scores["labels"]] == [
        (1, 0.9, "car"), (2, 0.4, "pole")
    ]  # fmt: skip


def test_many_objects_have_numbers_of_two_bytes(tmp_path: Path) -> None:
    owner = np.arange(1, 601).reshape(20, 30)
    labels = tuple(Label(n, 3, rle.encode(owner == n)) for n in range(1, 601))
    write_bitmasks(tmp_path, [Frame(1, "x.jpg", 30, 20, labels)], CLASSES)
    coco = read_bitmasks(tmp_path)
    assert [row["segmentation"]["counts"] for row in coco.annotations] == [label.counts for label in labels]


def test_what_bitmasks_can_not_hold_is_refused(tmp_path: Path) -> None:
    frame = Frame(1, "x.jpg", 6, 4, ())
    with pytest.raises(DataError, match="id 256"):
        write_bitmasks(tmp_path, [frame], [Category(256, "far")])
    with pytest.raises(DataError, match="of this name, with another suffix"):
        write_bitmasks(tmp_path, [frame, Frame(2, "x.png", 6, 4, ())], CLASSES)


@st.composite
def any_png(draw: st.DrawFn) -> bytes:
    """Bytes of a bitmask whose pixels, or whose bytes, are anything."""
    small = st.integers(0, 9) | st.integers(0, 255)
    rgba = np.array(draw(st.lists(small, min_size=24, max_size=24)), dtype=np.uint8).reshape(2, 3, 4)
    out = io.BytesIO()
    Image.fromarray(rgba[..., : draw(st.sampled_from([3, 4, 4, 4, 4]))]).save(out, format="PNG")
    content = bytearray(out.getvalue())
    for at, value in draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3)):
        content[at % len(content)] = value
    return bytes(content[: draw(st.none() | st.integers(0, len(content)))])


def read_or_refuse(folder: Path, content: bytes) -> None:
    """Any bytes give masks of the image's size, or a DataError."""
    (folder / "1.png").write_bytes(content)
    try:
        coco = read_bitmasks(folder)
    except DataError:
        return
    size = coco.images[0]["height"], coco.images[0]["width"]
    for row in coco.annotations:
        assert rle.decode(row["segmentation"]["counts"], *size).any()


@few_times
@given(any_png())
def test_any_png_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    read_or_refuse(tmp_path, content)


@ten_thousand_times
@given(any_png())
def test_any_png_is_read_or_refused_ten_thousand_times(tmp_path: Path, content: bytes) -> None:
    read_or_refuse(tmp_path, content)
