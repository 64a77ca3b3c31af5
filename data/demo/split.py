"""Strong and weak subsets of a COCO file whose masks are all known, for experiments.

Files that it writes, as `ingest` and `import_points` read them:
    strong.json          images with masks
    weak.json            images only
    kept_aside.json      the weak images with their masks, to measure pseudo masks with
    val.json             images to validate with, where they are given
    points/clicks.json   COCO style: one click an object of a weak image
    split.json           how it was made, and what couldn't be done
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data import storage
from data.annotations.coco.file import CocoFile, read_coco, write_json
from data.demo.clicks import CLICK_KINDS, ClickKind, click_record, click_rng, draw_click
from data.errors import DataError, Fault
from data.images.read import sha256
from data.masks import rle
from data.masks.polygons import from_segmentation

CLICKS = "points/clicks.json"
FILES = frozenset({"strong.json", "weak.json", "kept_aside.json", "val.json", "split.json", CLICKS})


@dataclass(frozen=True)
class SplitRequest:
    """How to split: see `write_split_files`."""

    strong: float | int
    seed: int
    clicks: ClickKind
    jitter: float
    folder: str
    val_folder: str


def write_split_files(
    annotations: str | os.PathLike[str],
    out: str | os.PathLike[str],
    request: SplitRequest,
    val: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Split a COCO file and write the parts into folder `out`, all or nothing.

    One seed gives the same bytes. The strong images of a smaller share are among those of a larger one, and a
    click is the same in every share whose weak images have its object.

    Args:
        annotations: a COCO file in which every annotation has a mask.
        out: a folder; what an earlier split wrote there is replaced.
        request: `strong`: a share of the images (float, above 0 up to 1, at least one image) or a count of them
            (int). `clicks` and `jitter`: see `draw_click`; crowds and empty masks get none. `folder` and
            `val_folder`: set before each file name, where images lie in folders of their own below the image root.
        val: another COCO file, to be `val.json`.

    Returns:
        What split.json holds: the request, counts, classes without a strong image, ids of empty masks.

    Raises:
        DataError: every fault of the request, of the files, and of what else lies in `out`.
    """
    out = Path(out)
    faults = _request_faults(request) + _strangers(out)
    files: list[CocoFile | None] = []
    for path in (annotations, val):
        try:
            files.append(None if path is None else read_coco(path))
        except DataError as error:
            files.append(None)
            faults += error.faults
    coco, val_coco = files
    total = len(coco.images) if coco is not None else None
    if total is not None and not faults and strong_count(request.strong, total) > total:
        found = f"{request.strong} of {total} images"
        faults.append(
            Fault(str(annotations), "strong", found, f"at most {total}", "ask for fewer strong images")
        )
    if faults or coco is None:
        raise DataError(faults)

    sizes = {row["id"]: (row["height"], row["width"]) for row in coco.images}
    rles = {
        row["id"]: from_segmentation(row["segmentation"], *sizes[row["image_id"]]) for row in coco.annotations
    }
    held = {row["id"]: bool(rle.area(rles[row["id"]], *sizes[row["image_id"]])) for row in coco.annotations}
    classes: dict[int, set[int]] = {row["id"]: set() for row in coco.images}
    for row in coco.annotations:
        if held[row["id"]] and not row.get("iscrowd", 0):
            classes[row["image_id"]].add(row["category_id"])
    order = image_order(classes, request.seed)
    strong = set(order[: strong_count(request.strong, len(order))])

    clicks = [
        click_record(row, *point)
        for row in coco.annotations
        if row["image_id"] not in strong and not row.get("iscrowd", 0)
        if (point := _click(row, rles[row["id"]], sizes[row["image_id"]][0], request)) is not None
    ]
    categories = [{"id": category.id, "name": category.name} for category in coco.categories]
    images = [_renamed(row, request.folder) for row in coco.images]
    weak_images = [row for row in images if row["id"] not in strong]
    of_weak = [row for row in coco.annotations if row["image_id"] not in strong]
    of_strong = [row for row in coco.annotations if row["image_id"] in strong]
    documents: dict[str, list[list[dict[str, Any]]]] = {
        "strong.json": [[row for row in images if row["id"] in strong], of_strong],
        "weak.json": [weak_images, []],
        "kept_aside.json": [weak_images, of_weak],
        CLICKS: [weak_images, clicks],
    }
    covered = set().union(*(classes[name] for name in strong))
    known = set().union(*classes.values())
    summary: dict[str, Any] = {
        "format": 1,
        "source_sha256": sha256(annotations),
        **request.__dict__,
        "counts": {
            "strong_images": len(strong),
            "strong_objects": len(of_strong),
            "weak_images": len(weak_images),
            "weak_objects": len(of_weak),
            "clicks": len(clicks),
        },
        "classes_without_strong_image": [c.name for c in coco.categories if c.id in known - covered],
        "classes_without_mask": [c.name for c in coco.categories if c.id not in known],
        "empty_masks": [row["id"] for row in coco.annotations if not held[row["id"]]],
        "crowds_without_click": sum(bool(row.get("iscrowd", 0)) for row in of_weak),
    }
    with storage.atomic_dir(out) as partial:
        for name, (rows, annotation_rows) in documents.items():
            write_json(
                {"images": rows, "annotations": annotation_rows, "categories": categories}, partial / name
            )
        if val_coco is not None:
            summary["counts"]["val_images"] = len(val_coco.images)
            summary["counts"]["val_objects"] = len(val_coco.annotations)
            rows = [_renamed(row, request.val_folder) for row in val_coco.images]
            own = [{"id": category.id, "name": category.name} for category in val_coco.categories]
            document = {"images": rows, "annotations": val_coco.annotations, "categories": own}
            write_json(document, partial / "val.json")
        write_json(summary, partial / "split.json")
    return summary


def strong_count(strong: float | int, images: int) -> int:
    """How many images a share (float) or a count (int) of `images` is; at least one."""
    return strong if isinstance(strong, int) else max(1, round(strong * images))


def image_order(classes: Mapping[int, AbstractSet[int]], seed: int) -> list[int]:
    """All image ids, in the order in which they become strong: the first n are the strong ones, whatever n is.

    Drawn by a hash of seed and image id, so that further images leave the others' order as it is; but first come
    images that give every class one: for each class that has none yet, the rarest first, the first drawn that holds
    it. Images are thus not chosen for their many classes, which would make the strong ones unlike the weak.

    Args:
        classes: the class ids on each image, by image id.
        seed: of the draw.
    """
    drawn = sorted(classes, key=lambda image: (_rank(seed, image), image))
    holders: dict[int, list[int]] = {}
    for image in drawn:
        for category in classes[image]:
            holders.setdefault(category, []).append(image)
    first: list[int] = []
    covered: set[int] = set()
    for category in sorted(holders, key=lambda category: (len(holders[category]), category)):
        if category not in covered:
            image = holders[category][0]
            first.append(image)
            covered |= classes[image]
    taken = set(first)
    return first + [image for image in drawn if image not in taken]


def _rank(seed: int, image_id: int) -> bytes:
    return hashlib.sha256(f"split:{seed}:{image_id}".encode()).digest()


def _click(
    row: dict[str, Any], counts: bytes, height: int, request: SplitRequest
) -> tuple[float, float] | None:
    return draw_click(counts, height, request.clicks, request.jitter, click_rng(request.seed, row["id"]))


def _renamed(image: dict[str, Any], folder: str) -> dict[str, Any]:
    return {**image, "file_name": (PurePosixPath(folder) / image["file_name"]).as_posix()}


def _request_faults(request: SplitRequest) -> list[Fault]:
    share = isinstance(request.strong, float)
    tests = [
        ("strong", request.strong, 0 < request.strong <= 1 if share else request.strong >= 1,
            "a share above 0 and up to 1.0, or a count of 1 or more"),
        ("seed", request.seed, request.seed >= 0, "0 or more"),
        ("clicks", request.clicks, request.clicks in CLICK_KINDS, f"one of {', '.join(CLICK_KINDS)}"),
        ("jitter", request.jitter, 0 <= request.jitter < float("inf"), "0 or more, as a share of the object's size"),
        *((name, value, value == "" or storage.is_safe(value), "a folder below the image root")
            for name, value in (("folder", request.folder), ("val_folder", request.val_folder))),
    ]  # fmt: skip
    return [
        Fault("split", name, repr(found), expected, "correct this value")
        for name, found, good, expected in tests
        if not good
    ]


def _strangers(out: Path) -> list[Fault]:
    """What lies in `out` that no split wrote: the folder is replaced as a whole, and nobody's files with it."""
    if out.exists() and not out.is_dir():
        return [
            Fault(str(out), "out", "a file", "a folder, new or an earlier split's", "name another folder")
        ]
    if not out.exists():
        return []
    strange = [
        name
        for path in sorted(out.rglob("*"))
        if not path.is_dir() and (name := path.relative_to(out).as_posix()) not in FILES
    ]
    return [
        Fault(
            str(out),
            f"{len(strange)} files",
            ", ".join(strange[:5]) + (", ..." if len(strange) > 5 else ""),
            "a new folder, or one that holds an earlier split and nothing else",
            "name another folder, or move these files out of it",
        )
    ] * bool(strange)
