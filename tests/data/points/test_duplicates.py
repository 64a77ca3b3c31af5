from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.points.duplicates import find_duplicates
from data.points.record import PointRecord


def click(x: float, y: float = 3.5, annotator: str | None = "ann", **changes: Any) -> PointRecord:
    return PointRecord("a.json", f"{x} {y} {annotator}", "a.png", "bolt", x, y, annotator)._replace(**changes)


def found(
    records: list[PointRecord], radius: float = 0.0, classes: list[int] | None = None
) -> dict[int, str]:
    ids = np.ones(len(records), np.int64)
    problems = find_duplicates(records, ids, ids if classes is None else np.array(classes), radius)
    return {n: problem.reason for n, problem in problems.items()}


@pytest.mark.parametrize(
    ("records", "radius", "expected"),
    [
        ([click(7.2), click(7.9)], 0, {1: "duplicate_point"}),
        ([click(7.9), click(8.0)], 0, {}),
        ([click(7.9), click(8.0)], 9, {}),  # one annotator's clicks are two objects
        ([click(7.2), click(7.9, annotator="bob")], 0, {1: "duplicate_annotator"}),
        ([click(7.2), click(9.9, annotator="bob")], 2, {}),
        ([click(7.2), click(9.1, annotator="bob")], 2, {1: "duplicate_annotator"}),
        ([click(7.5), click(9.5, annotator="bob")], 2, {1: "duplicate_annotator"}),  # just the radius
        ([click(7.5), click(9.515625, annotator="bob")], 2, {}),
        ([click(7.2), click(9.1, annotator=None)], 2, {}),  # whose click it is must be known
        ([click(7.2), click(8.1, 4.4, annotator="bob"), click(7.2, 5.1, annotator="bob")], 3,
         {1: "duplicate_annotator"}),
        # the nearest of two counts, and bob's second is the other object
        ([click(5.5), click(8.5), click(8.6, 4.5, annotator="bob"), click(6.6, 4.5, annotator="bob")], 3,
         {2: "duplicate_annotator", 3: "duplicate_annotator"}),
        ([click(7.2), click(8.2, annotator="bob"), click(8.3, 4.5, annotator="eve")], 3,
         {1: "duplicate_annotator", 2: "duplicate_annotator"}),
        ([click(7.2, source_file="1"), click(7.2, source_file="2")], 0, {1: "same_record"}),
        ([click(7.2, source_file="1"), click(7.3, source_file="2")], 0, {1: "duplicate_point"}),
        ([click(7.2, labelled_at="2024-02"), click(7.9, labelled_at="2024-01-01T00:00:00Z")], 0,
         {0: "duplicate_point"}),
        ([click(7.2), click(7.9, labelled_at="2024-01-01")], 0, {0: "duplicate_point"}),  # a time goes before none
        ([click(7.2, labelled_at="2024-01-02"), click(9, annotator="bob", labelled_at="2024-01-01T23:00:00-05:00")], 3,
         {1: "duplicate_annotator"}),
        ([], 3, {}),
    ],
)  # fmt: skip
def test_cases(records: list[PointRecord], radius: float, expected: dict[int, str]) -> None:
    assert found(records, radius) == expected


def test_another_class_is_another_object() -> None:
    assert found([click(7.2), click(7.2, annotator="bob")], 5, classes=[1, 2]) == {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 12), st.floats(0, 12), st.sampled_from(["ann", "bob", None]), st.integers(1, 2)
        ),
        max_size=25,
    ),
    st.floats(0.5, 6),
)
def test_no_two_annotators_within_the_radius_stand_for_nothing(
    clicks: list[tuple[float, float, str | None, int]], radius: float
) -> None:
    records = [click(x, y, annotator) for x, y, annotator, _ in clicks]
    classes = [c for *_, c in clicks]
    problems = found(records, radius, classes)
    left = [n for n in range(len(records)) if n not in problems]
    pixels = [(classes[n], int(clicks[n][0]), int(clicks[n][1])) for n in left]
    assert len(set(pixels)) == len(pixels)
    # A slow second opinion: each click that went has one that stays, of the same class, in its pixel or in reach.
    for n, reason in problems.items():
        x, y, annotator, kind = clicks[n]
        near = [
            m
            for m in left
            if classes[m] == kind
            and (
                (int(clicks[m][0]), int(clicks[m][1])) == (int(x), int(y))
                or (
                    np.hypot(clicks[m][0] - x, clicks[m][1] - y) <= radius
                    and clicks[m][2] not in (annotator, None)
                    and reason == "duplicate_annotator"
                )
            )
        ]
        assert near or any(
            (int(clicks[m][0]), int(clicks[m][1]), classes[m]) == (int(x), int(y), kind)
            for m in problems
            if m != n
        )
