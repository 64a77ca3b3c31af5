"""What further clicks of an object add: mean IoU with the true masks, rough and refined, on a part of the weak images
whose masks were kept aside, with the teacher and refiner of a finished line (such as one of bench/quality.py).

Every object has a click at a random pixel. Then, of all objects of an image at once:

    inside    a second click at another random pixel of each object
    missed    a click at the middle of what the mask misses
    outside   a click at the middle of what the mask takes in by mistake
    both      `inside` and `outside`

The mask is the refined one of the first click. `missed` and `outside` are clicks that a person makes, on errors that
are visible: only if the largest piece of the error has a tenth of the pixels of the mask and the object together. The
gate decides nothing: every mask is refined. Images with so many objects that the pipeline draws their masks in chunks
are left out.

    cd LINE && python bench/further_clicks.py --seeds 0 1
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.tables import Split
from models.checkpoint import load_teacher
from models.masks.clicks import NO_POINT, OFF, ON, FurtherClicks
from models.masks.geometry import random_inner_points
from tasks.common.config import load_params
from tasks.common.device import set_up
from tasks.inference.batches import load_batches
from tasks.labelling.compute import MASK_PIXELS
from tasks.labelling.gate import unmeasured
from tasks.labelling.labeller import GatedRefiner, load_refiner
from tasks.labelling.measure_refiner import Objects, objects_of, paired_iou
from tasks.labelling.proposer import draw
from tasks.labelling.solov2_proposer import SOLOv2Proposer
from tasks.labelling.types import ImageContext

WORKSPACE = Path("workspace")
VISIBLE = 0.1
"""The largest piece of an error, as a share of the mask and the object together, from which it gets a click."""
POOR = 0.6
"""IoU below which a mask is poor."""


def middle(error: NDArray[np.bool_], least: float) -> tuple[float, float] | None:
    """The centre of the innermost pixel of the largest piece of an error, if that has `least` pixels."""
    _, pieces, facts, _ = cv2.connectedComponentsWithStats(error.astype(np.uint8))
    sizes = facts[1:, cv2.CC_STAT_AREA]
    if not len(sizes) or sizes.max() < least:
        return None
    piece = pieces == 1 + int(sizes.argmax())
    depth = cv2.distanceTransform(np.pad(piece, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return float(x) + 0.5, float(y) + 0.5


def clicked(errors: Tensor, union: Tensor, label: int) -> FurtherClicks:
    """A click of this label on each visible one of errors bool [K, H, W]; `union`: the pixels [K] to compare with."""
    points, labels = torch.zeros(len(errors), 1, 2), torch.full((len(errors), 1), NO_POINT)
    for k, (error, pixels) in enumerate(zip(errors.numpy(), union.tolist(), strict=True)):
        place = middle(error, VISIBLE * pixels)
        if place is not None:
            points[k, 0], labels[k, 0] = torch.tensor(place), label
    return FurtherClicks(points, labels)


def joined(one: FurtherClicks, other: FurtherClicks) -> FurtherClicks:
    """The clicks of both."""
    return FurtherClicks(*(torch.cat(parts, 1) for parts in zip(one, other, strict=True)))


class Measurement:
    """The networks of a line, and the IoU of all masks so far."""

    def __init__(self) -> None:
        self.params = params = load_params("params.yaml")
        device = set_up(params.runtime, params.threads)
        teacher = load_teacher(WORKSPACE / "teacher", device)
        self.proposer = SOLOv2Proposer(teacher, params.prompt, params.input.tile, device)
        refine_all = unmeasured(0, enlarge=params.refiner.enlarge, rounds=params.refiner.rounds)
        network = load_refiner(WORKSPACE / "refiner", device).eval()
        self.refiner = GatedRefiner(network, refine_all, params.pseudo.crop_batch_size)
        self.iou: dict[tuple[str, str], list[Tensor]] = {}
        """by the kind of clicks and of masks"""
        self.groups: dict[str, list[Tensor]] = {}
        """bool, of the same objects: by name, which are in it"""

    @torch.no_grad()
    def run(self, seeds: list[int], every: int, most_pixels: int) -> None:
        """Draws masks at the objects of every n-th image, if that isn't larger."""
        weak = Split.open(WORKSPACE / "dataset" / "kept_aside")
        sides = (weak.images[name].to_numpy() for name in ("width", "height"))
        small = (np.prod(list(sides), axis=0) <= most_pixels).nonzero()[0].tolist()
        for batch, _ in load_batches(weak, [n for n in small if n % every == 0], self.params.input, 1, 0):
            assert batch is not None
            for row, context in zip(batch.rows, self.proposer.encode(batch), strict=True):
                objects = objects_of(weak, row, self.proposer.device)
                if not 0 < objects.masks.numel() <= MASK_PIXELS:
                    continue
                for seed in seeds:
                    self._image(context, objects, 1000 * row + seed)
            print(f"image {batch.rows[-1] + 1} of {len(weak)}", file=sys.stderr)

    def _image(self, context: ImageContext, objects: Objects, seed: int) -> None:
        true = objects.masks
        generator = torch.Generator().manual_seed(seed)
        points, second = random_inner_points(true, 2, generator).unbind(1)
        masks = self._draw("one", context, objects, points, None)
        union = (masks | true).flatten(1).sum(1)
        inside = FurtherClicks(second[:, None], torch.full((len(true), 1), ON))
        missed, outside = clicked(true & ~masks, union, ON), clicked(masks & ~true, union, OFF)
        both = joined(inside, outside)
        kinds = {"inside": inside, "missed": missed, "outside": outside, "both": both}
        for name, further in kinds.items():
            self._draw(name, context, objects, points, further)
        for name, rows in (
            ("all", torch.ones(len(true), dtype=torch.bool)),
            ("poor", self.iou["one", "refined"][-1] < POOR),
            ("missed", missed.labels[:, 0] == ON),
            ("outside", outside.labels[:, 0] == OFF),
        ):
            self.groups.setdefault(name, []).append(rows)

    def _draw(
        self,
        name: str,
        context: ImageContext,
        objects: Objects,
        points: Tensor,
        further: FurtherClicks | None,
    ) -> Tensor:
        prompt = self.params.prompt
        drawn = draw(self.proposer, context, points, objects.labels, prompt, further=further)
        masks = self.refiner.refine(context, drawn, points, objects.labels, prompt).final
        for kind, found in (("rough", drawn.rough.masks), ("refined", masks)):
            self.iou.setdefault((name, kind), []).append(paired_iou(found, objects.masks))
        return masks

    def table(self) -> dict[str, dict[str, float]]:
        """Objects of each group; and by the kind of clicks the mean IoU of each group, in percent."""
        groups = {name: torch.cat(parts) for name, parts in self.groups.items()}
        table: dict[str, dict[str, float]] = {"objects": {of: int(rows.sum()) for of, rows in groups.items()}}
        for (name, kind), parts in self.iou.items():
            iou = 100 * torch.cat(parts)
            table[f"{name}, {kind}"] = {of: round(float(iou[rows].mean()), 2) for of, rows in groups.items()}
        return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the random clicks")
    parser.add_argument("--every", type=int, default=10, help="every n-th weak image")
    parser.add_argument("--most-pixels", type=int, default=1 << 40, help="larger images are left out")
    arguments = parser.parse_args()
    measurement = Measurement()
    measurement.run(arguments.seeds, arguments.every, arguments.most_pixels)
    for name, values in measurement.table().items():
        print(f"{name:18}", json.dumps(values))


if __name__ == "__main__":
    main()
