"""COCO mask AP against the official evaluator's printed figures, and where those would be -1."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle_tools

from tasks.common.errors import TaskError
from tasks.scoring.coco_eval import evaluate_masks

COCO_BOUNDS = (32.0, 96.0)
ORDER = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")


def _rle(x: int, y: int, width: int, height: int, size: int = 64) -> dict[str, Any]:
    mask = np.zeros((size, size), dtype=np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    rle = rle_tools.encode(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def _truth(*boxes: tuple[int, int, int, int], category_id: int = 7, iscrowd: int = 0) -> dict[str, Any]:
    """One 64x64 image with a filled box an object; a second category, 9, has no objects."""
    return {
        "images": [{"id": 1, "height": 64, "width": 64}],
        "categories": [{"id": 7, "name": "disc"}, {"id": 9, "name": "ring"}],
        "annotations": [
            {
                "id": i + 1,
                "image_id": 1,
                "category_id": category_id,
                "segmentation": _rle(*box),
                "area": box[2] * box[3],
                "bbox": list(box),
                "iscrowd": iscrowd,
            }
            for i, box in enumerate(boxes)
        ],
    }


def _result(
    box: tuple[int, int, int, int], score: float, category_id: int = 7, image_id: int = 1
) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "category_id": category_id,
        "score": score,
        "segmentation": _rle(*box),
    }


def test_equals_the_official_evaluator(shared_dir: Path) -> None:
    folder = shared_dir / "fixtures/coco_golden"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    segm = (folder / "expected.txt").read_text().split("type=bbox")[0]
    expected = [float(figure) for figure in re.findall(r"\] = (-?[\d.]+)", segm)]
    scores = evaluate_masks(
        json.loads((folder / "instances_val2014_100.json").read_text()),
        json.loads((folder / "instances_val2014_fakesegm100_results.json").read_text()),
        max_detections=100,
        size_bounds=COCO_BOUNDS,
    )
    assert len(expected) == len(ORDER)
    found = [round((scores.summary[key] or 0) / 100, 3) for key in ORDER]
    assert found == expected
    # The class table is the same figure taken apart.
    by_class = [row.AP for row in scores.per_class if row.AP is not None]
    assert np.mean(by_class) == pytest.approx(scores.summary["AP"], abs=1e-2)
    assert len(scores.per_class) == 80
    curves = [curve.mean() for curve in scores.precision.values() if curve is not None]
    assert 100 * np.mean(curves) == pytest.approx(scores.summary["AP"], abs=1e-2)


@pytest.mark.parametrize(
    ("boxes", "results", "expected"),
    [
        pytest.param(
            [(2, 2, 20, 20)],
            [_result((2, 2, 20, 20), 0.9)],
            {"AP": 100, "AP50": 100, "APs": 100, "APm": None, "APl": None, "AR": 100, "ARl": None},
            id="perfect, only small objects: other sizes undefined",
        ),
        pytest.param(
            [(2, 2, 40, 40)], [], {"AP": 0, "AP50": 0, "APs": None, "APm": 0, "AR": 0}, id="nothing found"
        ),
        pytest.param([], [], {"AP": None, "AP50": None, "AR": None, "AR1": None}, id="nothing there"),
        pytest.param(
            [],
            [_result((2, 2, 20, 20), 0.9)],
            {"AP": None, "AR": None},
            id="only false alarms: no recall to speak of",
        ),
        pytest.param(
            [(0, 0, 20, 20)],
            [_result((0, 0, 20, 12), 0.9)],  # IoU 0.6: right at 0.50, 0.55 and 0.60
            {"AP": 30, "AP50": 100, "AP75": 0},
            id="IoU 0.6",
        ),
        pytest.param(
            [(0, 0, 20, 20)],
            [_result((0, 0, 20, 20), 0.9, category_id=9)],
            {"AP": 0, "AR": 0},
            id="wrong class",
        ),
    ],
)
def test_hand_made(
    boxes: list[tuple[int, int, int, int]], results: list[dict[str, Any]], expected: dict[str, float | None]
) -> None:
    scores = evaluate_masks(_truth(*boxes), results, max_detections=100, size_bounds=COCO_BOUNDS)
    assert {key: scores.summary[key] for key in expected} == expected
    ring = scores.per_class[1]
    assert (ring.name, ring.instances, ring.AP) == ("ring", 0, None)


def test_crowds_are_no_objects() -> None:
    scores = evaluate_masks(
        _truth((0, 0, 30, 30), iscrowd=1),
        [_result((0, 0, 10, 10), 0.5)],
        max_detections=100,
        size_bounds=COCO_BOUNDS,
    )
    assert scores.summary["AP"] is None
    assert scores.per_class[0].instances == 0


def test_limits_and_sizes_are_parameters() -> None:
    """120 objects of 3x3 px, all found: 100 detections reach 100 of them, 120 all; 3 px may be large."""
    boxes = [(5 * (i % 12), 5 * (i // 12), 3, 3) for i in range(120)]
    results = [_result(box, 0.9) for box in boxes]
    hundred = evaluate_masks(_truth(*boxes), results, max_detections=100, size_bounds=COCO_BOUNDS)
    more = evaluate_masks(_truth(*boxes), results, max_detections=120, size_bounds=(1.5, 2.5))
    one = evaluate_masks(_truth(*boxes), results, max_detections=1, size_bounds=COCO_BOUNDS)
    assert hundred.summary["AR"] == pytest.approx(100 * 100 / 120, abs=1e-2)
    assert hundred.summary["APs"] == hundred.summary["AP"]
    assert (more.summary["AR"], more.summary["AP"], more.summary["APl"]) == (100, 100, 100)
    assert (more.summary["APs"], more.summary["APm"]) == (None, None)
    assert (
        one.summary["AR"] == one.summary["AR10"] == one.summary["AR1"] == pytest.approx(100 / 120, abs=1e-2)
    )


def test_ids_of_annotations_do_not_matter() -> None:
    """pycocotools takes a match with an annotation of id 0 for none."""
    boxes = [(2, 2, 20, 20), (30, 30, 10, 10)]
    truth = _truth(*boxes)
    for n, row in enumerate(truth["annotations"]):
        row["id"] = n
    found = [_result(box, 0.9) for box in boxes]
    scores = evaluate_masks(truth, found, max_detections=10, size_bounds=COCO_BOUNDS).summary
    assert (scores["AP"], scores["AR"], scores["AR1"]) == (100, 100, 50)


def test_leaves_its_inputs_alone() -> None:
    truth, results = _truth((2, 2, 20, 20)), [_result((2, 2, 20, 20), 0.9)]
    before = json.dumps([truth, results])
    evaluate_masks(truth, results, max_detections=10, size_bounds=COCO_BOUNDS)
    assert json.dumps([truth, results]) == before


def test_results_of_another_data_set_are_refused() -> None:
    strangers = [_result((0, 0, 5, 5), 0.5, category_id=3), _result((0, 0, 5, 5), 0.5, image_id=12)]
    with pytest.raises(TaskError, match=r"(?s)image_id 12: .*category_id 3: "):
        evaluate_masks(_truth((0, 0, 9, 9)), strangers, max_detections=10, size_bounds=COCO_BOUNDS)
