from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from data.points import Options, PointRecord
from tests.data.points.conftest import Read


def region(cx: Any, cy: Any, name: str = "point", **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": name, "cx": cx, "cy": cy}, "region_attributes": attributes}


def entries(*regions: dict[str, Any]) -> dict[str, Any]:
    return {"a.png12": {"filename": "a.png", "size": 12, "regions": list(regions), "file_attributes": {}}}


def points(found: list[Any]) -> list[PointRecord]:
    assert all(isinstance(item, PointRecord) for item in found)
    return found


@pytest.mark.parametrize("whole", [True, False])
def test_projects_and_annotations(read: Read, whole: bool) -> None:
    content = entries(region(3, 4, kind="bolt"), region(5, 6, name="rect", kind="bolt"))
    found = points(read("via", {"_via_img_metadata": content, "_via_settings": {}} if whole else content))
    first = found[0]
    assert (first.image, first.category, first.x, first.y) == ("a.png", "bolt", 3.5, 4.5)
    assert [r.problem and r.problem.reason for r in found] == [None, "not_a_point"]


def test_fractions_anywhere_mean_that_no_place_is_moved(read: Read) -> None:
    found = points(read("via", entries(region(3, 4, kind="bolt"), region(5.25, 6, kind="bolt"))))
    assert [(r.x, r.y) for r in found] == [(3.0, 4.0), (5.25, 6.0)]


def test_version_1_numbers_regions_by_keys(read: Read) -> None:
    content = {"a.png12": {"filename": "a.png", "regions": {"0": region(3, 4, name="point", kind="bolt")}}}
    (record,) = points(read("via", content))
    assert (record.source_record, record.x) == ("image a.png region 0", 3.5)


@pytest.mark.parametrize(
    ("attributes", "named", "category", "reason"),
    [
        ({}, None, None, None),
        ({"anything": "bolt"}, None, "bolt", None),
        ({"note": "x", "class": "bolt"}, None, "bolt", None),
        ({"note": "x", "Label": "bolt"}, None, "bolt", None),
        ({"note": "x", "what": "bolt"}, None, None, "bad_point"),
        ({"note": "x", "what": "bolt"}, "what", "bolt", None),
        ({"class": {"bolt": True, "nut": False}}, None, "bolt", None),  # a checkbox
        ({"class": {"bolt": True, "nut": True}}, None, None, "bad_point"),
        ({"class": {}}, None, None, None),
    ],
)
def test_the_attribute_that_is_the_class(
    read: Read, attributes: dict[str, Any], named: str | None, category: str | None, reason: str | None
) -> None:
    options = Options(None if named is None else {"category": named}, "frame_{frame}")
    entry = region(3, 4) | {"region_attributes": attributes}
    (record,) = points(read("via", entries(entry), options=options))
    assert (record.category, record.problem and record.problem.reason) == (category, reason)


def test_csv(read: Read) -> None:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(
        ["#filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes",
         "region_attributes"]
    )  # fmt: skip
    for n, entry in enumerate([region(3, 4, kind="bolt"), region(5, 6, name="circle", kind="bolt")]):
        shape, attributes = (json.dumps(entry[key]) for key in ("shape_attributes", "region_attributes"))
        rows.writerow(["a.png", 12, "{}", 2, n, shape, attributes])
    rows.writerow(["b.png", 12, "{}", 0, 0, "{}", "{}"])  # an image without regions
    found = points(read("via_csv", text.getvalue()))
    assert [(r.source_record, r.image, r.category, r.x) for r in found] == [
        ("line 2", "a.png", "bolt", 3.5), ("line 3", "a.png", "bolt", None),
    ]  # fmt: skip
    assert found[1].problem is not None and found[1].problem.reason == "not_a_point"


def test_version_3(read: Read) -> None:
    document = {
        "project": {"pid": "p"},
        "attribute": {
            "1": {"aname": "class", "options": {"0": "bolt"}},
            "2": {"aname": "note", "options": {}},
        },
        "file": {"9": {"fid": 9, "fname": "a.png"}},
        "view": {"1": {"fid_list": [9]}, "2": {"fid_list": []}},
        "metadata": {
            "1_x": {"vid": "1", "xy": [1, 3, 4], "av": {"1": "0", "2": "dark"}},
            "1_y": {"vid": "1", "xy": [2, 3, 4, 5, 6], "av": {"1": "0"}},
            "2_z": {"vid": "2", "xy": [1, 5, 6], "av": {}},
        },
    }
    found = points(read("via3", document))
    assert [(r.source_record, r.image, r.category, r.x, r.problem and r.problem.reason) for r in found] == [
        ("region 1_x", "a.png", "bolt", 3.5, None),
        ("region 1_y", "a.png", "bolt", None, "not_a_point"),
        ("region 2_z", None, None, 5.5, None),
    ]
