"""One ONNX graph from images to instances, or the network alone.

Legend: N images, H x W pixels, T tiles of an image, B = N T pieces, K instances, h x w the mask map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from models.config import InferenceConfig
from models.export.candidates import Found, Raw, best_of_image, measured, suppressed
from models.export.image import (
    InputRule,
    Lengths,
    TilePlan,
    cut_tiles,
    lengths_of,
    normalised,
    planes,
    tile_plan,
)
from models.export.masks import Axis, Drawing, as_map, axis_of, draw, paste
from models.export.network import export_network
from models.export.ops import FLOAT, INT, Ops, Value
from models.export.plain import has_origins
from models.solov2.network import SOLOv2

OUTPUTS: dict[str, tuple[str, list[int | str]]] = {
    "masks": ("BOOL", ["batch", "instances", "height", "width"]),
    "scores": ("FLOAT", ["batch", "instances"]),
    "labels": ("INT64", ["batch", "instances"]),
    "boxes_xyxy": ("INT64", ["batch", "instances", 4]),
    "valid": ("BOOL", ["batch", "instances"]),
    "left_out": ("INT64", ["batch"]),
}
"""Of the graph of instances, best first. `instances` is the number in the image that has most, so 0 where no image has
one; what isn't `valid` is beyond an image's own number, or has an empty mask. `left_out` counts cells above the score
threshold for which there was no room: instances may be missing if it isn't 0."""


def raw_graph(network: SOLOv2, rule: InputRule, opset: int) -> ir.Model:
    """The network alone: float32 RGB 0..255 [N, 3, H, W], padded with the mean colour, to its outputs."""
    model = export_network(network, rule.tile.side if rule.tile else None, opset)
    before = Ops("before")
    inside = model.graph.inputs[0]
    images = Value(name="images", type=ir.TensorType(ir.DataType.FLOAT), shape=inside.shape)
    _put_before(
        model.graph,
        before,
        [images, *model.graph.inputs[1:]],
        {inside: normalised(before, images, network.config)},
    )
    return model


def instance_graph(
    network: SOLOv2, rule: InputRule, inference: InferenceConfig, most_cells: int, opset: int
) -> ir.Model:
    """`images` uint8 RGB [N, H, W, 3], N images of any one size, to OUTPUTS.

    Args:
        most_cells: cells above the score threshold of an image or tile that are drawn; the best of them.
    """
    config, tile = network.config, rule.tile
    model, images, rows, columns, plan, cores, raw = network_on_images(network, rule, opset)
    graph, op = model.graph, Ops("after")
    side = op.value(np.array([tile.side])) if tile else None
    cells = measured(
        op, raw, inference, (side, side) if side else (rows.padded, columns.padded), most_cells, cores
    )
    map_size = (op.size(raw.mask_features, 2), op.size(raw.mask_features, 3))
    found = best_of_image(op, cells, op.size(images, 0), map_size, inference.nms_pre)
    inside = op.Greater(found.maps, inference.mask_threshold)
    if plan:
        canvas = paste(
            op,
            op.Cast(inside, to=FLOAT),
            found.tiles,
            plan,
            config.mask_stride,
            (rows.padded, columns.padded),
        )
    else:
        canvas = op.Reshape(inside, op.shape(0, 0, -1))
    best, _ = suppressed(op, found, canvas, inference)

    if plan and tile:
        given = _of_tiles(op, best, plan, (rows, columns), config.mask_stride, tile.side)
    else:
        flat = op.Reshape(best.maps, op.shape(-1, *map_size))
        none = op.Expand(0, op.size(flat, 0))
        given = Drawing(flat, axis_of(op, map_size[0], rows), axis_of(op, map_size[1], columns), none, none)
    wanted = op.GreaterOrEqual(op.Reshape(best.scores, [-1]), 0.0)
    masks, boxes = draw(op, given, wanted, (rows.original, columns.original), inference.mask_threshold)
    kept = op.Reshape(op.Greater(op.Slice(boxes, [2], [3], [1]), 0), op.Shape(best.scores))

    shown = {"masks": masks, "boxes_xyxy": boxes, "valid": kept}
    cut = op.ReduceSum(op.Reshape(cells.cut, op.shape(op.size(images, 0), -1)), [1], keepdims=0)
    results = {**_trimmed(op, best, shown, (rows.original, columns.original)), "left_out": cut}
    set_outputs(graph, op, results, OUTPUTS)
    return model


def set_outputs(
    graph: ir.Graph, op: Ops, results: Mapping[str, Value], named: Mapping[str, tuple[str, list[int | str]]]
) -> None:
    """Puts nodes at a graph's end, and what they make in place of its outputs: names with types and shapes."""
    graph.outputs.clear()
    for name, (kind, shape) in named.items():
        made = op.Identity(results[name])
        made.name, made.type, made.shape = name, ir.TensorType(ir.DataType[kind]), ir.Shape(shape)
        graph.outputs.append(made)
    graph.extend(op.nodes)


class OnImages(NamedTuple):
    """A network's graph behind what makes its inputs of images."""

    model: ir.Model
    images: Value
    """uint8 RGB [N, H, W, 3]"""
    rows: Lengths
    columns: Lengths
    plan: TilePlan | None
    cores: Value | None
    """float32 [N T, 4], see TilePlan"""
    raw: Raw


def network_on_images(network: SOLOv2, rule: InputRule, opset: int) -> OnImages:
    """The network, with resizing, normalisation and tiles in front."""
    config, tile = network.config, rule.tile
    model = export_network(network, tile.side if tile else None, opset)
    graph, before = model.graph, Ops("before")
    images = Value(
        name="images",
        type=ir.TensorType(ir.DataType.UINT8),
        shape=ir.Shape(["batch", "height", "width", 3]),
    )
    rows, columns = lengths_of(before, images, rule)
    x = planes(before, images, rows, columns, config)
    entries = {graph.inputs[0]: x}
    plan: TilePlan | None = None
    cores: Value | None = None
    if tile:
        plan = tile_plan(before, rows, columns, tile)
        pieces, origins = cut_tiles(before, x, plan, tile.side)
        entries[graph.inputs[0]] = pieces
        if has_origins(network, tile.side):
            entries[graph.inputs[1]] = origins
        count = before.size(images, 0)
        repeated = before.Expand(before.Unsqueeze(plan.core_xyxy, [0]), before.shape(count, 1, 1))
        cores = before.Reshape(repeated, [-1, 4])
    outputs = list(graph.outputs)
    levels = len(config.grids)
    _put_before(graph, before, [images], entries)
    raw = Raw(outputs[:levels], outputs[levels : 2 * levels], outputs[-1], config.strides)
    return OnImages(model, images, rows, columns, plan, cores, raw)


def _trimmed(op: Ops, best: Found, shown: dict[str, Value], size: tuple[Value, Value]) -> dict[str, Value]:
    """Outputs [N, K, ...] without the room that no image needs."""
    there = op.GreaterOrEqual(best.scores, 0.0)
    count = op.ReduceMax(op.ReduceSum(op.Cast(there, to=INT), [1], keepdims=0), keepdims=1)
    rows = op.Shape(best.scores)
    whole = {
        "masks": op.Reshape(shown["masks"], op.shape(rows, *size)),
        "scores": op.Max(best.scores, 0.0),
        "labels": op.Where(there, best.labels, -1),
        "boxes_xyxy": op.Reshape(shown["boxes_xyxy"], op.shape(rows, 4)),
        "valid": shown["valid"],
    }
    return {name: op.Slice(value, [0], count, [1]) for name, value in whole.items()}


def _of_tiles(
    op: Ops, found: Found, plan: TilePlan, lengths: tuple[Lengths, Lengths], stride: int, side: int
) -> Drawing:
    """How masks of tiles are drawn: tile by tile, but in the map of the whole image if it was resized."""
    rows, columns = lengths
    whole = op.And(*(op.Equal(op.number(one.original), op.number(one.content)) for one in lengths))
    alone, joined = op.inner(), op.inner()

    tiles = alone.Reshape(found.tiles, [-1])
    own = alone.value(np.array([side]))
    axis = axis_of(alone, alone.value(np.array([side // stride])), Lengths(own, own, own))
    maps = alone.Reshape(found.maps, [-1, side // stride, side // stride])
    alone_parts = [maps, *axis, *axis, alone.Gather(plan.top, tiles), alone.Gather(plan.left, tiles)]

    padded = (rows.padded, columns.padded)
    canvas = as_map(joined, paste(joined, found.maps, found.tiles, plan, stride, padded), stride, padded)
    places = [joined.Div(length, stride) for length in padded]
    maps = joined.Reshape(canvas, joined.shape(-1, *places))
    axes = [axis_of(joined, *one) for one in zip(places, lengths, strict=True)]
    none = joined.Expand(0, joined.size(maps, 0))
    joined_parts = [maps, *axes[0], *axes[1], none, none]

    kinds = [FLOAT, *2 * [FLOAT, INT, INT, INT, INT], INT, INT]
    parts = op.If(
        whole,
        then_branch=alone.as_graph([], list(zip(alone_parts, kinds, strict=True))),
        else_branch=joined.as_graph([], list(zip(joined_parts, kinds, strict=True))),
        outputs=len(kinds),
    )
    return Drawing(parts[0], Axis(*parts[1:6]), Axis(*parts[6:11]), parts[11], parts[12])


def _put_before(graph: ir.Graph, before: Ops, inputs: list[Value], entries: dict[Value, Value]) -> None:
    """Puts nodes in front of a graph: they make its former inputs."""
    for old, new in entries.items():
        ir.convenience.replace_all_uses_with(old, new)
    graph.inputs.clear()
    graph.inputs.extend(inputs)
    first = next(iter(graph))
    graph.insert_before(first, before.nodes)
