"""The settings of a network with queries. Reading them doesn't import torch or transformers."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from models.backbones.config import Settings
from models.config import Deviations, Means

NetworkName = Literal["mask2former", "eomt"]


class Family(NamedTuple):
    """Names in transformers."""

    network: str
    """class"""
    config: str
    """class"""
    encoder: tuple[str, ...]
    """the parts that have the weights of a pretrained backbone"""


FAMILIES: dict[str, Family] = {
    "mask2former": Family(
        "Mask2FormerForUniversalSegmentation", "Mask2FormerConfig", ("model.pixel_level_module.encoder",)
    ),
    "eomt": Family("EomtForUniversalSegmentation", "EomtConfig", ("embeddings", "layers")),
}
"""By `model_type` of config.json."""

BACKBONES = ("swin", "swinv2", "resnet", "convnext", "convnextv2")
"""`model_type` of a Mask2Former's backbone. Others, such as timm's, may fetch weights when they are built."""


class QueryConfig(Settings):
    """A network with queries.

    `network`: the keys of its class of settings in transformers, `FAMILIES`, as in config.json, without the classes.
    `pixel_mean`, `pixel_std`: of RGB in 0..255.
    """

    name: NetworkName
    network: dict[str, Any]
    pixel_mean: Means
    pixel_std: Deviations
