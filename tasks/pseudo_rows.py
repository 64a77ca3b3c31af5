"""Rows of the pseudo labels: masks become run-length codes, boxes, areas. On the CPU, of one image at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from data.masks import area, bbox_xywh, encode, iou_matrix
from data.tables import PSEUDO
from tasks.labeller import Answer
from tasks.pseudo_parts import Clicks

TAKEN = "all pixels of its mask are likelier another point's"


def rows_of(answer: Answer) -> pa.Table:
    """PSEUDO rows of an image's points, in their order."""
    clicks = answer.clicks
    height, width = answer.rough.shape[1:]
    rows = []
    for k in range(len(clicks.point_ids)):
        facts: dict[str, Any] = {
            "level": int(answer.level[k]),
            "class_score": float(answer.class_score[k]),
            "maskness": float(answer.maskness[k]),
            "score": float(answer.score[k]),
        }
        if not answer.rough[k].any():
            reason = TAKEN if answer.drawn[k] else "the teacher draws no mask at this point"
            rows.append(_row(clicks, k, status="empty", reason=reason, **facts))
            continue
        rough_rle = encode(answer.rough[k])
        mask, rle = answer.final[k], rough_rle
        if answer.taken[k]:
            facts |= {"status": "rough", "reason": f"refined, {TAKEN}"}
        elif answer.kept_rough[k]:
            facts |= {"status": "rough", "reason": answer.refusals[k] or "refinement came out empty"}
        else:
            rle = encode(mask)
            iou = iou_matrix([rough_rle], [rle], height, width)[0, 0]
            facts |= {"status": "ok", "refined_rle": rle, "iou_rough_refined": float(iou)}
        x, y = (int(np.clip(at, 0, side - 1)) for at, side in zip(clicks.xy[k], (width, height), strict=True))
        facts |= {
            "rough_rle": rough_rle,
            "bbox_xywh": list(bbox_xywh(rle, height, width)),
            "area": float(area(rle, height, width)),
            "contains_point": bool(mask[y, x]),
        }
        rows.append(_row(clicks, k, **facts))
    return pa.Table.from_pylist(rows, schema=PSEUDO)


def failed_rows(clicks: Clicks, reason: str) -> pa.Table:
    """PSEUDO rows of the points of an image that could not be read."""
    rows = [_row(clicks, k, status="failed", reason=reason) for k in range(len(clicks.point_ids))]
    return pa.Table.from_pylist(rows, schema=PSEUDO)


def _row(clicks: Clicks, k: int, **facts: Any) -> dict[str, Any]:
    """A PSEUDO row: the point's ids and what is known; all else null."""
    ids = {
        "point_id": clicks.point_ids[k],
        "image_id": clicks.image_id,
        "category_id": int(clicks.category_ids[k]),
    }
    return {**dict.fromkeys(PSEUDO.names), **ids, **facts}
