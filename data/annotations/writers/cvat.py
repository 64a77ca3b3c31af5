"""CVAT XML 1.1 for images, masks as painted masks: to be uploaded to a task that has the same images and labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from data.annotations.frames import Frame, Label
from data.masks import rle
from data.storage import atomic_write
from data.tables import Category


def write_cvat(path: Path, frames: Iterable[Frame], categories: Sequence[Category]) -> None:
    """Writes an image at a time. Scores aren't written: CVAT takes only attributes that the task's labels have."""
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
    return (
        f'<mask label={quoteattr(name)} source="auto" occluded="0" rle="{runs}" '
        f'left="{x}" top="{y}" width="{w}" height="{h}" z_order="0"></mask>\n'
    )
