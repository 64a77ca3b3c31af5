"""The tables of bench/quality.py, from what its lines measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_tables(work: Path, *, as_json: bool) -> None:
    """AP and pseudo masks, a row a data set, share of strong images and seed; `as_json`: a line of JSON each too."""
    console = Console(width=150)
    ap = Table("data", "strong", "seed", "teacher", "control", "rough", "student", "full", "student - control",
               "student / full", "pseudo masks: rough", "refined", title="AP on val, and pseudo masks")  # fmt: skip
    rules = Table("data", "strong", "seed", "click", "ours: rough", "refined", "paper's rule: rough", "refined",
                  "objects", title="mean IoU by the rule, same networks, a tenth of the weak images")  # fmt: skip
    for cell in sorted(work.glob("*/*-*")):
        share, _, seed = cell.name.rpartition("-")
        if share == "full":
            continue
        full = _read(cell.parent / f"full-{seed}" / "full" / "ap_student.json")
        found = {name: _read(cell / name / "ap_student.json") for name in ("control", "rough", "student")}
        teacher = _read(cell / "student" / "ap_teacher.json")
        student, control = found["student"].get("AP"), found["control"].get("AP")
        gain = f"{student - control:+.1f}" if student is not None and control is not None else ""
        part = f"{100 * student / full['AP']:.0f}%" if student is not None and full.get("AP") else ""
        row = [cell.parent.name, f"{100 * float(share):g}%", seed]
        pseudo, measured = _read(cell / "student" / "pseudo.json"), _read(cell / "student" / "rules.json")
        if as_json:
            facts = {"data": cell.parent.name, "strong": float(share), "seed": int(seed)}
            scores = {"teacher": teacher, **found, "full": full}
            facts |= {name: scored["AP"] for name, scored in scores.items() if "AP" in scored}
            print(
                json.dumps(
                    facts | {f"{kind}_iou": pseudo.get(f"{kind}_iou") for kind in ("rough", "refined")}
                )
            )
        quality = [_shown(pseudo, f"{kind}_iou") for kind in ("rough", "refined")]
        ap.add_row(
            *row, *(_shown(one, "AP") for one in (teacher, *found.values(), full)), gain, part, *quality
        )
        for click in ("centre", "random"):
            keys = [f"{rule}_{click}_{kind}" for rule in ("ours", "paper") for kind in ("rough", "refined")]
            rules.add_row(
                *row, click, *(_shown(measured, key) for key in keys), str(measured.get("objects", ""))
            )
    console.print(ap)
    console.print(rules)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _shown(found: dict[str, Any], key: str) -> str:
    value = found.get(key)
    return "" if value is None else f"{value:.1f}"
