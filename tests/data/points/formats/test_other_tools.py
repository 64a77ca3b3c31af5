"""QuPath, DotDotGoose, Zooniverse, napari: files as these tools write them; counts and coordinates by hand."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from data.errors import DataError
from data.points import Options, PointRecord
from data.points.merge import resolve
from data.points.record import Unit
from data.tables import Split
from tests.data.points.conftest import Read
from tests.data.points.formats.test_tables import parquet


def places(found: list[Any]) -> list[tuple[Any, ...]]:
    return [(r.image, r.category, r.x, r.y) for r in found if isinstance(r, PointRecord) and not r.problem]


def problems(found: list[Any]) -> list[tuple[str, str]]:
    return [(r.problem.reason, r.source_record) for r in found if isinstance(r, PointRecord) and r.problem]


def feature(kind: str, coordinates: Any, own: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature", "id": own, "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation", **properties},
    }  # fmt: skip


TUMOUR = {"classification": {"name": "bolt", "color": [200, 0, 0]}}
QUPATH = [
    feature("MultiPoint", [[3.27, 4.0], [10, 20]], "id-1", **TUMOUR),
    feature("Point", [5, 6], "id-2", classification={"names": ["washer", "Positive"], "color": [0, 0, 1]}),
    feature("Point", [7.5, 8.25], "id-3", name="washer"),
    feature("Polygon", [[[0, 0], [9, 0], [9, 9], [0, 0]]], "id-4", **TUMOUR),
]


@pytest.mark.parametrize("document", [{"type": "FeatureCollection", "features": QUPATH}, QUPATH])
def test_qupath_s_points(read: Read, document: Any) -> None:
    """From the image's outer corner, whole or not."""
    found = read("geojson", document, "night/c.geojson")
    assert places(found) == [
        ("night/c", "bolt", 3.27, 4.0), ("night/c", "bolt", 10.0, 20.0), ("night/c", "washer: Positive", 5.0, 6.0),
        ("night/c", "washer", 7.5, 8.25),
    ]  # fmt: skip
    assert [r.choices for r in found if isinstance(r, PointRecord)][3] == ("washer",)
    assert problems(found) == [("not_a_point", "feature id-4")]
    assert read("geojson", QUPATH[1], "a.png.geojson")[0].image == "a.png"  # type: ignore[union-attr]


def test_faulty_features(read: Read) -> None:
    rows = [
        QUPATH[0],
        feature("Point", [1], "a"),
        feature("MultiPoint", [[1, "2"], None], "b"),
        feature("Point", None, "c"),
        {"type": "Feature", "geometry": None},
        "x",
        feature("GeometryCollection", None, "d"),
    ]
    assert problems(read("geojson", rows)) == [
        ("bad_point", "feature a"), ("bad_point", "feature b, point 0"), ("bad_point", "feature b, point 1"),
        ("bad_point", "feature c"), ("bad_record", "feature #4"), ("bad_record", "feature #5"),
        ("not_a_point", "feature d"),
    ]  # fmt: skip


def goose(**points: Any) -> dict[str, Any]:
    """As the tool's canvas packages its points."""
    return {
        "classes": ["bolt", "washer"], "points": points, "colors": {"bolt": [0, 0, 0], "washer": [9, 9, 9]},
        "metadata": {"survey_id": "s", "coordinates": {}}, "custom_fields": {"fields": [], "data": {}},
    }  # fmt: skip


def test_dotdotgoose_s_points(read: Read) -> None:
    images = {
        "a.png": {"bolt": [{"x": 3.0, "y": 4.0}, {"x": 5, "y": 6}]},
        "b.png": {"washer": [], "bolt": []},
    }
    assert places(read("dotdotgoose", goose(**images), "survey.pnt")) == [
        ("a.png", "bolt", 3.5, 4.5), ("a.png", "bolt", 5.5, 6.5),
    ]  # fmt: skip
    images["b.png"]["washer"] = [{"x": 1.25, "y": 2.0}]
    assert places(read("dotdotgoose", goose(**images), "survey.pnt")) == [
        ("a.png", "bolt", 3.0, 4.0), ("a.png", "bolt", 5.0, 6.0), ("b.png", "washer", 1.25, 2.0),
    ]  # fmt: skip
    bad = goose(a={"bolt": [{"x": 1}, 7]}, b=3, c={"bolt": {}})
    assert [reason for reason, _ in problems(read("dotdotgoose", bad))] == ["bad_point"] * 2 + [
        "bad_record"
    ] * 2


COLUMNS = (
    "classification_id", "user_name", "user_id", "user_ip", "workflow_id", "workflow_name", "workflow_version",
    "created_at", "gold_standard", "expert", "metadata", "annotations", "subject_data", "subject_ids",
)  # fmt: skip
"""The header of a classification export."""


def export(*rows: dict[str, Any], **changes: str) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS)
    writer.writeheader()
    for n, row in enumerate(rows, 1):
        sizes = [{"clientWidth": 20, "clientHeight": 12, "naturalWidth": 40, "naturalHeight": 24}]
        cells = {"metadata": {"source": "api", "subject_dimensions": sizes}, **row}
        texts = {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in cells.items()
        }
        base = {
            "classification_id": str(500 + n),
            "user_name": f"ann{n}",
            "created_at": f"2024-02-2{n} 16:17:42 UTC",
        }
        writer.writerow(base | texts | changes)
    return buffer.getvalue()


def drawn(*marks: dict[str, Any], task: str = "T0") -> dict[str, Any]:
    return {"task": task, "task_label": "Mark each", "value": list(marks)}


def mark(x: Any, y: Any, **more: Any) -> dict[str, Any]:
    return {"x": x, "y": y, "tool": 0, "frame": 0, "details": [], "tool_label": "bolt", **more}


SUBJECT = {"96588114": {"retired": None, "Filename": "a.png", "ra": 123.7}}


def test_zooniverse_s_marks(read: Read, weak: Split) -> None:
    question = {"task": "T1", "task_label": "Any?", "value": "Yes"}
    combined = {"task": "T2", "value": [drawn(mark(7.5, 8, tool_label=None, tool=1), task="T3"), question]}
    text = export(
        {"annotations": [drawn(mark(3.25, 4), mark(10, 20.5)), question, combined], "subject_data": SUBJECT},
        {"annotations": [question], "subject_data": SUBJECT},
        {
            "annotations": [drawn(mark(3.5, 4.25))],
            "subject_data": {"1": {"retired": None, "#origin": "b/a.png"}},
        },
    )
    found = read("zooniverse", text, "classifications.csv")
    assert places(found) == [
        ("a.png", "bolt", 3.25, 4.0), ("a.png", "bolt", 10.0, 20.5), ("a.png", "tool 1", 7.5, 8.0),
        ("b/a.png", "bolt", 3.5, 4.25),
    ]  # fmt: skip
    records = [one for one in found if isinstance(one, PointRecord)]
    assert {(r.annotator, r.labelled_at) for r in records} == {
        ("ann1", "2024-02-21 16:17:42+00:00"), ("ann3", "2024-02-23 16:17:42+00:00"),
    }  # fmt: skip
    assert {r.size for r in records} == {(40, 24)}
    assert [u.name for u in found if isinstance(u, Unit)] == [
        "zooniverse 501",
        "zooniverse 502",
        "zooniverse 503",
    ]
    # Two volunteers' marks on one object are one point, the earlier.
    kept, rejected = resolve([records[0], records[3]], weak, radius=2.0)
    assert (len(kept), rejected["reason"].to_pylist()) == (1, ["duplicate_annotator"])


def test_zooniverse_s_newer_classifier_and_frames(read: Read) -> None:
    marks = [
        {"frame": n, "toolIndex": n, "toolType": "point", "x": 3.5, "y": 4.5, "details": []}
        for n in (0, 1, 7)
    ]
    other = {"frame": 0, "toolIndex": 0, "toolType": "line", "x1": 1, "y1": 2, "x2": 3, "y2": 4}
    subject = {"5": {"retired": None, "image1": "a.png", "image2": "b.png", "!note": "x"}}
    text = export({"annotations": [{"task": "T0", "taskType": "drawing", "value": [*marks, other]}],
                   "subject_data": subject, "metadata": {}})  # fmt: skip
    found = read("zooniverse", text)
    assert places(found) == [
        ("a.png", "tool 0", 3.5, 4.5), ("b.png", "tool 1", 3.5, 4.5), ("a.png", "tool 7", 3.5, 4.5),
    ]  # fmt: skip
    assert [reason for reason, _ in problems(found)] == ["not_a_point"]


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ([drawn(mark(1, 2, r=5))], ["not_a_point"]),
        ([drawn({"x": 1, "tool": 0, "frame": 0})], ["not_a_point"]),
        ([drawn(mark(None, 2))], ["bad_point"]),
        ("[{", ["bad_record"]),
        ("{}", ["bad_record"]),
        ('[{"task": 1, "task": 2}]', ["bad_record"]),
        ([{"task": "T0", "value": [None, 3, {"choice": "CAT"}]}, 7], []),
    ],
)
def test_other_marks_and_faulty_cells(read: Read, annotations: Any, expected: list[str]) -> None:
    text = export({"annotations": annotations, "subject_data": SUBJECT})
    assert [reason for reason, _ in problems(read("zooniverse", text))] == expected


def test_cells_of_a_megabyte_of_json(read: Read) -> None:
    marks = [mark(n % 40, n % 24, details=["x" * 100]) for n in range(5000)]
    text = export({"annotations": [drawn(*marks)], "subject_data": SUBJECT})
    assert len(places(read("zooniverse", text))) == 5000


# Written by napari 0.9.2 (napari_builtins.io, its writer of points layers).
NAPARI = "index,axis-0,axis-1,label\n0,3.0,7.0,bolt\n1,12.25,30.5,nut\n2,0.0,-0.25,bolt\n"
NAPARI_WHOLE = "index,axis-0,axis-1\n0.0,3.0,7.0\n1.0,12.0,30.0\n"
NAPARI_3D = "index,axis-0,axis-1,axis-2\n0.0,0.0,3.0,7.0\n1.0,1.0,12.0,30.0\n"


def test_napari_s_points(read: Read) -> None:
    """axis-0 is y; a whole number is a pixel's centre, so that (0, -0.25) is in the first pixel."""
    assert places(read("csv", NAPARI, "night/c.csv")) == [
        ("night/c", "bolt", 7.5, 3.5), ("night/c", "nut", 31.0, 12.75), ("night/c", "bolt", 0.25, 0.5),
    ]  # fmt: skip
    named = Options({"x": "col", "y": "row", "image": "file", "category": "what"}, "")  # of another table
    assert places(read("csv", NAPARI_WHOLE, "a.csv", named)) == [
        ("a", None, 7.5, 3.5),
        ("a", None, 30.5, 12.5),
    ]
    columns = {"axis-0": [3.25, 4.0], "axis-1": [7.0, 8.0]}
    assert places(read("parquet", parquet(**columns), "a.parquet")) == [
        ("a", None, 7.5, 3.75),
        ("a", None, 8.5, 4.5),
    ]


def test_a_layer_of_three_axes_needs_names(read: Read) -> None:
    with pytest.raises(
        DataError, match=r"a points layer of 3 axes; expected two axes: axis-0 is y, axis-1 is x"
    ):
        read("csv", NAPARI_3D)
    named = Options({"x": "axis-2", "y": "axis-1"}, "")
    assert places(read("csv", NAPARI_3D, "a.csv", named)) == [("a", None, 7.5, 3.5), ("a", None, 30.5, 12.5)]


def test_a_table_with_a_column_named_for_the_image_has_no_class_in_it(read: Read) -> None:
    named = Options({"image": "label"}, "")
    assert places(read("csv", "label,x,y\na.png,1.5,2\n", "r.csv", named)) == [("a.png", None, 1.5, 2.0)]


def test_usual_names_hold_in_each_table_of_a_folder(read: Read) -> None:
    """points.columns names those of one table; each other one has usual names."""
    named = Options({"x": "col", "y": "row", "image": "Bild", "category": "Typ"}, "")
    for header in (
        "Bild,col,row,Typ",
        "image,x,y,class",
        "file_name,point_x,point_y,label",
        "Bild,x,row,category",
    ):
        assert places(read("csv", f"{header}\na.png,1.5,2,bolt\n", "t.csv", named)) == [
            ("a.png", "bolt", 1.5, 2.0)
        ]
