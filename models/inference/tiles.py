"""Tiled inference, for networks that were trained on crops.

On a whole image such a network meets what it never saw in training: objects further apart than a crop is wide, and
group norm statistics over a larger area. So larger images are cut into overlapping tiles of the crops' size. Each tile
is used for the clicks and cells in its core, the region nearest to its centre.

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
from models.masks.clicks import NO_POINT, ON, FurtherClicks
from models.masks.resize import Sizes, resize_boxed
from models.solov2.network import RawOutputs, SOLOv2
from models.weights import check_outputs

TILES_AT_ONCE = 32
"""Batch size of a forward pass."""


class Tile(NamedTuple):
    """One tile of an image."""

    row: int
    """its index in the outputs"""
    x: int
    """of its top-left corner, in pixels of the input"""
    y: int
    core_xyxy: tuple[float, float, float, float]
    """in pixels of the input: up to the middle of the overlap with the next tile"""

    @property
    def own_core_xyxy(self) -> tuple[float, float, float, float]:
        """In pixels of the tile."""
        x0, y0, x1, y1 = self.core_xyxy
        return x0 - self.x, y0 - self.y, x1 - self.x, y1 - self.y


class Tiled(NamedTuple):
    """The network's outputs for the tiles of a batch."""

    outputs: RawOutputs
    """of T tiles"""
    tiles: list[list[Tile]]
    """of each of the N images"""
    side: int
    stride: int
    """pixels of input to one of the mask map"""


Outputs = RawOutputs | Tiled
"""The network's outputs for a batch of whole images, or for their tiles."""


def starts(length: int, side: int, overlap: int) -> list[int]:
    """First pixels of the tiles along a padded side: evenly spaced multiples of 32; the last tile ends at its end."""
    if length <= side:
        return [0]
    steps = -(-(length - side) // (side - overlap))
    return [round(i * (length - side) / steps / SIZE_DIVISOR) * SIZE_DIVISOR for i in range(steps + 1)]


def tile_core_ranges(begins: Sequence[int], side: int) -> list[tuple[float, float]]:
    """(begin, end) of each tile's core along a side; together they cover it without overlap."""
    borders = [(a + b + side) / 2 for a, b in pairwise(begins)]
    return list(zip([-torch.inf, *borders], [*borders, torch.inf], strict=True))


@torch.no_grad()
def forward_tiled(
    model: SOLOv2, images: Tensor, content_sizes: list[tuple[int, int]], tile: TileConfig | None
) -> Outputs:
    """The network's outputs for images [N, 3, H, W], uint8 RGB, whose content ends at (h, w); in tiles with `tile`.

    Raises CheckpointError where they aren't finite.
    """
    if tile is None:
        outputs: RawOutputs = model(images, content_sizes)
        check_outputs(outputs.tensors)
        return outputs
    pieces, sizes, origins, tiles = cut_tiles(images, content_sizes, tile)
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


class CutTiles(NamedTuple):
    """The tiles of a batch."""

    pieces: list[Tensor]
    """T of uint8 [3, side, side]"""
    sizes: list[tuple[int, int]]
    """T: (h, w) of their content"""
    origins: list[tuple[float, float]]
    """T: x, y of their top-left corners"""
    tiles: list[list[Tile]]
    """of each of the N images"""


def cut_tiles(images: Tensor, content_sizes: list[tuple[int, int]], tile: TileConfig) -> CutTiles:
    """The tiles of images [N, 3, H, W], whose content ends at (h, w)."""
    height, width = images.shape[2:]
    down, across = (starts(length, tile.side, tile.overlap) for length in (height, width))
    places = [
        (x, y, (x0, y0, x1, y1))
        for y, (y0, y1) in zip(down, tile_core_ranges(down, tile.side), strict=True)
        for x, (x0, x1) in zip(across, tile_core_ranges(across, tile.side), strict=True)
    ]
    cut = CutTiles([], [], [], [])
    for image, (h, w) in zip(images, content_sizes, strict=True):
        cut.tiles.append([])
        for x, y, core in places:
            piece = image[:, y : y + tile.side, x : x + tile.side]
            # In a small image: to the full size of a tile, as crops of small images are padded in training.
            cut.pieces.append(pad(piece, (0, tile.side - piece.shape[2], 0, tile.side - piece.shape[1])))
            cut.sizes.append((min(max(h - y, 0), tile.side), min(max(w - x, 0), tile.side)))
            cut.origins.append((float(x), float(y)))
            cut.tiles[-1].append(Tile(len(cut.pieces) - 1, x, y, core))
    return cut


def prompt(
    outputs: Outputs,
    n: int,
    points_xy: Tensor,
    labels: Tensor,
    input_size: tuple[int, int],
    config: PromptConfig,
    further: FurtherClicks | None = None,
) -> Prompted:
    """`prompt_points` for image `n`, each click in the tile whose core holds it.

    Outside that tile a mask's probabilities are 0. An object with `further` clicks inside it in the cores of other
    tiles gets the greatest of its probabilities in all these tiles; a tile sees the clicks in its own pixels.
    """
    if isinstance(outputs, RawOutputs):
        return prompt_points(outputs, n, points_xy, labels, input_size, config, further)
    features = outputs.outputs.mask_features
    points, labels = points_xy.to(features.device, torch.float32), labels.to(features.device)
    if not bool(points.isfinite().all()):
        raise ValueError("points_xy: found a value that isn't finite, expected pixels of the input")
    # Scaling may round a click onto the image's far border, which is in no core.
    end = points.new_tensor([input_size[1], input_size[0]])
    border = end.nextafter(torch.zeros_like(end))
    points = points.clamp(min=torch.zeros_like(end), max=border)
    if further is not None:
        further = further._replace(points_xy=further.points_xy.clamp(min=torch.zeros_like(end), max=border))
    canvas = torch.zeros(
        len(points), *(length // outputs.stride for length in input_size), device=features.device
    )
    rows, parts = [], []
    for tile in outputs.tiles[n]:
        mine = _inside(points, tile.core_xyxy).nonzero()[:, 0]
        if not len(mine):
            continue
        local = points[mine] - points.new_tensor([tile.x, tile.y])
        prompted = prompt_points(
            outputs.outputs, tile.row, local, labels[mine], (outputs.side, outputs.side), config,
            None if further is None else _in_tile(further.take(mine), tile, outputs.side),
        )  # fmt: skip
        paste(canvas, mine, prompted.mask_prob, tile, outputs.stride)
        rows.append(mine)
        parts.append(prompted[:-1])
    if not rows:
        return prompt_points(
            outputs.outputs, 0, points, labels, (outputs.side, outputs.side), config
        )._replace(mask_prob=canvas)
    order = torch.cat(rows).argsort()
    columns = [torch.cat(column)[order] for column in zip(*parts, strict=True)]
    found = Prompted._make([*columns, canvas])
    if further is not None:
        _add_other_tiles(found, outputs, n, points, labels, config, further)
    return found


def _in_tile(further: FurtherClicks, tile: Tile, side: int) -> FurtherClicks:
    """In pixels of a tile, without the clicks that are outside of it."""
    local = further.points_xy - further.points_xy.new_tensor([tile.x, tile.y])
    inside = ((local >= 0) & (local < side)).all(-1)
    return FurtherClicks(local.where(inside[..., None], 0), further.labels.masked_fill(~inside, NO_POINT))


def _add_other_tiles(
    found: Prompted, outputs: Tiled, n: int, points: Tensor, labels: Tensor, config: PromptConfig,
    further: FurtherClicks,
) -> None:  # fmt: skip
    """Adds what other tiles draw at the first of an object's further clicks in their cores to `found.mask_prob`."""
    on = further.labels == ON
    for tile in outputs.tiles[n]:
        held = on & _inside(further.points_xy.flatten(0, 1), tile.core_xyxy).view(on.shape)
        mine = (held.any(1) & ~_inside(points, tile.core_xyxy)).nonzero()[:, 0]
        if not len(mine):
            continue
        first = held[mine].int().argmax(1)
        rows = torch.arange(len(mine), device=first.device)
        # The object's first click takes the place of the one that is first here.
        own = further.take(mine)
        start = own.points_xy[rows, first]
        own.points_xy[rows, first], own.labels[rows, first] = points[mine], ON
        prompted = prompt_points(
            outputs.outputs, tile.row, start - start.new_tensor([tile.x, tile.y]), labels[mine],
            (outputs.side, outputs.side), config, _in_tile(own, tile, outputs.side),
        )  # fmt: skip
        maps = torch.zeros_like(found.mask_prob[mine])
        scale = (found.cut[mine] / prompted.cut)[:, None, None]
        paste(maps, rows, prompted.mask_prob * scale, tile, outputs.stride)
        found.mask_prob[mine] = torch.maximum(found.mask_prob[mine], maps)


def predict(
    outputs: Outputs,
    n: int,
    config: InferenceConfig,
    sizes: Sizes,
) -> Predictions:
    """Instances of image `n`."""
    if isinstance(outputs, RawOutputs):
        return predict_whole(outputs, n, config, sizes)
    found, source, local = _tile_candidates(outputs, n, config, sizes.input)
    scores, order = suppress(found, config)
    if sizes.content != sizes.original:
        masks, boxes = resize_boxed(found.probabilities[order], sizes, config.mask_threshold)
        return Predictions(masks, scores, found.labels[order], boxes)
    # Drawn tile by tile: an object is much smaller than the image.
    masks = empty_masks(len(order), sizes.input, scores.device)
    boxes = torch.zeros(len(order), 4, dtype=torch.long)
    side = (outputs.side, outputs.side)
    of_tile = Sizes(side, side, side)
    for at, tile in enumerate(outputs.tiles[n]):
        mine = (source[order] == at).nonzero()[:, 0]
        drawn = resize_boxed(local[order[mine]], of_tile, config.mask_threshold)
        paste(masks, mine, drawn.masks, tile, 1)
        boxes[mine.cpu()] = drawn.boxes_xyxy + torch.tensor([tile.x, tile.y] * 2)
    height, width = sizes.content
    boxes = boxes.minimum(torch.tensor([width, height] * 2))
    boxes *= (boxes[:, 2:] > boxes[:, :2]).all(1, keepdim=True)
    return Predictions(masks[:, :height, :width], scores, found.labels[order], boxes)


@torch.no_grad()
def _tile_candidates(
    tiled: Tiled, n: int, config: InferenceConfig, input_size: tuple[int, int]
) -> tuple[Candidates, Tensor, Tensor]:
    """The best candidates of all tiles' core cells, pasted into the image's mask map; the index of each one's tile,
    and its map [K, s, s] in that tile."""
    side = (tiled.side, tiled.side)
    found = [candidates(tiled.outputs, tile.row, config, side, tile.own_core_xyxy) for tile in tiled.tiles[n]]
    return joined(found, tiled.tiles[n], config.nms_pre, tiled.stride, input_size)


def joined(
    found: Sequence[Candidates], tiles: Sequence[Tile], most: int, stride: int, input_size: tuple[int, int]
) -> tuple[Candidates, Tensor, Tensor]:
    """The best candidates of all tiles of an image, at most `most`, pasted into its mask map; the index of each one's
    tile, and its map [K, s, s] in that tile.

    Args:
        found: of each tile.
        stride: pixels of input to one of the mask map.
    """
    scores = torch.cat([one.scores for one in found])
    best = scores.argsort(descending=True, stable=True)[:most]
    labels = torch.cat([one.labels for one in found])[best]
    source = torch.cat([torch.full_like(one.labels, at) for at, one in enumerate(found)])[best]
    local = torch.cat([one.probabilities for one in found])[best]
    canvas = torch.zeros(len(best), *(length // stride for length in input_size), device=scores.device)
    for at, tile in enumerate(tiles):
        mine = (source == at).nonzero()[:, 0]
        paste(canvas, mine, local[mine], tile, stride)
    return Candidates(scores[best], labels, canvas), source, local


def _inside(points: Tensor, box_xyxy: tuple[float, float, float, float]) -> Tensor:
    x0, y0, x1, y1 = box_xyxy
    x, y = points.unbind(1)
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def paste(canvas: Tensor, rows: Tensor, maps: Tensor, tile: Tile, stride: int) -> None:
    """Pastes maps [k, s, s] of a tile into rows of the canvas [K, h, w]; what is outside the canvas is padding."""
    top, left = tile.y // stride, tile.x // stride
    h, w = min(maps.shape[1], canvas.shape[1] - top), min(maps.shape[2], canvas.shape[2] - left)
    canvas[rows, top : top + h, left : left + w] = maps[:, :h, :w].to(canvas.dtype)
