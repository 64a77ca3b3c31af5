"""The masks as they are now: pseudo masks with the decisions of reviewers that were made so far.

The decisions are those in the project's folder, not those that the last run honoured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from data.annotations.coco.file import tidy
from data.annotations.frames import Frame, Label
from data.decisions.record import Decision
from data.decisions.words import Word, contradictions, joined, last_words
from data.points.lookup import Categories, Images
from data.tables import Split

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
    weak: Split,
    decisions: Iterable[Decision],
    masks: str = "refined",
    min_score: float = 0.0,
) -> list[Present]:
    """The objects that have a mask, by image_id and object.

    Masks that were accepted or drawn take the place of pseudo masks, rejected objects are left out, and classes are
    those that reviewers gave. Where reviewers contradict each other, the object counts as undecided, as in a run.

    Args:
        pseudo: PSEUDO rows.
        masks: `refined`: the refined mask of a pseudo label, or the rough one if there is none; `rough`.
        min_score: pseudo masks of a lower score are left out, if nobody decided on them.
    """
    before: dict[str, Present] = {}  # without counts: objects that have no mask
    for batch in pseudo.select(_COLUMNS).to_batches(10_000):
        for row in batch.to_pylist():
            counts = (row["refined_rle"] if masks == "refined" else None) or row["rough_rle"]
            usable = row["status"] in ("ok", "rough") and counts
            before[row["point_id"]] = Present(
                row["point_id"],
                row["image_id"],
                row["category_id"],
                counts if usable else b"",
                tidy(row["score"]) if usable else None,
                False,
            )
    named = _Named(weak)
    after = dict(before)
    for name, words in last_words(decisions).items():
        if not contradictions(words):
            word = joined(list(words.values()))
            one = named.decided(before.get(name) or named.added(name, word), word)
            if one is None:
                after.pop(name, None)
            else:
                after[name] = one
    kept = [one for one in after.values() if one.counts and (one.reviewed or (one.score or 0.0) >= min_score)]
    return sorted(kept, key=lambda one: (one.image_id, one.object))


class _Named:
    """Decisions name images and classes; decisions on unknown ones change nothing, as in a run."""

    def __init__(self, weak: Split) -> None:
        self.categories, self.images = Categories(weak, None), Images(weak)
        sides = (weak.images[name].to_pylist() for name in ("image_id", "height", "width"))
        self.sizes = {image_id: (height, width) for image_id, height, width in zip(*sides, strict=True)}

    def added(self, name: str, word: Word) -> Present | None:
        """An object that a reviewer added, without its mask."""
        if word.added is None:
            return None
        image_id, category_id = self.images.find(word.added.image), self.categories.find(word.added.category)
        if not (isinstance(image_id, int) and isinstance(category_id, int)):
            return None
        return Present(name, image_id, category_id, b"", None, False)

    def decided(self, one: Present | None, word: Word) -> Present | None:
        """The object with a word on it; None if it was rejected."""
        if one is None or (word.verdict is not None and word.verdict.action == "reject"):
            return None
        mask = None if word.verdict is None else word.verdict.mask
        if mask is not None and self.sizes.get(one.image_id) == (mask.height, mask.width):
            one = one._replace(counts=mask.counts, score=None, reviewed=True)
        if word.category is not None:
            category_id = self.categories.find(word.category.category)
            one = one._replace(category_id=category_id) if isinstance(category_id, int) else one
        return one


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
