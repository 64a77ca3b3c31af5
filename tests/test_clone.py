"""A colleague's fresh clone, with nothing but git and the DVC remote in S3: real git, DVC, S3 server and tiny line.

The tests go through the life of one project and its clones in order; each can also be run alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from tests.s3_server import SECRET, environment
from tests.tasks.conftest import run_step, tiny_recipe
from tests.test_s3_dvc import Mine

pytestmark = pytest.mark.line

AFTER_STUDENT = ["train_rounds", "train_student", "train_repeats", "evaluate", "compare", "report"]


class Checkout(Mine):
    """A project whose commands have time: each may run the whole line, fetch it or send it."""

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "AWS_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        mine |= {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.folder)}
        mine["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "600"
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=self.folder, env=mine | environment(self.endpoint),
            capture_output=True, text=True, timeout=1200, check=False,
        )  # fmt: skip


class Clone(Checkout):
    """What `git clone` gives."""

    def __init__(self, origin: Path, folder: Path, endpoint: str) -> None:
        git(origin.parent, "clone", "-q", str(origin), str(folder))
        self.folder, self.endpoint = folder, endpoint
        self.recipe = yaml.safe_load((folder / "params.yaml").read_text())

    def stages(self, *arguments: str) -> dict[str, str]:
        """`points2model run`: the state of each stage."""
        done = self.call("flows.cli.main", "run", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return {stage["name"]: stage["state"] for stage in json.loads(done.stdout)["stages"]}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def client(s3_endpoint: str) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(s3_endpoint).items():
            patch.setenv(name, value)
        yield boto3.client("s3")


@pytest.fixture(scope="module")
def project(client: Any, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A project with data of its own under DVC, run once with `operate.push`, committed."""
    client.create_bucket(Bucket="colleagues")
    folder = tmp_path_factory.mktemp("origin")
    project = Checkout(folder / "project")
    recipe = tiny_recipe()
    recipe["ingest"] |= {"images": "mine/images", "annotations": "mine/annotations"}
    recipe["points"]["files"] = "mine/points"
    recipe["operate"]["push"] = True
    project.recipe, project.endpoint = recipe, s3_endpoint
    project.save()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        from tasks.common.config import load_params

        run_step("make_demo", load_params(), folder / "drawn")
    for name in ("dataset/images", "dataset/annotations", "points"):
        shutil.copytree(folder / "drawn/demo" / name, project.folder / "mine" / Path(name).name)
    project.dvc("add", "-q", "mine/images", "mine/annotations", "mine/points")
    done = project.call("flows.cli.main", "remote", "s3://colleagues/line", "--endpoint-url", s3_endpoint)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = project.call("flows.cli.main", "run", "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    push = json.loads(ran.stdout)["stages"][-1]
    assert push["name"] == "push" and push["state"] == "Completed" and "sent to store" in push["message"]
    git(project.folder, "add", "-A")
    git(project.folder, "commit", "-qm", "First result")
    assert SECRET not in git(project.folder, "grep", "-h", "", "--", ".dvc")
    return project


@pytest.fixture(scope="module")
def clone(project: Checkout, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which `points2model run` ran once."""
    clone = Clone(project.folder, tmp_path_factory.mktemp("clone") / "project", s3_endpoint)
    states = clone.stages()
    assert states.pop("push") == "Completed"
    assert set(states.values()) == {"Cached"}, states
    return clone


def test_a_run_in_a_clone_fetches_everything(project: Checkout, clone: Clone) -> None:
    assert clone.hashes() == project.hashes()
    for path in (project.folder / "mine").rglob("*"):
        if path.is_file() and path.name != ".gitignore":
            copy = clone.folder / path.relative_to(project.folder)
            assert copy.read_bytes() == path.read_bytes()
    assert "up to date" in clone.dvc("status", "report")
    assert git(clone.folder, "status", "--short") == ""


def test_a_clone_predicts_with_the_promoted_model(clone: Clone) -> None:
    image = next(path for path in sorted((clone.folder / "mine/images").rglob("*.png")))
    done = clone.call("flows.cli.main", "predict", str(image), "--out", "found")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (clone.folder / "found/results.json").is_file()
    shutil.rmtree(clone.folder / "found")


def test_dvc_alone_computes_nothing_either(
    project: Checkout, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Clone(project.folder, tmp_path_factory.mktemp("other") / "project", s3_endpoint)
    said = other.dvc("repro", "--pull", "report")
    assert "Running stage" not in said
    other.dvc("pull", "--allow-missing")  # make_demo never ran here: plain `dvc pull` fails at its outputs
    assert other.hashes() == project.hashes()


@pytest.fixture(scope="module")
def changed(clone: Clone) -> dict[str, str]:
    """The states of the clone's stages in a run with another student."""
    clone.recipe["student"]["lr"] = 0.002
    clone.save()
    return clone.stages()


def test_a_changed_student_runs_the_student_and_what_follows(changed: dict[str, str]) -> None:
    ran = [name for name, state in changed.items() if state == "Completed"]
    assert sorted(ran) == sorted([*AFTER_STUDENT, "push"])


@pytest.mark.usefixtures("changed")
def test_what_the_clone_computed_the_first_one_needs_not(project: Checkout) -> None:
    """The other way round: the run-cache in S3 knows what a colleague ran."""
    project.recipe["student"]["lr"] = 0.002
    project.save()
    done = project.call("flows.cli.main", "run", "--json", "--target", "evaluate")
    assert done.returncode == 0, done.stderr
    told = {stage["name"]: (stage["state"], stage["message"]) for stage in json.loads(done.stdout)["stages"]}
    assert told["train_student"] == ("Completed", "restored from the cache")
    assert told["evaluate"] == ("Completed", "restored from the cache")
