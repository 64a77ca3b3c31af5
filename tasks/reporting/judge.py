"""The report's table on the proposers: how good each is on held-out images, and whose masks are used how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data.tables import Category
from tasks.labelling.gate import REFUSAL
from tasks.labelling.judge import DRAWN_BY, Judge, in_words
from tasks.reporting.gate import gate_view
from tasks.scoring.metrics import SIZES


def judge_view(
    judge: Judge | None,
    pseudo: pa.Table,
    categories: Sequence[Category],
    bounds: Sequence[float],
    labels: Mapping[str, str],
    earlier: Sequence[float | None] = (),
) -> dict[str, Any] | None:
    """The values of report.html.j2; None without a judge.

    Args:
        judge: None where the teacher alone draws.
        pseudo: table PSEUDO.
        bounds: square roots of the areas between small, medium and large masks.
        labels: of these sizes, in words.
        earlier: held-out IoU of the masks of the rounds before this one, in percent; None where not measured.
    """
    if judge is None:
        return None
    names = {category.id: category.name for category in categories}
    counts: dict[str, Counter[str]] = {}
    refused: Counter[str] = Counter()
    for row in (
        pseudo.select(["reason", "area", "category_id"]).filter(pc.is_valid(pseudo["area"])).to_pylist()
    ):
        by = row["reason"].rpartition(DRAWN_BY)[2]
        refused[by] += row["reason"].startswith(REFUSAL)
        size = SIZES[sum(row["area"] > bound**2 for bound in bounds)]
        for group in ("all", labels[size], names[row["category_id"]]):
            counts.setdefault(group, Counter())[by] += 1
    groups = ["all", *labels.values(), *(names.values() if len(names) > 1 else ())]
    return {
        "sentence": f"{in_words(judge)}.{_by_round([*earlier, judge.final_iou])}",
        "proposers": judge.proposers,
        "gates": [
            {"by": name, **gate_view(judge.gates[name], refused[name], masks)}
            for name, masks in counts.get("all", Counter()).most_common()
        ],
        "iou": [judge.iou.get(name) for name in judge.proposers],
        "rows": [
            {
                "label": group,
                "counts": [counts[group][name] for name in judge.proposers],
                "main": group == "all",
            }
            for group in groups
            if group in counts
        ],
    }


def _by_round(figures: Sequence[float | None]) -> str:
    """The held-out IoU of each round's masks; nothing for one round."""
    if len(figures) < 2:
        return ""
    each = (
        f"round {number} {'not measured' if iou is None else f'{iou:.1f}'}"
        for number, iou in enumerate(figures, start=1)
    )
    return f" The masks in use, by round: {', '.join(each)}."
