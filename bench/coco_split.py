"""A split made of a COCO file whose images need not be looked at: what benchmarks and tests of loaders begin with."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from data.annotations.coco.file import read_coco, to_instances
from data.tables import IMAGES, Split, write_split


def split_of_coco(path: Path, images: Path, out: Path) -> Split:
    """Writes the file's images and instances as a split into folder `out`; images count as they are recorded."""
    coco = read_coco(path, keep_annotations=False)
    rows = [
        (
            row["id"],
            row["file_name"],
            row["file_name"],
            row["width"],
            row["height"],
            "",
            "strong",
            "mask",
            "ok",
        )
        for row in coco.images
    ]
    table = pa.Table.from_pylist([dict(zip(IMAGES.names, row, strict=True)) for row in rows], schema=IMAGES)
    write_split(out, table, to_instances(coco), coco.categories, str(images))
    return Split.open(out)
