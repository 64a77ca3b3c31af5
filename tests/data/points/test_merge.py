from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.points.merge import resolve
from data.points.record import PointRecord, Problem, point_id
from data.tables import POINTS, REJECTED, Split


def record(name: str = "annotation 1", **change: Any) -> PointRecord:
    return PointRecord("clicks.json", name, "a.png", "bolt", 3.5, 4.0, "Ann", "2024-05-01")._replace(**change)


def test_a_point_is_kept_with_its_origin(weak: Split) -> None:
    points, rejected = resolve([record()], weak)
    assert points.schema == POINTS
    assert rejected.schema == REJECTED
    assert rejected.num_rows == 0
    assert points.to_pylist() == [
        {
            "point_id": point_id("clicks.json", "annotation 1"), "image_id": 1, "category_id": 5, "x": 3.5,
            "y": 4.0, "annotator": "Ann", "labelled_at": "2024-05-01", "source_file": "clicks.json",
            "source_record": "annotation 1", "further": None,
        }
    ]  # fmt: skip


def test_each_axis_has_its_own_scale(weak: Split) -> None:
    """Of a click on a copy of 20 x 48 pixels of an image of 40 x 24."""
    points, rejected = resolve([record(x=3.5, y=8.5, size=(20, 48))], weak, scale=(2.0, 0.5))
    assert rejected.num_rows == 0
    assert [(row["x"], row["y"]) for row in points.to_pylist()] == [(7.0, 4.25)]


@pytest.mark.parametrize(
    ("change", "reason", "expected"),
    [
        ({"image": 2}, None, ""),
        ({"image": "night/b.png"}, None, ""),
        ({"image": "c.png", "x": 2.0}, None, ""),  # only one image has this bare name
        ({"image": "b.png"}, "unknown_image", "one of night/b.png, day/b.png"),  # two have it
        ({"image": "a.pmg"}, "unknown_image", "nearest: a.png"),
        ({"image": 77}, "unknown_image", "a known image"),
        ({"image": None}, "unknown_image", "a known image"),
        ({"category": 9}, None, ""),
        ({"category": 6}, "unknown_category", "bolt, washer"),
        ({"category": "whasher"}, "unknown_category", "nearest: washer"),
        ({"category": None}, "unknown_category", "bolt, washer"),
        ({"x": 0.0, "y": 0.0}, None, ""),
        ({"x": 39.99, "y": 23.99}, None, ""),
        ({"x": 40.0}, "outside_image", "0 <= x < 40"),
        ({"x": 39.999999999}, "outside_image", "0 <= x < 40"),  # 40 as float32
        ({"y": 24.0}, "outside_image", "0 <= y < 24"),
        ({"y": -0.01}, "outside_image", "0 <= y < 24"),
        ({"x": 1e300}, "outside_image", "0 <= x < 40"),
        ({"image": 4, "x": 9.0}, "outside_image", "0 <= x < 8"),
        (
            {"x": None, "problem": Problem("bad_point", "point [1]", "two numbers")},
            "bad_point",
            "two numbers",
        ),
    ],
)
def test_each_record_is_kept_or_rejected_with_its_reason(
    weak: Split, change: dict[str, Any], reason: str | None, expected: str
) -> None:
    points, rejected = resolve([record(**change)], weak)
    assert (points.num_rows, rejected.num_rows) == ((1, 0) if reason is None else (0, 1))
    if reason is not None:
        (row,) = rejected.to_pylist()
        assert (row["file"], row["record"], row["reason"]) == ("clicks.json", "annotation 1", reason)
        assert expected in row["expected"]
        assert (row["annotator"], row["labelled_at"]) == ("Ann", "2024-05-01")


def test_duplicates_keep_the_first_and_name_it(weak: Split) -> None:
    rows = [
        record("annotation 1"),
        record("annotation 2"),  # the same place, image and class
        record("annotation 1", x=9.0),  # another record of the same name
        record("annotation 3", category="washer"),
        record("annotation 4", image=2),
    ]
    points, rejected = resolve(rows, weak)
    assert sorted(points["source_record"].to_pylist()) == ["annotation 1", "annotation 3", "annotation 4"]
    assert [(r["record"], r["reason"]) for r in rejected.to_pylist()] == [
        ("annotation 2", "duplicate_point"),
        ("annotation 1", "duplicate_record"),
    ]
    assert "clicks.json: annotation 1" in rejected["found"][0].as_py()


def test_a_second_click_in_a_pixel_is_a_duplicate_but_for_another_class(weak: Split) -> None:
    rows = [
        record("first", x=7.2, y=3.2),
        record("double click", x=7.9, y=3.0),
        record("next pixel", x=8.0, y=3.2),
        record("other class", x=7.2, y=3.2, category="washer"),
    ]
    points, rejected = resolve(rows, weak)
    assert sorted(points["source_record"].to_pylist()) == ["first", "next pixel", "other class"]
    assert [(r["record"], r["reason"]) for r in rejected.to_pylist()] == [("double click", "duplicate_point")]
    assert "the pixel of clicks.json: first, at (7.2, 3.2)" in rejected["found"][0].as_py()


def test_point_ids_are_stable_and_tell_file_and_record_apart() -> None:
    assert point_id("clicks.json", "annotation 1") == "29d22232ca1d9d34"
    ids = {point_id(*parts) for parts in [("a", "b"), ("ab", ""), ("", "ab"), ("a", "b2")]}
    assert len(ids) == 4


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.builds(
            record,
            name=st.sampled_from([f"annotation {n}" for n in range(6)]),
            image=st.sampled_from(["a.png", "c.png", "b.png", 1, 99, None]),
            category=st.sampled_from(["bolt", "bold", 9, None]),
            x=st.sampled_from([-1.0, 0.0, 3.5, 39.5, 40.0]),
        ),
        max_size=12,
    )
)
def test_every_record_ends_in_exactly_one_table(weak: Split, records: list[PointRecord]) -> None:
    points, rejected = resolve(records, weak)
    assert points.num_rows + rejected.num_rows == len(records)
    assert sorted(points["source_record"].to_pylist() + rejected["record"].to_pylist()) == sorted(
        r.source_record for r in records
    )
    ids = points["point_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    order = list(zip(points["image_id"].to_pylist(), ids, strict=True))
    assert order == sorted(order)


def test_records_annotated_at_another_size_are_rejected(weak: Split) -> None:
    points, rejected = resolve([record(size=(40, 24)), record("x", size=(80, 48))], weak)
    assert (len(points), rejected["reason"].to_pylist()) == (1, ["other_size"])
    assert (rejected["found"][0].as_py(), rejected["expected"][0].as_py()) == (
        "an image annotated at 80 x 48", "40 x 24, the image's size",
    )  # fmt: skip


def test_ids_of_units_do_not_depend_on_the_file(weak: Split) -> None:
    here = record(unit="studio 1", key="r1")
    there = record(unit="studio 1", key="r1", source_file="b.json", source_record="elsewhere")
    assert here.point_id == there.point_id == point_id("studio 1", "r1")
    points, rejected = resolve([here, there], weak, holders={"studio 1": "b.json"})
    assert points["source_file"].to_pylist() == ["b.json"]
    assert rejected["reason"].to_pylist() == ["superseded"]


def test_a_hundred_thousand_points_take_seconds(weak: Split) -> None:
    rng = np.random.default_rng(0)
    names = ["a.png", "night/b.png", "day/b.png"]
    records = [
        record(f"r{n}", image=names[n % 3], x=x, y=y, annotator=f"a{n % 2}")
        for n, (x, y) in enumerate(rng.uniform((0, 0), (40, 24), (100_000, 2)).tolist())
    ]
    started = time.process_time()
    points, rejected = resolve(records, weak, radius=0.3)
    assert len(points) + len(rejected) == 100_000
    assert time.process_time() - started < 20  # 2 s on a quiet core; a quadratic search would take hours
