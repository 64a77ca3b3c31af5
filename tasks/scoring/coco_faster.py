"""COCO's evaluation by faster-coco-eval, the optional evaluator for large sets: pycocotools' rules in C++.

It takes the whole set at once, in one process. tests/tasks/scoring/test_coco_faster.py holds it to pycocotools'
figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.common.errors import TaskError
from tasks.scoring.coco_match import Curves, Rules, indexed


def check_installed() -> None:
    """Raises a TaskError where faster-coco-eval isn't installed: before hours of predicting, not after them."""
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
    """Curves of all classes, in the order of their ids, as `match` and `accumulate` of `tasks.scoring.coco_match`
    give them.

    Raises:
        TaskError: faster-coco-eval isn't installed.
    """
    check_installed()
    from faster_coco_eval import COCO, COCOeval_faster

    # Fused: it would keep all single comparisons otherwise.
    evaluation = COCOeval_faster(
        *indexed(COCO, ground_truth, results), "segm", extra_calc=False, separate_eval=False
    )
    rules.apply(evaluation.params)
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = (np.asarray(evaluation.eval[name], np.float64) for name in ("precision", "recall"))
    return Curves(precision, recall)
