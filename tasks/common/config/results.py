"""Sections `pseudo`, `evaluate`, `promotion` and `report`: what is made with trained networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.config import InferenceConfig
from tasks.common.config.section import (
    Batch,
    Detections,
    Draws,
    Name,
    NonNegative,
    NonNegativeInt,
    Number,
    Positive,
    PositiveInt,
    Section,
    Share,
)


class PseudoConfig(Section):
    """Pseudo masks at the points: images and crops of a batch; images and points of a Parquet part, at most.

    `on_failed`: where an image can't be read: `stop`, or `report` its points as failed and go on."""

    batch_size: Batch
    crop_batch_size: Batch
    part_images: PositiveInt
    part_points: PositiveInt
    on_failed: Literal["stop", "report"]


Evaluator = Literal["pycocotools", "faster_coco_eval"]


class EvaluateConfig(Section):
    """COCO mask AP on the val split, and quality of pseudo masks: images of a batch, images of a Parquet part of
    predictions, and the package that computes AP (`faster_coco_eval` is optional)."""

    inference: InferenceConfig
    batch_size: Batch
    part_images: PositiveInt
    evaluator: Evaluator
    max_detections: Detections
    size_bounds: tuple[Positive, Positive]


class PromotionConfig(Section):
    """When a new student replaces the promoted model.

    `ap_tolerance`, `class_tolerance`: AP points (of 100) that it may lose over all classes, and in any one class.
    `bootstrap`: how often the val images are resampled for the confidence intervals of the differences, at level
    `confidence`. They are shown, but don't affect the verdict.
    `repeats`: trainings of the student, with `seed` and the seeds after it; if there are several, their mean AP is
    judged. The model is that of `seed`."""

    ap_tolerance: NonNegative
    class_tolerance: NonNegative
    bootstrap: Draws
    confidence: Annotated[Number, Field(gt=0, lt=1)]
    repeats: Annotated[PositiveInt, Field(le=100)]


class ReportConfig(Section):
    """report.html: images of a gallery, and the least score of a detection that is drawn; null: the score with the best
    F1, which stage evaluate chose. `page_images`: the most weak images, and val images, in the pages of report/."""

    title: Name
    gallery_images: Annotated[NonNegativeInt, Field(le=10**4)]
    score_threshold: Share | None
    page_images: Annotated[NonNegativeInt, Field(le=10**5)]
