"""What is said of several trainings, and when the promoted model's own ones count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.promotion.baseline import Trainings
from tasks.promotion.rule import change, moved
from tasks.promotion.trainings import fitting, other_side_text, summary_text
from tasks.reporting.promotion import promotion_view
from tests.tasks.promotion.test_rule import comparison

THREE = Trainings(seeds=[4, 5, 6], AP=[48.8, 48.3, 48.4], classes={1: [50.1, 49.2, 50.0], 7: [None] * 3})


def test_mean_and_deviation_are_those_of_a_sample() -> None:
    """(48.8 + 48.3 + 48.4) / 3 = 48.5; squares of 0.3, 0.2, 0.1 are 0.14 in all, halved 0.07, its root 0.2646."""
    assert (THREE.mean(), THREE.mean(1), THREE.mean(7), THREE.first(1)) == (48.5, 49.767, None, 50.1)
    said = "AP over 3 trainings (seeds 4 to 6): 48.50 ± 0.26 (sd); 48.80, 48.30, 48.40."
    assert summary_text(THREE) == said
    nothing = Trainings(seeds=[0, 1], AP=[None, None], classes={})
    assert summary_text(nothing) == "AP over 2 trainings (seeds 0 to 1) is undefined."


@pytest.mark.parametrize(
    ("ap", "by_class", "fits"),
    [
        (48.8, {1: 50.1, 7: None}, True),
        (48.801, {1: 50.1, 7: None}, False),
        (48.8, {1: 50.0, 7: None}, False),
        (48.8, {1: 50.1}, False),
        (48.8, {1: 50.1, 7: None, 9: 12.0}, False),
        (None, {}, False),
    ],
)
def test_trainings_count_where_the_model_has_the_same_ap(ap: Any, by_class: Any, fits: bool) -> None:
    assert fitting(THREE, ap, by_class) is fits
    assert not fitting(None, ap, by_class)


def test_the_other_side_is_named() -> None:
    assert other_side_text("v2", THREE, True).endswith("with that of the 3 trainings of v2.")
    assert "of v2 alone: its 3 trainings were measured on other images" in other_side_text("v2", THREE, False)
    assert other_side_text("v2", None, False).endswith("with the AP of v2, which was trained once.")


def test_an_interval_moves_with_its_difference() -> None:
    single = change(40.0, 41.0, 0.5, low=-0.75, high=2.5)
    found = moved(single, change(40.25, 40.5, 0.5))
    assert (found.difference, found.low, found.high) == (0.25, -1.5, 1.75)
    assert moved(change(40.0, 41.0, 0.5), change(40.25, 40.5, 0.5)).low is None


@pytest.mark.parametrize("verdict", ["better", "first", "same"])
def test_the_report_says_it_once(verdict: str, tmp_path: Path) -> None:
    """Of a first model, and of the promoted one itself, the headline has the first reason."""
    made = comparison(verdict, change(20.0, 21.0, 0.5), None if verdict == "first" else "v1")
    found = made.model_copy(update={"trainings": THREE, "reasons": ["So.", summary_text(THREE)]})
    view = promotion_view(found, tmp_path)
    assert view["reasons"] == (["So."] if verdict == "better" else []) + [summary_text(THREE)]
    assert view["means"] and not promotion_view(made, tmp_path)["means"]
