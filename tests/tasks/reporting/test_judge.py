"""The report's table on the proposers, counted by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from data.tables import PSEUDO, Category
from tasks.labelling.gate import unmeasured
from tasks.labelling.judge import Judge
from tasks.reporting.judge import judge_view

CLASSES = [Category(1, "disc"), Category(2, "bar")]
LABELS = {"small": "under 3", "medium": "3 to 10", "large": "over 10"}


def row(category: int, area: float | None, reason: str | None) -> dict[str, Any]:
    return {**dict.fromkeys(PSEUDO.names), "category_id": category, "area": area, "reason": reason}


ROWS = [
    row(1, 4.0, "drawn by teacher"),
    row(1, 9.0, "gate: small; drawn by student"),
    row(2, 10.0, "drawn by student"),
    row(2, 400.0, "drawn by student"),
    row(2, None, "the teacher draws no mask at this point"),
]


def test_wins_by_size_and_class() -> None:
    judge = Judge(
        proposers=("teacher", "student"), typical_areas=(1.0, 1.0), images=1, clicks=40,
        iou={"teacher": 50.0, "student": 60.0}, judged_iou=59.0, best_iou=70.0, alone="student", rules={},
        gates=dict.fromkeys(("teacher", "student"), unmeasured(0, enlarge=1.5, rounds=1)),
    )  # fmt: skip
    found = judge_view(judge, pa.Table.from_pylist(ROWS, schema=PSEUDO), CLASSES, [3, 10], LABELS)
    assert found is not None
    assert found["iou"] == [50.0, 60.0]
    assert "at 40 clicks on 1 held-out image: teacher 50.0, student 60.0; by the judge" in found["sentence"]
    assert found["sentence"].endswith("student draws all masks.")
    of_rounds = judge_view(judge, PSEUDO.empty_table(), CLASSES, [3, 10], LABELS, [55.25, None])
    assert of_rounds is not None
    assert of_rounds["sentence"].endswith("by round: round 1 55.2, round 2 not measured, round 3 60.0.")
    assert [(one["by"], one["rows"]) for one in found["gates"]] == [("student", []), ("teacher", [])]
    assert [(one["label"], one["counts"]) for one in found["rows"]] == [
        ("all", [1, 3]), ("under 3", [1, 1]), ("3 to 10", [0, 1]), ("over 10", [0, 1]), ("disc", [1, 1]),
        ("bar", [0, 2]),
    ]  # fmt: skip


def test_with_one_proposer_there_is_no_table() -> None:
    assert judge_view(None, PSEUDO.empty_table(), CLASSES, [3, 10], LABELS) is None
