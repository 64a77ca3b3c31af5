from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tasks.common.config import Params, ParamsError, load_params
from tasks.common.errors import TaskError
from tests.tasks.conftest import ROOT, tiny_recipe


def put(recipe: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        recipe = recipe[section]
    recipe[last] = value


def numbers(node: Any, key: str = "") -> dict[str, float]:
    """All numbers of a recipe by key."""
    if isinstance(node, dict | list):
        inside = node.items() if isinstance(node, dict) else enumerate(node)
        return {at: one for name, value in inside for at, one in numbers(value, f"{key}.{name}").items()}
    return {key[1:]: node} if isinstance(node, int | float) and not isinstance(node, bool) else {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_may_be_infinite_or_none_at_all(
    recipe: dict[str, Any], tmp_path: Path, value: float
) -> None:
    wanted = numbers(recipe)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(replaced(recipe, value)), encoding="utf-8")
    with pytest.raises(TaskError) as error:
        load_params(path)
    said = re.findall(r"- ([a-z_0-9.]+?)(?:\.float.*|\.tuple.*)?: ", str(error.value))
    assert len(wanted) > 150
    assert sorted(wanted.keys() - set(said)) == []


def replaced(node: Any, value: float) -> Any:
    """The same with `value` for each number."""
    if isinstance(node, dict):
        return {key: replaced(one, value) for key, one in node.items()}
    if isinstance(node, list):
        return [replaced(one, value) for one in node]
    return value if isinstance(node, int | float) and not isinstance(node, bool) else node


def test_the_repos_own_recipe_is_valid() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.detector(params.teacher).grids == params.teacher.grids


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("teacher.lrr", 0.1, "teacher.lrr: unknown key; did you mean 'lr'?"),
        ("teachr", {}, "teachr: unknown key; did you mean 'teacher'?"),
        ("model.bgrr", True, "model.bgrr: unknown key; did you mean 'bgr'?"),
        ("model.backbone.nam", "x", "model.backbone.nam: unknown key; did you mean 'name'?"),
        ("refiner.net.crop_sise", 64, "refiner.net.crop_sise: unknown key; did you mean 'crop_size'?"),
        ("student.augment.flipp", 1, "student.augment.flipp: unknown key; did you mean 'flip'?"),
        ("input.qqqq", 1, "input.qqqq: unknown key; known keys: enlarge, max_side, short_side, tile"),
        ("student.ema", 1.0, "student.ema: Input should be less than 1; found 1.0"),
        ("student.unusable", "drop", "student.unusable: Input should be 'ignore' or 'background'"),
        ("student.augment.crop_side", 48, "student.augment.crop_side: Input should be a multiple of 32"),
        (
            "student.augment.crop_side",
            64,
            "student.augment.crop_side: found 64 with model.grid_reference null",
        ),
        (
            "input.tile",
            {"side": 64, "overlap": 32},
            "input.tile: found side 64 with model.grid_reference null",
        ),
        (
            "input.tile",
            {"side": 64, "overlap": 40},
            "input.tile: overlap (40) must be at most side (64) - 32",
        ),
        (
            "model.grid_reference",
            96,
            "teacher: grids: found [10, 8], expected multiples of 3 with grid_reference 96",
        ),
        ("student.lr", -1, "student.lr: Input should be greater than 0; found -1"),
        ("student.lr", "fast", "student.lr: Input should be a valid number"),
        (
            "student.masks",
            "best",
            "student.masks: Input should be 'refined', 'rough' or 'none'; found 'best'",
        ),
        ("demo.strong_share", 1.5, "demo.strong_share: Input should be less than or equal to 1; found 1.5"),
        ("teacher.milestones", [9999], "at most steps (12)"),
        ("teacher.milestones", [8, 6], "milestones must rise"),
        ("teacher.milestones", [], "milestones must be 1 or more"),
        ("teacher.holdout", 1.0, "teacher.holdout: Input should be less than 1; found 1.0"),
        ("refiner.milestones", [8], "must lie below steps (8)"),
        ("refiner.milestones", [6, 4], "refiner: milestones must rise"),
        ("refiner.gate_bins", 0, "refiner.gate_bins: Input should be greater than or equal to 1"),
        ("student.schedule", "step", "schedule: step needs at least one step number in decay_at"),
        ("student.decay_at", [12], "must lie between 0 and steps (12)"),
        ("teacher.checkpoint_every", 5, "must be a multiple of log_every (2)"),
        ("teacher.grids", [8], "one entry a level"),
        ("teacher.ranges", [[1, 24], [48, 60], [60, 99]], "no level takes sizes"),
        ("model.grids", [1, 2, 3], "model.grids: stands in teacher and student"),
        ("seed", 2**31, "seed: Input should be less than"),
        ("refiner.enlarge", 0.5, "refiner.enlarge: Input should be greater than or equal to 1"),
        ("refiner.augment.scale_min", 2.0, "scale_min (2) must not be above scale_max (1)"),
        ("model", 3, "model: Input should be"),
    ],
)
def test_bad_value(
    recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params], key: str, value: Any, expected: str
) -> None:
    put(recipe, key, value)
    with pytest.raises(TaskError) as caught:
        params_of(recipe)
    assert expected in str(caught.value)


@pytest.mark.parametrize("key", ["seed", "student.lr", "model.bgr", "refiner.net.crop_size", "teacher.grids"])
def test_missing_key_is_said_once(
    recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params], key: str
) -> None:
    *sections, last = key.split(".")
    at = recipe
    for section in sections:
        at = at[section]
    del at[last]
    with pytest.raises(TaskError) as caught:
        params_of(recipe)
    assert str(caught.value).count(f"- {key}: missing") == 1
    assert "1 fault\n" in str(caught.value)


def test_all_faults_are_listed(recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params]) -> None:
    put(recipe, "teacher.lrr", 1)
    put(recipe, "model.bgr", "blue")
    put(recipe, "refiner.enlarge", 0)
    with pytest.raises(TaskError) as caught:
        params_of(recipe)
    text = str(caught.value)
    assert "3 faults" in text
    assert all(key in text for key in ("teacher.lrr", "model.bgr", "refiner.enlarge"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [("a: [", "not valid YAML"), ("- 1", "expected sections"), ("", "expected sections")],
)
def test_not_a_recipe(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TaskError, match=expected):
        load_params(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no such file"):
        load_params(tmp_path / "params.yaml")


def test_exponents_without_a_point_are_numbers(
    recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params]
) -> None:
    put(recipe, "student.lr", "1e-3")  # YAML 1.1 reads 1e-3 as text
    assert params_of(recipe).student.lr == 1e-3


def test_frozen(recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params]) -> None:
    params = params_of(recipe)
    with pytest.raises(ValidationError, match="frozen"):
        params.seed = 1  # type: ignore[misc]


def test_tiles_must_be_of_the_crops_size(
    params_of: Callable[[dict[str, Any]], Params], recipe: dict[str, Any]
) -> None:
    recipe["model"]["grid_reference"] = 64
    for name in ("teacher", "refiner", "student"):
        recipe[name]["grids"] = [8, 6, 4]
        recipe[name]["augment"] = {**recipe[name]["augment"], "crop_side": 64}
    del recipe["refiner"]["grids"]
    recipe["input"]["tile"] = {"side": 64, "overlap": 32}
    assert params_of(recipe).input.tile is not None
    recipe["refiner"]["augment"] = {**recipe["refiner"]["augment"], "crop_side": None}
    recipe["student"]["augment"] = {**recipe["student"]["augment"], "crop_side": 32}
    with pytest.raises(TaskError) as raised:
        params_of(recipe)
    assert "refiner.augment.crop_side: found None with input.tile.side 64" in str(raised.value)
    assert "student.augment.crop_side: found 32 with input.tile.side 64" in str(raised.value)
    assert "teacher.augment" not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("frame_name", "frame", "points.frame_name: found 'frame'; a pattern with {frame}"),
        ("frame_name", "{frame:q}", "a pattern with {frame}"),
        ("frame_name", "{frame.__class__}", "a pattern with {frame}"),
        ("columns", {"z": "depth"}, "points.columns.z"),
        ("duplicate_radius", 0, "points.duplicate_radius"),
        ("scale", 0, "points.scale: Input should be greater than or equal to 0.000001; found 0"),
        ("scale", {"x": 2, "z": 1}, "points.scale.z: unknown key; known keys: x, y"),
    ],
)
def test_how_points_are_read_is_checked(
    recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params], key: str, value: Any, message: str
) -> None:
    recipe["points"][key] = value
    with pytest.raises(TaskError) as caught:
        params_of(recipe)
    assert message in str(caught.value)


@pytest.mark.parametrize("steps", [0.5, -3, None, "many"])
def test_steps_at_fault_are_one_fault(tmp_path: Path, steps: Any) -> None:
    recipe = tiny_recipe()
    recipe["teacher"] |= {"steps": steps, "milestones": [0.4, 0.8], "warmup_steps": 0.25}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(ParamsError) as raised:
        load_params(path)
    (fault,) = raised.value.faults
    assert fault.startswith("teacher.steps: ")


@pytest.mark.parametrize(
    ("steps", "milestones", "expected"),
    [
        (900, [0.167, 0.333], (150, 300)),
        (1000, [400, 800], (400, 800)),
        (1000, [0.4, 800], (400, 800)),
        (1000, [0.5, 1.0], (500, 1000)),
        (1000, [0.9999], (999,)),
        (3, [0.1, 0.2, 0.5], (1, 2)),  # of few steps two shares are one
        (1, [0.4, 0.8], (1,)),
    ],
)
def test_shares_of_steps(
    tmp_path: Path, steps: int, milestones: list[Any], expected: tuple[int, ...]
) -> None:
    recipe = tiny_recipe()
    recipe["teacher"] |= {"steps": steps, "milestones": milestones, "warmup_steps": 0.25}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(recipe))
    teacher = load_params(path).teacher
    assert teacher.milestones == expected and teacher.warmup_steps == round(steps / 4)
