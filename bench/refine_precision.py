"""What bf16 does to refined masks: mean IoU with the true masks, of one trained refiner used in both precisions.

WORK is a folder with params.yaml and a workspace that holds a trained teacher and refiner. Every object of the images
is clicked twice, at a random pixel and at its centre, as tasks/labelling/measure_refiner.py does.

    python bench/refine_precision.py WORK --images 8
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import machine, parser, show
from data.tables import Split
from models.checkpoint import build_model, load_teacher
from models.refiner.network import MaskRefineNet
from tasks.common.config import load_params
from tasks.labelling.measure_refiner import CLICKS, measure
from tasks.labelling.solov2_proposer import SOLOv2Proposer

PRECISIONS = ("fp32", "bf16")


def both(folder: Path, device: torch.device) -> dict[int, MaskRefineNet]:
    """The refiner twice, in the order of `PRECISIONS`."""
    networks = {}
    for i, precision in enumerate(PRECISIONS):
        network = build_model(folder)
        if not isinstance(network, MaskRefineNet):
            raise SystemExit(f"{folder}: found a {type(network).__name__}, expected a refiner's checkpoint")
        network.config = network.config.model_copy(update={"infer_precision": precision})
        networks[i] = network.to(device)
    return networks


def main() -> None:
    options = parser(__doc__, repeats=1)
    options.add_argument("work", type=Path)
    options.add_argument("--split", default="val", help="folder of the data set")
    options.add_argument("--images", type=int, default=8)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    workspace = args.work / "workspace"
    split = Split.open(workspace / "dataset" / args.split)
    ids = split.images["image_id"].to_pylist()
    step = max(1, len(ids) // args.images)
    chosen = ids[: step * args.images : step]
    refiners = both(workspace / "refiner", device)
    teacher = load_teacher(workspace / "teacher", device)
    params = load_params(args.work / "params.yaml")
    proposer = SOLOv2Proposer(teacher, params.prompt, params.input.tile, device)
    found = measure(params, split, chosen, proposer, refiners, device)
    rows = [
        {
            "precision": precision,
            "clicks": click,
            "objects": int((found[i].clicks == click).sum()),
            "rough_iou": 100 * float(found[i].rough_iou[found[i].clicks == click].mean()),
            "refined_iou": 100 * float(found[i].refined_iou[found[i].clicks == click].mean()),
        }
        for i, precision in enumerate(PRECISIONS)
        for click in CLICKS
    ]
    show("Refined in both precisions", rows, machine(device), as_json=args.json)


if __name__ == "__main__":
    main()
