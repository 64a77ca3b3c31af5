"""A pipeline that costs nothing, with our own comparison and registry: real DVC and Git.

A student is as good as `student.lr` says: its AP is a thousand times that.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.promotion.registry import Registry
from tests.flows.conftest import _environment
from tests.tasks.conftest import blank_registry, tiny_recipe

DVC_YAML = """\
artifacts:
  student: {path: workspace/student, type: model}
stages:
  train_student:
    cmd: python step.py train_student
    deps: [step.py, "registry/start/${student.start}.json", points.csv]
    params: [seed, student]
    outs: [workspace/student]
  evaluate:
    cmd: python step.py evaluate
    deps: [step.py, workspace/student]
    outs: [workspace/evaluation]
  compare:
    cmd: python step.py compare
    deps: [step.py, registry/baseline.json, workspace/student, workspace/evaluation]
    params: [promotion]
    outs: [workspace/comparison]
  report:
    cmd: python step.py report
    deps: [step.py, workspace/comparison]
    outs: [workspace/report.html]
"""

STEP = """\
import json, sys
from pathlib import Path
from tasks.promotion.baseline import *
from tasks.promotion.rule import *
from tasks.common.config import load_params
params, workspace, registry = load_params(), Path("workspace"), Path("registry")
with open("ran.txt", "a") as ran:
    ran.write(sys.argv[1] + "\\n")
def ap(folder):
    return float((folder / "ap.txt").read_text())
def write(name, text):
    path = workspace / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
if sys.argv[1] == "train_student":
    start = read_start(registry).version if params.student.start == "promoted" else None
    write("student/ap.txt", str(round(1000 * params.student.lr, 3)))
    write("student/from.txt", str(start))
elif sys.argv[1] == "evaluate":
    write("evaluation/metrics.json", json.dumps({"student": {"AP": ap(workspace / "student")}}))
elif sys.argv[1] == "compare":
    baseline, model = read_baseline(registry), folder_hash(workspace / "student")
    new, old, config = ap(workspace / "student"), None, params.promotion
    if baseline.version:
        old = ap(checked_model(registry, baseline.version, baseline.model))
    overall = change(old, new, config.ap_tolerance)
    rows = [ClassChange(category_id=1, name="disc", objects=4, **overall.model_dump())]
    verdict, reasons = "first", ["Nothing was promoted before."]
    if baseline.model == model:
        verdict, reasons = "same", ["The same."]
    elif baseline.version:
        verdict, reasons = judge(overall, rows, baseline.version, config)
    found = Comparison(verdict=verdict, reasons=reasons, baseline=baseline, model=model, overall=overall,
                       classes=rows, only_baseline=[], only_candidate=[], images=4, draws=0,
                       confidence=config.confidence, ap_tolerance=config.ap_tolerance,
                       class_tolerance=config.class_tolerance)
    write("comparison/comparison.json", found.model_dump_json())
else:
    write("report.html", "<html>")
"""
STAGES = ["train_student", "evaluate", "compare", "report"]


class Rounds:
    """The project, the current folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = Registry(root / "registry")

    def set(self, ap: float, **sections: Any) -> None:
        """Writes params.yaml: the AP of the student that will be trained, and what else is to differ."""
        recipe = tiny_recipe()
        recipe["promotion"]["ap_tolerance"] = 0.5
        recipe["student"]["lr"] = ap / 1000
        for name, values in sections.items():
            recipe[name] |= values
        (self.root / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def run(self, reason: str = "a test", **arguments: Any) -> dict[str, str]:
        """The flow: the state of each stage."""
        from flows.run.pipeline import annotation_to_model

        return {run["name"]: run["state"] for run in annotation_to_model(reason=reason, **arguments)}

    def train(self, ap: float, **sections: Any) -> None:
        """The stages' own work by itself, in this process: no flow, no DVC, no decision."""
        self.set(ap, **sections)
        for stage in STAGES:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", ["step.py", stage])
                patch.chdir(self.root)
                runpy.run_path(str(self.root / "step.py"), run_name="__main__")

    def ran(self) -> list[str]:
        """The stages whose command ran since the last call."""
        path = self.root / "ran.txt"
        names = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return names

    def call(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.root, env=_environment(self.root), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dvc(self, *arguments: str) -> str:
        return self.call(sys.executable, "-m", "dvc", *arguments)

    def git(self, *arguments: str) -> str:
        return self.call("git", *arguments)

    def decisions(self) -> dict[str, str]:
        return {entry.version: entry.decision for entry in self.registry.entries()}

    @property
    def promoted(self) -> str | None:
        return self.registry.promoted().version

    def files(self) -> dict[str, bytes]:
        """Of the registry, whatever lies in it."""
        folder = self.registry.root
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def start_project(root: Path, ap: float) -> Rounds:
    """A project in Git and DVC of which nothing has run yet."""
    from dvc.repo import Repo

    root.mkdir()
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=root, check=True)
    for key, value in (("name", "Ada"), ("email", "ada@example.org")):
        subprocess.run(["git", "config", f"user.{key}", value], cwd=root, check=True)
    Repo.init(str(root)).close()
    blank_registry(root)
    for name, text in {
        "dvc.yaml": DVC_YAML, "step.py": STEP, "points.csv": "x,y\n",
        ".gitignore": "/workspace\n/.prefect\n/ran.txt\n__pycache__\n",
    }.items():  # fmt: skip
        (root / name).write_text(text)
    rounds = Rounds(root)
    rounds.set(ap)
    rounds.git("add", "-A")
    rounds.git("commit", "-qm", "start")
    return rounds
