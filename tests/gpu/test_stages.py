"""Stages on the device: training in each precision and layout, kill and resume, memory that runs out, a whole line."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tasks.common.config import Params, load_params
from tasks.common.errors import TaskError
from tasks.promotion.baseline import folder_hash
from tasks.training import loop
from tests.gpu.conftest import REHEARSAL
from tests.tasks.conftest import run_step, run_tiny, tiny_recipe

pytestmark = pytest.mark.gpu

WORKSPACE = Path("workspace")
STAGES = (
    "train_teacher", "train_refiner", "train_rounds", "pseudo_label", "train_student", "train_repeats", "evaluate",
    "compare", "report",
)  # fmt: skip
Project = Callable[..., Params]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny line's data sets."""
    folder = tmp_path_factory.mktemp("data")
    run_tiny(folder, ("make_demo", "ingest", "import_points"))
    return folder


@pytest.fixture
def project(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: torch.device) -> Project:
    """Goes to a copy of these data; returns the tiny line's params for the device, some keys of the teacher changed."""

    def make(name: str = "project", **teacher: Any) -> Params:
        folder = tmp_path / name
        shutil.copytree(data, folder)
        recipe = tiny_recipe()
        recipe["runtime"]["device"] = str(device)
        recipe["teacher"] |= teacher
        (folder / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        monkeypatch.chdir(folder)
        return load_params(folder / "params.yaml")

    return make


def losses() -> list[float]:
    lines = (WORKSPACE / "teacher" / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module")
def plain() -> list[float]:
    """Losses of the training in float32, once it ran."""
    return []


@pytest.mark.parametrize(
    ("switches", "bound"),
    [
        ({"precision": "fp32"}, 0.0),
        ({"precision": "bf16"}, 0.05),
        ({"precision": "fp16"}, 0.05),
        ({"precision": "fp32", "channels_last": True}, 0.01),
        ({"precision": "fp32", "fused": True}, 0.01),
        ({"precision": "fp32", "accumulate": 2}, 0.01),
        ({"precision": "fp32", "ema": 0.9}, 0.01),
        ({"precision": "bf16", "compile": True}, 0.05),
        ({"precision": "bf16", "channels_last": True, "fused": True, "compile": True}, 0.05),
    ],
    ids=str,
)
def test_training(
    project: Project, plain: list[float], device: torch.device, switches: dict[str, Any], bound: float,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    """Each switch alone leaves the losses where float32 has them, within a share."""
    if REHEARSAL and (switches["precision"] == "fp16" or switches.get("compile")):
        pytest.skip("fp16 is for GPUs; compilation takes a CPU minutes")
    params = project(**switches)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    run_step("train_teacher", params, WORKSPACE)
    if device.type == "cuda":
        record_property("peak_mb", round(torch.cuda.max_memory_allocated() / 2**20))
    found = losses()
    assert all(math.isfinite(loss) for loss in found) and found[-1] < found[0]
    if not plain:
        plain += found
    assert found == pytest.approx(plain, rel=bound)


def test_a_step_does_not_wait_for_the_device(
    project: Project, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    """Forward, loss, backward and update, once memory and kernels are there. Targets are made on another stream."""
    waits: list[str] = []

    def watched(part: Callable[..., Any]) -> Callable[..., Any]:
        calls = itertools.count()

        def run(*args: Any) -> Any:
            if next(calls) < 3 or device.type != "cuda":
                return part(*args)
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    return part(*args)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                waits.extend(str(one.message) for one in caught if "synchroniz" in str(one.message))

        return run

    for name in ("_backward", "_update"):
        monkeypatch.setattr(loop, name, watched(getattr(loop, name)))
    params = project(ema=0.9, precision="bf16")
    for stage in ("train_teacher", "train_refiner"):
        run_step(stage, params, WORKSPACE)
    assert waits == []


def test_equal_runs_are_equal_bit_for_bit(project: Project) -> None:
    """With two rounds the refiner's batches, which are made beside a step, hold masks by the weights that it leaves."""
    hashes = []
    for name in ("one", "two"):
        params = project(name)
        params = params.model_copy(update={"refiner": params.refiner.model_copy(update={"rounds": 2})})
        for stage in ("train_teacher", "train_refiner"):
            run_step(stage, params, WORKSPACE)
        hashes.append([folder_hash(WORKSPACE / model) for model in ("teacher", "refiner")])
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    "switches", [{}, {"ema": 0.9}, {"precision": "fp16"}, {"channels_last": True, "fused": True}], ids=str
)
def test_killed_and_resumed_is_bit_identical(
    project: Project, monkeypatch: pytest.MonkeyPatch, switches: dict[str, Any]
) -> None:
    if REHEARSAL and switches.get("precision") == "fp16":
        pytest.skip("fp16 is for GPUs")

    class Killed(BaseException):
        pass

    save = loop._save

    def until_the_ninth(job: Any, run: Any, done: int) -> None:
        save(job, run, done)
        if done == 9:
            raise Killed

    run_step("train_teacher", project("whole", **switches), WORKSPACE)
    expected = folder_hash(WORKSPACE / "teacher")
    params = project("killed", **switches)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_save", until_the_ninth)
        with pytest.raises(Killed):
            run_step("train_teacher", params, WORKSPACE)
    assert list(WORKSPACE.glob("runs/train_teacher/resume/*/state_0000008.pt"))
    torch.manual_seed(123)
    run_step("train_teacher", params, WORKSPACE)
    assert folder_hash(WORKSPACE / "teacher") == expected


def test_out_of_memory_names_the_settings_to_change(project: Project, device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("needs a GPU's allocator")
    params = project()
    held = torch.cuda.memory_allocated() + 8 * 2**20
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(held / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(TaskError, match=r"out of memory on cuda .* accumulate: 2"):
            run_step("train_teacher", params, WORKSPACE)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert not (WORKSPACE / "teacher").exists()


def test_a_whole_line(project: Project) -> None:
    """All stages, and pseudo masks made again bit for bit."""
    params = project()
    for stage in STAGES:
        run_step(stage, params, WORKSPACE)
    rows = json.loads((WORKSPACE / "pseudo" / "summary.json").read_text())
    assert rows["points"] > 0 and rows["failed"] == 0
    metrics = json.loads((WORKSPACE / "evaluation" / "metrics.json").read_text())
    assert 0 <= metrics["student"]["AP"] <= 100
    before = folder_hash(WORKSPACE / "pseudo")
    shutil.rmtree(WORKSPACE / "runs" / "pseudo_label")
    run_step("pseudo_label", params, WORKSPACE)
    assert folder_hash(WORKSPACE / "pseudo") == before
