"""The score from which on a model's detections are best kept, as stage evaluate chose it on the validation images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.common.errors import TaskError
from tasks.promotion.baseline import MODEL, VERSION, folder_hash
from tasks.promotion.registry import Registry


def chosen_min_score(model: Path) -> float | None:
    """Of a model of the registry by its entry, of one in a workspace by its evaluation; None if there is none.

    An evaluation of another model that was in the same folder doesn't count.
    """
    folder = model.resolve()
    if folder.name == MODEL and VERSION.fullmatch(folder.parent.name):
        try:
            entry = Registry(folder.parents[1]).entry(folder.parent.name)
        except TaskError:
            return None
        return min_score_of(entry.metrics, "student") if entry.model == folder_hash(folder) else None
    evaluation = folder.parent / "evaluation"
    try:
        details, metrics = (
            json.loads((evaluation / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("details", "metrics")
        )
        evaluated = details[folder.name]["model"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return min_score_of(metrics, folder.name) if evaluated == folder_hash(folder) else None


def min_score_of(metrics: Mapping[str, Any], model: str) -> float | None:
    """`min_score` of a model in the content of metrics.json; None if it isn't there, or if none could be chosen."""
    value = metrics.get(model, {}).get("min_score")
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None
