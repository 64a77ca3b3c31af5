from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from data.demo.fruit import FRUIT
from data.demo.scenes import MIN_VISIBLE_PIXELS, SceneConfig, draw_scene

CONFIG = SceneConfig(
    image_size=96, classes=tuple(FRUIT), objects_min=3, objects_max=8, size_min=12, size_max=60,
    overlap=0.5, noise=0.03, distractors=4,
)  # fmt: skip
SCENES = [draw_scene(np.random.default_rng(seed), CONFIG) for seed in range(60)]


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
    assert min(np.bincount(classes, minlength=4)) > len(classes) / 10
    assert min(areas) < 60
    assert max(areas) > 1500
    touching = 0
    for scene in SCENES:
        for k, mask in enumerate(scene.masks):
            grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            touching += bool((grown & np.delete(scene.masks, k, axis=0).any(axis=0)).any())
    assert touching > len(areas) / 4


def test_table_and_place_tell_nothing_of_the_class() -> None:
    features, classes = [], []
    for scene in SCENES:
        table = scene.image[~scene.masks.any(axis=0)].mean(axis=0)
        for mask, c in zip(scene.masks, scene.classes, strict=True):
            rows, columns = np.nonzero(mask)
            features.append([*table, rows.mean(), columns.mean()])
            classes.append(c)
    values, labels = np.asarray(features), np.asarray(classes)
    for c in range(4):
        mine, others = values[labels == c], values[labels != c]
        error = np.sqrt(mine.var(axis=0) / len(mine) + others.var(axis=0) / len(others))
        assert (np.abs(mine.mean(axis=0) - others.mean(axis=0)) / error).max() < 4


def test_the_light_comes_from_where_the_shadow_does_not_fall() -> None:
    """Of an apple alone: from its brighter to its darker half is the direction of the darker table around it."""
    alone = replace(
        CONFIG, classes=("apple",), objects_min=1, objects_max=1, size_min=36, noise=0.0, distractors=0
    )
    agreeing = []
    for seed in range(40):
        scene = draw_scene(np.random.default_rng(seed), alone)
        grey = scene.image.astype(float).mean(axis=2)
        for mask in scene.masks:
            around = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool) & ~mask
            light, shadow = (
                np.array([np.cov(grey[part], axis[part])[0, 1] for axis in np.mgrid[:96, :96]])
                for part in (mask, around)
            )
            agreeing.append(float(light @ shadow) > 0)
    assert len(agreeing) > 30 and np.mean(agreeing) > 0.85


def test_tables_differ_from_image_to_image() -> None:
    empty = replace(CONFIG, objects_min=0, objects_max=0)
    tables = [draw_scene(np.random.default_rng(seed), empty).image.astype(float) for seed in range(40)]
    means = np.array([table.mean(axis=(0, 1)) for table in tables])
    assert means.std(axis=0).min() > 20
    details = [cv2.Laplacian(table, cv2.CV_64F).std() for table in tables]
    assert max(details) > 2 * min(details)  # checks and grain next to paint


def test_the_generator_alone_decides_a_scene() -> None:
    again = draw_scene(np.random.default_rng(3), CONFIG)
    assert np.array_equal(again.image, SCENES[3].image)
    assert np.array_equal(again.masks, SCENES[3].masks)
    assert not np.array_equal(again.image, SCENES[4].image)


@pytest.mark.parametrize("size", [16, 33, 200])
def test_any_size_can_be_drawn(size: int) -> None:
    scene = draw_scene(np.random.default_rng(0), replace(CONFIG, image_size=size, size_max=max(12, size / 2)))
    assert scene.image.shape == (size, size, 3) and scene.masks.shape[1:] == (size, size)


def test_a_scene_may_be_empty() -> None:
    scene = draw_scene(np.random.default_rng(0), replace(CONFIG, objects_min=0, objects_max=0))
    assert scene.masks.shape == (0, 96, 96)
    assert scene.classes == []
