from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from data.points.elsewhere import Elsewhere, WeakImages
from data.points.merge import resolve
from data.points.record import PointRecord, Problem
from data.tables import Split


def split_of(weak: Split, names: dict[int, str]) -> Split:
    """A split of images of these ids and names."""
    like = weak.images.slice(0, 1).to_pylist()[0]
    rows = [like | {"image_id": i, "file_name": name} for i, name in names.items()]
    images = pa.Table.from_pylist(rows, schema=weak.images.schema)
    return Split(weak.root, images, weak.instances, weak.categories, weak.image_root)


@pytest.fixture
def images(weak: Split) -> WeakImages:
    """Rejected images and those of strong and val, in addition to a.png, night/b.png, day/b.png and night/c.png."""
    rejected = {20: ("dusk/d.png", "truncated"), 21: ("a.jpg", "empty"), 22: ("day/c.png", "size")}
    others = {
        "strong": split_of(weak, {30: "s.png", 31: "masks/a.png"}),
        "val": split_of(weak, {40: "v.png", 41: "11.png"}),
    }
    return WeakImages(weak, Elsewhere(rejected, others))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a.png"], 1),  # not masks/a.png of strong
        (["in/night/b.png"], 2),
        (["dusk/d.png"], "image 'dusk/d.png', which ingest rejected (truncated)"),
        (["d"], "image 'dusk/d.png', which ingest rejected (truncated)"),
        ([20], "image 'dusk/d.png', which ingest rejected (truncated)"),
        (["x-d.png", "d.png"], "image 'dusk/d.png', which ingest rejected (truncated)"),
        (["night/c.png"], 4),
        (["c.png"], "image 'c.png'"),  # two have it, whether or not one of them can be read
        (["a"], "image 'a'"),
        (["s.png"], "image 's.png', which is in strong"),
        (["C:\\pictures\\v.png"], "image 'v.png', which is in val"),
        (["x-v.png", "v.png"], "image 'v.png', which is in val"),
        ([40], "image 'v.png', which is in val"),
        (["b.png"], "image 'b.png'"),
        (["w.png"], "image 'w.png'"),
        ([None], "no image"),
    ],
)
def test_why_a_click_is_on_no_weak_image(images: WeakImages, values: list[Any], expected: int | str) -> None:
    found = images.find(values[0], tuple(values[1:]))
    if isinstance(found, Problem):
        assert found.found == expected
        words = {"which ingest rejected": "rejected_image", "which is in": "other_split"}
        assert found.reason == next((words[w] for w in words if w in found.found), "unknown_image")
    else:
        assert found == expected


def test_other_images_change_no_point(weak: Split) -> None:
    records = [
        PointRecord("c.csv", f"line {n}", name, "bolt", 1.5 + n, 2.0)
        for n, name in enumerate(("a.png", "night/b.png", "x/night/c.png", 2, "v.png", "d.png"))
    ]
    excluded = Elsewhere(
        {20: ("d.png", "empty")}, {"val": split_of(weak, {1040: "v.png", 1041: "val/a.png"})}
    )
    plain, lost = resolve(records, weak)
    kept, rejected = resolve(records, weak, elsewhere=excluded)
    assert kept == plain and len(kept) == 4
    assert lost["reason"].to_pylist() == ["unknown_image", "unknown_image"]
    assert rejected["reason"].to_pylist() == ["other_split", "rejected_image"]
