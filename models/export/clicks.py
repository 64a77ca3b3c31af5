"""Masks at clicks as one function of an image's encoding that torch can trace, without loops over clicks: the same as
models/inference/click_masks.py and models/refiner/crops.py for clicks that don't compete.

Legend: K clicks, T tiles, C classes, L levels, M cells of all levels, E kernel channels, h x w a tile's mask map, H x W
pixels of the image, S a crop's side. Lengths are int64 scalars, as tensors, so that none becomes a constant.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from models.config import PromptConfig, SOLOv2Config
from models.inference.thresholds import FINER
from models.refiner.network import MaskRefineNet


class Encoding(NamedTuple):
    """What is computed of an image once."""

    class_logits: Tensor
    """float32 [T, C, M]"""
    kernels: Tensor
    """float32 [T, M, E]"""
    features: Tensor
    """float32 [T, E, h, w]"""
    tiles: Tensor
    """int64 [T, 2]: x, y of each tile in the input"""
    cores: Tensor
    """float32 [T, 4], xyxy in pixels of the tile: clicks in it are this tile's"""
    input_size: Tensor
    """int64 [2]: height and width of the resized image with its padding"""
    content_size: Tensor
    """int64 [2]: without it"""


class RefineRule(NamedTuple):
    """When and how masks are refined."""

    ends: tuple[float, ...]
    """where the gate's bins of areas end, but for the last; pixels of the resized image"""
    uses: tuple[bool, ...]
    """of each bin"""
    enlarge: float
    rounds: int


class ClickMasks(nn.Module):
    """An encoding and clicks to masks of the image."""

    def __init__(
        self, config: SOLOv2Config, prompt: PromptConfig, side: int | None, refiner: MaskRefineNet | None,
        rule: RefineRule | None,
    ) -> None:  # fmt: skip
        """
        Args:
            side: of tiles; None: there is one, the input.
        """
        super().__init__()
        self.config, self.prompt, self.side = config, prompt, side
        self.refine = (
            None if refiner is None or rule is None else _Refine(refiner, rule, prompt.mask_threshold)
        )

    def forward(
        self, images: Tensor, class_logits: Tensor, kernels: Tensor, features: Tensor, tiles: Tensor, cores: Tensor,
        input_size: Tensor, content_size: Tensor, points_xy: Tensor, labels: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Bool [K, H, W] and scores float32 [K].

        Args:
            images: uint8 RGB [1, H, W, 3], the one that was encoded.
            points_xy: float32 [K, 2], its pixels.
            labels: int64 [K], contiguous classes.
        """
        size = torch._shape_as_tensor(images)[1:3]
        sides = torch.stack([size[1], size[0]]).float()
        scaled = points_xy * (torch.stack([content_size[1], content_size[0]]).float() / sides)
        from_tiles = scaled[:, None] - tiles  # [K, T, 2]
        inside = ((from_tiles >= cores[:, :2]) & (from_tiles < cores[:, 2:])).all(2)
        tile = inside.int().argmax(1)
        local = scaled - tiles[tile]
        piece = input_size if self.side is None else torch.full_like(input_size, self.side)

        cells, on_grid = self._cells_around(local, piece)
        classes, places = torch._shape_as_tensor(class_logits)[1:3]
        logits = class_logits.flatten()[((tile * classes + labels) * places)[:, None] + cells]
        weights = kernels.flatten(0, 1)[(tile * places)[:, None] + cells]  # [K, cells, E]
        fit = self.prompt.class_power * -F.softplus(-logits)  # logsigmoid is exported as the log of a sigmoid
        fit = fit + self.prompt.click_power * self._at_click(weights, features, tile, local, piece).log()
        fit = fit.where(on_grid, torch.full_like(fit, -torch.inf))
        of_tile = features[tile].flatten(2)  # [K, E, h * w]
        if self.prompt.kernel == "blend":
            share = fit.softmax(1)
            drawn = ((share[:, None] @ weights) @ of_tile)[:, 0].sigmoid()
            certainty, area, peak = self._measured(drawn)
            class_score = (share * logits.sigmoid()).sum(1)
        else:
            all_drawn = (weights @ of_tile).sigmoid()
            every = self._measured(all_drawn)
            best = (every[0] * fit.exp()).where(on_grid, torch.full_like(fit, -1)).argmax(1, keepdim=True)
            certainty, area, peak = (one.gather(1, best)[:, 0] for one in every)
            drawn = all_drawn.gather(1, best[:, :, None].expand_as(all_drawn[:, :1]))[:, 0]
            class_score = logits.gather(1, best)[:, 0].sigmoid()
        h, w = torch._shape_as_tensor(features)[2:4]
        cut = self._thresholds(drawn, area, peak, h, w)
        maps = drawn.reshape(drawn.shape[0], features.shape[2], features.shape[3])
        canvas = maps if self.side is None else self._in_input(maps, tiles[tile], input_size)
        rows, columns = (
            bilinear(content_size[axis], size[axis]) @ bilinear(of, input_size[axis])[: content_size[axis]]
            for axis, of in enumerate(torch._shape_as_tensor(canvas)[1:3])
        )
        masks = rows @ canvas @ columns.T > cut[:, None, None]
        if self.refine is not None:
            scale = content_size.float().prod() / size.float().prod()
            masks = self.refine(images, masks, points_xy, labels, scale)
        return masks, certainty * class_score

    def _cells_around(self, points: Tensor, piece: Tensor) -> tuple[Tensor, Tensor]:
        """Cells int64 [K, cells] in the order of click_masks.py, and which are on the grid."""
        reach = self.prompt.neighbourhood
        span = torch.arange(-reach, reach + 1)
        offsets = torch.cartesian_prod(span, span).view(-1, 2)
        offsets = offsets[offsets.square().sum(1).argsort(stable=True)]
        cells, on_grid = [], []
        start = torch.zeros((), dtype=torch.long)
        of = self.config.grid_reference
        for grid in self.config.grids:
            counts = (
                torch.full_like(piece, grid) if of is None else (grid * piece).div(of, rounding_mode="floor")
            )
            counts = counts.flip(0)  # columns, rows
            own = (points / piece.flip(0).float() * counts).floor().long()
            own = torch.minimum(own.clamp(min=0), counts - 1)
            column, row = (own[:, None] + offsets).unbind(-1)
            columns, rows = counts[0], counts[1]
            on_grid.append((column >= 0) & (column < columns) & (row >= 0) & (row < rows))
            row, column = (
                torch.minimum(row.clamp(min=0), rows - 1),
                torch.minimum(column.clamp(min=0), columns - 1),
            )
            cells.append(start + row * columns + column)
            start = start + rows * columns
        return torch.stack(cells, 2).flatten(1), torch.stack(on_grid, 2).flatten(1)

    def _at_click(
        self, kernels: Tensor, features: Tensor, tile: Tensor, points: Tensor, piece: Tensor
    ) -> Tensor:
        """[K, cells]: the probability at each click in its cells' masks, bilinear."""
        h, w = torch._shape_as_tensor(features)[2:4]
        places = torch.stack([w, h])
        spot = points * (places.float() / piece.flip(0).float()) - 0.5
        spot = torch.minimum(spot.clamp(min=0), (places - 1).float())
        low = spot.floor()
        (right, down), (x0, y0) = (spot - low).unbind(1), low.long().unbind(1)
        x1, y1 = torch.minimum(x0 + 1, w - 1), torch.minimum(y0 + 1, h - 1)
        corners = torch.stack([y0 * w + x0, y0 * w + x1, y1 * w + x0, y1 * w + x1], 1)
        shares = torch.stack(
            [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down], 1
        )
        flat = features.flatten(2).transpose(1, 2).flatten(0, 1)  # [T * h * w, E]
        at = flat[(tile * h * w)[:, None] + corners]  # [K, 4, E]
        # At a click off all objects they are small: onnxruntime's sigmoid is off by a sixth at -15, and 0 from -18 on.
        probability = 1 / (1 + (-(kernels @ at.transpose(1, 2))).exp())
        return (probability * shares[:, None]).sum(-1).clamp(min=1e-30)

    def _measured(self, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maskness, area and greatest value of masks [..., h * w]."""
        threshold = self.prompt.mask_threshold
        above = masks > threshold
        area = above.sum(-1)
        certainty = (masks * above).sum(-1) / area.clamp(min=1)
        peak = masks.amax(-1)
        if self.prompt.small_area:
            certainty = torch.where((area == 0) & (peak > self.prompt.faint), peak, certainty)
        return certainty, area, peak

    def _thresholds(self, masks: Tensor, area: Tensor, peak: Tensor, h: Tensor, w: Tensor) -> Tensor:
        """As models/inference/thresholds.py, of masks [K, h * w]."""
        small_area, faint = self.prompt.small_area, self.prompt.faint
        usual = torch.full_like(peak, self.prompt.mask_threshold)
        if small_area == 0:
            return usual
        reach = math.ceil(small_area / 4) + 2
        length = 2 * reach + 1
        span = torch.arange(-reach, reach + 1)
        place = masks.argmax(1)
        middle = place.div(w, rounding_mode="floor")
        y, x = middle[:, None] + span, (place - middle * w)[:, None] + span
        on_map = ((y >= 0) & (y < h))[:, :, None] & ((x >= 0) & (x < w))[:, None, :]
        y, x = torch.minimum(y.clamp(min=0), h - 1), torch.minimum(x.clamp(min=0), w - 1)
        window = masks.gather(1, (y[:, :, None] * w + x[:, None, :]).flatten(1)) * on_map.flatten(1)
        expected = (window * (window > faint)).sum(1)
        finer = F.interpolate(
            window.unflatten(1, (1, length, length)), scale_factor=FINER, mode="bilinear", align_corners=False
        ).flatten(1)
        most = min(math.ceil(small_area * FINER**2) + 1, (length * FINER) ** 2)
        ranked = finer.topk(most, dim=1).values
        last = (expected * FINER**2).round().long().clamp(1, most - 1)[:, None]
        level = (ranked.gather(1, last - 1) + ranked.gather(1, last))[:, 0] / 2
        small = (area <= small_area) & (peak > faint) & (expected <= small_area)
        return torch.where(small, level, usual)

    def _in_input(self, maps: Tensor, origins: Tensor, input_size: Tensor) -> Tensor:
        """Maps [K, s, s] of tiles in the map of the whole input, 0 elsewhere."""
        side = maps.shape[1]
        found = []
        for axis in (0, 1):
            length = input_size[axis].div(self.config.mask_stride, rounding_mode="floor")
            first = origins[:, 1 - axis].div(self.config.mask_stride, rounding_mode="floor")
            places = up_to(length) - first[:, None]
            found.append((places.clamp(0, side - 1), (places >= 0) & (places < side)))
        (y, in_rows), (x, in_columns) = found
        flat = (y[:, :, None] * side + x[:, None, :]).flatten(1)
        inside = in_rows[:, :, None] & in_columns[:, None, :]
        return maps.flatten(1).gather(1, flat).view_as(inside) * inside


class _Refine(nn.Module):
    """Masks refined in crops, where the gate selects them."""

    def __init__(self, network: MaskRefineNet, rule: RefineRule, threshold: float) -> None:
        super().__init__()
        self.network, self.rule, self.threshold = network, rule, threshold

    def forward(
        self, images: Tensor, masks: Tensor, points_xy: Tensor, labels: Tensor, area_scale: Tensor
    ) -> Tensor:
        """Bool [K, H, W]; a mask stays where the gate says so, or the refined one is empty."""
        config = self.network.config
        picture = images[0].permute(2, 0, 1)[None].float()
        area = masks.flatten(1).sum(1)
        bins = (area[:, None] * area_scale >= torch.tensor(self.rule.ends)).sum(1)
        active = torch.tensor(self.rule.uses)[bins] & (area > 0)
        size = torch._shape_as_tensor(masks)[1:3]
        for _ in range(self.rule.rounds):
            boxes = self._boxes(masks, points_xy, size)
            low, side = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
            steps = (torch.arange(config.crop_size) + 0.5) / config.crop_size
            mean, std = (torch.tensor(value).view(3, 1, 1) for value in (config.pixel_mean, config.pixel_std))
            pixels = roi_align(picture, [boxes], config.crop_size, sampling_ratio=-1, aligned=True)
            crops = [
                (pixels - mean) / std,
                self._heat(points_xy, low, side, labels),
                self._cropped(masks, low, side, steps),
            ]
            chance = self.network(torch.cat(crops, 1)).softmax(1)[:, 1]
            rows, columns = (self._spread(low[:, 1 - axis], side[:, 1 - axis], size[axis]) for axis in (0, 1))
            drawn = rows @ chance @ columns.transpose(1, 2) > self.threshold
            active = active & (drawn.flatten(1).sum(1) > 0)
            here = active[:, None, None]
            masks = (drawn & here) | (masks & ~here)  # onnxruntime has no `where` of bools
        return masks

    def _boxes(self, masks: Tensor, points_xy: Tensor, size: Tensor) -> Tensor:
        """As `models.refiner.crops.crop_boxes`."""
        limit = size.flip(0).float()
        pixel = torch.minimum(points_xy.floor().clamp(min=0), limit - 1)
        ends = []
        for axis in (1, 2):
            held = masks.float().amax(axis) > 0
            where = up_to(torch._shape_as_tensor(held)[1]).float()
            low = torch.where(held, where, torch.full_like(where, 1e9)).amin(1)
            ends.append((low, torch.where(held, where + 1, torch.zeros_like(where)).amax(1)))
        (x0, x1), (y0, y1) = ends
        some = (x1 > 0)[:, None]
        low = torch.where(some, torch.stack([x0, y0], 1), pixel)
        high = torch.where(some, torch.stack([x1, y1], 1), pixel + 1)
        context = (high - low) * (max(self.rule.enlarge - 1, 0.0) / 2)
        low = (torch.minimum(low, pixel) - context).floor().clamp(min=0)
        high = torch.minimum((torch.maximum(high, pixel + 1) + context).ceil(), limit)
        return torch.cat([low, high], 1)

    def _heat(self, points_xy: Tensor, low: Tensor, side: Tensor, labels: Tensor) -> Tensor:
        config = self.network.config
        span = torch.arange(config.crop_size) + 0.5
        place = (points_xy - low) / side * config.crop_size
        falloff = torch.exp(-(span - place[..., None]).square() / (2 * config.heatmap_sigma**2))
        heat = (falloff[:, 1, :, None] * falloff[:, 0, None, :])[:, None]
        if config.heatmap_channels == 1:
            return heat
        channels = torch.arange(config.heatmap_channels)
        own = (labels + self.network.spare_channels)[:, None] == channels
        return heat * own[:, :, None, None]

    @staticmethod
    def _cropped(masks: Tensor, low: Tensor, side: Tensor, steps: Tensor) -> Tensor:
        count, height, width = torch._shape_as_tensor(masks)
        place = (low[..., None] + steps * side[..., None]).long()  # [K, 2, S]
        x = torch.minimum(place[:, 0].clamp(min=0), width - 1)
        y = torch.minimum(place[:, 1].clamp(min=0), height - 1)
        first = up_to(count) * height * width
        return masks.flatten()[first[:, None, None] + y[:, :, None] * width + x[:, None, :]][:, None].float()

    def _spread(self, low: Tensor, side: Tensor, length: Tensor) -> Tensor:
        """[K, length, S]: the weights of a crop's places in the pixels of its box; 0 outside of it."""
        crop = self.network.config.crop_size
        pixel = up_to(length).float()
        at = (pixel + 0.5 - low[:, None]) / side[:, None] * crop - 0.5
        near = (1 - (at.clamp(0, crop - 1)[..., None] - torch.arange(crop)).abs()).clamp(min=0)
        inside = (pixel >= low[:, None]) & (pixel < (low + side)[:, None])
        return near * inside[..., None]


def bilinear(source: Tensor, target: Tensor) -> Tensor:
    """Float32 [target, source]: the weights of a resizing."""
    at = ((up_to(target) + 0.5) * (source.float() / target.float()) - 0.5).clamp(min=0)
    low = at.floor()
    share = (at - low)[:, None]
    columns = up_to(source)
    high = torch.minimum(low.long() + 1, source - 1)
    return (low.long()[:, None] == columns) * (1 - share) + (high[:, None] == columns) * share


def up_to(length: Any) -> Tensor:
    """Int64 [length]: 0, 1, ...; `length` is a scalar tensor, which torch's types don't have, but its tracer does."""
    return torch.arange(length)
