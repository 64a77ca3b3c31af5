"""The report's first section: which statements it makes of which figures, and why clicks have no refined mask."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest

from data.tables import PSEUDO
from tasks.labelling.gate import Bin, Comparison, Gate, unmeasured
from tasks.reporting.verdict import Lost, lost_clicks, verdict

GOOD: dict[str, Any] = {
    "student": 40.0,
    "teacher": 39.0,
    "points": 1000,
    "masks": 950,
    "rejected": 10,
    "steps": 1500,
    "masks_learnt": "refined",
    "images": 50,
    "objects": 400,
}
UNMEASURED = unmeasured(10, enlarge=1.5, rounds=1)
FIGURES = Comparison(images=3, objects=30, clicks=60, rough_iou=50.0, refined_iou=60.0, gain_error=1.0)
MEASURED = Gate(
    **UNMEASURED.model_dump() | {
        "all": FIGURES,
        "bins": [Bin(**FIGURES.model_dump(), area_from=0.0, area_to=None, use=True, decided_by="bin")],
    }
)  # fmt: skip


def statements(gate: Gate = MEASURED, **changed: Any) -> list[tuple[str, str]]:
    one = {**GOOD, **changed}
    metrics = {
        "student": {"AP": one["student"]}, "teacher": {"AP": one["teacher"]},
        "pseudo": {"points": one["points"], "masks": one["masks"]},
    }  # fmt: skip
    counts = {
        "points": {"rejected": one["rejected"]},
        "dataset/val": {"images": one["images"]},
        "evaluation": {"val_instances": one["objects"]},
    }
    return [tuple(found) for found in verdict(metrics, counts, one["steps"], one["masks_learnt"], [gate])]


@pytest.mark.parametrize(
    ("changed", "style", "words"),
    [
        ({"student": None, "teacher": None, "objects": 0}, "bad", "isn't known"),
        ({"student": 4.9, "teacher": 3.0}, "bad", r"next to nothing \(AP 4\.9\).*student\.steps: 1,500"),
        ({"student": 30.0, "teacher": 30.6}, "bad", r"AP 30\.6 against 30\.0"),
        ({"masks": 900}, "bad", r"10% of the clicks became no mask \(100 of 1,000\)"),
        ({"rejected": 112}, "bad", "112 clicks of 1,112 were rejected"),
        ({"rejected": 1, "points": 1, "masks": 1}, "bad", "1 click of 2 was rejected"),
        ({"images": 19}, "", "on 19 images with 400 objects"),
        ({"objects": 99}, "", "on 50 images with 99 objects"),
        ({"gate": UNMEASURED}, "", "Whether refining helps was not measured.*set student.masks to rough"),
        ({"steps": 999}, "", "trained for 999 steps, which is short"),
    ],
)
def test_each_statement_alone(changed: dict[str, Any], style: str, words: str) -> None:
    found = statements(**changed)
    assert [one[0] for one in found] == [style]
    assert re.search(words, found[-1][1])


@pytest.mark.parametrize(
    "changed",
    [{}, {"gate": UNMEASURED, "masks_learnt": "rough"}, {"steps": 1000}, {"student": 5.0, "teacher": 5.5},
     {"masks": 901}, {"rejected": 111}, {"images": 20, "objects": 100}, {"points": 0, "masks": 0, "rejected": 0}],
)  # fmt: skip
def test_no_sign_of_trouble_up_to_the_limits(changed: dict[str, Any]) -> None:
    assert [style for style, _ in statements(**changed)] == ["good"]


def test_a_bad_model_s_statements_are_all_there() -> None:
    found = statements(UNMEASURED, student=2.1, teacher=8.0, masks=680, images=3)
    assert [style for style, _ in found] == ["bad", "bad", "bad", "", ""]


def test_lost_clicks_by_reason() -> None:
    rows = [
        *[{"status": "ok", "reason": None}] * 5,
        *[{"status": "empty", "reason": "nothing drawn"}] * 2,
        *[{"status": "empty", "reason": "taken"}] * 3,
        {"status": "failed", "reason": "taken"},
        {"status": "rough", "reason": "gate: small"},
    ]
    table = pa.Table.from_pylist([dict.fromkeys(PSEUDO.names) | row for row in rows], schema=PSEUDO)
    assert lost_clicks(table, {"unknown_image": 7}) == [
        Lost("no mask", "taken", 4),
        Lost("no mask", "nothing drawn", 2),
        Lost("rough mask", "gate: small", 1),
        Lost("rejected", "unknown image", 7),
    ]


def test_lost_clicks_of_several_proposers_count_together() -> None:
    reasons = ("gate: small; drawn by teacher", "gate: small; drawn by sam-1", "gate: small")
    rows = [{"status": "rough", "reason": reason} for reason in reasons]
    rows.append({"status": "ok", "reason": "drawn by teacher"})
    table = pa.Table.from_pylist([dict.fromkeys(PSEUDO.names) | row for row in rows], schema=PSEUDO)
    assert lost_clicks(table, {}) == [Lost("rough mask", "gate: small", 3)]


def test_rare_reasons_are_one_row() -> None:
    rejected = {f"reason {n}": 20 - n for n in range(10)}
    found = lost_clicks(PSEUDO.empty_table(), rejected)
    assert len(found) == 9
    assert found[-1] == Lost("rejected", "2 more reasons", 12 + 11)
