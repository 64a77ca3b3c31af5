"""`points2model use --model-of`: what it shows, writes and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from models.checkpoint import FORMAT
from tasks.common.config import load_params
from tests.tasks.conftest import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint's model.json with another width of the heads, beside the demo's params.yaml; the current folder."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    params = load_params(ROOT / "params.yaml")
    config = params.detector(params.teacher).model_dump(mode="json") | {"head_channels": 48}
    meta = {"format": FORMAT, "kind": "solov2", "config": config, "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco/model.json").write_text(json.dumps(meta))
    monkeypatch.chdir(tmp_path)
    return Path("coco")


def test_the_network_is_shown_and_written(folder: Path) -> None:
    before = Path("params.yaml").read_text()
    command = ["use", "--model-of", str(folder)]
    shown = CliRunner().invoke(app, [*command, "--show"])
    assert "+ model.head_channels: 48" in shown.output and Path("params.yaml").read_text() == before
    done = CliRunner().invoke(app, [*command, "--yes"])
    assert done.exit_code == 0
    said = " ".join(done.output.split())
    assert (
        "params.yaml has the network of coco now; next: set start: checkpoint and checkpoint: coco in" in said
    )
    assert load_params("params.yaml").model["head_channels"] == 48


@pytest.mark.parametrize("arguments", [[], ["demo", "--model-of", "coco"]])
def test_one_of_recipe_and_checkpoint(folder: Path, arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["use", *arguments])
    assert done.exit_code == 1
    assert "name a recipe, or a checkpoint with --model-of, and not both" in " ".join(done.output.split())
