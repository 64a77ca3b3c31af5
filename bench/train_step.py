"""Seconds of a training step: ours with each switch added, against a plain eager float32 one of the same network.

`plain` is bench/plain_step.py's loss, in loops, on the network as its layers are written, and an optimiser that takes
parameter by parameter. `ours` is models/solov2/losses.py on models/solov2/targets.py, with folded norms; below it
each row has one switch more. All start from the same weights and see the same drawn batch; `loss` is that of the
first step.

    python bench/train_step.py  # the paper's ResNet-50 network, batch 2, 512 px; CPU: ten minutes of a core
    python bench/train_step.py --recipe demo --batch 8 --side 96 --curves 200  # losses of 200 steps, side by side
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import Peak, facts_of, in_turns, machine, parser, peak_of, show, work_of
from bench.plain_network import unfolded
from bench.plain_step import plain_loss
from models.config import SOLOv2Config
from models.solov2.losses import solov2_loss
from models.solov2.network import SOLOv2
from models.solov2.targets import assign_targets
from tasks.common.config import DetectorTrainConfig
from tasks.tools.recipes import load_recipe
from tasks.training.optimization import build_optimizer, learning_rate

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
CLASSES = 80
COLOURS = 3
"""Classes that the drawn objects have, each its own colour."""


class Way(NamedTuple):
    """How a step is done."""

    plain: bool = False
    bf16: bool = False
    channels_last: bool = False
    fused: bool = False
    compiled: bool = False


WAYS = {
    "plain": Way(plain=True),
    "ours": Way(),
    "+ bf16": Way(bf16=True),
    "+ channels_last": Way(bf16=True, channels_last=True),
    "+ fused": Way(bf16=True, channels_last=True, fused=True),
    "+ compile": Way(bf16=True, channels_last=True, fused=True, compiled=True),
}


class Batch(NamedTuple):
    """Drawn images and their objects."""

    images: Tensor
    """uint8 [N, 3, H, W]"""
    masks: list[Tensor]
    """bool [K, H, W] of each"""
    labels: list[Tensor]
    """int64 [K]"""


def drawn(count: int, side: int, objects: int, device: torch.device, seed: int) -> Batch:
    """Noise, and on it bright ellipses of an eighth to a half of the side; a later one lies on the others."""
    rng = torch.Generator().manual_seed(seed)
    images, all_masks, labels = [], [], []
    at = torch.arange(side) + 0.5
    for _ in range(count):
        image = torch.randint(0, 128, (3, side, side), generator=rng)
        radii = side * (0.0625 + 0.1875 * torch.rand(objects, 2, generator=rng))
        centres = radii + torch.rand(objects, 2, generator=rng) * (side - 2 * radii)
        x, y = ((at - centres[:, i : i + 1]) / radii[:, i : i + 1] for i in (0, 1))
        masks = x.square()[:, None, :] + y.square()[:, :, None] <= 1
        colours = torch.randint(0, COLOURS, (objects,), generator=rng)
        for mask, colour in zip(masks, colours.tolist(), strict=True):
            image[:, mask] //= 2
            image[colour, mask] += 128
        # What is hidden is none of the object's.
        later = masks.flip(0).cumsum(0).flip(0) - masks.long()
        masks = masks & (later == 0)
        seen = masks.flatten(1).any(1)
        images.append(image.to(torch.uint8))
        all_masks.append(masks[seen].to(device))
        labels.append(colours[seen].to(device))
    return Batch(torch.stack(images).to(device), all_masks, labels)


class Trainer:
    """A network that learns in one way, from the same weights as the others."""

    def __init__(
        self, model: nn.Module, config: SOLOv2Config, training: DetectorTrainConfig, way: Way
    ) -> None:
        self.config, self.way = config, way
        self.training = training.model_copy(update={"fused": way.fused})
        self.model = copy.deepcopy(model)
        if way.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.optimizer = build_optimizer(self.model, self.training)
        if way.plain:
            for group in self.optimizer.param_groups:
                group["foreach"] = False
        self.run: Callable[..., Any] = torch.compile(self.model) if way.compiled else self.model

    def loss(self, batch: Batch) -> Tensor:
        size = (batch.images.shape[2], batch.images.shape[3])
        if self.way.plain:
            with unfolded():
                return plain_loss(self.run(batch.images), batch.masks, batch.labels, self.config)
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.way.bf16):
            outputs = self.run(batch.images)
            weights = [torch.ones(len(own), device=own.device) for own in batch.masks]
            targets = assign_targets(batch.masks, batch.labels, weights, size, self.config)
            return solov2_loss(outputs, targets, self.config)["loss"]

    def step(self, batch: Batch, number: int = 0) -> Tensor:
        """The loss, detached."""
        with torch.enable_grad():
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.training, number)
            loss = self.loss(batch)
            loss.backward()
            if self.training.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def network(args: Any, device: torch.device) -> tuple[SOLOv2, SOLOv2Config, DetectorTrainConfig]:
    """The recipe's student, its ResNet-101 a ResNet-50, from random weights."""
    params = load_recipe(RECIPES / f"{args.recipe}.yaml")
    config = params.detector(params.student)
    name = {"resnet101": "resnet50"}.get(config.backbone.name, config.backbone.name)
    backbone = config.backbone.model_copy(update={"name": name, "weights": None})
    config = config.model_copy(update={"backbone": backbone})
    torch.manual_seed(0)
    return SOLOv2(config, CLASSES).train().to(device), config, params.student


def speed(args: Any, device: torch.device, peaks: dict[bool, Peak]) -> list[dict[str, Any]]:
    """A row a way."""
    model, config, training = network(args, device)
    trainers = {name: Trainer(model, config, training, WAYS[name]) for name in args.ways}
    batch = drawn(args.batch, args.side, args.objects, device, 0)
    losses = {name: float(trainer.step(batch)) for name, trainer in trainers.items()}
    runs = {name: lambda trainer=trainer: trainer.step(batch) for name, trainer in trainers.items()}
    times = in_turns(runs, device, args.repeats, warm_up=0)
    first = next(iter(times.values()))
    return [
        {
            "way": name,
            "loss": losses[name],
            "times_the_first": first / times[name],
            **facts_of(
                times[name], None if trainers[name].way.compiled else work_of(run), peaks[WAYS[name].bf16]
            ),
        }
        for name, run in runs.items()
    ]


def curves(args: Any, device: torch.device) -> list[dict[str, Any]]:
    """Mean losses of each tenth of the steps, the same batches for each way."""
    model, config, training = network(args, device)
    trainers = {name: Trainer(model, config, training, WAYS[name]) for name in args.ways}
    losses: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(args.curves):
        batch = drawn(args.batch, args.side, args.objects, device, number)
        for name, trainer in trainers.items():
            losses[name].append(float(trainer.step(batch, number)))
    part = max(1, args.curves // 10)
    return [
        {"steps": min(at + part, args.curves)}
        | {name: sum(values[at : at + part]) / len(values[at : at + part]) for name, values in losses.items()}
        for at in range(0, args.curves, part)
    ]


def main() -> None:
    options = parser(__doc__, repeats=3)
    options.add_argument("--recipe", default="coco_5p", help="whose network and optimiser")
    options.add_argument("--batch", type=int, default=2)
    options.add_argument("--side", type=int, default=512, help="of the images in pixels")
    options.add_argument("--objects", type=int, default=7, help="of an image")
    options.add_argument(
        "--ways", nargs="+", default=[name for name in WAYS if name != "+ compile"], choices=list(WAYS)
    )
    options.add_argument(
        "--curves", type=int, metavar="STEPS", help="losses of so many steps instead of seconds of one"
    )
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.curves:
        show("Losses", curves(args, device), machine(device), as_json=args.json)
        return
    peaks = {False: peak_of(device), True: peak_of(device, torch.bfloat16)}
    facts = machine(device, peaks[False]) | {"bf16_peak_gflop_s": peaks[True].flops / 1e9}
    show("Training step", speed(args, device, peaks), facts, as_json=args.json)


if __name__ == "__main__":
    main()
