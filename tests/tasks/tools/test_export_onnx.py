"""`points2model export --onnx`: the file, what it says of itself, when it is refused, and its use without torch."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from points2model import Predictor, Prompter
from tasks.common.config import Params
from tests.tasks.conftest import ROOT, copy_of


@pytest.fixture(scope="module")
def project(line: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    return copy_of(line, folder, "dataset", "teacher", "refiner")


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return project


def export(*options: str, model: str = "workspace/teacher", out: str = "model.onnx") -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", "--onnx", model, "--out", out, *options])
    return result.exit_code, result.output


def test_a_verified_file_that_runs_without_torch(here: Path, tmp_path: Path) -> None:
    code, output = export()
    assert code == 0, output
    assert "verified on 7 images" in output
    facts = onnxruntime.InferenceSession("model.onnx").get_modelmeta().custom_metadata_map
    weights = (here / "workspace/teacher/model.safetensors").read_bytes()
    assert facts["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert (
        json.loads(facts["classes"])
        == json.loads((here / "workspace/teacher/model.json").read_text())["categories"]
    )
    assert json.loads(facts["min_score"]) == 0.3
    assert json.loads(facts["verification"])["least_iou"] > 0.9

    pixels = np.random.default_rng(1).integers(0, 255, (50, 70, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    code_of_example = (
        "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1])\n"
        "import onnx_instances as e, json, cv2\n"
        "session, classes, least = e.load('model.onnx'); image = cv2.imread(sys.argv[2])[:, :, ::-1]\n"
        "found = e.find(session, image, 0.0); none = e.find(session, image, 2.0)\n"
        "print(json.dumps([found['scores'].tolist(), none['masks'].shape, int(found['masks'].sum())]))\n"
    )
    command = [sys.executable, "-c", code_of_example, str(ROOT / "examples"), str(tmp_path / "photo.png")]
    scores, nothing, pixels_inside = json.loads(
        subprocess.run(command, check=True, capture_output=True).stdout
    )
    expected = Predictor.load("workspace/teacher", device="cpu")(pixels, min_score=0)
    np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
    assert nothing == [0, 50, 70] and abs(pixels_inside - int(expected.masks.sum())) <= 2 * len(scores)
    script = [sys.executable, str(ROOT / "examples/onnx_instances.py"), "model.onnx"]
    done = subprocess.run([*script, str(tmp_path / "photo.png"), str(tmp_path / "found.png")], check=True)
    assert done.returncode == 0 and cv2.imread(str(tmp_path / "found.png")).shape == (50, 70, 3)


def clicks(*options: str, out: str) -> tuple[int, str]:
    return export("--clicks", "--refiner", "workspace/refiner", *options, out=out)


def test_masks_at_clicks_without_torch(here: Path, tmp_path: Path) -> None:
    code, output = clicks(out="tool")
    assert code == 0, output
    assert "verified on 6 images with" in output
    facts = onnxruntime.InferenceSession("tool/clicks.onnx").get_modelmeta().custom_metadata_map
    refiner = (here / "workspace/refiner/model.safetensors").read_bytes()
    assert facts["refiner_sha256"] == hashlib.sha256(refiner).hexdigest() and facts["kind"] == "clicks"
    assert json.loads(facts["verification"])["clicks"] > 6 and "prompt" in facts

    pixels = np.random.default_rng(1).integers(0, 255, (50, 70, 3), np.uint8)
    photo = str(tmp_path / "photo.png")
    cv2.imwrite(photo, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    places = [(10.5, 20.25), (69.9, 49.9), (30.0, 30.0)]
    code_of_example = (
        "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1])\n"
        "import onnx_clicks as e, json, cv2\n"
        "tool = e.ClickTool('tool'); tool.set_image(cv2.imread(sys.argv[2])[:, :, ::-1])\n"
        "masks, scores = tool.draw([(*one, tool.classes[1]) for one in json.loads(sys.argv[3])])\n"
        "print(json.dumps([masks.sum((1, 2)).tolist(), scores.tolist(), tool.classes]))\n"
    )
    command = [sys.executable, "-c", code_of_example, str(ROOT / "examples"), photo, json.dumps(places)]
    areas, scores, classes = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    prompter = Prompter.load("workspace/teacher", refiner="workspace/refiner", device="cpu")
    prompter.set_image(pixels)
    for area, score, place in zip(areas, scores, places, strict=True):
        expected = prompter.predict([place], classes[1])
        assert abs(area - int(expected.masks.sum())) <= 3 and abs(score - float(expected.scores[0])) < 1e-4
    script = [sys.executable, str(ROOT / "examples/onnx_clicks.py"), "tool", photo, "30", "30"]
    subprocess.run([*script, classes[0], str(tmp_path / "mask.png")], check=True)
    assert cv2.imread(str(tmp_path / "mask.png")).shape == (50, 70, 3)
    wrong = subprocess.run([*script, "unicorn", "x.png"], check=False, capture_output=True, text=True)
    assert wrong.returncode == 1 and "unicorn: found no such class" in wrong.stderr


def test_files_that_draw_other_masks_are_not_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.export import clicks as module

    init = module.ClickMasks.__init__

    def other(self: Any, config: Any, prompt: Any, *rest: Any) -> None:
        init(self, config, prompt.model_copy(update={"mask_threshold": 0.3, "small_area": 0.0}), *rest)

    monkeypatch.setattr(module.ClickMasks, "__init__", other)
    code, output = clicks(out="other")
    assert code == 1 and "the files draw" in output and not (here / "other").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--raw"], "neither with --raw"),
        (["--opset", "17"], "found 17, expected 18 to 20"),
        (["--workspace", "elsewhere"], "--no-verify"),
        (["--out", "workspace"], "aren't from an export"),
    ],
)
def test_what_can_t_be_exported_for_clicks(here: Path, options: list[str], text: str) -> None:
    code, output = clicks(*options, out="never")
    assert code == 1 and text in " ".join(output.split())
    assert not (here / "never").exists()


def test_the_network_alone(here: Path) -> None:
    code, output = export("--raw", out="raw.onnx")
    assert code == 0, output
    assert "outputs within" in output
    facts = onnxruntime.InferenceSession("raw.onnx").get_modelmeta().custom_metadata_map
    assert facts["kind"] == "network" and json.loads(facts["verification"])["images"] == 6


def test_a_file_that_differs_from_torch_is_not_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of another mask threshold: all but its rules is right."""
    from models.export import graph

    right = graph.instance_graph

    def other(network: Any, rule: Any, inference: Any, *rest: Any) -> Any:
        return right(network, rule, inference.model_copy(update={"mask_threshold": 0.6}), *rest)

    monkeypatch.setattr(graph, "instance_graph", other)
    (here / "kept.onnx").write_text("an earlier file")
    code, output = export(out="kept.onnx")
    assert code == 1 and "expected an IoU above 0.999" in output and "IoU 0." in output
    assert (here / "kept.onnx").read_text() == "an earlier file"
    assert [path.name for path in here.iterdir() if "kept" in path.name] == ["kept.onnx"]


@pytest.mark.parametrize(
    ("options", "model", "text"),
    [
        (["--opset", "17"], "workspace/teacher", "found 17, expected 18 to 20"),
        (["--min-score", "1.5"], "workspace/teacher", "expected 0 to 1"),
        (["--workspace", "elsewhere"], "workspace/teacher", "--no-verify"),
        ([], "workspace/refiner", "refine"),
        ([], "v7", "v7"),
        (["--out", "workspace"], "workspace/teacher", "found a folder"),
    ],
)
def test_what_can_t_be_exported(here: Path, options: list[str], model: str, text: str) -> None:
    code, output = export(*options, model=model, out="never.onnx")
    assert code == 1 and text in output
    assert not (here / "never.onnx").exists()


def test_without_its_packages(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.tools.export_onnx.NEEDED", ("onnx", "not_installed_here"))
    code, output = export()
    assert code == 1 and "not_installed_here: not installed; pip install 'points2model[onnx]'" in output


def test_a_model_of_another_version(here: Path) -> None:
    shutil.copytree(here / "workspace/teacher", here / "workspace/newer")
    path = here / "workspace/newer/model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    code, output = export(model="workspace/newer")
    assert code == 1 and "found format 2, expected 1" in output
