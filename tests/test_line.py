"""The whole line as a user runs it: the repo's own dvc.yaml, the tiny recipe, real DVC and Prefect, 20 images.

The tests share one project and go through its life in order; each can also be run alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from base64 import b64decode
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.dvc.remote_setup import set_up
from flows.dvc.send import send_all
from tests.flows.whole import bring_up_to_date, damage
from tests.tasks.conftest import ROOT, blank_registry, tiny_recipe

pytestmark = pytest.mark.slow  # two minutes until the first line is through

STAGES = [
    "code", "make_demo", "ingest", "import_points", "train_teacher", "train_refiner", "train_rounds", "pseudo_label",
    "train_student", "train_repeats", "evaluate", "compare", "report",
]  # fmt: skip
AFTER_STUDENT = ["train_rounds", "train_student", "train_repeats", "evaluate", "compare", "report"]


class Project:
    """A clone of this working tree with the tiny recipe."""

    patience = 280
    """seconds for a command"""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for name in ("data", "models", "tasks", "flows", ".dvc"):
            ignore = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
            shutil.copy(ROOT / name, folder / name)
        blank_registry(folder)
        self.recipe: dict[str, Any] = tiny_recipe()
        self.save()
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)

    def save(self) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.recipe), encoding="utf-8")

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs `python -m COMMAND...` in the project."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        environment |= {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.folder)}
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=self.patience, check=False,
        )  # fmt: skip

    def flow(self) -> dict[str, str]:
        """`points2model run`: the state of each stage."""
        done = self.call("flows.cli.main", "run", "--json")
        assert done.returncode == 0, done.stderr
        return {stage["name"]: stage["state"] for stage in json.loads(done.stdout)["stages"]}

    def repro(self) -> list[str]:
        """`dvc repro`: the stages that it ran, or took from the cache of runs."""
        done = self.call("dvc", "repro")
        assert done.returncode == 0, done.stdout + done.stderr
        return [stage for stage in STAGES if f"Running stage '{stage}'" in done.stdout]

    def hashes(self) -> dict[str, str]:
        """Of all files of the workspace that DVC keeps."""
        root = self.folder / "workspace"
        files = [
            path for path in root.rglob("*") if path.is_file() and "runs" not in path.relative_to(root).parts
        ]
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def project(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    (project.folder / ".prefect").mkdir()
    shutil.copy(prefect_database, project.folder / ".prefect/prefect.db")
    return project


@pytest.fixture(scope="module")
def first_flow(project: Project) -> dict[str, str]:
    """The state of each stage after the project's first flow."""
    return project.flow()


def test_the_flow_makes_everything(project: Project, first_flow: dict[str, str]) -> None:
    assert first_flow == dict.fromkeys(STAGES, "Completed")
    metrics = json.loads((project.folder / "workspace/evaluation/metrics.json").read_text())
    assert metrics.keys() == {"student", "teacher", "pseudo"}
    assert metrics["pseudo"]["points"] == metrics["pseudo"]["masks"] + sum(
        row["status"] in ("empty", "failed") for row in _pseudo(project.folder / "workspace/pseudo")
    )
    page = (project.folder / "workspace/report.html").read_text()
    assert "<html" in page and 'src="http' not in page


def test_the_run_is_seen_in_prefects_ui(project: Project, first_flow: dict[str, str]) -> None:
    """In the database that a server would read which is started on this project's .prefect later."""
    with closing(sqlite3.connect(project.folder / ".prefect/prefect.db")) as database:
        found = database.execute("SELECT key, data FROM artifact WHERE type <> 'progress'").fetchall()
        ((name,),) = database.execute("SELECT name FROM flow_run").fetchall()
    artifacts = {key: json.loads(data) for key, data in found}
    assert name.startswith("by hand: report, ")
    assert set(artifacts) >= {"run-summary", "ap-against-promoted", "report", "gallery"}
    assert all(f"| {stage} |".replace("_", "\\_") in artifacts["run-summary"] for stage in first_flow)
    assert "Points: 43 on 14 images, 0 rejected" in artifacts["run-summary"]
    report = hashlib.md5((project.folder / "workspace/report.html").read_bytes(), usedforsecurity=False)
    assert f"/reports/{report.hexdigest()}.html" in artifacts["report"]
    rows = json.loads(artifacts["ap-against-promoted"])
    assert [row["class"] for row in rows] == ["all", "apple", "banana", "pear", "strawberry"]
    kind, _, code = artifacts["gallery"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    panels = b64decode(code).decode().count('class="panel"')
    assert panels == 4 * 4  # 2 weak and 2 val images


def _pseudo(folder: Path) -> list[dict[str, Any]]:
    from tasks.train_student import read_pseudo

    rows: list[dict[str, Any]] = read_pseudo(folder).to_pylist()
    return rows


@pytest.mark.usefixtures("first_flow")
def test_dvc_has_nothing_to_do_after_the_flow(project: Project) -> None:
    assert project.repro() == []
    assert "up to date" in project.call("dvc", "status").stdout


HARMLESS = [
    ("tasks/training/loop.py", "sums[name] = sums.get", "# a comment\n                sums[name] = sums.get"),
    ("tasks/common/disk.py", "free some there", "make room there"),
    ("models/solov2/losses.py", "V-Net (Milletari", "V-Net of 2016 (Milletari"),
    ("data/points/formats/labelme.py", "IMPORTER = ", "NEW = 1\nIMPORTER = "),
]
LOSS = ("models/solov2/losses.py", "1 - 2 * overlap", "1 - 3 * overlap")


@pytest.mark.usefixtures("first_flow")
def test_only_code_that_decides_a_result_makes_it_stale(project: Project) -> None:
    def edit(file: str, old: str, new: str) -> None:
        path = project.folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    for one in HARMLESS:
        edit(*one)
    assert "code" in project.call("dvc", "status").stdout
    assert project.repro() == ["code"]
    edit(*LOSS)
    assert project.call("dvc", "repro", "code").returncode == 0
    stale = project.call("dvc", "status").stdout
    trainings = ["train_teacher", "train_rounds", "train_student", "train_repeats"]
    assert [stage for stage in STAGES if f"{stage}:" in stale] == trainings
    for file, old, new in (*HARMLESS, LOSS):
        edit(file, new, old)
    assert project.repro() == []  # all from the cache of runs


@pytest.mark.usefixtures("first_flow")
def test_a_changed_student_runs_the_student_and_what_follows(project: Project) -> None:
    """Once by `dvc repro`, once by the flow; changed back, nothing is trained."""
    before = project.hashes()
    project.recipe["student"]["lr"] = 0.001
    project.save()
    assert project.repro() == AFTER_STUDENT
    # The flow promoted the first student, which `dvc repro` didn't compare this one with.
    assert project.flow() == dict.fromkeys(STAGES, "Cached") | dict.fromkeys(
        ("compare", "report"), "Completed"
    )
    assert project.flow() == dict.fromkeys(STAGES, "Cached")
    project.recipe["student"]["lr"] = 0.002
    project.save()
    states = project.flow()
    assert [stage for stage in STAGES if states[stage] == "Completed"] == AFTER_STUDENT
    assert project.repro() == []
    project.recipe = tiny_recipe()
    project.save()
    assert project.call("dvc", "repro").returncode == 0
    # Compared with what is promoted now; all else is as it was.
    assert _without_comparison(project.hashes()) == _without_comparison(before)
    project.flow()
    assert project.flow() == dict.fromkeys(STAGES, "Cached")


def _without_comparison(hashes: dict[str, str]) -> dict[str, str]:
    return {name: one for name, one in hashes.items() if not name.startswith(("comparison/", "report.html"))}


@pytest.mark.parametrize("way", ["flow", "dvc"])
def test_a_lost_workspace_comes_back_from_the_cache(project: Project, way: str) -> None:
    project.repro()
    before = project.hashes()
    shutil.rmtree(project.folder / "workspace")
    if way == "flow":
        project.flow()
    else:
        assert project.repro() == []
    assert project.hashes() == before


@pytest.mark.timeout(900)
def test_a_damaged_object_of_any_stage_is_never_used(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a remote that stage alone runs again, to the same bytes; with one it is fetched."""
    project.flow()
    before, lock = project.hashes(), (project.folder / "dvc.lock").read_bytes()
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(project.folder))
    objects = {name: _own_objects(project.folder, name) for name in STAGES}
    for name in STAGES:
        for path in objects[name]:
            damage(path)
        shutil.rmtree(project.folder / "workspace")
        said, done = bring_up_to_date(project.folder, "report", pull=False)
        assert [line for line in said if "in DVC's cache is damaged" in line], name
        assert done == [name]
        if name == "report":  # has the times of the runs, which were lost
            before["report.html"] = project.hashes()["report.html"]
            lock = (project.folder / "dvc.lock").read_bytes()
        assert project.hashes() == before and (project.folder / "dvc.lock").read_bytes() == lock
    objects["report"] = _own_objects(project.folder, "report")
    set_up(project.folder, "store", {"url": "../store"}, share=True, replace=False, seconds=60)
    send_all(project.folder, print, pauses=())
    for path in {path for paths in objects.values() for path in paths}:
        damage(path)
    shutil.rmtree(project.folder / "workspace")
    assert bring_up_to_date(project.folder, "report", pull=True)[1] == []
    assert project.hashes() == before


def _own_objects(folder: Path, name: str) -> list[Path]:
    """Of each output of a stage an object that no other stage has: a file, and of every second folder its list."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]

    def stored(digest: str) -> Path:
        return folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]

    def parts(stage: str) -> list[list[str]]:
        found = []
        for out in stages[stage]["outs"]:
            rows = json.loads(stored(out["md5"]).read_text()) if out["md5"].endswith(".dir") else []
            found.append([out["md5"], *(row["md5"] for row in rows)])
        return found

    others = {one for stage in stages if stage != name for part in parts(stage) for one in part}
    own = [[one for one in part if one not in others] for part in parts(name)]
    return [
        stored(one) for one in sorted({part[-1 if n % 2 == 0 else 0] for n, part in enumerate(own) if part})
    ]


def test_two_projects_give_the_same_hashes(project: Project, tmp_path: Path) -> None:
    project.repro()
    other = Project(tmp_path)
    assert other.call("dvc", "repro").returncode == 0
    for one in (project, other):
        lock = yaml.safe_load((one.folder / "dvc.lock").read_text())["stages"]
        outs = {name: lock[name]["outs"] for name in STAGES if name not in ("compare", "report")}
        if one is project:
            expected = outs
    assert outs == expected


def test_a_misspelt_param_ends_with_its_message(project: Project) -> None:
    project.recipe["student"]["lrr"] = 1
    project.save()
    done = project.call("flows.cli.main", "run", "--json")
    project.recipe = tiny_recipe()
    project.save()
    assert done.returncode == 1
    assert "student.lrr: found an unknown key; expected lr, the nearest key" in done.stderr
    assert "Traceback" not in done.stderr
