"""Which images a step's batch is made of."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import pytest

from data.tables import Split
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.training.setup import step_batches, training_data


@pytest.mark.parametrize(
    ("share", "size", "own"),
    [(0.0, 4, 1), (0.3, 4, 1), (0.4, 4, 2), (0.7, 4, 3), (0.9, 4, 3), (1.0, 4, 3), (1.0, 2, 1), (0.7, 5, 4)],
)
def test_each_batch_has_its_share_of_the_first_split_and_one_of_either(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch, share: float, size: int, own: int
) -> None:
    folder, params = line
    monkeypatch.chdir(folder)
    splits = [Split.open(Path("workspace/dataset") / name) for name in ("strong", "weak")]
    first = set(splits[0].images["image_id"].to_pylist())
    training = params.teacher.model_copy(update={"batch_size": size})
    dataset = training_data(splits, params, training, frozenset())
    for batch in islice(step_batches(dataset, params, training, "teacher", share)(3), 4):
        ids = batch["image_ids"]
        assert len(ids) == size
        assert sum(image_id in first for image_id in ids) == own


def test_one_split_needs_no_share(line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, params = line
    monkeypatch.chdir(folder)
    strong = Split.open(Path("workspace/dataset/strong"))
    dataset = training_data([strong], params, params.teacher, frozenset())
    steps = list(step_batches(dataset, params, params.teacher, "teacher", 0.5)(10))
    assert [batch["step"] for batch in steps] == [10, 11]
    assert all(len(batch["image_ids"]) == params.teacher.batch_size for batch in steps)


@pytest.mark.parametrize(("accumulate", "processes"), [(3, 2), (1, 4), (5, 1)])
def test_each_piece_of_each_process_has_an_image(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch, accumulate: int, processes: int
) -> None:
    folder, params = line
    monkeypatch.chdir(folder)
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": processes}.items():
        monkeypatch.setenv(name, str(value))
    least = accumulate * processes
    enough, fewer = (
        params.teacher.model_copy(update={"accumulate": accumulate, "batch_size": size})
        for size in (least, least - 1)
    )
    dataset = training_data([Split.open(Path("workspace/dataset/strong"))], params, enough, frozenset())
    step_batches(dataset, params, enough, "teacher")
    text = (
        f"teacher.batch_size: found {least - 1} images per step, expected at least {accumulate} "
        f"(teacher.accumulate) x {processes}"
    )
    with pytest.raises(TaskError, match=re.escape(text)):
        step_batches(dataset, params, fewer, "teacher")
