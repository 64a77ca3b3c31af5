"""Images to the network's input inside an ONNX graph: resizing, normalisation, padding, tiles.

The same as data/images/resize.py and models/inference/tiles.py, to the bit where a pixel is rounded.

Legend: N images, H x W pixels, h x w after resizing, T tiles of an image. Lengths are int64 [1].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.config import SIZE_DIVISOR, SOLOv2Config, TileConfig
from models.export.ops import BYTE, DOUBLE, FLOAT, INT, INT32, Ops, Value

CHANNELS = 3
WEIGHT_BITS = 15
"""A resizing's weights are integers below 2 to this power, as in PyTorch's kernel for bytes."""


class InputRule(NamedTuple):
    """The size that images are resized to: their shorter side, unless the longer one would exceed `max_side`."""

    short_side: int
    max_side: int
    enlarge: bool
    tile: TileConfig | None


class Lengths(NamedTuple):
    """Of one axis of an image on its way through the network."""

    original: Value
    content: Value
    """after resizing"""
    padded: Value
    """to a multiple of 32"""


class TilePlan(NamedTuple):
    """The T tiles of an image, row by row."""

    top: Value
    """int64 [T]: first row in the input"""
    left: Value
    core_xyxy: Value
    """float32 [T, 4], in pixels of the tile: cells with their centres in it count"""


def lengths_of(op: Ops, images: Value, rule: InputRule) -> tuple[Lengths, Lengths]:
    """Of rows and columns, for images [N, H, W, 3]."""
    sides = [op.Cast(op.size(images, axis), to=DOUBLE) for axis in (1, 2)]
    scale = op.Min(
        op.Div(np.float64(rule.short_side), op.Min(*sides)),
        op.Div(np.float64(rule.max_side), op.Max(*sides)),
        *([] if rule.enlarge else [np.array([1.0])]),
    )
    found = []
    for axis, side in zip((1, 2), sides, strict=True):
        rounded = op.Cast(op.Floor(op.Add(op.Mul(side, scale), np.float64(0.5))), to=INT)
        content = op.Max(rounded, 1)
        found.append(Lengths(op.size(images, axis), content, op.up_to_multiple(content, SIZE_DIVISOR)))
    return found[0], found[1]


def planes(op: Ops, images: Value, rows: Lengths, columns: Lengths, config: SOLOv2Config) -> Value:
    """uint8 RGB [N, H, W, 3] to normalised float32 [N, 3, h, w], padded with zeros, the mean colour."""
    differ = op.Or(
        *(op.Not(op.Equal(op.number(one.original), op.number(one.content))) for one in (rows, columns))
    )
    then, otherwise = op.inner(), op.inner()
    resized = then.Cast(_resize_axis(then, images, 2, columns.content), to=BYTE)
    resized = then.Cast(_resize_axis(then, resized, 1, rows.content), to=FLOAT)
    x = op.If(
        differ,
        then_branch=then.as_graph([], [(resized, FLOAT)]),
        else_branch=otherwise.as_graph([], [(otherwise.Cast(images, to=FLOAT), FLOAT)]),
    )
    x = op.Reshape(
        x, op.shape(0, rows.content, columns.content, CHANNELS)
    )  # states the shape after the branches
    return _padded(
        op, normalised(op, op.Transpose(x, perm=[0, 3, 1, 2]), config), rows.padded, columns.padded
    )


def normalised(op: Ops, x: Value, config: SOLOv2Config) -> Value:
    """RGB 0..255 [N, 3, H, W] in the network's channel order, of zero mean and unit deviation."""
    if config.bgr:
        x = op.Gather(x, [2, 1, 0], axis=1)
    mean, std = (
        np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (config.pixel_mean, config.pixel_std)
    )
    return op.Div(op.Sub(x, mean), std)


def _padded(op: Ops, x: Value, height: Value, width: Value) -> Value:
    """Zeros at the bottom and right of [N, 3, h, w], up to at least these lengths."""
    more = [op.Max(op.Sub(length, op.size(x, axis)), 0) for axis, length in ((2, height), (3, width))]
    return op.Pad(x, op.shape(0, 0, 0, 0, 0, 0, *more))


def _resize_axis(op: Ops, x: Value, axis: int, target: Value) -> Value:
    """Resizes an axis of bytes, bilinear with antialiasing: int32 0..255.

    The weights are integers, so a result is exact, and rounded as PyTorch's is (upsample_bilinear2d_aa of bytes).
    Places are counted in units of 1 / (2 target) of a pixel, in which all are whole: OpenVINO has float32 for float64.
    """
    length = op.size(x, axis)
    unit, reach = op.Mul(target, 2), op.Mul(op.Max(length, target), 2)
    centre = op.Mul(op.Add(op.Mul(op.range(target), 2), 1), length)
    low, high = (
        op.Unsqueeze(op.Div(op.Add(edge, target), unit), [1])
        for edge in (op.Sub(centre, reach), op.Add(centre, reach))
    )
    low, high = op.Max(low, 0), op.Min(high, length)
    taps = op.Add(op.Mul(op.Div(op.Add(reach, op.Sub(unit, 1)), unit), 2), 1)
    pixels = op.Add(low, op.Unsqueeze(op.range(taps), [0]))  # [target, taps]
    away = op.Sub(op.Mul(op.Add(op.Mul(pixels, 2), 1), target), op.Unsqueeze(centre, [1]))
    weights = op.Max(op.Sub(reach, op.Abs(away)), 0)
    weights = op.Cast(op.Where(op.Less(pixels, high), weights, 0), to=DOUBLE)
    weights = op.Div(weights, op.ReduceSum(weights, [1], keepdims=1))

    # As many bits as the greatest weight allows.
    powers = 2.0 ** np.arange(1, 23)
    most = op.Floor(op.Add(op.Mul(op.ReduceMax(weights, [0, 1], keepdims=0), powers), np.float64(0.5)))
    fits = op.Cast(op.Less(most, np.float64(2**WEIGHT_BITS)), to=INT)
    one = op.Pow(np.float64(2), op.Cast(op.ReduceSum(fits, keepdims=0), to=DOUBLE))
    whole = op.Cast(op.Floor(op.Add(op.Mul(weights, one), np.float64(0.5))), to=INT32)
    one = op.Cast(one, to=INT32)

    near = op.Gather(x, op.Min(pixels, op.Sub(length, 1)), axis=axis)  # the taps are one more axis after it
    before, after = np.ones(axis, np.int64), np.ones(CHANNELS - axis, np.int64)
    whole = op.Reshape(whole, op.Concat(before, op.Shape(whole), after, axis=0))
    total = op.ReduceSum(op.Mul(op.Cast(near, to=INT32), whole), [axis + 1], keepdims=0)
    total = op.Div(op.Add(total, op.Div(one, np.int32(2))), one)
    return op.Min(total, np.int32(255))


def tile_plan(op: Ops, rows: Lengths, columns: Lengths, tile: TileConfig) -> TilePlan:
    """The tiles of images of one size."""
    (top, y0, y1), (left, x0, x1) = (_along(op, one.padded, tile) for one in (rows, columns))
    down, across = op.Shape(top), op.Shape(left)

    def of_rows(x: Value) -> Value:
        return op.Reshape(op.Expand(op.Unsqueeze(x, [1]), op.shape(1, across)), [-1])

    def of_columns(x: Value) -> Value:
        return op.Reshape(op.Expand(op.Unsqueeze(x, [0]), op.shape(down, 1)), [-1])

    core = [op.Unsqueeze(one, [1]) for one in (of_columns(x0), of_rows(y0), of_columns(x1), of_rows(y1))]
    return TilePlan(of_rows(top), of_columns(left), op.Concat(*core, axis=1))


def _along(op: Ops, length: Value, tile: TileConfig) -> tuple[Value, Value, Value]:
    """First pixels of the tiles along a padded side, and the begins and ends of their cores, in pixels of the tile."""
    beyond = op.Max(op.Sub(length, tile.side), 0)
    step = tile.side - tile.overlap
    steps = op.Div(op.Add(beyond, step - 1), step)
    at = op.Cast(op.range(op.Add(steps, 1)), to=DOUBLE)
    places = op.Div(op.Mul(at, op.Cast(beyond, to=DOUBLE)), op.Cast(op.Max(steps, 1), to=DOUBLE))
    begins = op.Mul(op.Cast(op.Round(op.Div(places, np.float64(SIZE_DIVISOR))), to=INT), SIZE_DIVISOR)
    # Halves, exact in float32.
    first = op.Cast(begins, to=FLOAT)
    after, before = op.Slice(first, [1], [2**31], [0]), op.Slice(first, [0], [-1], [0])
    borders = op.Div(op.Add(op.Add(before, after), float(tile.side)), 2.0)
    far = np.array([np.inf], np.float32)
    return (
        begins,
        op.Sub(op.Concat(-far, borders, axis=0), first),
        op.Sub(op.Concat(borders, far, axis=0), first),
    )


def cut_tiles(op: Ops, x: Value, plan: TilePlan, side: int) -> tuple[Value, Value]:
    """Planes [N, 3, h, w] to tiles [N * T, 3, side, side], and float32 [N * T, 2]: x, y of their corners."""
    x = _padded(op, x, op.value(np.array([side])), op.value(np.array([side])))
    offsets = np.arange(side)
    down = op.Add(op.Unsqueeze(plan.top, [1]), offsets[None])
    across = op.Add(op.Unsqueeze(plan.left, [1]), offsets[None])
    # One gather of pixels: [T, side, 1] and [T, 1, side] to [T, side, side] places of the flat image.
    flat = op.Add(op.Mul(op.Unsqueeze(down, [2]), op.size(x, 3)), op.Unsqueeze(across, [1]))
    pieces = op.Gather(op.Reshape(x, op.shape(0, 0, -1)), flat, axis=2)
    pieces = op.Reshape(op.Transpose(pieces, perm=[0, 2, 1, 3, 4]), [-1, CHANNELS, side, side])
    corners = op.Cast(op.Concat(op.Unsqueeze(plan.left, [1]), op.Unsqueeze(plan.top, [1]), axis=1), to=FLOAT)
    return pieces, op.Reshape(op.Expand(corners, op.shape(op.size(x, 0), 1, 1)), [-1, 2])
