"""`points2model experiments`: real git, DVC and experiments of a toy that writes metrics as `evaluate` does."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.console import Console
from flows.cli.experiments import FIGURES, Row, _show, read_rows
from flows.dvc.environment import environment

DVC_YAML = """\
stages:
  student:
    cmd: python student.py
    deps: [student.py]
    params: [student, seed]
    outs: [ws/metrics.json]
metrics: [ws/metrics.json]
"""
STUDENT = """\
import json, os, yaml
lr = yaml.safe_load(open("params.yaml"))["student"]["lr"]
assert lr != 9, "too much"
os.makedirs("ws", exist_ok=True)
scores = {"AP": 40 + lr, "AP50": 60, "AP75": 30}
json.dump({"student": scores, "teacher": {"AP": 30}, "pseudo": {"refined_iou": 70.04}}, open("ws/metrics.json", "w"))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in git whose only stage was run; the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "test")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "test@localhost")
    subprocess.run(["git", "init", "-q", "-b", "main"], check=True)
    dvc("init", "-q")
    files = {"dvc.yaml": DVC_YAML, "student.py": STUDENT, "params.yaml": "seed: 0\nstudent:\n  lr: 1\n"}
    for name, text in {**files, ".gitignore": "/ws/\n"}.items():
        (tmp_path / name).write_text(text)
    dvc("repro", "-q")
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "commit", "-qm", "First"], check=True)
    return tmp_path


def dvc(*arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, env=environment(Path.cwd()), capture_output=True, text=True, check=True)
    return done.stdout


def command(*arguments: str) -> tuple[int, str]:
    from typer.testing import CliRunner

    from flows.cli.main import app

    done = CliRunner().invoke(app, ["experiments", *arguments])
    return done.exit_code, done.output


@pytest.mark.slow
def test_a_sweep_is_shown_best_first_with_what_differs(project: Path) -> None:
    code, said = command()
    assert code == 0 and "dvc exp run -S student.lr" in said
    dvc("exp", "run", "-q", "-n", "more", "-S", "student.lr=3")
    dvc("exp", "run", "-q", "--queue", "-S", "student.lr=2,5")
    code, said = command("--json")
    assert code == 0
    rows = json.loads(said)["experiments"]
    assert [(row["name"], row["state"], row["AP"]) for row in rows[:3]] == [
        ("workspace", "", 43), ("main", "commit", 41), ("more", "done", 43),
    ]  # fmt: skip
    assert [(row["state"], row["AP"]) for row in rows[3:]] == [("queued", None)] * 2
    assert rows[2]["params"] == {"student.lr": 3}
    dvc("exp", "run", "-q", "--run-all", "-j", "1")
    code, said = command()
    lines = [line.split() for line in said.splitlines()]
    sweep = [line for line in lines if "done" in line]
    assert [line[2] for line in sweep] == ["45.0", "43.0", "42.0"]
    assert sweep[0][3] == "(+4.0)" and sweep[0][-1] == "5"
    assert "seed" not in said


def test_rows_of_failed_and_broken_experiments() -> None:
    metrics = {"ws/m.json": {"data": {"student": {"AP": 40.0}}}}
    params = {"params.yaml": {"data": {"student": {"lr": 1}}}}
    head = {
        "rev": "a" * 40, "name": "main", "data": {"params": params, "metrics": metrics},
        "experiments": [
            {"revs": [{"rev": "b" * 40, "name": None, "error": {"msg": "x"}}], "executor": None, "name": None},
            {"revs": [{"rev": "c" * 40, "name": "odd", "data": {"metrics": {"ws/m.json": {"error": {}}}}}]},
        ],
    }  # fmt: skip
    commit, failed, odd = read_rows([head])
    assert (commit.name, commit.figures["AP"]) == ("main", 40.0)
    assert (failed.name, failed.state, failed.under) == ("b" * 9, "failed", "main")
    assert odd.figures["AP"] is None and odd.changed == {"student.lr": None}


def test_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = command()
    assert code == 1 and "dvc exp show" in said


def test_a_table_that_is_too_wide_has_its_params_in_a_second_one() -> None:
    figures = dict.fromkeys(FIGURES, 40.0)
    rows = [
        Row("workspace", "", "", None, figures, {}, {"student.lr": 1, "student.steps": 1000}),
        Row("hoary-bran", "workspace", "done", None, figures | {"AP": 43.0}, {}, {"student.lr": 3, "student.steps": 9}),
    ]  # fmt: skip
    shown = []
    for width in (80, 120):
        console = Console(width=width, file=io.StringIO())
        _show(console, rows)
        shown.append([line.split() for line in console.file.getvalue().splitlines()])  # type: ignore[attr-defined]
        assert max(map(len, console.file.getvalue().splitlines())) <= width  # type: ignore[attr-defined]
    figures_row = ["hoary-bran", "done", "43.0", "(+3.0)", "40.0", "40.0", "40.0", "40.0"]
    assert (
        figures_row in shown[0]
        and ["hoary-bran", "student.lr=3"] in shown[0]
        and ["student.steps=9"] in shown[0]
    )
    assert [*figures_row, "3", "9"] in shown[1]


@pytest.mark.parametrize("width", [80, 70])
def test_long_names_and_values_fit_into_80_columns(width: int) -> None:
    """Figures stay whole; an experiment has only the params that differ from its commit's."""
    figures = dict.fromkeys(FIGURES, 40.0)
    grids = {"student.grids": [40, 36, 24, 16, 12], "student.augment.brightness": 0.3, "student.lr": 0.001}
    long = "an-experiment-with-a-long-name-of-its-own-and-more"
    changed = grids | {"student.lr": 0.0025, "student.grids": list(range(100, 140))}
    rows = [
        Row("a1b2c3d4e", "", "commit", None, figures, {}, grids),
        Row(long, "a1b2c3d4e", "running", None, figures | {"AP": 43.25}, {}, changed),
        Row("same", "a1b2c3d4e", "done", None, figures, {}, grids),
    ]
    console = Console(width=width, file=io.StringIO())
    _show(console, rows)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    lines = [line.split() for line in text.splitlines()]
    assert [line[1:] for line in lines if "running" in line] == [
        ["running", "43.2", "(+3.2)", "40.0", "40.0", "40.0", "40.0"]
    ]
    assert "teacher" in text and ["same", "none"] in lines
    joined = "".join(text.split())
    assert "student.lr=0.0025" in joined and joined.count("student.augment.brightness=0.3") == 1
    assert all(f"{n}," in joined for n in range(100, 139))
