"""Crops for MaskRefineNet, for all points of an image at once: boxes, network inputs, and pasting the results.

Legend: K instances, S crop side, P heatmap channels, H x W pixels of the image. Boxes are xyxy, points x, y,
in pixels; (0, 0) is the outer corner of the top-left pixel, whose centre is (0.5, 0.5).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from models.config import RefineNetConfig
from models.masks.boxes import empty_masks, mask_boxes
from models.masks.exclusive import Maps
from models.refiner.network import MaskRefineNet
from models.weights import check_outputs

CHUNK_ELEMENTS = 1 << 22
"""Pixels pasted at a time; each takes a few hundred bytes meanwhile."""


def crop_boxes(masks: Tensor, points_xy: Tensor, scale: float | Tensor) -> Tensor:
    """Float32 xyxy [K, 4]: each mask's box, grown to hold the point's pixel, with context around it.

    The context is (scale - 1) / 2 of the mask's own width and height on each side: the box of a mask that
    holds its point becomes `scale` times as large. Boxes are clipped to the image, and of whole pixels, so that no
    crop is empty. The box of an empty mask is its point's pixel.

    Args:
        masks: bool [K, H, W].
        points_xy: float [K, 2].
        scale: a number, or one per instance [K].
    """
    height, width = masks.shape[-2:]
    limit = torch.tensor([width, height], dtype=torch.float32, device=masks.device)
    pixel = points_xy.to(limit).floor().clamp(min=torch.zeros_like(limit), max=limit - 1)
    tight, held = _tight_boxes(masks)
    low = torch.where(held[:, None], tight[:, :2], pixel)
    high = torch.where(held[:, None], tight[:, 2:], pixel + 1)
    factor = torch.as_tensor(scale, dtype=torch.float32, device=masks.device).reshape(-1, 1)
    context = (high - low) * (factor - 1).clamp(min=0) / 2
    low = (torch.minimum(low, pixel) - context).floor().clamp(min=0)
    high = torch.minimum((torch.maximum(high, pixel + 1) + context).ceil(), limit)
    return torch.cat([low, high], 1)


def _tight_boxes(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 xyxy [K, 4] of bool masks [K, H, W], and bool [K]: the mask isn't empty; else its box is undefined."""
    if masks.device.type == "cpu":
        boxes = mask_boxes(masks)
        return boxes.float(), boxes[:, 2] > boxes[:, 0]
    ends = []
    for held in (masks.any(1), masks.any(2)):
        where = torch.arange(held.shape[1], device=masks.device, dtype=torch.float32)
        ends.append((torch.where(held, where, torch.inf).amin(1), torch.where(held, where + 1, 0).amax(1)))
    (x0, x1), (y0, y1) = ends
    return torch.stack([x0, y0, x1, y1], 1), x1 > 0


def heatmaps(points_xy: Tensor, boxes_xyxy: Tensor, size: int, sigma: float) -> Tensor:
    """Float32 [K, S, S]: exp(-d^2 / (2 sigma^2)), d the distance of each pixel to the point, in pixels of the crop."""
    low, side = boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    place = (points_xy - low) / side * size
    span = torch.arange(size, device=points_xy.device, dtype=torch.float32) + 0.5
    falloff = torch.exp(-(span - place[..., None]).square() / (2 * sigma**2))  # [K, 2, S]
    return falloff[:, 1, :, None] * falloff[:, 0, None, :]


def crop_masks(masks: Tensor, boxes_xyxy: Tensor, size: int) -> Tensor:
    """Bool [K, S, S]: the masks [K, H, W] inside the boxes, nearest neighbour."""
    steps = (torch.arange(size, device=masks.device, dtype=torch.float32) + 0.5) / size
    corner, side = boxes_xyxy[:, :2, None], (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2])[..., None]
    place = (corner + steps * side).long()  # [K, 2, S]
    x = place[:, 0].clamp(0, masks.shape[2] - 1)
    y = place[:, 1].clamp(0, masks.shape[1] - 1)
    return masks[torch.arange(len(masks), device=masks.device)[:, None, None], y[:, :, None], x[:, None, :]]


def crop_inputs(
    image: Tensor,
    masks: Tensor,
    points_xy: Tensor,
    boxes_xyxy: Tensor,
    config: RefineNetConfig,
    labels: Tensor | None = None,
) -> Tensor:
    """Network inputs float32 [K, 3 + P + 1, S, S]: image crop (normalised), point heatmap, rough mask.

    The image is averaged where it shrinks and bilinear where it grows; the mask is nearest neighbour.

    Args:
        image: RGB 0..255 [3, H, W].
        masks: bool [K, H, W].
        labels: heatmap channels [K], the contiguous classes; needed when config has a channel per class.
    """
    size = config.crop_size
    mean = torch.tensor(config.pixel_mean, device=image.device).view(3, 1, 1)
    std = torch.tensor(config.pixel_std, device=image.device).view(3, 1, 1)
    pixels = roi_align(image[None].float(), [boxes_xyxy.float()], size, sampling_ratio=-1, aligned=True)
    points = points_xy.to(boxes_xyxy)
    heat = torch.zeros(len(masks), config.heatmap_channels, size, size, device=image.device)
    if config.heatmap_channels > 1 and labels is None:
        raise ValueError("labels: needed, because the network has a heatmap channel for each class")
    channel = torch.zeros(len(masks), dtype=torch.long, device=image.device)
    if config.heatmap_channels > 1 and labels is not None:
        channel = labels.to(image.device)
    rows = torch.arange(len(masks), device=image.device)
    heat[rows, channel] = heatmaps(points, boxes_xyxy, size, config.heatmap_sigma)
    rough = crop_masks(masks, boxes_xyxy, size)[:, None].float()
    return torch.cat([(pixels - mean) / std, heat, rough], dim=1)


def paste_masks(probabilities: Tensor, boxes_xyxy: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Bool [K, H, W]: where crops [K, S, S], resized to their boxes (bilinear), exceed the threshold.

    Only pixels inside the boxes are computed: an image is hundreds of times larger than a small object.
    """
    if probabilities.device.type != "cpu":
        return paste_sampled(probabilities, boxes_xyxy, size, threshold)
    masks = empty_masks(len(probabilities), size, probabilities.device)
    for mask, probability, box in zip(masks, probabilities, boxes_xyxy.long().tolist(), strict=True):
        _inside(mask, box).copy_(_drawn(probability, box, threshold))
    return masks


def paste_sampled(
    probabilities: Tensor, boxes_xyxy: Tensor, size: tuple[int, int], threshold: float
) -> Tensor:
    """`paste_masks` of all crops in a few kernels, for a GPU; equal to it up to rounding."""
    masks = torch.zeros(len(probabilities), *size, dtype=torch.bool, device=probabilities.device)
    low, high = boxes_xyxy[:, :2].long(), boxes_xyxy[:, 2:].long()
    width, height = (high - low).unbind(1)
    area = width * height
    end = area.cumsum(0)
    maps = Maps(probabilities.float(), boxes_xyxy.float())
    total = int(end[-1]) if len(end) else 0
    for at in range(0, total, CHUNK_ELEMENTS):
        place = torch.arange(at, min(at + CHUNK_ELEMENTS, total), device=masks.device)
        row = torch.searchsorted(end, place, right=True)
        within = place - (end - area)[row]
        x = low[row, 0] + within % width[row]
        y = low[row, 1] + within // width[row]
        masks[row, y, x] = maps.at(row, torch.stack([x, y], 1) + 0.5) > threshold
    return masks


def _inside(mask: Tensor, box: list[int]) -> Tensor:
    x0, y0, x1, y1 = box
    return mask[y0:y1, x0:x1]


def _drawn(probability: Tensor, box: list[int], threshold: float) -> Tensor:
    """Bool [h, w] of a crop [S, S] whose box is w x h."""
    size = (box[3] - box[1], box[2] - box[0])
    drawn = F.interpolate(probability[None, None].float(), size=size, mode="bilinear", align_corners=False)
    return drawn[0, 0] > threshold


def _put_back(
    masks: Tensor, rows: Tensor, probabilities: Tensor, boxes_xyxy: Tensor, threshold: float
) -> Tensor:
    """Bool [K]: which crops [K, S, S] aren't empty; these replace `masks` [rows], which are inside the boxes."""
    if masks.device.type != "cpu":
        new = paste_masks(probabilities, boxes_xyxy, (masks.shape[1], masks.shape[2]), threshold)
        held = new.flatten(1).any(1)
        masks[rows[held]] = new[held]
        return held
    found = []
    for row, probability, box in zip(rows.tolist(), probabilities, boxes_xyxy.long().tolist(), strict=True):
        drawn = _drawn(probability, box, threshold)
        found.append(bool(drawn.any()))
        if found[-1]:
            # No copy of whole masks: the old one has no pixel outside the box.
            _inside(masks[row], box).copy_(drawn)
    return torch.tensor(found, dtype=torch.bool)


class Refined(NamedTuple):
    """Masks of an image after refinement, one per point."""

    masks: Tensor
    """bool [K, H, W]; the rough mask where `kept_rough`"""
    kept_rough: Tensor
    """bool [K]: not selected for refinement, or the refined mask is empty"""
    probabilities: Tensor
    """float32 [K, S, S]: the crops from which the refined masks are pasted; 0 where kept_rough"""
    boxes_xyxy: Tensor
    """float32 [K, 4]: the crops' places in the image"""


@torch.no_grad()
def refine(
    model: MaskRefineNet,
    image: Tensor,
    masks: Tensor,
    points_xy: Tensor,
    config: RefineNetConfig,
    batch_size: int,
    *,
    enlarge: float,
    mask_threshold: float,
    rounds: int,
    labels: Tensor | None = None,
    selected: Tensor | None = None,
) -> Refined:
    """Refined masks at all points of an image.

    Each further round refines the mask of the round before, in a new crop around it. Where the result is empty, the
    mask before it stays.

    Args:
        image: uint8 RGB [3, H, W].
        masks: the rough ones, bool [K, H, W] of the same size; an empty one stays empty.
        points_xy: float [K, 2] in pixels of `image`.
        batch_size: crops at a time; doesn't affect results.
        enlarge: size of a crop relative to the mask's box [2 in the paper].
        mask_threshold: object probability above which a pixel belongs to it [0.5].
        rounds: how often each mask is refined [1].
        labels: contiguous classes [K]; needed when the network has a heatmap channel per class.
        selected: bool [K], the masks to refine; None means all.

    Raises ValueError for less than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds: found {rounds}, expected 1 or more")
    size = config.crop_size
    refined = Refined(
        masks.clone(),
        torch.ones(len(masks), dtype=torch.bool, device=masks.device),
        torch.zeros(len(masks), size, size, device=masks.device),
        crop_boxes(masks, points_xy, enlarge),
    )
    real = masks.flatten(1).any(1)
    rows = (real if selected is None else real & selected).nonzero()[:, 0]
    image = image.float()
    boxes = refined.boxes_xyxy[rows]
    for done in range(rounds):
        if done:
            boxes = crop_boxes(refined.masks[rows], points_xy[rows], enlarge)
        # Where the result is empty, further rounds would repeat it.
        rows = _refine_once(
            model, image, refined, rows, boxes, points_xy, config, batch_size, mask_threshold, labels
        )
        refined.kept_rough[rows] = False
    return refined


def _refine_once(
    model: MaskRefineNet,
    image: Tensor,
    refined: Refined,
    rows: Tensor,
    boxes: Tensor,
    points_xy: Tensor,
    config: RefineNetConfig,
    batch_size: int,
    mask_threshold: float,
    labels: Tensor | None,
) -> Tensor:
    """Replaces those masks of `rows` whose result isn't empty; returns their rows."""
    masks = refined.masks
    found = torch.zeros(len(rows), dtype=torch.bool, device=masks.device)
    for at in range(0, len(rows), batch_size):
        part, box = rows[at : at + batch_size], boxes[at : at + batch_size]
        own = None if labels is None else labels[part] + model.spare_channels
        inputs = crop_inputs(image, masks[part], points_xy[part], box, config, own)
        probabilities = _object_probabilities(model, inputs, config)
        held = _put_back(masks, part, probabilities, box, mask_threshold)
        refined.probabilities[part[held]] = probabilities[held]
        refined.boxes_xyxy[part[held]] = box[held]
        found[at : at + batch_size] = held
    return rows[found]


def _object_probabilities(model: MaskRefineNet, inputs: Tensor, config: RefineNetConfig) -> Tensor:
    """Float32 [K, S, S] of inputs [K, 3 + P + 1, S, S]."""
    low = config.infer_precision == "bf16"
    if low or inputs.device.type == "cpu":
        # The layout of these kernels; from another one, each convolution would convert its maps twice.
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=low):
        logits = model(inputs)
    check_outputs([logits])
    return logits.float().softmax(1)[:, 1].contiguous()
