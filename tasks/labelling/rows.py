"""Rows of the pseudo labels: masks become run-length codes, boxes, areas. On the CPU, of one image at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data.masks.rle import area, bbox_xywh, encode_many, iou_matrix
from data.tables import PSEUDO
from tasks.labelling.parts import Clicks
from tasks.labelling.types import Answer

TAKEN = "all pixels of its mask are likelier another point's"


def rows_of(answer: Answer) -> pa.Table:
    """PSEUDO rows of points of an image, in their order."""
    clicks, facts = answer.clicks, answer.facts
    height, width = answer.rough.shape[1:]
    rough, final = encode_many(answer.rough), encode_many(answer.final)
    held = _contains(answer.final, clicks)
    columns = {
        "level": facts.level.tolist(), "class_score": facts.class_score.tolist(),
        "maskness": facts.maskness.tolist(), "score": facts.score.tolist(),
    }  # fmt: skip
    rows = []
    for k in range(len(clicks)):
        row: dict[str, Any] = {name: column[k] for name, column in columns.items()}
        if area(rough[k], height, width) == 0:
            reason = TAKEN if facts.drawn[k] else "the teacher draws no mask at this point"
            rows.append(_row(clicks, k, status="empty", reason=reason, **row))
            continue
        rle = final[k]
        if facts.taken[k]:
            row |= {"status": "rough", "reason": f"refined, {TAKEN}"}
        elif facts.kept_rough[k]:
            row |= {"status": "rough", "reason": facts.refusals[k] or "refinement came out empty"}
        else:
            iou = iou_matrix([rough[k]], [rle], height, width)[0, 0]
            row |= {"status": "ok", "refined_rle": rle, "iou_rough_refined": float(iou)}
        row |= {
            "rough_rle": rough[k],
            "bbox_xywh": list(bbox_xywh(rle, height, width)),
            "area": float(area(rle, height, width)),
            "contains_point": held[k],
        }
        rows.append(_row(clicks, k, **row))
    return pa.Table.from_pylist(rows, schema=PSEUDO)


def _contains(masks: Tensor, clicks: Clicks) -> list[bool]:
    """Whether masks [K, H, W] hold their points' pixels."""
    limit = np.array([masks.shape[2] - 1, masks.shape[1] - 1])
    x, y = torch.from_numpy(np.clip(clicks.xy, 0, limit).astype(np.int64)).to(masks.device).unbind(1)
    held: list[bool] = masks[torch.arange(len(clicks), device=masks.device), y, x].tolist()
    return held


def failed_rows(clicks: Clicks, reason: str) -> pa.Table:
    """PSEUDO rows of the points of an image that could not be read."""
    rows = [_row(clicks, k, status="failed", reason=reason) for k in range(len(clicks))]
    return pa.Table.from_pylist(rows, schema=PSEUDO)


def _row(clicks: Clicks, k: int, **facts: Any) -> dict[str, Any]:
    """A PSEUDO row: the point's ids and what is known; all else null."""
    ids = {
        "point_id": clicks.point_ids[k],
        "image_id": clicks.image_id,
        "category_id": int(clicks.category_ids[k]),
    }
    return {**dict.fromkeys(PSEUDO.names), **ids, **facts}
