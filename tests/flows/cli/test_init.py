"""`points2model init` and `plan` on drawn data, in a project whose own folders have our packages' names."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from pycocotools import mask
from typer.testing import CliRunner

from data.demo.synthetic import draw_dataset
from flows.cli.main import app
from tasks.common.installed_tool import FILE
from tests.tasks.conftest import ROOT, tiny_recipe

BAD_CLICK = {"id": 999_999, "image_id": 1, "category_id": 77, "point": [1, 1]}


@pytest.fixture(autouse=True, scope="module")
def _one_timed_step() -> Iterator[None]:
    """How many steps are timed changes the forecast's noise, and the time of each plan by half."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.planning.probe.STEPS", 1)
        yield


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/, strong.json, val.json and points/ of the tiny demo."""
    folder = tmp_path_factory.mktemp("drawn")
    recipe = tiny_recipe()["demo"]
    draw_dataset(folder, seed=0, **recipe)
    return folder


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def project(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A project of these data, and what init printed as JSON."""
    root = tmp_path_factory.mktemp("projects") / "shapes"
    labels = drawn / "dataset" / "annotations"
    found = command(
        "init", root, "--images", drawn / "dataset" / "images", "--masks", labels / "strong.json",
        "--val", labels / "val.json", "--points", drawn / "points", "--budget", "10m", "--upright", "--json",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    return root, json.loads(found.stdout)


def test_the_plan_has_a_reason_for_each_value(project: tuple[Path, dict[str, Any]]) -> None:
    root, printed = project
    params = yaml.safe_load((root / "params.yaml").read_text())
    assert params["ingest"]["strong"] == "strong.json" and params["ingest"]["weak"] is None
    assert params["input"]["short_side"] == 256
    assert params["teacher"]["augment"]["rotate90"] == 0.0
    for key, one in printed["values"].items():
        value = params
        for part in key.split("."):
            value = value[part]
        assert value == one["value"], key
    lines = (root / "recipes" / "plan.yaml").read_text().splitlines()
    values = [line for line in lines if ": " in line and not line.startswith("#")]
    assert sum("  # " in line for line in values) > 40
    # 0.9 of the budget, however fast the machine is, or the least steps and a warning
    short = any("--budget: 10 min 00 s isn't enough" in one for one in printed["warnings"])
    assert (sum(printed["seconds"].values()) > 541) == short


@pytest.mark.slow  # two plans
def test_a_second_plan_keeps_what_a_person_set(
    project: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(project[0], root, symlinks=True)
    monkeypatch.chdir(root)
    text = (root / "params.yaml").read_text()
    lines = [
        "  lr: 0.0007\n" if line.startswith("  lr: ") else line for line in text.splitlines(keepends=True)
    ]
    (root / "params.yaml").write_text("".join(lines))
    shown = command("plan", "--show")
    assert shown.exit_code == 0, shown.output
    assert "teacher.lr: 0.0007 is yours and stays; planned: 0.0005" in shown.output
    assert (root / "params.yaml").read_text() == "".join(lines)
    assert command("plan").exit_code == 0
    written = (root / "params.yaml").read_text()
    assert "# yours; planned: 0.0005" in written
    assert yaml.safe_load(written)["teacher"]["lr"] == 0.0007


def test_stages_run_beside_folders_of_our_names(project: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """By `dvc repro`, without points2model; and another installed version ends it."""
    root = tmp_path / "copy"
    shutil.copytree(project[0], root, symlinks=True)
    for name in ("data", "models", "tasks", "flows"):
        (root / name).mkdir()
        (root / name / "__init__.py").write_text("raise ImportError('the folder of a user')\n")

    def repro() -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": "/tmp",
        }
        return subprocess.run(
            [sys.executable, "-P", "-m", "dvc", "repro", "import_points"],
            cwd=root, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = repro()
    assert done.returncode == 0, done.stderr
    manifest = json.loads((root / "workspace/points/manifest.json").read_text())
    assert manifest["counts"]["points"] > 10
    (root / FILE).write_text('{"version": "0.0.1", "code": "0"}\n')
    done = repro()
    assert done.returncode != 0 and "found version 0.0.1" in done.stderr + done.stdout


def test_faults_of_the_data_are_listed_and_no_folder_is_left(drawn: Path, tmp_path: Path) -> None:
    labels = drawn / "dataset" / "annotations"
    document = json.loads((labels / "strong.json").read_text())
    document["images"][0]["file_name"] = "gone.png"
    document["images"] = document["images"][:1]
    document["annotations"] = [
        one for one in document["annotations"] if one["image_id"] == document["images"][0]["id"]
    ]
    (tmp_path / "strong.json").write_text(json.dumps(document))
    (tmp_path / "clicks.csv").write_text("image,x\na.png,1\n")
    shutil.copy(labels / "val.json", tmp_path)
    found = command(
        "init", tmp_path / "project", "--images", drawn / "dataset" / "images", "--masks", tmp_path / "strong.json",
        "--val", tmp_path / "val.json", "--points", tmp_path / "clicks.csv", "--yes",
    )  # fmt: skip
    assert found.exit_code == 1
    assert "gone.png" in found.output
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize(
    ("more", "fault"),
    [(["--val", "1.5"], "--val: found '1.5'"), (["--budget", "soon"], "--budget: found 'soon'"),
     (["--masks", "nowhere.json"], "nowhere.json")],
)  # fmt: skip
def test_options_that_cannot_be_used(drawn: Path, tmp_path: Path, more: list[str], fault: str) -> None:
    masks = drawn / "dataset" / "annotations" / "strong.json"
    found = command("init", tmp_path / "p", "--images", drawn, "--masks", masks, *more)
    assert found.exit_code == 1 and fault in found.output
    assert not (tmp_path / "p").exists()


def test_plan_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = command("plan")
    assert found.exit_code == 1 and "points2model init" in found.output


def test_clicks_may_come_later(drawn: Path, tmp_path: Path) -> None:
    masks = drawn / "dataset" / "annotations" / "strong.json"
    nothing = tmp_path / "nothing.json"  # as `split --strong 1.0` writes it
    nothing.write_text(json.dumps({**json.loads(masks.read_text()), "images": [], "annotations": []}))
    found = command(
        "init", tmp_path / "p", "--images", drawn / "dataset" / "images", "--masks", masks, "--yes",
        "--kept-aside", nothing,
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "put files of clicks into" in found.output
    assert "ingest.kept_aside: its files have no mask, so pseudo masks aren't measured" in found.output
    assert list((tmp_path / "p" / "points").iterdir()) == []
    assert yaml.safe_load((tmp_path / "p" / "params.yaml").read_text())["ingest"]["val"] == 0.2


def label_maps(drawn: Path, folder: Path) -> None:
    """Instance PNGs of the strong images, without classes."""
    document = json.loads((drawn / "dataset" / "annotations" / "strong.json").read_text())
    folder.mkdir()
    for image in document["images"]:
        labels = np.zeros((image["height"], image["width"]), np.uint16)
        for number, one in enumerate(
            (a for a in document["annotations"] if a["image_id"] == image["id"]), start=1
        ):
            labels[bits(one["segmentation"], image["height"], image["width"])] = number
        cv2.imwrite(str(folder / f"{Path(image['file_name']).stem}.png"), labels)


def bits(segmentation: Any, height: int, width: int) -> Any:
    if isinstance(segmentation, list):
        codes = mask.frPyObjects(segmentation, height, width)
        return mask.decode(mask.merge(codes)).astype(bool)
    counts = segmentation["counts"]
    code = mask.frPyObjects(segmentation, height, width) if isinstance(counts, list) else segmentation
    return mask.decode(code).astype(bool)


@pytest.mark.parametrize(("names", "expected"), [(["cell"], "cell"), (["cell", "dirt"], None)])
def test_masks_without_classes_get_the_clicks(
    drawn: Path, tmp_path: Path, names: list[str], expected: str | None
) -> None:
    label_maps(drawn, tmp_path / "masks")
    weak = json.loads((drawn / "dataset" / "annotations" / "weak.json").read_text())["images"]
    rows = [f"{one['file_name']},{names[n % len(names)]},{10 + n},20" for n, one in enumerate(weak)]
    (tmp_path / "clicks.csv").write_text("\n".join(["image,class,x,y", *rows]))
    found = command(
        "init", tmp_path / "p", "--images", drawn / "dataset" / "images", "--masks", tmp_path / "masks",
        "--points", tmp_path / "clicks.csv", "--json",
    )  # fmt: skip
    if expected is None:
        assert found.exit_code == 1 and "--mask-class" in found.stderr and "cell, dirt" in found.stderr
        assert not (tmp_path / "p").exists()
        return
    assert found.exit_code == 0, found.stderr
    assert json.loads(found.stdout)["values"]["ingest.mask_class"]["value"] == expected


def test_clicks_that_fit_no_image_are_an_error(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("image,class,x,y\nother.png,disc,1,2\n")
    masks = drawn / "dataset" / "annotations" / "strong.json"
    found = command(
        "init", tmp_path / "p", "--images", drawn / "dataset" / "images", "--masks", masks,
        "--points", tmp_path / "clicks.csv", "--yes",
    )  # fmt: skip
    assert found.exit_code == 1 and "other.png" in found.output and "no click can be used" in found.output
    assert not (tmp_path / "p").exists()
