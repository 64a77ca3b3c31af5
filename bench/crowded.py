"""Crowded scenes with a perfect network: how many objects keep a mask of their own, by prompting rule.

The network answers what it was to learn (bench/perfect.py), so whatever is lost is lost by the rules around it. A row
is a scene. `taught` is how many objects the targets give a cell; `bound at 0.5` how many true masks outlive the way
through the mask map, cut at 0.5; the columns then add one rule at a time. An object counts where its click's mask has
an IoU above 0.5 with the true one. `thick` masks hold every place that an object touches, without which the reference's
size filter leaves no disc. Ours gives a row for each click in every column.

    python bench/crowded.py                                   # all scenes, some minutes
    python bench/crowded.py --scenes "100 discs, radius 4" --seeds 0 1 --json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.perfect import SCENES, SIZE, Scene, perfect_outputs
from models.config import InferenceConfig, PromptConfig
from models.inference.coarse_masks import rough_masks
from models.masks.resize import Sizes, resize_masks
from models.reference.compat import prompt_as_reference
from models.solov2.network import RawOutputs
from models.solov2.targets import shrink_masks
from tasks.labelling.measure_refiner import paired_iou

REFERENCE = InferenceConfig(
    score_threshold=0.1, min_area=1.0, nms_pre=500, nms_kernel="gaussian", nms_sigma=2.0, nms_threshold=0.05,
    max_detections=100, mask_threshold=0.5,
)  # fmt: skip
PAPER = PromptConfig.paper(0.5)
"""Without what the reference does after prompting: each point keeps its mask."""
BLEND = PAPER.model_copy(
    update={"kernel": "blend", "neighbourhood": 1, "class_power": 0.5, "click_power": 2.0}
)
SETTLED = BLEND.model_copy(update={"exclusive": "same_class"})
OURS = SETTLED.model_copy(update={"small_area": 64.0, "faint": 0.1})
RULES = {"own cell": PAPER, "+ blend": BLEND, "+ exclusive": SETTLED, "+ small cut": OURS}


def by_our_rule(outputs: RawOutputs, scene: Scene, clicks: Tensor, config: PromptConfig) -> tuple[int, int]:
    """Rows that come out, and objects with a mask of IoU above 0.5."""
    masks = rough_masks(outputs, 0, clicks, scene.labels, Sizes(SIZE, SIZE, SIZE), config).masks
    return len(masks), int((paired_iou(masks, scene.masks) > 0.5).sum())


def by_the_reference_s_rule(outputs: RawOutputs, scene: Scene, clicks: Tensor) -> tuple[int, int]:
    """The same of the reference's prompting, with its size filter, mask NMS and cap (models/reference/compat.py)."""
    found = prompt_as_reference(outputs, 0, clicks, scene.labels, SIZE, REFERENCE)
    masks = resize_masks(found.mask_prob, Sizes(SIZE, SIZE, SIZE), REFERENCE.mask_threshold)
    return len(masks), int((paired_iou(masks, scene.masks[found.prompt]) > 0.5).sum())


def measure_scene(make: Callable[[torch.Generator], Scene], stride: int, seed: int) -> dict[str, Any]:
    """Objects, the map's bound, and for both kinds of click the objects found (and rows) by each rule."""
    scene = make(torch.Generator().manual_seed(seed))
    outputs, taught = perfect_outputs(scene, stride)
    thick = perfect_outputs(scene, stride, touched=True).outputs
    through = resize_masks(shrink_masks(scene.masks, SIZE, stride), Sizes(SIZE, SIZE, SIZE), 0.5)
    bound = int((paired_iou(through, scene.masks) > 0.5).sum())
    result: dict[str, Any] = {"objects": len(scene.masks), "taught": taught, "bound at 0.5": bound}
    for where in ("centre", "random"):
        clicks = scene.clicks(where, torch.Generator().manual_seed(seed + 1))
        rules = {
            "reference": by_the_reference_s_rule(outputs, scene, clicks),
            "reference, thick": by_the_reference_s_rule(thick, scene, clicks),
        }
        rules |= {name: by_our_rule(outputs, scene, clicks, config) for name, config in RULES.items()}
        result[where] = {name: {"rows": rows, "found": found} for name, (rows, found) in rules.items()}
    return result


def table(results: list[dict[str, Any]]) -> Table:
    """A row a scene, stride and kind of click."""
    fixed = ("scene", "map stride", "clicks", "objects", "taught", "bound at 0.5")
    shown = Table(*fixed, "reference", "reference, thick", *RULES)
    for result in results:
        for where in ("centre", "random"):
            found = [f"{one['found']} ({one['rows']} rows)" for one in result[where].values()]
            shown.add_row(
                result["scene"], str(result["stride"]), where, str(result["objects"]),
                str(result["taught"]), str(result["bound at 0.5"]), *found[:2],
                *(text.split()[0] for text in found[2:]),
            )  # fmt: skip
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--strides", type=int, nargs="+", choices=(4, 2), default=[4, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", action="store_true", help="print JSON on stdout beside the table on stderr")
    arguments = parser.parse_args()
    results = []
    for stride in arguments.strides:
        for name in arguments.scenes:
            for seed in arguments.seeds:
                facts = {"scene": name, "stride": stride, "seed": seed}
                results.append({**facts, **measure_scene(SCENES[name], stride, seed)})
                print(".", end="", file=sys.stderr, flush=True)
    Console(stderr=True, width=160).print(table(results))
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
