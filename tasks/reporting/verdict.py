"""The report's first section: what a person must know before trusting the model, most serious first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from tasks.labelling.gate import Gate
from tasks.labelling.judge import DRAWN_BY
from tasks.reporting.figures import count

LITTLE_AP = 5.0
"""Mask AP in percent below which a model is of no use."""
BEHIND = 0.5
"""AP points by which the student may be below its teacher."""
LOST_SHARE = 0.1
"""Of the clicks: with more that became no mask, or were rejected, something is wrong with them or with the teacher."""
FEW_STEPS = 1000
FEW_IMAGES, FEW_OBJECTS = 20, 100
"""On the validation images: with fewer, AP is uncertain by several points."""
MOST_REASONS = 8

Counts = Mapping[str, Mapping[str, Any]]


class Statement(NamedTuple):
    """A sentence or some; `style` is good, bad, or nothing for a remark."""

    style: str
    text: str


class Lost(NamedTuple):
    """Why clicks have no mask of their own."""

    what: str
    reason: str
    clicks: int


def verdict(
    metrics: Mapping[str, Mapping[str, Any]],
    counts: Counts,
    steps: int,
    masks: str,
    gates: Sequence[Gate],
) -> list[Statement]:
    """The statements.

    Args:
        metrics: metrics.json.
        counts: of each folder's manifest.
        steps: of the student's training.
        masks: `student.masks`.
        gates: of the refiner, for each proposer's masks.
    """
    found = [*_student(metrics, counts, steps), *_clicks(metrics["pseudo"], counts)]
    found += [*_remarks(counts, steps, masks, gates)]
    return found or [
        Statement("good", "No sign of trouble: the sections below show what the figures rest on.")
    ]


def _student(metrics: Mapping[str, Mapping[str, Any]], counts: Counts, steps: int) -> Iterator[Statement]:
    student, teacher = metrics["student"]["AP"], metrics["teacher"]["AP"]
    if student is None:
        yield Statement(
            "bad", "How good the student is isn't known: the validation images hold no objects. Name images with "
            "masks of objects as ingest.val."
        )  # fmt: skip
        return
    if student < LITTLE_AP:
        yield Statement(
            "bad", f"The student finds next to nothing (AP {student:.1f}). Most often its training is too short "
            f"(student.steps: {steps:,}), or the masks at the clicks are wrong: look at them below. "
            "points2model doctor checks the settings against the data."
        )  # fmt: skip
    if teacher is not None and student < teacher - BEHIND:
        yield Statement(
            "bad", f"The teacher, trained on the drawn masks alone, is better than the student: AP {teacher:.1f} "
            f"against {student:.1f}. If the student was trained long enough, the masks at the clicks do harm: look at "
            "them below; student.min_score leaves out doubtful ones."
        )  # fmt: skip


def _clicks(pseudo: Mapping[str, Any], counts: Counts) -> Iterator[Statement]:
    points, masks, rejected = pseudo["points"], pseudo["masks"], counts["points"]["rejected"]
    without = points - masks
    if points and without >= LOST_SHARE * points:
        yield Statement(
            "bad", f"{100 * without / points:.0f}% of the clicks became no mask ({without:,} of {points:,}): the table "
            "under Pseudo masks has the reasons."
        )  # fmt: skip
    if rejected and rejected >= LOST_SHARE * (points + rejected):
        yield Statement(
            "bad", f"{count(rejected, 'click')} of {points + rejected:,} {'was' if rejected == 1 else 'were'} "
            "rejected: workspace/points/rejected.parquet has each with its reason."
        )  # fmt: skip


def _remarks(counts: Counts, steps: int, masks: str, gates: Sequence[Gate]) -> Iterator[Statement]:
    if steps < FEW_STEPS:
        yield Statement(
            "", f"The student was trained for {count(steps, 'step')}, which is short: more (student.steps and "
            "teacher.steps, or a plan with a larger --budget) most often give a better model."
        )  # fmt: skip
    images, objects = counts["dataset/val"]["images"], counts["evaluation"]["val_instances"]
    if objects > 0 and (images < FEW_IMAGES or objects < FEW_OBJECTS):
        yield Statement(
            "", f"AP is measured on {count(images, 'image')} with {count(objects, 'object')}: another choice of so few "
            "may give several points more or less. It takes more images with masks to know better."
        )  # fmt: skip
    if masks == "refined" and not all(gate.bins for gate in gates):
        yield Statement(
            "", "Whether refining helps was not measured, and it is used for all masks: compare the rough and the "
            "refined masks below. If the rough ones are better, set student.masks to rough."
        )  # fmt: skip


def lost_clicks(pseudo: pa.Table, rejected: Mapping[str, int]) -> list[Lost]:
    """Why clicks became no mask, kept a rough one, or were rejected, the most frequent reasons of each.

    Args:
        pseudo: table PSEUDO.
        rejected: records of each reason, in one word, of the manifest of stage import_points.
    """
    groups: dict[str, Counter[str]] = {"no mask": Counter(), "rough mask": Counter(), "rejected": Counter()}
    names = {"empty": "no mask", "failed": "no mask", "rough": "rough mask"}
    for row in pseudo.group_by(["status", "reason"]).aggregate([([], "count_all")]).to_pylist():
        if row["status"] in names:
            why = row["reason"].partition(f"; {DRAWN_BY}")[0]  # the same reason for all proposers
            groups[names[row["status"]]][why] += row["count_all"]
    groups["rejected"].update({reason.replace("_", " "): n for reason, n in rejected.items()})
    found = []
    for what, reasons in groups.items():
        most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        found += [Lost(what, reason, n) for reason, n in most[:MOST_REASONS]]
        rest = sum(n for _, n in most[MOST_REASONS:])
        found += [Lost(what, f"{len(most) - MOST_REASONS} more reasons", rest)] if rest else []
    return found
