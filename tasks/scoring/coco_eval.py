"""COCO mask AP and AR in percent, equal to those of the official evaluator (pycocotools).

pycocotools' own summary has a fixed limit of 100 detections and fixed sizes, and writes -1 for undefined metrics. Here
both are parameters, since small images and crowded images need other values, and undefined metrics are None.

Legend: T IoU thresholds (0.50, 0.55 .. 0.95), R recall points (0, 0.01 .. 1), K classes, A size groups,
M detection limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.tables import Category
from tasks.common.config import Evaluator
from tasks.common.errors import TaskError
from tasks.scoring import metrics
from tasks.scoring.coco_faster import evaluate_faster
from tasks.scoring.coco_match import Curves, Rules, accumulate, match, thresholds

_MAX_LISTED = 20


@dataclass(frozen=True)
class ClassScore:
    """One class: its true objects, and its metrics in percent by key (None without true objects)."""

    category_id: int
    name: str
    instances: int
    scores: dict[str, float | None]

    @property
    def AP(self) -> float | None:
        """Over IoU 0.50 to 0.95."""
        return self.scores[metrics.AP.key]

    def row(self) -> dict[str, Any]:
        """All fields side by side, as details.json has them."""
        return {
            "category_id": self.category_id,
            "name": self.name,
            "instances": self.instances,
            **self.scores,
        }


@dataclass(frozen=True)
class MaskScores:
    """The result of COCO's evaluation of one model on one split.

    Attributes:
        summary: MODEL_METRICS in percent, by key; None for a metric over no true objects. AR1 and AR10 use the best 1
            and 10 detections per class and image, the other metrics the best `max_detections`.
        per_class: an entry for each category, in the order of category ids.
        recall: float64 [R], the recall points, 0 to 1.
        precision: IoU threshold in percent -> float64 [R], mean precision over the classes that have true objects,
            0 to 1; None if no class has any.
    """

    summary: dict[str, float | None]
    per_class: list[ClassScore]
    recall: NDArray[np.float64]
    precision: dict[int, NDArray[np.float64] | None]


def coco_ground_truth(
    sizes: Mapping[int, tuple[int, int]], instances: pa.Table, categories: Iterable[Category]
) -> dict[str, Any]:
    """Ground truth for `evaluate_masks`: COCO instances with RLEs, of the images in `sizes`.

    Args:
        sizes: (height, width) by image id.
        instances: rows of INSTANCES.
        categories: with the data set's own ids.
    """
    columns = ["instance_id", "image_id", "category_id", "rle_counts", "area", "iscrowd"]
    return {
        "images": [{"id": id, "height": height, "width": width} for id, (height, width) in sizes.items()],
        "categories": [{"id": category.id, "name": category.name} for category in categories],
        "annotations": [
            {
                "id": row["instance_id"],
                "image_id": row["image_id"],
                "category_id": row["category_id"],
                "segmentation": {"size": list(sizes[row["image_id"]]), "counts": row["rle_counts"]},
                "area": row["area"],
                "iscrowd": int(row["iscrowd"]),
            }
            for row in instances.select(columns).to_pylist()
            if row["image_id"] in sizes
        ],
    }


def evaluate_masks(
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    max_detections: int,
    size_bounds: tuple[float, float],
    evaluator: Evaluator = "pycocotools",
) -> MaskScores:
    """COCO mask AP (Lin et al., 2014; cocodataset.org/#detection-eval) of results against a data set.

    Args:
        ground_truth: a COCO instances file's content: images (id, height, width), annotations (id, image_id,
            category_id, segmentation, area, iscrowd), categories (id, name).
        results: COCO results: image_id, category_id, score, segmentation as compressed RLE.
        max_detections: how many detections count per image and class, those with the highest scores (COCO: 100).
        size_bounds: sides in pixels between small and medium, and between medium and large (COCO: 32 and 96).
        evaluator: the library that matches and counts; the results are the same.

    Raises:
        TaskError: results name images or categories that the data set doesn't have; the evaluator isn't installed.
    """
    check_results(ground_truth, results)
    rules = Rules(max_detections, size_bounds)
    if evaluator == "faster_coco_eval":
        curves = evaluate_faster(ground_truth, results, rules)
    else:
        matches = match(ground_truth, results, rules)
        curves = accumulate([matches], len(ground_truth["categories"]), rules)
    categories = [Category(row["id"], row["name"]) for row in ground_truth["categories"]]
    objects = dict.fromkeys((category.id for category in categories), 0)
    for row in ground_truth["annotations"]:
        objects[row["category_id"]] += not row.get("iscrowd", 0)
    return scores_of(curves, categories, objects, rules)


def scores_of(
    curves: Curves, categories: Sequence[Category], objects: Mapping[int, int], rules: Rules
) -> MaskScores:
    """The metrics that follow from curves.

    Args:
        curves: of all classes, in the order of their ids.
        categories: of the whole set.
        objects: true objects by category id, without crowds.
        rules: the ones that the curves were computed with.
    """
    summary = {metric.key: metric.compute(curves, rules) for metric in metrics.MODEL_METRICS}
    per_class = []
    for k, category in enumerate(sorted(categories)):
        own = curves.of_classes([k])
        scores = {
            metric.key: metric.compute(own, rules) for metric in metrics.MODEL_METRICS if metric.by_class
        }
        per_class.append(ClassScore(category.id, category.name, objects[category.id], scores))
    by_overlap = {
        overlap: _mean_curve(curves.precision[i, :, :, 0, -1]) for i, overlap in enumerate(metrics.OVERLAPS)
    }
    return MaskScores(summary, per_class, thresholds()[1], by_overlap)


def _mean_curve(precision: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """[R, K] with -1 for classes without true objects -> [R]."""
    with_objects = precision[:, (precision > -1).all(axis=0)]
    return with_objects.mean(axis=1) if with_objects.size else None


def check_results(ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    """Raises a TaskError if results name images or categories that the ground truth doesn't have."""

    def unknown(key: str, known: Iterable[int]) -> list[str]:
        return [str(value) for value in sorted({row[key] for row in results} - set(known))]

    faults = []
    for key, table in (("image_id", "images"), ("category_id", "categories")):
        if ids := unknown(key, (row["id"] for row in ground_truth[table])):
            more = f" and {len(ids) - _MAX_LISTED} more" if len(ids) > _MAX_LISTED else ""
            faults.append(f"{key} {', '.join(ids[:_MAX_LISTED])}{more}: not among the data set's {table}")
    if faults:
        raise TaskError(
            "These results don't belong to this data set:\n"
            + "\n".join(f"  - {fault}" for fault in faults)
            + "\nEvaluate them against the split they were predicted on."
        )
