"""What `export` writes is read back: classes, areas, and crowds where the format has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.annotations.detect import format_of
from data.annotations.export import EXPORTS, write_frames
from data.annotations.frames import Frame, ImageFolder, Label, name_id
from data.masks import rle
from data.tables import Category
from tests.data.annotations.formats.conftest import HEIGHT, WIDTH, read

CLASSES = [Category(3, "cat"), Category(7, "dog")]


def frame(name: str, *boxes: tuple[int, int, int, int, int]) -> Frame:
    """Rectangles: class, x, y, width, height."""
    labels = []
    for category_id, x, y, w, h in boxes:
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[y : y + h, x : x + w] = True
        labels.append(Label(1000 * category_id + x, category_id, rle.encode(mask)))
    return Frame(name_id(name), name, WIDTH, HEIGHT, tuple(labels))


FOUND = {"a": [("cat", 54, (3, 2, 9, 6)), ("dog", 28, (14, 10, 7, 4))], "b": [("dog", 30, (1, 5, 6, 5))]}


# Those of Label Studio are predictions, which no one confirmed: the tool's own export of annotations is read.
UNREAD = ("coco-results", "bdd-bitmask", "label-studio")


@pytest.mark.parametrize("format", [name for name in EXPORTS if name not in UNREAD])
def test_own_exports(tmp_path: Path, images: Callable[..., ImageFolder], format: str) -> None:
    frames = [frame("a.jpg", (3, 3, 2, 9, 6), (7, 14, 10, 7, 4)), frame("b.jpg", (7, 1, 5, 6, 5))]
    (tmp_path / "out").mkdir()
    write_frames(tmp_path / "out", "val", format, frames, CLASSES)
    (path,) = (tmp_path / "out").iterdir()
    assert format_of(path) == format
    expected = FOUND
    if format == "label-maps":  # their classes are in a table of its own
        expected = {image: [("object", *row[1:]) for row in rows] for image, rows in FOUND.items()}
    assert read(path, images()) == {image: sorted(rows) for image, rows in expected.items()}
