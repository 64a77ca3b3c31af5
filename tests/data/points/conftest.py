"""A weak split of four images, two of one bare name, and a reader of one point file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.points import IMPORTERS, SNIFFED, Options, PointFile, PointRecord
from data.points.record import Unit
from data.tables import IMAGES, INSTANCES, Category, Split, write_split

IMAGE_ROWS = [
    (1, "a.png", 40, 24),
    (2, "night/b.png", 40, 24),
    (3, "day/b.png", 40, 24),
    (4, "night/c.png", 8, 8),
]

Read = Callable[..., list[PointRecord | Unit]]


@pytest.fixture
def weak(tmp_path: Path) -> Split:
    rows = [
        dict(zip(IMAGES.names, (i, name, name, w, h, "", "weak", "point", "ok"), strict=True))
        for i, name, w, h in IMAGE_ROWS
    ]
    images = pa.Table.from_pylist(rows, schema=IMAGES)
    categories = [Category(5, "bolt"), Category(9, "washer")]
    write_split(tmp_path / "weak", images, INSTANCES.empty_table(), categories, "images")
    return Split.open(tmp_path / "weak")


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes a document (bytes, text, or what becomes JSON) and gives what an importer reads in it."""

    def reader(
        importer: str, document: Any, name: str = "clicks", options: Options = SNIFFED
    ) -> list[PointRecord | Unit]:
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(document, bytes):
            path.write_bytes(document)
        else:
            path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
        file = PointFile(path, name)
        assert IMPORTERS[importer].sniff(file, options)
        return list(IMPORTERS[importer].read(file, options))

    return reader
