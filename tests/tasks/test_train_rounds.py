"""Rounds: the last student proposes masks, the judge chooses, the next student goes on; killed and resumed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.tables import POINTS, PSEUDO, read_parquet
from models.checkpoint import load_meta
from tasks import pseudo_label, train_rounds, train_student
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.common.stage_main import read_json, write_json
from tasks.labelling.gate import read_gate
from tasks.labelling.judge import read_judge, without_rules, write_judge
from tasks.promotion.baseline import folder_hash
from tasks.training import loop
from tests.tasks.conftest import ROOT

WORKSPACE = Path("workspace")


@pytest.fixture
def params(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Inside a copy of the tiny line, with three rounds."""
    shutil.copytree(line[0] / "workspace", tmp_path / "workspace")
    monkeypatch.chdir(tmp_path)
    return rounds(line[1], 3)


def rounds(params: Params, number: int) -> Params:
    return params.model_copy(update={"rounds": number})


def figures() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((WORKSPACE / "rounds/rounds.json").read_text())
    return found


def pseudo() -> pa.Table:
    parts = sorted((WORKSPACE / "pseudo").glob("part-*.parquet"))
    return pa.concat_tables([read_parquet(part, PSEUDO) for part in parts])


def never_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny students are worse than their teacher; here each round's masks count as better than the last's."""
    found = iter(range(100))
    monkeypatch.setattr(train_rounds, "_held_out", lambda *_: (float(next(found)), True))


def test_one_round_is_nothing_to_do(params: Params) -> None:
    for part in ("dataset", "points", "teacher", "refiner"):  # it reads nothing
        shutil.rmtree(WORKSPACE / part)
    train_rounds.run(rounds(params, 1), WORKSPACE)
    assert sorted(path.name for path in (WORKSPACE / "rounds").iterdir()) == ["manifest.json", "rounds.json"]
    assert figures() == []
    assert "held_out_iou" not in read_json(WORKSPACE / "rounds/manifest.json", "")


def test_without_anything_to_do_torch_is_not_imported() -> None:
    code = "import sys, tasks.train_rounds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_first_round_s_student_is_trained_on_the_teacher_s_masks_without_held_out_images(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_worse(monkeypatch)
    train_rounds.run(rounds(params, 2), WORKSPACE)
    assert figures() == [{"round": 1, "held_out_iou": 0.0, "trained": True}]
    assert read_json(WORKSPACE / "rounds/manifest.json", "")["held_out_iou"] == [0.0]
    held_out = read_json(WORKSPACE / "teacher/held_out.json", "")["image_ids"]
    assert len(held_out) == 1
    earlier = train_student.Round("train_rounds", WORKSPACE / "pseudo", None, frozenset(held_out))
    train_student.train(params, WORKSPACE, Path("alone"), Path("runs"), earlier=earlier)
    assert folder_hash(Path("alone")) == folder_hash(WORKSPACE / "rounds/student")
    train_student.train(rounds(params, 1), WORKSPACE, Path("whole"), Path("runs-2"))
    counts = [read_json(Path(name, "manifest.json"), "")["counts"]["images"] for name in ("alone", "whole")]
    assert counts[1] - counts[0] == len(held_out)


def test_each_click_has_one_proposer_s_mask_and_the_last_student_goes_on(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_worse(monkeypatch)
    train_rounds.run(params, WORKSPACE)
    assert [one["round"] for one in figures()] == [1, 2]
    pseudo_label.run(params, WORKSPACE)
    judge, table = read_judge(WORKSPACE / "pseudo"), pseudo()
    points = read_parquet(WORKSPACE / "points/points.parquet", POINTS)
    assert sorted(table["point_id"].to_pylist()) == sorted(points["point_id"].to_pylist())
    assert judge.proposers == ("teacher", "student") and len(judge.typical_areas) == 4
    drawn = [row["reason"] for row in table.to_pylist() if row["status"] in ("ok", "rough")]
    assert drawn and all(reason.endswith(("drawn by teacher", "drawn by student")) for reason in drawn)
    if judge.alone is not None:
        assert all(reason.endswith(judge.alone) for reason in drawn)
    before = folder_hash(WORKSPACE / "pseudo")
    shutil.rmtree(WORKSPACE / "runs/pseudo_label")
    pseudo_label.run(params, WORKSPACE)
    assert folder_hash(WORKSPACE / "pseudo") == before

    still = params.model_copy(
        update={"student": params.student.model_copy(update={"lr": 1e-12, "weight_decay": 0.0})}
    )
    train_student.run(still, WORKSPACE)
    last, new = (read_weights(WORKSPACE / name) for name in ("rounds/student", "student"))
    assert max(float((last[key] - new[key]).abs().max()) for key in last) < 1e-6
    assert (
        load_meta(WORKSPACE / "student")["categories"]
        == load_meta(WORKSPACE / "rounds/student")["categories"]
    )


def read_weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_one_proposer_alone_draws_all_that_it_can(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one's mask is used where it has none."""
    never_worse(monkeypatch)
    by_teacher = {row["point_id"]: row["status"] for row in pseudo().to_pylist()}
    train_rounds.run(rounds(params, 2), WORKSPACE)
    pseudo_label.run(rounds(params, 2), WORKSPACE)
    (folder,) = (WORKSPACE / "runs/pseudo_label").glob("judge-*")
    write_json(folder / "judge.json", read_json(folder / "judge.json", "") | {"alone": "teacher"})
    shutil.rmtree(next((WORKSPACE / "runs/pseudo_label").glob("ledger-*")))
    pseudo_label.run(rounds(params, 2), WORKSPACE)
    found = [row for row in pseudo().to_pylist() if row["status"] in ("ok", "rough")]
    kinds = {(by_teacher[row["point_id"]] == "empty", row["reason"].rpartition(" ")[2]) for row in found}
    assert kinds == {(False, "teacher"), (True, "student")}


@pytest.mark.parametrize(
    "found",
    [
        [(50.0, False), (60.0, False)],  # in the second round the teacher draws all masks
        [(50.0, False), (40.0, True), (40.0, True)],  # those of the second may be worse by chance
    ],
)
def test_rounds_end_where_masks_get_no_better(
    params: Params, monkeypatch: pytest.MonkeyPatch, found: list[tuple[float, bool]]
) -> None:
    measured = iter(found)
    monkeypatch.setattr(train_rounds, "_held_out", lambda *_: next(measured))
    train_rounds.run(rounds(params, 5), WORKSPACE)
    assert [one["held_out_iou"] for one in figures()] == [iou for iou, _ in found]
    assert [one["trained"] for one in figures()] == [True] * (len(found) - 1) + [False]
    assert (WORKSPACE / "rounds/student/model.json").is_file()


def test_a_round_is_measured_by_its_judge_else_by_the_refiner(params: Params) -> None:
    masks = WORKSPACE / "pseudo"
    gate = read_gate(WORKSPACE / "refiner")
    assert train_rounds._held_out(WORKSPACE, masks) == (gate.iou, False) and gate.iou is not None
    write_judge(
        masks, without_rules(("teacher", "student"), "student", {"teacher": gate, "student": gate}, ())
    )
    assert train_rounds._held_out(WORKSPACE, masks) == (None, True)
    write_json(masks / "judge.json", read_json(masks / "judge.json", "") | {"iou": {"student": 50.0}})
    assert train_rounds._held_out(WORKSPACE, masks) == (50.0, True)


def test_too_small_a_batch_names_the_student_s_section(params: Params) -> None:
    small = params.student.model_copy(update={"batch_size": 2, "accumulate": 3})
    with pytest.raises(TaskError, match=r"^student\.batch_size: found 2"):
        train_rounds.run(params.model_copy(update={"student": small}), WORKSPACE)
    # What was labelled is kept for the next run.
    assert (WORKSPACE / "runs/train_rounds/all/round-1/pseudo/manifest.json").is_file()


def test_a_killed_run_goes_on_where_it_was(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the second round's training, after its state of step 4: the first isn't trained again."""
    never_worse(monkeypatch)
    train_rounds.run(params, WORKSPACE)
    expected = folder_hash(WORKSPACE / "rounds")
    shutil.rmtree(WORKSPACE / "rounds")
    never_worse(monkeypatch)
    steps: list[int] = []
    real = loop._update

    def until(last: int) -> Any:
        def update(job: loop.Job, run: Any, step: int, guard: Any) -> None:
            steps.append(step)
            if len(steps) > last:
                raise KeyboardInterrupt
            real(job, run, step, guard)

        return update

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_update", until(params.student.steps + 6))
        with pytest.raises(KeyboardInterrupt):
            train_rounds.run(params, WORKSPACE)
    assert not (WORKSPACE / "rounds").exists()
    steps.clear()
    never_worse(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_update", until(100))
        train_rounds.run(params, WORKSPACE)
    assert steps == list(range(4, params.student.steps))
    assert folder_hash(WORKSPACE / "rounds") == expected
    assert not (WORKSPACE / "runs/train_rounds/all").exists()
