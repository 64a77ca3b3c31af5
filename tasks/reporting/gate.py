"""The report's section on the gate: the gain of refinement on held-out images, and where refinement is used."""

from __future__ import annotations

import math
from typing import Any

from tasks.labelling.gate import Comparison, Gate
from tasks.reporting.figures import count

CLICK_WORDS = {"random": "clicks anywhere", "centre": "clicks at the centre"}


def gate_view(gate: Gate, refused: int, masks: int) -> dict[str, Any]:
    """`sentence`, `rows` (empty where nothing was measured) and `steps`, for report.html.j2.

    Args:
        refused: points whose masks the gate kept rough.
        masks: points that have a mask.
    """
    uses = {one.use for one in gate.bins}
    rows = [_row("all", "", gate.all, uses.pop() if len(uses) == 1 else None, main=True)]
    rows += [
        _row(CLICK_WORDS.get(click, click), "", figures, None) for click, figures in gate.by_click.items()
    ]
    for one in gate.bins:
        note = "too few objects: as all" if one.decided_by == "all" else ""
        rows.append(_row(size_words(one.area_from, one.area_to), note, one, one.use))
    return {
        "sentence": sentence(gate, refused, masks),
        "rows": rows if gate.bins else [],
        "steps": {step: iou for step, iou in gate.refined_iou_by_step.items() if iou is not None},
        "step": gate.step,
    }


def sentence(gate: Gate, refused: int, masks: int) -> str:
    """What the gate decided."""
    if not gate.bins:
        why = (
            f"On {count(gate.held_out_images, 'held-out image')} there was no mask to refine"
            if gate.held_out_images
            else "No strong images were held out (teacher.holdout)"
        )
        return f"{why}, so the gain of refining was not measured. Refining is always used."
    uses = [one.use for one in gate.bins]
    kept = f"{refused:,} of {count(masks, 'pseudo mask')} {'stays' if refused == 1 else 'stay'} rough."
    measured = (
        f"On {count(gate.held_out_images, 'image')} held out from training, refining changes the mean IoU "
        f"of {count(gate.all.objects, 'object')} from {gate.all.rough_iou:.1f} to {gate.all.refined_iou:.1f}."
    )
    if all(uses):
        doubt = (gate.all.refined_iou or 0.0) <= (gate.all.rough_iou or 0.0)
        return f"{measured} {'That may be chance; it' if doubt else 'It'} is used at all sizes."
    if not any(uses):
        return f"{measured} It does not help there, so it is not used: {kept}"
    sizes = [size_words(one.area_from, one.area_to) for one in gate.bins if not one.use]
    return f"{measured} It is not used for rough masks of {' and '.join(sizes)}, where it lowers IoU: {kept}"


def size_words(low: float, high: float | None) -> str:
    """A range of areas in pixels as squared sides, like the other sizes of the report."""
    if high is None:
        return f"over {math.sqrt(low):.0f}² px" if low else "any size"
    return (
        f"{math.sqrt(low):.0f}² to {math.sqrt(high):.0f}² px" if low else f"under {math.sqrt(high):.0f}² px"
    )


def _row(label: str, note: str, figures: Comparison, used: bool | None, main: bool = False) -> dict[str, Any]:
    return {
        "label": label,
        "note": note,
        "objects": figures.objects,
        "clicks": figures.clicks,
        "rough": figures.rough_iou,
        "refined": figures.refined_iou,
        "used": used,
        "main": main,
    }
