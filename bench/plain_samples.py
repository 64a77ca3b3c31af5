"""Training samples made the straightforward way, to compare with: every mask decoded whole, resized, turned and cut.

It draws what `data.samples.transforms.draw_placement` draws, in the same order, so that its samples must be the same
bit for bit; tests hold the two against each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from data.images.read import read_image
from data.images.resize import resize_shape
from data.masks.rle import decode_many
from data.samples.dataset import InstanceDataset, Sample
from data.samples.transforms import AugmentConfig, recolour
from data.tables import class_indices


class Whole(NamedTuple):
    """An image uint8 [3, h, w] with all its masks bool [K, h, w] and points [K, 2]; x, y of its corner."""

    image: Tensor
    masks: Tensor
    points_xy: Tensor | None
    origin: tuple[int, int] = (0, 0)


def resized(sample: Whole, shape: tuple[int, int]) -> Whole:
    """To (h, w): the image bilinear with antialiasing, masks nearest, points scaled."""
    height, width = sample.image.shape[-2:]
    if (height, width) == shape:
        return sample
    image = v2.functional.resize(sample.image, list(shape), v2.InterpolationMode.BILINEAR, antialias=True)
    masks = sample.masks.new_zeros((0, *shape))
    if len(sample.masks):
        masks = v2.functional.resize(
            sample.masks.view(torch.uint8), list(shape), v2.InterpolationMode.NEAREST_EXACT, antialias=False
        ).view(torch.bool)
    points = sample.points_xy
    if points is not None:
        points = points * points.new_tensor([shape[1] / width, shape[0] / height])
    return Whole(image, masks, points)


def augmented(sample: Whole, shape: tuple[int, int], config: AugmentConfig) -> Whole:
    """Resized to about (h, w) and varied, one operation after the other."""
    scale = config.scale_min + (config.scale_max - config.scale_min) * float(torch.rand(()))
    sample = resized(sample, (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))))
    image, masks, points = sample[:3]
    if _happens(config.flip):
        image, masks = image.flip(-1), masks.flip(-1)
        points = None if points is None else torch.stack([image.shape[-1] - points[:, 0], points[:, 1]], 1)
    if _happens(config.vertical_flip):
        image, masks = image.flip(-2), masks.flip(-2)
        points = None if points is None else torch.stack([points[:, 0], image.shape[-2] - points[:, 1]], 1)
    if _happens(config.rotate90):
        points = None if points is None else torch.stack([points[:, 1], image.shape[-1] - points[:, 0]], 1)
        image, masks = image.rot90(1, (-2, -1)), masks.rot90(1, (-2, -1))
        shape = (shape[1], shape[0])
    height, width = image.shape[-2:]
    limits = [shape if config.crop else (height, width)]
    limits += [] if config.crop_side is None else [(config.crop_side, config.crop_side)]
    h, w = min(height, *(h for h, _ in limits)), min(width, *(w for _, w in limits))
    top = left = 0
    if (h, w) != (height, width):
        top, left = int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ()))
        image, masks = (planes[:, top : top + h, left : left + w] for planes in (image, masks))
        points = None if points is None else points - points.new_tensor([left, top])
    return Whole(recolour(image, config), masks, points, (left, top))


def _happens(probability: float) -> bool:
    return probability > 0 and float(torch.rand(())) < probability


def plain_sample(dataset: InstanceDataset, key: tuple[int, int], image: np.ndarray | None = None) -> Sample:
    """The sample at (index, draw_seed) of the data set; `image`: its pixels [H, W, 3] where they are at hand."""
    index, draw_seed = key
    n, i = (int(value) for value in dataset._where[index])
    split = dataset.splits[n]
    row = split.image(i)
    size = (row["height"], row["width"])
    instances = split.instances_of(i)
    is_crowd = instances["iscrowd"].to_numpy()
    masks = decode_many(instances["rle_counts"].to_pylist(), *size)
    crowd = masks[is_crowd].any(axis=0, keepdims=True) if is_crowd.any() else masks[:0]
    points = None
    if "point_x" in instances.column_names:
        xy = [instances[name].to_numpy()[~is_crowd] for name in ("point_x", "point_y")]
        points = torch.from_numpy(np.stack(xy, axis=1).astype(np.float32))
    pixels = read_image(split.image_path(i)) if image is None else image
    sample = Whole(
        torch.from_numpy(pixels).permute(2, 0, 1),
        torch.from_numpy(np.concatenate([masks[~is_crowd], crowd])),  # the crowds' union is the last
        points,
    )
    shape = resize_shape(size, dataset.short_side, dataset.max_side, dataset.enlarge)
    if dataset.augment is None:
        sample = resized(sample, shape)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(draw_seed)
            sample = augmented(sample, shape, dataset.augment)
    count = int((~is_crowd).sum())
    index_of = class_indices(dataset.categories)
    labels = [index_of[c] for c in instances["category_id"].to_numpy()[~is_crowd].tolist()]
    weights = instances["score"].fill_null(1.0).to_numpy()[~is_crowd]
    kept = sample.masks[:count].flatten(1).any(dim=1)
    return Sample(
        image=sample.image.contiguous(),
        masks=sample.masks[:count][kept],
        labels=torch.tensor(labels, dtype=torch.int64)[kept],
        weights=torch.from_numpy(weights.astype(np.float32))[kept],
        points_xy=None if sample.points_xy is None else sample.points_xy[kept],
        crowd=sample.masks[count] if len(crowd) else None,
        image_id=row["image_id"],
        original_size=size,
        crop_origin=sample.origin,
    )
