"""Switching params.yaml to a recipe: what is the user's own stays, comments too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tasks.config import load_params
from tasks.errors import TaskError
from tasks.recipes import changes, find_recipe, switch
from tests.tasks.conftest import ROOT

NAMES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's params with data, title, device and inbox of one's own; the current folder."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    text = (ROOT / "recipes/demo.yaml").read_text(encoding="utf-8")
    for old, new in {
        "images: workspace/demo/dataset/images": "images: mine/images  # from the microscope",
        "files: workspace/demo/points": "files: mine/points",
        "title: points2model demo": 'title: "nuclei: June"',
        "device: auto": "device: cpu",
        "    source: null": "    source: s3://mine/inbox",
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_brings_its_values_and_leaves_ones_own(project: Path, name: str) -> None:
    mine, recipe = values(project / "params.yaml"), values(ROOT / f"recipes/{name}.yaml")
    found = switch(find_recipe(name), Path("params.yaml"), everything=False)
    after = yaml.safe_load(found.text)
    own = ("ingest", "points", "runtime", "operate")
    assert {key: after[key] for key in own} == {key: mine[key] for key in own}
    assert after["report"] == {**recipe["report"], "title": "nuclei: June"}
    rest = after.keys() - {*own, "report"}
    assert {key: after[key] for key in rest} == {key: recipe[key] for key in rest}
    assert "# from the microscope" in found.text  # of one's own
    head = (ROOT / f"recipes/{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert found.text.startswith(head)  # of the recipe
    for comment in ("# Where things run", "# How the line is operated", "# When a new student"):
        assert found.text.count(comment) == 1


@pytest.mark.parametrize("name", NAMES)
def test_all_of_it_is_the_recipe_itself(project: Path, name: str) -> None:
    text = (ROOT / f"recipes/{name}.yaml").read_text(encoding="utf-8")
    assert switch(find_recipe(name), Path("params.yaml"), everything=True).text == text
    Path("params.yaml").unlink()
    assert switch(find_recipe(name), Path("params.yaml"), everything=False).text == text


def test_there_and_back_is_as_before(project: Path) -> None:
    before = (project / "params.yaml").read_text(encoding="utf-8")
    for name in ("nuclei", "demo"):
        Path("params.yaml").write_text(switch(find_recipe(name), Path("params.yaml"), everything=False).text)
    assert (project / "params.yaml").read_text(encoding="utf-8") == before


def test_only_values_count_as_changes() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "gone": None, "same": "x", "kind": 1}
    after = {"a": {"b": 2, "c": [1, 2]}, "same": "x", "new": {"x": "two words"}, "kind": True}
    assert changes(before, after) == [
        "- a.b: 1", "+ a.b: 2", "+ new.x: two words", "- kind: 1", "+ kind: true", "- gone: null",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nuklei", "did you mean nuclei?"),
        ("coco", "did you mean coco_"),
        ("Demo", "did you mean demo?"),
        ("zzz", "There are bdd100k, coco_10p"),
        ("../params", "no such recipe"),
        ("mine.yaml", "no such recipe"),
    ],
)
def test_unknown_names(project: Path, name: str, message: str) -> None:
    with pytest.raises(TaskError) as caught:
        find_recipe(name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  workers: 0", "  workerz: 0", "runtime.workerz"),
        ("  device: cpu", "  device: [", "not YAML"),
        ('title: "nuclei: June"', 'title: "nuclei:\n    June"', "can't be carried over"),
    ],
)
def test_what_cant_be_kept_is_told_and_nothing_written(
    project: Path, old: str, new: str, message: str
) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace(old, new))
    before = path.read_text()
    code, said = use("nuclei", "--yes")
    assert code == 1 and message in said
    assert path.read_text() == before
    assert use("nuclei", "--yes", "--all")[0] == 0
    assert path.read_text() == (ROOT / "recipes/nuclei.yaml").read_text()


def use(*arguments: str) -> tuple[int, str]:
    from flows.cli import app

    done = CliRunner().invoke(app, ["use", *arguments])
    return done.exit_code, done.output


def test_the_command_shows_then_writes(project: Path) -> None:
    path = project / "params.yaml"
    before = path.read_text()
    code, said = use("nuclei", "--show")
    assert code == 0 and "- student.ema: null\n+ student.ema: 0.998\n" in said and "ingest" not in said
    assert path.read_text() == before
    code, said = use("nuclei")
    assert code == 1 and "give --yes" in said and path.read_text() == before
    code, said = use("nuclei", "--yes")
    assert code == 0 and "params.yaml is nuclei now" in said
    assert load_params(path).student.ema == 0.998 and load_params(path).ingest.images == "mine/images"
    code, said = use("nuclei")
    assert code == 0 and "has the values of nuclei" in said
    code, said = use("demo", "--json", "--yes")
    told = json.loads(said)
    assert code == 0 and told["written"] and "+ student.ema: null" in told["changes"]
    assert path.read_text() == before
    code, said = use("nuklei", "--json")
    assert code == 1 and "nuclei" in said


def test_a_file_of_ones_own(project: Path) -> None:
    text = (ROOT / "recipes/demo.yaml").read_text().replace("lr: 0.0015", "lr: 0.007")
    (project / "short.yaml").write_text(text)
    assert use("short.yaml", "--yes")[0] == 0
    assert load_params(project / "params.yaml").teacher.lr == 0.007
