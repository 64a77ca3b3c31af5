"""params.yaml of a plan: a person's values stay, planned ones follow the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.planning.recipe import Kept, recipe_text, write_params
from tasks.planning.rules import Planned
from tasks.tools.recipes import OURS, chain_of, merge

RECIPE = Path("recipes/plan.yaml")


def text_of(**planned: Any) -> str:
    return recipe_text([Planned(key.replace("__", "."), value, "planned") for key, value in planned.items()])


def whole_of(plan: str) -> str:
    return merge([(RECIPE, plan), *chain_of(OURS / "base.yaml")])


FIRST = text_of(teacher__steps=1000, input__tile=None, teacher__grids=[40, 24])
SECOND = text_of(teacher__steps=2000, input__tile={"side": 128, "overlap": 32}, teacher__grids=[16])


@pytest.mark.parametrize(
    ("edit", "kept"),
    [
        ({}, []),
        ({"teacher.steps": 700}, [Kept("teacher.steps", 700, 2000)]),
        ({"teacher.steps": 2000}, []),  # as the new plan has it
        ({"teacher.lr": 0.1}, [Kept("teacher.lr", 0.1, 0.0015)]),  # no planned key
        ({"teacher.grids": [8]}, [Kept("teacher.grids", [8], [16])]),
        ({"seed": 0.0}, [Kept("seed", 0.0, 0)]),  # another type
    ],
)
def test_values_of_a_person_stay(edit: dict[str, Any], kept: list[Kept]) -> None:
    current = yaml.safe_load(write_params(FIRST, RECIPE, None, None).text)
    for key, value in edit.items():
        *sections, name = key.split(".")
        place = current
        for section in sections:
            place = place[section]
        place[name] = value
    written = write_params(SECOND, RECIPE, yaml.safe_dump(current), whole_of(FIRST))
    assert written.kept == kept
    found = yaml.safe_load(written.text)
    assert found["teacher"]["steps"] == edit.get("teacher.steps", 2000)
    assert found["input"]["tile"] == {"side": 128, "overlap": 32}
    for one in kept:
        line = next(line for line in written.text.splitlines() if f"# yours; planned: {one.planned}" in line)
        assert line.strip().startswith(one.key.rpartition(".")[2])


def test_without_an_edit_a_second_plan_is_the_same_text() -> None:
    first = write_params(FIRST, RECIPE, None, None).text
    assert write_params(FIRST, RECIPE, first, whole_of(FIRST)) == (first, [])


def test_a_file_that_no_plan_wrote_is_a_persons() -> None:
    base = yaml.safe_load(whole_of(FIRST))
    base["teacher"]["steps"] = 5
    written = write_params(FIRST, RECIPE, yaml.safe_dump(base), None)
    assert Kept("teacher.steps", 5, 1000) in written.kept
    assert yaml.safe_load(written.text)["teacher"]["steps"] == 5
