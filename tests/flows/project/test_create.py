"""The folder of a project: its pipeline is the clone's, and nothing is left where making it fails."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.project import create
from flows.project.create import dvc_yaml, new_project, stage_all
from flows.project.sources import mask_files
from tasks.common import installed_tool
from tasks.common.errors import TaskError
from tests.tasks.conftest import ROOT


def test_the_pipeline_is_the_clones_without_the_demo() -> None:
    clone: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    project = yaml.safe_load(dvc_yaml())
    del clone["stages"]["make_demo"]
    clone["stages"]["code"]["deps"] = [installed_tool.FILE]
    for name, stage in clone["stages"].items():
        stage["cmd"] = f"python -P -m tasks.{name}"
    assert project == clone


def test_ingest_depends_on_files_that_share_a_folder_with_the_project(tmp_path: Path) -> None:
    """The folder that masks, validation masks and project are in can't be a dependency: the results are in it."""
    names = ["train.json", "val masks", "odd ${name}: #1"]
    for name in names:
        (tmp_path / name).write_text("{}")
    root = tmp_path / "project"
    files = mask_files(root, [str(tmp_path / name) for name in names])
    with new_project(root, files):
        values = {"ingest": {"images": "../photos", "annotations": ".."}, "points": {"files": "points"}}
        (root / "params.yaml").write_text(yaml.safe_dump({**values, "student": {"start": "scratch"}}))
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        deps = {dep.fs_path for dep in repo.stage.load_one(str(root / "dvc.yaml"), "ingest").deps}
    assert deps == {
        str(root / "params.yaml"),
        str(root / "workspace/code/ingest.json"),
        str(tmp_path / "photos"),
    } | {str(tmp_path / name) for name in names}


@pytest.mark.parametrize("inside_git", [False, True])
def test_dvc_and_git_take_it(tmp_path: Path, inside_git: bool) -> None:
    if inside_git:
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    root = tmp_path / "a" / "project"
    with new_project(root):
        pass
    stage_all(root)
    if inside_git:  # nothing is staged there
        outer = subprocess.run(
            ["git", "diff", "--cached", "--name-only"], cwd=tmp_path, capture_output=True, check=True
        )
        assert outer.stdout == b""
    assert yaml.safe_load((root / installed_tool.FILE).read_text()) == installed_tool.installed()
    done = subprocess.run(
        ["git", "status", "--short", "--untracked-files=all", "."],
        cwd=root, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert all(line.startswith("A  ") for line in done.stdout.splitlines())
    names = {line[3:] for line in done.stdout.splitlines()}
    assert {"dvc.yaml", ".gitignore", "registry/baseline.json", ".dvc/config", "points2model.json"} <= names


@pytest.mark.parametrize("there", ["nothing", "parent", "empty folder"])
def test_nothing_is_left_if_the_data_have_faults(tmp_path: Path, there: str) -> None:
    root = tmp_path / "parent" / "project"
    made = {"nothing": tmp_path, "parent": root.parent, "empty folder": root}[there]
    made.mkdir(parents=True, exist_ok=True)
    with pytest.raises(TaskError, match="bad data"), new_project(root):
        raise TaskError("bad data")
    assert made.is_dir() and not any(made.iterdir())


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_folder_with_files_is_refused_and_stays(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "project"
    if kind == "folder":
        root.mkdir()
        (root / "thesis.tex").write_text("ten years")
    else:
        root.write_text("ten years")
    with pytest.raises(TaskError, match="points2model plan"), new_project(root):
        pass
    assert (root / "thesis.tex" if kind == "folder" else root).read_text() == "ten years"


def test_nothing_is_left_after_a_signal(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), new_project(tmp_path / "project"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert not any(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def project_of(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    with new_project(root, ["/data/masks", "/data/odd ${name}.json"]):
        pass
    return root


def older(root: Path) -> str:
    """Makes dvc.yaml that of an older version, without the stage train_rounds; returns this version's text."""
    path = root / "dvc.yaml"
    new = path.read_text()
    rest = new.partition("\n")[2]
    begin, end = rest.index("  train_rounds:\n"), rest.index("  pseudo_label:\n")
    rest = rest[:begin] + rest[end:]
    path.write_text(f"{create.MARK}{create._digest(rest)}\n{rest}")
    return new


def test_an_upgrade_writes_the_pipeline_of_this_version(tmp_path: Path) -> None:
    root = project_of(tmp_path)
    assert create.upgrade(root) is None
    new = older(root)
    for name in ("start/scratch", "budget"):
        (root / f"registry/{name}.json").unlink()
    assert create.upgrade(root) == (
        "dvc.yaml: written anew for this version, with the stages train_rounds; commit registry/budget.json, "
        "registry/start/scratch.json with it: DVC refuses a clone that lacks them"
    )
    assert (root / "dvc.yaml").read_text() == new  # with the same files with masks
    assert (root / "registry/start/scratch.json").is_file()
    assert create.upgrade(root) is None


def test_an_edited_pipeline_stays(tmp_path: Path) -> None:
    root = project_of(tmp_path)
    older(root)
    edited = (root / "dvc.yaml").read_text().replace("desc: Train", "desc: Really train")
    (root / "dvc.yaml").write_text(edited)
    found = create.upgrade(root)
    assert found is not None and "was edited, and stays" in found and "lacks the stages train_rounds" in found
    assert (root / "dvc.yaml").read_text() == edited


def test_a_clone_s_pipeline_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    assert create.upgrade(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["dvc.yaml"]


def test_a_broken_pipeline_is_named(tmp_path: Path) -> None:
    root = project_of(tmp_path)
    (root / "dvc.yaml").write_text("stages: [")
    with pytest.raises(TaskError, match=r"dvc.yaml: can't be read .*git checkout"):
        create.upgrade(root)
