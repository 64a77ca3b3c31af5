"""Images that are in two splits under different names: the same bytes, or near-duplicates.

A validation image that is in the training too raises AP; a weak image that is a strong one too has two masks for each
object.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data.images.similarity import SIDE, Thumbnails, near_duplicates, thumbnail
from data.tables import DataError, Fault, Split, read_arrow, write_arrow
from tasks.common.progress import Bar
from tasks.doctor.finding import Diagnosis

THUMBNAILS = pa.schema([("sha256", pa.string()), ("pixels", pa.binary(SIDE * SIDE))])
SAME_RATIO = 0.03
"""Relative difference of width / height up to which two images may be one: rounding of small sides."""


class _Pair(NamedTuple):
    """Two splits whose images must differ; `why` is what is expected."""

    first: str
    second: str
    check: str
    why: str


PAIRS = (
    _Pair("val", "strong", "val_leak", "images to measure on that aren't trained on"),
    _Pair("val", "weak", "val_leak", "images to measure on that aren't trained on"),
    _Pair("strong", "weak", "overlap", "each image once: with its masks, or with clicks"),
)


def check_leaks(splits: Mapping[str, Split], cache: Path, diagnosis: Diagnosis) -> None:
    """Warns of images in two splits; an image that can't be decoded is an error.

    Args:
        splits: strong, weak and val.
        cache: Arrow file of thumbnails by content, read and written.
    """
    used = {name: splits[name] for name in ("strong", "weak", "val")}
    known = _thumbnails(used, cache, diagnosis)
    for pair in PAIRS:
        first, second = used[pair.first], used[pair.second]
        same = _same_content(first, second)
        _warn(pair, "content", first, second, same, diagnosis)
        if known is not None:
            near = _near(first, second, known, {row for row, _ in same})
            _warn(pair, "near", first, second, near, diagnosis)


def _warn(
    pair: _Pair, kind: str, first: Split, second: Split, rows: list[tuple[int, int]], diagnosis: Diagnosis
) -> None:
    if not rows:
        return
    names = [split.images["file_name"].to_pylist() for split in (first, second)]
    examples = [f"{names[0][a]} = {names[1][b]}" for a, b in rows]
    how = "the same bytes as" if kind == "content" else "near-duplicates (re-encoded, resized) of"
    step = f"take them out of ingest.{pair.first}" if kind == "content" else (
        f"look at them; take them out of ingest.{pair.first} if they show the same scene"
    )  # fmt: skip
    fault = Fault(
        str(first.image_root),
        f"images of {pair.first}",
        f"{len(rows):,} of {len(first):,} that are {how} images of {pair.second}",
        pair.why,
        step,
    )
    diagnosis.warn(f"{pair.check}_{kind}", fault, len(rows), examples)


def _same_content(first: Split, second: Split) -> list[tuple[int, int]]:
    """Rows of images of `first` and `second` with the same bytes."""
    at = {digest: row for row, digest in enumerate(second.images["sha256"].to_pylist())}
    digests = first.images["sha256"].to_pylist()
    return [(row, at[digest]) for row, digest in enumerate(digests) if digest and digest in at]


def _near(
    first: Split, second: Split, known: Mapping[str, Thumbnails], same: set[int]
) -> list[tuple[int, int]]:
    """Rows of near-duplicates in `first` and `second`, without those of the same bytes."""
    rows = [
        [row for row, digest in enumerate(split.images["sha256"].to_pylist()) if digest in known]
        for split in (first, second)
    ]
    rows[0] = [row for row in rows[0] if row not in same]
    if not rows[0] or not rows[1]:
        return []
    stacks = [
        np.stack([known[digest] for digest in split.images["sha256"].take(pa.array(at)).to_pylist()])
        for split, at in zip((first, second), rows, strict=True)
    ]
    pairs, _ = near_duplicates(*stacks)
    found = [(rows[0][a], rows[1][b]) for a, b in pairs.tolist()]
    ratios = [
        split.images["width"].to_numpy() / split.images["height"].to_numpy() for split in (first, second)
    ]
    return [(a, b) for a, b in found if abs(ratios[0][a] / ratios[1][b] - 1) <= SAME_RATIO]


def _thumbnails(
    splits: Mapping[str, Split], cache: Path, diagnosis: Diagnosis
) -> dict[str, Thumbnails] | None:
    """SHA-256 -> thumbnail of each usable image; images that can't be decoded are errors."""
    kept = _read_cache(cache)
    known: dict[str, Thumbnails] = {}
    wanted: dict[str, tuple[Path, tuple[int, int]]] = {}
    for split in splits.values():
        for row, image in enumerate(split.images.to_pylist()):
            if image["status"] != "ok" or not image["sha256"]:
                continue
            if image["sha256"] in kept:
                known[image["sha256"]] = kept[image["sha256"]]
            elif image["sha256"] not in wanted:
                wanted[image["sha256"]] = split.image_path(row), (image["width"], image["height"])
    if not wanted:
        return known

    def look(item: tuple[str, tuple[Path, tuple[int, int]]]) -> tuple[str, Thumbnails | DataError]:
        digest, (path, size) = item
        try:
            return digest, thumbnail(path, size)
        except DataError as error:
            return digest, error

    with (
        Bar("doctor: thumbnails", len(wanted), "image") as bar,
        ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool,
    ):
        for digest, found in pool.map(look, wanted.items()):
            bar.advance()
            if isinstance(found, DataError):
                diagnosis.error("images", found.faults)
            else:
                known[digest] = found
    digests = sorted(known)
    pixels = [known[digest].tobytes() for digest in digests]
    write_arrow(pa.table([digests, pa.array(pixels, pa.binary(SIDE * SIDE))], schema=THUMBNAILS), cache)
    return known


def _read_cache(path: Path) -> dict[str, Thumbnails]:
    """SHA-256 -> thumbnail from an earlier call; empty if the file is missing or of another format."""
    if not path.is_file():
        return {}
    try:
        table = read_arrow(path, THUMBNAILS)
    except DataError:
        return {}
    pixels = (
        np.frombuffer(table["pixels"].combine_chunks().buffers()[1] or b"", np.uint8) if len(table) else None
    )
    if pixels is None:
        return {}
    stack = pixels[: len(table) * SIDE * SIDE].reshape(-1, SIDE, SIDE)
    return dict(zip(table["sha256"].to_pylist(), stack, strict=True))
