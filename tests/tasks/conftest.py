"""A tiny recipe and a tiny line that was run once, for the tests of the steps."""

from __future__ import annotations

import copy
import importlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.common.config import Params, load_params

ROOT = Path(__file__).resolve().parents[2]
TRAINING_STEPS = (
    "make_demo", "ingest", "import_points", "train_teacher", "train_refiner", "train_rounds", "pseudo_label"
)  # fmt: skip


def tiny_recipe() -> dict[str, Any]:
    """The demo's params with 20 + 6 images of 64 px, a narrow network from random weights and a handful of steps."""
    recipe: dict[str, Any] = copy.deepcopy(yaml.safe_load((ROOT / "params.yaml").read_text()))
    recipe["demo"] |= {"train_images": 20, "val_images": 6, "strong_share": 0.3, "image_size": 64}
    recipe["demo"] |= {"size_min": 10, "size_max": 40, "objects_max": 4}
    recipe["input"] = {"short_side": 64, "max_side": 64, "enlarge": True, "tile": None}
    backbone = {"name": "resnet18", "width": 0.25, "norm": "group_norm", "frozen_stages": 0, "weights": None}
    recipe["model"]["backbone"] |= backbone
    recipe["model"] |= {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375]}
    recipe["model"] |= {"mask_stride": 2, "level_sources": [[2, 3], [3, 3], [4, 4]]}
    for name in ("teacher", "student"):
        recipe[name] |= {"grids": [12, 10, 8], "ranges": [[1, 24], [16, 48], [32, 200]]}
    recipe["model"] |= {"fpn_channels": 16, "head_channels": 16, "kernel_channels": 16, "mask_channels": 16}
    recipe["model"] |= {"norm_groups": 4, "head_convs": 1}
    for name, steps in (("teacher", 12), ("student", 12), ("refiner", 8)):
        recipe[name] |= {
            "steps": steps,
            "batch_size": 4,
            "warmup_steps": 2,
            "checkpoint_every": 4,
            "log_every": 2,
            "lr": 0.002 if name == "refiner" else 0.0015,
            "channels_last": False,
            "fused": False,
        }
        # Both precisions, since steps that run in one process may differ.
        recipe[name] |= {"precision": "fp32" if name == "refiner" else "bf16"}
    recipe["teacher"]["milestones"] = [6, 10]
    recipe["refiner"] |= {"milestones": [4, 6], "gate_min_objects": 3}
    recipe["refiner"]["net"]["backbone"]["width"] = 0.25
    recipe["refiner"]["net"] |= {"crop_size": 32, "aspp_channels": 16, "decoder_channels": [16, 16, 8, 8]}
    recipe["student"]["start"] = "scratch"  # five steps on from a promoted model would be no bad student
    recipe["pseudo"] |= {"part_images": 5, "batch_size": 4}
    recipe["evaluate"] |= {"part_images": 2, "batch_size": 2}
    recipe["promotion"]["ap_tolerance"] = 100.0  # a student of 12 steps may be worse than its teacher
    recipe["runtime"] |= {"device": "cpu", "workers": 0}
    return recipe


def blank_registry(folder: Path) -> None:
    """The registry of a fresh clone; ours may hold what was run here. And its folder without decisions."""
    (folder / "registry" / "start").mkdir(parents=True)
    (folder / "decisions").mkdir()
    (folder / "decisions" / "README.md").write_text("Git keeps no empty folder.\n", encoding="utf-8")
    for name in ("baseline", "start/scratch", "start/teacher", "start/promoted", "start/teacher_scratch"):
        (folder / "registry" / f"{name}.json").write_text('{"version": null}\n', encoding="utf-8")
    (folder / "registry" / "budget.json").write_text('{"measurements": []}\n', encoding="utf-8")
    shutil.copy(ROOT / "registry" / ".gitignore", folder / "registry")


@pytest.fixture
def recipe() -> dict[str, Any]:
    """The tiny recipe, to change."""
    return tiny_recipe()


@pytest.fixture
def params_of(tmp_path: Path) -> Callable[[dict[str, Any]], Params]:
    """Reads a recipe as a user's file is read."""

    def read(recipe: dict[str, Any]) -> Params:
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return load_params(path)

    return read


def run_step(name: str, params: Params, workspace: Path) -> None:
    """Runs one step as its command does, in this process."""
    importlib.import_module(f"tasks.{name}").run(params, workspace)


def run_tiny(folder: Path, steps: Sequence[str]) -> Params:
    """Runs the first steps of the tiny line in a new folder; returns its params."""
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_recipe()), encoding="utf-8")
    blank_registry(folder)
    params = load_params(folder / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for step in steps:
            run_step(step, params, Path("workspace"))
    return params


def copy_of(line: tuple[Path, Params], folder: Path, *outputs: str) -> Path:
    """A project in `folder` with some outputs of a line, and its images."""
    shutil.copy(line[0] / "params.yaml", folder)
    # Images are found relative to the folder in which they were ingested.
    for name in (*outputs, "demo", "data"):
        source = line[0] / "workspace" / name
        if name in outputs or source.exists():
            shutil.copytree(source, folder / "workspace" / name)
    return folder
