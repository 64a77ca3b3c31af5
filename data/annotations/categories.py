"""Class lists of COCO, of BDD100K and of files."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from data.annotations.coco.checks import is_id
from data.annotations.strict_json import load_json
from data.errors import DataError, Fault
from data.tables import Category
from data.text import is_text

COCO = """
1 person, 2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat, 10 traffic light,
11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench, 16 bird, 17 cat, 18 dog, 19 horse, 20 sheep, 21 cow,
22 elephant, 23 bear, 24 zebra, 25 giraffe, 27 backpack, 28 umbrella, 31 handbag, 32 tie, 33 suitcase, 34 frisbee,
35 skis, 36 snowboard, 37 sports ball, 38 kite, 39 baseball bat, 40 baseball glove, 41 skateboard, 42 surfboard,
43 tennis racket, 44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl, 52 banana, 53 apple,
54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza, 60 donut, 61 cake, 62 chair, 63 couch,
64 potted plant, 65 bed, 67 dining table, 70 toilet, 72 tv, 73 laptop, 74 mouse, 75 remote, 76 keyboard,
77 cell phone, 78 microwave, 79 oven, 80 toaster, 81 sink, 82 refrigerator, 84 book, 85 clock, 86 vase, 87 scissors,
88 teddy bear, 89 hair drier, 90 toothbrush
"""
BDD100K = "1 pedestrian, 2 rider, 3 car, 4 truck, 5 bus, 6 train, 7 motorcycle, 8 bicycle"


def _parse(text: str) -> list[Category]:
    pairs = (entry.strip().split(" ", 1) for entry in text.split(","))
    return [Category(int(number), name) for number, name in pairs]


KNOWN = {"coco": _parse(COCO), "bdd100k": _parse(BDD100K)}
"""80 classes of COCO 2017, 8 of BDD100K's instance segmentation, with their official ids."""

BDD100K_NAMES = {
    "person": "pedestrian",
    "bike": "bicycle",
    "motor": "motorcycle",
    "van": "car",
    "caravan": "car",
}
"""Other names of classes in BDD100K's label files: its instance masks have person, never pedestrian."""

BDD100K_IGNORED = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}
"""Classes that BDD100K neither trains nor evaluates: they are regions to ignore of the given class."""


def numbered(count: int) -> list[Category]:
    """Classes 1..count whose names are their numbers."""
    return [Category(i, str(i)) for i in range(1, count + 1)]


def load_categories(source: str | os.PathLike[str]) -> list[Category]:
    """The classes of a known list (`coco`, `bdd100k`) or of a JSON file, sorted by id.

    The file is a COCO file with `categories`, or a list of {"id", "name"}.

    Raises:
        DataError: a missing file, not JSON, or all records without id or name, or with one of another record.
    """
    if str(source) in KNOWN:
        return KNOWN[str(source)]
    document = load_json(source)
    rows = document.get("categories") if isinstance(document, dict) else document
    expected = f'{", ".join(KNOWN)}, or a file with a list of {{"id", "name"}}, by itself or as "categories"'
    if not isinstance(rows, list) or not rows:
        raise DataError(Fault(str(source), "file", "no list of classes", expected, "correct the file"))
    faults = [
        Fault(
            str(source),
            f"category #{n}",
            repr(row)[:200],
            "a whole number as id, text that UTF-8 can hold as name",
            "correct it",
        )
        for n, row in enumerate(rows)
        if not _is_category(row)
    ]
    good = [Category(row["id"], row["name"]) for row in rows if _is_category(row)]
    for field in ("id", "name"):
        counts = Counter(getattr(category, field) for category in good)
        faults += [
            Fault(str(source), f"{field} {value!r}", f"{count} categories with it", "one", "correct them")
            for value, count in counts.items()
            if count > 1
        ]
    if faults:
        raise DataError(faults)
    return sorted(good)


def _is_category(row: Any) -> bool:
    return isinstance(row, dict) and is_id(row.get("id")) and is_text(row.get("name"))
