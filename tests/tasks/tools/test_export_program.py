"""`points2model export --torch`: the network as a program that torch runs alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from flows.cli.main import app
from models.checkpoint import load_teacher
from tasks.common.config import Params
from tests.tasks.conftest import copy_of

RUN = """
import sys, json
for name in ("models", "points2model", "onnx", "onnxruntime"):
    sys.modules[name] = None
import numpy as np, torch
facts = {"facts.json": ""}
network = torch.export.load("model.pt2", extra_files=facts).module()
images = torch.from_numpy(np.load(sys.argv[1]))
with torch.inference_mode():
    np.savez(sys.argv[2], *(one.numpy() for one in network(images)))
print(facts["facts.json"])
"""


@pytest.fixture
def here(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy_of(line, tmp_path, "dataset", "teacher")
    change_input(tmp_path, tile={"side": 64, "overlap": 16})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change_input(project: Path, **changes: Any) -> None:
    """Has the teacher see images in another way."""
    path = project / "workspace/teacher/model.json"
    meta = json.loads(path.read_text())
    meta["input"] |= changes
    path.write_text(json.dumps(meta))


def export(*options: str, out: str = "model.pt2") -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", "--torch", "workspace/teacher", "--out", out, *options])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


def test_torch_alone_runs_the_verified_file(here: Path) -> None:
    code, output = export()
    assert code == 0 and float(output.rpartition("outputs within ")[2]) < 1e-5, output
    images = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    np.save("images.npy", images.numpy())
    ran = subprocess.run(
        [sys.executable, "-c", RUN, "images.npy", "found.npz"], check=True, capture_output=True, text=True
    )
    facts = json.loads(ran.stdout)
    network = load_teacher(here / "workspace/teacher", torch.device("cpu"))
    with torch.inference_mode():
        expected = network(images).tensors
    found = np.load("found.npz")
    assert len(json.loads(facts["outputs"])) == len(expected) == len(found.files)
    for name, own in zip(found.files, expected, strict=True):
        np.testing.assert_allclose(found[name], own.numpy(), rtol=1e-4, atol=1e-4)


def test_a_program_that_differs_is_not_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.export import plain

    right = plain.FromPixels.forward

    def other(self: plain.FromPixels, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(right(self, images.clamp(max=100)))

    monkeypatch.setattr(plain.FromPixels, "forward", other)
    Path("model.pt2").write_text("an earlier file")
    code, output = export()
    assert code == 1 and "differs by" in output
    assert Path("model.pt2").read_text() == "an earlier file"


def test_images_that_are_too_small_for_a_program(here: Path) -> None:
    change_input(here, tile=None, short_side=64, max_side=64, enlarge=True)
    code, output = export()
    assert code == 1 and "64 px at the network's input" in output
    assert not Path("model.pt2").exists()


@pytest.mark.parametrize(
    ("options", "out", "text"),
    [
        ([], "model.bin", "such as model.pt2"),
        (["--raw"], "never.pt2", "goes with none of"),
        (["--opset", "18"], "never.pt2", "goes with none of"),
        (["--format", "coco"], "never.pt2", "expected one of --format"),
        (["--onnx", "promoted"], "never.pt2", "expected one of --format"),
        (["--workspace", "elsewhere"], "never.pt2", "--no-verify"),
    ],
)
def test_what_can_t_be_exported(here: Path, options: list[str], out: str, text: str) -> None:
    code, output = export(*options, out=out)
    assert code == 1 and text in output
    assert not Path(out).exists()
