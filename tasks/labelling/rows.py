"""Rows of the pseudo labels: masks become run-length codes, boxes, areas. On the CPU, of one image at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from data.masks.rle import area, bbox_xywh, encode_many, iou_matrix
from data.tables import PSEUDO
from tasks.labelling.judge import DRAWN_BY
from tasks.labelling.labeller import GatedRefiner
from tasks.labelling.predicted_iou import row_features
from tasks.labelling.types import Clicks, PointMasks, contains_points

NOT_DRAWN = "the teacher draws no mask at this point"
NONE_DRAWN = "no proposer draws a mask at this point"
TAKEN = "all pixels of its mask are assigned to other masks"


def rows_of(clicks: Clicks, masks: PointMasks, refiner: GatedRefiner | None = None) -> pa.Table:
    """PSEUDO rows of clicks on an image, in their order.

    Args:
        refiner: made the masks; the score is the IoU that its gate predicts. Without it, and without a mask, the score
            is the proposer's.
    """
    stats, (height, width) = masks.stats, masks.rough.shape[1:]
    rough, final = encode_many(masks.rough), encode_many(masks.final)
    points_xy = torch.from_numpy(clicks.xy).to(masks.final.device)
    contains_point: list[bool] = contains_points(masks.final, points_xy).tolist()
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
    if refiner is not None:
        _set_scores(rows, refiner, stats.drawn_by)
    return pa.Table.from_pylist(rows, schema=PSEUDO)


def failed_rows(clicks: Clicks, reason: str) -> pa.Table:
    """PSEUDO rows of the clicks on an image that can't be read."""
    rows = [_row(clicks, k, status="failed", reason=reason) for k in range(len(clicks))]
    return pa.Table.from_pylist(rows, schema=PSEUDO)


def _set_scores(rows: list[dict[str, Any]], refiner: GatedRefiner, drawn_by: Sequence[str] | None) -> None:
    """Sets the score of each row with a mask to the IoU that is predicted for it, where that was fitted."""
    held = [k for k, row in enumerate(rows) if row["rough_rle"] is not None]
    for gate, mine in refiner.by_gate(held, drawn_by):
        if gate.score is None:
            continue
        found = [rows[k] for k in mine]
        kept = [one["refined_rle"] is None for one in found]
        class_score, maskness, change = (
            np.array([one[name] for one in found], np.float64)
            for name in ("class_score", "maskness", "iou_rough_refined")
        )
        misses = [not one["contains_point"] for one in found]
        features = row_features(class_score, maskness, change, kept, misses)
        for row, iou in zip(found, gate.score.predict(features).clip(0, 1).tolist(), strict=True):
            row["score"] = iou


def _row(clicks: Clicks, k: int, **values: Any) -> dict[str, Any]:
    """A PSEUDO row: the click's ids and these values; all else null."""
    ids = {
        "point_id": clicks.point_ids[k],
        "image_id": clicks.image_id,
        "category_id": int(clicks.category_ids[k]),
    }
    return {**dict.fromkeys(PSEUDO.names), **ids, **values}
