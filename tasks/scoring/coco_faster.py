"""COCO's evaluation by faster-coco-eval, an optional evaluator for large sets: pycocotools' rules in C++.

It needs the whole set at once, in one process. tests/tasks/scoring/test_coco_faster.py compares it with pycocotools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.common.errors import TaskError
from tasks.scoring.coco_match import Curves, Rules, indexed


def check_installed() -> None:
    """Raises a TaskError if faster-coco-eval isn't installed. Called before hours of prediction, not after."""
    try:
        import faster_coco_eval
    except ImportError as error:
        raise TaskError(
            f"evaluator: found faster_coco_eval, which can't be imported ({error}); install it by "
            "`pip install 'points2model[faster-eval]'`, or choose pycocotools, whose figures are the same"
        ) from None
    del faster_coco_eval


def evaluate_faster(
    ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], rules: Rules
) -> Curves:
    """Curves of all classes, in the order of their ids: those of `match` and `accumulate` in tasks.scoring.coco_match.

    Raises:
        TaskError: faster-coco-eval isn't installed.
    """
    check_installed()
    from faster_coco_eval import COCO, COCOeval_faster

    # With separate_eval it would keep every single comparison.
    evaluation = COCOeval_faster(
        *indexed(COCO, ground_truth, results), "segm", extra_calc=False, separate_eval=False
    )
    rules.apply(evaluation.params)
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = (np.asarray(evaluation.eval[name], np.float64) for name in ("precision", "recall"))
    return Curves(precision, recall)
