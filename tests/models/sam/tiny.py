"""Segment Anything models of a few thousand random weights, built by transformers itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

SIDE = 64
"""Of the input, of all but the tracker's, whose patches are of 14 pixels."""
PROMPT = {"hidden_size": 16, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4}
DECODER = {
    "hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 8, "num_hidden_layers": 1,
}  # fmt: skip
FPN = {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "fpn_hidden_size": 16}
ATTENTION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "window_size": 2}


def sam() -> nn.Module:
    vision = hf.SamVisionConfig(
        **ATTENTION, image_size=SIDE, output_channels=16, global_attn_indexes=[1], num_pos_feats=8, mlp_dim=16
    )
    prompt, decoder = hf.SamPromptEncoderConfig(**PROMPT), hf.SamMaskDecoderConfig(**DECODER)
    return hf.SamModel(
        hf.SamConfig(
            vision_config=vision.to_dict(),
            prompt_encoder_config=prompt.to_dict(),
            mask_decoder_config=decoder.to_dict(),
        )
    )


def _sam2_vision() -> Any:
    backbone = hf.Sam2HieraDetConfig(
        hidden_size=8, image_size=[SIDE, SIDE], blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1] * 4, window_size_per_stage=[8, 4, 4, 2], global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2],
    )  # fmt: skip
    return hf.Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], **FPN)


def sam2() -> nn.Module:
    return hf.Sam2Model(
        hf.Sam2Config(
            vision_config=_sam2_vision(),
            prompt_encoder_config=hf.Sam2PromptEncoderConfig(**PROMPT),
            mask_decoder_config=hf.Sam2MaskDecoderConfig(**DECODER),
        )
    )


def sam2_video() -> nn.Module:
    """As it is published: the model for images is a part of it."""
    return hf.Sam2VideoModel(
        hf.Sam2VideoConfig(
            vision_config=_sam2_vision(), prompt_encoder_config=hf.Sam2VideoPromptEncoderConfig(**PROMPT),
            mask_decoder_config=hf.Sam2VideoMaskDecoderConfig(**DECODER), image_size=SIDE,
            memory_attention_hidden_size=16, memory_attention_num_layers=1, memory_attention_feed_forward_hidden_size=8,
            memory_attention_rope_feat_sizes=[4, 4], memory_encoder_hidden_size=16, memory_encoder_output_channels=8,
            mask_downsampler_embed_dim=16, memory_fuser_num_layers=1, memory_fuser_embed_dim=16,
            memory_fuser_intermediate_dim=16,
        )
    )  # fmt: skip


def edgetam() -> nn.Module:
    widths = {"embed_dim": [8, 16, 24, 32], "depth": [1, 1, 1, 1]}
    only_features = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    backbone = hf.TimmWrapperConfig(architecture="repvit_m0_9", model_args={**only_features, **widths})
    vision = hf.EdgeTamVisionConfig(backbone_config=backbone, backbone_channel_list=[32, 24, 16, 8], **FPN)
    return hf.EdgeTamModel(
        hf.EdgeTamConfig(
            vision_config=vision,
            prompt_encoder_config=hf.EdgeTamPromptEncoderConfig(**PROMPT),
            mask_decoder_config=hf.EdgeTamMaskDecoderConfig(**DECODER),
        )
    )


def sam3() -> nn.Module:
    side = {"image_size": 56, "patch_size": 14}
    backbone = hf.Sam3ViTConfig(
        **ATTENTION, **side, intermediate_size=16, global_attn_indexes=[1], pretrain_image_size=56
    )
    return hf.Sam3TrackerModel(
        hf.Sam3TrackerConfig(
            vision_config=hf.Sam3VisionConfig(backbone_config=backbone, **FPN),
            prompt_encoder_config=hf.Sam3TrackerPromptEncoderConfig(**PROMPT | side),
            mask_decoder_config=hf.Sam3TrackerMaskDecoderConfig(**DECODER),
        )
    )


MODELS: dict[str, Callable[[], nn.Module]] = {"sam": sam, "sam2": sam2, "edgetam": edgetam, "sam3": sam3}


def saved(name: str, folder: Path, seed: int = 0) -> Path:
    """A folder with a model whose masks differ from click to click and from place to place."""
    torch.manual_seed(seed)
    model = {**MODELS, "sam2_video": sam2_video}[name]()
    for key, tensor in model.named_parameters():
        if tensor.ndim > 1:
            nn.init.normal_(tensor, std=0.5 if "decoder" in key else 0.2)
    model.save_pretrained(folder)
    return folder


def picture(height: int, width: int) -> Tensor:
    """uint8 RGB [3, H, W]: a ramp on each axis, and a bright box."""
    y, x = torch.arange(height)[:, None], torch.arange(width)
    image = torch.stack([y * 255 // height + 0 * x, x * 255 // width + 0 * y, (y * x) % 256]).to(torch.uint8)
    image[:, height // 4 : height // 2, width // 3 : width // 2] = 250
    return image
