"""Refined masks a second: all of an image's clicks in batches, against one instance after the other.

For each network the same drawn image and rough masks, random weights (speed doesn't depend on them): `one by one` is
bench/plain_refine.py on the network as its layers are written, float32; `ours` is models/refiner/crops.py's `refine`
on the same network. `agree` is the mean IoU of both ways' masks; weights are random, so that their edges are many.

    python bench/refine.py                                # both networks, crops of 256 px; CPU: ten minutes of a core
    python bench/refine.py --nets default --instances 64 --device cuda --json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import Peak, facts_of, in_turns, machine, parser, peak_of, show, work_of
from bench.plain_network import unfolded
from bench.plain_refine import plain_refine
from models.config import RefineNetConfig
from models.refiner.crops import refine
from models.refiner.network import MaskRefineNet
from tasks.tools.recipes import load_recipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
NETS = {"resnet101": "coco_5p", "default": "demo"}
"""The recipe whose refiner each network is: the paper's backbone, and the half-width ResNet-18 of small data."""
ENLARGE, THRESHOLD = 2.0, 0.5


def net_config(name: str, crop_size: int) -> RefineNetConfig:
    """The network of its recipe, for crops of that side, from random weights."""
    net = load_recipe(RECIPES / f"{NETS[name]}.yaml").refiner.net
    backbone = net.backbone.model_copy(update={"weights": None})
    return net.model_copy(update={"backbone": backbone, "crop_size": crop_size})


def drawn(size: tuple[int, int], count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """An image of noise uint8 [3, H, W], ellipses of 30 to 300 pixels bool [K, H, W], and their centres [K, 2]."""
    height, width = size
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    radii = 15 + torch.rand(count, 2, generator=generator) * (min(150, min(size) / 3) - 15)
    centres = radii + torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - 2 * radii)
    x = (torch.arange(width) + 0.5 - centres[:, :1]) / radii[:, :1]
    y = (torch.arange(height) + 0.5 - centres[:, 1:]) / radii[:, 1:]
    return image, x.square()[:, None, :] + y.square()[:, :, None] <= 1, centres


def mean_iou(a: Tensor, b: Tensor) -> float:
    """Of bool masks [K, H, W], pair by pair."""
    overlap, union = (a & b).flatten(1).sum(1), (a | b).flatten(1).sum(1)
    return float((overlap / union.clamp(min=1)).mean())


def measure(name: str, args: Any, device: torch.device, peaks: dict[bool, Peak]) -> list[dict[str, Any]]:
    """A row a way."""
    config = net_config(name, args.crop)
    torch.manual_seed(0)
    model = MaskRefineNet(config).eval().requires_grad_(False).to(device)
    image, masks, points = (
        tensor.to(device)
        for tensor in drawn(tuple(args.size), args.instances, torch.Generator().manual_seed(0))
    )

    def one_by_one() -> Tensor:
        with unfolded():
            return plain_refine(model, image, masks, points, enlarge=ENLARGE, mask_threshold=THRESHOLD)

    def ours(precision: Literal["fp32", "bf16"]) -> Tensor:
        used = config.model_copy(update={"infer_precision": precision})
        return refine(
            model, image, masks, points, used, args.batch, enlarge=ENLARGE, mask_threshold=THRESHOLD, rounds=1
        ).masks

    runs = {
        "one by one": one_by_one,
        "ours, fp32": lambda: ours("fp32"),
        "ours, bf16": lambda: ours("bf16"),
    }
    expected = one_by_one()
    agree = {way: mean_iou(run(), expected) for way, run in runs.items()}
    times = in_turns(runs, device, args.repeats, warm_up=0)
    return [
        {
            "network": name,
            "way": way,
            "masks_a_second": len(masks) / times[way],
            "times_the_baseline": times["one by one"] / times[way],
            "agree": agree[way],
            **facts_of(times[way], work_of(run), peaks[way.endswith("bf16")]),
        }
        for way, run in runs.items()
    ]


def main() -> None:
    options = parser(__doc__, repeats=3)
    options.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    options.add_argument("--instances", type=int, default=16, help="of the image")
    options.add_argument("--batch", type=int, default=16, help="crops at a time (pseudo.crop_batch_size)")
    options.add_argument("--crop", type=int, default=256, help="side of a crop in pixels")
    options.add_argument(
        "--size", type=int, nargs=2, default=[800, 1333], help="height and width of the image"
    )
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    peaks = {False: peak_of(device), True: peak_of(device, torch.bfloat16)}
    rows = [row for name in args.nets for row in measure(name, args, device, peaks)]
    facts = machine(device, peaks[False]) | {"bf16_peak_gflop_s": peaks[True].flops / 1e9}
    show("Refinement", rows, facts, as_json=args.json)


if __name__ == "__main__":
    main()
