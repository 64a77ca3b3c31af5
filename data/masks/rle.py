"""Masks in their forms: bool array [H, W], COCO run-length encoding (RLE), polygons, box, area.

A compressed RLE is the ``counts`` bytes of pycocotools; its size (H, W) is the image's and is kept
beside it. Runs go down the columns and begin with background. Pixel coordinates are x, y with
(0, 0) the outer corner of the top-left pixel, so the centre of pixel [row, column] is
(column + 0.5, row + 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_OUTLINE = 10_000_000  # pixels along a polygon part; the rasteriser takes 40 bytes a pixel
REACH = 3  # how far from 0 a polygon's vertices may lie, in sides of the image


def encode(mask: BoolArray) -> bytes:
    """Compressed RLE of a bool mask [H, W]."""
    if mask.ndim != 2:
        raise ValueError(f"a mask has shape [H, W]; found {list(mask.shape)}")
    counts: bytes = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return counts


MAX_LABELS = 65_535  # of a label map: the objects that a bitmask can number


def encode_labels(labels: npt.NDArray[Any]) -> dict[int, bytes]:
    """Compressed RLE of each value above 0 of a label map [H, W] of whole numbers, by value, in order.

    One pass over the image, whatever the number of objects.

    Raises:
        ValueError: more than `MAX_LABELS` values, as in a photograph.
    """
    if labels.ndim != 2:
        raise ValueError(f"a label map has shape [H, W]; found {list(labels.shape)}")
    height, width = labels.shape
    flat = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])[: flat.size]
    ends = np.append(starts[1:], flat.size)
    values = flat[starts].astype(np.int64)
    order = np.argsort(values, kind="stable")
    order = order[values[order] > 0]
    if order.size == 0:
        return {}
    kinds, first = np.unique(values[order], return_index=True)
    if kinds.size > MAX_LABELS:
        raise ValueError(f"{kinds.size:,} different values, more than {MAX_LABELS:,}")
    masks = {}
    for value, own in zip(kinds.tolist(), np.split(order, first[1:]), strict=True):
        # Background up to a run's start, the run, and so on to the image's end.
        bounds = np.stack([starts[own], ends[own]], axis=1).ravel()
        lengths = np.diff(bounds, prepend=0, append=flat.size)
        masks[value] = from_runs((lengths if lengths[-1] else lengths[:-1]).tolist(), height, width)
    return masks


def decode(counts: bytes, height: int, width: int) -> BoolArray:
    """The bool mask [height, width] of a compressed RLE."""
    pixels = coco_mask.decode({"size": [height, width], "counts": counts})
    return np.ascontiguousarray(pixels).view(np.bool_)


def decode_many(counts: Sequence[bytes], height: int, width: int) -> BoolArray:
    """Bool masks [K, height, width] of K compressed RLEs of one image; K may be 0."""
    masks = np.empty((len(counts), height, width), dtype=np.bool_)
    for k, rle in enumerate(counts):
        masks[k] = coco_mask.decode({"size": [height, width], "counts": rle})
    return masks


def runs(counts: bytes) -> npt.NDArray[np.int64]:
    """Run lengths of a compressed RLE: background, object, background, ...

    pycocotools packs each number in base 32, low digits first, in characters from '0' on (bit 5 says
    that more follow, bit 4 of the last one is the sign), and from the fourth run on stores the
    difference to the run two before.

    Raises:
        ValueError: the bytes are not such a code.
    """
    code = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if code.size == 0:
        raise ValueError("the code is empty")
    if code.min() < 0 or code.max() > 63:
        raise ValueError("a character outside '0'..'o'")
    if code[-1] & 32:
        raise ValueError("the code ends within a number")
    last = np.flatnonzero((code & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    shift = 5 * (np.arange(code.size) - np.repeat(first, last - first + 1))
    if shift.max() > 40:
        raise ValueError("a number of more than 9 digits")
    numbers = np.add.reduceat((code & 31) << shift, first)
    numbers -= np.where(code[last] & 16, np.int64(1) << (shift[last] + 5), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def check_rle(counts: bytes, height: int, width: int) -> None:
    """Check a compressed RLE before pycocotools reads it, which would trust it with its memory.

    Raises:
        ValueError: not a code, a negative run, or runs that don't fill height x width pixels.
    """
    lengths = runs(counts)
    if lengths.min() < 0:
        raise ValueError("a run of negative length")
    if int(lengths.sum()) != height * width:
        raise ValueError(f"runs of {int(lengths.sum())} pixels, for {height} x {width} = {height * width}")


def from_runs(lengths: Sequence[int], height: int, width: int) -> bytes:
    """Compressed RLE of an uncompressed one (a list of run lengths).

    Raises:
        ValueError: a run that is no whole number or negative, or runs that don't fill the image.
    """
    values = list(lengths)
    if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
        raise ValueError("a run length that is not a whole number of 0 or more")
    if sum(values) != height * width:
        raise ValueError(f"runs of {sum(values)} pixels, for {height} x {width} = {height * width}")
    rle = {"size": [height, width], "counts": values}
    counts: bytes = coco_mask.frPyObjects(rle, height, width)["counts"]
    return counts


def check_polygons(polygons: Any, height: int, width: int) -> None:
    """Check COCO polygons: a list of parts, each a flat list x0, y0, x1, y1, ... of 3 or more vertices.

    Raises:
        ValueError: what is wrong with them.
    """
    if not isinstance(polygons, list) or not polygons:
        raise ValueError("no polygon")
    for n, part in enumerate(polygons):
        if not isinstance(part, list) or len(part) % 2 or len(part) < 6:
            size = len(part) if isinstance(part, list) else type(part).__name__
            raise ValueError(f"part {n} with {size} numbers, not 3 or more pairs x, y")
        try:
            values = np.asarray(part)
        except (OverflowError, ValueError):  # lists of unlike length, say
            values = np.asarray(None)
        if values.ndim != 1 or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
            raise ValueError(f"part {n} with a value that is not a finite number")
        # Annotators' polygons reach over the border by a little; the rasteriser walks along edges
        # pixel by pixel, so one absurd vertex would cost minutes and gigabytes.
        if np.abs(values).max() > REACH * max(height, width):
            raise ValueError(f"part {n} with a vertex far outside the {width} x {height} image")
        if len(part) * 2 * max(height, width) > MAX_OUTLINE and _walk(values) > MAX_OUTLINE:
            raise ValueError(f"part {n} with an outline of {_walk(values):.0f} pixels, above {MAX_OUTLINE}")


def _walk(flat: npt.NDArray[Any]) -> float:
    """Pixels that the rasteriser steps through along a closed polygon x0, y0, x1, y1, ..."""
    points = flat.reshape(-1, 2).astype(np.float64)
    return float(np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum())


def from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> bytes:
    """Compressed RLE of the union of polygon parts, rasterised as pycocotools does.

    Raises:
        ValueError: polygons that ``check_polygons`` refuses.
    """
    check_polygons(polygons, height, width)
    return draw_polygons([np.array(part, dtype=np.float64) for part in polygons], height, width)


def draw_polygons(parts: Sequence[FloatArray], height: int, width: int) -> bytes:
    """Compressed RLE of the union of parts that ``check_polygons`` accepts, each x0, y0, x1, y1, ..."""
    drawn = coco_mask.frPyObjects(parts, height, width)
    counts: bytes = (drawn[0] if len(drawn) == 1 else coco_mask.merge(drawn))["counts"]
    return counts


def from_segmentation(segmentation: Any, height: int, width: int) -> bytes:
    """Compressed RLE of a COCO ``segmentation``: polygons, uncompressed RLE or compressed RLE.

    Raises:
        ValueError: what is wrong with it.
    """
    if isinstance(segmentation, list):
        return from_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("neither polygons nor an RLE with size and counts")
    if segmentation["size"] not in ([height, width], (height, width)):
        raise ValueError(f"an RLE of size {segmentation['size']}, for [height, width] = [{height}, {width}]")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return from_runs(counts, height, width)
    if isinstance(counts, str):
        try:
            counts = counts.encode("ascii")
        except UnicodeEncodeError:
            raise ValueError("an RLE with characters outside '0'..'o'") from None
    if not isinstance(counts, bytes):
        raise ValueError(f"RLE counts of type {type(counts).__name__}")
    check_rle(counts, height, width)
    return counts


def area(counts: bytes, height: int, width: int) -> int:
    """Number of object pixels."""
    return int(coco_mask.area({"size": [height, width], "counts": counts}))


def bbox_xywh(counts: bytes, height: int, width: int) -> tuple[float, float, float, float]:
    """The tight box x, y, width, height in pixels; zeros for an empty mask."""
    x, y, w, h = coco_mask.toBbox({"size": [height, width], "counts": counts}).tolist()
    return (x, y, w, h) if w and h else (0.0, 0.0, 0.0, 0.0)


def iou_matrix(a: Sequence[bytes], b: Sequence[bytes], height: int, width: int) -> FloatArray:
    """Intersection over union [len(a), len(b)] of masks of one image; 0 where both are empty."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    size = [height, width]
    of_a = [{"size": size, "counts": counts} for counts in a]
    of_b = [{"size": size, "counts": counts} for counts in b]
    overlap = coco_mask.iou(of_a, of_b, [0] * len(b))
    return np.nan_to_num(np.asarray(overlap, dtype=np.float64), nan=0.0)


def object_pixels(counts: bytes, height: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the object's pixels, down the columns; in time that grows with the object alone.

    Raises:
        ValueError: the bytes are no RLE.
    """
    lengths = runs(counts)
    ends = np.cumsum(lengths)[1::2]
    sizes = lengths[1::2]
    # Each run's pixels follow on each other; what lies between two runs is jumped over.
    flat = np.arange(int(sizes.sum())) + np.repeat(ends - np.cumsum(sizes), sizes)
    return flat % height, flat // height


def random_inner_point(mask: BoolArray, rng: np.random.Generator) -> tuple[float, float]:
    """A point x, y, uniform over the object's area: a pixel's centre, give or take half a pixel.

    Raises:
        ValueError: the mask is empty.
    """
    inner = np.flatnonzero(mask)
    if inner.size == 0:
        raise ValueError("an empty mask has no inner point")
    row, column = divmod(int(inner[rng.integers(inner.size)]), mask.shape[1])
    dx, dy = rng.random(2)
    return column + float(dx), row + float(dy)
