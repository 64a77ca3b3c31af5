from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tasks.common.config import Params, ParamsError, load_params
from tasks.common.errors import TaskError
from tests.tasks.conftest import ROOT, tiny_recipe

QUERIES = {"name": "mask2former", "weights": None, "revision": None, "config": {}}
SAM = {"weights": "weights/sam", "revision": None, "precision": "fp32", "click_batch": 64, "negatives": 0}


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
    given = numbers(recipe)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(replaced(recipe, value)), encoding="utf-8")
    with pytest.raises(TaskError) as error:
        load_params(path)
    listed = re.findall(r"- ([a-z_0-9.]+): ", str(error.value))
    assert len(given) > 150
    assert sorted(given.keys() - set(listed)) == []


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
        (
            "student.start",
            "x",
            "student.start: found 'x'; expected scratch, teacher, promoted or checkpoint",
        ),
        ("teacher.start", "teacher", "teacher.start: found 'teacher'; expected scratch or checkpoint"),
        (
            "teacher.start",
            "checkpoint",
            "teacher.checkpoint: found null with start: checkpoint; expected the folder of a checkpoint",
        ),
        (
            "student.checkpoint",
            "models/coco",
            "student.checkpoint: found models/coco with start: scratch; expected null, or start: checkpoint",
        ),
        ("teacher.lrr", 0.1, "teacher.lrr: found an unknown key; expected lr, the nearest key"),
        ("teachr", {}, "teachr: found an unknown key; expected teacher, the nearest key"),
        ("model.bgrr", True, "model.bgrr: found an unknown key; expected bgr, the nearest key"),
        (
            "model.backbone.nam",
            "x",
            "model.backbone.nam: found an unknown key; expected name, the nearest key",
        ),
        (
            "refiner.net.crop_sise",
            64,
            "refiner.net.crop_sise: found an unknown key; expected crop_size, the nearest key",
        ),
        (
            "student.augment.flipp",
            1,
            "student.augment.flipp: found an unknown key; expected flip, the nearest key",
        ),
        (
            "input.qqqq",
            1,
            "input.qqqq: found an unknown key; expected one of enlarge, max_side, short_side, tile",
        ),
        ("student.ema", 1.0, "student.ema: found 1; expected a number above 0 and below 1, or null"),
        ("student.unusable", "drop", "student.unusable: found 'drop'; expected ignore or background"),
        (
            "student.augment.crop_side",
            48,
            "crop_side: found 48; expected a whole number from 32 to 32768, a multiple of 32, or null",
        ),
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
            "input.tile.overlap: found 40; expected at most side (64) - 32",
        ),
        (
            "model.grid_reference",
            96,
            "teacher.grids: found [10, 8]; expected multiples of 3 with grid_reference 96",
        ),
        ("student.lr", -1, "student.lr: found -1; expected a number above 0 and at most 10"),
        ("student.lr", "fast", "student.lr: found 'fast'; expected a number above 0 and at most 10"),
        ("student.lr", 1e9, "student.lr: found 1e+09; expected a number above 0 and at most 10"),
        ("student.lr", True, "student.lr: found true; expected a number above 0 and at most 10"),
        ("student.fused", 3, "student.fused: found 3; expected true or false"),
        ("report.title", "x" * 5000, "report.title: found 5000 characters; expected at most 4096"),
        (
            "model.backbone.width",
            [0.5, 99],
            "backbone.width.1: found 99; expected a number above 0 and at most 16",
        ),
        ("evaluate.size_bounds", [1], "evaluate.size_bounds.1: found no value; expected a number above 0"),
        ("teacher", None, "teacher: found null; expected a section of keys and values"),
        (
            "ingest.images",
            "s3://a@b/c",
            "ingest.images: found an S3 address without a valid bucket name; expected",
        ),
        (
            "operate.schedule",
            "0 2 * *",
            "operate.schedule: found '0 2 * *'; expected a cron line: minute, hour,",
        ),
        ("operate.schedule", "61 2 * * *", "operate.schedule: found '61 2 * * *'; expected a cron line"),
        ("operate.schedule", "@dayly", "operate.schedule: found '@dayly'; expected a cron line"),
        (
            "student.masks",
            "best",
            "student.masks: found 'best'; expected refined, rough or none",
        ),
        ("demo.strong_share", 1.5, "demo.strong_share: found 1.5; expected a number from 0 to 1"),
        (
            "teacher.milestones",
            [9999],
            "teacher.milestones: found [9999]; expected one or more step numbers, at most steps (12)",
        ),
        ("teacher.milestones", [8, 6], "teacher.milestones: found [8, 6]; expected step numbers that rise"),
        ("teacher.milestones", [], "teacher.milestones: found []; expected one or more step numbers"),
        ("teacher.holdout", 1.0, "teacher.holdout: found 1; expected a number from 0 and below 1"),
        ("refiner.milestones", [8], "refiner.milestones: found [8]; expected step numbers below steps (8)"),
        ("refiner.milestones", [6, 4], "refiner.milestones: found [6, 4]; expected step numbers that rise"),
        ("refiner.gate_bins", 0, "refiner.gate_bins: found 0; expected a whole number from 1 to 1000"),
        (
            "student.schedule",
            "step",
            "decay_at: found []; expected one or more step numbers with schedule: step",
        ),
        (
            "student.decay_at",
            [12],
            "student.decay_at: found [12]; expected step numbers above 0 and below steps (12)",
        ),
        (
            "teacher.checkpoint_every",
            5,
            "teacher.checkpoint_every: found 5; expected a multiple of log_every (2)",
        ),
        (
            "teacher.grids",
            [8],
            "teacher.grids: found 1 with 3 level_sources and 3 ranges; expected one entry per level",
        ),
        (
            "teacher.ranges",
            [[1, 24], [48, 60], [60, 99]],
            "teacher.ranges: found none for sizes from 24 to 48; expected no gap",
        ),
        ("model.grids", [1, 2, 3], "model.grids: found here; expected in teacher and student"),
        ("seed", 2**31, "seed: found 2147483648; expected a whole number from 0 to 2147483647"),
        ("refiner.enlarge", 0.5, "refiner.enlarge: found 0.5; expected a number from 1 to 1000"),
        (
            "refiner.augment.scale_min",
            2.0,
            "refiner.augment.scale_min: found 2; expected at most scale_max (1)",
        ),
        ("model", 3, "model: found 3; expected a section of keys and values"),
        ("proposers.use", [], "proposers.use: found []; expected one or more of teacher, sam"),
        ("proposers.use", ["tescher"], "proposers.use: found 'tescher'; expected teacher, the nearest name"),
        ("proposers.use", ["qqqq"], "proposers.use: found 'qqqq'; expected names among teacher, sam"),
        ("proposers.use", ["teacher"] * 2, "proposers.use: found teacher 2 times; expected each name once"),
        (
            "proposers.use",
            "teacher",
            "proposers.use: found 'teacher'; expected a list, each entry teacher or sam",
        ),
        (
            "proposers.use",
            ["sam"],
            "proposers.sam: found null; expected keys weights, revision, precision, click_batch, negatives, since",
        ),
        (
            "proposers.sam",
            SAM | {"weight": "a"},
            "proposers.sam.weight: found an unknown key; expected weights, the",
        ),
        ("proposers.sam", SAM | {"precision": "fp16"}, "sam.precision: found 'fp16'; expected fp32 or bf16"),
        (
            "proposers.sam",
            SAM | {"click_batch": 0},
            "sam.click_batch: found 0; expected a whole number from 1",
        ),
        (
            "proposers.sam",
            SAM | {"negatives": -1},
            "sam.negatives: found -1; expected a whole number from 0 to 100",
        ),
        (
            "proposers.sam",
            SAM | {"weights": "https://a:b@host/x"},
            "sam.weights: found an address of scheme https; expected a folder, or the id of a hub model: OWNER/NAME",
        ),
        (
            "student.network",
            QUERIES | {"name": "eomd"},
            "student.network.name: found 'eomd'; expected mask2former or",
        ),
        (
            "student.network",
            QUERIES | {"weight": "a"},
            "student.network.weight: found an unknown key; expected weights",
        ),
        (
            "student.network",
            "mask2former",
            "student.network: found 'mask2former'; expected keys name, weights, revision",
        ),
        (
            "student.network",
            QUERIES | {"weights": "s3://a/b"},
            "network.weights: found an address of scheme s3; expected",
        ),
        (
            "student.network",
            QUERIES | {"revision": "v1"},
            "network.revision: found v1 with weights: null; expected null",
        ),
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
def test_a_missing_key_is_one_fault(
    recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params], key: str
) -> None:
    *sections, last = key.split(".")
    at = recipe
    for section in sections:
        at = at[section]
    del at[last]
    with pytest.raises(TaskError) as caught:
        params_of(recipe)
    assert str(caught.value).count(f"- {key}: found no value; expected ") == 1
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


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("", "no program; expected a command line, or null"),
        ("'' -m {module} --params {params}", "no program; expected a command line, or null"),
        ("torchrun 'x", '"torchrun \'x" (no closing quotation); expected a command line'),
        (
            "torchrun -m {modul} --params {params}",
            "an unknown placeholder {modul}; expected one of {module}, {params}, {processes}, {python}",
        ),
        (
            "torchrun --params {params}",
            "a command without {module}; expected one that runs `-m {module} --params {params}`",
        ),
        ("torchrun -m {module} '${params}'", "a command without {params}; expected one that runs"),
        (3, "3; expected a text, or null"),
        ("srun {python} -m {module} --params={params} {} {1,2} $$ $1 ${HOSTS} {processes}", None),
        (None, None),
    ],
)
def test_launchers(
    recipe: dict[str, Any],
    params_of: Callable[[dict[str, Any]], Params],
    value: str | int | None,
    fault: str | None,
) -> None:
    put(recipe, "runtime.launcher", value)
    if fault is None:
        assert params_of(recipe).runtime.launcher == value
    else:
        with pytest.raises(TaskError) as raised:
            params_of(recipe)
        assert f"- runtime.launcher: found {fault}" in str(raised.value)


@pytest.mark.parametrize("schedule", ["0 2 * * *", "*/15 8-18 * * MON-FRI", "@daily", None])
def test_schedules(
    recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params], schedule: str | None
) -> None:
    put(recipe, "operate.schedule", schedule)
    assert params_of(recipe).operate.schedule == schedule


def test_proposers(recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params]) -> None:
    """Settings of one that isn't in use are checked, and have no effect."""
    teacher = params_of(recipe).proposers.settings
    recipe["proposers"]["sam"] = SAM
    assert params_of(recipe).proposers.used_sam is None
    assert params_of(recipe).proposers.settings == teacher
    for use in (["sam"], ["teacher", "sam"]):
        recipe["proposers"]["use"] = use
        found = params_of(recipe).proposers
        assert found.used_sam is not None and found.settings == {"use": tuple(use), "sam": SAM}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("student.start", "teacher", "student.start: found teacher with network eomt; expected another one"),
        (
            "student.classes_from",
            "click",
            "student.classes_from: found click with network eomt; expected mask: it",
        ),
        ("student.compile", True, "student.compile: found true with network eomt; expected false"),
        ("rounds", 2, "rounds: found 2 with student.network eomt; expected 1: a student that draws masks"),
    ],
)
def test_what_another_student_can_not_do(
    recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params], key: str, value: Any, expected: str
) -> None:
    put(recipe, key, value)
    params_of(recipe)  # nothing wrong with a SOLOv2
    recipe["student"]["network"] = QUERIES | {"name": "eomt"}
    with pytest.raises(TaskError) as caught:
        params_of(recipe)
    assert expected in str(caught.value)


def test_a_file_without_other_networks(
    recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params]
) -> None:
    """`network` may be left out, as in files of before."""
    null = params_of(recipe)
    del recipe["student"]["network"]
    assert params_of(recipe) == null and null.student.network is None


def test_reading_params_imports_neither_torch_nor_transformers(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe["proposers"] = {"use": ["sam"], "sam": SAM}
    recipe["student"]["network"] = QUERIES
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(recipe))
    code = (
        "import sys; from tasks.common.config import load_params; load_params(sys.argv[1]); "
        "print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "params.yaml")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"


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
    assert "refiner.augment.crop_side: found null; expected input.tile.side, 64" in str(raised.value)
    assert "student.augment.crop_side: found 32; expected input.tile.side, 64" in str(raised.value)
    assert "teacher.augment" not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("frame_name", "frame", "points.frame_name: found 'frame'; expected a pattern with {frame}"),
        ("frame_name", "{frame:q}", "a pattern with {frame}"),
        ("frame_name", "{frame.__class__}", "a pattern with {frame}"),
        (
            "columns",
            {"z": "depth"},
            "points.columns.z: found 'z'; expected x, y, image, category, id, annotator, labelled_at, object or inside",
        ),
        (
            "duplicate_radius",
            0,
            "duplicate_radius: found 0; expected a number above 0 and at most 1000000000, or null",
        ),
        ("scale", 0, "points.scale: found 0; expected a number from 1e-06 to 1000000, or keys x, y"),
        ("scale", {"x": 2, "z": 1}, "points.scale.z: found an unknown key; expected one of x, y"),
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
    assert fault.key == "teacher.steps"
    assert fault.expected == "a whole number from 1 to 1000000000"


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


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"ray": "ray://head:10001"}, r"runtime\.ray.*found 'ray://head:10001'; expected HOST:PORT"),
        ({"ray": "head"}, r"runtime\.ray.*found 'head'; expected HOST:PORT"),
        ({"ray": "auto", "device": "cuda"}, r"device: found 'cuda' with ray; expected auto or cpu"),
    ],
)
def test_the_address_of_a_ray_cluster(
    recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params], keys: dict[str, str], fault: str
) -> None:
    for address in ("auto", "head:6379", "10.0.0.1:6379", "[::1]:6379"):
        recipe["runtime"]["ray"] = address
        assert params_of(recipe).runtime.ray == address
    recipe["runtime"] |= keys
    with pytest.raises(ParamsError, match=f"(?s){fault}"):
        params_of(recipe)
