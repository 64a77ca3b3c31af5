"""Mask maps to masks of the original image inside an ONNX graph, as models/masks/resize.py on a CPU.

Legend: N images, K masks of each, D = N K, h x w the mask map, H x W pixels of the image, T tiles. Lengths
are int64 [1].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from models.config import SIZE_DIVISOR
from models.export.image import Lengths, TilePlan
from models.export.ops import BOOL, FLOAT, INT, Ops, Value
from models.masks.resize import ROUNDING


def paste(
    op: Ops, maps: Value, tiles: Value, plan: TilePlan, stride: int, size: tuple[Value, Value]
) -> Value:
    """Maps [N, K, s, s] of tiles [N, K] in the map [N, K, h * w] of the whole input, zero elsewhere.

    The places are in blocks of 32 x 32 pixels of the input, row by row inside each: tiles begin at multiples of 32.
    """
    block = SIZE_DIVISOR // stride
    count, height, width = op.size(maps, 1), *(op.Div(length, SIZE_DIVISOR) for length in size)
    own = op.Div(op.size(maps, 2), block)
    parts = op.Reshape(maps, op.shape(0, 0, own, block, own, block))
    parts = op.Reshape(op.Transpose(parts, perm=[0, 1, 2, 4, 3, 5]), op.shape(0, 0, -1, block * block))
    nothing = op.Expand(
        np.zeros((1, 1, 1, 1), np.float32), op.shape(op.size(maps, 0), count, 1, block * block)
    )
    parts = op.Concat(parts, op.CastLike(nothing, maps), axis=2)
    places = []
    for begin, length in ((plan.top, height), (plan.left, width)):
        first = op.Div(op.Gather(begin, tiles), SIZE_DIVISOR)
        places.append(op.Sub(op.Reshape(op.range(length), [1, 1, -1]), op.Unsqueeze(first, [2])))
    down, across = op.Unsqueeze(places[0], [3]), op.Unsqueeze(places[1], [2])
    inside = [op.And(op.GreaterOrEqual(one, 0), op.Less(one, own)) for one in (down, across)]
    index = op.Where(op.And(*inside), op.Add(op.Mul(down, own), across), op.Mul(own, own))
    index = op.Reshape(index, op.shape(0, 0, -1, 1))
    return op.Reshape(op.GatherND(parts, index, batch_dims=2), op.shape(0, 0, -1))


def as_map(op: Ops, pasted: Value, stride: int, size: tuple[Value, Value]) -> Value:
    """`paste`'s places in rows: [N, K, h, w]."""
    block = SIZE_DIVISOR // stride
    height, width = (op.Div(length, SIZE_DIVISOR) for length in size)
    x = op.Transpose(op.Reshape(pasted, op.shape(0, 0, height, width, block, block)), perm=[0, 1, 2, 4, 3, 5])
    return op.Reshape(x, op.shape(0, 0, op.Mul(height, block), op.Mul(width, block)))


class Axis(NamedTuple):
    """The values of pixels along one axis as sums of a map's places."""

    weights: Value
    """float32 [pixels, places]"""
    first_pixel: Value
    """int64 [places]: of those that depend on a place"""
    last_pixel: Value
    first_place: Value
    """int64 [pixels]: of those that a pixel depends on"""
    last_place: Value


def axis_of(op: Ops, places: Value, lengths: Lengths) -> Axis:
    """A map's places resized to the padded input, cropped to the content, resized to the original; bilinear."""
    inner = _bilinear(op, places, lengths.padded)
    inner = op.Slice(inner, [0], lengths.content, [0])
    weights = op.MatMul(_bilinear(op, lengths.content, lengths.original), inner)
    reached = op.Cast(op.Greater(weights, 0.0), to=FLOAT)
    some = op.Greater(op.ReduceMax(reached, [0], keepdims=0), 0.0)
    first, last = (op.ArgMax(reached, axis=0, keepdims=0, select_last_index=end) for end in (0, 1))
    return Axis(
        weights,
        op.Where(some, first, op.Sub(lengths.original, 1)),
        op.Where(some, last, 0),
        op.ArgMax(reached, axis=1, keepdims=0),
        op.ArgMax(reached, axis=1, keepdims=0, select_last_index=1),
    )


def _bilinear(op: Ops, source: Value, target: Value) -> Value:
    """float32 [target, source]: the weights of a resizing."""
    scale = op.Div(op.Cast(source, to=FLOAT), op.Cast(target, to=FLOAT))
    at = op.Sub(op.Mul(op.Add(op.Cast(op.range(target), to=FLOAT), 0.5), scale), 0.5)
    at = op.Max(at, 0.0)
    low = op.Cast(op.Floor(at), to=INT)
    high = op.Min(op.Add(low, 1), op.Sub(source, 1))
    share = op.Sub(at, op.Floor(at))
    columns = op.Unsqueeze(op.range(source), [0])

    def at_column(index: Value, weight: Value) -> Value:
        there = op.Equal(op.Unsqueeze(index, [1]), columns)
        return op.Mul(op.Cast(there, to=FLOAT), op.Unsqueeze(weight, [1]))

    return op.Add(at_column(low, op.Sub(1.0, share)), at_column(high, share))


class Drawing(NamedTuple):
    """Where D masks are drawn."""

    maps: Value
    """float32 [D, h, w]"""
    rows: Axis
    columns: Axis
    tops: Value
    """int64 [D]: the first row of each in the image"""
    lefts: Value


def draw(
    op: Ops, given: Drawing, wanted: Value, size: tuple[Value, Value], threshold: float
) -> tuple[Value, Value]:
    """bool [D, H, W], all false where not `wanted` [D], and the tight boxes int64 [D, 4], xyxy, zeros for no mask.

    Each mask is drawn in a box around its places, as an object is much smaller than the image.
    """
    body = op.inner()
    n = Value(name=f"{body.prefix}_n", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    more = Value(name=f"{body.prefix}_more", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    mask, box = _draw_one(body, given, wanted, size, threshold, n)
    graph = body.as_graph([n, more], [(more, BOOL), (mask, BOOL), (box, INT)])
    return op.Loop(op.number(op.size(given.maps, 0)), np.bool_(True), body=graph, outputs=2)


def _draw_one(
    op: Ops, given: Drawing, wanted: Value, size: tuple[Value, Value], threshold: float, n: Value
) -> tuple[Value, Value]:
    places = op.Gather(given.maps, n)
    # Rounding may lift a pixel between values below the threshold above it.
    held = op.Cast(op.Greater(places, threshold - abs(threshold) * ROUNDING), to=FLOAT)
    spans, offsets, weights, reach = [], [], [], []
    for axis, own, offsets_of, length in (
        (0, given.rows, given.tops, size[0]),
        (1, given.columns, given.lefts, size[1]),
    ):
        begin, end = _ends(op, op.ReduceMax(held, [1 - axis], keepdims=0))
        offset = op.Unsqueeze(op.Gather(offsets_of, n), [0])
        limit = op.Sub(length, offset)  # a tile may reach beyond the image
        first = op.ReduceMin(op.Slice(own.first_pixel, begin, end), keepdims=1)
        last = op.ReduceMax(op.Slice(own.last_pixel, begin, end), keepdims=1)
        first = op.Min(first, op.Sub(limit, 1))
        last = op.Max(op.Min(last, op.Sub(limit, 1)), first)
        low, high = op.Gather(own.first_place, first), op.Add(op.Gather(own.last_place, last), 1)
        end = op.Add(last, 1)
        spans.append((first, end))
        offsets.append(offset)
        reach.append((low, high))
        weights.append(op.Slice(own.weights, op.shape(first, low), op.shape(end, high), [0, 1]))
    (y0, y1), (x0, x1) = reach
    part = op.Slice(places, op.shape(y0, x0), op.shape(y1, x1), [0, 1])
    drawn = op.MatMul(op.MatMul(weights[0], part), op.Transpose(weights[1], perm=[1, 0]))
    inside = op.And(op.Greater(drawn, threshold), op.Gather(wanted, n))
    before = [op.Add(offset, first) for offset, (first, _) in zip(offsets, spans, strict=True)]
    after = [
        op.Sub(length, op.Add(offset, end))
        for length, offset, (_, end) in zip(size, offsets, spans, strict=True)
    ]
    mask = op.Pad(inside, op.shape(*before, *after), np.bool_(False))
    drawn = op.Cast(inside, to=FLOAT)
    ends = [_ends(op, op.ReduceMax(drawn, [1 - axis], keepdims=0)) for axis in (0, 1)]
    (top, bottom), (left, right) = (
        [op.Add(one, offset) for one in pair] for pair, offset in zip(ends, before, strict=True)
    )
    some = op.Cast(op.ReduceMax(drawn, keepdims=0), to=INT)
    return mask, op.Mul(op.Concat(left, top, right, bottom, axis=0), some)


def _ends(op: Ops, held: Value) -> tuple[Value, Value]:
    """The first index [1] where float32 `held` is 1, and one past the last."""
    last = op.ArgMax(held, axis=0, keepdims=1, select_last_index=1)
    return op.ArgMax(held, axis=0, keepdims=1), op.Add(last, 1)
