"""Predicts the IoU of masks with the true ones by ridge regressions fitted on held-out strong images.

A pseudo mask's score is the IoU that is predicted from its row. What the networks predict by themselves orders masks
worse: over all weak images of nuclei (10% strong) class probability x maskness has a correlation of 0.42 with the true
IoU, the prediction 0.64 (facade: 0.65, 0.64). The best single sign of a bad mask is that the refiner changes it.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import model_validator

from tasks.common.config import Section

Floats = NDArray[np.float64]

RIDGE = 1.0
"""The penalty of standardised weights, in units of clicks."""
LEAST_IMAGES = 2
LEAST_CLICKS = 20
ROW_FEATURES = (
    "class_score",
    "maskness",
    "class_score_maskness",
    "change",
    "maskness_change",
    "kept_rough",
    "misses_click",
)
"""
`class_score`, `maskness`: of the proposer, 0..1; 0 where it has none. `class_score_maskness`: their product.
`change`: IoU of the rough mask with the refined one; 1 where the rough one is kept. `maskness_change`: times maskness.
`kept_rough`: 1 where the rough mask is kept.
`misses_click`: 1 where the mask doesn't hold its click.
"""


class Rule(Section):
    """A regression on F features: predicted IoU = intercept + weights . (features - mean) / scale, of features limited
    to the range that they had when it was fitted: a square would grow without bounds outside of it."""

    intercept: float
    weights: tuple[float, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        for name in ("mean", "scale", "low", "high"):
            if (found := len(getattr(self, name))) != self.features:
                raise ValueError(f"{name}: found {found} values, expected {self.features} as in weights")
        return self

    @property
    def features(self) -> int:
        """F."""
        return len(self.weights)

    def predict(self, features: Floats) -> Floats:
        """Predicted IoU [n] of features [n, F]; not limited to 0..1."""
        standard = (features.clip(self.low, self.high) - np.array(self.mean)) / np.array(self.scale)
        return np.asarray(self.intercept + standard @ np.array(self.weights), np.float64)


def ridge(features: Floats, target: Floats) -> Rule:
    """Ridge regression (Hoerl and Kennard, 1970) of target [n] on standardised features [n, F], with an intercept."""
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    standard = (features - mean) / scale
    gram = standard.T @ standard + RIDGE * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, standard.T @ (target - target.mean()))
    columns = {
        "weights": weights,
        "mean": mean,
        "scale": scale,
        "low": features.min(0),
        "high": features.max(0),
    }
    rounded = {name: tuple(np.round(values, 9).tolist()) for name, values in columns.items()}
    return Rule(intercept=round(float(target.mean()), 9), **rounded)


def row_features(
    class_score: ArrayLike,
    maskness: ArrayLike,
    change: ArrayLike,
    kept_rough: ArrayLike,
    misses_click: ArrayLike,
) -> Floats:
    """Float64 [n, len(ROW_FEATURES)] of what n rows have, [n] each; NaN scores count as 0."""
    columns = (class_score, maskness, change, kept_rough, misses_click)
    certainty, quality, same, rough, misses = (
        np.nan_to_num(np.asarray(one, np.float64), nan=0.0) for one in columns
    )
    same = np.where(rough > 0, 1.0, same)
    return np.stack([certainty, quality, certainty * quality, same, quality * same, rough, misses], axis=1)
