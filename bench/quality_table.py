"""The tables of bench/quality.py, from what its lines measured."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

MODELS = ("control", "rough", "student", "rounds", "again", "sam")
"""Variants of the student, see bench/quality.py."""


def print_tables(work: Path, *, as_json: bool) -> None:
    """AP and pseudo masks, a row a data set, share of strong images and seed; `as_json`: a line of JSON each too."""
    console = Console(width=150)
    ap = Table("data", "strong", "seed", "teacher", *MODELS, "full", "student - control", "gap closed",
               "pseudo masks: rough", "refined", "of round 2", title="AP on val, and pseudo masks")  # fmt: skip
    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    rules = Table("data", "strong", "seed", "click", "ours: rough", "refined", "paper's rule: rough", "refined",
                  "objects", title="mean IoU by the rule, same networks, a tenth of the weak images")  # fmt: skip
    judged = Table("data", "strong", "seed", "line", "click", "each alone", "by the judge", "by its rules",
                   "best of all", "objects", title="mean IoU of final masks by proposer")  # fmt: skip
    for cell in sorted(work.glob("*/*-*")):
        share, _, seed = cell.name.rpartition("-")
        if share == "full":
            continue
        full = _read(cell.parent / f"full-{seed}" / "full" / "ap_student.json")
        found = {name: _read(cell / name / "ap_student.json") for name in MODELS}
        teacher = _read(cell / "student" / "ap_teacher.json")
        student, control = found["student"].get("AP"), found["control"].get("AP")
        gain = f"{student - control:+.1f}" if student is not None and control is not None else ""
        closed = gap_closed(control, student, full.get("AP"))
        part = "" if closed is None else f"{closed:.0f}%"
        known = {
            name: one["AP"]
            for name, one in {**found, "teacher": teacher, "full": full}.items()
            if "AP" in one
        }
        rows.setdefault((cell.parent.name, share), []).append(known)
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
            *row, *(_shown(one, "AP") for one in (teacher, *found.values(), full)), gain, part, *quality,
            _shown(_read(cell / "rounds" / "pseudo.json"), "refined_iou"),
        )  # fmt: skip
        for click in ("centre", "random"):
            keys = [f"{rule}_{click}_{kind}" for rule in ("ours", "paper") for kind in ("rough", "refined")]
            rules.add_row(
                *row, click, *(_shown(measured, key) for key in keys), str(measured.get("objects", ""))
            )
        for line in ("rounds", "sam"):
            _add_judged(judged, [*row, line], _read(cell / line / "judge.json"))
    console.print(ap)
    console.print(_over_seeds(rows))
    console.print(rules)
    console.print(judged)


def _add_judged(table: Table, row: list[str], found: dict[str, Any]) -> None:
    """Adds a row for each kind of click."""
    ends = ("judge", "rules", "best of all")
    for click in ("centre", "random") if found else ():
        names = [key.removesuffix(f"_{click}") for key in found if key.endswith(f"_{click}")]
        alone = ", ".join(f"{name} {found[f'{name}_{click}']:.1f}" for name in names if name not in ends)
        figures = [_shown(found, f"{name}_{click}") for name in ends]
        table.add_row(*row, click, alone, *figures, str(found["objects"]))


def gap_closed(control: float | None, student: float | None, full: float | None) -> float | None:
    """Which share of the gain that all true masks would bring the student reaches, in percent; None without a gap."""
    if control is None or student is None or full is None or full <= control:
        return None
    return 100 * (student - control) / (full - control)


def _over_seeds(rows: dict[tuple[str, str], list[dict[str, float]]]) -> Table:
    """Mean and standard deviation (of a sample) of AP, where there are several seeds."""
    table = Table("data", "strong", "seeds", "teacher", *MODELS, "full", title="AP over seeds, mean ± sd")
    for (name, share), seeds in sorted(rows.items()):
        if len(seeds) < 2:
            continue
        cells = []
        for model in ("teacher", *MODELS, "full"):
            known = [one[model] for one in seeds if model in one]
            cells.append(f"{mean(known):.1f} ± {stdev(known):.1f}" if len(known) > 1 else "")
        table.add_row(name, f"{100 * float(share):g}%", str(len(seeds)), *cells)
    return table


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _shown(found: dict[str, Any], key: str) -> str:
    value = found.get(key)
    return "" if value is None else f"{value:.1f}"
