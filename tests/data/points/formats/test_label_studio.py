from __future__ import annotations

from typing import Any

import pytest

from data.points import PointRecord
from data.points.lookup import Categories
from data.points.merge import resolve
from data.points.record import Problem, Unit
from data.tables import Split
from tests.data.points.conftest import Read


def keypoint(x: float = 25, y: float = 50, **changes: Any) -> dict[str, Any]:
    own = {
        "id": "r1",
        "type": "keypointlabels",
        "original_width": 40,
        "original_height": 24,
        "to_name": "img",
    }
    return own | {"value": {"x": x, "y": y, "keypointlabels": ["bolt"]}} | changes


def task(*annotations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"id": 3, "project": 1, "data": {"img": "a.png"}, "annotations": list(annotations)} | changes


def points(found: list[PointRecord | Unit]) -> list[PointRecord]:
    return [item for item in found if isinstance(item, PointRecord)]


def test_percents_become_pixels_and_annotators_stay_apart(read: Read) -> None:
    times = {"created_at": "2024-05-01T10:00:00Z", "updated_at": "2024-05-02T10:00:00Z"}
    document = [
        task(
            {"id": 8, "completed_by": {"id": 4, "email": "ann@x"}, "result": [keypoint()], **times},
            {"id": 9, "completed_by": 5, "result": [keypoint(26)], **times},
        )
    ]
    found = read("label_studio", document)
    assert [(r.x, r.y, r.size, r.category, r.annotator) for r in points(found)] == [
        (10.0, 12.0, (40, 24), "bolt", "ann@x"),
        (10.4, 12.0, (40, 24), "bolt", "5"),
    ]
    units = [item for item in found if isinstance(item, Unit)]
    assert [unit.name for unit in units] == [f"label_studio 1 3 {n} of {times['created_at']}" for n in (8, 9)]
    assert {unit.version for unit in units} == {times["updated_at"]}
    assert len({r.point_id for r in points(found)}) == 2


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_turned_view_changes_no_place(read: Read, rotation: int) -> None:
    (record,) = points(read("label_studio", [task({"id": 1, "result": [keypoint(image_rotation=rotation)]})]))
    assert (record.x, record.y) == (10.0, 12.0)


def test_a_region_is_on_the_image_of_its_number(read: Read) -> None:
    regions = [keypoint(id="r1"), keypoint(id="r2", item_index=1), keypoint(id="r3", item_index=2)]
    document = [task({"id": 1, "result": regions}, data={"img": ["a.png", "b.png"]})]
    found = points(read("label_studio", document))
    assert [record.image for record in found] == ["a.png", "b.png", None]


def test_cancelled_annotations_and_other_regions_are_set_aside(read: Read) -> None:
    box = {"id": "b", "type": "rectanglelabels", "value": {"x": 1, "y": 1, "rectanglelabels": ["bolt"]}}
    relation = {"type": "relation", "from_id": "r1", "to_id": "b"}
    choice = {"id": "c", "type": "choices", "value": {"choices": ["dark"]}}
    document = [
        task(
            {"id": 1, "result": [keypoint(), box, relation, choice]},
            {"id": 2, "was_cancelled": True, "result": [keypoint(id="r2")]},
        )
    ]
    found = points(read("label_studio", document))
    assert [(r.source_record, r.problem and r.problem.reason) for r in found] == [
        ("task 3 annotation 1 result r1", None),
        ("task 3 annotation 1 result b", "not_a_point"),
        ("task 3 annotation 2 result r2", "cancelled"),
    ]


def test_labels_separate_from_a_keypoint(read: Read) -> None:
    plain = keypoint(type="keypoint", value={"x": 25, "y": 50})
    label = keypoint(type="labels", value={"x": 25, "y": 50, "labels": ["washer"]})
    (record,) = points(read("label_studio", [task({"id": 1, "result": [plain, label]})]))
    assert (record.category, record.x) == ("washer", 10.0)


@pytest.mark.parametrize(
    ("results_of_region", "category", "choices"),
    [
        ([("labels", "washer"), ("choices", "bolt")], "washer", ()),  # in either order
        ([("choices", "bolt"), ("labels", "washer")], "washer", ()),
        ([("choices", "blurred")], "blurred", ("blurred",)),
        ([("choices", "blurred"), ("choices", "bolt")], None, ("blurred", "bolt")),
        ([("labels", "bolt"), ("labels", "bolt")], "bolt", ()),
    ],
)
def test_labels_count_before_choices(
    read: Read, results_of_region: list[tuple[str, str]], category: str | None, choices: tuple[str, ...]
) -> None:
    place = {"x": 25, "y": 50}
    results = [keypoint(type="keypoint", value=place)]
    results += [keypoint(type=kind, value=place | {kind: [name]}) for kind, name in results_of_region]
    (record,) = points(read("label_studio", [task({"id": 1, "result": results})]))
    assert (record.category, record.choices, record.problem) == (category, choices, None)


def test_two_labels_of_a_point_are_none(read: Read) -> None:
    results = [keypoint(type="keypoint", value={"x": 25, "y": 50})]
    results += [keypoint(type="labels", value={"labels": [label]}) for label in ("bolt", "washer")]
    (record,) = points(read("label_studio", [task({"id": 1, "result": results})]))
    assert record.problem is not None and record.problem.found == "2 labels: ['bolt', 'washer']"


@pytest.mark.parametrize(
    ("choices", "mapping", "expected"),
    [
        (("bolt",), None, 5),
        (("blurred", "Bolt"), None, 5),
        (("blurred",), {"": "washer"}, 9),  # as a point without a class
        (("blurred",), {"": None}, "ignored_class"),
        (("blurred",), {"blurred": None}, "ignored_class"),
        (("5",), None, "unknown_category"),  # five stars are no id
        (("wahser",), None, "unknown_category"),
        (("bolt", "washer"), None, "bad_point"),
    ],
)
def test_a_choice_is_a_class_if_one_is_called_so(
    weak: Split, choices: tuple[str, ...], mapping: dict[str, str | None] | None, expected: int | str
) -> None:
    found = Categories(weak, mapping).choose(choices)
    assert (found.reason if isinstance(found, Problem) else found) == expected
    if choices == ("wahser",):
        assert isinstance(found, Problem) and "nearest: washer" in found.expected


def test_a_choice_that_is_no_class_harms_no_click_of_the_only_class(read: Read, weak: Split) -> None:
    only = Split(weak.root, weak.images, weak.instances, weak.categories[:1], weak.image_root)
    results = [
        keypoint(type="keypoint", value={"x": 25, "y": 50}),
        keypoint(type="choices", value={"choices": ["dark", "x"]}),
    ]
    kept, rejected = resolve(points(read("label_studio", [task({"id": 1, "result": results})])), only)
    assert (kept["category_id"].to_pylist(), len(rejected)) == ([5], 0)


def test_the_image_among_a_task_s_data(read: Read) -> None:
    annotation = {"id": 1, "result": [keypoint()]}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"img": "a.png", "other": "b.png"}, "a.png"),  # the name of the tag
        ({"note": "hello", "photo_address": "x/b.jpg?q=1"}, "x/b.jpg"),  # the value that looks like an image
        ({"images": ["a.png", "b.png"]}, "a.png"),
    ]
    for data, expected in cases:
        (record,) = points(read("label_studio", [task(annotation, data=data)]))
        assert expected in (record.image, *record.also)


def test_json_min(read: Read) -> None:
    row = {"x": 25, "y": 50, "keypointlabels": ["bolt"], "original_width": 40, "original_height": 24}
    document = [
        {"image": "/data/upload/1/0a1b2c3d-a.png", "id": 3, "kp": [row, row | {"x": 50}], "annotator": 2,
         "annotation_id": 9, "updated_at": "2024-05-02T10:00:00Z"},
    ]  # fmt: skip
    found = points(read("label_studio", document))
    assert [(r.x, r.annotator, r.category) for r in found] == [(10.0, "2", "bolt"), (20.0, "2", "bolt")]
    assert "a.png" in found[0].also


def test_json_min_loses_no_region(read: Read) -> None:
    size = {"original_width": 40, "original_height": 24}
    at = {"x": 25, "y": 50, "width": 0.5} | size
    document = [
        {
            "image": "a.png", "id": 3, "annotator": 2, "annotation_id": 9,
            "box": [at | {"height": 3, "rectanglelabels": ["bolt"]}],
            "area": [{"points": [[1, 2], [3, 4], [5, 6]], "polygonlabels": ["bolt"]} | size],
            "plain": [at, at | {"x": 50}],
            "label": [at | {"labels": ["washer"]}, at | {"x": 75, "labels": ["bolt"]}],
            "points": [at | {"y": 25, "keypointlabels": ["bolt"]}],
            "quality": [{"choices": ["dark", "blurred"]}],  # of the image
        }
    ]  # fmt: skip
    found = points(read("label_studio", document))
    assert [(r.source_record, r.x, r.category, r.problem and r.problem.reason) for r in found] == [
        ("task 3 annotation 9 points #0", 10.0, "bolt", None),
        ("task 3 annotation 9 box #1", None, None, "not_a_point"),
        ("task 3 annotation 9 area #2", None, None, "not_a_point"),
        ("task 3 annotation 9 plain #3", 10.0, "washer", None),  # by <Labels> of the same place
        ("task 3 annotation 9 plain #4", 20.0, None, None),
        ("task 3 annotation 9 label #5", 30.0, "bolt", None),
    ]
    assert len({r.point_id for r in found}) == len(found)


def test_json_min_of_plain_keypoints_alone_is_known(read: Read) -> None:
    row = {"x": 25, "y": 50, "width": 0.5, "original_width": 40, "original_height": 24}
    (record,) = points(read("label_studio", [{"image": "a.png", "id": 3, "kp": [row]}]))
    assert (record.x, record.category, record.problem) == (10.0, None, None)
