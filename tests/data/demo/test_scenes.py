from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from data.demo.scenes import MIN_VISIBLE_PIXELS, SHAPES, SceneConfig, draw_scene

CONFIG = SceneConfig(
    image_size=96, shapes=tuple(SHAPES), objects_min=3, objects_max=8, size_min=8, size_max=64,
    overlap=0.5, contrast=0.25, colour_cue=0.0, texture=0.12, noise=0.03, distractors=4,
)  # fmt: skip
SCENES = [draw_scene(np.random.default_rng(seed), CONFIG) for seed in range(60)]


def shape_mask(name: str, radius: float, seed: int) -> np.ndarray:
    """The whole shape alone, bool [80, 80]."""
    v, u = np.mgrid[:80, :80].astype(np.float32) - 39.5
    return SHAPES[name](np.random.default_rng(seed), radius, u, v) < 0


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("radius", [4.0, 12.0, 32.0])
def test_shapes_fill_their_size_and_no_more(name: str, radius: float) -> None:
    for seed in range(20):
        rows, columns = np.nonzero(shape_mask(name, radius, seed))
        reach = np.hypot(rows - 39.5, columns - 39.5).max()
        assert reach <= radius * 1.1 + 1
        assert reach >= radius * 0.75 - 1


def roundness(mask: np.ndarray) -> float:
    """IoU of a mask with the ellipse of the same centre and second moments: 1 for an ellipse."""
    rows, columns = np.nonzero(mask)
    points = np.stack([columns, rows])
    inverse = np.linalg.inv(np.cov(points))
    v, u = np.mgrid[: mask.shape[0], : mask.shape[1]]
    away = np.stack([u, v], axis=-1) - points.mean(axis=1)
    ellipse = np.einsum("hwi,ij,hwj->hw", away, inverse, away) < 4
    return float((ellipse & mask).sum() / (ellipse | mask).sum())


@pytest.mark.parametrize("name", SHAPES)
def test_outlines_tell_the_classes_apart(name: str) -> None:
    for seed in range(30):
        mask = shape_mask(name, 30, seed)
        contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        holes = int((tree[0][:, 3] >= 0).sum())
        outline = max(contours, key=len)
        assert len(contours) - holes == 1  # one piece
        sides = sorted(cv2.minAreaRect(outline)[1])
        if holes:
            guess = "ring"
        elif sides[0] < 0.4 * sides[1]:
            guess = "bar"
        elif mask.sum() < 0.75 * cv2.contourArea(cv2.convexHull(outline)):
            guess = "star"
        else:
            guess = "disc" if roundness(mask) > 0.95 else "block"
        assert guess == name


def test_masks_are_the_visible_part_of_each_object() -> None:
    for scene in SCENES:
        assert scene.image.shape == (96, 96, 3)
        assert scene.image.dtype == np.uint8
        assert scene.masks.sum(axis=0).max(initial=0) <= 1  # no pixel belongs to two
        assert len(scene.classes) == len(scene.masks)
        for mask in scene.masks:
            assert mask.sum() >= MIN_VISIBLE_PIXELS


def test_scenes_have_occlusion_all_classes_and_the_range_of_sizes() -> None:
    classes = [c for scene in SCENES for c in scene.classes]
    areas = [int(mask.sum()) for scene in SCENES for mask in scene.masks]
    assert min(np.bincount(classes, minlength=5)) > len(classes) / 10
    assert min(areas) < 40
    assert max(areas) > 1500
    touching = 0
    for scene in SCENES:
        for k, mask in enumerate(scene.masks):
            grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            touching += bool((grown & np.delete(scene.masks, k, axis=0).any(axis=0)).any())
    assert touching > len(areas) / 4


def test_without_a_cue_colour_and_place_tell_nothing_of_the_class() -> None:
    features, classes = [], []
    for scene in SCENES:
        ground = scene.image[~scene.masks.any(axis=0)].mean(axis=0)
        for mask, c in zip(scene.masks, scene.classes, strict=True):
            rows, columns = np.nonzero(mask)
            colour = scene.image[mask].mean(axis=0)
            features.append([*colour, *(colour - ground), rows.mean(), columns.mean()])
            classes.append(c)
    values, labels = np.asarray(features), np.asarray(classes)
    for c in range(5):
        mine, others = values[labels == c], values[labels != c]
        error = np.sqrt(mine.var(axis=0) / len(mine) + others.var(axis=0) / len(others))
        assert (np.abs(mine.mean(axis=0) - others.mean(axis=0)) / error).max() < 4


@pytest.mark.parametrize("cue", [0.0, 0.5, 1.0])
def test_the_cue_is_the_share_of_objects_of_their_class_s_hue(cue: float) -> None:
    plain = replace(CONFIG, colour_cue=cue, texture=0.0, noise=0.0, size_min=24)
    right, count = 0, 0
    for seed in range(60):
        scene = draw_scene(np.random.default_rng(seed), plain)
        for mask, c in zip(scene.masks, scene.classes, strict=True):
            red, green, blue = scene.image[mask].mean(axis=0)
            hue = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)
            right += round(hue / (2 * np.pi) * len(SHAPES)) % len(SHAPES) == c
            count += 1
    # Of those with the cue about a fifth stray into the next hue; of the others a fifth has it by chance.
    assert right / count == pytest.approx(0.8 * cue + (1 - cue) / len(SHAPES), abs=0.1)


@pytest.mark.parametrize("contrast", [0.05, 0.15, 0.3])
def test_contrast_is_the_step_between_an_object_and_the_ground_around_it(contrast: float) -> None:
    plain = replace(CONFIG, contrast=contrast, texture=0.0, noise=0.0, objects_min=1, objects_max=1)
    steps = []
    for seed in range(40):
        scene = draw_scene(np.random.default_rng(seed), replace(plain, size_min=24, distractors=0))
        for mask in scene.masks:
            core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            around = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool) & ~mask
            if core.any():
                difference = scene.image[core].mean(axis=0) - scene.image[around].mean(axis=0)
                steps.append(np.sqrt((difference**2).mean()))
    assert len(steps) > 30
    assert np.median(steps) == pytest.approx(255 * contrast * 1.1, rel=0.25)


def test_the_generator_alone_decides_a_scene() -> None:
    again = draw_scene(np.random.default_rng(3), CONFIG)
    assert np.array_equal(again.image, SCENES[3].image)
    assert np.array_equal(again.masks, SCENES[3].masks)
    assert not np.array_equal(again.image, SCENES[4].image)


def test_a_scene_may_be_empty() -> None:
    scene = draw_scene(np.random.default_rng(0), replace(CONFIG, objects_min=0, objects_max=0))
    assert scene.masks.shape == (0, 96, 96)
    assert scene.classes == []
