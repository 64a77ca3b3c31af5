"""Corrections of a label tool as decisions of a reviewer.

Each object of the file is matched with one that was sent: by its id, else by the IoU of their masks. What differs is a
decision; what doesn't is accepted, on images that count as reviewed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from data.decisions.record import Action, Decision, Mask, now
from data.decisions.words import Word, contradictions, last_word, last_words, without_undone
from data.errors import DataError, Fault
from data.masks.rle import decode
from data.storage import list_files
from data.tables import Split
from tasks.review.corrections import Corrected, CorrectedImage, Corrections
from tasks.review.present import present_objects

MIN_IOU = 0.5
"""From which on two masks without ids are one object; above it, an object has at most one such partner among masks that
don't overlap."""
REVIEWED = ("marked", "changed", "all")
"""Which images count as reviewed, so that objects that didn't change are accepted: those that the tool marks as
finished; also those with a change; all of the file. Changes count on every image."""


class Known(NamedTuple):
    """An object of the project.

    Attributes:
        image: file_name.
        category: name.
        counts: the mask that the tool was given, or the present one; empty: it has none.
        is_sent: the tool had it, so that it is rejected if it is gone.
        is_object: False: a model found it for `points2model suggest`; it becomes an object where somebody looked at it.
    """

    image: str
    category: str
    counts: bytes
    is_sent: bool
    is_object: bool = True


@dataclass
class Plan:
    """What an import decides; nothing is written yet.

    Attributes:
        decisions: actions with their fields, in the order of the images.
        counts: `unchanged`, `matched_by_id`, `matched_by_iou`, `known` (decisions that the reviewer made before),
            `images`, `marked`, `skipped` (objects on which reviewers would contradict each other).
        faults: of all records.
    """

    decisions: list[tuple[Action, dict[str, Any]]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


def known_objects(
    pseudo: pa.Table, points: pa.Table, weak: Split, decisions: Sequence[Decision], sent: pa.Table | None
) -> dict[str, Known]:
    """All objects that a tool may have been given, by id.

    Args:
        pseudo: PSEUDO rows.
        points: of points.parquet.
        sent: table SENT of the export; None: the masks as they are now count as sent.
    """
    names = dict(zip(*(weak.images[key].to_pylist() for key in ("image_id", "file_name")), strict=True))
    classes = {category.id: category.name for category in weak.categories}
    found: dict[str, Known] = {}
    rows = pseudo.select(["point_id", "image_id", "category_id", "refined_rle", "rough_rle"])
    for batch in rows.to_batches(10_000):
        for row in batch.to_pylist():
            counts = row["refined_rle"] or row["rough_rle"] or b""
            found[row["point_id"]] = Known(names[row["image_id"]], classes[row["category_id"]], counts, False)
    for one in present_objects(pseudo, points, weak, decisions):
        found[one.object] = Known(names[one.image_id], classes[one.category_id], one.counts, sent is None)
    for row in () if sent is None else sent.to_pylist():
        facts = row["image"], row["category"], row["rle_counts"]
        name = row["object_id"] or _new_id(*facts)
        found[name] = Known(*facts, is_sent=True, is_object=row["object_id"] is not None or name in found)
    return found


def plan_import(
    path: Path,
    corrections: Corrections,
    known: Mapping[str, Known],
    decisions: Sequence[Decision],
    reviewer: str,
    reviewed: str,
    skip_contradicted: bool = False,
) -> Plan:
    """The decisions of a reviewer that make the project's objects those of the file.

    A decision that is the reviewer's last word already, or that was imported from the same file, isn't made again,
    unless all decisions of the file are undone.

    Args:
        path: the file, or folder, of the corrections.
        reviewed: one of `REVIEWED`.
        skip_contradicted: leave out objects on which another reviewer decided otherwise; False: they are faults.
    """
    plan = Plan(faults=list(corrections.faults))
    digest = digest_of(path)
    words = last_words(decisions)
    before = (
        {
            _key(one.action, one.object, one.mask, one.category)
            for one in decisions
            if one.reviewer == reviewer and one.imported == digest
        }
        if imported_by(decisions, reviewer, digest)
        else set()
    )
    objects_of: dict[str, dict[str, Known]] = {}
    for name, one in known.items():
        objects_of.setdefault(one.image, {})[name] = one
    _check_ids(path, corrections.images, known, plan)
    for image in corrections.images:
        plan.counts["images"] += 1
        plan.counts["marked"] += image.is_marked
        changes, unchanged = _compare(image, objects_of.get(image.file_name, {}), plan)
        counts_as = reviewed == "all" or image.is_marked or (reviewed == "changed" and bool(changes))
        plan.counts["unchanged"] += len(unchanged)
        accepts = [_accept(name, known[name], mask) for name, mask in unchanged] if counts_as else []
        for action, name, fields in [*changes, *accepts]:
            word = words.get(name, {}).get(reviewer, Word())
            key = _key(action, name, fields.get("mask"), fields.get("category"))
            if key in before or _is_said(action, fields, word):
                plan.counts["known"] += 1
                continue
            row = {"image": image.file_name, "object": name, **fields, "imported": digest}
            plan.decisions.append((action, row))  # type: ignore[arg-type]
            before.add(key)  # the same new object twice is one
    _check_contradictions(path, plan, words, decisions, reviewer, skip_contradicted)
    return plan


def imported_by(decisions: Sequence[Decision], reviewer: str, digest: str) -> list[Decision]:
    """A reviewer's decisions from a file, by its hash, that aren't undone; in the order of their lines."""
    own = [one for one in decisions if one.reviewer == reviewer]
    return [one for one in without_undone(own)[0] if one.imported == digest]


def digest_of(path: Path) -> str:
    """16 hex digits, of the content of a file or of all files of a folder.

    Raises:
        DataError: it can't be read.
    """
    found = hashlib.sha256()
    try:
        for name in list_files(path) if path.is_dir() else [""]:
            content = (path / name).read_bytes()
            found.update(f"{name}\0{len(content)}\0".encode() + content)
    except OSError as error:
        step = "name another file"
        shown = f"unreadable ({error.strerror or error})"
        raise DataError(Fault(str(path), "file", shown, "an export of a label tool", step)) from None
    return found.hexdigest()[:16]


def _key(action: str, name: str | None, mask: Mask | None, category: str | None) -> tuple[object, ...]:
    return action, name, mask, category


def _is_said(action: str, fields: Mapping[str, Any], word: Word) -> bool:
    """Whether it is the reviewer's last word already. A verdict of any kind is more than an object unchanged."""
    if action == "accept":
        return word.verdict is not None
    if action == "reject":
        return word.verdict is not None and word.verdict.action == "reject"
    if action == "class":
        return word.category is not None and word.category.category == fields["category"]
    if action == "add":
        return word.added is not None
    return word.verdict is not None and word.verdict.mask == fields["mask"]


def _id_of(one: Corrected, known: Mapping[str, Known]) -> str | None:
    if one.point_id is not None:
        return one.point_id
    return next((name for name in one.tool_ids if name in known), None)


def _check_ids(path: Path, images: Iterable[CorrectedImage], known: Mapping[str, Known], plan: Plan) -> None:
    """Ids that are there twice, of another image, or unknown."""
    first: dict[str, str] = {}
    for image in images:
        for one in image.objects:
            name = _id_of(one, known)
            if name is None:
                continue
            record = f"image {image.file_name!r}, {one.record}"[:200]
            if name in first:
                found, expected = f"object {name} again, after {first[name]}", "each id once"
                step = "empty the point_id of the copy, or of the smaller part; then it is a new object"
            elif name not in known:
                found, expected = f"object {name}", "an object of the project"
                step = "empty its point_id; then it is matched by its mask, or a new object"
            elif known[name].image != image.file_name:
                found, expected = f"object {name}", f"it on image {known[name].image!r}"
                step = "remove it here, or empty its point_id"
            else:
                first[name] = record
                continue
            plan.faults.append(Fault(str(path), record, found, expected, step))


def _accept(name: str, one: Known, mask: Mask) -> tuple[str, str, dict[str, Any]]:
    """Of an object that didn't change."""
    if one.is_object:
        return "accept", name, {"mask": mask}
    return "add", name, {"category": one.category, "mask": mask, "source": "brush"}


def _compare(
    image: CorrectedImage, own: Mapping[str, Known], plan: Plan
) -> tuple[list[tuple[str, str, dict[str, Any]]], list[tuple[str, Mask]]]:
    """What changed on an image, as action, object and fields; and objects whose mask didn't change, with that mask."""
    pairs: list[tuple[Corrected, str]] = []
    rest: list[Corrected] = []
    taken: set[str] = set()
    for one in image.objects:
        name = _id_of(one, own)
        if name is not None and name in own and name not in taken:
            pairs.append((one, name))
            taken.add(name)
            plan.counts["matched_by_id"] += 1
        else:
            rest.append(one)
    candidates = [name for name, one in own.items() if one.counts and name not in taken]
    matched = dict(_matched(rest, candidates, own, image))
    for index, name in matched.items():
        pairs.append((rest[index], name))
        taken.add(name)
        plan.counts["matched_by_iou"] += 1
    added = [one for n, one in enumerate(rest) if n not in matched]
    changes: list[tuple[str, str, dict[str, Any]]] = []
    unchanged: list[tuple[str, Mask]] = []
    for one, name in pairs:
        before = own[name]
        same = before.counts and is_same(one, before.counts, image.height, image.width)
        if not before.is_object and not (same and one.category == before.category):
            added.append(one)
            continue
        if same:
            unchanged.append((name, Mask(image.height, image.width, before.counts)))
        else:
            mask = Mask(image.height, image.width, one.counts)
            changes.append(("mask", name, {"mask": mask, "source": _source(one)}))
        if one.category not in ("", before.category):
            changes.append(("class", name, {"category": one.category}))
    gone = [name for name, one in own.items() if one.is_sent and one.is_object and name not in taken]
    changes += [("reject", name, {}) for name in gone]
    for one in added:
        mask = Mask(image.height, image.width, one.counts)
        fields = {"category": one.category, "mask": mask, "source": _source(one)}
        changes.append(("add", _new_id(image.file_name, one.category, one.counts), fields))
    return changes, unchanged


def _source(one: Corrected) -> str:
    return "polygon" if one.is_polygon else "brush"


def _new_id(image: str, category: str, counts: bytes) -> str:
    """The id of an added object: the same one whenever the file is imported."""
    content = f"{image}\0{category}\0".encode() + counts
    return "added-" + hashlib.sha256(content).hexdigest()[:16]


def _matched(
    rest: Sequence[Corrected], candidates: Sequence[str], own: Mapping[str, Known], image: CorrectedImage
) -> list[tuple[int, str]]:
    """Pairs of the highest IoU, from `MIN_IOU` on, each object once: the index in `rest`, and the object."""
    if not rest or not candidates:
        return []
    size = [image.height, image.width]
    ious = coco_mask.iou(
        [{"size": size, "counts": one.counts} for one in rest],
        [{"size": size, "counts": own[name].counts} for name in candidates],
        [0] * len(candidates),
    )
    rows, columns = np.nonzero(ious >= MIN_IOU)
    order = sorted(zip(rows.tolist(), columns.tolist(), strict=True), key=lambda at: (-ious[at], at))
    found: dict[int, int] = {}
    for row, column in order:
        if row not in found and column not in found.values():
            found[row] = column
    return [(row, candidates[column]) for row, column in sorted(found.items())]


def is_same(one: Corrected, sent: bytes, height: int, width: int) -> bool:
    """Whether a mask came back unchanged: bit for bit, or, of a polygon, with no pixel more than one from the outline.

    Tools keep the pixels of painted masks, and round the corners of polygons.
    """
    if one.counts == sent:
        return True
    if not one.is_polygon:
        return False
    back, before = decode(one.counts, height, width), decode(sent, height, width)
    around = np.ones((3, 3), np.uint8)
    whole = np.pad(before.astype(np.uint8), 1, mode="edge")
    outer = cv2.dilate(whole, around)[1:-1, 1:-1] > 0
    inner = cv2.erode(whole, around)[1:-1, 1:-1] > 0
    share = (back & before).sum() / (back | before).sum()
    return bool((back <= outer).all() and (back >= inner).all() and share >= MIN_IOU)


def _check_contradictions(
    path: Path,
    plan: Plan,
    words: Mapping[str, Mapping[str, Word]],
    decisions: Sequence[Decision],
    reviewer: str,
    skip: bool,
) -> None:
    """Faults for objects on which the reviewer would contradict another one; with `skip` they are left out."""
    planned: dict[str, list[Decision]] = {}
    for action, fields in plan.decisions:
        planned.setdefault(fields["object"], []).append(Decision("new", now(), reviewer, action, **fields))
    before: dict[str, list[Decision]] = {}
    for one in without_undone([one for one in decisions if one.reviewer == reviewer])[0]:
        if one.object in planned:
            before.setdefault(str(one.object), []).append(one)
    left_out: set[str] = set()
    for name, new in planned.items():
        others = {who: word for who, word in words.get(name, {}).items() if who != reviewer}
        after = {**others, reviewer: last_word([*before.get(name, []), *new])}
        other = contradictions(after).get(reviewer)
        if other is None:
            continue
        left_out.add(name)
        if not skip:
            what = " and ".join(
                one.action + (f" {one.category}" if one.action == "class" else "") for one in new
            )
            record = f"image {new[0].image!r}, object {name}"[:200]
            step = "agree with them, or leave such objects out with --skip-contradicted"
            plan.faults.append(Fault(str(path), record, f"{what}; {other}", "no contradiction", step))
    if left_out and skip:
        plan.decisions = [row for row in plan.decisions if row[1]["object"] not in left_out]
        plan.counts["skipped"] = len(left_out)
