"""The examples of docs/python.md are run, and what it says of a cold start is true."""

from __future__ import annotations

import doctest
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tasks.common.config import Params
from tests.tasks.conftest import ROOT


@pytest.fixture
def project(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photo and the models of the tiny line, without its params."""
    for name in ("teacher", "refiner"):
        shutil.copytree(line[0] / "workspace" / name, tmp_path / "workspace" / name)
    shutil.copytree(line[0] / "workspace" / "teacher", tmp_path / "workspace" / "student")
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.jpg"), picture)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples(project: Path) -> None:
    result = doctest.testfile(
        str(ROOT / "docs" / "python.md"), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert result.attempted > 10 and result.failed == 0
    assert (project / "found.jpg").is_file()


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, points2model; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_an_unknown_name() -> None:
    import points2model

    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        points2model.Predicter  # noqa: B018
