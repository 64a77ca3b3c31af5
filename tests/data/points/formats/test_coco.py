from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from data.points import SNIFFED, PointFile, PointRecord
from data.points.formats.coco import read, sniff

HEAD = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b/c.png"}],
    "categories": [{"id": 4, "name": "cell"}],
}


def records(tmp_path: Path, *annotations: Any, **head: Any) -> list[PointRecord]:
    path = tmp_path / "clicks.json"
    path.write_text(json.dumps(HEAD | head | {"annotations": list(annotations)}))
    return list(read(PointFile(path), SNIFFED))


def test_points_with_all_their_fields(tmp_path: Path) -> None:
    row = {
        "id": 31, "image_id": 2, "category_id": 4, "point": [3, 4.25], "annotator": "Ann",
        "labelled_at": "2024-05-01T10:00:00Z",
    }  # fmt: skip
    assert records(tmp_path, row) == [
        PointRecord("clicks.json", "annotation 31", "b/c.png", "cell", 3.0, 4.25, "Ann", row["labelled_at"])
    ]


def test_images_and_classes_may_be_named_directly(tmp_path: Path) -> None:
    row = {"file_name": "x.png", "category": "rod", "point": [1, 2]}
    (record,) = records(tmp_path, row)
    assert (record.image, record.category, record.source_record) == ("x.png", "rod", "annotation #0")


def test_ids_that_the_file_does_not_list_stay_ids(tmp_path: Path) -> None:
    (record,) = records(tmp_path, {"id": 1, "image_id": 2, "category_id": 9, "point": [1, 2]}, images=[])
    assert (record.image, record.category) == (2, 9)


@pytest.mark.parametrize(
    ("listed", "given", "expected"),
    [
        ("x1", "x1", ("a.png",)),
        ("7", "7", ("a.png",)),
        ("7", 7, ("a.png",)),
        (7, "7", ("a.png",)),
        (7, "8", (8, "8")),  # the data set's own, or a name
        (7, "b.png", ("b.png",)),
    ],
)
def test_ids_may_be_texts(tmp_path: Path, listed: Any, given: Any, expected: tuple[Any, ...]) -> None:
    image = {"id": listed, "file_name": "a.png", "width": 40, "height": 24}
    row = {"id": 1, "image_id": given, "category_id": "c", "point": [1, 2]}
    (record,) = records(tmp_path, row, images=[image], categories=[{"id": "c", "name": "cell"}])
    assert ((record.image, *record.also), record.category) == (expected, "cell")
    assert record.size == ((40, 24) if expected == ("a.png",) else None)


@pytest.mark.parametrize(
    ("keypoints", "expected"),
    [
        ([[7, 8, 2]], [(7.5, 8.5)]),  # whole numbers are pixel indices: the pixel's centre
        ([[0, 0, 0, 7, 8, 1, 3, 3, 0]], [(7.5, 8.5)]),
        ([[7.0, 8.0, 2], [1, 2, 2]], [(7.5, 8.5), (1.5, 2.5)]),
        ([[7.25, 8, 2], [1, 2, 2]], [(7.25, 8.0), (1.0, 2.0)]),  # the file's keypoints aren't indices
    ],
)
def test_one_visible_keypoint_is_a_point(tmp_path: Path, keypoints: list[Any], expected: list[Any]) -> None:
    rows = [
        {"id": n, "image_id": 1, "category_id": 4, "keypoints": value} for n, value in enumerate(keypoints)
    ]
    assert [(r.x, r.y) for r in records(tmp_path, *rows)] == expected


@pytest.mark.parametrize(
    ("row", "reason", "found"),
    [
        ([1, 2], "bad_record", "list"),
        ({"point": [1]}, "bad_point", "point [1]"),
        ({"point": [1, "2"]}, "bad_point", "point [1, '2']"),
        ({"point": [1, True]}, "bad_point", "point [1, True]"),
        ({"point": {"x": 1, "y": 2}}, "bad_point", "point {"),
        ({"point": [1, float("nan")]}, "bad_point", "nan"),
        ({"keypoints": [1, 2, 2, 3, 4, 2]}, "bad_point", "2 visible keypoints"),
        ({"keypoints": [1, 2, 0]}, "bad_point", "0 visible keypoints"),
        ({"keypoints": [1, 2]}, "bad_point", "keypoints [1, 2]"),
        ({"keypoints": "1 2 2"}, "bad_point", "keypoints '1 2 2'"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, "no_point", "segmentation"),
    ],
)
def test_bad_records_are_handed_on_with_their_problem(
    tmp_path: Path, row: Any, reason: str, found: str
) -> None:
    good = {"id": 2, "image_id": 1, "category_id": 4, "point": [1, 2]}
    if isinstance(row, dict):
        row = {"id": 1, "image_id": 1, "category_id": 4} | row
    bad, kept = records(tmp_path, row, good)
    assert bad.problem is not None
    assert bad.problem.reason == reason
    assert found in bad.problem.found
    assert (bad.x, bad.y) == (None, None)
    assert kept.problem is None


@pytest.mark.parametrize(
    ("content", "known"),
    [
        (HEAD | {"annotations": []}, True),
        ({"annotations": [], "categories": []}, True),
        ({"annotations": {}, "images": []}, False),
        ({"annotations": []}, False),
        ([], False),
        ("<annotations/>", False),
    ],
)
def test_files_are_known_by_their_content(tmp_path: Path, content: Any, known: bool) -> None:
    path = tmp_path / "points.dat"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert sniff(PointFile(path), SNIFFED) is known


@pytest.mark.parametrize("content", ["", "{", "[]", '{"annotations": 3}'])
def test_files_at_fault_as_a_whole_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "clicks.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"clicks\.json"):
        list(read(PointFile(path), SNIFFED))
