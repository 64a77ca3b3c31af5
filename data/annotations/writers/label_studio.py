"""Label Studio: tasks whose predictions are painted masks, and the labelling interface that shows them.

Masks are brushes, since a polygon of Label Studio is one ring: a brush keeps every pixel, parts and holes. A region's
id and its note (`meta.text`) are the point_id, by which a corrected export is matched; its score is the mask's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from data.annotations.frames import Frame, Label
from data.annotations.strict_json import to_json
from data.annotations.writers.colors import colors
from data.masks import rle
from data.storage import atomic_write
from data.tables import Category

LOCAL_FILES = "/data/local-files/?d="
"""The address of files that Label Studio's server reads from its own disk."""
TASKS, CONFIG = "tasks.json", "label_config.xml"
MODEL = "points2model"
BRUSH, POLYGON = "mask", "polygon"
"""Names of the interface's tags. Both have all classes: masks are shown by the first, and drawn by either."""
_LENGTH_BITS = (3, 4, 8, 16)


def write_label_studio(
    folder: Path, frames: Iterable[Frame], categories: Sequence[Category], image_url: str = LOCAL_FILES
) -> None:
    """Writes tasks.json, a task a line, and label_config.xml into `folder`.

    A task's score is that of its worst mask, so that Label Studio's list of tasks can be sorted by it.

    Args:
        image_url: what precedes an image's name in its address.
    """
    names = {category.id: category.name for category in categories}
    with atomic_write(folder / TASKS) as partial, partial.open("w", encoding="utf-8") as file:
        file.write("[")
        for n, frame in enumerate(frames):
            file.write((",\n" if n else "\n") + to_json(_task(frame, names, image_url)))
        file.write("\n]\n")
    (folder / CONFIG).write_text(label_config(categories), encoding="utf-8")


def label_config(categories: Sequence[Category]) -> str:
    """The labelling interface for these classes."""
    labels = "".join(
        f"    <Label value={quoteattr(c.name)} background={quoteattr(color)}/>\n"
        for c, color in zip(sorted(categories), colors(len(categories)), strict=True)
    )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true" zoomControl="true"/>\n'
        f'  <BrushLabels name="{BRUSH}" toName="image">\n{labels}  </BrushLabels>\n'
        f'  <PolygonLabels name="{POLYGON}" toName="image">\n{labels}  </PolygonLabels>\n</View>\n'
    )


def _task(frame: Frame, names: dict[int, str], image_url: str) -> dict[str, Any]:
    scores = [label.score for label in frame.labels if label.score is not None]
    prediction: dict[str, Any] = {
        "model_version": MODEL,
        "result": [_region(label, frame, names[label.category_id]) for label in frame.labels],
    }
    if scores:
        prediction["score"] = min(scores)
    data = {"image": image_url + quote(frame.file_name), "file_name": frame.file_name}
    return {"data": data, "predictions": [prediction]}


def _region(label: Label, frame: Frame, name: str) -> dict[str, Any]:
    region: dict[str, Any] = {
        "id": label.point_id or f"label-{label.label_id}",
        "type": "brushlabels",
        "from_name": BRUSH,
        "to_name": "image",
        "origin": "prediction",
        "original_width": frame.width,
        "original_height": frame.height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(label.counts, frame.height, frame.width), "brushlabels": [name]},
    }  # fmt: skip
    if label.score is not None:
        region["score"] = label.score
    if label.point_id is not None:
        region["meta"] = {"text": [label.point_id]}
    return region


def encode_brush(counts: bytes, height: int, width: int) -> list[int]:
    """Label Studio's run-length code for a brush, bytes as whole numbers; see `decode_brush` for its form.

    Args:
        counts: a compressed RLE of height x width pixels.
    """
    pixels = rle.decode(counts, height, width).ravel()
    begins = np.flatnonzero(np.diff(pixels, prepend=not pixels[0]))
    lengths = 4 * np.diff(begins, append=len(pixels))  # red, green, blue, alpha
    bits = [f"{4 * len(pixels):032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTH_BITS)]
    for length, value in zip(lengths.tolist(), pixels[begins].tolist(), strict=True):
        for begin in range(0, length, 1 << 16):
            run = min(length - begin, 1 << 16) - 1
            which = next(n for n, size in enumerate(_LENGTH_BITS) if run < 1 << size)
            bits.append(f"1{which:02b}{run:0{_LENGTH_BITS[which]}b}{255 if value else 0:08b}")
    text = np.frombuffer("".join(bits).encode("ascii"), np.uint8) - ord("0")
    code: list[int] = np.packbits(text).tolist()
    return code
