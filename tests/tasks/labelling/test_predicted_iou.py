from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.labelling.predicted_iou import ROW_FEATURES, Rule, ridge, row_features

F = 5


def test_ridge_is_the_solution_of_the_normal_equations() -> None:
    draw = np.random.default_rng(1)
    features = draw.normal(3.0, 2.0, size=(50, F))
    target = features @ draw.normal(size=F) + 0.7
    rule = ridge(features, target)
    design = np.c_[np.ones(50), (features - features.mean(0)) / features.std(0)]
    penalty = np.diag([0.0] + [1.0] * F)
    solved = np.linalg.solve(design.T @ design + penalty, design.T @ target)
    assert rule.intercept == pytest.approx(solved[0])
    assert rule.weights == pytest.approx(solved[1:])
    assert rule.predict(features) == pytest.approx(design @ solved, abs=1e-6)


def test_features_are_limited_to_the_range_of_the_fit() -> None:
    features = np.linspace(-1.0, 1.0, 50)[:, None] * np.ones(F)
    rule = ridge(features, features[:, 0])
    far = np.full((2, F), [[9.0], [-9.0]])
    assert rule.predict(far) == pytest.approx(rule.predict(np.full((2, F), [[1.0], [-1.0]])))


def test_a_constant_feature_is_no_division_by_zero() -> None:
    features = np.zeros((30, F))
    assert ridge(features, np.full(30, 0.25)).predict(features) == pytest.approx(np.full(30, 0.25))


def test_lists_of_a_rule_are_equally_long() -> None:
    rule = ridge(np.eye(3), np.arange(3.0)).model_dump()
    with pytest.raises(ValidationError, match="scale: found 2 values, expected 3"):
        Rule(**{**rule, "scale": (1.0, 2.0)})


def test_features_of_rows() -> None:
    """A kept rough mask hasn't changed, and what a proposer doesn't say is 0."""
    columns = [[0.5, math.nan], [0.8, math.nan], [0.9, 0.3], [False, True], [True, False]]
    first, second = (dict(zip(ROW_FEATURES, row, strict=True)) for row in row_features(*columns).tolist())
    assert first == pytest.approx(
        {
            "class_score": 0.5,
            "maskness": 0.8,
            "class_score_maskness": 0.4,
            "change": 0.9,
            "maskness_change": 0.72,
            "kept_rough": 0.0,
            "misses_click": 1.0,
        }
    )
    assert second == {name: float(name in ("change", "kept_rough")) for name in ROW_FEATURES}
