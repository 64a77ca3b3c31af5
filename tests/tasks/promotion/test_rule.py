"""The verdict and its words, and what the report makes of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tasks.common.config import PromotionConfig
from tasks.promotion.baseline import Baseline
from tasks.promotion.rule import (
    PROMOTABLE,
    Change,
    ClassChange,
    Comparison,
    behind_teacher,
    change,
    judge,
)
from tasks.reporting.promotion import promotion_view

CONFIG = PromotionConfig(ap_tolerance=0.5, class_tolerance=5, bootstrap=100, confidence=0.9, repeats=1)
HASH = "0" * 32 + ".dir"


def judged(
    overall: tuple[float | None, float | None],
    *classes: tuple[float | None, float | None],
    config: PromotionConfig = CONFIG,
    **ends: float,
) -> tuple[str, list[str]]:
    rows = [
        ClassChange(
            category_id=n, name=f"c{n}", objects=3, **change(*one, config.class_tolerance).model_dump()
        )
        for n, one in enumerate(classes)
    ]
    return judge(change(*overall, config.ap_tolerance, **ends), rows, "v1", config)


@pytest.mark.parametrize(
    ("overall", "classes", "verdict", "reasons"),
    [
        (
            (20.0, 21.5), [(20.0, 21.0), (20.0, 22.0)], "better",
            ["AP rises from 20.00 to 21.50 (+1.50).", "No class loses anything."],
        ),
        (
            (20.0, 19.5), [(20.0, 22.0), (20.0, 17.0)], "within_tolerance",
            [
                "AP falls from 20.00 to 19.50 (−0.50): within the 0.5 that promotion.ap_tolerance allows.",
                "No class loses more than the 5 tolerated; the most is −3.00 (c1).",
            ],
        ),
        (
            (20.0, 20.0), [(20.0, 20.0)], "within_tolerance",
            ["AP stays at 20.00.", "No class loses anything."],
        ),
        (
            (20.0, 19.499), [(20.0, 19.499)], "worse",
            ["AP falls from 20.000 to 19.499 (−0.501): more than the 0.5 that promotion.ap_tolerance allows."],
        ),
        (
            (0.001, 0.004), [(20.0, 20.0)], "better",
            ["AP rises from 0.001 to 0.004 (+0.003).", "No class loses anything."],
        ),
        (
            (20.0, 25.0), [(20.0, 12.0), (20.0, 48.0), (20.0, 14.0), (None, None)], "worse",
            [
                "AP rises from 20.00 to 25.00 (+5.00).",
                "AP of c0 falls from 20.00 to 12.00 (−8.00): more than the 5 that promotion.class_tolerance allows.",
                "AP of c2 falls from 20.00 to 14.00 (−6.00): more than the 5 that promotion.class_tolerance allows.",
            ],
        ),
        (
            (None, None), [(None, None)], "unknown",
            ["The val images can't tell it from v1: no class that both know has an object there."],
        ),
        ((None, None), [], "unknown", ["The val images can't tell it from v1: no class is known to both."]),
    ],
)  # fmt: skip
def test_verdict(overall: Any, classes: Any, verdict: str, reasons: list[str]) -> None:
    assert judged(overall, *classes) == (verdict, reasons)


@pytest.mark.parametrize(
    ("before", "after", "tolerance", "moved", "broken"),
    [
        (20.0, 20.0, 0.0, 0.0, False),  # no tolerance at all: an equal student isn't worse
        (20.0, 19.999, 0.0, -0.001, True),
        (20.0, 20.001, 0.0, 0.001, False),
        (4.014, 3.514, 0.5, -0.5, False),  # as floats they differ by 0.5000000000000004
        (4.014, 3.513, 0.5, -0.501, True),
        (9.22, 4.22, 5.0, -5.0, False),
        (9.22, 4.219, 5.0, -5.001, True),
        (37.123, 61.877, 0.5, 24.754, False),
        (None, 12.5, 0.0, None, False),
        (12.5, None, 0.0, None, False),
    ],
)
def test_a_fall_of_just_the_tolerance_is_tolerated(
    before: float | None, after: float | None, tolerance: float, moved: float | None, broken: bool
) -> None:
    found = change(before, after, tolerance, -1.5, 0.25)
    assert (found.difference, found.broken) == (moved, broken)
    assert (found.baseline, found.candidate, found.low, found.high) == (before, after, -1.5, 0.25)


@pytest.mark.parametrize(
    ("overall", "classes", "verdict"),
    [
        ((4.014, 4.014), [(9.22, 9.22)], "within_tolerance"),
        ((4.014, 4.015), [(9.22, 9.22)], "better"),
        ((4.014, 4.013), [(9.22, 9.22)], "worse"),
        ((4.014, 5.125), [(9.22, 9.219), (1.0, 3.0)], "worse"),
    ],
)
def test_without_tolerance_an_equal_student_may_take_its_place(
    overall: tuple[float, float], classes: list[tuple[float, float]], verdict: str
) -> None:
    exact = PromotionConfig(ap_tolerance=0, class_tolerance=0, bootstrap=100, confidence=0.9, repeats=1)
    assert judged(overall, *classes, config=exact)[0] == verdict


def test_who_may_be_promoted() -> None:
    assert set(PROMOTABLE) == {"first", "better", "within_tolerance"}


def test_reasons_name_the_interval() -> None:
    said = judged((20.0, 21.0), (20.0, 21.0), low=-0.25, high=2.0)[1][0]
    assert said == "AP rises from 20.00 to 21.00 (+1.00; 90% of draws of the images: −0.25 to +2.00)."


def comparison(verdict: str, overall: Change, version: str | None = "v1") -> Comparison:
    return Comparison.model_validate(
        {
            "verdict": verdict, "reasons": ["So."], "overall": overall, "model": HASH,
            "baseline": Baseline(version=version, model=version and HASH),
            "classes": [{"category_id": 1, "name": "a", "objects": 3, **overall.model_dump()}], "only_baseline": [],
            "only_candidate": [], "images": 9, "draws": 100, "confidence": 0.9, "ap_tolerance": 0.5,
            "class_tolerance": 5.0,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "said", "style"),
    [
        ("better", "was better: it could take its place", "good"),
        ("within_tolerance", "within the tolerance: it could take its place", "good"),
        ("worse", "was worse than tolerated: it could not take its place", "bad"),
        ("unknown", "was not comparable: it could not take its place", "bad"),
        ("same", "^This student was v1, which was promoted before: training produced the same bytes.$", ""),
    ],
)
def test_the_report_shows_the_verdict(verdict: str, said: str, style: str, tmp_path: Path) -> None:
    view = promotion_view(comparison(verdict, change(20.0, 10.0, 0.5, low=-12.0, high=1.0)), tmp_path)
    assert re.search(said, view["headline"])
    assert verdict == "same" or view["headline"].startswith("Against v1, promoted before, this student was ")
    later = "points2model models shows whether it was promoted; a run decides that after this report."
    assert view["decision"] == ("" if verdict == "same" else later)
    assert view["reasons"] == ([] if verdict == "same" else ["So."])
    assert view["style"] == style
    whole, one = view["rows"]
    assert (whole["label"], whole["objects"], whole["main"]) == ("all classes", 3, True)
    assert whole["interval"] == "−12.0 to +1.0"
    assert whole["broken"] == "falls by more than 0.5" and one["broken"] == "falls by more than 5"


def test_the_report_of_a_first_model_has_no_table(tmp_path: Path) -> None:
    view = promotion_view(comparison("first", change(None, 10.0, 0.5), None), tmp_path)
    assert view["rows"] == []
    assert view["headline"] == "This student was the first model, so it could be promoted."
    assert view["reasons"] == []  # they say the same


@pytest.mark.parametrize(
    ("teacher", "student", "behind"),
    [
        (20.0, 19.5, False),
        (20.0, 19.499, True),
        (8.3, 2.1, True),
        (2.1, 8.3, False),
        (None, 3.0, False),
        (3.0, None, False),
    ],
)
def test_a_first_student_worse_than_its_teacher(
    teacher: float | None, student: float | None, behind: bool
) -> None:
    found = behind_teacher(teacher, student, CONFIG)
    assert (found is not None) == behind
    if found is not None:
        assert f"AP is {student:.2f}" in found and f"{teacher:.2f}: it falls by more than the 0.5" in found
