"""Our maths against what the public PointWSSIS implementation computed (../shared/fixtures/reference)."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.resnet import Bottleneck

from models import targets as targets_module
from models.backbone import ResNet, norm_layer
from models.config import InferenceConfig, PromptConfig
from models.crops import crop_boxes, crop_inputs, heatmaps
from models.losses import solov2_loss
from models.postprocess import predict
from models.prompting import prompt_points
from models.refinenet import soft_dice
from models.solov2 import SOLOv2
from models.targets import Shapes, Targets, assign_targets, measure

SIZE = (256, 320)
LEVELS = 5


@pytest.fixture(scope="module")
def folder(shared_dir: Path) -> Path:
    path = shared_dir / "fixtures/reference"
    if not path.is_dir():
        pytest.skip(f"{path} is absent")
    return path


@pytest.fixture(scope="module")
def raw(folder: Path) -> dict[str, Tensor]:
    with np.load(folder / "solov2_tiny/a256x320_raw.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def bits(file: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    shape = file[f"{key}_shape"]
    return np.unpackbits(file[f"{key}_bits"])[: np.prod(shape)].reshape(shape)


@pytest.fixture(scope="module")
def scene(folder: Path) -> dict[str, Tensor]:
    """The image [1, 3, H, W] RGB, its 12 odd objects' masks, classes and boxes."""
    with np.load(folder / "solov2_tiny/a256x320_input.npz") as file:
        return {
            "image": torch.from_numpy(file["image_bgr"][:, :, ::-1].copy()).permute(2, 0, 1)[None],
            "masks": torch.from_numpy(bits(file, "mask").astype(bool)),
            "labels": torch.from_numpy(file["classes"]),
            "boxes": torch.from_numpy(file["boxes"]),
        }


def our_key(key: str) -> str:
    """The reference's parameter name as ours (METHOD.md, "Checkpoint names of the reference")."""
    key = key.replace("backbone.bottom_up.stem.", "backbone.body.").replace("ins_head.", "instance_head.")
    key = re.sub(r"backbone\.bottom_up\.res(\d)", lambda m: f"backbone.body.layer{int(m[1]) - 1}", key)
    key = re.sub(r"conv(\d)\.norm", r"bn\1", key)
    key = key.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
    key = re.sub(r"fpn_lateral(\d)", lambda m: f"fpn.inner_blocks.{int(m[1]) - 2}.0", key)
    key = re.sub(r"fpn_output(\d)", lambda m: f"fpn.layer_blocks.{int(m[1]) - 2}.0", key)
    key = re.sub(r"cate_tower", "category_tower", key)
    key = key.replace("cate_pred", "category_predictor").replace("kernel_pred", "kernel_predictor")
    key = re.sub(r"mask_head\.convs_all_levels\.(\d)\.conv(\d)", r"mask_branch.levels.\1.\2", key)
    return key.replace("mask_head.conv_pred", "mask_branch.predictor")


@pytest.fixture(scope="module")
def model(folder: Path, solov2_config) -> SOLOv2:
    config = solov2_config(
        backbone={"name": "resnet50", "norm": "frozen_bn", "frozen_stages": 2, "stride_in_1x1": True},
        fpn_channels=32,
        head_channels=32,
        head_convs=4,
        kernel_channels=32,
        mask_channels=32,
        norm_groups=32,
        grids=[20, 16, 12, 8, 6],
        level_sources=[[2, 3], [3, 3], [4, 4], [5, 5], [6, 5]],
        ranges=[[1, 72], [72, 144], [144, 288], [288, 584], [584, 2048]],
        pixel_mean=[103.53, 116.28, 123.675],
        pixel_std=[1.0, 1.0, 1.0],
        bgr=True,
    )
    model = SOLOv2(config, 5)
    # The fixture's stem is twice as wide, for its stages, as any real ResNet's.
    model.backbone.body = ResNet(
        Bottleneck,
        (3, 4, 6, 3),
        in_channels=3,
        stem_channels=16,
        planes=8,
        norm=norm_layer("frozen_bn", 1),
        stride_in_1x1=True,
    )
    state = torch.load(folder / "solov2_tiny/weights.pth", weights_only=True)
    model.load_state_dict({our_key(key): value for key, value in state.items()})
    return model.eval()


@pytest.fixture(scope="module")
def outputs(model: SOLOv2, scene: dict[str, Tensor]):
    with torch.no_grad():
        return model(scene["image"])


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1.0, float(theirs.abs().max())))


def test_pixels_backbone_and_pyramid(model: SOLOv2, scene, raw: dict[str, Tensor]) -> None:
    with torch.no_grad():
        x = model.normalise(scene["image"], None)
        maps, pyramid = model.backbone.body(x), model.backbone(x)
    assert torch.equal(x, raw["preprocessed"])
    for level in (2, 3, 4, 5):
        close(maps[level - 1], raw[f"res{level}"])
    for level in (2, 3, 4, 5, 6):
        close(pyramid[level], raw[f"p{level}"])


def test_heads_and_mask_features(outputs, raw: dict[str, Tensor]) -> None:
    for level in range(LEVELS):
        close(outputs.category_logits[level], raw[f"cate_pred_{level}"])
        close(outputs.kernels[level], raw[f"kernel_pred_{level}"])
    close(outputs.mask_features, raw["mask_pred"])


def reference_targets(model: SOLOv2, scene: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Targets:
    """Ours by the reference's conventions: centres half a pixel less, its boxes, thinned masks."""

    def their_measure(masks: Tensor) -> Shapes:
        ours, size = measure(masks), scene["boxes"][:, 2:] - scene["boxes"][:, :2]
        return Shapes(ours.area * (size.prod(1) > 0), ours.centre - 0.5, size)

    with monkeypatch.context() as patch:
        patch.setattr(targets_module, "measure", their_measure)
        weights = torch.ones(len(scene["masks"]))
        ours = assign_targets([scene["masks"]], [scene["labels"]], [weights], SIZE, model.config)
    thinned = [cv2.resize(m.astype(np.uint8), (SIZE[1] // 4, SIZE[0] // 4)) for m in scene["masks"].numpy()]
    return dataclasses.replace(ours, masks=torch.from_numpy(np.stack(thinned)).float())


def test_targets(folder: Path, model: SOLOv2, scene, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = reference_targets(model, scene, monkeypatch)
    with np.load(folder / "solov2_tiny/a256x320_targets_eval_size.npz") as theirs:
        for level in range(LEVELS):
            of_level = ours.level == level
            category = ours.categories[level][0].clone()
            category[category < 0] = 5
            assert np.array_equal(category, theirs[f"i0_l{level}_cate_label"])
            assert np.array_equal(ours.cell[of_level], theirs[f"i0_l{level}_grid_order"])
            if of_level.any():
                masks = bits(theirs, f"i0_l{level}_ins_label")
                assert np.array_equal(ours.masks[ours.instance[of_level]], masks)


def test_losses(folder: Path, model: SOLOv2, scene, outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = solov2_loss(outputs, reference_targets(model, scene, monkeypatch), model.config)
    theirs = json.loads((folder / "solov2_tiny/losses.json").read_text())
    assert ours["loss_mask"].item() == pytest.approx(theirs["loss_ins"], rel=1e-5)
    assert ours["loss_category"].item() == pytest.approx(theirs["loss_cate"], rel=1e-5)


def test_our_own_targets_lose_no_object(model: SOLOv2, scene) -> None:
    ours = assign_targets([scene["masks"]], [scene["labels"]], [torch.ones(12)], SIZE, model.config)
    held = scene["masks"].flatten(1).any(1)
    assert set(ours.instance.tolist()) == set(held.nonzero()[:, 0].tolist())
    assert int(held.sum()) == 11


def test_plain_inference_with_matrix_nms(folder: Path, outputs) -> None:
    config = InferenceConfig(
        score_threshold=0.1,
        min_area=1.0,
        nms_pre=500,
        nms_kernel="gaussian",
        nms_sigma=2.0,
        nms_threshold=0.05,
        max_detections=100,
        mask_threshold=0.5,
    )
    with np.load(folder / "solov2_tiny/a256x320_infer_none_matrix.npz") as theirs:
        ours = predict(outputs, 0, config, SIZE, SIZE, tuple(theirs["image_size"].tolist()))
        assert np.array_equal(ours.labels, theirs["classes"])
        np.testing.assert_allclose(ours.scores, theirs["scores"], atol=1e-5)
        # A pixel at exactly the threshold may fall on either side.
        assert (ours.masks.numpy() != bits(theirs, "mask").astype(bool)).sum(axis=(1, 2)).max() <= 3


def test_prompting_finds_every_mask_the_reference_finds(folder: Path, scene, outputs) -> None:
    held = scene["masks"].flatten(1).any(1)
    labels = scene["labels"][held]
    points = measure(scene["masks"][held]).centre - 0.5
    ours = prompt_points(outputs, 0, points, labels, SIZE, PromptConfig.paper(LEVELS, 0.5))
    full = F.interpolate(ours.mask_prob[:, None], size=SIZE, mode="bilinear", align_corners=False)[:, 0] > 0.5
    with np.load(folder / "solov2_tiny/a256x320_infer_point_mask_openranges.npz") as theirs:
        masks = torch.from_numpy(bits(theirs, "mask").astype(bool))
        # The reference's score is maskness alone; of these 11 points it answers for 9.
        assert (len(points), len(masks)) == (11, 9)
        for mask, score, label in zip(masks, theirs["scores"], theirs["classes"], strict=True):
            same = (labels == label) & ((full != mask).sum((1, 2)) <= 3)
            assert same.any()
            np.testing.assert_allclose(ours.maskness[same], score, atol=1e-5)
        levels = sorted(set(zip(ours.level.tolist(), labels.tolist(), strict=True)))
        chosen = {(row[0], row[3]) for row in theirs["cate_gt_nonzero"].tolist()}
        assert chosen <= set(levels)


def test_heatmaps(folder: Path) -> None:
    with np.load(folder / "refine/center_maps.npz") as theirs:
        for i, (x, y, c) in enumerate(theirs["points_xyc"].tolist()):
            if not (0 <= x < 64 and 0 <= y < 64):
                continue  # the reference leaves such points out; ours never get that far
            map_ = theirs[f"map_{i}"][c]
            ours = heatmaps(torch.tensor([[x + 0.5, y + 0.5]]), torch.tensor([[0.0, 0, 64, 64]]), 64, 6.0)[
                0
            ].numpy()
            inside = map_ > 0
            np.testing.assert_allclose(ours[inside], map_[inside], atol=1e-4)
            assert ours[~inside].max() < 0.007  # the reference cuts the Gaussian off after 19 pixels


def test_dice(folder: Path) -> None:
    with np.load(folder / "refine/dice.npz") as theirs:
        logits = torch.from_numpy(theirs["logits_c2"])
        truth = torch.from_numpy(theirs["target_c2"])
        hot = torch.stack([truth == 0, truth == 1], 1).float()
        # The reference sums over the batch and over rows, so that each column of pixels is a sample: not as
        # we do, but by the same formula.
        columns = [x.permute(3, 1, 0, 2) for x in (logits.softmax(1), hot)]  # [W, 2, M, H]
        assert soft_dice(*columns).mean().item() == pytest.approx(float(theirs["loss_c2"]), abs=1e-5)


@pytest.mark.parametrize("case", range(14))
def test_crops(folder: Path, refinenet_config, case: int) -> None:
    config = refinenet_config(crop_size=256, heatmap_sigma=6.0, heatmap_channels=5)
    with np.load(folder / "refine/valid_crops_2.0.npz") as file:
        image = torch.from_numpy(file["image_rgb"]).permute(2, 0, 1)
        height, width = image.shape[1:]
        mask = (
            np.unpackbits(file[f"{case}_mask_bits"])[: height * width].reshape(1, height, width).astype(bool)
        )
        y, x = file[f"{case}_pred_bbox_field"][:2] / 10_000
        theirs = torch.from_numpy(file[f"{case}_input"].astype(np.float32))
        box = torch.from_numpy(file[f"{case}_crop_bbox"]).float()[None]
        label = int(file[f"{case}_class"])
    box[:, 2:] += 1  # theirs is inclusive
    masks, point = torch.from_numpy(mask), torch.tensor([[x * width, y * height]], dtype=torch.float32)
    ours = crop_inputs(image, masks, point, box, config, torch.tensor([label]))[0]
    assert (ours[:3] - theirs[:3]).abs().mean() < 0.04  # in units of the image's deviation
    assert ((ours[-1] > 0.5) != (theirs[-1] > 0.5)).float().mean() < 0.01
    heat = theirs[3 + label + 1]  # their channel 0 is unused
    peak, our_peak = (divmod(int(m.argmax()), 256) for m in (heat, ours[3 + label]))
    assert max(abs(a - b) for a, b in zip(peak, our_peak, strict=True)) <= 1
    # Beyond a point outside the mask's box theirs adds twice the context that ours does.
    own = crop_boxes(masks, point, 2.0)
    extent = masks[0].nonzero().amax(0) - masks[0].nonzero().amin(0) + 1
    assert ((own - box).abs() <= extent.max() / 2 + 2).all()
    x0, y0, x1, y1 = own[0].tolist()
    assert x0 <= point[0, 0] <= x1
    assert y0 <= point[0, 1] <= y1
