"""The configuration of published weights: kind of network, its sizes (from the shapes), its settings.

A checkpoint of the reference has tensors only. Channel counts, depth and class count follow from their shapes; grids,
size ranges, pixel statistics and thresholds don't, and come from its configuration.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from models.backbones.config import BackboneConfig
from models.config import InferenceConfig, RefineNetConfig, SOLOv2Config
from models.reference.published import DEPTHS, PublishedError

Kind = Literal["solov2", "refinenet", "backbone"]
Nms = Literal["matrix", "mask"]

CAFFE_MEAN, CAFFE_STD = (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)
"""Of blue, green, red in 0..255, for MSRA's weights."""
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of red, green, blue in 0..255: MaskRefineNet's."""
LEVEL_SOURCES = ((2, 3), (3, 3), (4, 4), (5, 5), (6, 5))
REFINER_ENLARGE = 2.0
"""Size of the reference's crop relative to the rough mask's box."""
REFINER_SPARE_CHANNELS = 1
"""Heatmap channels before the first class's: class c has channel c + 1, as in the reference's inference."""

_KEYS: dict[Kind, re.Pattern[str]] = {
    "solov2": re.compile(r"backbone\.(bottom_up|fpn_)|ins_head\.|mask_head\."),
    "refinenet": re.compile(r"layer[0-4]\.|aspp\.|decoder_[0-3]\.|head\."),
    "backbone": re.compile(r"stem\.conv1\.|conv1_w|res_conv1_|res[2-5][._]\d"),
}


@dataclass(frozen=True, kw_only=True)
class ReferenceSettings:
    """Settings of a SOLOv2 in the reference's configuration; `STUDENT` and `TEACHER` are the published ones."""

    name: str
    grids: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]
    nms: Nms
    """`matrix`: SOLOv2's; `mask`: greedy, for masks of a class with an IoU above 0.5."""
    pixel_mean: tuple[float, float, float] = CAFFE_MEAN
    pixel_std: tuple[float, float, float] = CAFFE_STD
    bgr: bool = True
    stride_in_1x1: bool = True
    centre_shrink: float = 0.2
    prior_prob: float = 0.01
    dice_weight: float = 3.0
    focal_weight: float = 1.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    score_threshold: float = 0.1
    nms_pre: int = 500
    nms_kernel: Literal["gaussian", "linear"] = "gaussian"
    nms_sigma: float = 2.0
    nms_threshold: float = 0.05
    max_detections: int = 100
    mask_threshold: float = 0.5
    short_side: int = 800
    max_side: int = 1333

    @property
    def inference(self) -> InferenceConfig:
        return InferenceConfig(
            score_threshold=self.score_threshold,
            min_area=1.0,
            nms_pre=self.nms_pre,
            nms_kernel=self.nms_kernel,
            nms_sigma=self.nms_sigma,
            nms_threshold=self.nms_threshold,
            max_detections=self.max_detections,
            mask_threshold=self.mask_threshold,
        )


STUDENT = ReferenceSettings(
    name="student",
    grids=(40, 36, 24, 16, 12),
    ranges=((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)),
    nms="matrix",
)
TEACHER = ReferenceSettings(
    name="teacher",
    grids=(80, 64, 32, 24, 12),
    ranges=((1, 72), (72, 144), (144, 288), (288, 584), (584, 2048)),
    nms="mask",
)
SETTINGS = {settings.name: settings for settings in (STUDENT, TEACHER)}


def kind_of(keys: Iterable[str], file: str) -> Kind:
    """The kind of network whose names most tensors have.

    Raises PublishedError when none has.
    """
    keys = list(keys)
    votes = Counter({kind: sum(bool(pattern.match(key)) for key in keys) for kind, pattern in _KEYS.items()})
    kind, most = votes.most_common(1)[0]
    if most == 0:
        some = ", ".join(sorted(keys)[:5]) or "no tensors"
        raise PublishedError(
            f"{file}: found {some}; expected tensors of the reference's SOLOv2 (ins_head. ...), of its MaskRefineNet "
            "(aspp. ...), or of an MSRA ResNet (res2_0_branch1_w ...)"
        )
    return kind


def resnet_of(keys: Iterable[str]) -> str:
    """resnet50 or resnet101, by the number of blocks in `res4`."""
    blocks = {int(match[1]) for key in keys if (match := re.search(r"\bres4[._](\d+)[._]", key))}
    return "resnet101" if max(blocks, default=0) >= DEPTHS["resnet50"][2] else "resnet50"


def solov2_config(found: Mapping[str, Tensor], settings: ReferenceSettings) -> tuple[SOLOv2Config, int]:
    """The network of these tensors (reference's names), and its number of classes.

    Each size is that of most tensors that depend on it, so that a single wrong shape is detected as a fault.
    """
    stem = _size(found, r"backbone\.bottom_up\.stem\.conv1\.norm\.", 64)
    planes = _size(found, r"backbone\.bottom_up\.res2\.\d+\.conv[12]\.norm\.", 64)
    tower_convs = {
        int(match[1]) for key in found if (match := re.match(r"ins_head\.\w+_tower\.(\d+)\.", key))
    }
    config = SOLOv2Config(
        backbone=BackboneConfig(
            name=resnet_of(found),
            width=_width(stem, planes),
            norm="frozen_bn",
            norm_groups=32,
            frozen_stages=2,
            stride_in_1x1=settings.stride_in_1x1,
            weights=None,
        ),
        fpn_channels=_size(found, r"backbone\.fpn_(lateral|output)\d\.", 256),
        head_channels=_size(found, r"ins_head\.\w+_tower\.\d+\.", 512),
        head_convs=max(tower_convs, default=10) // 3 + 1,
        kernel_channels=_size(found, r"ins_head\.kernel_pred\.|mask_head\.conv_pred\.", 256),
        mask_channels=_size(found, r"mask_head\.convs_all_levels\.", 128),
        mask_stride=4,
        norm_groups=32,
        grids=settings.grids,
        level_sources=LEVEL_SOURCES,
        ranges=settings.ranges,
        coord_conv=True,
        grid_reference=None,
        pixel_mean=settings.pixel_mean,
        pixel_std=settings.pixel_std,
        bgr=settings.bgr,
        centre_shrink=settings.centre_shrink,
        prior_prob=settings.prior_prob,
        dice_weight=settings.dice_weight,
        focal_weight=settings.focal_weight,
        focal_alpha=settings.focal_alpha,
        focal_gamma=settings.focal_gamma,
    )
    return config, _size(found, r"ins_head\.cate_pred\.", 80)


def refinenet_config(found: Mapping[str, Tensor]) -> tuple[RefineNetConfig, int]:
    """The MaskRefineNet of these tensors (reference's names), and its number of classes."""
    stem = _size(found, r"layer0\.1\.", 64)
    planes = _size(found, r"layer1\.1\.\d+\.bn[12]\.", 64)
    before = {key: value for key, value in found.items() if key == "layer0.0.weight"}
    heatmaps = _size(before, r"layer0", 85, axis=1) - 4  # RGB, heatmaps, rough mask
    decoder = [
        _size(found, rf"decoder_{i}\.conv\.1\.", size) for i, size in ((3, 256), (2, 128), (1, 64), (0, 64))
    ]
    config = RefineNetConfig(
        backbone=BackboneConfig(
            name="resnet101",
            width=_width(stem, planes),
            norm="batch_norm",
            norm_groups=32,
            frozen_stages=0,
            stride_in_1x1=False,
            weights=None,
        ),
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
        norm="batch_norm",
        aspp_channels=_size(found, r"aspp\.", 512),
        aspp_rates=(3, 6, 9),
        decoder_channels=(decoder[0], decoder[1], decoder[2], decoder[3]),
        crop_size=256,
        heatmap_sigma=6.0,
        heatmap_channels=max(2, heatmaps),
        infer_precision="fp32",
    )
    return config, max(2, heatmaps) - REFINER_SPARE_CHANNELS


def _width(stem: int, planes: int) -> float | tuple[float, float]:
    return stem / 64 if stem == planes else (stem / 64, planes / 64)


def _size(found: Mapping[str, Tensor], pattern: str, published: int, axis: int = 0) -> int:
    """The most common size along `axis` of tensors whose name begins with `pattern`; in a tie the published one."""
    sizes = Counter(
        tensor.shape[axis] for key, tensor in found.items() if re.match(pattern, key) and tensor.ndim > axis
    )
    most = max(sizes.values(), default=0)
    return next((size for size in (published, *sizes) if sizes[size] == most > 0), published)
