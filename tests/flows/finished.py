"""The small files of a finished project, and how its run fared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.promotion.rule import Comparison

SCORES = {"AP": 41.23, "AP50": 60.0, "AP75": 40.0, "APs": 1.0, "APm": None, "APl": 50.0}
PSEUDO = {"points": 1200, "masks": 1190, "rough_iou": 40.0, "refined_iou": 52.5} | {
    "refined_over_50": 60.0,
    "refined_over_75": None,
}


def stage(
    name: str, state: str = "Completed", message: str = "", outs: dict[str, str] | None = None
) -> dict[str, Any]:
    return {"name": name, "state": state, "seconds": 1.25, "message": message, "outs": outs or {}}


DONE = [
    stage("import_points", "Cached"),
    stage("evaluate", outs={"workspace/evaluation": "e" * 32 + ".dir"}),
    stage("compare", outs={"workspace/comparison": "c" * 32 + ".dir"}),
    stage("report", message="restored from the cache", outs={"workspace/report.html": "a" * 32}),
]


def classes(*aps: float | None) -> dict[str, Any]:
    rows = [
        {"category_id": n, "name": f"class_{n}", "instances": 1000 * n, "AP": ap}
        for n, ap in enumerate(aps, 1)
    ]
    return {"per_class": rows}


def comparison(version: str | None) -> dict[str, Any]:
    change = {
        "baseline": 40.0,
        "candidate": 41.23,
        "difference": 1.23,
        "low": -0.5,
        "high": 2.9,
        "broken": False,
    }
    none = dict.fromkeys(("baseline", "difference", "low", "high"))
    if version is None:
        change |= none
    falls = change | {"difference": -6.0, "low": None, "high": None, "broken": True}
    made = Comparison.model_validate_json(
        json.dumps(
            {
                "verdict": "first" if version is None else "worse",
                "reasons": ["AP of class_1 falls by more than the 5 that promotion.class_tolerance allows."],
                "baseline": {"version": version, "model": None if version is None else "b" * 32 + ".dir"},
                "model": "c" * 32 + ".dir",
                "overall": change,
                "classes": []
                if version is None
                else [falls | {"category_id": 1, "name": "class_1", "objects": 1000}],
                "only_baseline": [],
                "only_candidate": ["class_2"],
                "images": 5,
                "draws": 1000,
                "confidence": 0.95,
                "ap_tolerance": 0.5,
                "class_tolerance": 5.0,
            }
        )
    )
    content: dict[str, Any] = made.model_dump(mode="json")
    return content


def write_project(folder: Path) -> None:
    """What the summary reads of a finished project, at `folder`."""
    files = {
        "points/manifest.json": {
            "counts": {"points": 1200, "images": 14, "rejected": 3, "files_rejected": 1},
            "rejected_because": {"outside_image": 2, "unknown_image": 1},
        },
        "evaluation/metrics.json": {"teacher": SCORES, "student": {**SCORES, "AP": 45.0}, "pseudo": PSEUDO},
        "evaluation/details.json": {"teacher": classes(30.0, 20.0), "student": classes(35.0, None)},
        "comparison/comparison.json": comparison("v3"),
    }
    for name, content in files.items():
        path = folder / "workspace" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
