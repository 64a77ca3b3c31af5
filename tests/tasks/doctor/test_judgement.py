"""What the doctor says of valid settings that don't suit the data, by rules on hand-made facts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tasks.common.config import Params
from tasks.doctor import judgement
from tasks.doctor.finding import Diagnosis
from tasks.planning.facts import Facts
from tests.tasks.planning.test_rules import facts_of

SIZES = np.geomspace(20, 60, 100)


def found(params: Params, facts: Facts, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(judgement, "data_facts", lambda *_, **__: facts)
    diagnosis = Diagnosis()
    judgement.check_judgement(params, {}, None, diagnosis)
    assert not diagnosis.errors
    return {one.check: one.fault for one in diagnosis.warnings}


def settings(recipe: dict[str, Any]) -> None:
    """Settings without a finding for 40 + 60 images of 64 px."""
    recipe["teacher"] |= {"holdout": 0.1, "steps": 200, "warmup_steps": 2, "milestones": [0.5]}
    recipe["student"] |= {"steps": 300, "warmup_steps": 2}


GOOD = facts_of(SIZES, [64] * 100, per_image=5, masks={"class 0": 5000})


@pytest.mark.parametrize(
    ("change", "facts", "check", "texts"),
    [
        (lambda r: None, GOOD, None, []),
        (lambda r: None, facts_of(SIZES, [490] * 100, per_image=5, masks={"class 0": 5000}), "small_input",
         ["64, where images have 490", "3.4 px then", "set it to"]),
        (lambda r: None, facts_of(SIZES, [64] * 100, per_image=5), "random_weights", ["100 masks", "efficientnet"]),
        (lambda r: r["teacher"].update(holdout=0.03), GOOD, "holdout", ["1 of 40", "set it to 0.1"]),
        (lambda r: r["teacher"].update(steps=20, milestones=[0.5]), GOOD, "teacher_steps",
         ["20 of 4 images: 2 times", "set it to about 120"]),
        (lambda r: r["student"].update(steps=30000), GOOD, "student_steps", ["1.2e+03 times through 100"]),
        (lambda r: None, facts_of(SIZES, [64] * 100, per_image=5, masks={"class 0": 5000, "cat": 4}), "few_masks",
         ["cat 4"]),
        (lambda r: None, facts_of(SIZES, [64] * 100, per_image=5, masks={"class 0": 5000},
                                  clicks_per_image=np.full(60, 2.0)), "missing_clicks",
         ["2.0 clicks", "5.0 masks"]),
        (lambda r: None, facts_of(SIZES, [64] * 100, per_image=5, masks={"class 0": 5000},
                                  clicks_per_image=np.full(3, 1.0)), None, []),
    ],
)  # fmt: skip
def test_findings(
    recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params], monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Any]], None], facts: Facts, check: str | None, texts: list[str],
) -> None:  # fmt: skip
    settings(recipe)
    change(recipe)
    warnings = found(params_of(recipe), facts, monkeypatch)
    assert set(warnings) == ({check} if check else set())
    for text in texts:
        assert text in str(warnings[check]), warnings[check]
