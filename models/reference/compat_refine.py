"""Cropping, MaskRefineNet and pasting as in the public PointWSSIS implementation; ours is models/refiner/crops.py.

For published MaskRefineNets, which were trained with these crops, under `--compat`. Written from the reference's
measured behaviour.

Legend: K instances, S crop side, P heatmap channels, H x W pixels of the image. Points are x, y in pixels, (0, 0)
the outer corner of the top-left pixel; boxes are xyxy of whole pixels, the last ones included.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import RefineNetConfig
from models.refiner.network import MaskRefineNet
from models.weights import check_outputs


def reference_boxes(masks: Tensor, points_xy: Tensor, scale: float) -> Tensor:
    """Int64 [K, 4]: each non-empty mask's box, `scale` times as large, and extended where its point is outside.

    An extended side is half the enlarged box beyond the point.

    Args:
        masks: bool [K, H, W].
        points_xy: float [K, 2].
    """
    boxes = torch.zeros(len(masks), 4, dtype=torch.long)
    for axis, held in enumerate((masks.any(1), masks.any(2))):
        last = held.shape[1] - 1
        for k, (row, place) in enumerate(zip(held.cpu(), points_xy[:, axis].tolist(), strict=True)):
            taken = row.nonzero()[:, 0]
            first, end = int(taken[0]), int(taken[-1])
            middle, reach = (first + end) / 2, (end - first) / 2 * scale
            low, high = int(max(0, middle - reach)), int(min(last, middle + reach))
            index = place - 0.5
            if index > high:
                high = int(min(last, index + reach))
            if index < low:
                low = int(max(0, index - reach))
            boxes[k, axis], boxes[k, axis + 2] = low, high
    return boxes


def reference_inputs(
    image: Tensor, masks: Tensor, points_xy: Tensor, boxes: Tensor, config: RefineNetConfig, channels: Tensor
) -> Tensor:
    """Network inputs float32 [K, 3 + P + 1, S, S]: image crop (bilinear), heatmap, rough mask (nearest).

    The heatmap's peak is at a whole pixel; it is 0 from 3 sigma + 1 pixels on.

    Args:
        image: uint8 RGB [3, H, W].
        masks: bool [K, H, W].
        points_xy: float [K, 2].
        boxes: of `reference_boxes`.
        channels: int64 [K], the heatmap channel of each one's class.
    """
    size = config.crop_size
    device = image.device
    mean = torch.tensor(config.pixel_mean, device=device).view(3, 1, 1)
    std = torch.tensor(config.pixel_std, device=device).view(3, 1, 1)
    whole = (image.float() - mean) / std
    inputs = torch.zeros(len(masks), 3 + config.heatmap_channels + 1, size, size, device=device)
    span = torch.arange(size, device=device)
    for k, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        crop = whole[None, :, y0 : y1 + 1, x0 : x1 + 1]
        inputs[k, :3] = F.interpolate(crop, size=(size, size), mode="bilinear", align_corners=False)[0]
        rough = masks[None, None, k, y0 : y1 + 1, x0 : x1 + 1].float()
        inputs[k, -1] = F.interpolate(rough, size=(size, size), mode="nearest")[0, 0]
        x = int((float(points_xy[k, 0]) - 0.5 - x0) / (x1 - x0 + 1) * size)
        y = int((float(points_xy[k, 1]) - 0.5 - y0) / (y1 - y0 + 1) * size)
        if 0 <= x < size and 0 <= y < size:
            dx, dy = span - x, (span - y)[:, None]
            heat = torch.exp(-(dx.square() + dy.square()) / (2 * config.heatmap_sigma**2))
            end = 3 * config.heatmap_sigma + 1
            inputs[k, 3 + int(channels[k])] = heat * (dx.abs() <= end) * (dy.abs() <= end)
    return inputs


@torch.no_grad()
def refine_as_reference(
    model: MaskRefineNet,
    image: Tensor,
    masks: Tensor,
    points_xy: Tensor,
    labels: Tensor,
    batch_size: int,
    *,
    enlarge: float,
) -> tuple[Tensor, Tensor]:
    """Refined masks bool [K, H, W], and bool [K]: the refined mask is empty and the rough one stays.

    Args:
        image: uint8 RGB [3, H, W].
        masks: the rough ones, bool [K, H, W]; an empty one stays empty.
        points_xy: float [K, 2] in pixels of `image`.
        labels: contiguous classes [K].
        batch_size: crops at a time; doesn't affect results.
        enlarge: size of a crop relative to the mask's box.
    """
    refined, kept_rough = masks.clone(), torch.ones(len(masks), dtype=torch.bool, device=masks.device)
    rows = masks.flatten(1).any(1).nonzero()[:, 0]
    boxes = reference_boxes(masks[rows], points_xy[rows], enlarge)
    channels = labels + model.spare_channels
    for at in range(0, len(rows), batch_size):
        part, part_boxes = rows[at : at + batch_size], boxes[at : at + batch_size]
        inputs = reference_inputs(
            image, masks[part], points_xy[part], part_boxes, model.config, channels[part]
        )
        logits = model(inputs)
        check_outputs([logits])
        shares = logits.float().softmax(1)
        for k, share, (x0, y0, x1, y1) in zip(part.tolist(), shares, part_boxes.tolist(), strict=True):
            size = (y1 - y0 + 1, x1 - x0 + 1)
            share = F.interpolate(share[None], size=size, mode="bilinear", align_corners=False)[0]
            found = share[1] > share[0]
            if bool(found.any()):
                refined[k] = False
                refined[k, y0 : y1 + 1, x0 : x1 + 1] = found
                kept_rough[k] = False
    return refined, kept_rough
