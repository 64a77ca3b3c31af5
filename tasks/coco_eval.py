"""COCO mask AP and AR, as the official evaluator (pycocotools) computes them, in percent.

pycocotools' own summary is fixed to 100 detections and the COCO sizes, and writes -1 where a figure doesn't
exist. Here both are parameters, as small images and crowded ones need, and what doesn't exist is None.

Legend: T IoU thresholds (0.50, 0.55 .. 0.95), R recall points (0, 0.01 .. 1), K classes, A size groups,
M detection limits.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from data.tables import Category
from tasks.errors import TaskError

SIZES = ("small", "medium", "large")
_NO_LIMIT = 1e10  # square pixels; COCO's own "all" and "large" end here
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
) -> MaskScores:
    """COCO mask AP (Lin et al., 2014; cocodataset.org/#detection-eval) of results against a data set.

    Args:
        ground_truth: a COCO instances file's content: images (id, height, width), annotations (id, image_id,
            category_id, segmentation, area, iscrowd), categories (id, name).
        results: COCO results: image_id, category_id, score, segmentation as compressed RLE.
        max_detections: detections that count, the best first. As in COCO, for each image *and class*.
        size_bounds: sides in pixels that part small from medium and medium from large (COCO: 32 and 96).

    Raises:
        TaskError: a result names an image or a category that the data set doesn't have; all such are counted.
    """
    _check_results(ground_truth, results)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = _index(ground_truth, _true_annotations(ground_truth["annotations"]))
        found = _index(ground_truth, _result_annotations(results))
        evaluation = COCOeval(truth, found, "segm")
        small, medium = (float(side) ** 2 for side in size_bounds)
        evaluation.params.areaRng = [[0, _NO_LIMIT], [0, small], [small, medium], [medium, _NO_LIMIT]]
        evaluation.params.areaRngLbl = ["all", *SIZES]
        evaluation.params.maxDets = sorted({min(limit, max_detections) for limit in (1, 10, max_detections)})
        evaluation.evaluate()
        evaluation.accumulate()
    return _scores(evaluation, ground_truth)


def _scores(evaluation: COCOeval, ground_truth: Mapping[str, Any]) -> MaskScores:
    precision = evaluation.eval["precision"]  # [T, R, K, A, M], -1 where undefined
    recall = evaluation.eval["recall"]  # [T, K, A, M]
    thresholds = [round(100 * threshold) for threshold in evaluation.params.iouThrs]
    at50, at75 = thresholds.index(50), thresholds.index(75)
    limits = evaluation.params.maxDets

    def limit(wanted: int) -> int:
        return limits.index(min(wanted, limits[-1]))

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
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    counts = dict.fromkeys(names, 0)
    for row in ground_truth["annotations"]:
        counts[row["category_id"]] += not row.get("iscrowd", 0)
    per_class = [
        ClassScore(
            category_id=int(category_id),
            name=names[category_id],
            instances=counts[category_id],
            AP=_percent(precision[:, :, k, 0, -1]),
            AP50=_percent(precision[at50, :, k, 0, -1]),
            AP75=_percent(precision[at75, :, k, 0, -1]),
        )
        for k, category_id in enumerate(evaluation.params.catIds)
    ]
    curves = {iou: _mean_curve(precision[i, :, :, 0, -1]) for i, iou in enumerate(thresholds)}
    return MaskScores(summary, per_class, np.asarray(evaluation.params.recThrs, dtype=np.float64), curves)


def _percent(values: NDArray[np.float64]) -> float | None:
    """The mean of what is defined (> -1), in percent with 3 decimals; None where nothing is."""
    defined = values[values > -1]
    return round(100 * float(defined.mean()), 3) if defined.size else None


def _mean_curve(precision: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """[R, K] with -1 for classes without true objects -> [R]."""
    with_objects = precision[:, (precision > -1).all(axis=0)]
    return with_objects.mean(axis=1) if with_objects.size else None


def _index(ground_truth: Mapping[str, Any], annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": list(ground_truth["images"]),
        "categories": list(ground_truth["categories"]),
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _true_annotations(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """COCOeval writes into annotations (segmentation, ignore), so it gets copies; numbered from 1, since it takes a
    match with an id of 0 for none.
    """
    return [{"iscrowd": 0, **row, "id": n} for n, row in enumerate(rows, start=1)]


def _result_annotations(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    # One at a time: pycocotools 2.0.11 with NumPy 2 can't take the areas of more than 255 masks in one call.
    return [
        {**row, "id": i + 1, "area": float(rle_tools.area(row["segmentation"])), "iscrowd": 0}
        for i, row in enumerate(results)
    ]


def _check_results(ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
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
