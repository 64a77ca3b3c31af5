"""`points2model split`, and what it writes read by ingest and import_points."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from data.tables import POINTS, Split, read_parquet
from flows.cli.main import app
from tasks import import_points, ingest
from tasks.common.config import Params, load_params
from tasks.make_demo import run as make_demo
from tests.tasks.conftest import ROOT

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    """The folder of a small drawn data set, 14 of whose images have masks in kept_aside.json, and its params."""
    folder = tmp_path_factory.mktemp("drawn")
    params = load_params(ROOT / "params.yaml")
    look = {
        "train_images": 20,
        "val_images": 6,
        "strong_share": 0.3,
        "image_size": 64,
        "size_max": 40.0,
        "objects_max": 3,
    }
    params = params.model_copy(update={"demo": params.demo.model_copy(update=look)})
    make_demo(params, folder)
    return folder / "demo/dataset", params


def test_the_line_reads_what_it_writes(
    drawn: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, params = drawn
    shutil.copytree(folder, tmp_path / "drawn")
    monkeypatch.chdir(tmp_path)
    arguments = [
        "drawn/annotations/kept_aside.json",
        "--out",
        "mine/5",
        "--strong",
        "5",
        "--clicks",
        "random",
    ]
    arguments += ["--val", "drawn/annotations/val.json"]
    result = RUNNER.invoke(app, ["split", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    counts = json.loads(result.stdout)["counts"]
    assert (counts["strong_images"], counts["weak_images"], counts["val_images"]) == (5, 9, 6)
    params = params.model_copy(
        update={
            "ingest": params.ingest.model_copy(update={"images": "drawn/images", "annotations": "mine/5"}),
            "points": params.points.model_copy(update={"files": "mine/5/points"}),
        }
    )
    ingest.run(params, Path("workspace"))
    import_points.run(params, Path("workspace"))
    kept = Split.open(Path("workspace/dataset/kept_aside"))
    points = read_parquet(Path("workspace/points/points.parquet"), POINTS)
    assert len(points) == len(kept.instances) == counts["clicks"]


def test_what_could_not_be_done_is_said(drawn: tuple[Path, Params], tmp_path: Path) -> None:
    path = drawn[0] / "annotations/kept_aside.json"
    result = RUNNER.invoke(app, ["split", str(path), "--out", str(tmp_path / "out"), "--strong", "1"])
    assert result.exit_code == 0
    assert "too few strong images for every class; without one: " in " ".join(result.output.split())
    assert "1 strong images" in " ".join(result.output.split())


def test_without_weak_images_there_is_nothing_to_measure(drawn: tuple[Path, Params], tmp_path: Path) -> None:
    path = drawn[0] / "annotations/kept_aside.json"
    result = RUNNER.invoke(app, ["split", str(path), "--out", str(tmp_path / "out"), "--strong", "1.0"])
    assert "--masks" in result.output and "--kept-aside" not in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.json", "--strong", "0.1"], "none.json: file: found no such file"),
        (["none.json", "--strong", "some"], "--strong: found 'some', expected a share"),
        (["none.json", "--strong", "1.5"], "strong: found 1.5; expected a share above 0 and up to 1.0"),
    ],
)
def test_wrong_use(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, ["split", *arguments, "--out", "out"])
    assert result.exit_code == 1
    assert said in " ".join(result.output.split())
    assert not Path("out").exists()


def test_the_command_it_ends_with_makes_a_project(
    drawn: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose pseudo masks are measured, while nothing is trained on the hidden masks."""
    monkeypatch.setattr("tasks.planning.probe.STEPS", 1)
    shutil.copytree(drawn[0], tmp_path / "drawn")
    monkeypatch.chdir(tmp_path)
    source = "drawn/annotations/kept_aside.json"
    made = RUNNER.invoke(
        app, ["split", source, "--out", "of mine/5", "--strong", "5", "--val", "drawn/annotations/val.json"]
    )
    assert made.exit_code == 0, made.output
    (line,) = [line for line in made.output.splitlines() if line.startswith("next: ")]
    command = shlex.split(line.removeprefix("next: ").strip("`"))
    assert command[:2] == ["points2model", "init"]
    given = {"PROJECT": "trial", "IMAGES": "drawn/images"}
    done = RUNNER.invoke(app, [given.get(word, word) for word in command[1:]] + ["--yes"])
    assert done.exit_code == 0, done.output
    hidden = len(json.loads(Path("of mine/5/kept_aside.json").read_text())["annotations"])
    assert f"; {hidden} masks kept aside" in done.output
    monkeypatch.chdir("trial")
    params = load_params()
    assert params.ingest.kept_aside == "kept_aside.json" and params.ingest.weak is None
    deps = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]["ingest"]["deps"]
    assert str(tmp_path / "of mine/5/kept_aside.json") in deps
    ingest.run(params, Path("workspace"))
    strong, weak, kept = (
        {image["file_name"] for image in Split.open(Path("workspace/dataset", name)).images.to_pylist()}
        for name in ("strong", "weak", "kept_aside")
    )
    assert len(strong) == 5 and len(kept) == 9 and kept <= weak and not strong & weak
