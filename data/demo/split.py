"""Strong and weak subsets of a COCO file that has all masks, for experiments.

Files, in the formats that `ingest` and `import_points` read:
    strong.json          images with masks
    weak.json            images only
    kept_aside.json      the weak images with their masks, to evaluate pseudo masks
    val.json             validation images, if given
    points/clicks.json   COCO style: one click per object of a weak image
    split.json           the request, counts, and what the split lacks
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
from data.images.content import sha256
from data.masks import rle
from data.masks.polygons import from_segmentation

CLICKS = "points/clicks.json"
FILES = frozenset({"strong.json", "weak.json", "kept_aside.json", "val.json", "split.json", CLICKS})


@dataclass(frozen=True)
class SplitRequest:
    """Settings of a split: see `write_split_files`."""

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
    """Split a COCO file and write the parts into folder `out` atomically.

    The same seed gives the same bytes. The strong images of a smaller share are among those of a larger one, and an
    object's click is the same in every share in which its image is weak.

    Args:
        annotations: a COCO file in which every annotation has a mask.
        out: a folder; an earlier split in it is replaced.
        request: `strong`: a share of the images (float, above 0 up to 1, at least one image) or a count of them
            (int). `clicks` and `jitter`: see `draw_click`; crowds and empty masks get no click. `folder` and
            `val_folder`: prepended to each file name, for images in folders below the image root.
        val: another COCO file, for `val.json`.

    Returns:
        The content of split.json: the request, counts, classes without a strong image, ids of empty masks.

    Raises:
        DataError: all faults of the request, of the files, and of other files in `out`.
    """
    out = Path(out)
    coco, val_coco = _read(annotations, out, request, val)
    sizes = {row["id"]: (row["height"], row["width"]) for row in coco.images}
    codes = {
        row["id"]: from_segmentation(row["segmentation"], *sizes[row["image_id"]]) for row in coco.annotations
    }
    empty = {row["id"] for row in coco.annotations if not rle.area(codes[row["id"]], *sizes[row["image_id"]])}
    classes: dict[int, set[int]] = {row["id"]: set() for row in coco.images}
    for row in coco.annotations:
        if row["id"] not in empty and not row.get("iscrowd", 0):
            classes[row["image_id"]].add(row["category_id"])
    strong = set(image_order(classes, request.seed)[: strong_count(request.strong, len(classes))])

    of_strong = [row for row in coco.annotations if row["image_id"] in strong]
    of_weak = [row for row in coco.annotations if row["image_id"] not in strong]
    clicks = [
        click
        for row in of_weak
        if (click := _click(row, codes[row["id"]], sizes[row["image_id"]][0], request)) is not None
    ]
    weak = classes.keys() - strong
    documents = {
        "strong.json": _part(coco, request.folder, of_strong, strong),
        "weak.json": _part(coco, request.folder, [], weak),
        "kept_aside.json": _part(coco, request.folder, of_weak, weak),
        CLICKS: _part(coco, request.folder, clicks, weak),
    }
    counts = {
        "strong_images": len(strong),
        "strong_objects": len(of_strong),
        "weak_images": len(weak),
        "weak_objects": len(of_weak),
        "clicks": len(clicks),
    }
    if val_coco is not None:
        documents["val.json"] = _part(val_coco, request.val_folder, val_coco.annotations)
        counts |= {"val_images": len(val_coco.images), "val_objects": len(val_coco.annotations)}
    covered = set().union(*(classes[image] for image in strong))
    with_mask = set().union(*classes.values())
    summary = {
        "format": 1,
        "source_sha256": sha256(annotations),
        **request.__dict__,
        "counts": counts,
        "classes_without_strong_image": [c.name for c in coco.categories if c.id in with_mask - covered],
        "classes_without_mask": [c.name for c in coco.categories if c.id not in with_mask],
        "empty_masks": [row["id"] for row in coco.annotations if row["id"] in empty],
        "crowds_without_click": sum(bool(row.get("iscrowd", 0)) for row in of_weak),
    }
    with storage.atomic_dir(out) as partial:
        for name, document in (documents | {"split.json": summary}).items():
            write_json(document, partial / name)
    return summary


def _click(row: dict[str, Any], counts: bytes, height: int, request: SplitRequest) -> dict[str, Any] | None:
    """The click on an object; None for a crowd or an empty mask."""
    if row.get("iscrowd", 0):
        return None
    rng = click_rng(request.seed, row["id"])
    point = draw_click(counts, height, request.clicks, request.jitter, rng)
    return None if point is None else click_record(row, *point)


def _read(
    annotations: str | os.PathLike[str],
    out: Path,
    request: SplitRequest,
    val: str | os.PathLike[str] | None,
) -> tuple[CocoFile, CocoFile | None]:
    """The COCO files of a valid request.

    Raises:
        DataError: see `write_split_files`.
    """
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
        step = "request fewer strong images"
        faults.append(Fault(str(annotations), "strong", found, f"at most {total}", step))
    if faults or coco is None:
        raise DataError(faults)
    return coco, val_coco


def _part(
    coco: CocoFile, folder: str, annotations: list[dict[str, Any]], only: AbstractSet[int] | None = None
) -> dict[str, Any]:
    """A COCO document of all images or `only` those of some ids; `folder` is prepended to their names."""
    return {
        "images": [
            {**row, "file_name": (PurePosixPath(folder) / row["file_name"]).as_posix()}
            for row in coco.images
            if only is None or row["id"] in only
        ],
        "annotations": annotations,
        "categories": [{"id": category.id, "name": category.name} for category in coco.categories],
    }


def strong_count(strong: float | int, images: int) -> int:
    """Number of strong images for a share (float, at least one image) or a count (int) of `images`."""
    return strong if isinstance(strong, int) else max(1, round(strong * images))


def image_order(classes: Mapping[int, AbstractSet[int]], seed: int) -> list[int]:
    """All image ids in a random order; for any n, the first n are the strong images.

    The order is that of a hash of seed and image id, so additional images don't change the order of the others. Images
    that cover every class come first: for each class without an image so far, the rarest first, the first image in the
    random order that has it. Images aren't chosen for having many classes, which would make strong images unlike weak
    ones.

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
    """A fault if `out` has other files than those of a split, since the whole folder is replaced."""
    if out.exists() and not out.is_dir():
        return [
            Fault(
                str(out), "out", "a file", "a new folder, or one of an earlier split", "name another folder"
            )
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
            "a new folder, or one with only an earlier split",
            "name another folder, or move these files out of it",
        )
    ] * bool(strange)
