"""Rows of the pseudo labels: masks become run-length codes, boxes, areas. On the CPU, of one image at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data.masks.rle import area, bbox_xywh, encode_many, iou_matrix
from data.tables import PSEUDO
from tasks.labelling.judge import DRAWN_BY
from tasks.labelling.types import Clicks, PointMasks

NOT_DRAWN = "the teacher draws no mask at this point"
NONE_DRAWN = "no proposer draws a mask at this point"
TAKEN = "all pixels of its mask are likelier another point's"


def rows_of(clicks: Clicks, masks: PointMasks) -> pa.Table:
    """PSEUDO rows of clicks on an image, in their order."""
    stats, (height, width) = masks.stats, masks.rough.shape[1:]
    rough, final = encode_many(masks.rough), encode_many(masks.final)
    contains_point = _contains(masks.final, clicks)
    measures = {
        "level": stats.level.tolist(), "class_score": stats.class_score.tolist(),
        "maskness": stats.maskness.tolist(), "score": stats.score.tolist(),
    }  # fmt: skip
    rows = []
    for k in range(len(clicks)):
        row = _row(clicks, k, status="ok")
        if stats.reasons[k] is None:
            row |= {name: values[k] for name, values in measures.items()}
        if area(rough[k], height, width) == 0:
            not_drawn = NOT_DRAWN if stats.drawn_by is None else NONE_DRAWN
            reason = stats.reasons[k] or (TAKEN if stats.drawn[k] else not_drawn)
            rows.append(row | {"status": "empty", "reason": reason})
            continue
        rle = final[k]
        if stats.taken[k]:
            row |= {"status": "rough", "reason": f"refined, {TAKEN}"}
        elif stats.kept_rough[k]:
            row |= {"status": "rough", "reason": stats.refusals[k] or "refinement came out empty"}
        else:
            iou = iou_matrix([rough[k]], [rle], height, width)[0, 0]
            row |= {"refined_rle": rle, "iou_rough_refined": float(iou)}
        row |= {
            "rough_rle": rough[k],
            "bbox_xywh": list(bbox_xywh(rle, height, width)),
            "area": float(area(rle, height, width)),
            "contains_point": contains_point[k],
        }
        if stats.drawn_by is not None:
            by = f"{DRAWN_BY}{stats.drawn_by[k]}"
            row["reason"] = by if row.get("reason") is None else f"{row['reason']}; {by}"
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=PSEUDO)


def failed_rows(clicks: Clicks, reason: str) -> pa.Table:
    """PSEUDO rows of the clicks on an image that can't be read."""
    rows = [_row(clicks, k, status="failed", reason=reason) for k in range(len(clicks))]
    return pa.Table.from_pylist(rows, schema=PSEUDO)


def _contains(masks: Tensor, clicks: Clicks) -> list[bool]:
    """Whether each mask of [K, H, W] contains its click's pixel."""
    limit = np.array([masks.shape[2] - 1, masks.shape[1] - 1])
    x, y = torch.from_numpy(np.clip(clicks.xy, 0, limit).astype(np.int64)).to(masks.device).unbind(1)
    contained: list[bool] = masks[torch.arange(len(clicks), device=masks.device), y, x].tolist()
    return contained


def _row(clicks: Clicks, k: int, **values: Any) -> dict[str, Any]:
    """A PSEUDO row: the click's ids and these values; all else null."""
    ids = {
        "point_id": clicks.point_ids[k],
        "image_id": clicks.image_id,
        "category_id": int(clicks.category_ids[k]),
    }
    return {**dict.fromkeys(PSEUDO.names), **ids, **values}
