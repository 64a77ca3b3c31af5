"""One measurement in the folder of a line, for bench/quality.py: `ap_teacher`, `ap_student` or `pseudo`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.tables import POINTS, PSEUDO, Split, read_parquet
from tasks.coco_eval import evaluate_masks
from tasks.config import Params, load_params
from tasks.device import set_up
from tasks.evaluate import ground_truth, pseudo_metrics
from tasks.predict import predict_split
from tasks.pseudo_quality import point_quality
from tasks.train_refiner import load_teacher

WORKSPACE = Path("workspace")


def ap(model: str, params: Params) -> dict[str, float | None]:
    """COCO mask AP of a network on the val split, in percent."""
    config = params.evaluate
    device = set_up(params.runtime, params.threads)
    val = Split.open(WORKSPACE / "dataset" / "val")
    results = predict_split(
        load_teacher(WORKSPACE / model, device), val, size=params.input, inference=config.inference,
        batch_size=config.batch_size, device=device, workers=0, name=model,
    )  # fmt: skip
    scores = evaluate_masks(
        ground_truth(val), results, max_detections=config.max_detections, size_bounds=config.size_bounds
    )
    return scores.summary | {one.name: one.AP for one in scores.per_class}


def pseudo(params: Params) -> dict[str, Any]:
    """Rough and refined masks against the true ones, in percent, and how many points came to what end."""
    parts = sorted((WORKSPACE / "pseudo").glob("part-*.parquet"))
    table = pa.concat_tables([read_parquet(path, PSEUDO) for path in parts])
    points = read_parquet(WORKSPACE / "points" / "points.parquet", POINTS)
    kept_aside = Split.open(WORKSPACE / "dataset" / "kept_aside")
    quality = point_quality(table, points, kept_aside, params.evaluate.size_bounds)
    statuses = json.loads((WORKSPACE / "pseudo" / "summary.json").read_text())
    return pseudo_metrics(table, quality) | {"statuses": statuses, "measured": len(quality)}


def main() -> None:
    what = sys.argv[1]
    params = load_params("params.yaml")
    found = pseudo(params) if what == "pseudo" else ap(what.removeprefix("ap_"), params)
    Path(f"{what}.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
