"""One measurement in the folder of a line, for bench/quality.py: `ap_teacher`, `ap_student`, `pseudo`, `rules` or
`judge`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from data.tables import Split
from models.checkpoint import build_model, load_detector, load_teacher
from models.config import PromptConfig
from models.inference.coarse_masks import rough_masks
from models.inference.tiles import forward_tiled
from models.refiner.network import MaskRefineNet
from models.refiner.refine import refined_masks
from tasks.common.config import Params, load_params
from tasks.common.device import set_up
from tasks.common.progress import Bar
from tasks.inference.batches import load_batches
from tasks.inference.predict import Finder
from tasks.inference.predict_files import as_results
from tasks.labelling.judge import read_judge
from tasks.labelling.labeller import Plan, load_proposers, load_refiner
from tasks.labelling.measure_judge import measure_sources
from tasks.labelling.measure_refiner import CLICKS, click_points, objects_of, paired_iou
from tasks.scoring.coco_eval import evaluate_masks
from tasks.scoring.predictions import true_masks
from tasks.scoring.pseudo import score_pseudo
from tasks.train_rounds import STUDENT
from tasks.train_student import read_pseudo

WORKSPACE = Path("workspace")
EVERY = 10
"""Of the weak images, those whose masks the rules are compared on."""


def ap(model: str, params: Params) -> dict[str, float | None]:
    """COCO mask AP of a network on the val split, in percent."""
    config = params.evaluate
    device = set_up(params.runtime, params.threads)
    val = Split.open(WORKSPACE / "dataset" / "val")
    finder = Finder(
        load_detector(WORKSPACE / model, device), val, size=params.input, inference=config.inference,
        batch_size=config.batch_size, device=device, workers=0, name=model,
    )  # fmt: skip
    with Bar(f"predict with {model}", len(val), "image") as bar:
        [(table, faults)] = finder.find([range(len(val))], bar)
    assert not faults, faults
    scores = evaluate_masks(
        true_masks(val), as_results(table),
        max_detections=config.max_detections, size_bounds=config.size_bounds,
    )  # fmt: skip
    return scores.summary | {one.name: one.AP for one in scores.per_class}


def pseudo(params: Params) -> dict[str, Any]:
    """Rough and refined masks against the true ones, in percent, and how many points came to what end."""
    kept_aside = Split.open(WORKSPACE / "dataset" / "kept_aside")
    with tempfile.TemporaryDirectory() as scratch:
        scores = score_pseudo(
            WORKSPACE / "pseudo", WORKSPACE / "points" / "points.parquet", kept_aside, params.evaluate.size_bounds,
            Path(scratch),
        )  # fmt: skip
    assert scores is not None  # alone
    statuses = json.loads((WORKSPACE / "pseudo" / "summary.json").read_text())
    return scores.metrics() | {
        "statuses": statuses,
        "measured": len(scores.quality),
        "score_correlation": _score_correlation(scores.quality),
    }


def _score_correlation(quality: pa.Table) -> dict[str, float]:
    """Pearson's correlation with the true IoU (0 without a mask): of the score, and of class score x maskness."""
    names = ("point_id", "score", "class_score", "maskness")
    rows = {row["point_id"]: row for row in read_pseudo(WORKSPACE / "pseudo").select(names).to_pylist()}
    of_point = [rows[name] for name in quality["point_id"].to_pylist()]
    score, certainty, mask = (
        np.nan_to_num(np.array([one[name] for one in of_point], np.float64)) for name in names[1:]
    )
    iou = np.nan_to_num(quality["refined_iou"].to_numpy().astype(np.float64))
    return {
        name: round(float(np.corrcoef(found, iou)[0, 1]), 3)
        for name, found in (("score", score), ("class_score_maskness", certainty * mask))
    }


@torch.no_grad()
def rules(params: Params) -> dict[str, Any]:
    """Mean IoU, in percent, of rough and refined masks by our prompting and the paper's, at centres and at random
    inner pixels, with the same networks, on every `EVERY`th weak image whose masks are known.

    The paper's rule is taken without what the reference loses after it (shared cells, size filter, NMS, cap): every
    point keeps its mask here, so this is that rule at its best. The gate isn't asked: every mask is refined.
    """
    device = set_up(params.runtime, params.threads)
    teacher = load_teacher(WORKSPACE / "teacher", device)
    refiner = build_model(WORKSPACE / "refiner")
    assert isinstance(refiner, MaskRefineNet)
    weak = Split.open(WORKSPACE / "dataset" / "kept_aside")
    paper = PromptConfig.paper(params.prompt.mask_threshold)
    ious: dict[str, list[float]] = {}
    for batch, _ in load_batches(weak, range(0, len(weak), EVERY), params.input, 8, 0):
        assert batch is not None
        outputs = forward_tiled(teacher, batch.images, batch.content_sizes, params.input.tile)
        for n, row in enumerate(batch.rows):
            original = batch.originals[n]
            _, labels, masks = objects_of(weak, row, device)
            if not len(masks):
                continue
            for click in ("centre", "random"):
                points = click_points(masks, click, params.seed, weak.image(row)["image_id"])
                for name, rule in (("ours", params.prompt), ("paper", paper)):
                    rough = rough_masks(outputs, n, points, labels, batch.sizes(n), rule)
                    final = refined_masks(
                        refiner, original, rough, points, labels, rule, params.pseudo.crop_batch_size,
                        enlarge=params.refiner.enlarge, rounds=params.refiner.rounds,
                        selected=torch.ones_like(labels, dtype=torch.bool),
                    )  # fmt: skip
                    for kind, found in (("rough", rough.masks), ("refined", final.masks)):
                        values = paired_iou(found, masks).tolist()
                        ious.setdefault(f"{name}_{click}_{kind}", []).extend(values)
    means = {name: 100 * sum(values) / len(values) for name, values in ious.items()}
    return means | {"objects": len(next(iter(ious.values())))}


@torch.no_grad()
def judge(params: Params) -> dict[str, Any]:
    """Mean IoU, in percent, of final masks: of each proposer alone, as the judge chooses, by its rules (if it has
    them), and of the best of all at each click; at centres and random inner pixels, on every `EVERY`th weak image whose
    masks are known."""
    device = set_up(params.runtime, params.threads)
    weak = Split.open(WORKSPACE / "dataset" / "kept_aside")
    some = set(weak.images["image_id"].to_pylist()[::EVERY])
    fitted = read_judge(WORKSPACE / "pseudo")
    plan = Plan(STUDENT if params.rounds > 1 else None)
    named = load_proposers(params, WORKSPACE, device, plan, None)
    refiner = load_refiner(WORKSPACE / "refiner", device).eval()
    features, has_mask, measured = measure_sources(
        params, weak, some, named, refiner, fitted.typical_areas, device, "judge"
    )
    gated = zip(fitted.proposers, measured, strict=True)
    iou = np.stack([fitted.gates[name].final_iou(one) for name, one in gated], 1)
    each = {name: iou[:, p] for p, name in enumerate(fitted.proposers)}
    rows = np.arange(len(iou))
    each["judge"] = iou[rows, fitted.choose(features, has_mask)]
    if fitted.rules:
        free = fitted.model_copy(update={"alone": None})
        each["rules"] = iou[rows, free.choose(features, has_mask)]
    each["best of all"] = iou.max(1)
    clicks = measured[0].clicks
    means = {
        f"{name}_{click}": 100 * float(values[clicks == click].mean())
        for name, values in each.items()
        for click in CLICKS
    }
    return means | {"alone": fitted.alone, "objects": len(iou) // len(CLICKS)}


def main() -> None:
    what = sys.argv[1]
    params = load_params("params.yaml")
    own = {"pseudo": pseudo, "rules": rules, "judge": judge}
    found = own[what](params) if what in own else ap(what.removeprefix("ap_"), params)
    Path(f"{what}.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
