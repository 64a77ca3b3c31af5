"""What each rule of prompting adds with a trained teacher: IoU of rough masks with masks kept aside, by kind of click.

WORK is a folder with params.yaml and a workspace that holds a trained teacher and masks kept aside.

    python bench/prompt_rules.py WORK --images 20
    python bench/prompt_rules.py WORK --images 20 --rules '{"wider": {"neighbourhood": 2}}'    # beside the others
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.tables import Split
from models.checkpoint import load_teacher
from models.config import PromptConfig
from models.inference.coarse_masks import rough_masks
from models.inference.tiles import forward_tiled
from models.masks.geometry import measure, random_inner_points
from tasks.common.config import Params, load_params
from tasks.inference.batches import load_batches
from tasks.labelling.measure_refiner import objects_of, paired_iou

SIZES = (0, 4, 16, 64, 256, np.inf)
"""Areas, in places of the mask map, between which objects are told apart."""


def rules_of(params: Params) -> dict[str, PromptConfig]:
    """The paper's rule, the params', and the params' with one thing the paper's way."""
    ours, paper = params.prompt, PromptConfig.paper(params.prompt.mask_threshold)
    without = {
        "one cell's kernel": ("kernel", "neighbourhood"),
        "own cells alone": ("neighbourhood",),
        "shared pixels": ("exclusive",),
        "one cut": ("small_area", "faint"),
    }
    rules = {"paper": paper, "ours": ours}
    for name, fields in without.items():
        rules[name] = ours.model_copy(update={field: getattr(paper, field) for field in fields})
    return rules


@torch.no_grad()
def measure_rules(params: Params, workspace: Path, images: int, rules: dict[str, PromptConfig]) -> Any:
    """IoU of each object by rule and click, and the objects' areas in places of the mask map."""
    teacher = load_teacher(workspace / "teacher", torch.device("cpu"))
    aside = Split.open(workspace / "dataset" / "kept_aside")
    found: dict[str, dict[str, list[float]]] = {name: {"centre": [], "random": []} for name in rules}
    areas: list[float] = []
    generator = torch.Generator().manual_seed(params.seed)
    rows = list(range(0, len(aside), max(1, len(aside) // images)))[:images]
    for batch, _ in load_batches(aside, rows, params.input, 1, 0):
        if batch is None:
            continue
        outputs = forward_tiled(teacher, batch.images, batch.content_sizes, params.input.tile)
        sizes = batch.sizes(0)
        (ch, cw), (height, width) = sizes.content, sizes.original
        _, labels, masks = objects_of(aside, batch.rows[0], torch.device("cpu"))
        if not len(masks):
            continue
        pixel = ch * cw / (height * width) / teacher.config.mask_stride**2
        areas += (masks.flatten(1).sum(1) * pixel).tolist()
        clicks = {
            "centre": measure(masks).centre, "random": random_inner_points(masks, 1, generator)[:, 0]
        }  # fmt: skip
        for where, points in clicks.items():
            for name, config in rules.items():
                ours = rough_masks(outputs, 0, points, labels, sizes, config).masks
                found[name][where] += paired_iou(ours, masks).tolist()
    return found, areas


def table(found: dict[str, dict[str, list[float]]], areas: list[float]) -> Table:
    """A row a rule and kind of click: mean IoU and the share above 0.5 in percent, and the mean by size."""
    sizes = np.digitize(areas, SIZES) - 1
    counts = np.bincount(sizes, minlength=len(SIZES) - 1)
    ranges = zip(SIZES, SIZES[1:], counts, strict=False)
    headers = [f"{low:g}-{high:g} places ({count})" for low, high, count in ranges]
    shown = Table("rule", "clicks", "mean IoU", "over 50", *headers)
    for name, by_click in found.items():
        for where, values in by_click.items():
            iou = 100 * np.array(values)
            means = [f"{iou[sizes == n].mean():.1f}" if count else "-" for n, count in enumerate(counts)]
            shown.add_row(name, where, f"{iou.mean():.1f}", f"{100 * (iou > 50).mean():.0f}", *means)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument(
        "--rules", type=json.loads, default={}, help="JSON: name to changes of the params' rule"
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout beside the table on stderr")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.chdir(arguments.work)  # paths in params.yaml are relative to it
    params = load_params("params.yaml")
    rules = rules_of(params)
    for name, changes in arguments.rules.items():
        rules[name] = PromptConfig.model_validate(params.prompt.model_dump() | changes)
    found, areas = measure_rules(params, Path("workspace"), arguments.images, rules)
    Console(stderr=True, width=160).print(table(found, areas))
    if arguments.json:
        print(json.dumps({"iou": found, "areas": areas}))


if __name__ == "__main__":
    main()
