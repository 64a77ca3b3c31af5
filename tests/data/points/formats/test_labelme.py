from __future__ import annotations

from typing import Any

import pytest

from data.points import PointRecord
from tests.data.points.conftest import Read


def document(*shapes: dict[str, Any], path: str | None = "a.png") -> dict[str, Any]:
    return {
        "version": "5.4.1",
        "imagePath": path,
        "imageHeight": 24,
        "imageWidth": 40,
        "shapes": list(shapes),
    }


def point(x: float, y: float, label: str = "bolt") -> dict[str, Any]:
    return {"label": label, "points": [[x, y]], "shape_type": "point", "group_id": None, "flags": {}}


def test_points_and_other_shapes(read: Read) -> None:
    other = {"label": "bolt", "points": [[1, 2], [3, 4]], "shape_type": "rectangle"}
    found = read("labelme", document(point(3, 4.5), other))
    assert isinstance(found[1], PointRecord) and found[1].problem is not None
    assert found[0] == PointRecord(
        "clicks", "shape #0", "a.png", "bolt", 3.0, 4.5, size=(40, 24), key="bolt 3.0,4.5"
    )
    assert found[1].problem.reason == "not_a_point"


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("night/a.json", "a.png", ("night/a.png", "a.png")),  # in the file's folder, then as it is
        ("night/a.json", "..\\images\\a.png", ("images/a.png", "../images/a.png", "a.png")),
        ("a.json", "../../../etc/a.png", ("../../../etc/a.png", "a.png")),
        ("night/a.json", None, ("night/a",)),
    ],
)
def test_the_image_s_names(read: Read, name: str, path: str | None, expected: tuple[str, ...]) -> None:
    (record,) = read("labelme", document(point(1, 2), path=path), name)
    assert isinstance(record, PointRecord)
    assert (record.image, *record.also) == expected
