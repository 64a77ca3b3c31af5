"""Our maths against what the public PointWSSIS implementation computed (../shared/fixtures/reference)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from models.config import PromptConfig
from models.inference.click_masks import prompt_points
from models.inference.detect import maskness, predict
from models.masks.geometry import Shapes, measure
from models.masks.resize import Sizes, resize_masks
from models.reference.compat import mask_nms, predict_as_reference, prompt_as_reference, rounded_points
from models.reference.compat_refine import reference_boxes, reference_inputs
from models.reference.published import renamed, solov2_names
from models.reference.published_config import STUDENT, TEACHER, solov2_config
from models.reference.published_config import refinenet_config as published_refinenet
from models.refiner.crops import crop_boxes, crop_inputs, heatmaps
from models.refiner.network import soft_dice
from models.solov2 import targets as targets_module
from models.solov2.losses import solov2_loss
from models.solov2.network import SOLOv2
from models.solov2.targets import Targets, assign_targets

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


@pytest.fixture(scope="module")
def model(folder: Path) -> SOLOv2:
    """The narrow network, made and filled as `import-checkpoint` does."""
    state = torch.load(folder / "solov2_tiny/weights.pth", weights_only=True)
    settings = dataclasses.replace(STUDENT, grids=(20, 16, 12, 8, 6), ranges=TEACHER.ranges)
    config, classes = solov2_config(state, settings)
    model = SOLOv2(config, classes)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    model.load_state_dict(renamed(state, solov2_names("resnet50", 4), shapes, "weights.pth", "SOLOv2"))
    return model.eval()


@pytest.fixture(scope="module")
def outputs(model: SOLOv2, scene: dict[str, Tensor]):
    with torch.no_grad():
        return model(scene["image"])


def close(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-5 of the largest value there is."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


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


def overlaps(ours: Tensor, theirs: np.ndarray) -> np.ndarray:
    """IoU of bool masks [D, H, W], pair by pair."""
    one, other = ours.numpy(), theirs.astype(bool)
    return (one & other).sum((1, 2)) / np.maximum((one | other).sum((1, 2)), 1)


@pytest.mark.parametrize(("nms", "rule"), [("matrix", predict), ("mask", predict_as_reference)])
def test_plain_inference(folder: Path, outputs, nms: str, rule) -> None:
    with np.load(folder / f"solov2_tiny/a256x320_infer_none_{nms}.npz") as theirs:
        sizes = Sizes(SIZE, SIZE, tuple(theirs["image_size"].tolist()))
        ours = rule(outputs, 0, STUDENT.inference, sizes)
        assert np.array_equal(ours.labels, theirs["classes"])
        np.testing.assert_allclose(ours.scores, theirs["scores"], atol=1e-5)
        assert overlaps(ours.masks, bits(theirs, "mask")).min() >= 0.999


# Of the 12 objects (see the fixture's README): what the reference does with each when prompted for pseudo labels.
# What it reports is (level of the mask, object whose point it reports), or None; then why.
FATES: dict[int, tuple[tuple[int, int] | None, str]] = {
    0: ((3, 0), "kept"),
    1: ((1, 1), "kept"),
    2: ((4, 3), "kept, yet with the point of object 3, which lies in the same cell and came later"),
    3: ((2, 3), "kept"),
    4: ((3, 4), "kept"),
    5: (None, "no point: an empty mask has no centre"),
    6: (
        (3, 6),
        "kept: a single pixel, but its box is annotated as one wide and high, which the size range holds",
    ),
    7: ((3, 7), "kept"),
    8: (None, "no point: its box is annotated without a width, and the size range begins at 1"),
    9: ((0, 9), "kept"),
    10: (None, "lost: its best level, 1, has the same class in the same cell for object 11"),
    11: ((1, 11), "kept: one mask for two objects, reported with this one's point"),
}


def test_the_fate_of_each_of_the_12_objects(folder: Path, scene, outputs) -> None:
    points, labels = measure(scene["masks"]).centre, scene["labels"]
    able = promptable(scene)
    chosen = able.nonzero()[:, 0]
    theirs = np.load(folder / "solov2_tiny/a256x320_infer_point_mask_openranges.npz")
    ours = prompt_as_reference(outputs, 0, points[chosen], labels[chosen], SIZE, TEACHER.inference)
    masks = resize_masks(ours.mask_prob, Sizes(SIZE, SIZE, SIZE), 0.5)

    assert np.array_equal(ours.labels, theirs["classes"])
    np.testing.assert_allclose(ours.scores, theirs["scores"], atol=1e-5)
    assert overlaps(masks, bits(theirs, "mask")).min() >= 0.999
    # y and x of the point that it reports, in ten-thousandths of the image.
    carried = (
        (rounded_points(points[chosen][ours.carried], SIZE).double() - 0.5)
        / torch.tensor([320, 256])
        * 10_000
    )
    assert np.array_equal(carried.round().flip(1).numpy(), theirs["boxes_or_points"][:, :2])
    cells = {(row[0], row[3]) for row in theirs["cate_gt_nonzero"].tolist()}
    assert set(zip(ours.level.tolist(), ours.labels.tolist(), strict=True)) == cells

    rows = {int(chosen[k]): n for n, k in enumerate(ours.prompt.tolist())}
    # Of two objects with one mask the first stands in `prompt`; the reference names the second.
    rows[11] = rows.pop(10)
    for instance, (expected, _) in FATES.items():
        if expected is None:
            assert instance not in rows
        else:
            n = rows[instance]
            assert (int(ours.level[n]), int(chosen[ours.carried[n]])) == expected
    assert [int(i) for i in (~able).nonzero()] == [5, 8]
    lost = {int(chosen[k]): fate for k, fate in enumerate(ours.fates) if fate != "kept"}
    assert lost == {11: "the mask of point 8: the same cell and class"}  # point 8 of these is object 10
    assert int(chosen[8]) == 10


def promptable(scene: dict[str, Tensor]) -> Tensor:
    """Bool [12]: of which objects the reference makes a point, their mass centre: it leaves out empty masks, and by
    its size ranges, opened to (1, 100000), those whose annotated box is less than a pixel."""
    size = scene["boxes"][:, 2:] - scene["boxes"][:, :2]
    return scene["masks"].flatten(1).any(1) & (size.prod(1).sqrt() >= 1)


def test_every_object_with_a_point_gets_a_mask_of_ours(folder: Path, scene, outputs) -> None:
    """By the paper's rule alone: a row for each of the 11, among them all masks that the reference finds."""
    held = scene["masks"].flatten(1).any(1)
    labels = scene["labels"][held]
    points = measure(scene["masks"][held]).centre
    ours = prompt_points(outputs, 0, points - 0.5, labels, SIZE, PromptConfig.paper(0.5))
    assert (len(ours.score), len(ours.mask_prob)) == (11, 11)
    masks = resize_masks(ours.mask_prob, Sizes(SIZE, SIZE, SIZE), 0.5)
    with np.load(folder / "solov2_tiny/a256x320_infer_point_mask_openranges.npz") as theirs:
        for mask, score, label in zip(bits(theirs, "mask"), theirs["scores"], theirs["classes"], strict=True):
            same = (labels == label) & torch.from_numpy(overlaps(masks, mask[None]) >= 0.999)
            assert same.any()
            np.testing.assert_allclose(ours.maskness[same], score, atol=1e-5)


@pytest.mark.parametrize("prompts", ["point_with_size", "point"])
@pytest.mark.parametrize("ranges", ["_mask", "_mask_openranges"])
def test_mask_nms(folder: Path, outputs, prompts: str, ranges: str) -> None:
    """By the cells that each of the fixture's prompted runs was given, up to 99 of them, of which 73 stay."""
    with np.load(folder / f"solov2_tiny/a256x320_infer_{prompts}{ranges}.npz") as theirs:
        rows = torch.from_numpy(theirs["cate_gt_nonzero"])
        features = outputs.mask_features[0].flatten(1)
        kernels = torch.stack([outputs.kernels[level][0, :, y, x] for level, y, x, _ in rows.tolist()])
        probabilities = (kernels @ features).sigmoid()
        scores, area = maskness(probabilities, 0.5)
        large = area > torch.tensor(outputs.strides)[rows[:, 0]]
        order = large.nonzero()[:, 0]
        order = order[scores[order].argsort(descending=True)]
        masks = (probabilities[order] > 0.5).unflatten(1, outputs.mask_features.shape[2:])
        kept = order[mask_nms(masks, rows[order, 3]) < 0]
        assert np.array_equal(rows[kept, 3], theirs["classes"])
        np.testing.assert_allclose(scores[kept], theirs["scores"], atol=1e-5)


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


@pytest.mark.parametrize("case", range(14))
def test_crops_by_the_reference_s_rules(folder: Path, case: int) -> None:
    """`--compat` crops as it does: the same boxes, and inputs to the fixture's half precision."""
    state = {"layer0.0.weight": torch.zeros(64, 10, 7, 7)}
    config, classes = published_refinenet(state)
    assert (classes, config.heatmap_channels) == (5, 6)
    with np.load(folder / "refine/valid_crops_2.0.npz") as file:
        image = torch.from_numpy(file["image_rgb"]).permute(2, 0, 1)
        height, width = image.shape[1:]
        pixels = np.unpackbits(file[f"{case}_mask_bits"])[: height * width].reshape(1, height, width)
        y, x = file[f"{case}_pred_bbox_field"][:2] / 10_000
        box, theirs = file[f"{case}_crop_bbox"], file[f"{case}_input"].astype(np.float32)
        channel = int(file[f"{case}_center_channel_y_x"][0])
        assert channel == int(file[f"{case}_class"]) + 1
    masks = torch.from_numpy(pixels.astype(bool))
    point = torch.tensor([[x * width, y * height]], dtype=torch.float64) + 0.5
    boxes = reference_boxes(masks, point, 2.0)
    assert np.array_equal(boxes[0], box)
    ours = reference_inputs(image, masks, point, boxes, config, torch.tensor([channel]))[0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
