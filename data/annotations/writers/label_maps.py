"""Label maps: a 16-bit PNG an image, IMAGE_masks.png, with the number of the object at each pixel, 0 for none.

objects.csv has each object's class and score. Cellpose, StarDist, napari and ImageJ open such maps.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data.annotations.bitmasks import Drawn
from data.annotations.frames import Frame
from data.annotations.writers.names import NewFiles
from data.errors import DataError, Fault
from data.masks import rle
from data.tables import Category
from data.text import safe_cell

MOST = 65_535
COLUMNS = ("file", "number", "class", "score")


def write_label_maps(folder: Path, frames: Iterable[Frame], categories: Sequence[Category]) -> Drawn:
    """Writes into `folder`; numbers are 1, 2, ... in the order of the labels. Of masks that overlap the one with the
    higher score is on top, then the later one; a label that is covered completely has no pixel.

    Raises:
        DataError: more than 65,535 masks on an image; two images whose names differ only in their suffix.
    """
    names = {category.id: category.name for category in categories}
    files, drawn = NewFiles(folder / "maps", "_masks.png"), Drawn()
    with (folder / "objects.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for frame in frames:
            if len(frame.labels) > MOST:
                found = (f"{len(frame.labels):,} masks", f"at most {MOST:,}", "export another format")
                raise DataError(Fault("export", f"image {frame.file_name!r}", *found))
            path = files.path(frame)
            numbers = _draw(frame, drawn)
            Image.fromarray(numbers).save(path, format="PNG")
            drawn.images += 1
            present = set(np.unique(numbers).tolist())
            for n, label in enumerate(frame.labels, start=1):
                if n in present:
                    row = [path.relative_to(folder).as_posix(), n, names[label.category_id], label.score]
                    table.writerow([safe_cell("" if cell is None else cell) for cell in row])
                    drawn.labels += 1
                else:
                    drawn.hidden.append((frame.file_name, label.label_id))
    return drawn


def _draw(frame: Frame, drawn: Drawn) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    """uint16 [H, W]; counts covered pixels."""
    numbers = np.zeros((frame.height, frame.width), np.uint16)
    order = sorted(
        enumerate(frame.labels, start=1), key=lambda one: -1.0 if one[1].score is None else one[1].score
    )
    for n, label in order:  # the lowest first
        rows, columns = rle.object_pixels(label.counts, frame.height)
        drawn.covered_pixels += int(np.count_nonzero(numbers[rows, columns]))
        numbers[rows, columns] = n
    return numbers
