from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from data.masks import area
from data.tables import INSTANCES, PSEUDO, Split
from models.checkpoint import build_model
from models.solov2 import SOLOv2
from tasks.config import Params
from tasks.detector import train_detector
from tasks.train_student import read_pseudo, run, with_pseudo_masks


@pytest.fixture
def place(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Params]:
    folder, params = line
    shutil.copytree(folder / "workspace", tmp_path / "workspace")
    monkeypatch.chdir(tmp_path)
    return Path("workspace"), params


def pseudo_rows(weak: Split) -> pa.Table:
    """Five hand-made rows on the first three weak images: ok, rough, empty, failed, and a weak ok."""
    from data.masks import encode

    shape = (64, 64)
    small, large = torch.zeros(shape, dtype=torch.bool).numpy(), torch.zeros(shape, dtype=torch.bool).numpy()
    small[2:6, 2:6], large[2:12, 2:12] = True, True
    ids = weak.images["image_id"].to_pylist()
    category = weak.categories[1].id
    rows: list[dict[str, Any]] = [
        {
            "image_id": ids[0],
            "status": "ok",
            "score": 0.9,
            "rough_rle": encode(small),
            "refined_rle": encode(large),
        },
        {"image_id": ids[0], "status": "rough", "score": 0.8, "rough_rle": encode(small)},
        {"image_id": ids[1], "status": "empty", "score": 0.0},
        {"image_id": ids[1], "status": "failed"},
        {
            "image_id": ids[2],
            "status": "ok",
            "score": 0.1,
            "rough_rle": encode(small),
            "refined_rle": encode(large),
        },
    ]
    whole = [{**dict.fromkeys(PSEUDO.names), "category_id": category, **row} for row in rows]
    return pa.Table.from_pylist(whole, schema=PSEUDO)


@pytest.mark.parametrize(
    ("changes", "areas", "images"),
    [
        ({"masks": "refined", "min_score": 0.0}, [100, 16, 100], [0, 2]),
        ({"masks": "rough", "min_score": 0.0}, [16, 16, 16], [0, 2]),
        ({"masks": "refined", "min_score": 0.5}, [100, 16], [0]),
        ({"masks": "refined", "min_score": 0.95}, [], []),
    ],
)
def test_which_pseudo_masks_are_learnt(
    place: tuple[Path, Params], changes: dict[str, Any], areas: list[int], images: list[int]
) -> None:
    workspace, params = place
    weak = Split.open(workspace / "dataset" / "weak")
    config = params.student.model_copy(update=changes)
    labelled = with_pseudo_masks(weak, pseudo_rows(weak), config, workspace / "made")
    ids = weak.images["image_id"].to_pylist()
    assert labelled.images["image_id"].to_pylist() == [ids[i] for i in images]
    assert [area(counts, 64, 64) for counts in labelled.instances["rle_counts"].to_pylist()] == areas
    assert labelled.instances.schema.names == INSTANCES.names
    assert set(labelled.instances["source"].to_pylist()) <= {"pseudo"}


@pytest.mark.parametrize(("weight_by_score", "expected"), [(True, [0.9, 0.8, 0.1]), (False, [1, 1, 1])])
def test_weights(place: tuple[Path, Params], weight_by_score: bool, expected: list[float]) -> None:
    workspace, params = place
    weak = Split.open(workspace / "dataset" / "weak")
    config = params.student.model_copy(update={"weight_by_score": weight_by_score, "min_score": 0.0})
    labelled = with_pseudo_masks(weak, pseudo_rows(weak), config, workspace / "made")
    assert labelled.instances["score"].to_pylist() == pytest.approx(expected)


def test_a_student_of_the_teachers_data_is_the_teacher(place: tuple[Path, Params]) -> None:
    """Same seed, same weights to begin with, same steps: only the pseudo masks make a student another model."""
    workspace, params = place
    own = params.teacher.model_dump(exclude={"milestones"})
    student = type(params.student).model_validate({**params.student.model_dump(), **own, "masks": "none"})
    run(params.model_copy(update={"student": student}), workspace)
    first, second = build_model(workspace / "teacher"), build_model(workspace / "student")
    assert isinstance(first, SOLOv2) and isinstance(second, SOLOv2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_same_run_gives_the_same_bytes(place: tuple[Path, Params]) -> None:
    workspace, params = place
    seen = []
    for _ in range(2):
        run(params, workspace)
        seen.append({path.name: path.read_bytes() for path in sorted((workspace / "student").iterdir())})
    assert seen[0] == seen[1]
    assert {"model.safetensors", "model.json", "log.jsonl", "manifest.json"} == seen[0].keys()
    manifest = json.loads(seen[0]["manifest.json"])
    pseudo = read_pseudo(workspace / "pseudo")
    used = sum(status in ("ok", "rough") for status in pseudo["status"].to_pylist())
    strong = len(Split.open(workspace / "dataset" / "strong").instances)
    assert manifest["counts"]["instances"] == used + strong


@pytest.mark.slow
def test_loader_workers_change_nothing(place: tuple[Path, Params]) -> None:
    workspace, params = place
    runtime = params.runtime.model_copy(update={"workers": 2})
    strong = Split.open(workspace / "dataset" / "strong")
    settings = (params.teacher, [strong], workspace, workspace / "other")
    train_detector("other", params.model_copy(update={"runtime": runtime}), *settings)
    same = (workspace / "other" / "model.safetensors").read_bytes()
    assert same == (workspace / "teacher" / "model.safetensors").read_bytes()
