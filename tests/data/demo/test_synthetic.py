from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.annotations.coco.file import read_coco, to_instances
from data.demo.synthetic import draw_dataset
from data.errors import DataError
from data.images.read import read_image
from data.masks.rle import decode

LOOK: dict[str, Any] = {
    "train_images": 10, "val_images": 3, "strong_share": 0.2, "image_size": 64,
    "classes": ("apple", "banana", "pear", "strawberry"), "objects_min": 1, "objects_max": 4,
    "size_min": 8, "size_max": 40, "overlap": 0.3, "noise": 0.03, "distractors": 3, "seed": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    draw_dataset(root, **LOOK)
    return root


def load(root: Path, name: str) -> Any:
    return json.loads((root / name).read_text())


def test_every_file_is_valid_and_the_splits_share_no_image(drawn: Path) -> None:
    splits = {
        name: read_coco(drawn / f"dataset/annotations/{name}.json")
        for name in ("strong", "weak", "val", "kept_aside")
    }
    counts = {name: len(coco.images) for name, coco in splits.items()}
    assert counts == {"strong": 2, "weak": 8, "val": 3, "kept_aside": 8}
    assert splits["weak"].annotations == []
    assert splits["weak"].images == splits["kept_aside"].images
    ids = [row["id"] for name in ("strong", "weak", "val") for row in splits[name].images]
    assert sorted(ids) == list(range(1, 14))
    for name in ("strong", "val", "kept_aside"):
        table = to_instances(splits[name])
        assert table.num_rows > 0
        assert table.num_rows == len(splits[name].annotations)
    for row in splits["strong"].images:
        assert read_image(drawn / "dataset/images" / row["file_name"]).shape == (64, 64, 3)


def test_each_weak_object_has_one_click_on_it(drawn: Path) -> None:
    objects = {row["id"]: row for row in load(drawn, "dataset/annotations/kept_aside.json")["annotations"]}
    clicks = load(drawn, "points/clicks.json")["annotations"]
    assert sorted(click["id"] for click in clicks) == sorted(objects)
    off_centre = []
    for click in clicks:
        target = objects[click["id"]]
        assert (click["image_id"], click["category_id"]) == (target["image_id"], target["category_id"])
        mask = decode(target["segmentation"]["counts"].encode(), 64, 64)
        x, y = click["point"]
        assert mask[int(y), int(x)]
        rows, columns = np.nonzero(mask)
        off_centre.append(np.hypot(x - columns.mean() - 0.5, y - rows.mean() - 0.5))
    assert np.median(off_centre) > 1.5  # clicks anywhere, not at the centres


def test_the_same_seed_draws_the_same_bytes_and_another_one_does_not(drawn: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "same", **LOOK)
    draw_dataset(tmp_path / "other", **LOOK | {"seed": 6})
    files = sorted(path.relative_to(drawn) for path in drawn.rglob("*") if path.is_file())
    assert len(files) == 13 + 5
    for file in files:
        assert (drawn / file).read_bytes() == (tmp_path / "same" / file).read_bytes(), file
    image = "dataset/images/train_000000.png"
    assert (drawn / image).read_bytes() != (tmp_path / "other" / image).read_bytes()


def test_an_image_depends_on_no_other(drawn: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path, **LOOK | {"train_images": 4, "val_images": 2, "strong_share": 0.5})
    for path in sorted((tmp_path / "dataset/images").iterdir()):
        assert path.read_bytes() == (drawn / "dataset/images" / path.name).read_bytes(), path.name


def test_drawing_again_leaves_nothing_of_the_earlier_set(tmp_path: Path) -> None:
    draw_dataset(tmp_path, **LOOK)
    draw_dataset(tmp_path, **LOOK | {"train_images": 2, "val_images": 1, "strong_share": 0.5})
    assert len(list((tmp_path / "dataset/images").iterdir())) == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"classes": ("apple", "aple")}, ["classes"]),
        ({"classes": ()}, ["classes"]),
        ({"classes": ("apple", "apple")}, ["classes"]),
        ({"strong_share": 0.0}, ["strong_share"]),
        ({"strong_share": 0.99}, ["strong_share"]),
        ({"objects_min": 5, "objects_max": 4}, ["objects_min, objects_max"]),
        ({"size_min": 30, "size_max": 20}, ["size_min, size_max"]),
        ({"noise": 1.5, "overlap": -1, "val_images": 0}, ["val_images", "overlap", "noise"]),
    ],
)
def test_values_out_of_range_are_all_named_and_nothing_is_drawn(
    tmp_path: Path, change: dict[str, Any], named: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        draw_dataset(tmp_path / "demo", **LOOK | change)
    assert [fault.record for fault in caught.value.faults] == named
    assert not (tmp_path / "demo").exists()
