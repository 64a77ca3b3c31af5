"""Two real processes train together (torchrun, Gloo): the same as one process, but for rounding."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tasks.common.config import Params, load_params
from tests.tasks.conftest import run_step, tiny_recipe

ROOT = Path(__file__).resolve().parents[2]


class Ended(NamedTuple):
    """A step's command."""

    returncode: int
    stderr: str


def parallel_recipe(processes: int, accumulate: int = 1) -> dict[str, Any]:
    """Few steps of SGD in full precision, which don't magnify rounding; batches of 5 don't divide by 2; images of many
    sizes; draws of all kinds."""
    recipe = tiny_recipe()
    for name in ("teacher", "refiner", "student"):
        recipe[name] |= {"steps": 4, "batch_size": 5, "precision": "fp32", "optimizer": "sgd", "lr": 0.01}
        recipe[name] |= {"clip_norm": 5.0, "ema": 0.5, "accumulate": accumulate}
        recipe[name]["augment"] |= {"scale_min": 0.5, "scale_max": 1.6, "crop": False, "flip": 0.5}
    for name in ("teacher", "student"):
        recipe[name] |= {"inner_points": 2, "mask_pairs": 40}
    recipe["teacher"]["milestones"] = [2, 4]
    recipe["refiner"]["milestones"] = [2]
    recipe["student"]["strong_share"] = 0.4
    recipe["runtime"]["processes"] = processes
    return recipe


def begin(stage: str, folder: Path, recipe: dict[str, Any]) -> subprocess.Popen[str]:
    """Starts a step's command in a folder, as a user does."""
    (folder / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, "-m", f"tasks.{stage}"],
        cwd=folder, env=environment | {"PYTHONPATH": str(ROOT)}, start_new_session=True, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def step(stage: str, folder: Path, recipe: dict[str, Any]) -> Ended:
    """Runs it to its end."""
    process = begin(stage, folder, recipe)
    _, said = process.communicate(timeout=280)
    return Ended(process.returncode, said)


def step_here(stage: str, folder: Path, recipe: dict[str, Any]) -> None:
    """Runs it in this process, where how it is started isn't what is tested: importing torch takes longer."""
    (folder / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_step(stage, load_params(Path("params.yaml")), Path("workspace"))


def copy_of(line: tuple[Path, Params], folder: Path) -> Path:
    """The line's workspace in a folder of its own."""
    shutil.copytree(line[0] / "workspace", folder / "workspace", ignore=shutil.ignore_patterns("runs"))
    return folder


@pytest.mark.parametrize(
    ("stage", "processes", "accumulate"),
    [
        ("train_teacher", 1, 3),
        pytest.param("train_student", 2, 2, marks=pytest.mark.slow),  # its loop is the teacher's
        pytest.param("train_refiner", 2, 1, marks=pytest.mark.slow),  # batch norm over both processes
        pytest.param("train_refiner", 2, 2, marks=pytest.mark.slow),
    ],
)
def test_processes_and_pieces_change_rounding_alone(
    line: tuple[Path, Params], tmp_path: Path, stage: str, processes: int, accumulate: int
) -> None:
    out = f"workspace/{stage.removeprefix('train_')}"
    found = []
    for name, recipe in (("one", parallel_recipe(1)), ("many", parallel_recipe(processes, accumulate))):
        # Batch norm takes the statistics of a piece.
        recipe["refiner"]["net"]["norm"] = "batch_norm" if accumulate == 1 else "group_norm"
        folder = copy_of(line, tmp_path / name)
        if recipe["runtime"]["processes"] == 1:
            step_here(stage, folder, recipe)
        else:
            ended = step(stage, folder, recipe)
            assert ended.returncode == 0, ended.stderr
        found.append((load_file(folder / out / "model.safetensors"), log_of(folder / out)))
    (weights, log), (others, other_log) = found
    assert weights.keys() == others.keys()
    for key, value in weights.items():
        worst = (value - others[key]).abs().max().item()
        assert torch.allclose(value, others[key], rtol=1e-3, atol=5e-5), f"{key} differs by {worst}"
    for row, other in zip(log, other_log, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=2e-6)


@pytest.mark.slow
def test_a_run_that_two_began_is_ended_by_one(
    line: tuple[Path, Params], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = []
    for name in ("whole", "killed"):
        recipe, folder = parallel_recipe(1), copy_of(line, tmp_path / name)
        for section in ("teacher", "refiner", "student"):
            recipe[section] |= {"log_every": 1, "checkpoint_every": 1}
        recipe["teacher"] |= {"steps": 10}
        if name == "killed":
            recipe["runtime"]["processes"] = 2
            shutil.rmtree(folder / "workspace" / "teacher")
            begun = begin("train_teacher", folder, recipe)
            states = folder / "workspace" / "runs" / "train_teacher" / "resume"
            while not list(states.glob("*/state_0000003.json")):
                assert begun.poll() is None
                time.sleep(0.02)
            os.killpg(begun.pid, signal.SIGKILL)
            begun.wait()
            assert not (folder / "workspace" / "teacher" / "model.safetensors").exists()
            recipe["runtime"]["processes"] = 1
        with caplog.at_level(logging.INFO):
            step_here("train_teacher", folder, recipe)
        assert ("resuming after step" in caplog.text) == (name == "killed")
        weights.append(load_file(folder / "workspace" / "teacher" / "model.safetensors"))
    # After ten steps a sum that rounds to the other side of 0 has shut some unit: not as near as after four.
    for key, value in weights[0].items():
        assert torch.allclose(value, weights[1][key], rtol=1e-2, atol=1e-3), key


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(row) for row in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_machines_are_one(line: tuple[Path, Params], tmp_path: Path) -> None:
    """By hand: torchrun on each, in a folder that both see, and without the step's own start."""
    found = []
    for name in ("one", "two"):
        recipe, folder = parallel_recipe(1), copy_of(line, tmp_path / name)
        if name == "one":
            step_here("train_teacher", folder, recipe)
        else:
            (folder / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            launcher = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nnodes",
                "2",
                "--nproc-per-node",
                "1",
            ]
            meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
            machines = [
                subprocess.Popen(
                    [*launcher, *meeting, "-m", "tasks.train_teacher"],
                    cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
                )
                for _ in range(2)
            ]  # fmt: skip
            said = [machine.communicate(timeout=280)[1] for machine in machines]
            assert [machine.returncode for machine in machines] == [0, 0], said
            run = json.loads((folder / "workspace" / "runs" / "train_teacher" / "run.json").read_text())
            assert run["processes"] == 2
        found.append(load_file(folder / "workspace" / "teacher" / "model.safetensors"))
    for key, value in found[0].items():
        assert torch.allclose(value, found[1][key], rtol=1e-3, atol=1e-5), key


@pytest.mark.slow
def test_an_error_in_one_process_is_told_once(line: tuple[Path, Params], tmp_path: Path) -> None:
    recipe = parallel_recipe(2)
    for name in ("teacher", "refiner", "student"):
        recipe[name]["clip_norm"] = None
    recipe["teacher"] |= {"lr": 10.0, "weight_decay": 1e9}  # the weights overflow
    ended = step("train_teacher", copy_of(line, tmp_path), recipe)
    assert ended.returncode == 1
    assert ended.stderr.count("the loss is not finite at step 2") == 1
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others(line: tuple[Path, Params], tmp_path: Path) -> None:
    folder = copy_of(line, tmp_path)
    recipe = parallel_recipe(2)
    (gone, *_) = sorted((folder / "workspace" / "demo" / "dataset" / "images").iterdir())
    gone.write_bytes(b"")
    ended = step("train_student", folder, recipe)
    assert ended.returncode == 1
    assert ended.stderr.count(gone.name) == 1 and "Traceback" not in ended.stderr
