"""Every recipe, with all that it extends, is a whole, valid params file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.common.config import load_params
from tasks.tools.recipes import load_recipe, whole
from tests.tasks.conftest import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_whole_and_valid(path: Path) -> None:
    params = load_recipe(path)
    assert params.detector(params.teacher) and params.detector(params.student)


def test_the_repo_comes_with_the_demo() -> None:
    assert (ROOT / "params.yaml").read_text() == whole(ROOT / "recipes" / "demo.yaml")
    assert load_params(ROOT / "params.yaml")


def test_in_the_demo_teacher_and_student_differ_by_the_pseudo_labels_alone() -> None:
    params = load_recipe(ROOT / "recipes" / "demo.yaml")
    assert params.detector(params.teacher) == params.detector(params.student)
    teacher, student = params.teacher.model_dump(), params.student.model_dump()
    del teacher["start"]  # nothing is promoted before the first student
    del teacher["milestones"], teacher["holdout"]  # what the refiner wants of the teacher
    assert teacher == {key: value for key, value in student.items() if key in teacher}


COCO = {
    "coco_1p": 10_000,
    "coco_2p": 25_000,
    "coco_5p": 30_000,
    "coco_10p": 45_000,
    "coco_20p": 120_000,
    "coco_30p": 160_000,
    "coco_50p": 270_000,
}
"""The teacher's steps by the share of strong images (the paper's schedules)."""

DIFFERENT = {
    "ingest.annotations",
    "points.files",
    "report.title",
    "teacher.steps",
    "teacher.decay_at",
    "teacher.milestones",
}
"""All that the strong share changes in a recipe for COCO."""

FULL = DIFFERENT | {
    "student.masks",
    *(
        f"{section}.{key}"
        for section in ("teacher", "refiner")
        for key in ("warmup_steps", "milestones", "steps")
    ),
    "teacher.schedule",
    "teacher.holdout",
}
"""What full supervision changes besides: the student sees strong images alone, teacher and refiner are idle."""


def read(name: str) -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load(whole(ROOT / "recipes" / f"{name}.yaml"))
    return recipe


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested sections as {"section.key": value}."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: v for k, part in value.items() for key, v in flat(part, f"{name}.{k}".strip(".")).items()}


def differing(a: str, b: str) -> set[str]:
    """The keys that two recipes have other values for, or only one of them has."""
    ours, theirs = flat(read(a)), flat(read(b))
    return {key for key in ours.keys() | theirs.keys() if ours.get(key, key) != theirs.get(key, key)}


@pytest.mark.parametrize("name", COCO)
def test_recipes_for_coco_differ_by_the_strong_share_alone(name: str) -> None:
    assert differing(name, "coco_5p") <= DIFFERENT
    assert differing(name, "coco_full") <= FULL


@pytest.mark.parametrize(("name", "steps"), COCO.items())
def test_the_paper_s_schedules(name: str, steps: int) -> None:
    params = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    teacher, student, refiner = params.teacher, params.student, params.refiner
    assert (teacher.steps, teacher.lr, teacher.warmup_steps, teacher.batch_size) == (steps, 0.05, 3000, 16)
    assert [round(step / steps, 2) for step in teacher.decay_at] == pytest.approx([0.7, 0.87], abs=0.1)
    assert [round(step / steps, 2) for step in teacher.milestones] == pytest.approx([0.5, 0.84], abs=0.02)
    assert (student.steps, student.lr, student.warmup_steps) == (270_000, 0.01, 1000)
    assert student.decay_at == (210_000, 250_000)
    assert (refiner.steps, refiner.lr, refiner.warmup_steps, refiner.crops) == (200_000, 1e-4, 2000, 16)
    assert (refiner.net.crop_size, refiner.net.heatmap_sigma) == (256, 6.0)
    assert params.detector(teacher).grids == (80, 64, 32, 24, 12)
    assert params.detector(student).grids == (40, 36, 24, 16, 12)
    share = float(name.removeprefix("coco_").removesuffix("p")) / 100
    assert f"--strong {share:g} " in (ROOT / "recipes" / f"{name}.yaml").read_text()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_pixels_are_those_that_the_weights_were_trained_with(path: Path) -> None:
    params = load_recipe(path)
    net = params.detector(params.teacher)
    lite = ((127.0,) * 3, (128.0,) * 3)
    imagenet = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    for config in (net, params.refiner.net):
        if config.backbone.weights == "imagenet":
            expected = lite if config.backbone.name == "efficientnet_lite0" else imagenet
            assert (config.pixel_mean, config.pixel_std) == expected
            assert config.backbone.norm == "frozen_bn"


def test_recipes_are_short() -> None:
    lines = {path.stem: len(path.read_text().splitlines()) for path in RECIPES}
    assert sum(lines.values()) < 900
    assert all(count <= 120 for name, count in lines.items() if name != "base")


def test_the_docs_list_every_recipe() -> None:
    docs = (ROOT / "docs" / "own-data.md").read_text()
    for path in RECIPES:
        name = "coco_{1,2,5,10,20,30,50}p" if path.stem in COCO else path.stem
        assert f"`{name}`" in docs, f"docs/own-data.md doesn't list {path.stem}"
