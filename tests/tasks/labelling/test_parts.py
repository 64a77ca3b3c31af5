from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tasks.labelling.parts as module
from data.tables import IMAGES, INSTANCES, POINTS, Category, Split, write_parquet, write_split
from tasks.common.errors import TaskError
from tasks.labelling.cache import image_keys
from tasks.labelling.parts import PointParts

IDS = [3, 5, 8, 13, 21, 34]


def weak_split(folder: Path) -> Split:
    rows = [(i, f"{i}.png", f"{i}.png", 64, 48, f"{i:064x}", "weak", "point", "ok") for i in IDS]
    columns = dict(zip(IMAGES.names, map(list, zip(*rows, strict=True)), strict=True))
    write_split(
        folder, pa.table(columns, schema=IMAGES), INSTANCES.empty_table(), [Category(1, "a")], str(folder)
    )
    return Split.open(folder)


def write_points(path: Path, counts: list[int], **changed: Any) -> pa.Table:
    """So many points on each image; ids fall, so that within an image they aren't in order."""
    rows = [
        {"point_id": f"{999 - n:016x}", "image_id": image_id, "category_id": 1, "x": float(n), "y": 1.0}
        for image_id, count in zip(IDS, counts, strict=True)
        for n in range(count)
    ]
    table = pa.Table.from_pylist([row | changed for row in rows], schema=POINTS)
    write_parquet(table, path)
    return table


@pytest.mark.parametrize(
    ("counts", "images", "points", "expected"),
    [
        ([0, 0, 0, 0, 0, 0], 2, 9, [0]),
        ([1, 1, 1, 1, 1, 1], 6, 9, [6]),
        ([1, 1, 1, 1, 1, 1], 4, 9, [4, 2]),
        ([1, 0, 1, 0, 1, 0], 2, 9, [2, 1]),
        ([3, 3, 3, 3, 3, 3], 6, 6, [2, 2, 2]),
        ([1, 9, 1, 1, 1, 1], 6, 4, [1, 1, 4]),  # an image of more than a part's points
        ([2, 2, 1, 9, 9, 4], 3, 5, [3, 1, 1, 1]),
    ],
)
def test_where_parts_end(
    tmp_path: Path, counts: list[int], images: int, points: int, expected: list[int]
) -> None:
    weak = weak_split(tmp_path / "weak")
    write_points(tmp_path / "points.parquet", counts)
    parts = PointParts(tmp_path / "points.parquet", weak, images, points)
    assert [parts.images(n) for n in range(len(parts))] == expected
    assert parts.points == sum(counts)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.integers(0, 12), min_size=6, max_size=6),
    images=st.integers(1, 6), points=st.integers(1, 30), at_once=st.integers(1, 20), step=st.integers(1, 3),
)  # fmt: skip
def test_any_part_read_has_its_images_points(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counts: list[int],
    images: int,
    points: int,
    at_once: int,
    step: int,
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", at_once)
    weak = weak_split(tmp_path / "weak")
    table = write_points(tmp_path / "points.parquet", counts)
    parts = PointParts(tmp_path / "points.parquet", weak, images, points)
    seen: dict[int, list[str]] = {}
    for part in parts.read(range(0, len(parts), step)):
        for n, row in enumerate(part.rows.tolist()):
            clicks = part.clicks(n)
            assert clicks.image_id == IDS[row] and clicks.xy[:, 0].tolist() == sorted(clicks.xy[:, 0])
            assert clicks.xy.dtype == np.float32 and clicks.xy.shape == (len(clicks.point_ids), 2)
            seen[clicks.image_id] = clicks.point_ids
    of: dict[int, list[str]] = {}
    for row in table.to_pylist():
        of.setdefault(row["image_id"], []).append(row["point_id"])
    numbers = [n for n in range(len(parts)) for _ in range(parts.images(n))]
    chosen = [i for i, n in zip(of, numbers, strict=True) if n % step == 0]
    assert seen == {i: of[i] for i in chosen}  # by their places; their ids fall


@pytest.mark.parametrize(
    ("changed", "message"), [({"image_id": 4}, r"points on images \[4\]"), ({"image_id": 99}, r"\[99\]")]
)
def test_points_on_no_image_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    weak = weak_split(tmp_path / "weak")
    write_points(tmp_path / "points.parquet", [1] * 6, **changed)
    with pytest.raises(TaskError, match=message):
        PointParts(tmp_path / "points.parquet", weak, 2, 9)


def test_the_order_of_images_is_looked_at_over_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    weak = weak_split(tmp_path / "weak")
    table = write_points(tmp_path / "points.parquet", [2, 2, 0, 0, 0, 0])
    write_parquet(pa.concat_tables([table.slice(2), table.slice(0, 2)]), tmp_path / "points.parquet")
    with pytest.raises(TaskError, match="order of their image_id"):
        PointParts(tmp_path / "points.parquet", weak, 2, 9)


@pytest.mark.parametrize("changed", [{"x": 0.5}, {"y": 2.0}, {"category_id": 2}, {"point_id": "0" * 16}])
def test_keys_change_with_places_and_classes_and_not_with_ids(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    weak = weak_split(tmp_path / "weak")

    def keys() -> list[list[int]]:
        parts = PointParts(tmp_path / "points.parquet", weak, 6, 99)
        found: list[list[int]] = image_keys(next(parts.read([0])), weak).tolist()
        return found

    write_points(tmp_path / "points.parquet", [1] * 6)
    before = keys()
    assert len({tuple(key) for key in before}) == 6
    assert keys() == before
    table = write_points(tmp_path / "points.parquet", [1] * 6)
    rows = table.to_pylist()
    rows[2] |= changed
    write_parquet(pa.Table.from_pylist(rows, schema=POINTS), tmp_path / "points.parquet")
    same = [old == new for old, new in zip(before, keys(), strict=True)]
    assert same == [True, True, "point_id" in changed, True, True, True]
