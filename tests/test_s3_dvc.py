"""Data in S3 and DVC: real DVC, a real S3 server, the repo's own dvc.yaml up to the points.

The tests share one project and go through its life in order; each can also be run alone.
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
from tests.test_line import Project

pytestmark = pytest.mark.slow  # each dvc that reads from S3 takes three seconds

STAGES = ["code", "ingest", "import_points"]


class Mine(Project):
    """A project whose images, annotations and clicks are in S3."""

    endpoint = ""

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As a Project's, with the address and credentials of the S3 server in the environment."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "AWS_"))}
        mine |= {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.folder)}
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=self.folder, env=mine | environment(self.endpoint),
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip

    def flow_to(self, target: str) -> dict[str, str]:
        """The flow in this process: the state of each stage."""
        from flows.run.pipeline import annotation_to_model

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            return {stage["name"]: stage["state"] for stage in annotation_to_model(target=target)}

    def dvc(self, *arguments: str) -> str:
        """Runs dvc, which must succeed; what it prints."""
        done = self.call("dvc", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def client(s3_endpoint: str) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(s3_endpoint).items():
            patch.setenv(name, value)
        yield boto3.client("s3")


@pytest.fixture(scope="module")
def project(client: Any, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Mine:
    """The demo's images, annotations and clicks in a bucket, and a project that names them there."""
    folder = tmp_path_factory.mktemp("project")
    recipe = tiny_recipe()
    recipe["ingest"] |= {"images": "s3://mine/data/images", "annotations": "s3://mine/data/annotations"}
    recipe["points"]["files"] = "s3://mine/data/points"
    project = Mine(folder / "mine")
    project.recipe, project.endpoint = recipe, s3_endpoint
    project.save()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        from tasks.common.config import load_params

        run_step("make_demo", load_params(), folder / "demo")
    client.create_bucket(Bucket="mine")
    root = folder / "demo" / "demo"
    for path in [path for path in root.rglob("*") if path.is_file()]:
        key = path.relative_to(root).as_posix().removeprefix("dataset/")
        client.put_object(Bucket="mine", Key=f"data/{key}", Body=path.read_bytes())
    return project


@pytest.fixture(scope="module")
def imported(project: Mine) -> str:
    """The project's points are imported; what `dvc repro` said."""
    return project.dvc("repro", "import_points")


@pytest.fixture(scope="module")
def clone(
    project: Mine, imported: str, client: Any, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Mine:
    """What a colleague has who cloned from git, without a cache, and pulled from the DVC remote in S3."""
    client.create_bucket(Bucket="store")
    project.dvc("remote", "add", "-d", "store", "s3://store/dvc")
    project.dvc("push")
    clone = Mine(tmp_path_factory.mktemp("clone") / "mine")
    clone.recipe, clone.endpoint = project.recipe, s3_endpoint
    clone.save()
    for name in ("dvc.lock", ".dvc/config"):
        shutil.copy(project.folder / name, clone.folder / name)
    clone.dvc("pull", *STAGES)
    return clone


@pytest.fixture(scope="module")
def without_bucket(clone: Mine, client: Any) -> Mine:
    """The clone when the bucket of the data is gone, its stages frozen."""
    for row in client.list_objects_v2(Bucket="mine")["Contents"]:
        client.delete_object(Bucket="mine", Key=row["Key"])
    client.delete_bucket(Bucket="mine")
    # And dvc removes the outputs by then.
    assert clone.call("dvc", "repro", "import_points").returncode != 0
    path = clone.folder / "dvc.yaml"  # `dvc freeze` can't: it doesn't write stages that have ${...}
    text = path.read_text()
    for stage in STAGES:
        text = text.replace(f"\n  {stage}:\n", f"\n  {stage}:\n    frozen: true\n")
    path.write_text(text)
    shutil.rmtree(clone.folder / "workspace")
    clone.dvc("checkout", *STAGES)
    return clone


def test_dvc_takes_the_data_from_s3(project: Mine, imported: str) -> None:
    assert [stage for stage in STAGES if f"Running stage '{stage}'" in imported] == STAGES
    lock_text = (project.folder / "dvc.lock").read_text()
    deps = {dep["path"]: dep for dep in yaml.safe_load(lock_text)["stages"]["ingest"]["deps"]}
    assert deps["s3://mine/data/images"]["nfiles"] == 26
    for secret in (SECRET, "AKIDOFTHETESTS", project.endpoint):
        assert secret not in lock_text
    counts = json.loads((project.folder / "workspace/points/manifest.json").read_text())["counts"]
    assert counts["points"] > 20 and counts["rejected"] == 0
    assert "up to date" in project.dvc("status", "import_points")


@pytest.mark.usefixtures("client", "imported", "prefect_server")
def test_the_flow_has_nothing_to_do_after_it(project: Mine) -> None:
    assert project.flow_to("import_points") == dict.fromkeys(STAGES, "Cached")


@pytest.mark.usefixtures("imported")
def test_a_new_click_in_s3_runs_the_import_alone(project: Mine, client: Any) -> None:
    key = "data/points/clicks.json"
    clicks = json.loads(client.get_object(Bucket="mine", Key=key)["Body"].read())
    clicks["annotations"].pop()
    client.put_object(Bucket="mine", Key=key, Body=json.dumps(clicks).encode())
    assert "s3://mine/data/points" in project.dvc("status", "import_points")
    said = project.dvc("repro", "import_points")
    assert [stage for stage in STAGES if f"Running stage '{stage}'" in said] == ["import_points"]


def test_a_colleague_has_all_from_the_dvc_remote_in_s3(project: Mine, clone: Mine) -> None:
    assert clone.hashes() == project.hashes()
    assert len(list((clone.folder / "workspace/fetched/images").rglob("*.png"))) == 26
    assert "up to date" in clone.dvc("status", "import_points")


def test_without_the_bucket_a_frozen_ingest_still_serves(project: Mine, without_bucket: Mine) -> None:
    """`frozen: true` pins what came: the bucket may change or be out of reach."""
    without_bucket.dvc("repro", "import_points")
    assert without_bucket.hashes() == project.hashes()


@pytest.mark.usefixtures("client", "prefect_server")
def test_the_flow_does_with_a_frozen_ingest_too(project: Mine, without_bucket: Mine) -> None:
    shutil.rmtree(without_bucket.folder / "workspace")
    assert without_bucket.flow_to("import_points") == dict.fromkeys(STAGES, "Cached")
    assert without_bucket.hashes() == project.hashes()
