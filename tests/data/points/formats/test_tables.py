"""CSV and Parquet: columns, delimiters, encodings, types."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import DataError
from data.points import Options, PointRecord
from data.points.columns import FIELDS, USUAL, find_columns
from data.points.merge import resolve
from data.tables import Split
from tests.data.points.conftest import Read


def points(found: list[Any]) -> list[PointRecord]:
    assert all(isinstance(item, PointRecord) for item in found)
    return found


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_encodings_and_line_ends(read: Read, delimiter: str, encoding: str, end: str) -> None:
    rows = [["image", "x", "y", "label"], ["ä, b.png", "1.5", "2", "bolt"]]
    text = end.join(delimiter.join(f'"{cell}"' for cell in row) for row in rows) + end
    (record,) = points(read("csv", text.encode(encoding)))
    assert (record.image, record.x, record.y, record.category) == ("ä, b.png", 1.5, 2.0, "bolt")
    assert record.source_record == "line 2"


def test_decimal_commas_where_the_delimiter_is_none(read: Read) -> None:
    (record,) = points(read("csv", "image;x;y\na.png;1,5;-2,25\n"))
    assert (record.x, record.y) == (1.5, -2.25)


@pytest.mark.parametrize(
    ("header", "named", "expected"),
    [
        ("image,x,y", None, {"image": 0, "x": 1, "y": 2}),
        ("File Name,X,Y,Class", None, {"image": 0, "x": 1, "y": 2, "category": 3}),
        ("y,x,image_id,category_id,id,rater,date", None,
         {"y": 0, "x": 1, "image": 2, "category": 3, "id": 4, "annotator": 5, "labelled_at": 6}),
        ("image_id,image,x,y", None, {"image": 1, "x": 2, "y": 3}),  # the name goes before the id
        ("index,axis-0,axis-1", {"x": "axis-1", "y": "axis-0"}, {"x": 2, "y": 1}),
        ("image,x,y,what", {"category": "what"}, {"image": 0, "x": 1, "y": 2, "category": 3}),
        ("a,b", None, {}),
        # points.columns is one for all files: where a named column isn't there, the usual names count
        ("image,x,y,class", {"x": "col", "y": "row", "category": "what"}, {"image": 0, "x": 1, "y": 2, "category": 3}),
        ("image,x,row", {"x": "col", "y": "row"}, {"image": 0, "x": 1, "y": 2}),
        ("x,y", {"x": "y", "y": "row"}, {"x": 1}),  # y is x's already
    ],
)  # fmt: skip
def test_columns_are_named_or_known(
    header: str, named: dict[str, str] | None, expected: dict[str, int]
) -> None:
    assert find_columns(header.split(","), named) == expected


def test_no_usual_name_stands_for_two_fields() -> None:
    names = [name for field in FIELDS for name in USUAL[field]]
    assert len(names) == len(set(names))


def test_a_named_column_that_is_not_there(read: Read) -> None:
    with pytest.raises(DataError, match=r"header image, x, y; expected a column for category \(what\)"):
        read("csv", "image,x,y\na.png,1,2\n", "a.csv", Options({"category": "what"}, ""))


def test_the_first_message_names_all_that_is_missing(read: Read) -> None:
    with pytest.raises(DataError) as caught:
        read("csv", "Bild;Pos_X [px];Pos_Y [px];Zelltyp\na.png;1,5;2\n", "maria.csv")
    (fault,) = caught.value.faults
    assert "Bild, Pos_X [px], Pos_Y [px], Zelltyp" in fault.found
    for field in ("x (x or", "y (y or", "image (image or", "category (category or"):
        assert f"a column for {field}" in fault.expected
    assert "points.columns" in fault.next_step and "image: " in fault.next_step


def test_a_name_that_is_the_file_s_own_is_reported_as_such(read: Read, weak: Split) -> None:
    named = Options({"x": "Pos_X [px]", "y": "Pos_Y [px]"}, "")
    text = "Bild;Pos_X [px];Pos_Y [px];Zelltyp\na.png;1,5;2;bolt\n"
    _, rejected = resolve(points(read("csv", text, "maria.csv", named)), weak)
    (row,) = rejected.to_pylist()
    assert row["reason"] == "unknown_image"
    assert row["found"] == (
        "image 'maria', the file's own name: no column of its header (Bild, Pos_X [px], Pos_Y [px], Zelltyp) "
        "is known for image or category"
    )
    assert row["expected"].endswith("; or a column for it, named in points.columns")
    _, rejected = resolve(points(read("csv", text, "a.csv", named)), weak)
    (row,) = rejected.to_pylist()
    assert row["reason"] == "unknown_category" and "no category: no column of its header" in row["found"]


def test_whole_coordinates_are_pixel_indices(read: Read) -> None:
    text = "image,x,y\na.png,3,4\na.png,5,6{}\n"
    assert [(r.x, r.y) for r in points(read("csv", text.format("")))] == [(3.5, 4.5), (5.5, 6.5)]
    assert [(r.x, r.y) for r in points(read("csv", text.format(".25")))] == [(3.0, 4.0), (5.0, 6.25)]


def test_without_an_image_column_the_file_is_the_image_s(read: Read, weak: Split) -> None:
    records = points(read("csv", "x,y,class\n1.5,2,bolt\n", "night/c.csv"))
    kept, rejected = resolve(records, weak)
    assert (kept["image_id"].to_pylist(), rejected.num_rows) == ([4], 0)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("0.csv", "x,y\n1.5,2\n", "0.png"),
        ("1.csv", "x,y\n1.5,2\n", "1.png"),  # not the image of id 1
        ("2.csv", "x,y\n1.5,2\n", None),  # no 2.png, but an id 2
        ("c.csv", "image,x,y\n1.png,1.5,2\n", "1.png"),
        ("c.csv", "image,x,y\n1,1.5,2\n", None),  # the id of 0.png, and the stem of 1.png
        ("c.csv", "image,x,y\n2,1.5,2\n", "1.png"),
        ("c.csv", "image_id,x,y\n1,1.5,2\n", "0.png"),
        ("c.csv", "Image ID,x,y\n1,1.5,2\n", "0.png"),
        ("c.csv", "image_id,x,y\n0,1.5,2\n", "0.png"),  # no such id: a name
        ("c.csv", "image_id,x,y\n1.png,1.5,2\n", "1.png"),
    ],
)
def test_images_that_are_called_by_numbers(
    read: Read, weak: Split, name: str, text: str, expected: str | None
) -> None:
    images = weak.images.slice(0, 2).set_column(
        weak.images.schema.get_field_index("file_name"), "file_name", pa.array(["0.png", "1.png"])
    )
    split = Split(weak.root, images, weak.instances, weak.categories[:1], weak.image_root)
    kept, rejected = resolve(points(read("csv", text, name)), split)
    assert [{1: "0.png", 2: "1.png"}[i] for i in kept["image_id"].to_pylist()] == (
        [expected] if expected else []
    )
    assert set(rejected["reason"].to_pylist()) == (set() if expected else {"unknown_image"})


def test_a_parquet_column_of_ids(read: Read) -> None:
    for column, expected in (
        (["007", "a.png"], [(7, ("007",)), ("a.png", ())]),
        ([7, 8], [(7, ()), (8, ())]),
    ):
        found = points(read("parquet", parquet(image_id=column, x=[1.5, 2.5], y=[1, 2])))
        assert [(r.image, r.also) for r in found] == expected
        assert found[0].key == f"{column[0]} None 1.5 1.0 "


def test_ids_outlive_rows_that_come_and_go(read: Read) -> None:
    rows = ["a.png,1.5,2,bolt", "a.png,3.5,4,bolt"]
    ids = [r.point_id for r in points(read("csv", "\n".join(["image,x,y,class", *rows])))]
    (left,) = points(read("csv", f"image,x,y,class\n{rows[1]}\n"))
    assert left.point_id == ids[1]


def test_ids_of_a_column_outlive_corrections(read: Read) -> None:
    (before,) = points(read("csv", "id,image,x,y\n17,a.png,1.5,2\n"))
    (after,) = points(read("csv", "id,image,x,y\n17,a.png,9.5,2\n"))
    assert before.point_id == after.point_id
    assert after.source_record == "line 2 (id 17)"


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def test_parquet_types(read: Read) -> None:
    content = parquet(
        image=pa.array(["a.png", "b.png"]).dictionary_encode(),
        x=pa.array([1.5, 2.5], pa.float32()),
        y=pa.array([3, 4], pa.int16()),
        category_id=pa.array([5, 9]),
        created_at=pa.array([0, 1], pa.timestamp("s")),
        annotator=pa.array(["ann", None]),
        blob=pa.array([b"\xff", b""]),  # a column of nobody's business
    )
    found = points(read("parquet", content))
    assert [(r.image, r.category, r.x, r.y, r.annotator) for r in found] == [
        ("a.png", 5, 1.5, 3.0, "ann"), ("b.png", 9, 2.5, 4.0, None),
    ]  # fmt: skip
    assert found[0].labelled_at == "1970-01-01 00:00:00.000"


def test_our_own_points_read_again(read: Read, weak: Split, tmp_path: Any) -> None:
    record = PointRecord("clicks.json", "annotation 1", "a.png", "bolt", 3.5, 4.25, "Ann", "2024-05-01")
    kept, _ = resolve([record], weak)
    buffer = io.BytesIO()
    pq.write_table(kept, buffer)
    again, rejected = resolve(points(read("parquet", buffer.getvalue(), "points.parquet")), weak)
    assert rejected.num_rows == 0
    names = ["image_id", "category_id", "x", "y", "annotator", "labelled_at"]
    assert again.select(names) == kept.select(names)
