"""Images a second of pseudo-labelling, from JPEG files to parquet parts: the stage's own code.

The paper's R-101 networks, 80 classes, 800x1333, 20 clicks an image, every mask refined. The networks have random
weights, which is fine for their time; the teacher's outputs are replaced by a trained one's (bench/answers.py), since
masks of random weights are noise. Rows: reading the files alone, the teacher's network alone, all of it, and a plain
loop that takes one image and one mask after the other (bench/plain_prompting.py, bench/plain_refine.py). Seconds are of
the clock.

    python bench/label.py --device cuda                              # a minute
    python bench/label.py --device cpu --recipe demo --images 2 --input 96 128 --points 3 --json
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.answers import Answers, answer, scatter
from bench.measure import machine, parser, show
from bench.plain_network import unfolded
from bench.plain_prompting import prompt_plainly
from bench.plain_refine import plain_refine
from bench.prompting import SIDES, move, padded
from data.masks.rle import encode
from data.schemas import CLICKS
from data.tables import IMAGES, INSTANCES, POINTS, Category, Split, write_parquet, write_split
from models.masks.clicks import FurtherClicks
from models.refiner.network import MaskRefineNet
from models.solov2.network import RawOutputs, SOLOv2
from tasks.common.config import Params
from tasks.common.device import set_up
from tasks.common.progress import Bar
from tasks.inference.batches import ImageBatch, grouped, read_batches
from tasks.labelling.cache import Ledger
from tasks.labelling.compute import Computation
from tasks.labelling.gate import read_gate, unmeasured, write_gate
from tasks.labelling.labeller import GatedRefiner, Labeller
from tasks.labelling.parts import PointParts
from tasks.labelling.schedule import Maker
from tasks.labelling.solov2_proposer import SOLOv2Proposer
from tasks.labelling.types import ImageContext, Proposals
from tasks.tools.recipes import load_recipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
CATEGORIES = [Category(k + 1, f"class {k + 1}") for k in range(80)]


@dataclass(frozen=True)
class Trained:
    """A proposer that runs its network, and then has the outputs of a trained one."""

    proposer: SOLOv2Proposer
    outputs: RawOutputs

    @property
    def masks_a_click(self) -> int:
        return self.proposer.masks_a_click

    def encode(self, batch: ImageBatch) -> list[ImageContext]:
        return [
            context._replace(encoding=[(self.outputs, 0)] * len(context.encoding))
            for context in self.proposer.encode(batch)
        ]

    def propose(
        self, context: ImageContext, points_xy: Tensor, labels: Tensor, further: FurtherClicks | None = None
    ) -> Proposals:
        return self.proposer.propose(context, points_xy, labels, further)


def params_of(args: Any) -> Params:
    """The recipe for this size and device; its networks without weights."""
    params = load_recipe(RECIPES / f"{args.recipe}.yaml")
    height, width = args.input
    changes: dict[str, Any] = {
        "input": {
            "short_side": min(height, width),
            "max_side": max(height, width),
            "enlarge": True,
            "tile": None,
        },
        "runtime": {"device": args.device, "workers": args.workers},
        "pseudo": {"part_images": args.images, "batch_size": args.batch},
    }
    content = params.model_dump()
    for section, values in changes.items():
        content[section] |= values
    content["model"]["backbone"]["weights"] = content["refiner"]["net"]["backbone"]["weights"] = None
    return Params.model_validate(content)


def write_data(folder: Path, args: Any, points_xy: Tensor, labels: Tensor) -> Split:
    """JPEG files of smooth noise with the clicks on each."""
    height, width = args.input
    rng = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir()
    rows = []
    for n in range(args.images):
        small = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        code = cv2.imencode(".jpg", cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))[
            1
        ].tobytes()
        name = f"{n:06d}.jpg"
        (images / name).write_bytes(code)
        rows.append((n, name, name, width, height, hashlib.sha256(code).hexdigest(), "weak", "point", "ok"))
    columns = dict(zip(IMAGES.names, map(list, zip(*rows, strict=True)), strict=True))
    write_split(
        folder / "weak", pa.table(columns, schema=IMAGES), INSTANCES.empty_table(), CATEGORIES, str(images)
    )
    count = len(labels) * args.images
    points = {
        "point_id": [hashlib.sha256(str(n).encode()).hexdigest()[:16] for n in range(count)],
        "image_id": np.repeat(np.arange(args.images), len(labels)),
        "category_id": np.tile(labels.numpy() + 1, args.images),
        "x": np.tile(points_xy[:, 0].numpy(), args.images),
        "y": np.tile(points_xy[:, 1].numpy(), args.images),
        "annotator": pa.nulls(count, pa.string()),
        "labelled_at": pa.nulls(count, pa.string()),
        "source_file": ["points.csv"] * count,
        "source_record": [str(n) for n in range(count)],
        "further": pa.nulls(count, CLICKS),
    }
    order = [("image_id", "ascending"), ("point_id", "ascending")]
    write_parquet(pa.table(points, schema=POINTS).sort_by(order), folder / "points.parquet")
    return Split.open(folder / "weak")


def clock(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the clock until all is done on the device too."""
    begin = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


@dataclass
class Bench:
    """What the runs share: networks with the outputs of trained ones, and images with clicks."""

    args: Any
    folder: Path
    params: Params
    device: torch.device
    labeller: Labeller
    made: Answers
    weak: Split

    def label(self) -> None:
        """All images, from an empty ledger to the last part."""
        config = self.params.pseudo
        ledger = Path(tempfile.mkdtemp(dir=self.folder))
        parts = PointParts(self.folder / "points.parquet", self.weak, config.part_images, config.part_points)
        maker = Maker(self.params, self.weak, parts, Ledger(ledger))
        with Bar("pseudo_label", self.args.images, "image") as bar:
            maker.make(Computation(self.params, self.labeller, self.weak).run, range(len(parts)), bar)
        assert not maker.faults, maker.faults

    def batches(self) -> list[list[int]]:
        return grouped(self.weak, list(range(self.args.images)), self.params.input, self.args.batch)

    def read(self) -> None:
        for _ in read_batches(self.weak, iter(self.batches()), self.params.input, self.args.workers):
            pass

    def first_batch(self) -> ImageBatch:
        batch, _ = next(iter(read_batches(self.weak, self.batches()[:1], self.params.input, 0)))
        assert batch is not None
        return batch

    def plainly(self, batch: ImageBatch, images: int) -> None:
        """Some images of a batch, in loops."""
        proposer, device = self.labeller.proposer, self.device
        assert isinstance(proposer, Trained)
        outputs, xy, labels = move(self.made.outputs, torch.device("cpu")), *self.made[1:]
        refiner = self.labeller.refiner.network
        rough = self.labeller.label(proposer.encode(batch)[0], xy.to(device), labels.to(device)).rough
        with unfolded():
            for original in batch.originals[:images]:
                proposer.proposer.network(batch.images[:1].to(device), batch.content_sizes[:1])
                prompt_plainly(outputs, xy, labels, batch.sizes(0), 0.5)
                masks = plain_refine(
                    refiner, original.to(device), rough, xy.to(device), enlarge=2.0, mask_threshold=0.5
                )
                for mask in masks.cpu().numpy():
                    encode(mask)


def build(args: Any, folder: Path) -> Bench:
    """Networks from random weights, and the data."""
    params = params_of(args)
    device = set_up(params.runtime, args.threads, seed=0)
    config, content = params.detector(params.teacher), (args.input[0], args.input[1])
    teacher = SOLOv2(config, len(CATEGORIES)).eval().requires_grad_(False).to(device)
    refiner = MaskRefineNet(params.refiner.net).eval().requires_grad_(False).to(device)
    sides = SIDES[50] if min(content) > 400 else (10.0, 40.0)
    objects = scatter(args.points, sides, content, len(CATEGORIES), torch.Generator().manual_seed(0))
    made = answer(objects, padded(content), config, len(CATEGORIES), seed=1)
    weak = write_data(folder, args, made.points_xy, made.labels)
    write_gate(folder, unmeasured(1, enlarge=params.refiner.enlarge, rounds=1))
    proposer = SOLOv2Proposer(teacher, params.prompt, None, device, params.pseudo.batch_size)
    gated = GatedRefiner(refiner, read_gate(folder), params.pseudo.crop_batch_size)
    labeller = Labeller(Trained(proposer, move(made.outputs, device)), gated, params.prompt, device)
    return Bench(args, folder, params, device, labeller, made, weak)


def measure(bench: Bench) -> list[dict[str, Any]]:
    """A row a run; the plain loop is last, on fewer images."""
    args, device, batch = bench.args, bench.device, bench.first_batch()

    def network() -> None:
        for _ in bench.batches():
            bench.labeller.proposer.encode(batch)

    bench.labeller.proposer.encode(batch)  # warms up
    plain = min(args.plain, len(batch.originals))
    runs: dict[str, tuple[int, Callable[[], None]]] = {
        "read": (args.images, bench.read),
        "network": (args.images, network),
        "all": (args.images, bench.label),
        "plain loop": (plain, lambda: bench.plainly(batch, plain)),
    }
    rows: list[dict[str, Any]] = [
        {"what": what, "images_a_second": images / clock(run, device)} for what, (images, run) in runs.items()
    ]
    for row in rows:
        row["times_the_plain_loop"] = row["images_a_second"] / rows[-1]["images_a_second"]
        row["masks_a_second"] = row["images_a_second"] * args.points
    if device.type == "cuda":
        rows[2]["peak_gb"] = torch.cuda.max_memory_allocated() / 2**30
    return rows


def main() -> None:
    options = parser(__doc__, repeats=1)
    options.add_argument("--recipe", default="coco_5p", help="whose networks")
    options.add_argument("--images", type=int, default=240)
    options.add_argument("--points", type=int, default=20, help="clicks on an image")
    options.add_argument("--input", type=int, nargs=2, default=[800, 1333], help="height and width")
    options.add_argument("--batch", type=int, default=8, help="images at a time (pseudo.batch_size)")
    options.add_argument(
        "--workers", type=int, default=12, help="processes that read images (runtime.workers)"
    )
    options.add_argument("--plain", type=int, default=2, help="images of the plain loop")
    args = options.parse_args()
    if args.device == "cpu":
        args.workers = 0
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        bench = build(args, Path(scratch))
        rows = measure(bench)
    show(f"Pseudo-labelling, {args.recipe}", rows, machine(bench.device), as_json=args.json)


if __name__ == "__main__":
    main()
