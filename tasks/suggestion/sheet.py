"""The contact sheet: a page of the chosen images, with masks and reasons. It needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.annotations.frames import Frame
from data.images.jpeg import to_jpeg
from data.images.read import read_image
from data.masks import rle
from data.storage import atomic_write
from data.tables import Category
from tasks.reporting.page import templates
from tasks.tools.pictures import draw

SHOWN = 100
"""Images at most, the first ones: a page of 100 has 6 MB."""
SIDE = 640
JPEG_QUALITY = 80


def write_sheet(
    path: Path,
    summary: dict[str, Any],
    frames: Sequence[Frame],
    files: Sequence[Path],
    categories: Sequence[Category],
) -> None:
    """Writes the page.

    Args:
        summary: the content of suggestion.json.
        frames, files: of the chosen images, in their order.
    """
    names = {category.id: category.name for category in categories}
    cards = [
        {
            **facts,
            "masks": len(frame.labels),
            "picture": base64.b64encode(_picture(file, frame, names)).decode("ascii"),
        }
        for facts, frame, file in zip(summary["images"][:SHOWN], frames, files, strict=False)
    ]
    page = templates(Path(__file__).parent).get_template("sheet.html.j2").render(summary=summary, cards=cards)
    with atomic_write(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


def _picture(file: Path, frame: Frame, names: dict[int, str]) -> bytes:
    rows = [
        {
            "category_id": label.category_id,
            "score": 1.0 if label.score is None else label.score,
            "bbox": rle.bbox_xywh(label.counts, frame.height, frame.width),
            "segmentation": {"size": [frame.height, frame.width], "counts": label.counts.decode("ascii")},
        }
        for label in frame.labels
    ]
    return to_jpeg(np.asarray(draw(read_image(file), rows, names)), SIDE, JPEG_QUALITY)
