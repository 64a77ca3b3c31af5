"""The masks as they are now: pseudo masks with the decisions of reviewers that were made so far.

The decisions are those in the project's folder, not those that the last run honoured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from data.annotations.coco.file import tidy
from data.annotations.frames import Frame, Label
from data.decisions.record import Decision
from data.tables import Split
from tasks.intake.decisions import added_ids, apply_decisions
from tasks.intake.elsewhere import images_elsewhere

_COLUMNS = ("point_id", "image_id", "category_id", "status", "score", "rough_rle", "refined_rle")


class Present(NamedTuple):
    """An object that has a mask.

    Attributes:
        object: a point's id, or an added object's.
        counts: compressed RLE of the image's size.
        score: of a pseudo mask; None of a mask that a person accepted or drew.
        reviewed: whether a person accepted or drew the mask.
    """

    object: str
    image_id: int
    category_id: int
    counts: bytes
    score: float | None
    reviewed: bool


def present_objects(
    pseudo: pa.Table,
    points: pa.Table,
    weak: Split,
    decisions: Sequence[Decision],
    masks: str = "refined",
    min_score: float = 0.0,
) -> list[Present]:
    """The objects that have a mask, by image_id and object.

    Masks that were accepted or drawn take the place of pseudo masks, rejected objects are left out, and classes are
    those that reviewers gave. Decisions count as in a run (tasks/intake/decisions.py).

    Args:
        pseudo: PSEUDO rows.
        points: of points.parquet, as the last import_points left it.
        decisions: of all reviewers, each one's in the order of its lines.
        masks: `refined`: the refined mask of a pseudo label, or the rough one if there is none; `rough`.
        min_score: pseudo masks of a lower score are left out, if nobody decided on them.
    """
    added = added_ids(points)
    found: dict[str, Present] = {}  # without counts: objects that have no mask
    for batch in pseudo.select(_COLUMNS).to_batches(10_000):
        for row in batch.to_pylist():
            counts = (row["refined_rle"] if masks == "refined" else None) or row["rough_rle"]
            usable = row["status"] in ("ok", "rough") and counts
            found[row["point_id"]] = Present(
                row["point_id"],
                row["image_id"],
                row["category_id"],
                counts if usable else b"",
                tidy(row["score"]) if usable else None,
                False,
            )
    # Added objects are decisions like others: they are left out if they don't count any more.
    was_added = pc.is_in(points["point_id"], pa.array(sorted(added), pa.string()))
    imported = points.filter(pc.invert(was_added))
    table = apply_decisions(decisions, imported, weak, images_elsewhere(weak)).decisions
    gone = set(added)
    for row in table.filter(pc.equal(table["state"], "honoured")).to_pylist():
        name = row["object_id"]
        if row["action"] == "add":
            gone.discard(name)
        if name is not None:
            one = found.get(name) or Present(name, row["image_id"], row["category_id"], b"", None, False)
            found[name] = one._replace(category_id=row["category_id"])
            if row["rle_counts"]:
                found[name] = found[name]._replace(counts=row["rle_counts"], score=None, reviewed=True)
    gone |= set(table.filter(_rejects(table))["object_id"].to_pylist())
    kept = [
        one
        for one in found.values()
        if one.counts and one.object not in gone and (one.reviewed or (one.score or 0.0) >= min_score)
    ]
    return sorted(kept, key=lambda one: (one.image_id, one.object))


def _rejects(table: pa.Table) -> pa.ChunkedArray:
    return pc.and_(pc.equal(table["state"], "honoured"), pc.equal(table["action"], "reject"))


def frames_of_present(weak: Split, objects: Sequence[Present], also: Iterable[int] = ()) -> Iterator[Frame]:
    """The images that have objects, by image_id; label ids are numbers from 1, point_id is the object.

    Args:
        objects: in the order of `present_objects`.
        also: ids of images that are yielded too if they have none.
    """
    by_image: dict[int, list[Label]] = {image_id: [] for image_id in also}
    for n, one in enumerate(objects, start=1):
        label = Label(n, one.category_id, one.counts, score=one.score, point_id=one.object)
        by_image.setdefault(one.image_id, []).append(label)
    for image in weak.images.select(["image_id", "file_name", "width", "height"]).to_pylist():
        if image["image_id"] in by_image:
            labels = tuple(by_image[image["image_id"]])
            yield Frame(image["image_id"], image["file_name"], image["width"], image["height"], labels)
