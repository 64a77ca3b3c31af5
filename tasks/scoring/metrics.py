"""All metrics of models and of pseudo masks: a new one is a row here, and its computation.

metrics.json, the report, the tables and `points2model experiments` take their metrics from these rows. Importing this
module is cheap, since the command line does it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.scoring.coco_match import Curves, Rules

SIZES = ("small", "medium", "large")
OVERLAPS = range(50, 100, 5)
"""COCO's IoU thresholds, in percent."""
KINDS = ("rough", "refined")
"""Pseudo masks before and after refinement."""


@dataclass(frozen=True)
class Metric:
    """What tables and pages show of a metric."""

    key: str
    """in metrics.json and details.json"""
    label: str
    meaning: str
    unit: str = "%"


@dataclass(frozen=True, kw_only=True)
class ModelMetric(Metric):
    """A metric of a model on the val split."""

    compute: Callable[[Curves, Rules], float | None]
    """None if no true object can be found"""
    tracked: bool = False
    """in metrics.json"""
    reported: bool = False
    """in the report's table"""
    by_class: bool = False
    """of each class too"""
    size: str | None = None
    """one of SIZES: over objects of this size alone"""


@dataclass(frozen=True, kw_only=True)
class PseudoMetric(Metric):
    """A metric of pseudo masks; its keys are rough_KEY and refined_KEY."""

    compute: Callable[[NDArray[Any]], Any]
    """of the points' IoU with their true masks, 0 to 1; the result is a share"""
    tracked: tuple[str, ...] = ("refined",)
    """of KINDS: what metrics.json has"""


def percent(values: NDArray[Any]) -> float | None:
    """The mean of the values that are defined (> -1), in percent with 3 decimals; None if there are none."""
    defined = values[values > -1]
    return round(100 * float(defined.mean()), 3) if defined.size else None


def _precision(curves: Curves, _: Rules, overlap: int | None = None, size: str | None = None) -> float | None:
    values = curves.precision[:, :, :, _group(size), -1]
    return percent(values if overlap is None else values[OVERLAPS.index(overlap)])


def _recall(curves: Curves, rules: Rules, limit: int | None = None, size: str | None = None) -> float | None:
    most = rules.max_detections
    return percent(curves.recall[:, :, _group(size), rules.limits.index(min(limit or most, most))])


def _group(size: str | None) -> int:
    """The index of a size group among those of `Rules.areas`."""
    return 0 if size is None else 1 + SIZES.index(size)


MODEL_METRICS = (
    ModelMetric(
        "AP", "AP", "mean over IoU 0.50 to 0.95", compute=_precision,
        tracked=True, reported=True, by_class=True,
    ),
    ModelMetric(
        "AP50", "AP50", "at IoU 0.50", compute=partial(_precision, overlap=50),
        tracked=True, reported=True, by_class=True,
    ),
    ModelMetric(
        "AP75", "AP75", "at IoU 0.75", compute=partial(_precision, overlap=75),
        tracked=True, reported=True, by_class=True,
    ),
    *(
        ModelMetric(
            f"AP{size[0]}", f"AP {size}", f"of {size} objects", compute=partial(_precision, size=size),
            tracked=True, reported=True, size=size,
        )
        for size in SIZES
    ),
    ModelMetric("AR1", "AR1", "recall with 1 detection per class and image", compute=partial(_recall, limit=1)),
    ModelMetric("AR10", "AR10", "recall with 10 detections per class and image", compute=partial(_recall, limit=10)),
    ModelMetric("AR", "AR", "recall, mean over IoU 0.50 to 0.95", compute=_recall, reported=True),
    *(
        ModelMetric(
            f"AR{size[0]}", f"AR {size}", f"recall of {size} objects", compute=partial(_recall, size=size), size=size
        )
        for size in SIZES
    ),
)  # fmt: skip
AP = MODEL_METRICS[0]
"""What models are promoted and experiments sorted by."""


def keys_at(max_detections: int) -> dict[str, str]:
    """MODEL_METRICS by key, each with a key that includes its limit, for scores without a params file: AR -> AR100."""
    return {one.key: one.key if one.key != "AR" else f"AR{max_detections}" for one in MODEL_METRICS}


PSEUDO_METRICS = (
    PseudoMetric(
        "iou", "mean IoU", "with the true mask; 0 without a mask", compute=lambda iou: iou.mean(), tracked=KINDS
    ),
    PseudoMetric(
        "over_50", "IoU over 0.50", "points at or over this IoU", compute=lambda iou: (iou >= 0.5).mean()
    ),
    PseudoMetric(
        "over_75", "IoU over 0.75", "points at or over this IoU", compute=lambda iou: (iou >= 0.75).mean()
    ),
)  # fmt: skip
IOU = PSEUDO_METRICS[0]
