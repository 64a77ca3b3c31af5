"""COCO mask AP and AR, as the official evaluator (pycocotools) computes them, in percent.

pycocotools' own summary is fixed to 100 detections and the COCO sizes, and writes -1 where a figure doesn't
exist. Here both are parameters, as small images and crowded ones need, and what doesn't exist is None.

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
from tasks.scoring.coco_faster import evaluate_faster
from tasks.scoring.coco_match import SIZES, Curves, Rules, accumulate, match, thresholds

_MAX_LISTED = 20


@dataclass(frozen=True)
class ClassScore:
    """One class: its AP over IoU 0.50:0.95, at 0.50 and 0.75 in percent (None without true objects)."""

    category_id: int
    name: str
    instances: int
    AP: float | None
    AP50: float | None
    AP75: float | None


@dataclass(frozen=True)
class MaskScores:
    """What COCO evaluation says of one model on one split.

    Attributes:
        summary: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR, ARs, ARm, ARl in percent; None where no true
            object is there to be found. AR1 and AR10 allow 1 and 10 detections a class and image, the rest
            `max_detections`.
        per_class: one entry a category, in the order of category ids.
        recall: float64 [R], the recall points, 0 to 1.
        precision: IoU threshold in percent -> float64 [R], precision averaged over the classes that have true
            objects, 0 to 1; None where there are none.
    """

    summary: dict[str, float | None]
    per_class: list[ClassScore]
    recall: NDArray[np.float64]
    precision: dict[int, NDArray[np.float64] | None]


def truth_of(
    sizes: Mapping[int, tuple[int, int]], instances: pa.Table, categories: Iterable[Category]
) -> dict[str, Any]:
    """What `evaluate_masks` takes: COCO instances with RLEs, of the images that have a size.

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
        max_detections: detections that count, the best first. As in COCO, for each image *and class*.
        size_bounds: sides in pixels that part small from medium and medium from large (COCO: 32 and 96).
        evaluator: whose code compares and counts; the figures are the same.

    Raises:
        TaskError: a result names an image or a category that the data set doesn't have (all such are counted); an
            evaluator that isn't installed.
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
    """The figures of a set's curves.

    Args:
        curves: of all classes, in the order of their ids.
        categories: of the whole set.
        objects: true objects by category id, without crowds.
        rules: those of the curves.
    """
    precision, recall = curves  # [T, R, K, A, M] and [T, K, A, M], -1 where undefined
    overlaps, recall_points = thresholds()
    percents = [round(100 * overlap) for overlap in overlaps]
    at50, at75 = percents.index(50), percents.index(75)

    def limit(wanted: int) -> int:
        return rules.limits.index(min(wanted, rules.limits[-1]))

    summary = {
        "AP": _percent(precision[:, :, :, 0, -1]),
        "AP50": _percent(precision[at50, :, :, 0, -1]),
        "AP75": _percent(precision[at75, :, :, 0, -1]),
        **{f"AP{size[0]}": _percent(precision[:, :, :, 1 + i, -1]) for i, size in enumerate(SIZES)},
        "AR1": _percent(recall[:, :, 0, limit(1)]),
        "AR10": _percent(recall[:, :, 0, limit(10)]),
        "AR": _percent(recall[:, :, 0, -1]),
        **{f"AR{size[0]}": _percent(recall[:, :, 1 + i, -1]) for i, size in enumerate(SIZES)},
    }
    per_class = [
        ClassScore(
            category_id=category.id,
            name=category.name,
            instances=objects[category.id],
            AP=_percent(precision[:, :, k, 0, -1]),
            AP50=_percent(precision[at50, :, k, 0, -1]),
            AP75=_percent(precision[at75, :, k, 0, -1]),
        )
        for k, category in enumerate(sorted(categories))
    ]
    by_overlap = {iou: _mean_curve(precision[i, :, :, 0, -1]) for i, iou in enumerate(percents)}
    return MaskScores(summary, per_class, recall_points, by_overlap)


def _percent(values: NDArray[np.float64]) -> float | None:
    """The mean of what is defined (> -1), in percent with 3 decimals; None where nothing is."""
    defined = values[values > -1]
    return round(100 * float(defined.mean()), 3) if defined.size else None


def _mean_curve(precision: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """[R, K] with -1 for classes without true objects -> [R]."""
    with_objects = precision[:, (precision > -1).all(axis=0)]
    return with_objects.mean(axis=1) if with_objects.size else None


def check_results(ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    """Raises a TaskError where results name images or categories that the ground truth lacks."""

    def unknown(key: str, known: Iterable[int]) -> list[str]:
        return [str(value) for value in sorted({row[key] for row in results} - set(known))]

    faults = []
    for key, table in (("image_id", "images"), ("category_id", "categories")):
        strangers = unknown(key, (row["id"] for row in ground_truth[table]))
        if strangers:
            more = f" and {len(strangers) - _MAX_LISTED} more" if len(strangers) > _MAX_LISTED else ""
            faults.append(
                f"{key} {', '.join(strangers[:_MAX_LISTED])}{more}: not among the data set's {table}"
            )
    if faults:
        raise TaskError(
            "These results don't belong to this data set:\n"
            + "\n".join(f"  - {fault}" for fault in faults)
            + "\nEvaluate them against the split they were predicted on."
        )
