"""Networks with queries of some ten thousand random weights, built by transformers itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from models.queries.config import QueryConfig
from models.queries.network import QueryNetwork

SWIN = {
    "model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip
MASK2FORMER: dict[str, Any] = {
    "backbone_config": SWIN, "feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32,
    "encoder_feedforward_dim": 32, "dim_feedforward": 32, "encoder_layers": 1, "decoder_layers": 3,
    "num_attention_heads": 2, "num_queries": 10, "train_num_points": 128,
}  # fmt: skip
EOMT: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 96, "patch_size": 16,
    "num_blocks": 2, "num_queries": 10, "train_num_points": 128,
}  # fmt: skip
SETTINGS = {"mask2former": MASK2FORMER, "eomt": EOMT}


def network(name: str = "mask2former", classes: int = 3, seed: int = 0, **changes: Any) -> QueryNetwork:
    """In training mode."""
    torch.manual_seed(seed)
    config = {
        "name": name, "network": SETTINGS[name] | changes, "pixel_mean": [120.0] * 3, "pixel_std": [60.0] * 3,
    }  # fmt: skip
    return QueryNetwork(QueryConfig.model_validate(config), classes)


def saved(name: str, folder: Path, classes: Sequence[str], seed: int = 0, **changes: Any) -> Path:
    """The folder of a network as transformers saves it, with its classes' names."""
    torch.manual_seed(seed)
    labels = dict(enumerate(classes))
    settings = {key: value for key, value in (SETTINGS[name] | changes).items() if key != "backbone_config"}
    if name == "mask2former":
        settings["backbone_config"] = hf.SwinConfig(**{k: v for k, v in SWIN.items() if k != "model_type"})
        made: Any = hf.Mask2FormerForUniversalSegmentation(hf.Mask2FormerConfig(**settings, id2label=labels))
    else:
        made = hf.EomtForUniversalSegmentation(hf.EomtConfig(**settings, id2label=labels))
    made.save_pretrained(folder)
    return folder
