"""A Segment Anything model of transformers: an image is encoded once, then masks are drawn at any number of clicks.

SAM (arXiv 2304.02643), SAM 2 (2408.00714), EdgeTAM (2501.07256) and the tracker of SAM 3 (2511.16719) have one
interface: for each prompt three masks, of a part, an object and a whole, each with a prediction of its IoU.

Legend: K clicks, P points of a prompt, M = 3 masks, h x w a mask map, H x W pixels of the original image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from models.hub import quiet
from models.masks.resize import Sizes
from models.sam.folder import USE, SamError, read_family
from models.sam.prompts import Prompts
from models.weights import fault_of, listed

Precision = Literal["fp32", "bf16"]


class NarrowImage(ValueError):
    """An image whose short side has no pixel left at the model's input size."""


class Encoded(NamedTuple):
    """An encoded image."""

    features: Any
    """of the model, float32"""
    sizes: Sizes


class Drawn(NamedTuple):
    """M masks for each of K clicks."""

    logits: Tensor
    """float32 [K, M, h, w]; they cover the input. A pixel with a logit above 0 belongs to the mask"""
    iou: Tensor
    """float32 [K, M]: predicted; SAM's isn't bounded by 0 and 1"""


@dataclass(frozen=True)
class Sam:
    """A model on `device`, in eval mode.

    Attributes:
        model: one of `SamModel`, `Sam2Model`, `EdgeTamModel`, `Sam3TrackerModel`.
        processor: the family's own of images.
        keeps_ratio: see `Family`.
        precision: of the image encoder. Masks are drawn in float32: bfloat16 would move clicks by up to a pixel.
        click_batch: clicks at a time.
    """

    model: Any
    processor: Any
    keeps_ratio: bool
    device: torch.device
    precision: Precision
    click_batch: int

    @property
    def side(self) -> int:
        """Pixels of a side of the input, which is a square."""
        return int(self.model.prompt_encoder.input_image_size)

    def content_size(self, original: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of an image (H, W) at the input's size."""
        if not self.keeps_ratio:
            return self.side, self.side
        scale = self.side / max(original)
        return int(original[0] * scale + 0.5), int(original[1] * scale + 0.5)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Encoded:
        """The features of an image uint8 RGB [3, H, W].

        Raises:
            NarrowImage
        """
        original = (image.shape[1], image.shape[2])
        content = self.content_size(original)
        if not all(content):
            raise NarrowImage(f"an image of {original[1]} x {original[0]} pixels is too narrow for SAM")
        inputs = self.processor(
            image, return_tensors="pt", input_data_format="channels_first", device=str(self.device)
        )
        pixels = inputs["pixel_values"].to(self.device, torch.float32)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features = self.model.get_image_embeddings(pixels)
        features = [one.float() for one in features] if isinstance(features, list) else features.float()
        return Encoded(features, Sizes((self.side, self.side), content, original))

    @torch.no_grad()
    def draw(self, encoded: Encoded, prompts: Prompts) -> Drawn:
        """The masks of all prompts, `click_batch` at a time."""
        (ch, cw), (height, width) = encoded.sizes.content, encoded.sizes.original
        # The models add half a pixel: to them (0, 0) is the centre of the first pixel.
        points = prompts.points_xy.to(self.device, torch.float32)
        points = points * points.new_tensor([cw / width, ch / height]) - 0.5
        labels = prompts.labels.to(self.device)
        h, w = (4 * side for side in self.model.prompt_encoder.image_embedding_size)
        masks = self.model.config.mask_decoder_config.num_multimask_outputs
        logits = torch.empty(len(points), masks, h, w, device=self.device)
        iou = torch.empty(len(points), masks, device=self.device)
        with torch.autocast(self.device.type, enabled=False):
            for at in range(0, len(points), self.click_batch):
                rows = slice(at, at + self.click_batch)
                outputs = self.model(
                    image_embeddings=encoded.features, input_points=points[None, rows],
                    input_labels=labels[None, rows], multimask_output=True,
                )  # fmt: skip
                logits[rows], iou[rows] = outputs.pred_masks[0], outputs.iou_scores[0]
        return Drawn(logits, iou)


def load_sam(folder: Path, device: torch.device, precision: Precision, click_batch: int) -> Sam:
    """The model of a folder; nothing is downloaded.

    Raises:
        SamError: transformers isn't installed, the folder has another model or none, or its weights are unusable.
    """
    USE.check_installed()
    family = read_family(folder)
    import transformers

    only_here = {"local_files_only": True, "trust_remote_code": False}
    with quiet():
        try:
            model, loaded = getattr(transformers, family.model).from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **only_here
            )
            side = int(model.prompt_encoder.input_image_size)
            square = {"height": side, "width": side}
            sizes = (
                {"size": {"longest_edge": side}, "pad_size": square}
                if family.keeps_ratio
                else {"size": square}
            )
            processor_type = getattr(transformers, family.processor)
            if (folder / "preprocessor_config.json").is_file():
                processor = processor_type.from_pretrained(folder, **sizes, **only_here)
            else:
                processor = processor_type(**sizes)
        except Exception as error:  # a damaged folder can raise anything
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = (lines or [type(error).__name__])[0]
            raise SamError(
                f"{folder}, not readable ({reason})",
                f"the weights of a {family.model}",
                "fetch the folder again",
            ) from None
    tensors = [*model.named_parameters(), *model.named_buffers()]
    faults = [f"{key}: missing" for key in sorted(loaded["missing_keys"])]
    faults += [
        f"{key}: {fault}"
        for key, tensor in tensors
        if tensor.is_floating_point() and (fault := fault_of(key, tensor)) is not None
    ]
    if faults:
        raise SamError(
            f"{folder} with unusable weights:\n{listed(faults)}\n",
            f"those of a {family.model}",
            "fetch the folder again",
        )
    model = model.to(device).eval().requires_grad_(False)
    return Sam(model, processor, family.keeps_ratio, device, precision, click_batch)
