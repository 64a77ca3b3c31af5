"""Small networks for the tests of models/."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from models.config import RefineNetConfig, SOLOv2Config

BACKBONE: dict[str, Any] = {
    "name": "resnet18",
    "width": 0.125,
    "norm": "group_norm",
    "norm_groups": 4,
    "frozen_stages": 0,
    "stride_in_1x1": False,
    "weights": None,
}
SOLOV2: dict[str, Any] = {
    "backbone": BACKBONE,
    "fpn_channels": 16,
    "head_channels": 16,
    "head_convs": 1,
    "kernel_channels": 8,
    "mask_channels": 8,
    "mask_stride": 4,
    "norm_groups": 4,
    "grids": [12, 8, 4],
    "grid_reference": None,
    "level_sources": [[2, 3], [4, 4], [6, 5]],
    "ranges": [[1, 32], [24, 64], [48, 128]],
    "coord_conv": True,
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
    "bgr": False,
    "centre_shrink": 0.2,
    "prior_prob": 0.01,
    "dice_weight": 3.0,
    "focal_weight": 1.0,
    "focal_alpha": 0.25,
    "focal_gamma": 2.0,
}
REFINENET: dict[str, Any] = {
    "backbone": BACKBONE,
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
    "norm": "group_norm",
    "aspp_channels": 16,
    "aspp_rates": [1, 2],
    "decoder_channels": [16, 16, 8, 8],
    "crop_size": 64,
    "heatmap_sigma": 2.0,
    "heatmap_channels": 1,
    "infer_precision": "fp32",
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def solov2_config() -> Callable[..., SOLOv2Config]:
    """A small network's config with some fields replaced; `backbone` takes a dict of its own replacements."""

    def make(**changes: Any) -> SOLOv2Config:
        backbone = {**BACKBONE, **changes.pop("backbone", {})}
        return SOLOv2Config.model_validate({**SOLOV2, **changes, "backbone": backbone})

    return make


@pytest.fixture(scope="session")
def refinenet_config() -> Callable[..., RefineNetConfig]:
    def make(**changes: Any) -> RefineNetConfig:
        backbone = {**BACKBONE, **changes.pop("backbone", {})}
        return RefineNetConfig.model_validate({**REFINENET, **changes, "backbone": backbone})

    return make


@pytest.fixture(scope="session")
def rectangles() -> Callable[..., Tensor]:
    """Bool masks [K, H, W] of rectangles x, y, width, height."""

    def draw(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Tensor:
        masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
        for mask, (x, y, w, h) in zip(masks, boxes, strict=True):
            mask[y : y + h, x : x + w] = True
        return masks

    return draw
