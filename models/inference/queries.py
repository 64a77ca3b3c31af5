"""From the outputs of a network with queries to instances, as for SOLOv2: matrix NMS, then masks at the image's size.

Scores are those of Mask2Former (arXiv 2112.01527): class probability x mean probability inside the mask. A query can
give several instances of one mask, each of another class.

Legend: N images, C classes, Q queries, K masks, h x w the mask map, H x W pixels of the padded input.
"""

import torch
from torch import Tensor

from models.config import InferenceConfig, TileConfig
from models.inference.detect import REFERENCE_STRIDE, Candidates, Predictions, maskness, suppress
from models.inference.tiles import TILES_AT_ONCE, Tile, cut_tiles, joined
from models.masks.resize import Sizes, resize_boxed
from models.queries.network import QueryNetwork, QueryOutputs
from models.weights import check_outputs


@torch.no_grad()
def query_candidates(
    outputs: QueryOutputs,
    n: int,
    config: InferenceConfig,
    input_size: tuple[int, int],
    core_xyxy: tuple[float, float, float, float] | None = None,
) -> Candidates:
    """The `nms_pre` best masks of image `n`, of those above the score threshold and the least area.

    With `core_xyxy`, in pixels of the input, masks whose centre of mass is outside are skipped. `min_area` counts
    pixels of a map at stride 4.
    """
    classes = outputs.class_logits[-1][n].float().softmax(-1)[:, :-1]
    query, label = (classes > config.score_threshold).nonzero(as_tuple=True)
    drawn = outputs.mask_logits[-1][n].float().sigmoid()
    h, w = drawn.shape[-2:]
    certainty, area = maskness(drawn.flatten(1), config.mask_threshold)
    down, across = input_size[0] / h, input_size[1] / w
    kept = (area > 0) & (area * (down * across / REFERENCE_STRIDE**2) > config.min_area)
    if core_xyxy is not None:
        x, y = _centres(drawn > config.mask_threshold, area)
        x0, y0, x1, y1 = core_xyxy
        kept &= (x * across >= x0) & (x * across < x1) & (y * down >= y0) & (y * down < y1)
    query, label = query[kept[query]], label[kept[query]]
    scores = classes[query, label] * certainty[query]
    order = scores.argsort(descending=True, stable=True)[: config.nms_pre]
    return Candidates(scores[order], label[order], drawn[query[order]])


def _centres(masks: Tensor, area: Tensor) -> tuple[Tensor, Tensor]:
    """x and y [Q] of the centres of mass of masks bool [Q, h, w], in places of the map; 0 of an empty one."""
    held, count = masks.float(), area.clamp(min=1)
    y, x = (torch.arange(side, device=masks.device) + 0.5 for side in masks.shape[-2:])
    return (held.sum(1) * x).sum(1) / count, (held.sum(2) * y).sum(1) / count


@torch.no_grad()
def forward_queries(
    model: QueryNetwork, images: Tensor, content_sizes: list[tuple[int, int]], tile: TileConfig | None
) -> tuple[QueryOutputs, list[list[Tile]] | None]:
    """The outputs for images uint8 RGB [N, 3, H, W], or for their tiles, which are listed for each image.

    Raises CheckpointError where they aren't finite.
    """
    if tile is None:
        outputs: QueryOutputs = model(images, content_sizes)
        check_outputs(outputs.tensors)
        return outputs, None
    cut = cut_tiles(images, content_sizes, tile)
    parts = [
        model(torch.stack(cut.pieces[at:end]), cut.sizes[at:end])
        for at in range(0, len(cut.pieces), TILES_AT_ONCE)
        for end in [at + TILES_AT_ONCE]
    ]
    outputs = QueryOutputs(*([torch.cat([part[i][-1] for part in parts])] for i in range(2)))
    check_outputs(outputs.tensors)
    return outputs, cut.tiles


def predict_queries(
    outputs: QueryOutputs,
    tiles: list[list[Tile]] | None,
    n: int,
    config: InferenceConfig,
    sizes: Sizes,
    side: int,
) -> Predictions:
    """Instances of image `n`; with `tiles` of this side each is found by the tile whose core holds its centre."""
    if tiles is None:
        found = query_candidates(outputs, n, config, sizes.input)
    else:
        parts = [
            query_candidates(outputs, tile.row, config, (side, side), tile.own_core_xyxy) for tile in tiles[n]
        ]
        stride = side // outputs.mask_logits[-1].shape[-1]
        found, _, _ = joined(parts, tiles[n], config.nms_pre, stride, sizes.input)
    scores, order = suppress(found, config)
    masks, boxes = resize_boxed(found.probabilities[order], sizes, config.mask_threshold)
    return Predictions(masks, scores, found.labels[order], boxes)
