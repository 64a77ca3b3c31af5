"""The rows that name all metrics, and their computation."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tasks.scoring import metrics
from tasks.scoring.coco_match import SIZES, Curves, Rules, thresholds
from tasks.scoring.metrics import MODEL_METRICS, PSEUDO_METRICS, keys_at, percent

RULES = Rules(100, (32, 96))


def test_rows_are_unique_and_complete() -> None:
    keys = [metric.key for metric in MODEL_METRICS]
    assert len(set(keys)) == len(keys)
    assert len({metric.label for metric in MODEL_METRICS}) == len(keys)
    assert {metric.key for metric in MODEL_METRICS if metric.tracked} <= {
        metric.key for metric in MODEL_METRICS if metric.reported
    }
    assert all(metric.meaning and metric.unit == "%" for metric in (*MODEL_METRICS, *PSEUDO_METRICS))
    assert [round(100 * overlap) for overlap in thresholds()[0]] == list(metrics.OVERLAPS)


def test_each_metric_takes_its_own_part_of_the_curves() -> None:
    """Precision [T, R, K, A, M] and recall [T, K, A, M] that have the place of their entry in them."""
    t, r, k, a, m = np.ogrid[:10, :101, :2, :4, :3]
    precision = (t + 10 * a + 100 * m) / 1000 + 0.0 * (r + k)
    recall = precision[:, 0] + 0.5
    found = {metric.key: metric.compute(Curves(precision, recall), RULES) for metric in MODEL_METRICS}
    expected = {"AP": 20.45, "AP50": 20.0, "AP75": 20.5, "AR1": 50.45, "AR10": 60.45, "AR": 70.45}
    for n, size in enumerate(SIZES, start=1):
        expected |= {f"AP{size[0]}": 20.45 + n, f"AR{size[0]}": 70.45 + n}
    assert found == pytest.approx(expected)
    nothing = Curves(precision * 0 - 1, recall * 0 - 1)
    assert {metric.compute(nothing, RULES) for metric in MODEL_METRICS} == {None}
    assert percent(np.array([0.5, -1, 1])) == 75


def test_pseudo_metrics() -> None:
    iou = np.array([0.0, 0.5, 0.75, 0.95])
    assert [float(metric.compute(iou)) for metric in PSEUDO_METRICS] == pytest.approx([0.55, 0.75, 0.5])


def test_the_limit_is_in_the_key_of_ar_alone() -> None:
    keys = keys_at(300)
    assert keys.pop("AR") == "AR300"
    assert all(key == name for key, name in keys.items())


def test_the_command_line_may_import_them() -> None:
    code = "import sys, tasks.scoring.metrics; print({'numpy', 'torch', 'pycocotools'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
