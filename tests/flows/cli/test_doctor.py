"""`points2model doctor`, and what a run does with it, as a user calls them."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from flows.cli.doctor import before_run
from flows.cli.main import app
from tests.tasks.conftest import ROOT, tiny_recipe

Recipe = dict[str, Any]


def write_split(folder: Path, name: str, first: int, count: int, masks: bool) -> None:
    """A COCO file of `count` noisy 48 x 48 images with a square each, and the images."""
    rows = range(first, first + count)
    (folder / "images").mkdir(exist_ok=True)
    for i in rows:
        image = np.random.default_rng(i).integers(0, 255, (48, 48, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
    images = [{"id": i, "file_name": f"{i}.png", "width": 48, "height": 48} for i in rows]
    square = [[8, 8, 30, 8, 30, 30, 8, 30]]
    annotations = [{"id": i, "image_id": i, "category_id": 1, "segmentation": square} for i in rows if masks]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The params of a project in the current folder, with data of its own; write them with `save`."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("/workspace/\n/.prefect/\n")
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    (tmp_path / "decisions").mkdir()
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("")
    mine = tmp_path / "mine"
    (mine / "points").mkdir(parents=True)
    for name, first, count, masks in (("strong", 1, 3, True), ("val", 4, 2, True), ("weak", 6, 2, False)):
        write_split(mine, name, first, count, masks)
    clicks = {"images": [], "categories": [{"id": 1, "name": "cat"}]}
    rows = [{"id": i, "image_id": i, "category_id": 1, "point": [20, 20]} for i in (6, 7)]
    (mine / "points" / "clicks.json").write_text(json.dumps(clicks | {"annotations": rows}))
    recipe = copy.deepcopy(tiny_recipe())
    recipe["ingest"] |= {"images": "mine/images", "annotations": "mine", "kept_aside": None}
    recipe["ingest"]["on_reject"] = "stop"
    recipe["points"] |= {"files": "mine/points"}
    # Three images and a network of five steps: judgement has tests of its own.
    monkeypatch.setattr("tasks.doctor.judgement.check_judgement", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    return recipe


def call(recipe: Recipe, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of `points2model` in this process."""
    Path("params.yaml").write_text(yaml.safe_dump(recipe))
    done = CliRunner().invoke(app, list(arguments))
    assert isinstance(done.exception, SystemExit | None)
    return done.exit_code, done.stdout, done.stderr


def call_process(recipe: Recipe, *arguments: str) -> tuple[int, str, str]:
    """The same of a process of its own: as a user, and where Prefect is imported."""
    Path("params.yaml").write_text(yaml.safe_dump(recipe))
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_json_keeps_errors_and_warnings_apart(recipe: Recipe) -> None:
    code, output, _ = call(recipe, "doctor", "--json")
    content = json.loads(output)
    assert (code, content["errors"], content["warnings"]) == (0, [], [])
    assert any(note.startswith("disk: ") for note in content["notes"])
    recipe["evaluate"]["max_detections"] = 1
    square = json.loads(Path("mine/val.json").read_text())
    square["annotations"].append({**square["annotations"][0], "id": 99})
    Path("mine/val.json").write_text(json.dumps(square))
    code, output, _ = call(recipe, "doctor", "--json")
    (warning,) = json.loads(output)["warnings"]
    assert code == 0
    assert (warning["check"], warning["count"], warning["file"]) == ("max_detections", 1, "params.yaml")
    assert warning["next"].startswith("set evaluate.max_detections")
    square["annotations"][0]["category_id"] = 7
    Path("mine/val.json").write_text(json.dumps(square))
    code, output, _ = call(recipe, "doctor", "--json")
    (error,) = json.loads(output)["errors"]
    assert code == 1
    assert (error["check"], error["found"]) == ("images", "category_id 7")


def test_lines_without_a_terminal(recipe: Recipe) -> None:
    recipe["ingest"]["images"] = "mine/imagez"
    recipe["points"]["files"] = "mine/clicks"
    code, output, _ = call_process(recipe, "doctor", "--quick")
    assert code == 1
    lines = output.splitlines()
    assert [line.split(":")[1].strip() for line in lines[:2]] == ["ingest.images", "points.files"]
    assert all(line.startswith("error params.yaml: ") and " Next: " in line for line in lines[:2])
    assert lines[-1] == "failed 2 errors, 0 warnings"


def test_a_run_ends_where_data_have_errors_and_nothing_is_made(recipe: Recipe) -> None:
    Path("mine/images/1.png").write_bytes(b"")
    code, output, errors = call(recipe, "run", "--json")
    assert code == 1
    assert "1.png: image 1: found an empty file" in errors
    summary = json.loads(output)
    assert summary["state"] == "Failed"
    assert summary["doctor"]["errors"][0]["record"] == "image 1"
    assert not Path("workspace/dataset").exists() and not Path("dvc.lock").exists()


def test_a_run_tells_a_warning_once(recipe: Recipe) -> None:
    """The forced stage isn't above the target, so that nothing is trained: the checks are made before that."""
    content = json.loads(Path("mine/val.json").read_text())
    content["annotations"][0]["area"] = 10**6
    Path("mine/val.json").write_text(json.dumps(content))
    code, output, _ = call_process(recipe, "run", "--target", "train_teacher", "--force", "report")
    assert code == 1
    assert "warning ingest.val: annotations: found 1 whose area can't be" in output
    assert "--force report: no such stage at or above 'train_teacher'" in output
    console = Console(record=True, soft_wrap=True)
    assert before_run(Path(), "train_teacher", console).warnings
    output = console.export_text()
    assert "warning ingest.val" not in output
    assert re.search(r"doctor: \d+ warnings as before", output)
    # What trains nothing looks at the set-up alone.
    code, output, _ = call_process(recipe, "run", "--target", "ingest", "--force", "report")
    assert code == 1
    assert "doctor" not in output
    assert "--force report: no such stage at or above 'ingest'" in output
