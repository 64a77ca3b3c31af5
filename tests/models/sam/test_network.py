"""Tiny models of all families; what is compared with transformers is compared with its own processors and models."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.config import PromptConfig
from models.inference.coarse_masks import place_masks
from models.masks.clicks import NO_POINT, OFF, ON, FurtherClicks
from models.sam.folder import SamError
from models.sam.network import NarrowImage, Precision, Sam, load_sam
from models.sam.prompts import Prompts, prompts_at
from tests.models.sam.tiny import MODELS, picture, sam3_video, saved

CPU = torch.device("cpu")
POINTS = torch.tensor([[10.0, 8.0], [41.5, 30.25], [69.5, 49.5], [0.5, 0.5], [33.0, 24.0]])
Folders = Callable[[str], Path]
PROCESSORS = {
    "SamModel": hf.SamProcessor, "Sam2Model": hf.Sam2Processor, "EdgeTamModel": hf.Sam2Processor,
    "Sam3TrackerModel": hf.Sam3TrackerProcessor,
}  # fmt: skip


def load(folder: Path, precision: Precision = "fp32", click_batch: int = 64) -> Sam:
    return load_sam(folder, CPU, precision, click_batch)


def by_transformers(sam: Sam, image: Tensor, prompts: Prompts) -> tuple[Any, Any]:
    """Inputs and outputs of transformers' own processor and model.

    Its points are places of pixels: the centre of the first is (0, 0). It scales them without their half pixel, and
    adds half a pixel of the input.
    """
    content, original = sam.content_size((50, 70)), (50, 70)
    scale = torch.tensor([content[1] / original[1], content[0] / original[0]])
    points = (prompts.points_xy - 0.5 / scale).double()
    processor = PROCESSORS[type(sam.model).__name__](sam.processor)
    inputs = processor(
        images=image.permute(1, 2, 0).numpy(), input_points=[points.tolist()], input_labels=[prompts.labels.tolist()],
        return_tensors="pt",
    )  # fmt: skip
    inputs["input_points"] = inputs["input_points"].float()
    with torch.no_grad():
        outputs = sam.model(
            pixel_values=inputs["pixel_values"], input_points=inputs["input_points"],
            input_labels=inputs["input_labels"], multimask_output=True,
        )  # fmt: skip
    return inputs, outputs


@pytest.mark.parametrize("negatives", [0, 2])
@pytest.mark.parametrize("name", MODELS)
def test_masks_are_those_of_transformers(folder_of: Folders, name: str, negatives: int) -> None:
    sam = load(folder_of(name))
    image, prompts = picture(50, 70), prompts_at(POINTS, negatives)
    encoded = sam.encode(image)
    logits, iou = sam.draw(encoded, prompts)
    inputs, outputs = by_transformers(sam, image, prompts)
    assert logits.shape == (5, 3, 16, 16) and iou.shape == (5, 3)
    torch.testing.assert_close(logits, outputs.pred_masks[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(iou, outputs.iou_scores[0], atol=1e-5, rtol=1e-4)
    # Not by chance: they differ between clicks, between candidates and between places.
    assert min(float(logits.std(axis).mean()) for axis in (0, 1, 2, 3)) > 1e-2

    more = (inputs["reshaped_input_sizes"],) if "reshaped_input_sizes" in inputs else ()
    processed = sam.processor.post_process_masks(
        [outputs.pred_masks[0].sigmoid()], inputs["original_sizes"], *more, mask_threshold=0.5
    )[0]
    cut, labels = torch.full((5,), 0.5), torch.zeros(5, dtype=torch.long)
    prompt = PromptConfig.paper(0.5)
    for m in range(3):
        placed = place_masks(logits[:, m].sigmoid(), cut, POINTS, labels, encoded.sizes, prompt).masks
        assert placed.shape == (5, 50, 70)
        same = (placed == processed[:, m]).double().mean()
        # SAM resizes maps as we do; the others' are resized to the image at once, not to the input first.
        assert same >= (1.0 if name == "sam" else 0.985)


@pytest.mark.parametrize(("name", "scale"), [("sam", (64 / 70, 64 / 70)), ("sam2", (64 / 70, 64 / 50))])
def test_a_click_is_where_its_pixel_is(folder_of: Folders, name: str, scale: tuple[float, float]) -> None:
    """In the input, whose outer corner is (0, 0), as that of the image: what the position code gets."""
    sam, seen = load(folder_of(name)), []
    handle = sam.model.prompt_encoder.shared_embedding.register_forward_pre_hook(
        lambda _, given: seen.append(given[0][0, :, 0].clone())
    )
    sam.draw(sam.encode(picture(50, 70)), prompts_at(POINTS, 0))
    handle.remove()
    content = sam.content_size((50, 70))
    expected = POINTS * torch.tensor([content[1] / 70, content[0] / 50])
    torch.testing.assert_close(seen[0], expected)
    torch.testing.assert_close(
        seen[0], POINTS * torch.tensor(scale), atol=0.5, rtol=0
    )  # sides are whole pixels


@pytest.mark.parametrize("name", MODELS)
def test_clicks_do_not_depend_on_their_batch(folder_of: Folders, name: str) -> None:
    one, two, all_ = (load(folder_of(name), click_batch=batch) for batch in (1, 2, 64))
    encoded, prompts = all_.encode(picture(50, 70)), prompts_at(POINTS, 1)
    whole = all_.draw(encoded, prompts)
    for sam in (one, two):
        for found, expected in zip(sam.draw(encoded, prompts), whole, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert all(map(torch.equal, all_.draw(all_.encode(picture(50, 70)), prompts), whole))


def test_no_clicks(folder_of: Folders) -> None:
    sam = load(folder_of("sam2"))
    logits, iou = sam.draw(sam.encode(picture(20, 30)), prompts_at(torch.zeros(0, 2), 3))
    assert logits.shape == (0, 3, 16, 16) and iou.shape == (0, 3)


@pytest.mark.parametrize("name", MODELS)
def test_further_clicks_are_those_of_transformers(folder_of: Folders, name: str) -> None:
    """And none changes a mask of an object that has none."""
    sam = load(folder_of(name))
    image, encoded = picture(50, 70), sam.encode(picture(50, 70))
    places = torch.tensor([[[30.0, 20.0], [5.5, 40.0]]]).repeat(len(POINTS), 1, 1)
    labels = torch.tensor([[ON, OFF], [OFF, NO_POINT], [ON, NO_POINT], [NO_POINT, NO_POINT], [OFF, OFF]])
    prompts = prompts_at(POINTS, 0, FurtherClicks(places, labels))
    logits, iou = sam.draw(encoded, prompts)
    _, outputs = by_transformers(sam, image, prompts)
    torch.testing.assert_close(logits, outputs.pred_masks[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(iou, outputs.iou_scores[0], atol=1e-5, rtol=1e-4)
    plain = sam.draw(encoded, prompts_at(POINTS, 0)).logits
    change = (logits - plain).abs().flatten(1).mean(1)
    assert (change[[0, 1, 2, 4]] > 1e-3).all()


def test_negative_points_change_masks(folder_of: Folders) -> None:
    sam = load(folder_of("sam"))
    encoded = sam.encode(picture(50, 70))
    plain, others = (sam.draw(encoded, prompts_at(POINTS, count)).logits for count in (0, 1))
    assert float((plain - others).abs().mean()) > 1e-2


@pytest.mark.parametrize(
    ("name", "model"),
    [("sam2_video", "Sam2Model"), ("edgetam_video", "EdgeTamModel"), ("sam3_video", "Sam3TrackerModel")],
)
def test_a_model_for_videos_has_one_for_images(tmp_path: Path, name: str, model: str) -> None:
    """So SAM 2, EdgeTAM and SAM 3 are published. All weights that images need are found in it."""
    if name == "sam3_video":
        weights = sam3_video(tmp_path).state_dict()
    else:
        weights = load_file(saved(name, tmp_path) / "model.safetensors")
    sam = load(tmp_path)
    assert type(sam.model).__name__ == model
    for key, tensor in sam.model.state_dict().items():
        assert torch.equal(tensor, weights[key]), key
    image, prompts = picture(50, 70), prompts_at(POINTS, 0)
    _, outputs = by_transformers(sam, image, prompts)
    torch.testing.assert_close(
        sam.draw(sam.encode(image), prompts).logits, outputs.pred_masks[0], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", MODELS)
def test_half_precision_is_near_full_precision(folder_of: Folders, name: str) -> None:
    image, prompts = picture(50, 70), prompts_at(POINTS, 0)
    full, half = (load(folder_of(name), precision) for precision in ("fp32", "bf16"))
    expected = full.draw(full.encode(image), prompts).logits
    found = half.draw(half.encode(image), prompts).logits
    assert found.dtype == torch.float32
    # Of the encoder alone: of the same features, the same masks.
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(half.draw(full.encode(image), prompts).logits, expected)
    error = float((found - expected).abs().mean() / expected.std())
    assert 0 < error < 0.2


def test_pixels_are_normalised_as_the_folder_says(folder_of: Folders, tmp_path: Path) -> None:
    """Its mean, its deviation, and the model's input size, whatever the size that it names."""
    folder = shutil.copytree(folder_of("sam2"), tmp_path / "copy")
    hf.Sam2ImageProcessor(image_mean=[0.0] * 3, image_std=[1.0] * 3).save_pretrained(folder)
    image, seen = torch.full((3, 9, 9), 51, dtype=torch.uint8), []
    for sam in (load(folder_of("sam2")), load(folder)):
        sam.model.vision_encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        sam.encode(image)
    mean, deviation = (
        torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    for pixels, expected in zip(seen, ((0.2 - mean) / deviation, torch.full((3, 1, 1), 0.2)), strict=True):
        assert pixels.shape == (1, 3, 64, 64)
        torch.testing.assert_close(pixels[0], expected.expand(3, 64, 64))


@pytest.mark.parametrize("size", [(1, 200), (200, 1)])
def test_an_image_too_narrow(folder_of: Folders, size: tuple[int, int]) -> None:
    with pytest.raises(NarrowImage, match=f"{size[1]} x {size[0]} pixels is too narrow"):
        load(folder_of("sam")).encode(picture(*size))
    sam = load(folder_of("sam2"))  # stretches images
    assert sam.encode(picture(*size)).sizes.original == size


def lost(weights: dict[str, Tensor]) -> None:
    del weights["mask_decoder.iou_token.weight"]


def not_a_number(weights: dict[str, Tensor]) -> None:
    weights["mask_decoder.mask_tokens.weight"][1, 2] = np.nan


def of_another_shape(weights: dict[str, Tensor]) -> None:
    weights["mask_decoder.mask_tokens.weight"] = torch.zeros(7, 3)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lost, "unusable weights:\n  - mask_decoder.iou_token.weight: missing\n"),
        (not_a_number, r"  - mask_decoder.mask_tokens.weight: found nan at \[1, 2\] \(1 of 64 values\)"),
        (of_another_shape, "not readable .*expected the weights of a SamModel; fetch the folder again"),
    ],
)
def test_unusable_weights_are_refused(
    folder_of: Folders, tmp_path: Path, damage: Callable[[dict[str, Tensor]], None], text: str
) -> None:
    folder = shutil.copytree(folder_of("sam"), tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    damage(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SamError, match=text) as error:
        load(folder)
    assert re.match(f"found {re.escape(str(folder))}", str(error.value))


def test_a_damaged_file_is_refused(folder_of: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(folder_of("sam"), tmp_path / "copy")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(SamError, match=r"not readable .*expected the weights of a SamModel"):
        load(folder)


def test_loading_prints_nothing(folder_of: Folders, capfd: pytest.CaptureFixture[str]) -> None:
    folder = folder_of("sam")
    capfd.readouterr()
    load(folder)
    assert capfd.readouterr() == ("", "")
