from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data import tables
from data.tables import (
    CLICKED_INSTANCES,
    IMAGES,
    INSTANCES,
    POINTS,
    Category,
    DataError,
    Split,
    class_indices,
    concat_instances,
    read_arrow,
    read_parquet,
    write_arrow,
    write_parquet,
    write_split,
)
from tests.data.conftest import CATEGORIES, images_table, instances_table, tiny_masks

POINT = {
    "point_id": "00ff", "image_id": 4, "category_id": 2, "x": 1.25, "y": 3.5, "annotator": None,
    "labelled_at": "2024-05-01", "source_file": "a.json", "source_record": "annotation 1",
    "further": [{"x": 2.5, "y": 3.0, "inside": False}],
}  # fmt: skip
FORMATS = [(write_arrow, read_arrow), (write_parquet, read_parquet)]


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_tables_come_back_and_the_same_rows_give_the_same_bytes(tmp_path: Path, write, read) -> None:
    rows = [POINT | {"point_id": f"{n:04x}"} for n in range(5)]
    table = pa.Table.from_pylist(rows, schema=POINTS)
    chunked = pa.concat_tables([table.slice(0, 2), table.slice(2)]).replace_schema_metadata({"at": "noon"})
    write(table, tmp_path / "a")
    write(chunked, tmp_path / "b")
    assert read(tmp_path / "a", POINTS).to_pylist() == rows
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_empty_tables_come_back(tmp_path: Path, write, read) -> None:
    write(POINTS.empty_table(), tmp_path / "a")
    assert read(tmp_path / "a", POINTS).equals(POINTS.empty_table())


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_faulty_files_are_refused_with_every_wrong_column(tmp_path: Path, write, read) -> None:
    path = tmp_path / "points"
    with pytest.raises(DataError, match="no such file"):
        read(path, POINTS)
    path.write_bytes(b"no table")
    with pytest.raises(DataError, match="unreadable"):
        read(path, POINTS)
    table = pa.Table.from_pylist([POINT], schema=POINTS).drop_columns("x")
    write(table.append_column("extra", pa.array([1.0])), path)
    with pytest.raises(DataError) as caught:
        read(path, POINTS)
    assert [fault.record for fault in caught.value.faults] == ["column 'extra'", "column 'x'"]


def test_arrow_files_are_mapped_not_read(tmp_path: Path) -> None:
    table = pa.table(
        {name: pa.nulls(100_000, kind) for name, kind in zip(IMAGES.names, IMAGES.types, strict=True)}
    )
    write_arrow(table, tmp_path / "images.arrow")
    before = pa.total_allocated_bytes()
    read_arrow(tmp_path / "images.arrow", IMAGES)
    assert pa.total_allocated_bytes() - before < 10_000


def test_class_indices_go_by_sorted_id() -> None:
    assert class_indices([Category(7, "b"), Category(3, "c"), Category(20, "a")]) == {3: 0, 7: 1, 20: 2}


def test_a_split_gives_each_image_its_own_instances_in_order(make_split: Callable[..., Split]) -> None:
    split = make_split()
    assert len(split) == 3
    assert [split.image(i)["image_id"] for i in range(3)] == [10, 20, 30]
    assert [split.instances_of(i)["instance_id"].to_pylist() for i in range(3)] == [[1, 2, 3, 9], [], [4, 5]]
    assert split.categories == sorted(CATEGORIES)
    assert split.image_path(1).name == "image 20.png"
    assert split.image(-1)["image_id"] == 30
    with pytest.raises(IndexError):
        split.image(3)


def test_the_written_order_of_rows_changes_no_byte(make_split: Callable[..., Split], tmp_path: Path) -> None:
    split = make_split()
    backwards = pa.array(np.arange(split.instances.num_rows)[::-1])
    write_split(
        tmp_path / "again", split.images.take([2, 0, 1]), split.instances.take(backwards),
        split.categories[::-1], split.image_root,
    )  # fmt: skip
    for path in sorted(split.root.iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_a_split_travels_to_workers_without_its_rows(make_split: Callable[..., Split]) -> None:
    split = make_split()
    assert len(pickle.dumps(split)) < 500
    assert pickle.loads(pickle.dumps(split)).instances.equals(split.instances)  # noqa: S301


def pseudo(**change: int) -> pa.Table:
    row = {"instance_id": 100, "image_id": 30, "category_id": 20, "mask": tiny_masks()["bar"]}
    return instances_table([row | {"source": "pseudo", "score": 0.5} | change])


def test_points_of_pseudo_masks_are_kept_with_instances_without(
    make_split: Callable[..., Split], tmp_path: Path
) -> None:
    with_points = pseudo()
    for name, value in (("point_x", 1.5), ("point_y", 2.5)):
        with_points = with_points.append_column(name, pa.array([value], pa.float32()))
    joined = concat_instances([with_points, pseudo(instance_id=1)])
    assert joined["point_x"].to_pylist() == [None, 1.5]
    assert joined["point_y"].to_pylist() == [None, 2.5]
    assert joined.schema == CLICKED_INSTANCES
    split = make_split()
    write_split(tmp_path / "clicked", split.images, joined, split.categories, split.image_root)
    assert Split.open(tmp_path / "clicked").instances.equals(joined)


def test_nothing_is_written_of_a_split_with_faults(tmp_path: Path) -> None:
    images = images_table(tmp_path, [1, 2])
    root = tmp_path / "split"
    with pytest.raises(DataError) as caught:
        write_split(
            root,
            pa.concat_tables([images, images.slice(0, 1)]),
            concat_instances([pseudo(image_id=1), pseudo(image_id=5)]),
            CATEGORIES,
            str(tmp_path),
        )
    assert [f.record for f in caught.value.faults] == ["image_id 5", "image_id 1", "instance_id 100"]
    assert not root.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("split.json", None),
        ("split.json", '{"format": 99, "image_root": "."}'),
        ("split.json", "[]"),
        ("categories.json", '[{"id": 1}]'),
        ("images.arrow", "text"),
    ],
)
def test_a_damaged_split_is_refused_by_file_name(
    make_split: Callable[..., Split], name: str, content: str | None
) -> None:
    path = make_split().root / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=name):
        Split.open(path.parent)


def test_image_paths_do_not_leave_the_image_root(tmp_path: Path) -> None:
    images = images_table(tmp_path, [1])
    images = images.set_column(IMAGES.get_field_index("uri"), "uri", pa.array(["../secret.png"]))
    write_split(tmp_path / "split", images, INSTANCES.empty_table(), CATEGORIES, str(tmp_path))
    with pytest.raises(DataError, match="leaves the image root"):
        Split.open(tmp_path / "split").image_path(0)


@pytest.mark.parametrize("name", ["IMAGES", "INSTANCES", "POINTS", "REJECTED", "PSEUDO"])
def test_schemas_survive_both_file_formats(tmp_path: Path, name: str) -> None:
    schema = getattr(tables, name)
    table = pa.table(
        {n: pa.nulls(2, t) for n, t in zip(schema.names, schema.types, strict=True)}, schema=schema
    )
    for write, read in FORMATS:
        write(table, tmp_path / "table")
        assert read(tmp_path / "table", schema).equals(table)
