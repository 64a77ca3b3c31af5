"""A made project: 20 images of 9 objects each, three classes, two proposers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.review_project import write_project
from tasks.common.config import Params, load_params
from tasks.review.desk import Desk
from tests.tasks.conftest import ROOT


@pytest.fixture(scope="session")
def made_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied."""
    folder = tmp_path_factory.mktemp("review") / "project"
    write_project(folder, 20, 9, part_images=7, proposers=("teacher", "sam"))
    shutil.copy(ROOT / "params.yaml", folder)
    return folder


@pytest.fixture
def project(made_project: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    shutil.copytree(made_project, tmp_path / "project")
    header = tmp_path / "project/workspace/dataset/weak/split.json"
    header.write_text(header.read_text().replace(str(made_project), str(tmp_path / "project")))
    return tmp_path / "project"


@pytest.fixture
def params(project: Path) -> Params:
    return load_params(project / "params.yaml")


@pytest.fixture
def desk(project: Path, params: Params) -> Desk:
    return Desk(params, project)
