"""A random sample of pseudo masks, judged by people: how many masks are right, without the bias of worst first.

The sample is drawn once and kept in the folder of decisions, so that all reviewers and later sessions judge the same
objects. Only decisions that name it count for the estimate (`Decision.audit`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data.annotations.strict_json import load_json
from data.decisions.record import Decision, now
from data.decisions.store import AUDIT
from data.decisions.words import Word, last_words
from data.errors import DataError, Fault
from data.storage import atomic_write
from data.tables import Category, Split

FORMAT = 1
_COLUMNS = ("point_id", "image_id", "category_id", "status", "rough_rle", "refined_rle")


class Sampled(NamedTuple):
    """An object of the sample: a point's id, its image's file_name, its class, and a hash of its mask."""

    object: str
    image: str
    category: str
    mask: str


class Sample(NamedTuple):
    """A random sample of pseudo masks.

    Attributes:
        id: a hash of its content.
        drawn: when, UTC.
        seed: of the draw.
        population: masks of each class, from which it was drawn.
        objects: in random order.
    """

    id: str
    drawn: str
    seed: int
    population: dict[str, int]
    objects: tuple[Sampled, ...]


def draw_sample(masks: Sequence[Sampled], count: int, seed: int) -> Sample:
    """Draws without replacement, by class: half of the sample is spread evenly over the classes, half by their sizes.

    The same masks and seed give the same sample.

    Args:
        masks: all pseudo masks.
        count: of the sample; all masks if there are fewer.
    """
    by_class: dict[str, list[Sampled]] = {}
    for one in masks:
        by_class.setdefault(one.category, []).append(one)
    population = {name: len(by_class[name]) for name in sorted(by_class)}
    chosen: list[Sampled] = []
    for name, size in shares(population, count).items():
        chosen += sorted(by_class[name], key=lambda one: _number(seed, "draw", one.object))[:size]
    chosen.sort(key=lambda one: _number(seed, "order", one.object))
    content = json.dumps([seed, population, chosen], sort_keys=True).encode()
    return Sample(hashlib.sha256(content).hexdigest()[:16], now(), seed, population, tuple(chosen))


def shares(population: Mapping[str, int], count: int) -> dict[str, int]:
    """How many objects of each class are drawn: `count` in all, or all that there are."""
    total = sum(population.values())
    if count >= total:
        return dict(population)
    wanted = {name: count / 2 * (size / total + 1 / len(population)) for name, size in population.items()}
    found = {name: min(int(wanted[name]), size) for name, size in population.items()}
    while (left := count - sum(found.values())) > 0:
        open_ = [name for name, size in population.items() if found[name] < size]
        # The largest remainder first; a class that is exhausted leaves its part to the others.
        open_.sort(key=lambda name: (found[name] - wanted[name], name))
        for name in open_[:left]:
            found[name] += 1
    return found


def _number(seed: int, purpose: str, name: str) -> str:
    return hashlib.sha256(f"{seed} {purpose} {name}".encode()).hexdigest()


def masks_of(pseudo: Iterable[pa.Table], weak: Split) -> list[Sampled]:
    """All pseudo masks that there are: PSEUDO rows with a mask, refined or rough, by object.

    Args:
        pseudo: tables or batches PSEUDO.
    """
    names = dict(zip(*(weak.images[key].to_pylist() for key in ("image_id", "file_name")), strict=True))
    rows = _with_masks(pseudo, weak.categories)
    return sorted(Sampled(name, names[image_id], *facts) for name, image_id, *facts in rows)


def present_masks(pseudo: Iterable[pa.Table], categories: Sequence[Category]) -> dict[str, tuple[str, str]]:
    """Class and hash of the mask of each object that has one."""
    return {name: (category, mask) for name, _, category, mask in _with_masks(pseudo, categories)}


def _with_masks(
    pseudo: Iterable[pa.Table], categories: Sequence[Category]
) -> Iterator[tuple[str, int, str, str]]:
    """Object, image_id, class and hash of the mask."""
    classes = {category.id: category.name for category in categories}
    for table in pseudo:
        for row in table.select(list(_COLUMNS)).to_pylist():
            counts = row["refined_rle"] or row["rough_rle"]
            if row["status"] in ("ok", "rough") and counts:
                yield row["point_id"], row["image_id"], classes[row["category_id"]], hash_of(counts)


def hash_of(counts: bytes) -> str:
    """16 hex digits of a compressed RLE."""
    return hashlib.sha256(counts).hexdigest()[:16]


def write_sample(folder: Path, sample: Sample) -> None:
    """Writes it into the folder of decisions, in the place of an earlier one."""
    rows = [one._asdict() for one in sample.objects]
    document = {"format": FORMAT, **sample._asdict(), "objects": rows}
    with atomic_write(folder / AUDIT) as partial:
        partial.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_sample(folder: Path) -> Sample | None:
    """The sample in a folder of decisions; None if there is none.

    Raises:
        DataError: the file is damaged, or of another version.
    """
    path = folder / AUDIT
    if not path.exists():
        return None
    document = load_json(path)
    try:
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}")
        objects = tuple(
            Sampled(**{name: str(row[name]) for name in Sampled._fields}) for row in document["objects"]
        )
        population = {str(name): int(size) for name, size in document["population"].items()}
        sample = Sample(
            str(document["id"]), str(document["drawn"]), int(document["seed"]), population, objects
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        step = "restore it from git, or draw another with `points2model review --audit N --redraw`"
        found = f"{type(error).__name__}: {error}"
        raise DataError(Fault(str(path), "file", found, f"a sample, format {FORMAT}", step)) from None
    unknown = sorted({one.category for one in objects} - population.keys())
    if unknown:
        step = "restore it from git"
        raise DataError(
            Fault(str(path), "objects", f"class {unknown[0]!r}", "classes of its population", step)
        )
    return sample


def judged(sample: Sample, decisions: Iterable[Decision]) -> dict[str, str]:
    """By object of the sample, if it was judged for it: `right`, why it is wrong (`rejected`, `drawn`, `clicks`,
    `class`), `disagreed` if reviewers differ, or `other_mask` if another mask than the sampled one was accepted.

    Args:
        decisions: of all reviewers, each one's in the order of its lines; those not made for this sample don't count.
    """
    found: dict[str, set[str]] = {}
    by_object = {one.object: one for one in sample.objects}
    words = last_words(decisions, lambda one: one.audit == sample.id and one.object in by_object)
    for name, of_reviewer in words.items():
        for word in of_reviewer.values():
            verdict = _verdict(word, by_object[name])
            if verdict is not None:
                found.setdefault(name, set()).add(verdict)
    result = {}
    for name, verdicts in sorted(found.items()):
        wrong = sorted(verdicts - {"right", "other_mask"})
        if wrong and "right" in verdicts:
            result[name] = "disagreed"
        else:
            result[name] = wrong[0] if wrong else "right" if "right" in verdicts else "other_mask"
    return result


def _verdict(word: Word, sampled: Sampled) -> str | None:
    if word.category is not None and word.category.category != sampled.category:
        return "class"
    if word.verdict is None:
        return None if word.clicks is None else "clicks"
    if word.verdict.action == "reject":
        return "rejected"
    mask = word.verdict.mask
    if word.verdict.action == "accept" and mask is not None:
        return "right" if hash_of(mask.counts) == sampled.mask else "other_mask"
    return "drawn"


def changed(objects: Iterable[Sampled], present: Mapping[str, tuple[str, str]]) -> list[str]:
    """Objects whose mask or class is another one now, or that are gone: what was judged isn't there any more."""
    return [one.object for one in objects if present.get(one.object) != (one.category, one.mask)]


def tally(sample: Sample, decisions: Iterable[Decision]) -> dict[str, Any]:
    """What import_points writes for evaluate: the sample, with the verdict on each object (null: none yet)."""
    verdicts = judged(sample, decisions)
    rows = [one._asdict() | {"verdict": verdicts.get(one.object)} for one in sample.objects]
    return {"id": sample.id, "drawn": sample.drawn, "population": sample.population, "objects": rows}
