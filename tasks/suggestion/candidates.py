"""The images to choose from: weak images of the project, or images that nobody has labelled."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from data.decisions.record import Decision
from data.decisions.words import without_undone
from data.errors import DataError
from data.images.read import image_size
from data.points.lookup import Images
from data.tables import IMAGES, INSTANCES, Category, Split
from tasks.common.errors import TaskError
from tasks.suggestion.signs import Clicks
from tasks.tools.label_files import relative_names
from tasks.tools.predict_inputs import expanded


class Candidates(NamedTuple):
    """Images, which may turn out to be unreadable later."""

    split: Split
    """without instances, its images in the order of their names"""
    clicks: dict[int, Clicks]
    """of the images that have some, by row"""
    faults: list[str]
    """of images that are left out"""


def without_masks(weak: Split, points: pa.Table, decisions: Iterable[Decision]) -> Candidates:
    """All weak images but those that a reviewer has completed."""
    completed = _completed(weak, decisions)
    kept = [image_id not in completed for image_id in weak.images["image_id"].to_pylist()]
    split = _part(weak, kept)
    return Candidates(split, clicks_of(split, points), [])


def without_clicks(weak: Split, points: pa.Table) -> Candidates:
    """The weak images on which nobody has clicked."""
    clicked = set(points["image_id"].to_pylist())
    kept = [image_id not in clicked for image_id in weak.images["image_id"].to_pylist()]
    return Candidates(_part(weak, kept), {}, [])


def of_files(images: Sequence[str], fetched: Path, categories: Sequence[Category]) -> Candidates:
    """Files, folders, patterns, or addresses in S3, as `predict` takes them; unreadable ones are left out.

    Args:
        fetched: the folder for images from S3.
        categories: of the model.

    Raises:
        TaskError, DataError: names that stand for no image; no image can be read.
    """
    given = list({one.path.resolve(): one for one in expanded(images, fetched)}.values())
    names = relative_names([one.path for one in given])
    root = Path(os.path.abspath(given[0].path))  # noqa: PTH100  # links stay
    for _ in Path(names[0]).parts:
        root = root.parent
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for name in sorted(names):
        try:
            width, height = image_size(root / name)
        except DataError as error:
            faults += map(str, error.faults)
            continue
        facts = {"image_id": len(rows) + 1, "file_name": name, "uri": name, "width": width, "height": height}
        rows.append(dict.fromkeys(IMAGES.names) | facts | {"status": "ok"})
    if not rows:
        raise TaskError("\n".join(["--images: no image can be read", *faults]))
    table = pa.Table.from_pylist(rows, schema=IMAGES)
    return Candidates(
        Split(Path(), table, INSTANCES.empty_table(), sorted(categories), str(root)), {}, faults
    )


def clicks_of(split: Split, points: pa.Table) -> dict[int, Clicks]:
    """The clicks on the split's images, by row."""
    row_of = {image_id: n for n, image_id in enumerate(split.images["image_id"].to_pylist())}
    found: dict[int, tuple[list[int], list[list[float]]]] = {}
    for point in points.select(["image_id", "category_id", "x", "y"]).to_pylist():
        if (row := row_of.get(point["image_id"])) is not None:
            ids, xy = found.setdefault(row, ([], []))
            ids.append(point["category_id"])
            xy.append([point["x"], point["y"]])
    return {row: Clicks(ids, np.array(xy)) for row, (ids, xy) in found.items()}


def _completed(weak: Split, decisions: Iterable[Decision]) -> set[int]:
    """Ids of the images that have all their objects, as a reviewer said."""
    own: dict[str, list[Decision]] = {}
    for one in decisions:
        own.setdefault(one.reviewer, []).append(one)
    counting = [one for of_reviewer in own.values() for one in without_undone(of_reviewer)[0]]
    names = Images(weak)
    found = (names.find(one.image) for one in counting if one.action == "complete")
    return {image_id for image_id in found if isinstance(image_id, int)}


def _part(split: Split, kept: Sequence[bool]) -> Split:
    """Some of a split's usable images, by name, without instances."""
    usable = [
        keep and status == "ok" for keep, status in zip(kept, split.images["status"].to_pylist(), strict=True)
    ]
    images = split.images.filter(pa.array(usable, pa.bool_()))
    return Split(split.root, images, INSTANCES.empty_table(), split.categories, split.image_root)
