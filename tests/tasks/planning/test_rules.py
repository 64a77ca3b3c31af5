"""Plans: what the rules derive for known data sets, and that any facts give params that are valid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.planning.facts import Facts, Machine
from tasks.planning.recipe import params_of, recipe_text, write_params
from tasks.planning.rules import Choices, Planned, plan

CPU = Machine(cores=2, memory=16 * 10**9, gpu=None, gpu_memory=0, bf16=False)
GPU = Machine(cores=16, memory=128 * 10**9, gpu="H100", gpu_memory=80 * 10**9, bf16=True)
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def facts_of(
    sizes: Any, images: Any, *, strong: int = 40, classes: int = 1, per_image: int = 20, **more: Any
) -> Facts:
    """Objects of `sizes` px on square images of `images` px; as many weak images as `images`, less the strong ones."""
    sizes, sides = np.asarray(sizes, np.float64), np.asarray(images, np.float64)
    names = tuple(f"class {n}" for n in range(classes))
    values: dict[str, Any] = {
        "strong": strong, "weak": len(sides) - strong, "val": 10, "kept_aside": 0, "classes": names,
        "masks": {name: len(sizes) // classes for name in names}, "clicks": dict.fromkeys(names, 100),
        "short_sides": sides, "long_sides": sides, "object_sizes": sizes,
        "object_shares": sizes / np.median(sides), "object_lengths": 1.3 * sizes,
        "per_image": np.full(strong, per_image, np.float64), "clicks_per_image": np.full(5, per_image, np.float64),
        "unlike_share": 0.0, "unlike_images": (),
    }  # fmt: skip
    return Facts(**{**values, **more})


def values(facts: Facts, machine: Machine = CPU, choices: Choices | None = None) -> dict[str, Any]:
    planned = plan(facts, machine, choices or Choices())
    assert len({one.key for one in planned}) == len(planned)
    assert all(one.reason for one in planned)
    params_of(write_params(recipe_text(planned), Path("plan.yaml"), None, None).text)
    return {one.key: one.value for one in planned}


OF_NUCLEI = np.interp(np.linspace(0, 1, 500), [0, 0.1, 0.5, 0.9, 0.98, 1], [4, 8, 16, 31, 50, 80])
NUCLEI = facts_of(OF_NUCLEI, [256] * 300 + [520] * 80 + [1024] * 20, unlike_share=0.06)
PHOTOS = facts_of(np.geomspace(20, 300, 400), [490] * 120, strong=12, classes=1, per_image=3)
FACADES = facts_of(np.geomspace(12, 240, 1000), [512] * 346, strong=35, classes=10, per_image=120)


@pytest.mark.parametrize(
    ("facts", "machine", "expected"),
    [
        (NUCLEI, CPU, {
            "input.tile": {"side": 128, "overlap": 32}, "input.enlarge": False, "model.mask_stride": 2,
            "teacher.grids": [40, 24, 16], "teacher.ranges": [[1, 32], [24, 64], [48, 512]],
            "teacher.augment.crop_side": 128, "teacher.augment.invert": 0.3, "teacher.augment.rotate90": 0.5,
            "teacher.batch_size": 8, "prompt.class_power": 0.5, "student.classes_from": "mask",
            "teacher.holdout": 0.1, "student.strong_share": 0.5, "student.strong_end": 0.3,
        }),
        (FACADES, CPU, {
            "input.short_side": 256, "input.max_side": 256, "input.tile": None, "model.mask_stride": 4,
            "teacher.grids": [40, 24, 16, 8], "teacher.ranges": [[1, 32], [24, 64], [48, 128], [96, 512]],
            "teacher.batch_size": 4, "prompt.class_power": 2.0, "evaluate.max_detections": 200,
            "evaluate.size_bounds": [32, 96],
        }),
        (replace(FACADES, masks=dict.fromkeys(FACADES.classes, 20)), CPU, {
            "prompt.class_power": 4.0, "student.classes_from": "click", "student.weight_by_score": "both",
        }),
        (PHOTOS, CPU, {"input.short_side": 256, "teacher.holdout": 0.25, "evaluate.max_detections": 100}),
        (replace(PHOTOS, strong=9, weak=111), CPU, {"teacher.holdout": 0.0}),
        (facts_of(np.geomspace(60, 400, 400), [1080] * 200), GPU, {
            "input.short_side": 800, "teacher.batch_size": 16, "teacher.fused": True, "teacher.mask_pairs": None,
        }),
        (facts_of(np.geomspace(300, 400, 50), [512] * 50), CPU, {"teacher.grids": [8]}),
    ],
    ids=["nuclei", "facades", "few masks", "photos", "no holdout", "gpu", "one size"],
)  # fmt: skip
def test_known_data(facts: Facts, machine: Machine, expected: dict[str, Any]) -> None:
    found = values(facts, machine)
    assert {key: found.get(key) for key in expected} == expected


def test_weights_that_are_here_are_used_with_their_normalisation() -> None:
    with_weights = values(PHOTOS, CPU, Choices(weights="efficientnet_lite0"))
    assert with_weights["model.backbone.weights"] == "imagenet"
    assert with_weights["model.pixel_mean"] == [127, 127, 127]
    assert with_weights["teacher.lr"] < values(PHOTOS)["teacher.lr"]
    assert with_weights["refiner.net.backbone.name"] == "efficientnet_lite0"
    assert with_weights["refiner.net.pixel_mean"] == [127, 127, 127]
    assert (with_weights["refiner.lr"], with_weights["refiner.channels_last"]) == (0.001, True)
    assert with_weights["refiner.rounds"] == 2
    without = values(PHOTOS)
    assert without["model.backbone.weights"] is None
    assert not [key for key in without if key.startswith("refiner.net.backbone")]


@pytest.mark.parametrize(("given", "expected"), [(True, 0.5), (False, None)])
def test_the_answer_on_orientation_is_taken(given: bool, expected: float | None) -> None:
    assert values(NUCLEI, CPU, Choices(any_orientation=given)).get("teacher.augment.rotate90") == expected


def test_steps_fit_a_budget() -> None:
    whole, half = values(PHOTOS), values(PHOTOS, CPU, Choices(steps=0.5))
    assert half["teacher.steps"] * 2 == whole["teacher.steps"]
    assert values(PHOTOS, CPU, Choices(steps=1e-6))["student.steps"] == 40


@settings(max_examples=40)
@given(
    sides=st.lists(st.integers(20, 9000), min_size=1, max_size=30),
    sizes=st.lists(st.floats(0.5, 9000), max_size=40),
    strong=st.integers(1, 30),
    classes=st.integers(1, 80),
    per_image=st.integers(1, 5000),
    unlike=st.floats(0, 1),
    machine=st.sampled_from([CPU, GPU, replace(CPU, memory=None, cores=64)]),
    choices=st.builds(
        Choices,
        any_orientation=st.sampled_from([None, True, False]),
        weights=st.sampled_from([None, "efficientnet_lite0", "resnet50"]),
        steps=st.floats(1e-6, 100),
    ),
)
def test_any_facts_give_valid_params(
    sides: list[int], sizes: list[float], strong: int, classes: int, per_image: int, unlike: float,
    machine: Machine, choices: Choices,
) -> None:  # fmt: skip
    facts = facts_of(sizes, sides, strong=min(strong, len(sides)), classes=classes, per_image=per_image)
    values(replace(facts, unlike_share=unlike), machine, choices)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
@pytest.mark.parametrize(("name", "tiles"), [("nuclei", True), ("facade", False)])
def test_real_data_get_the_shape_of_their_recipes(name: str, tiles: bool) -> None:
    document = json.loads((SHARED / name / "train.json").read_text())
    sides = {one["id"]: min(one["width"], one["height"]) for one in document["images"]}
    sizes = np.array([one["area"] ** 0.5 for one in document["annotations"]])
    shares = np.array([one["area"] ** 0.5 / sides[one["image_id"]] for one in document["annotations"]])
    lengths = np.array([max(one["bbox"][2:]) for one in document["annotations"]])
    facts = facts_of(sizes, list(sides.values()), object_shares=shares, object_lengths=lengths)
    found = values(facts)
    assert (found["input.tile"] is not None) == tiles
    assert len(found["teacher.grids"]) == (3 if tiles else 4)


def test_a_reason_is_behind_its_value() -> None:
    text = recipe_text(
        [Planned("input.tile", {"side": 128, "overlap": 32}, "small objects"), Planned("seed", 3, "")]
    )
    assert text.splitlines()[-3:] == [
        "input:",
        f"{'  tile: {overlap: 32, side: 128}':<46}  # small objects",
        "seed: 3",
    ]
