"""The score that was chosen on val: of a promoted model, of one in a workspace, and where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.promotion.baseline import folder_hash
from tasks.promotion.registry import Registry
from tasks.tools.chosen_score import chosen_min_score
from tests.tasks.conftest import blank_registry
from tests.tasks.promotion.test_registry import entry


def model(folder: Path, content: str = "weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(content)
    return folder


@pytest.mark.parametrize(
    ("metrics", "score"),
    [({"student": {"AP": 1.0, "min_score": 0.37}}, 0.37), ({"student": {"AP": 1.0}}, None), ({}, None)],
)
def test_of_a_promoted_model_its_entry_s(
    tmp_path: Path, metrics: dict[str, Any], score: float | None
) -> None:
    """An entry of an earlier version has none."""
    blank_registry(tmp_path)
    folder = model(tmp_path / "registry/v2/model")
    change = {"model": folder_hash(folder), "metrics": metrics}
    Registry(tmp_path / "registry").write_entry(entry("v2").model_copy(update=change))
    assert chosen_min_score(folder) == score
    (folder / "model.safetensors").write_text("others")
    assert chosen_min_score(folder) is None
    (tmp_path / "registry/v2/entry.json").write_text("{")
    assert chosen_min_score(folder) is None


def test_of_a_workspace_s_model_that_of_its_evaluation(tmp_path: Path) -> None:
    student, teacher = model(tmp_path / "student"), model(tmp_path / "teacher", "others")
    (tmp_path / "evaluation").mkdir()
    details = {"student": {"model": folder_hash(student)}, "teacher": {"model": folder_hash(teacher)}}
    (tmp_path / "evaluation/details.json").write_text(json.dumps(details))
    metrics = {"student": {"min_score": 0.25}, "teacher": {"min_score": None}}
    (tmp_path / "evaluation/metrics.json").write_text(json.dumps(metrics))
    assert chosen_min_score(student) == 0.25 and chosen_min_score(teacher) is None
    # Trained again, not yet evaluated.
    (student / "model.safetensors").write_text("new")
    assert chosen_min_score(student) is None


@pytest.mark.parametrize("details", [None, "[", "[]", '{"student": {}}', '{"student": 3}'])
def test_without_an_evaluation_there_is_none(tmp_path: Path, details: str | None) -> None:
    student = model(tmp_path / "student")
    if details is not None:
        (tmp_path / "evaluation").mkdir()
        (tmp_path / "evaluation/details.json").write_text(details)
        (tmp_path / "evaluation/metrics.json").write_text('{"student": {"min_score": 0.5}}')
    assert chosen_min_score(student) is None
