"""The tables: reading and writing them, and a split of a data set as a folder.

Images and instances, which loaders read at random, are uncompressed, memory-mapped Arrow IPC files. Points, rejected
records and pseudo labels, which people read, are Parquet. The same table always gives the same bytes.

Coordinates are pixels of the original image, x to the right and y down; (0, 0) is the outer corner
of the top-left pixel, whose centre is (0.5, 0.5). Masks are COCO compressed RLE (column-major runs).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data import storage
from data.errors import DataError, Fault
from data.schemas import (
    CLICKED_INSTANCES,
    DECISIONS,
    IMAGES,
    INSTANCES,
    POINTS,
    PREDICTIONS,
    PSEUDO,
    REJECTED,
    SENT,
)

__all__ = [
    "CLICKED_INSTANCES", "DECISIONS", "IMAGES", "INSTANCES", "POINTS", "PREDICTIONS", "PSEUDO", "REJECTED", "SENT",
    "Category", "DataError", "Fault", "Split", "class_indices", "concat_instances", "read_arrow", "read_parquet",
    "stream_parquet", "write_arrow", "write_parquet", "write_split",
]  # fmt: skip

FORMAT = 1
POINT_COLUMNS = ("point_x", "point_y")


class Category(NamedTuple):
    """A class as the data set names and numbers it."""

    id: int
    name: str


def class_indices(categories: Sequence[Category]) -> dict[int, int]:
    """Contiguous class index (what models use) of each category id, in the order of the ids."""
    return {category_id: index for index, category_id in enumerate(sorted(c.id for c in categories))}


def _checked(table: pa.Table, schema: pa.Schema, path: str | os.PathLike[str]) -> pa.Table:
    """``table`` without file metadata.

    Raises:
        DataError: its columns aren't those of ``schema``; instances may have the columns of a click too.
    """
    found = {field.name: field.type for field in table.schema}
    if schema is INSTANCES and POINT_COLUMNS[0] in found:
        schema = CLICKED_INSTANCES
    expected = {field.name: field.type for field in schema}
    if found != expected:
        faults = []
        for name in sorted(found.keys() | expected.keys()):
            if found.get(name) != expected.get(name):
                faults.append(
                    Fault(
                        str(path),
                        f"column {name!r}",
                        str(found.get(name, "none")),
                        str(expected.get(name, "none")),
                        "this version reads another format; `points2model run` makes it anew",
                    )
                )
        raise DataError(faults)
    return table.select(schema.names).replace_schema_metadata(None)


def _unreadable(path: str | os.PathLike[str], error: Exception, kind: str) -> DataError:
    found = "no such file" if isinstance(error, FileNotFoundError) else f"unreadable ({error})"
    return DataError(Fault(str(path), "file", found, kind, "`points2model run` makes it"))


def write_arrow(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write an uncompressed Arrow IPC file of one record batch, atomically and deterministically."""
    table = table.replace_schema_metadata(None).combine_chunks()
    with storage.atomic_write(path) as partial, pa.ipc.new_file(str(partial), table.schema) as writer:
        writer.write_table(table)


def read_arrow(path: str | os.PathLike[str], schema: pa.Schema) -> pa.Table:
    """Memory-map an Arrow IPC file; all processes share its pages.

    Raises:
        DataError: missing or unreadable file, or columns other than those of ``schema``.
    """
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error, "an Arrow IPC file") from error
    return _checked(table, schema, path)


def write_parquet(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write a zstd Parquet file, atomically and deterministically."""
    table = table.replace_schema_metadata(None).combine_chunks()
    with storage.atomic_write(path) as partial:
        pq.write_table(table, partial, compression="zstd", store_schema=True)


def read_parquet(path: str | os.PathLike[str], schema: pa.Schema) -> pa.Table:
    """Read a Parquet file.

    Raises:
        DataError: missing or unreadable file, or columns other than those of ``schema``.
    """
    try:
        # ParquetFile, not read_table: a folder named year=2024 must not add a column.
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error, "a Parquet file") from error
    return _checked(table, schema, path)


def stream_parquet(
    path: str | os.PathLike[str],
    schema: pa.Schema,
    columns: Sequence[str],
    rows: int,
    opened: pa.NativeFile | None = None,
) -> Iterator[pa.RecordBatch]:
    """Some columns of a Parquet file, at most `rows` rows at a time; memory doesn't grow with the file.

    Args:
        opened: the file, if it was opened before; then `path` is for messages alone.

    Raises:
        DataError: as `read_parquet`.
    """
    try:
        # Buffered, so that a column is never read whole.
        file = pq.ParquetFile(opened or path, buffer_size=1 << 20, pre_buffer=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error, "a Parquet file") from error
    _checked(file.schema_arrow.empty_table(), schema, path)
    try:
        for batch in file.iter_batches(rows, columns=list(columns), use_threads=False):
            yield batch.select(columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error, "a Parquet file") from error


def concat_instances(tables: Sequence[pa.Table]) -> pa.Table:
    """Rows of several INSTANCES tables by image_id, then instance_id, the order of a split.

    If a table has the columns point_x and point_y (float32, the click of a pseudo mask), the result has them too, null
    for the rows of other tables.
    """
    with_points = any("point_x" in table.column_names for table in tables)
    parts = []
    for table in tables:
        points = {name: table[name] for name in POINT_COLUMNS if name in table.column_names}
        part = _checked(table.drop_columns(list(points)), INSTANCES, "instances")
        if with_points:
            for name in POINT_COLUMNS:
                column = points.get(name, pa.nulls(table.num_rows, pa.float32()))
                part = part.append_column(name, column.cast(pa.float32()))
        parts.append(part)
    table = pa.concat_tables(parts).combine_chunks()
    order = np.lexsort((table["instance_id"].to_numpy(), table["image_id"].to_numpy()))
    in_order = bool((order[1:] > order[:-1]).all())
    return table if in_order else table.take(pa.array(order)).combine_chunks()


class Split:
    """One split of a data set: a folder of images.arrow, instances.arrow, categories.json, split.json.

    Attributes:
        root: the folder.
        images: table IMAGES, sorted by image_id.
        instances: table INSTANCES, sorted by image_id, then instance_id.
        categories: sorted by id.
        image_root: the folder that each image's ``uri`` is relative to.
    """

    def __init__(
        self, root: Path, images: pa.Table, instances: pa.Table, categories: list[Category], image_root: str
    ) -> None:
        self.root = root
        self.images = images
        self.instances = instances
        self.categories = categories
        self.image_root = image_root
        image_ids = images["image_id"].to_numpy()
        image_of = instances["image_id"].to_numpy()
        self._begin = np.searchsorted(image_of, image_ids, side="left")
        self._end = np.searchsorted(image_of, image_ids, side="right")

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> Split:
        """Memory-map a split's tables.

        Raises:
            DataError: a file is missing, unreadable or of another format.
        """
        folder = Path(root)
        header = _read_json(folder / "split.json", lambda value: value["format"] == FORMAT)
        categories = _read_json(
            folder / "categories.json", lambda value: [Category(row["id"], row["name"]) for row in value]
        )
        return cls(
            root=folder,
            images=read_arrow(folder / "images.arrow", IMAGES),
            instances=read_arrow(folder / "instances.arrow", INSTANCES),
            categories=sorted(Category(row["id"], row["name"]) for row in categories),
            image_root=header["image_root"],
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # A spawned loader worker maps the files again instead of receiving a copy of the rows.
        return Split.open, (self.root,)

    def __len__(self) -> int:
        return int(self.images.num_rows)

    def image(self, i: int) -> dict[str, Any]:
        """Row ``i`` of the images table."""
        row: dict[str, Any] = self.images.slice(range(len(self))[i], 1).to_pylist()[0]
        return row

    def instances_of(self, i: int) -> pa.Table:
        """The instances of image ``i``: a zero-copy slice, in the order of instance_id."""
        return self.instances.slice(self._begin[i], self._end[i] - self._begin[i])

    def image_path(self, i: int) -> Path:
        """The path of the file of image ``i``.

        Raises:
            DataError: its ``uri`` leaves the image root.
        """
        return storage.join(self.image_root, self.images["uri"][range(len(self))[i]].as_py())


def _reference_faults(
    instances: pa.Table, images: pa.Table, categories: Sequence[Category], where: str
) -> list[Fault]:
    """A fault for each image_id or category_id of ``instances`` that doesn't exist."""
    known = {"image_id": images["image_id"].to_numpy(), "category_id": [c.id for c in categories]}
    return [
        Fault(
            where,
            f"{column} {unknown}",
            f"instances of {column} {unknown}, which the split doesn't have",
            f"instances of the split's own {column}s",
            "make the instances from this split",
        )
        for column, ids in known.items()
        for unknown in np.setdiff1d(instances[column].to_numpy(), ids)
    ]


def _read_json(path: Path, check: Callable[[Any], Any]) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not check(value):
            raise ValueError(f"not of format {FORMAT}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error, f"{path.name} of a split, format {FORMAT}") from error
    return value


def write_split(
    root: str | os.PathLike[str],
    images: pa.Table,
    instances: pa.Table,
    categories: Sequence[Category],
    image_root: str,
) -> None:
    """Write a split's folder atomically and deterministically; rows are sorted.

    Raises:
        DataError: columns of another schema, a repeated id, or an instance of an unknown image or category.
    """
    images = _checked(images, IMAGES, "images").sort_by("image_id")
    instances = concat_instances([instances])
    faults = _reference_faults(instances, images, categories, str(root))
    for column, table in (("image_id", images), ("instance_id", instances)):
        ids, counts = np.unique(table[column].to_numpy(), return_counts=True)
        faults += [
            Fault(str(root), f"{column} {i}", "several rows", "one row an id", "make the ids unique")
            for i in ids[counts > 1]
        ]
    if faults:
        raise DataError(faults)
    with storage.atomic_dir(root) as folder:
        write_arrow(images, folder / "images.arrow")
        write_arrow(instances, folder / "instances.arrow")
        rows = [{"id": c.id, "name": c.name} for c in sorted(categories)]
        header = {"format": FORMAT, "image_root": image_root}
        for name, value in (("categories.json", rows), ("split.json", header)):
            (folder / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
