"""COCO mask AP of a results file against a ground-truth file, outside the pipeline."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from data.annotations.coco.file import to_instances
from data.annotations.frames import ImageFolder
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.annotations.results import read_results
from tasks.common.config import Evaluator
from tasks.common.errors import TaskError
from tasks.scoring.coco_eval import coco_ground_truth, evaluate_masks
from tasks.scoring.coco_faster import check_installed
from tasks.scoring.metrics import keys_at


def evaluate_files(
    ground_truth: Path,
    results: Path,
    *,
    max_detections: int,
    size_bounds: tuple[float, float],
    images: Path | None = None,
    evaluator: Evaluator = "pycocotools",
) -> dict[str, Any]:
    """Scores of a COCO results file.

    Args:
        ground_truth: a file or folder with masks, in any format that `ingest` reads.
        results: a COCO results file with masks, whose ids are the ground truth's.
        max_detections: the number of best detections that count for each image and class; in COCO 100.
        size_bounds: sides in pixels between small and medium, and between medium and large; in COCO 32 and 96.
        images: the image root, for a ground truth without all sizes and names; None: not needed.
        evaluator: the library that matches and counts; the results are the same.

    Returns:
        MODEL_METRICS in percent by the keys of `keys_at` (None without true objects); max_detections, size_bounds,
        images, objects (without crowds), objects_beyond_limit (those of an image and class beyond max_detections,
        which can't be found), detections; per_class: category_id, name, instances, metrics.

    Raises:
        DataError: every fault of either file.
        TaskError: impossible bounds or limit; the evaluator isn't installed.
    """
    small, medium = size_bounds
    if max_detections < 1:
        raise TaskError(f"max_detections: found {max_detections}, expected 1 or more")
    if evaluator == "faster_coco_eval":
        check_installed()
    if not 0 < small < medium < math.inf:
        raise TaskError(f"size_bounds: found {small:g} {medium:g}, expected two sides in pixels, 0 < a < b")
    folder = None if images is None else ImageFolder(images)
    coco = read_annotations(ground_truth, options=ReadOptions(images=folder, keep_annotations=False))
    sizes = {row["id"]: (row["height"], row["width"]) for row in coco.images}
    truth = coco_ground_truth(sizes, to_instances(coco), coco.categories)
    per_image_and_class = Counter(
        (row["image_id"], row["category_id"]) for row in truth["annotations"] if not row["iscrowd"]
    )
    found = read_results(results, sizes, {category.id for category in coco.categories})
    scores = evaluate_masks(
        truth, found, max_detections=max_detections, size_bounds=size_bounds, evaluator=evaluator
    )
    return {
        **{key: scores.summary[metric] for metric, key in keys_at(max_detections).items()},
        "max_detections": max_detections,
        "size_bounds": [small, medium],
        "images": len(coco.images),
        "objects": sum(per_image_and_class.values()),
        "objects_beyond_limit": sum(max(0, n - max_detections) for n in per_image_and_class.values()),
        "detections": len(found),
        "per_class": [score.row() for score in scores.per_class],
    }
