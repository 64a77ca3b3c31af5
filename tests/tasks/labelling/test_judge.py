"""The judge: recovers a known rule, is measured on images it was not fitted on, falls back where it is of no use."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tasks.common.errors import TaskError
from tasks.labelling.gate import Gate, unmeasured
from tasks.labelling.judge import FEATURES, T_95, Judge, Judged, fit_judge, read_judge, write_judge

NAMES = ("teacher", "student")
F = len(FEATURES)


def gates(names: tuple[str, ...]) -> dict[str, Gate]:
    return dict.fromkeys(names, unmeasured(0, enlarge=1.5, rounds=1))


def measured(images: int = 6, clicks: int = 40, told: bool = True, seed: int = 0) -> Judged:
    """Two proposers, each better at half of the clicks; `agreement` tells which, unless `told` is False."""
    draw = np.random.default_rng(seed)
    n = images * clicks
    features = draw.normal(size=(n, 2, F))
    iou = np.clip(0.5 + 0.2 * draw.normal(size=(n, 2)), 0, 1)
    if told:
        features[:, :, FEATURES.index("agreement")] = iou + 0.01 * draw.normal(size=iou.shape)
    return Judged(np.repeat(np.arange(images), clicks), features, iou, np.ones((n, 2), np.bool_))


def test_a_gain_within_its_error_is_no_reason_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice gains 0.1 of IoU on half of the images and 0.02 on the others: 0.06, with an error of 0.015."""
    images = np.repeat(np.arange(8), 10)
    iou = np.full((80, 2), 0.5)
    better = np.arange(80) % 2  # by turns one and the other
    iou[np.arange(80), better] += np.where(images % 2 == 0, 0.2, 0.04)
    features = np.zeros((80, 2, F))
    features[np.arange(80), better, FEATURES.index("agreement")] = 1.0
    some = Judged(images, features, iou, np.ones((80, 2), np.bool_))
    error = 0.04 / np.sqrt(7)  # of gains of 0.1 and 0.02 of eight images, each half of its clicks
    for errors, alone in ((0.06 / error - 0.1, None), (0.06 / error + 0.1, "teacher")):
        monkeypatch.setattr("tasks.labelling.judge.T_95", (0.0,) * 7 + (errors, 0.0))
        judge = fit_judge(NAMES, some, "teacher", gates(NAMES))
        assert (judge.alone, judge.judged_iou) == (alone, 62.0)


def test_where_features_tell_the_choice_is_near_the_best() -> None:
    judge = fit_judge(NAMES, measured(), "teacher", gates(NAMES))
    assert judge.alone is None and judge.judged_iou is not None and judge.best_iou is not None
    assert judge.judged_iou > max(judge.iou.values()) + 5
    assert judge.best_iou - 1 < judge.judged_iou <= judge.best_iou
    features = np.zeros((3, 2, F))
    features[:, :, FEATURES.index("agreement")] = [[0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]
    has_mask = np.array([[True, True], [True, True], [True, False]])
    assert judge.choose(features, has_mask).tolist() == [0, 1, 0]


def test_where_features_tell_nothing_the_best_single_one_draws_all() -> None:
    """Fitted on the same clicks the rules would look better than either: on others they aren't."""
    some = measured(clicks=4, told=False, seed=3)
    some.iou[:, 1] += 0.2
    judge = fit_judge(NAMES, some, "teacher", gates(NAMES))
    assert judge.alone == "student"
    few = measured(2, 20, told=False)  # images: that isn't shown on two
    few.iou[:, 1] = few.iou[:, 0] + np.repeat([0.02, 0.06], 20)
    for default in NAMES:
        assert fit_judge(NAMES, few, default, gates(NAMES)).alone == default
    few.iou[:, 1] = few.iou[:, 0] + np.repeat([0.039, 0.041], 20)
    assert fit_judge(NAMES, few, "teacher", gates(NAMES)).alone == "student"
    has_mask = np.array([[True, True], [True, False]])
    assert judge.choose(np.zeros((2, 2, F)), has_mask).tolist() == [1, 0]


def test_a_mask_that_is_not_there_is_chosen_neither_in_use_nor_in_the_measurement() -> None:
    """The student has the better masks, but none at a third of the clicks, where the teacher's is used."""
    some = measured(told=False)
    some.iou[:, 0], some.iou[:, 1] = 0.4, 0.8
    lost = np.arange(len(some.iou)) % 3 == 0
    some.iou[lost, 1], some.has_mask[lost, 1] = 0.0, False
    judge = fit_judge(NAMES, some, "teacher", gates(NAMES))
    best = np.where(lost, some.iou[:, 0], some.iou[:, 1]).mean()
    rules_only = some._replace(has_mask=np.ones_like(some.has_mask))
    assert judge.judged_iou == pytest.approx(100 * best, abs=1.0)
    without = fit_judge(NAMES, rules_only, "teacher", gates(NAMES)).judged_iou
    assert without is not None and judge.judged_iou is not None and without < judge.judged_iou - 5


SAM = ("teacher", "sam-1", "sam-2")


def of_sam(own_choice: float) -> Judged:
    """SAM's own choice between its masks has an IoU of `own_choice`, the other mask 0, the teacher's 0.5."""
    draw = np.random.default_rng(2)
    n = 120
    features, iou = draw.normal(size=(n, 3, F)), np.full((n, 3), 0.5)
    first = draw.random(n) < 0.5
    features[:, 1, 0], features[:, 2, 0] = np.where(first, 0.9, 0.1), np.where(first, 0.1, 0.9)
    iou[:, 1], iou[:, 2] = np.where(first, own_choice, 0.0), np.where(first, 0.0, own_choice)
    return Judged(np.repeat(np.arange(6), 20), features, iou, np.ones((n, 3), np.bool_))


def test_a_proposer_of_several_masks_is_also_measured_with_its_own_choice() -> None:
    judge = fit_judge(SAM, of_sam(0.8), "teacher", gates(SAM))
    assert judge.iou["sam"] == pytest.approx(80.0) and judge.iou["sam-1"] < 60
    alone = judge.model_copy(update={"alone": "sam"})
    features = np.zeros((3, 3, F))
    features[:, :, 0] = [[0.9, 0.1, 0.2], [0.1, 0.3, 0.2], [0.9, 0.3, 0.2]]
    has_mask = np.array([[True, True, True], [True, True, True], [True, False, False]])
    assert alone.choose(features, has_mask).tolist() == [2, 1, 0]


def test_unmeasured_sam_alone_draws_with_its_own_choice() -> None:
    judge = fit_judge(SAM, measured(0), "sam", gates(SAM))
    assert judge.alone == "sam" and judge.iou == {}
    features = np.zeros((1, 3, F))
    features[:, :, 0] = [[0.9, 0.1, 0.2]]
    assert judge.choose(features, np.ones((1, 3), np.bool_)).tolist() == [2]


@pytest.mark.parametrize(
    ("images", "clicks", "enough"), [(1, 40, False), (2, 10, True), (2, 9, False), (0, 0, False)]
)
def test_too_few_to_fit(images: int, clicks: int, enough: bool) -> None:
    judge = fit_judge(NAMES, measured(images, clicks), "student", gates(NAMES))
    assert (judge.judged_iou is not None) == enough
    assert judge.clicks == images * clicks
    if not enough:
        assert judge.alone == "student"


def test_round_trip_and_damage(tmp_path: Path) -> None:
    judge = fit_judge(NAMES, measured(), "teacher", gates(NAMES))
    write_judge(tmp_path, judge)
    assert read_judge(tmp_path) == judge
    text = (tmp_path / "judge.json").read_text()
    (tmp_path / "judge.json").write_text(text.replace('"alone": null', '"alone": "cat"'))
    with pytest.raises(
        TaskError, match=r"judge\.json: Value error, alone: found 'cat'.*`dvc repro -f pseudo_label`"
    ):
        read_judge(tmp_path)
    (tmp_path / "judge.json").unlink()
    with pytest.raises(TaskError, match=r"judge\.json: no such file; it is made by `dvc repro pseudo_label`"):
        read_judge(tmp_path)


@pytest.mark.parametrize("name", ["rules", "gates"])
def test_rules_and_gates_are_for_all_proposers(name: str) -> None:
    judge = fit_judge(NAMES, measured(), "teacher", gates(NAMES)).model_dump()
    del judge[name]["student"]
    with pytest.raises(ValueError, match=f"{name}: found"):
        Judge.model_validate(judge)


def test_the_iou_of_the_masks_in_use() -> None:
    judge = fit_judge(NAMES, measured(), "teacher", gates(NAMES))
    assert judge.final_iou == judge.judged_iou is not None
    alone = judge.model_copy(update={"alone": "student"})
    assert alone.final_iou == judge.iou["student"]
    assert fit_judge(NAMES, measured(0), "student", gates(NAMES)).final_iou is None


def test_quantiles_of_student_s_t() -> None:
    """By integrating the density."""
    for n, quantile in enumerate(T_95[1:], start=1):
        steps = np.linspace(0, quantile, 200_001)
        factor = math.gamma((n + 1) / 2) / math.sqrt(n * math.pi) / math.gamma(n / 2)
        density = factor * (1 + steps**2 / n) ** (-(n + 1) / 2)
        area = 0.5 + float(((density[1:] + density[:-1]) / 2).sum() * (steps[1] - steps[0]))
        assert area == pytest.approx(0.95, abs=1e-3)
