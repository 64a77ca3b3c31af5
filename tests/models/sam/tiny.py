"""Segment Anything models of a few thousand random weights, built by transformers itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import save_file
from torch import Tensor, nn

SIDE = 64
"""Of the input, of all but SAM 3, whose patches are of 14 pixels."""
SAM3_SIDE = {"image_size": 56, "patch_size": 14}
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


def _edgetam_vision() -> Any:
    widths = {"embed_dim": [8, 16, 24, 32], "depth": [1, 1, 1, 1]}
    only_features = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    backbone = hf.TimmWrapperConfig(architecture="repvit_m0_9", model_args={**only_features, **widths})
    return hf.EdgeTamVisionConfig(backbone_config=backbone, backbone_channel_list=[32, 24, 16, 8], **FPN)


def edgetam() -> nn.Module:
    return hf.EdgeTamModel(
        hf.EdgeTamConfig(
            vision_config=_edgetam_vision(),
            prompt_encoder_config=hf.EdgeTamPromptEncoderConfig(**PROMPT),
            mask_decoder_config=hf.EdgeTamMaskDecoderConfig(**DECODER),
        )
    )


def _sam3_vision() -> Any:
    backbone = hf.Sam3ViTConfig(
        **ATTENTION, **SAM3_SIDE, intermediate_size=16, global_attn_indexes=[1], pretrain_image_size=56
    )
    return hf.Sam3VisionConfig(backbone_config=backbone, **FPN)


def sam3() -> nn.Module:
    return hf.Sam3TrackerModel(
        hf.Sam3TrackerConfig(
            vision_config=_sam3_vision(),
            prompt_encoder_config=hf.Sam3TrackerPromptEncoderConfig(**PROMPT | SAM3_SIDE),
            mask_decoder_config=hf.Sam3TrackerMaskDecoderConfig(**DECODER),
        )
    )


MEMORY = {
    "memory_attention_hidden_size": 16, "memory_attention_num_layers": 1, "memory_attention_rope_feat_sizes": [4, 4],
    "memory_encoder_hidden_size": 16, "memory_encoder_output_channels": 8, "mask_downsampler_embed_dim": 16,
    "memory_fuser_num_layers": 1, "memory_fuser_embed_dim": 16, "memory_fuser_intermediate_dim": 16,
}  # fmt: skip
"""Of the models for videos, as which SAM 2, EdgeTAM and SAM 3 are published."""


def sam2_video() -> nn.Module:
    return hf.Sam2VideoModel(
        hf.Sam2VideoConfig(
            vision_config=_sam2_vision(), prompt_encoder_config=hf.Sam2VideoPromptEncoderConfig(**PROMPT),
            mask_decoder_config=hf.Sam2VideoMaskDecoderConfig(**DECODER), image_size=SIDE, **MEMORY,
            memory_attention_feed_forward_hidden_size=8,
        )
    )  # fmt: skip


def edgetam_video() -> nn.Module:
    return hf.EdgeTamVideoModel(
        hf.EdgeTamVideoConfig(
            vision_config=_edgetam_vision(), prompt_encoder_config=hf.EdgeTamVideoPromptEncoderConfig(**PROMPT),
            mask_decoder_config=hf.EdgeTamVideoMaskDecoderConfig(**DECODER), image_size=SIDE, **MEMORY,
            memory_attention_mlp_hidden_size=8, memory_attention_rope_k_sizes=[4, 4], perceiver_resampler_hidden_size=8,
            perceiver_resampler_num_latents=4, perceiver_resampler_num_latents_2d=4, perceiver_resampler_num_layers=1,
            perceiver_resampler_mlp_intermediate_size=8,
        )
    )  # fmt: skip


MODELS: dict[str, Callable[[], nn.Module]] = {"sam": sam, "sam2": sam2, "edgetam": edgetam, "sam3": sam3}


def made(name: str, seed: int = 0) -> nn.Module:
    """A model whose masks differ from click to click and from place to place."""
    torch.manual_seed(seed)
    model = {**MODELS, "sam2_video": sam2_video, "edgetam_video": edgetam_video}[name]()
    for key, tensor in model.named_parameters():
        if tensor.ndim > 1:
            nn.init.normal_(tensor, std=0.5 if "decoder" in key else 0.2)
    return model


def saved(name: str, folder: Path, seed: int = 0) -> Path:
    """A folder with the model of that name."""
    made(name, seed).save_pretrained(folder)
    return folder


def sam3_video(folder: Path) -> nn.Module:
    """Writes a folder with the names that the published SAM 3 has; returns its part for images."""
    tracker = made("sam3")
    video = hf.Sam3TrackerVideoConfig(
        vision_config=_sam3_vision(), mask_decoder_config=hf.Sam3TrackerVideoMaskDecoderConfig(**DECODER),
        prompt_encoder_config=hf.Sam3TrackerVideoPromptEncoderConfig(**PROMPT | SAM3_SIDE), image_size=56, **MEMORY,
        memory_attention_feed_forward_hidden_size=8,
    )  # fmt: skip
    hf.Sam3VideoConfig(tracker_config=video).save_pretrained(folder)
    backbone, neck = "vision_encoder.backbone.", "vision_encoder.neck."
    weights = {
        "detector_model.text_projection.bias": torch.ones(3),
        "tracker_model.memory_encoder.x": torch.ones(3),
    }
    for key, tensor in tracker.state_dict().items():
        prefix = "detector_model." if key.startswith(backbone) else "tracker_model."
        name = key.replace(neck, "tracker_neck.") if key.startswith(neck) else prefix + key
        weights[name] = tensor.contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return tracker


def picture(height: int, width: int) -> Tensor:
    """uint8 RGB [3, H, W]: a ramp on each axis, and a bright box."""
    y, x = torch.arange(height)[:, None], torch.arange(width)
    image = torch.stack([y * 255 // height + 0 * x, x * 255 // width + 0 * y, (y * x) % 256]).to(torch.uint8)
    image[:, height // 4 : height // 2, width // 3 : width // 2] = 250
    return image
