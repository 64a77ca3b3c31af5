"""The fast code gives what the plain loops of the benches give, on scenes of many objects."""

from __future__ import annotations

import pytest
import torch

from bench.answers import Answers, answer, scatter
from bench.perfect import teacher_config
from bench.plain_prompting import detect_plainly, prompt_plainly
from bench.prompting import DEFAULT, PAPER, pixels_apart
from data.masks.rle import decode_many, encode_many
from models.config import InferenceConfig
from models.inference.coarse_masks import rough_masks
from models.inference.detect import predict
from models.masks.resize import Sizes

PADDED, CONTENT = (192, 256), (180, 240)
CONFIG = teacher_config(4, 40).model_copy(
    update={"grids": (20, 12, 8), "ranges": ((1, 40), (24, 96), (48, 512)), "level_sources": ((2, 3),) * 3}
)
RULES = InferenceConfig(
    score_threshold=0.1, min_area=1.0, nms_pre=500, nms_kernel="gaussian", nms_sigma=2.0, nms_threshold=0.05,
    max_detections=100, mask_threshold=0.5,
)  # fmt: skip


def scene(seed: int, count: int = 30) -> Answers:
    objects = scatter(count, (10.0, 60.0), CONTENT, 3, torch.Generator().manual_seed(seed))
    return answer(objects, PADDED, CONFIG, 3, seed)


@pytest.mark.parametrize("original", [CONTENT, (97, 131), (400, 500)])
@pytest.mark.parametrize("seed", [0, 1])
def test_masks_at_points_are_the_plain_loop_s(seed: int, original: tuple[int, int]) -> None:
    """But for pixels at the very threshold, on which rounding decides."""
    said = scene(seed)
    sizes = Sizes(PADDED, CONTENT, original)
    points = said.points_xy * torch.tensor([original[1] / CONTENT[1], original[0] / CONTENT[0]])
    rough = rough_masks(said.outputs, 0, points, said.labels, sizes, PAPER)
    ours = encode_many(rough.masks, rough.boxes_xyxy)
    plain = prompt_plainly(said.outputs, said.points_xy, said.labels, sizes, 0.5)
    assert rough.masks.flatten(1).any(1).float().mean() > 0.8
    assert pixels_apart(ours, plain, original) <= rough.masks.sum() * 1e-4


@pytest.mark.parametrize("original", [CONTENT, (97, 131)])
@pytest.mark.parametrize("seed", [0, 1])
def test_detections_are_the_plain_loop_s(seed: int, original: tuple[int, int]) -> None:
    sizes = Sizes(PADDED, CONTENT, original)
    outputs = scene(seed).outputs
    found = predict(outputs, 0, RULES, sizes)
    codes, scores = detect_plainly(outputs, sizes, RULES)
    assert len(found.scores) == len(codes) > 15
    torch.testing.assert_close(found.scores, scores, atol=1e-4, rtol=0)
    apart = pixels_apart(encode_many(found.masks, found.boxes_xyxy), codes, original)
    assert apart <= found.masks.sum() * 1e-4


def test_the_default_rule_shares_no_pixel_within_a_class() -> None:
    said = scene(3)
    rough = rough_masks(
        said.outputs, 0, said.points_xy, said.labels, Sizes(PADDED, CONTENT, CONTENT), DEFAULT
    )
    masks = decode_many(encode_many(rough.masks, rough.boxes_xyxy), *CONTENT)
    for label in said.labels.unique():
        assert masks[(said.labels == label).numpy()].sum(0).max() <= 1
