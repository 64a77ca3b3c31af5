"""Every recipe is a whole, valid params file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.config import load_params
from tests.tasks.conftest import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_whole_and_valid(path: Path) -> None:
    params = load_params(path)
    assert params.detector(params.teacher) and params.detector(params.student)


def test_the_repo_comes_with_the_demo() -> None:
    assert yaml.safe_load((ROOT / "params.yaml").read_text()) == yaml.safe_load(
        (ROOT / "recipes" / "demo.yaml").read_text()
    )


def test_in_the_demo_teacher_and_student_differ_by_the_pseudo_labels_alone() -> None:
    params = load_params(ROOT / "recipes" / "demo.yaml")
    assert params.detector(params.teacher) == params.detector(params.student)
    teacher, student = params.teacher.model_dump(), params.student.model_dump()
    del teacher["milestones"], teacher["holdout"]  # what the refiner wants of the teacher
    assert teacher == {key: value for key, value in student.items() if key in teacher}
