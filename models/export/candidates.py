"""From raw outputs to instances inside an ONNX graph: point NMS, mask scoring, matrix NMS.

The same as models/inference/detect.py, for all images and tiles at once. Where its numbers of masks differ between
images, an array has room for the most, and says which entries are valid.

Legend: N images, T tiles of an image, B = N T pieces, C classes, E kernel channels, K candidates, h x w the mask map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.config import InferenceConfig
from models.export.ops import FLOAT, Ops, Value
from models.inference.detect import REFERENCE_STRIDE

LEAST = 1
"""Entries of an array for masks, even where there are none: operators differ in what they do with empty arrays."""


class Raw(NamedTuple):
    """The network's outputs."""

    category_logits: Sequence[Value]
    """L x [B, C, S, S]"""
    kernels: Sequence[Value]
    """L x [B, E, S, S]"""
    mask_features: Value
    """[B, E, h, w]"""
    strides: tuple[int, ...]


class Found(NamedTuple):
    """Masks of N images."""

    scores: Value
    """float32 [N, K], descending; below 0 where there is none"""
    labels: Value
    """int64 [N, K]"""
    maps: Value
    """float32 [N, K, h, w] of the image or tile"""
    tiles: Value
    """int64 [N, K]: the tile of each"""


class Measured(NamedTuple):
    """The best cells of each piece, with their masks."""

    scores: Value
    """float32 [B, K]; below 0 where the cell or its mask isn't a candidate"""
    labels: Value
    probabilities: Value
    """float32 [B, K, h * w]"""
    cut: Value
    """int64 [B]: cells above the threshold that had no room"""


def measured(
    op: Ops,
    raw: Raw,
    config: InferenceConfig,
    input_size: tuple[Value, Value],
    most: int,
    cores: Value | None,
) -> Measured:
    """The best cells of each piece, at most `most`.

    Args:
        input_size: height and width of a piece.
        cores: float32 [B, 4], xyxy in pixels of the piece: only cells with their centres in it count.
    """
    scores, kernels, strides = [], [], []
    for logits, level, stride in zip(raw.category_logits, raw.kernels, raw.strides, strict=True):
        chance = op.Sigmoid(logits)
        greatest = op.MaxPool(chance, kernel_shape=[2, 2], strides=[1, 1], pads=[1, 1, 0, 0])
        chance = op.Mul(chance, op.Cast(op.Equal(chance, greatest), to=FLOAT))
        if cores is not None:
            chance = op.Mul(chance, _cells_in(op, cores, chance, input_size))
        cells = op.Transpose(op.Reshape(chance, op.shape(0, 0, -1)), perm=[0, 2, 1])
        scores.append(cells)
        kernels.append(op.Transpose(op.Reshape(level, op.shape(0, 0, -1)), perm=[0, 2, 1]))
        strides.append(op.Expand(np.array([stride], np.float32), op.size(cells, 1)))
    by_class = op.Concat(*scores, axis=1)
    classes = op.size(by_class, 2)
    flat = op.Reshape(by_class, op.shape(0, -1))
    above = op.ReduceSum(op.Cast(op.Greater(flat, config.score_threshold), to=FLOAT), [1], keepdims=0)
    count = _room(op, above, most)
    best, index = op.TopK(flat, count, axis=1, outputs=2)
    cell = op.Div(index, classes)
    weights = op.rows_of(op.Concat(*kernels, axis=1), cell)

    features = raw.mask_features
    h, w = (op.Cast(op.size(features, axis), to=FLOAT) for axis in (2, 3))
    masks = op.Sigmoid(op.MatMul(weights, op.Reshape(features, op.shape(0, 0, -1))))
    inside = op.Greater(masks, config.mask_threshold)
    area = op.ReduceSum(op.Cast(inside, to=FLOAT), [2], keepdims=0)
    total = op.ReduceSum(op.Where(inside, masks, 0.0), [2], keepdims=0)
    certainty = op.Div(total, op.Max(area, 1.0))
    height, width = (op.Cast(one, to=FLOAT) for one in input_size)
    unit = op.Mul(
        *(op.Div(op.Div(side, places), float(REFERENCE_STRIDE)) for side, places in ((height, h), (width, w)))
    )
    least = op.Mul(op.Gather(op.Concat(*strides, axis=0), cell), float(config.min_area))
    kept = op.And(op.Greater(best, config.score_threshold), op.Greater(area, 0.0))
    kept = op.And(kept, op.Greater(op.Mul(area, unit), least))
    cut = op.Max(op.Sub(op.Cast(above, to=_INT), count), 0)
    return Measured(op.Where(kept, op.Mul(best, certainty), -1.0), op.Mod(index, classes), masks, cut)


_INT = 7


def _room(op: Ops, counts: Value, most: int) -> Value:
    """int64 [1]: the greatest of float32 `counts`, but at least LEAST and at most `most`."""
    greatest = op.Cast(op.ReduceMax(counts, keepdims=0), to=_INT)
    return op.Reshape(op.Min(op.Max(greatest, LEAST), most), [1])


def _cells_in(op: Ops, cores: Value, like: Value, input_size: tuple[Value, Value]) -> Value:
    """float32 [B, 1, S, S] of 0 and 1: cells whose centres are in the cores [B, 4]."""
    inside = []
    for axis, length in zip((2, 3), input_size, strict=True):
        count = op.size(like, axis)
        cell = op.Div(op.Cast(length, to=FLOAT), op.Cast(count, to=FLOAT))
        centre = op.Unsqueeze(op.Mul(op.Add(op.Cast(op.range(count), to=FLOAT), 0.5), cell), [0])
        first = 3 - axis  # y is the second
        begin, end = (op.Slice(cores, [at], [at + 1], [1]) for at in (first, first + 2))
        inside.append(op.And(op.GreaterOrEqual(centre, begin), op.Less(centre, end)))
    both = op.And(op.Unsqueeze(inside[0], [1, 3]), op.Unsqueeze(inside[1], [1, 2]))
    return op.Cast(both, to=FLOAT)


def best_of_image(op: Ops, cells: Measured, images: Value, map_size: tuple[Value, Value], most: int) -> Found:
    """The best masks of each of `images` [1] images, of all its pieces, at most `most`."""
    scores = op.Reshape(cells.scores, op.shape(images, -1))
    labels = op.Reshape(cells.labels, op.shape(images, -1))
    masks = op.Reshape(cells.probabilities, op.shape(images, op.size(scores, 1), -1))
    kept = op.ReduceSum(op.Cast(op.Greater(scores, 0.0), to=FLOAT), [1], keepdims=0)
    best, index = op.TopK(scores, _room(op, kept, most), axis=1, outputs=2)
    maps = op.Reshape(op.rows_of(masks, index), op.shape(0, 0, *map_size))
    return Found(best, op.rows_of(labels, index), maps, op.Div(index, op.size(cells.scores, 1)))


def suppressed(op: Ops, found: Found, canvas: Value, config: InferenceConfig) -> tuple[Found, Value]:
    """The best after matrix NMS, at most `max_detections`, and their indices in `found`.

    Args:
        canvas: bool [N, K, places]: the masks in the whole image's map.
    """
    inside = op.Cast(canvas, to=FLOAT)
    overlap = op.MatMul(inside, op.Transpose(inside, perm=[0, 2, 1]))
    area = op.ReduceSum(inside, [2], keepdims=0)
    union = op.Sub(op.Add(op.Unsqueeze(area, [2]), op.Unsqueeze(area, [1])), overlap)
    iou = op.Div(overlap, op.Max(union, 1.0))
    same = op.Equal(op.Unsqueeze(found.labels, [2]), op.Unsqueeze(found.labels, [1]))
    there = op.Greater(op.Unsqueeze(found.scores, [2]), 0.0)
    iou = op.Where(op.And(same, there), iou, 0.0)
    iou = op.Trilu(iou, 1, upper=1)  # row: the better mask, column: the worse
    largest = op.Unsqueeze(op.ReduceMax(iou, [1], keepdims=0), [2])
    if config.nms_kernel == "gaussian":
        decay = op.Exp(op.Mul(op.Sub(op.Mul(iou, iou), op.Mul(largest, largest)), -config.nms_sigma))
    else:
        decay = op.Div(op.Sub(1.0, iou), op.Max(op.Sub(1.0, largest), 1e-6))
    scores = op.Mul(found.scores, op.ReduceMin(decay, [1], keepdims=0))
    kept = op.And(op.GreaterOrEqual(scores, config.nms_threshold), op.Greater(found.scores, 0.0))
    room = _room(op, op.ReduceSum(op.Cast(kept, to=FLOAT), [1], keepdims=0), config.max_detections)
    best, index = op.TopK(op.Where(kept, scores, -1.0), room, axis=1, outputs=2)
    return (
        Found(
            best,
            op.rows_of(found.labels, index),
            op.rows_of(found.maps, index),
            op.rows_of(found.tiles, index),
        ),
        index,
    )
