"""CVAT XML 1.1 for images, masks as painted masks: to be uploaded to a task that has the same images and labels.

Score and point_id are attributes. CVAT leaves out those that the task's labels don't have; `write_labels` writes labels
that have them, for the constructor of a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from data.annotations.frames import Frame, Label
from data.annotations.strict_json import to_json
from data.annotations.writers.colors import colors
from data.masks import rle
from data.storage import atomic_write
from data.tables import Category

REVIEWED = "reviewed"
"""The tag by which a person marks an image as reviewed."""
ATTRIBUTES = ("point_id", "score")


def write_cvat(path: Path, frames: Iterable[Frame], categories: Sequence[Category]) -> None:
    """Writes an image at a time."""
    names = {category.id: category.name for category in categories}
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        labels = "".join(f"<label><name>{escape(c.name)}</name></label>" for c in sorted(categories))
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        file.write(f"<meta><task><labels>{labels}</labels></task></meta>\n")
        for n, frame in enumerate(frames):
            file.write(
                f'<image id="{n}" name={quoteattr(frame.file_name)} width="{frame.width}" height="{frame.height}">\n'
            )
            file.writelines(_mask(label, frame, names[label.category_id]) for label in frame.labels)
            file.write("</image>\n")
        file.write("</annotations>\n")


def _mask(label: Label, frame: Frame, name: str) -> str:
    """A painted mask: lengths of runs off, on, off, ... along the rows of its box; empty for an empty mask."""
    x, y, w, h = (int(value) for value in rle.bbox_xywh(label.counts, frame.height, frame.width))
    if not w or not h:
        return ""
    pixels = rle.decode(label.counts, frame.height, frame.width)[y : y + h, x : x + w].ravel()
    changes = np.flatnonzero(
        np.diff(pixels, prepend=False)
    ).tolist()  # the first run is off, maybe of no pixels
    lengths = np.diff([0, *changes, len(pixels)]).tolist()
    runs = ", ".join(map(str, lengths))
    attributes = "".join(
        f"<attribute name={quoteattr(key)}>{escape(str(value))}</attribute>"
        for key, value in label.attributes().items()
    )
    return (
        f'<mask label={quoteattr(name)} source="auto" occluded="0" rle="{runs}" '
        f'left="{x}" top="{y}" width="{w}" height="{h}" z_order="0">{attributes}</mask>\n'
    )


def write_labels(path: Path, categories: Sequence[Category]) -> None:
    """A task's labels as JSON for CVAT's constructor ("Raw"): the classes with attributes, and a tag for images."""
    classes = sorted(categories)
    attributes = [
        {"name": name, "input_type": "text", "mutable": False, "values": [""], "default_value": ""}
        for name in ATTRIBUTES
    ]
    labels: list[dict[str, Any]] = [
        {"name": category.name, "color": color, "type": "any", "attributes": attributes}
        for category, color in zip(classes, colors(len(classes)), strict=True)
    ]
    if all(category.name != REVIEWED for category in classes):
        labels.append({"name": REVIEWED, "color": "#808080", "type": "tag", "attributes": []})
    with atomic_write(path) as partial:
        partial.write_text("[" + ",\n ".join(map(to_json, labels)) + "]\n", encoding="utf-8")
