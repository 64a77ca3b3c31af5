"""Switching params.yaml to a recipe: what is the user's own stays, comments too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tasks.common.config import load_params
from tasks.common.errors import TaskError
from tasks.tools.recipes import changes, find_recipe, load_recipe, switch, whole
from tests.tasks.conftest import ROOT

NAMES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's params with data, title, device and inbox of one's own; the current folder."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    text = whole(ROOT / "recipes/demo.yaml")
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
    mine, recipe = values(project / "params.yaml"), yaml.safe_load(whole(ROOT / f"recipes/{name}.yaml"))
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
    for comment in ("# Where things run", "# How it is operated", "# When a new student"):
        assert found.text.count(comment) == 1


@pytest.mark.parametrize("name", NAMES)
def test_all_of_it_is_the_recipe_itself(project: Path, name: str) -> None:
    text = whole(ROOT / f"recipes/{name}.yaml")
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
        ("zzz", "There are base, bdd100k"),
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
        (
            'title: "nuclei: June"',
            'title: "nuclei:\n    June"',
            "can't be copied; write each value on one line",
        ),
    ],
)
def test_what_cant_be_kept_is_reported_and_nothing_written(
    project: Path, old: str, new: str, message: str
) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace(old, new))
    before = path.read_text()
    code, said = use("nuclei", "--yes")
    assert code == 1 and message in said
    assert path.read_text() == before
    assert use("nuclei", "--yes", "--all")[0] == 0
    assert path.read_text() == whole(ROOT / "recipes/nuclei.yaml")


def use(*arguments: str) -> tuple[int, str]:
    from flows.cli.main import app

    done = CliRunner().invoke(app, ["use", *arguments])
    return done.exit_code, done.output


def test_the_command_shows_then_writes(project: Path) -> None:
    path = project / "params.yaml"
    before = path.read_text()
    code, said = use("nuclei", "--show")
    assert code == 0 and "- student.ema: null\n+ student.ema: 0.998\n" in said
    assert "- ingest" not in said and "- points" not in said
    assert (
        "kept from params.yaml (--all takes the recipe's):\n"
        "  ingest.images: mine/images (nuclei: datasets/nuclei/images)\n"
        "  ingest.annotations: workspace/demo/dataset/annotations (nuclei: datasets/nuclei/10p)\n"
        "  points.files: mine/points (nuclei: datasets/nuclei/10p/points)\n"
    ) in said
    assert path.read_text() == before
    code, said = use("nuclei")
    assert code == 1 and "give --yes" in said and path.read_text() == before
    code, said = use("nuclei", "--yes")
    assert code == 0 and "params.yaml is nuclei now" in said
    assert load_params(path).student.ema == 0.998 and load_params(path).ingest.images == "mine/images"
    code, said = use("nuclei")
    assert code == 0 and "has the values of nuclei" in said
    code, said = use("demo", "--json", "--yes")
    shown = json.loads(said)
    assert code == 0 and shown["written"] and "+ student.ema: null" in shown["changes"]
    assert shown["kept"] == [
        "ingest.images: mine/images (demo: workspace/demo/dataset/images)",
        "points.files: mine/points (demo: workspace/demo/points)",
        "report.title: 'nuclei: June' (demo: points2model demo)",
        "runtime.device: cpu (demo: auto)",
        "operate.inbox.source: s3://mine/inbox (demo: null)",
    ]
    assert path.read_text() == before
    code, said = use("nuklei", "--json")
    assert code == 1 and "nuclei" in said


def test_nothing_is_kept_with_all_of_it(project: Path) -> None:
    assert switch(find_recipe("nuclei"), Path("params.yaml"), everything=True).kept == []


def test_an_address_that_is_kept_is_not_shown(project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("  notify: null", "  notify: https://chat.example/secret"))
    said = use("nuclei", "--show")[1]
    assert "operate.notify: " in said and "secret" not in said


def test_a_file_without_extends_says_so(project: Path) -> None:
    (project / "short.yaml").write_text("teacher:\n  lr: 0.007\n")
    before = (project / "params.yaml").read_bytes()
    code, said = use("short.yaml", "--yes")
    assert code == 1 and (project / "params.yaml").read_bytes() == before
    assert "short.yaml: found no `extends` and no seed, threads, demo, " in said
    assert "begin the file with `extends: base`" in said
    # Without the user's own sections a file is whole enough.
    text = (project / "params.yaml").read_text()
    (project / "mine.yaml").write_text(text[: text.index("ingest:")] + text[text.index("input:") :])
    assert switch(Path("mine.yaml"), Path("params.yaml"), everything=False).kept == []


def test_a_file_of_ones_own(project: Path) -> None:
    text = "extends: demo\nteacher:\n  lr: 0.007\n"
    (project / "short.yaml").write_text(text)
    assert use("short.yaml", "--yes")[0] == 0
    assert load_params(project / "params.yaml").teacher.lr == 0.007


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "extends: b\nseed: 1\n", "b": "extends: a\nseed: 2\n"}, "extends: a -> b -> a, a circle"),
        ({"a": "extends: a\n"}, "extends: a -> a, a circle"),
        ({"a": "extends: gone\n"}, "gone.yaml: no such recipe"),
        ({"a": "extends: base\nstudent: {lrr: 1}\nteachr: {}\n"},
         "a.yaml: student.lrr: unknown key; did you mean 'lr'?\n  - recipes/a.yaml: teachr: unknown key; did you mean "
         "'teacher'?"),
        ({"a": "extends: base\nteacher: {milestones: [0.5, 1.5]}\n"},
         "a.yaml: 1 fault\n  - teacher.milestones: found 1.5; expected a step number, or a share of steps from 0.0 "
         "to 1.0"),
        ({"a": "extends: base\nteacher: {warmup_steps: -0.1}\n"}, "warmup_steps: found -0.1"),
    ],
)  # fmt: skip
def test_bad_recipes(project: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (project / f"recipes/{name}.yaml").write_text(text)
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(TaskError) as caught:
        load_recipe(Path("recipes/a.yaml"))
    assert message in str(caught.value)
    assert use("a", "--yes")[0] == 1 and (project / "params.yaml").read_bytes() == before


def test_a_params_file_must_be_whole(project: Path) -> None:
    (project / "params.yaml").write_text("extends: demo\n")
    with pytest.raises(TaskError, match="found outside of a recipe, but DVC must see every value"):
        load_params()


def test_comments_are_those_of_the_recipe_and_of_what_it_extends(project: Path) -> None:
    (project / "recipes/top.yaml").write_text(
        "# mine\nextends: demo\n\nseed: 7  # lucky\nreport:\n  score_threshold: 0.5  # few\n"
        "student:\n  lr: 0.1  # high\n"
    )
    text = whole(Path("recipes/top.yaml"))
    assert text.startswith("# mine\nseed: 7  # lucky\n")
    assert "\n  score_threshold: 0.5  # few\n" in text
    assert "\n\n# Where things run; no step depends on it.\nruntime:\n" in text
    assert "\n  lr: 0.1  # high\n" in text and "norm: group_norm  # batch norm learns little" in text
