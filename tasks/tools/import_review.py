"""The corrections of a label tool, written as decisions of a reviewer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.decisions.record import check_reviewer
from data.decisions.store import DecisionLog, read_decisions
from data.errors import DataError
from data.tables import POINTS, SENT, Split, read_parquet
from tasks.common.errors import TaskError
from tasks.review.corrections import read_corrections
from tasks.review.imports import REVIEWED, digest_of, imported_by, known_objects, plan_import
from tasks.review.objects import check_current
from tasks.tools.export_labels import SENT_FILE, read_pseudo

COUNTS = ("images", "marked", "unchanged", "matched_by_id", "matched_by_iou", "known", "skipped")


def import_review(
    file: Path,
    decisions: Path,
    workspace: Path,
    reviewer: str,
    *,
    sent: Path | None = None,
    reviewed: str = "marked",
    skip_contradicted: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Writes the decisions of `plan_import`, all at once.

    Args:
        file: the tool's export; a folder for formats that are one.
        decisions: the folder of decisions.
        sent: the folder that `export --to` wrote; None: the masks as they are now.
        reviewed: one of `REVIEWED`.
        dry_run: write nothing.

    Returns:
        The summary: reviewer, dry_run, actions (counts of the decisions), counts (those of `COUNTS`), boxes.

    Raises:
        DataError: faults of the file, all of them; nothing is written.
        TaskError: a folder that isn't an export for a label tool; pseudo masks of another data set.
    """
    check_reviewer(reviewer)
    if reviewed not in REVIEWED:
        raise TaskError(f"--reviewed: found {reviewed!r}, expected one of {', '.join(REVIEWED)}")
    weak = Split.open(workspace / "dataset" / "weak")
    before = read_decisions(decisions).decisions
    pseudo = read_pseudo(workspace)
    check_current(pseudo, weak, workspace / "pseudo")
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    known = known_objects(pseudo, points, weak, before, None if sent is None else _sent(sent))
    corrections = read_corrections(file, weak)
    plan = plan_import(file, corrections, known, before, reviewer, reviewed, skip_contradicted)
    if plan.faults:
        raise DataError(plan.faults)
    if plan.decisions and not dry_run:
        DecisionLog(decisions, reviewer).extend(plan.decisions)
    return {
        "reviewer": reviewer,
        "dry_run": dry_run,
        "actions": dict(sorted(Counter(action for action, _ in plan.decisions).items())),
        "counts": {name: plan.counts[name] for name in COUNTS},
        "boxes": corrections.boxes,
    }


def undo_import(file: Path, decisions: Path, reviewer: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Undoes all decisions of a reviewer that came from a file, at once; later ones on the same objects stay.

    Args:
        file: the tool's export, as it was imported.
        decisions: the folder of decisions.
        dry_run: write nothing.

    Returns:
        The summary: reviewer, dry_run, actions (counts of what is undone).

    Raises:
        DataError: the file can't be read.
        TaskError: nothing that counts came from it.
    """
    check_reviewer(reviewer)
    found = imported_by(read_decisions(decisions).decisions, reviewer, digest_of(file))
    if not found:
        raise TaskError(
            f"{file}: found no decision of {reviewer} that came from this file and isn't undone; expected the file as "
            "it was imported. Next: name it, or the reviewer with --reviewer"
        )
    if not dry_run:
        DecisionLog(decisions, reviewer).extend([("undo", {"undoes": one.id}) for one in found])
    actions = dict(sorted(Counter(one.action for one in found).items()))
    return {"reviewer": reviewer, "dry_run": dry_run, "actions": actions}


def _sent(folder: Path) -> pa.Table:
    path = folder / SENT_FILE
    if not path.is_file():
        raise TaskError(
            f"--sent {folder}: found no {SENT_FILE}; expected a folder that `points2model export --to` wrote"
        )
    return read_parquet(path, SENT)
