"""Some images of a split, sent to another machine: their rows, and their files or the address that has them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data.errors import DataError
from data.images.content import read_content
from data.remote.known import fetch_known
from data.storage import is_s3, join
from data.tables import INSTANCES, Category, Split, write_split
from tasks.common.config import Params


class SplitPart(NamedTuple):
    """n images of a split."""

    images: pa.Table
    """their rows of IMAGES, ascending"""
    instances: pa.Table
    """INSTANCES of these images, or none"""
    categories: list[Category]
    image_root: str
    """that of the split, for messages"""
    source: str | None
    """s3://BUCKET/PREFIX that has the files, or None"""
    contents: list[bytes]
    """of the n files, without `source`"""

    def in_memory(self) -> Split:
        """The part as a split whose files aren't there."""
        return Split(Path(), self.images, self.instances, self.categories, self.image_root)


class OpenedPart(NamedTuple):
    """A part as a split in a temporary folder."""

    split: Split
    missing: list[int]
    """rows whose file `source` doesn't have as it was ingested"""
    prefix: str
    """the start of the files' paths"""
    shown: str
    """the start of their paths where the part was made"""

    def fault(self, text: str) -> str:
        """The text with the path of an image where the part was made."""
        return text.replace(self.prefix, self.shown)


def without_files(split: Split, rows: Sequence[int]) -> SplitPart:
    """Rows and instances of images."""
    instances = pa.concat_tables([split.instances.slice(0, 0), *map(split.instances_of, rows)])
    copied = instances.take(pa.array(np.arange(len(instances))))  # a slice would be sent with the whole table
    return with_source(split, rows, "")._replace(instances=copied, source=None)


def with_source(split: Split, rows: Sequence[int], source: str) -> SplitPart:
    """Images whose files are in S3."""
    images = split.images.take(pa.array(rows, pa.int64()))
    return SplitPart(images, INSTANCES.empty_table(), split.categories, split.image_root, source, [])


def with_files(split: Split, rows: Sequence[int]) -> tuple[SplitPart, dict[int, str]]:
    """Images with their files; and, by row, why files can't be read. The part doesn't have these images."""
    contents: list[bytes] = []
    faults: dict[int, str] = {}
    for row in rows:
        digest = split.images["sha256"][row].as_py()
        try:
            contents.append(read_content(split.image_path(row), os.open, digest))
        except DataError as error:
            faults[row] = str(error)
    part = with_source(split, [row for row in rows if row not in faults], "")
    return part._replace(source=None, contents=contents), faults


def source_of(params: Params) -> str | None:
    """The `source` of the parts, by `ingest.images`. No result depends on it: each file is known by its hash."""
    images = params.ingest.images
    return images if is_s3(images) else None


@contextmanager
def opened(part: SplitPart) -> Iterator[OpenedPart]:
    """The part as a split in a temporary folder.

    Raises:
        S3Error: the server can't be used.
    """
    with tempfile.TemporaryDirectory(prefix="points2model-") as scratch:
        root, names = Path(scratch) / "images", part.images["uri"].to_pylist()
        root.mkdir()
        missing: list[int] = []
        if part.source is not None:
            digests = dict(zip(names, part.images["sha256"].to_pylist(), strict=True))
            gone = set(fetch_known(part.source, digests, root))
            missing = [n for n, name in enumerate(names) if name in gone]
        for name, content in zip(names, part.contents, strict=False):
            path = join(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        folder = Path(scratch) / "split"
        write_split(folder, part.images, part.instances, part.categories, str(root))
        yield OpenedPart(Split.open(folder), missing, _prefix(root), _prefix(part.image_root))


def _prefix(root: str | Path) -> str:
    return str(Path(root) / "x").removesuffix("x")
