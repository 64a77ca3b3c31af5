from __future__ import annotations

from typing import Any

from tasks.reporting.review import SHOWN, review_view


def row(n: int, state: str) -> dict[str, Any]:
    return {"state": state, "reviewer": "anna", "action": "reject", "object_id": str(n)}


def test_no_decisions_no_section() -> None:
    assert review_view(None) is None


def test_counts_and_what_is_left_open() -> None:
    view = review_view(
        {
            "decisions": 1240,
            "states": {
                "honoured": 1100, "agrees": 4, "superseded": 60, "undone": 10, "contradicted": 30, "unknown_object": 36,
            },
            "actions": {"accept": 1000, "reject": 100, "complete": 4},
            "reviewers": {"anna": {"accept": 1000, "complete": 4}, "bob": {"reject": 100}},
            "objects_contradicted": 15,
            "contradicted": [row(n, "contradicted") for n in range(30)],
            "not_honoured": [row(n, "unknown_object") for n in range(36)],
        }
    )  # fmt: skip
    assert view is not None
    assert view.sentence == (
        "Honoured: 1,104 of 1,240 decisions; 70 were undone or followed by a later one; "
        "reviewers contradict each other on 15 objects; 36 can't be honoured."
    )
    assert view.columns == ["masks accepted", "objects rejected", "images complete"]
    assert [(one["label"], one["counts"]) for one in view.rows] == [
        ("all", [1000, 100, 4]), ("anna", [1000, 0, 4]), ("bob", [0, 100, 0]),
    ]  # fmt: skip
    assert (len(view.open), view.more) == (SHOWN, 66 - SHOWN)


def test_all_honoured() -> None:
    view = review_view(
        {
            "decisions": 1, "states": {"honoured": 1}, "actions": {"accept": 1}, "reviewers": {"anna": {"accept": 1}},
            "objects_contradicted": 0, "contradicted": [], "not_honoured": [],
        }
    )  # fmt: skip
    assert view is not None and view.sentence == "Honoured: 1 of 1 decision."
    assert (view.open, view.more) == ([], 0)
