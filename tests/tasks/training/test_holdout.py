from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.tables import IMAGES, INSTANCES, Category, Split, write_split
from tasks.common.errors import TaskError
from tasks.training.holdout import classes_by_image, draw_held_out, read_held_out, write_held_out


@pytest.mark.parametrize(
    ("images", "share", "count"),
    [
        (20, 0.1, 2),
        (20, 0.0, 0),
        (20, 0.01, 1),  # one at least
        (20, 0.99, 19),  # never all
        (2, 0.5, 1),
        (1, 0.5, 0),  # the only one stays
        (0, 0.5, 0),
        (25, 0.1, 2),
    ],
)
def test_how_many(images: int, share: float, count: int) -> None:
    assert len(draw_held_out({n: {1} for n in range(images)}, share, seed=0)) == count


CLASSES = st.dictionaries(st.integers(0, 10**9), st.sets(st.integers(1, 6), min_size=1), max_size=30)


@given(CLASSES, st.floats(0, 1, exclude_max=True), st.integers(0, 2**31 - 1))
def test_every_class_keeps_an_image(classes: dict[int, set[int]], share: float, seed: int) -> None:
    taken = draw_held_out(classes, share, seed)
    assert taken == draw_held_out(dict(reversed(classes.items())), share, seed)
    assert len(taken) <= max(1, round(share * len(classes)))
    kept = set().union(*(held for image, held in classes.items() if image not in taken))
    assert kept == set().union(*classes.values())
    if share == 0:
        assert not taken


def test_the_seed_draws() -> None:
    classes = {n: {1} for n in range(100)}
    assert draw_held_out(classes, 0.2, 0) != draw_held_out(classes, 0.2, 1)


def test_more_images_change_few() -> None:
    before = draw_held_out({n: {1} for n in range(1000)}, 0.1, 7)
    after = draw_held_out({n: {1} for n in range(1010)}, 0.1, 7)
    assert len(before & after) >= 95


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_shares_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match="expected 0 <= share < 1"):
        draw_held_out({1: {1}}, share, 0)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Four images: one with two classes, one with a crowd only, one that can't be read, one without masks."""
    images = [(1, "ok"), (2, "ok"), (3, "unreadable"), (4, "ok")]
    blank = dict.fromkeys(IMAGES.names) | {"width": 4, "height": 4}
    rows = [{**blank, "image_id": image_id, "status": status} for image_id, status in images]
    instances = [(1, 1, 5, False), (2, 1, 6, False), (3, 1, 6, True), (4, 2, 5, True), (5, 3, 5, False)]
    empty = dict.fromkeys(INSTANCES.names) | {"rle_counts": b"@0", "bbox_xywh": [0.0] * 4}
    masks = [
        {**empty, "instance_id": n, "image_id": image, "category_id": category, "iscrowd": crowd}
        for n, image, category, crowd in instances
    ]
    tables = pa.Table.from_pylist(rows, schema=IMAGES), pa.Table.from_pylist(masks, schema=INSTANCES)
    write_split(tmp_path / "strong", *tables, [Category(5, "a"), Category(6, "b")], "images")
    return Split.open(tmp_path / "strong")


def test_what_counts_as_a_class_of_an_image(split: Split) -> None:
    assert classes_by_image(split) == {1: {5, 6}}


def test_round_trip(split: Split, tmp_path: Path) -> None:
    write_held_out(tmp_path, frozenset({4, 1}))
    assert read_held_out(tmp_path, split) == {1, 4}


def test_held_out_images_of_other_data(split: Split, tmp_path: Path) -> None:
    write_held_out(tmp_path, frozenset({1, 77, 78}))
    with pytest.raises(TaskError, match=r"\[77, 78\] \(2 in all\) aren't in .*strong"):
        read_held_out(tmp_path, split)


def test_a_teacher_of_an_older_version(split: Split, tmp_path: Path) -> None:
    with pytest.raises(
        TaskError, match=r"held_out\.json: no such file; it is made by `dvc repro train_teacher`"
    ):
        read_held_out(tmp_path, split)
