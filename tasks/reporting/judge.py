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
) -> dict[str, Any] | None:
    """The values of report.html.j2; None without a judge.

    Args:
        judge: None where the teacher alone draws.
        pseudo: table PSEUDO.
        bounds: square roots of the areas between small, medium and large masks.
        labels: of these sizes, in words.
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
        "sentence": in_words(judge) + ".",
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
