"""The tables of bench/quality.py, from what its lines measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_tables(work: Path) -> None:
    """AP and pseudo masks, a row a data set, share of strong images and seed."""
    console = Console(width=150)
    ap = Table("data", "strong", "seed", "teacher", "control", "rough", "student", "full", "student - control",
               "student / full", title="AP on val")  # fmt: skip
    masks = Table("data", "strong", "seed", "ours: rough", "refined", "at random: rough", "refined",
                  "paper's rule: rough", "refined", "at random: rough", "refined",
                  title="mean IoU of pseudo masks, clicks at centres unless said")  # fmt: skip
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
        ap.add_row(*row, *(_shown(one, "AP") for one in (teacher, *found.values(), full)), gain, part)
        quality = [
            _read(cell / name / "pseudo.json") for name in ("student", "random", "paper", "paper_random")
        ]
        masks.add_row(*row, *(_shown(one, key) for one in quality for key in ("rough_iou", "refined_iou")))
    console.print(ap)
    console.print(masks)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _shown(found: dict[str, Any], key: str) -> str:
    value = found.get(key)
    return "" if value is None else f"{value:.1f}"
