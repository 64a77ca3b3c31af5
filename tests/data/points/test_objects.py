"""Several clicks of one object, by format, and what contradicts."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.points import Options, PointRecord
from data.points.merge import resolve
from data.points.record import Problem
from data.tables import Split
from tests.data.points.conftest import Read


def clicks(table: pa.Table) -> list[tuple[float, float, list[tuple[float, float, bool]]]]:
    """x, y and further clicks of each row, by x."""
    rows = sorted(table.to_pylist(), key=lambda row: (row["x"], row["y"]))
    return [(r["x"], r["y"], [(c["x"], c["y"], c["inside"]) for c in r["further"] or []]) for r in rows]


def record(n: int, x: float, **change: Any) -> PointRecord:
    return PointRecord("a.csv", f"line {n}", "a.png", "bolt", x, 4.5, key=f"k{n}")._replace(**change)


CSV = """image,class,x,y,object_id,inside
a.png,bolt,9.5,4.5,1,1
a.png,,3.5,4.5,1,0
a.png,bolt,8.5,4.5,1,true
a.png,bolt,20.5,4.5,2,yes
a.png,washer,30.5,4.5,,
"""
EXPECTED = [(9.5, 4.5, [(8.5, 4.5, True), (3.5, 4.5, False)]), (20.5, 4.5, []), (30.5, 4.5, [])]


def test_rows_of_a_table_share_an_object(read: Read, weak: Split) -> None:
    points, rejected = resolve(read("csv", CSV, "a.csv"), weak)
    assert rejected.num_rows == 0
    assert clicks(points) == EXPECTED


def test_columns_of_other_names(read: Read, weak: Split) -> None:
    text = CSV.replace("object_id", "cell").replace("inside", "on")
    named = Options({"object": "cell", "inside": "on"}, "")
    assert clicks(resolve(read("csv", text, "a.csv", named), weak)[0]) == EXPECTED


@pytest.mark.parametrize("header", ["object_id,note", "note,inside", "note,other"])
def test_one_usual_column_alone_is_read_as_before(read: Read, weak: Split, header: str) -> None:
    text = f"image,class,x,y,{header}\na.png,bolt,9.5,4.5,1,1\na.png,bolt,8.5,4.5,1,1\n"
    points, _ = resolve(read("csv", text, "a.csv"), weak)
    assert clicks(points) == [(8.5, 4.5, []), (9.5, 4.5, [])]


def test_one_column_named_in_the_settings_counts(read: Read, weak: Split) -> None:
    text = "image,class,x,y,object_id\na.png,bolt,9.5,4.5,1\na.png,bolt,8.5,4.5,1\n"
    records = read("csv", text, "a.csv", Options({"object": "object_id"}, ""))
    assert clicks(resolve(records, weak)[0]) == [(9.5, 4.5, [(8.5, 4.5, True)])]


def test_whole_coordinates_move_to_their_pixels_centres(read: Read, weak: Split) -> None:
    text = "image,class,x,y,object_id,inside\na.png,bolt,9,4,1,1\na.png,bolt,3,4,1,0\n"
    assert clicks(resolve(read("csv", text, "a.csv"), weak)[0]) == [(9.5, 4.5, [(3.5, 4.5, False)])]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ({"point": [9.5, 4.5]}, [(9.5, 4.5, [])]),
        ({"point_coords": [[9.5, 4.5]]}, [(9.5, 4.5, [])]),
        ({"point_coords": [[9.5, 4.5], [8, 4.5]]}, [(9.5, 4.5, [(8, 4.5, True)])]),
        (
            {"point_coords": [[3, 4], [9.5, 4.5], [8, 4.5]], "point_labels": [0, 1, 1]},
            [(9.5, 4.5, [(8, 4.5, True), (3, 4, False)])],
        ),
    ],
)
def test_coco(read: Read, weak: Split, annotation: dict[str, Any], expected: Any) -> None:
    row = {"id": 31, "image_id": 1, "category_id": 5, **annotation}
    points, rejected = resolve(read("coco", {"images": [], "annotations": [row]}, "a.json"), weak)
    assert (clicks(points), rejected.num_rows) == (expected, 0)
    assert points["source_record"].to_pylist() == ["annotation 31"]


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        ({"point_coords": [[1, 2]], "point": [1, 2]}, "point_coords [[1, 2]] and point"),
        ({"point_coords": []}, "point_coords []"),
        ({"point_coords": [1, 2]}, "point_coords 1"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 0]}, "point_labels [1, 0]"),
        ({"point_coords": [[1, 2]], "point_labels": [2]}, "point_labels [2]"),
        ({"point_coords": [[1, "2"]]}, "point_coords [1, '2']"),
    ],
)
def test_coco_s_faults(read: Read, weak: Split, annotation: dict[str, Any], found: str) -> None:
    row = {"id": 31, "image_id": 1, "category_id": 5, **annotation}
    points, rejected = resolve(read("coco", {"images": [], "annotations": [row]}, "a.json"), weak)
    assert points.num_rows == 0
    first = rejected.to_pylist()[0]
    assert (first["reason"], first["found"], first["record"]) == ("bad_point", found, "annotation 31")


def cvat(*shapes: str) -> str:
    image = '<image id="0" name="a.png" width="40" height="24">'
    return f"<annotations><meta/>{image}{''.join(shapes)}</image></annotations>"


def shape(points: str, inside: str | None = None, group: str = "", name: str = "inside") -> str:
    group = f' group_id="{group}"' if group else ""
    tick = "" if inside is None else f'<attribute name="{name}">{inside}</attribute>'
    return f'<points label="bolt" points="{points}"{group}>{tick}</points>'


TWO = "9.5,4.5;8.5,4.5"


@pytest.mark.parametrize(
    ("shapes", "columns", "expected"),
    [
        ([shape(TWO)], None, [(8.5, 4.5, []), (9.5, 4.5, [])]),  # as before
        ([shape(TWO, group="1")], None, [(8.5, 4.5, []), (9.5, 4.5, [])]),
        ([shape(TWO, "up")], None, [(8.5, 4.5, []), (9.5, 4.5, [])]),  # an attribute of another meaning
        ([shape(TWO, "true")], None, [(9.5, 4.5, [(8.5, 4.5, True)])]),
        (
            [shape(TWO, "true", "3"), shape("1.5,4.5;2.5,4.5", "false", "3")],
            None,
            [(9.5, 4.5, [(8.5, 4.5, True), (1.5, 4.5, False), (2.5, 4.5, False)])],
        ),
        (
            [shape("9.5,4.5", "true", "3"), shape("1.5,4.5", "true"), shape("2.5,4.5", "true", "0")],
            None,
            [(1.5, 4.5, []), (2.5, 4.5, []), (9.5, 4.5, [])],
        ),
        ([shape(TWO, "true", name="on")], {"inside": "on"}, [(9.5, 4.5, [(8.5, 4.5, True)])]),
    ],
)
def test_cvat(
    read: Read, weak: Split, shapes: list[str], columns: dict[str, str] | None, expected: Any
) -> None:
    records = read("cvat", cvat(*shapes), "a.xml", Options(columns, "frame_{frame}"))
    points, rejected = resolve(records, weak)
    assert (clicks(points), rejected.num_rows) == (expected, 0)


def test_cvat_s_tracks(read: Read, weak: Split) -> None:
    points = '<points frame="0" outside="0" points="9.5,4.5;8.5,4.5"><attribute name="inside">{}</attribute></points>'
    tracks = [
        f'<track id="{n}" label="bolt" group_id="2">{points.format(tick)}</track>'
        for n, tick in enumerate(["true", "false"])
    ]
    tracks[1] = tracks[1].replace("9.5,", "1.5,").replace("8.5,", "2.5,")
    document = f"<annotations><meta/>{''.join(tracks)}</annotations>"
    records = read("cvat", document, "a.xml", Options(None, "a.png"))
    expected = [(9.5, 4.5, [(8.5, 4.5, True), (1.5, 4.5, False), (2.5, 4.5, False)])]
    assert clicks(resolve(records, weak)[0]) == expected


def keypoint(own: str, x: float, label: str | None = "bolt", **more: Any) -> dict[str, Any]:
    value: dict[str, Any] = {"x": 100 * x / 40, "y": 100 * 4.5 / 24, "width": 0.2}
    if label is not None:
        value["keypointlabels"] = [label]
    sides = {"original_width": 40, "original_height": 24}
    return {"id": own, "type": "keypointlabels", "value": value, **sides, **more}


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ([keypoint("a", 9.5), keypoint("b", 8.5)], [(8.5, []), (9.5, [])]),
        ([keypoint("a", 9.5), keypoint("b", 8.5, parentID="a")], [(9.5, [(8.5, True)])]),
        ([keypoint("b", 8.5, None, parentID="a"), keypoint("a", 9.5)], [(8.5, [(9.5, True)])]),
        # Parts of a body below one another stay objects of their own, and so do the points in a box.
        ([keypoint("a", 9.5), keypoint("b", 8.5, "washer", parentID="a")], [(8.5, []), (9.5, [])]),
        ([keypoint("a", 9.5, parentID="box"), keypoint("b", 8.5, parentID="box")], [(8.5, []), (9.5, [])]),
        (
            [keypoint("a", 9.5), keypoint("b", 8.5, parentID="a"), keypoint("c", 3.5, parentID="b", is_positive=False)],
            [(9.5, [(8.5, True), (3.5, False)])],
        ),
        ([keypoint("a", 9.5, parentID="b"), keypoint("b", 8.5, parentID="a")], [(9.5, [(8.5, True)])]),
    ],
)  # fmt: skip
def test_label_studio(read: Read, weak: Split, regions: list[dict[str, Any]], expected: Any) -> None:
    task = {"id": 1, "data": {"image": "/data/a.png"}, "annotations": [{"id": 2, "result": regions}]}
    points, rejected = resolve([r for r in read("label_studio", [task]) if isinstance(r, PointRecord)], weak)
    assert rejected.num_rows == 0
    found = [(x, [(a, inside) for a, _, inside in further]) for x, _, further in clicks(points)]
    assert found == expected


def labelme(x: float, group: Any = None, **flags: bool) -> dict[str, Any]:
    return {"label": "bolt", "points": [[x, 4.5]], "shape_type": "point", "group_id": group, "flags": flags}


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([labelme(9.5), labelme(8.5)], [(8.5, []), (9.5, [])]),
        ([labelme(9.5, 0), labelme(8.5, 0)], [(9.5, [(8.5, True)])]),
        ([labelme(9.5, 1), labelme(8.5, 2)], [(8.5, []), (9.5, [])]),
        ([labelme(3.5, 1, outside=True), labelme(8.5, 1, outside=False)], [(8.5, [(3.5, False)])]),
        ([{**labelme(3.5, 1), "label": "washer"}, labelme(8.5, 1)], [(3.5, []), (8.5, [])]),
    ],
)
def test_labelme(read: Read, weak: Split, shapes: list[dict[str, Any]], expected: Any) -> None:
    points, rejected = resolve(read("labelme", {"imagePath": "a.png", "shapes": shapes}, "a.json"), weak)
    assert rejected.num_rows == 0
    assert [(x, [(a, inside) for a, _, inside in f]) for x, _, f in clicks(points)] == expected


@pytest.mark.parametrize(
    ("records", "reasons", "found"),
    [
        ([record(1, 3.5, inside=False)], ["no_click_inside"], "a click outside an object that isn't named"),
        ([record(1, 3.5, object="7", inside=False)], ["no_click_inside"], "object '7', clicks outside it"),
        (
            [record(1, 99.0, object="7"), record(2, 3.5, object="7", inside=False)],
            ["outside_image", "no_click_inside"],
            "point (99.0, 4.5)",
        ),
        (  # what needs no correction takes all clicks of the object with it
            [
                record(1, 3.5, object="7", problem=Problem("cancelled", "a", "b")),
                record(2, 4.5, object="7", inside=False),
            ],
            ["cancelled", "cancelled"],
            "a",
        ),
        (
            [record(1, 3.5, object="7"), record(2, 4.5, object="7", image="night/b.png")],
            ["bad_object", "bad_object"],
            "object '7' with clicks on 2 images: 'a.png' (1), 'night/b.png' (1)",
        ),
        (
            [record(1, 3.5, object="7"), record(2, 4.5, object="7", category="washer", inside=False)],
            ["bad_object", "bad_object"],
            "object '7' with clicks on 2 classes: 'bolt' (1), 'washer' (1)",
        ),
        (
            [record(1, 3.5, object="7"), record(2, 3.75, object="7", inside=False)],
            ["bad_object"],
            "the pixel of line 1, of the same object, which is inside it",
        ),
        ([record(1, 3.5, object="7"), record(2, 3.75, object="7")], ["duplicate_point"], "the pixel of line 1"),
        (
            [record(1, 3.5), record(2, 4.5, object="7"), record(3, 3.75, object="7")],
            ["duplicate_point"],
            "the pixel of a.csv: line 1, of another object",
        ),
        (
            [record(1, 3.5, object="7"), record(2, 99.0, object="7", inside=False)],
            ["outside_image"],
            "point (99.0, 4.5)",
        ),
    ],
)  # fmt: skip
def test_contradictions(weak: Split, records: list[PointRecord], reasons: list[str], found: str) -> None:
    points, rejected = resolve(records, weak)
    assert rejected["reason"].to_pylist() == reasons
    assert found in rejected["found"][0].as_py()
    kept = {row["x"] for row in points.to_pylist()} | {c[0] for row in clicks(points) for c in row[2]}
    assert kept == {r.x for r in records} - set(rejected["x"].to_pylist())


def test_a_click_outside_may_be_on_a_neighbour(weak: Split) -> None:
    records = [
        record(1, 3.5, object="7"), record(2, 9.5, object="7", inside=False),
        record(3, 9.5), record(4, 3.5, object="8", inside=False), record(5, 20.5, object="8"),
    ]  # fmt: skip
    points, rejected = resolve(records, weak)
    assert rejected.num_rows == 0
    assert [(x, len(further)) for x, _, further in clicks(points)] == [(3.5, 1), (9.5, 0), (20.5, 1)]


def test_overlapping_exports_count_once(weak: Split) -> None:
    one = [record(1, 3.5, object="7"), record(2, 9.5, object="7", inside=False), record(3, 4.5, object="7")]
    other = [one_record._replace(source_file="b.csv") for one_record in one]
    points, rejected = resolve([*one, *other], weak)
    assert clicks(points) == [(3.5, 4.5, [(4.5, 4.5, True), (9.5, 4.5, False)])]
    assert rejected["reason"].to_pylist() == ["same_record"] * 3


def test_a_class_left_out_takes_all_clicks_with_it(weak: Split) -> None:
    records = [record(1, 3.5, object="7"), record(2, 9.5, object="7", inside=False, category=None)]
    points, rejected = resolve(records, weak, classes={"bolt": None})
    assert (len(points), rejected["reason"].to_pylist()) == (0, ["ignored_class"] * 2)


def test_clicks_are_scaled(weak: Split) -> None:
    records = [record(1, 3.5, object="7"), record(2, 9.5, object="7", inside=False)]
    points, _ = resolve(records, weak, scale=(2.0, 1.0))
    assert clicks(points) == [(7.0, 4.5, [(19.0, 4.5, False)])]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.builds(
            record,
            st.integers(0, 10**6),
            st.sampled_from([-1.0, 0.5, 3.5, 4.5, 9.5, 39.5, 40.0]),
            y=st.sampled_from([0.5, 4.5]),
            image=st.sampled_from(["a.png", "c.png", None]),
            category=st.sampled_from(["bolt", "washer", None]),
            object=st.sampled_from([None, "1", "2"]),
            inside=st.booleans(),
            source_file=st.sampled_from(["a.csv", "b.csv"]),
        ),
        max_size=14,
    )
)
def test_every_click_is_in_one_table_and_survives_a_round_trip(
    weak: Split, read: Read, records: list[PointRecord]
) -> None:
    points, rejected = resolve(records, weak)
    further = [one for row in clicks(points) for one in row[2]]
    assert points.num_rows + len(further) + rejected.num_rows == len(records)
    for x, y, others in clicks(points):
        pixels = {(int(x), int(y)), *((int(a), int(b)) for a, b, _ in others)}
        assert len(pixels) == 1 + len(others)
        assert others == sorted(others, key=lambda one: (not one[2], *one[:2]))
    if points.num_rows:
        buffer = io.BytesIO()
        pq.write_table(points, buffer)
        again, left_out = resolve(read("parquet", buffer.getvalue(), "points.parquet"), weak)
        assert left_out.num_rows == 0
        names = ["image_id", "category_id", "x", "y", "further"]
        order = [
            ("image_id", "ascending"),
            ("category_id", "ascending"),
            ("x", "ascending"),
            ("y", "ascending"),
        ]
        assert again.sort_by(order).select(names) == points.sort_by(order).select(names)
