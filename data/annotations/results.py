"""COCO results, the detections of a model: read, with all faults listed. `data.annotations.coco.file` writes them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from data.annotations.strict_json import is_number, load_json
from data.errors import DataError, Fault
from data.masks.polygons import from_segmentation

_FILE = "a list of COCO results, one object a detection: image_id, category_id, segmentation, score"
_NO_MASK = "no segmentation"


def read_results(
    path: str | os.PathLike[str], sizes: Mapping[int, tuple[int, int]], category_ids: Collection[int]
) -> list[dict[str, Any]]:
    """Read and validate a COCO results file with masks.

    Args:
        path: the JSON file.
        sizes: (height, width) in pixels of each image of the data set, by image_id.
        category_ids: the data set's own.

    Returns:
        A row for each detection, in the file's order: image_id, category_id, score (float) and segmentation, a
        compressed RLE with size [height, width] and counts (bytes). Polygons and uncompressed RLEs are converted.

    Raises:
        DataError: all faults of the file: an image or a class that the data set doesn't have, a score that is no finite
            number, no mask, a mask of another size than its image.
    """
    document = load_json(path)
    if not isinstance(document, list):
        found = type(document).__name__
        if isinstance(document, dict):
            found = f"an object with {', '.join(map(repr, sorted(document)[:5])) or 'nothing in it'}"
        raise DataError(Fault(str(path), "file", found, _FILE, "name the file of results here"))
    known = ", ".join(map(str, sorted(category_ids)[:20])) + ", ..." * (len(category_ids) > 20)
    faults, rows, maskless = [], [], []
    for n, row in enumerate(document):
        problem, counts = _checked(row, sizes, category_ids, known)
        if problem is not None and problem[0] == _NO_MASK:
            maskless.append(n)
            continue
        if problem is not None:
            faults.append(
                Fault(str(path), f"result #{n}", *problem, "correct this record, or predict on this data set")
            )
            continue
        rows.append(
            {
                "image_id": row["image_id"],
                "category_id": row["category_id"],
                "score": float(row["score"]),
                "segmentation": {"size": list(sizes[row["image_id"]]), "counts": counts},
            }
        )
    if maskless:
        # One fault for all: the thousand lines of a box detector would hide the others.
        record = f"result #{maskless[0]}" + (f" and {len(maskless) - 1:,} more" if len(maskless) > 1 else "")
        expected = "a mask (boxes alone can't be scored here)"
        faults.append(Fault(str(path), record, _NO_MASK, expected, "predict masks, or name another file"))
    if faults:
        raise DataError(faults)
    return rows


def _checked(
    row: Any, sizes: Mapping[int, tuple[int, int]], category_ids: Collection[int], known: str
) -> tuple[tuple[str, str] | None, bytes]:
    """(what is wrong with a result, what was expected) or None; and its compressed RLE."""
    if not isinstance(row, dict):
        return (type(row).__name__, "an object with image_id, category_id, segmentation, score"), b""
    image_id, score = row.get("image_id"), row.get("score")
    size = sizes.get(image_id) if isinstance(image_id, int) and not isinstance(image_id, bool) else None
    category_id = row.get("category_id")
    problem: tuple[str, str] | None = None
    if size is None:
        problem = (f"image_id {image_id!r}", "the id of an image of the ground truth")
    elif isinstance(category_id, bool | list | dict) or category_id not in category_ids:
        problem = (f"category_id {category_id!r}", f"the id of a class of the ground truth ({known})")
    elif not is_number(score):
        problem = (f"score {score!r}", "a finite number")
    elif row.get("segmentation") in (None, [], {}):
        problem = (_NO_MASK, "a mask")
    else:
        try:
            return None, from_segmentation(row["segmentation"], *size)
        except ValueError as error:
            problem = (f"segmentation: {error}", "an RLE of the image's size")
    return (problem[0][:200], problem[1]), b""
