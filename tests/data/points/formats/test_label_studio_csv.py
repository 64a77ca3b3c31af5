"""Label Studio's CSV and TSV, which its own converter wrote, and its predictions."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from data.points import SNIFFED, PointFile, PointRecord, importer_for
from data.points.folder import read_folder
from data.points.record import Unit
from tests.data.points.conftest import Read

KP = {"x": 25, "y": 50, "width": 1.5, "keypointlabels": ["bolt"], "original_width": 40, "original_height": 24}
NUT = KP | {"x": 75.0, "y": 12.5, "keypointlabels": ["nut"]}
# Written by label-studio-sdk 2.1.2 (converter, CSV) from two tasks: two keypoints and a polygon, and one keypoint.
CSV = (
    '"annotation_id","annotator","created_at","id","image","kp","lead_time","poly","updated_at"\n'
    '11,"a1@example.test","2026-03-01T09:30:00.000000Z",1,"/data/upload/3/0a1b2c3d-a.png","[{""x"":25,""y"":50,'
    '""width"":1.5,""keypointlabels"":[""bolt""],""original_width"":40,""original_height"":24},{""x"":75.0,'
    '""y"":12.5,""width"":1.5,""keypointlabels"":[""nut""],""original_width"":40,""original_height"":24}]",12.5,'
    '"[{""points"":[[10,10],[50,10],[50,50]],""closed"":true,""polygonlabels"":[""bolt""],""original_width"":40,'
    '""original_height"":24}]","2026-03-01T09:31:00.000000Z"\n'
    '12,"a2@example.test","2026-03-01T09:30:00.000000Z",2,"/data/upload/3/1b2c3d4e-b.png","[{""x"":10,""y"":20,'
    '""width"":1.5,""keypointlabels"":[""bolt""],""original_width"":40,""original_height"":24}]",12.5,"",'
    '"2026-03-01T09:32:00.000000Z"\n'
)
# The same tasks as JSON_MIN.
MIN = [
    {"image": "/data/upload/3/0a1b2c3d-a.png", "id": 1, "kp": [KP, NUT], "annotator": "a1@example.test",
     "annotation_id": 11, "created_at": "2026-03-01T09:30:00.000000Z", "updated_at": "2026-03-01T09:31:00.000000Z",
     "lead_time": 12.5},
]  # fmt: skip


def tabs(text: str) -> str:
    """The converter's TSV."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t", lineterminator="\n").writerows(csv.reader(io.StringIO(text)))
    return buffer.getvalue()


@pytest.mark.parametrize("text", [CSV, tabs(CSV), CSV.replace("\n11,", "\n11.0,")])
def test_regions_of_a_table(read: Read, text: str) -> None:
    found = read("label_studio_csv", text, "export.csv")
    records = [one for one in found if isinstance(one, PointRecord)]
    points = [
        (r.also[-1], r.category, r.x, round(r.y or 0, 9), r.annotator) for r in records if not r.problem
    ]
    assert points == [
        ("a.png", "bolt", 10.0, 12.0, "a1@example.test"), ("a.png", "nut", 30.0, 3.0, "a1@example.test"),
        ("b.png", "bolt", 4.0, 4.8, "a2@example.test"),
    ]  # fmt: skip
    assert [r.problem.reason for r in records if r.problem] == ["not_a_point"]
    assert {r.size for r in records if not r.problem} == {(40, 24)}
    units = [one for one in found if isinstance(one, Unit)]
    assert [(u.name, u.version) for u in units] == [
        ("label_studio 1 11 of 2026-03-01T09:30:00.000000Z", "2026-03-01T09:31:00.000000Z"),
        ("label_studio 2 12 of 2026-03-01T09:30:00.000000Z", "2026-03-01T09:32:00.000000Z"),
    ]


def test_the_table_and_json_min_are_exports_of_one_annotation(read: Read) -> None:
    table, document = read("label_studio_csv", CSV, "a.csv"), read("label_studio", MIN, "a.json")
    assert table[0].name == document[0].name  # type: ignore[union-attr]
    ids = [[one.point_id for one in found if isinstance(one, PointRecord)] for found in (table, document)]
    assert ids[0][:2] == ids[1][:2]


def test_faulty_rows(read: Read) -> None:
    head = "annotation_id,annotator,id,image,kp,lead_time\n"
    rows = ['1,a,1,a.png,"[{""x"":1,""x"":2}]",1', "1,a,1", '2,a,2,a.png,"[{""x"":",1']
    found = read("label_studio_csv", head + "\n".join(rows))
    assert [r.problem.reason for r in found if isinstance(r, PointRecord) and r.problem] == ["bad_record"] * 2


def test_a_table_with_coordinates_is_an_ordinary_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("image,x,y,annotator,annotation_id,lead_time\na.png,1.5,2,ann,7,1\n")
    assert importer_for(PointFile(path)).name == "csv"


REGION = {"id": "r", "type": "keypointlabels", "original_width": 40, "original_height": 24,
          "value": {"x": 10, "y": 25, "keypointlabels": ["bolt"]}}  # fmt: skip


def task(number: int, annotations: list[Any] | None, predictions: list[Any] | None) -> dict[str, Any]:
    made: dict[str, Any] = {"id": number, "data": {"image": "a.png"}}
    for name, rows in (("annotations", annotations), ("predictions", predictions)):
        if rows is not None:
            made[name] = [{"id": number, "result": row} for row in rows]
    return made


def test_predictions_are_reported_as_such_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([task(1, None, [[REGION, REGION]]), task(2, [], [[REGION]])]))
    found = read_folder(path, "auto", SNIFFED)
    assert [(r.problem.reason, r.image) for r in found.records if r.problem] == [("prediction", "a.png")] * 3
    (doubt,) = found.doubts
    assert (doubt.file, doubt.found) == ("tasks.json", "3 predictions and no point")
    assert doubt.next_step.startswith("these are predictions, not annotations: submit them")


def test_predictions_beside_annotations_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([task(1, [[REGION]], [[REGION, REGION]]), task(2, [], [[REGION]])]))
    found = read_folder(path, "auto", SNIFFED)
    assert [r.problem.reason if r.problem else (r.x, r.y) for r in found.records] == [
        (4.0, 6.0),
        "prediction",
    ]
    assert not found.doubts
