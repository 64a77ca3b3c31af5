"""Several annotation files as one: their classes are joined by name, and ids of images that clash are replaced."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any
from unicodedata import normalize

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.annotations.coco.checks import SHOWN_AREAS, WrongAreas
from data.annotations.coco.file import CocoFile, to_instances
from data.annotations.frames import name_id
from data.errors import Fault
from data.tables import Category, concat_instances

log = logging.getLogger(__name__)


def join_classes(files: Sequence[CocoFile]) -> tuple[list[Category], list[dict[int, int]], list[Fault]]:
    """One table of classes for all files.

    A class is its name. The first file that has a name or an id decides which belong together; a class whose id another
    one has gets the next number above all.

    Returns:
        The classes by id; for each file the new id of each class whose id changes; a fault for each name that differs
        from another one only in its form of Unicode, or in spaces at its ends: they are meant to be one class.
    """
    ids: dict[str, int] = {}
    first: dict[str, str] = {}
    faults: list[Fault] = []
    every = [(file, category) for file in files for category in file.categories]
    unused = count(max((category.id for _, category in every), default=0) + 1)
    for file, category in every:
        other = first.setdefault(normalize("NFC", category.name).strip(), category.name)
        if other != category.name:
            found = f"name {category.name!r}, which looks the same as another one, {other!a}"
            record, step = f"category {category.id}", "give both one id, or other names"
            faults.append(Fault(file.path, record, found, "names that differ", step))
        if category.name not in ids:
            ids[category.name] = category.id if category.id not in ids.values() else next(unused)
    changes = [{c.id: ids[c.name] for c in file.categories if ids[c.name] != c.id} for file in files]
    for file, changed in zip(files, changes, strict=True):
        if changed:
            names = ", ".join(f"{c.name} {changed[c.id]}" for c in file.categories if c.id in changed)
            log.info(
                "%s: classes are joined by name; other ids than in this file: %s", file.path, names[:300]
            )
    return (
        sorted(Category(number, name) for name, number in ids.items()),
        changes,
        list(dict.fromkeys(faults)),
    )


class ImageIds:
    """Image ids that are unique over files. An image is its name: the same name is the same image.

    The first image with an id keeps it. Another one with this id gets a hash of its name, as images of label files that
    have no ids do, so that it doesn't depend on the number of images.
    """

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def assign(self, name: str, own: int) -> int:
        """The id of an image, given its id in an annotation file."""
        if name not in self._ids:
            for n in count():
                number = own if n == 0 else name_id(name if n == 1 else f"{name}#{n}")
                if self._names.setdefault(number, name) == name:
                    break
            self._ids[name] = number
        return self._ids[name]


def join_files(
    files: Sequence[CocoFile], ids: ImageIds, classes: Sequence[Mapping[int, int]]
) -> tuple[CocoFile, list[Fault]]:
    """The images and annotations of several files as those of one; a single file without changes stays as it is.

    An image that several files have keeps the masks of each; a mask that two of them have counts once.

    Args:
        files: one or more.
        ids: the ids of images; extended.
        classes: for each file the new ids of classes, see `join_classes`.

    Returns:
        The file, and a fault for each image whose size differs between files.
    """
    images: dict[int, dict[str, Any]] = {}
    holders: dict[int, CocoFile] = {}
    shared: set[int] = set()
    faults: list[Fault] = []
    changes: list[dict[int, int]] = []
    for file in files:
        changed: dict[int, int] = {}
        for row in file.images:
            number = ids.assign(row["file_name"], row["id"])
            if number != row["id"]:
                changed[row["id"]] = number
            here, there = _size(row), _size(images.get(number, {}))
            if holders.setdefault(number, file) is not file:
                shared.add(number)
                if here and there and here != there:
                    found, step = (
                        f"{here} pixels, and {there} in {holders[number].path}",
                        "correct the wrong record",
                    )
                    record = f"image {row['id']} ({row['file_name']})"
                    faults.append(Fault(file.path, record, found, "one size for an image", step))
            images.setdefault(number, row if number == row["id"] else row | {"id": number})
        changes.append(changed)
    if len(files) == 1 and not changes[0] and not classes[0]:
        return files[0], faults
    tables: list[pa.Table] = []
    used = np.array([], dtype=np.int64)
    for file, image_ids, class_ids in zip(files, changes, classes, strict=True):
        table = _replaced(_replaced(to_instances(file), "image_id", image_ids), "category_id", class_ids)
        own = table["instance_id"].to_numpy()
        if np.isin(own, used).any():
            own = np.setdiff1d(np.arange(1, len(own) + len(used) + 1), used)[
                : len(own)
            ]  # the lowest free ones
            table = _with_column(table, "instance_id", own)
        used = np.concatenate([used, own])
        tables.append(table)
    return (
        CocoFile(
            images=[images[number] for number in sorted(images)],
            annotations=[],
            categories=files[0].categories,
            path=files[0].path + (f" and {len(files) - 1} more" if len(files) > 1 else ""),
            instances=_without_doubles(concat_instances(tables), shared, files[0].path),
            rejected=tuple(fault for file in files for fault in file.rejected),
            not_images=frozenset().union(*(file.not_images for file in files)),
            wrong_areas=WrongAreas(
                sum(file.wrong_areas.count for file in files),
                [one for file in files for one in file.wrong_areas.first][:SHOWN_AREAS],
            ),
        ),
        faults,
    )


def _size(row: Mapping[str, Any]) -> str:
    return f"{row['width']} x {row['height']}" if "width" in row else ""


def _replaced(table: pa.Table, column: str, changes: Mapping[int, int]) -> pa.Table:
    if not changes:
        return table
    known, place = np.unique(table[column].to_numpy(), return_inverse=True)
    new = np.array([changes.get(number, number) for number in known.tolist()], dtype=np.int64)
    return _with_column(table, column, new[place])


def _with_column(table: pa.Table, column: str, values: npt.NDArray[Any]) -> pa.Table:
    at = table.schema.get_field_index(column)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def _without_doubles(table: pa.Table, shared: set[int], path: str) -> pa.Table:
    """INSTANCES rows without the masks that an image of several files has twice."""
    if not shared:
        return table
    kept = np.ones(len(table), dtype=bool)
    known: set[tuple[Any, ...]] = set()
    (at,) = np.isin(table["image_id"].to_numpy(), sorted(shared)).nonzero()
    rows = table.select(["image_id", "category_id", "rle_counts"]).take(at)
    for n, key in zip(
        at.tolist(), zip(*(column.to_pylist() for column in rows.columns), strict=True), strict=True
    ):
        kept[n] = key not in known
        known.add(key)
    if not kept.all():
        log.info("%s: %d masks that two files have count once", path, len(table) - kept.sum())
    return table.filter(pa.array(kept))
