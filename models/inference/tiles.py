"""Images seen in tiles: a network that learnt from crops answers for pieces of their size, and the pieces make one.

On a whole image such a network is asked for what it never learnt: to tell an object from one that is further away
than a crop is wide, with group norms over another extent. So larger images are cut into overlapping tiles; each click,
and each cell, is answered by the tile in whose middle it lies, its core.

Legend: N images, T tiles, L levels, S grid side, K points, H x W pixels of the padded input, h x w its mask map.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.config import SIZE_DIVISOR, InferenceConfig, PromptConfig, TileConfig
from models.inference.click_masks import Prompted, prompt_points
from models.inference.detect import Candidates, Predictions, candidates, suppress
from models.inference.detect import predict as predict_whole
from models.masks.boxes import empty_masks
from models.masks.resize import resize_boxed
from models.solov2.network import RawOutputs, SOLOv2
from models.weights import check_outputs

TILES_AT_ONCE = 32
"""In a forward pass."""


class Tile(NamedTuple):
    """One tile of an image."""

    row: int
    """in the outputs"""
    x: int
    """of its top-left corner, in pixels of the input"""
    y: int
    core_xyxy: tuple[float, float, float, float]
    """what it answers for: up to half-way to the next tile's middle"""


class Tiled(NamedTuple):
    """What the network says of a batch, tile by tile."""

    outputs: RawOutputs
    """of T tiles"""
    tiles: list[list[Tile]]
    """of each of the N images"""
    side: int
    stride: int
    """pixels of input to one of the mask map"""


Outputs = RawOutputs | Tiled
"""A batch as the network saw it: whole, or in tiles."""


def starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles begin along a padded side: evenly, at multiples of 32, the first at 0 and the last at the end."""
    if length <= side:
        return [0]
    steps = -(-(length - side) // (side - overlap))
    return [round(i * (length - side) / steps / SIZE_DIVISOR) * SIZE_DIVISOR for i in range(steps + 1)]


def tile_core_ranges(begins: Sequence[int], side: int) -> list[tuple[float, float]]:
    """From where to where each of the tiles answers; together they cover the line once."""
    borders = [(a + b + side) / 2 for a, b in pairwise(begins)]
    return list(zip([-torch.inf, *borders], [*borders, torch.inf], strict=True))


@torch.no_grad()
def forward_tiled(
    model: SOLOv2, images: Tensor, content_sizes: list[tuple[int, int]], tile: TileConfig | None
) -> Outputs:
    """The network's outputs for images [N, 3, H, W], uint8 RGB, whose content ends at (h, w): in tiles if wanted.

    Raises CheckpointError where they aren't finite.
    """
    if tile is None:
        outputs: RawOutputs = model(images, content_sizes)
        check_outputs(outputs.tensors)
        return outputs
    height, width = images.shape[2:]
    down, across = (starts(length, tile.side, tile.overlap) for length in (height, width))
    places = [
        (x, y, (x0, y0, x1, y1))
        for y, (y0, y1) in zip(down, tile_core_ranges(down, tile.side), strict=True)
        for x, (x0, x1) in zip(across, tile_core_ranges(across, tile.side), strict=True)
    ]
    pieces, sizes, origins = [], [], []
    tiles: list[list[Tile]] = []
    for image, (h, w) in zip(images, content_sizes, strict=True):
        tiles.append([])
        for x, y, core in places:
            piece = image[:, y : y + tile.side, x : x + tile.side]
            # In a small image: to a tile's full size, as crops of small images were padded in training.
            pieces.append(pad(piece, (0, tile.side - piece.shape[2], 0, tile.side - piece.shape[1])))
            sizes.append((min(max(h - y, 0), tile.side), min(max(w - x, 0), tile.side)))
            origins.append((float(x), float(y)))
            tiles[-1].append(Tile(len(pieces) - 1, x, y, core))
    parts: list[RawOutputs] = [
        model(torch.stack(pieces[at:end]), sizes[at:end], origins[at:end])
        for at in range(0, len(pieces), TILES_AT_ONCE)
        for end in [at + TILES_AT_ONCE]
    ]
    outputs = RawOutputs(
        [torch.cat(level) for level in zip(*(part.category_logits for part in parts), strict=True)],
        [torch.cat(level) for level in zip(*(part.kernels for part in parts), strict=True)],
        torch.cat([part.mask_features for part in parts]),
        parts[0].strides,
    )
    check_outputs(outputs.tensors)
    return Tiled(outputs, tiles, tile.side, tile.side // outputs.mask_features.shape[-1])


def prompt(
    seen: Outputs,
    n: int,
    points_xy: Tensor,
    labels: Tensor,
    input_size: tuple[int, int],
    config: PromptConfig,
) -> Prompted:
    """`prompt_points` for image `n`, each click in its core tile.

    Beyond that tile a mask's probabilities are 0.
    """
    if isinstance(seen, RawOutputs):
        return prompt_points(seen, n, points_xy, labels, input_size, config)
    features = seen.outputs.mask_features
    points, labels = points_xy.to(features.device, torch.float32), labels.to(features.device)
    if not bool(points.isfinite().all()):
        raise ValueError("points_xy: found a value that isn't finite, expected pixels of the input")
    # No tile holds the outermost border, onto which scaling may round a click.
    end = points.new_tensor([input_size[1], input_size[0]])
    points = points.clamp(min=torch.zeros_like(end), max=end.nextafter(torch.zeros_like(end)))
    canvas = torch.zeros(
        len(points), *(length // seen.stride for length in input_size), device=features.device
    )
    rows, parts = [], []
    for tile in seen.tiles[n]:
        mine = _inside(points, tile.core_xyxy).nonzero()[:, 0]
        if not len(mine):
            continue
        local = points[mine] - points.new_tensor([tile.x, tile.y])
        answer = prompt_points(seen.outputs, tile.row, local, labels[mine], (seen.side, seen.side), config)
        _paste(canvas, mine, answer.mask_prob, tile, seen.stride)
        rows.append(mine)
        parts.append(answer[:-1])
    if not rows:
        return prompt_points(seen.outputs, 0, points, labels, (seen.side, seen.side), config)._replace(
            mask_prob=canvas
        )
    order = torch.cat(rows).argsort()
    columns = [torch.cat(column)[order] for column in zip(*parts, strict=True)]
    return Prompted._make([*columns, canvas])


def predict(
    seen: Outputs,
    n: int,
    config: InferenceConfig,
    input_size: tuple[int, int],
    content_size: tuple[int, int],
    original_size: tuple[int, int],
) -> Predictions:
    """Instances of image `n`; sizes are (height, width) of the padded batch, the resized, the raw image."""
    if isinstance(seen, RawOutputs):
        return predict_whole(seen, n, config, input_size, content_size, original_size)
    found, source, local = _tile_candidates(seen, n, config, input_size)
    scores, order = suppress(found, config)
    if content_size != original_size:
        masks, boxes = resize_boxed(
            found.probabilities[order], input_size, content_size, original_size, config.mask_threshold
        )
        return Predictions(masks, scores, found.labels[order], boxes)
    # Drawn tile by tile: an object is much smaller than the image.
    masks = empty_masks(len(order), input_size, scores.device)
    boxes = torch.zeros(len(order), 4, dtype=torch.long)
    size = (seen.side, seen.side)
    for at, tile in enumerate(seen.tiles[n]):
        mine = (source[order] == at).nonzero()[:, 0]
        drawn = resize_boxed(local[order[mine]], size, size, size, config.mask_threshold)
        _paste(masks, mine, drawn.masks, tile, 1)
        boxes[mine.cpu()] = drawn.boxes_xyxy + torch.tensor([tile.x, tile.y] * 2)
    height, width = content_size
    boxes = boxes.minimum(torch.tensor([width, height] * 2))
    boxes *= (boxes[:, 2:] > boxes[:, :2]).all(1, keepdim=True)
    return Predictions(masks[:, :height, :width], scores, found.labels[order], boxes)


@torch.no_grad()
def _tile_candidates(
    seen: Tiled, n: int, config: InferenceConfig, input_size: tuple[int, int]
) -> tuple[Candidates, Tensor, Tensor]:
    """The best of what each tile's core cells answer, in place on the image's mask map; the number of each one's
    tile, and its map [K, s, s] in that tile."""
    found = []
    for tile in seen.tiles[n]:
        x0, y0, x1, y1 = tile.core_xyxy
        core = (x0 - tile.x, y0 - tile.y, x1 - tile.x, y1 - tile.y)
        found.append(candidates(seen.outputs, tile.row, config, (seen.side, seen.side), core))
    scores = torch.cat([one.scores for one in found])
    best = scores.argsort(descending=True, stable=True)[: config.nms_pre]
    labels = torch.cat([one.labels for one in found])[best]
    source = torch.cat([torch.full_like(one.labels, at) for at, one in enumerate(found)])[best]
    local = torch.cat([one.probabilities for one in found])[best]
    canvas = torch.zeros(len(best), *(length // seen.stride for length in input_size), device=scores.device)
    for at, tile in enumerate(seen.tiles[n]):
        mine = (source == at).nonzero()[:, 0]
        _paste(canvas, mine, local[mine], tile, seen.stride)
    return Candidates(scores[best], labels, canvas), source, local


def _inside(points: Tensor, box_xyxy: tuple[float, float, float, float]) -> Tensor:
    x0, y0, x1, y1 = box_xyxy
    x, y = points.unbind(1)
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def _paste(canvas: Tensor, rows: Tensor, maps: Tensor, tile: Tile, stride: int) -> None:
    """Puts maps [k, s, s] of a tile into rows of the canvas [K, h, w]; what lies beyond it is padding."""
    top, left = tile.y // stride, tile.x // stride
    h, w = min(maps.shape[1], canvas.shape[1] - top), min(maps.shape[2], canvas.shape[2] - left)
    canvas[rows, top : top + h, left : left + w] = maps[:, :h, :w].to(canvas.dtype)
