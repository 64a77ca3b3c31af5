"""Times a few steps of each training on the project's own images: the fastest precision and number of threads, and a
forecast of a whole run."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from data.tables import Split
from models.refiner.network import MaskRefineNet, refine_loss
from models.solov2.network import SOLOv2
from tasks.common.config import Params
from tasks.common.device import resolve_device
from tasks.planning.facts import Facts, Machine
from tasks.training.detector import detector_pieces
from tasks.training.optimization import build_optimizer
from tasks.training.setup import step_batches, training_data

STEPS = 2
"""Timed of each, after one that isn't."""
WORTH = 1.15
"""How many times faster another precision, or more threads, must be to be planned."""
POST = 1.5
"""Seconds of an image over those of its forward pass: masks, RLE, refinement's crops."""


BUSY = (
    "this machine is busy (load {load:.0f} on {cores} cores): one thread is planned, and times are uncertain"
)


def busy(machine: Machine) -> float:
    """The load of the last minute where it is as large as the number of cores; else 0. Threads that wait for each
    other are slow then."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return load if load >= machine.cores else 0.0


class Forecast(NamedTuple):
    """Seconds of each stage that takes long."""

    train_teacher: float
    train_refiner: float
    pseudo_label: float
    train_student: float
    evaluate: float

    def scaled(self, steps: float, sections: Collection[str]) -> Forecast:
        """With `steps` times as many steps of the trainings of these sections."""
        names = [f"train_{name}" for name in sections]
        return self._replace(**{name: steps * getattr(self, name) for name in names})


def fastest(params: Params, strong: Split, machine: Machine) -> tuple[str, int]:
    """Precision and threads of the fastest teacher's step; float32 and one thread unless others are worth it."""
    device = resolve_device(params.runtime.device)
    if device.type == "cuda":
        return ("bf16" if machine.bf16 else "fp16"), 1
    threads = {1} if busy(machine) else {1, min(machine.cores, 8)}
    steps = {
        (precision, count): _detector_step(params, strong, precision, device)
        for count, precision in itertools.product(sorted(threads), ("bf16", "fp32"))
    }
    times = dict.fromkeys(steps, math.inf)
    for _ in range(STEPS + 1):  # in turn, since the machine's other work comes and goes
        for (precision, count), step in steps.items():
            with _threads(count):
                begin = time.perf_counter()
                step()
                times[precision, count] = min(times[precision, count], time.perf_counter() - begin)
    best = min(times, key=times.__getitem__)
    for simpler in (("fp32", 1), ("bf16", 1), ("fp32", best[1])):
        if simpler in times and times[simpler] <= WORTH * times[best]:
            return simpler
    return best


def forecast(params: Params, splits: Mapping[str, Split], facts: Facts) -> Forecast:
    """Seconds of a whole run with these params on this machine."""
    device = resolve_device(params.runtime.device)
    strong = splits["strong"]
    with _threads(params.threads):
        detector = _timed(_detector_step(params, strong, params.teacher.precision, device))
        refiner = _timed(_refiner_step(params, strong, device))
        forward = _seconds_of_a_megapixel(params, strong, device)
    pixels = POST * forward * _megapixels(params, facts)
    share = params.student.batch_size / params.teacher.batch_size
    held_out = round(params.teacher.holdout * facts.strong)
    return Forecast(
        params.teacher.steps * detector,
        params.refiner.steps * refiner + pixels * held_out * (1 + len(params.refiner.milestones)),
        pixels * facts.weak,
        params.student.steps * detector * share,
        2 * pixels * facts.val,
    )


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(step: Callable[[], None]) -> float:
    """Seconds of a step: the least of some, since other processes only slow it."""
    step()
    times = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times)


def _bare(config: Any) -> Any:
    """A network's settings without published weights, whose values don't change its speed."""
    return config.model_copy(update={"backbone": config.backbone.model_copy(update={"weights": None})})


def _detector_step(params: Params, strong: Split, precision: str, device: torch.device) -> Callable[[], None]:
    """One step of the teacher's training, with reading and augmenting of its images."""
    training = params.teacher
    config = _bare(params.detector(training))
    model = SOLOv2(config, max(1, len(strong.categories))).to(device).train()
    dataset = training_data([strong], params, training, frozenset())
    alone = params.model_copy(update={"runtime": params.runtime.model_copy(update={"workers": 0})})
    batches = itertools.chain.from_iterable(
        step_batches(dataset, alone, training, "teacher")(0) for _ in itertools.count()
    )
    pieces = detector_pieces(config, device, training, params.seed)
    optimizer = build_optimizer(model, training)

    def step() -> None:
        for piece in pieces(next(batches)):
            with _autocast(precision, device):
                loss = piece.loss(model)["loss"]
            _update(loss, optimizer)

    return step


def _refiner_step(params: Params, strong: Split, device: torch.device) -> Callable[[], None]:
    """One step of the refiner's training: the teacher on its images, and as many crops as it may have."""
    config, net = params.refiner, params.refiner.net
    model = MaskRefineNet(_bare(net)).to(device).train()
    teacher = SOLOv2(_bare(params.detector(params.teacher)), max(1, len(strong.categories))).to(device).eval()
    side = config.augment.crop_side or params.input.short_side
    images = torch.randint(0, 255, (config.batch_size, 3, _padded(side), _padded(side)), device=device)
    crops = torch.randn(
        config.crops, 3 + net.heatmap_channels + 1, net.crop_size, net.crop_size, device=device
    )
    truth = torch.rand(config.crops, net.crop_size, net.crop_size, device=device) > 0.5
    optimizer = build_optimizer(model, config)

    def step() -> None:
        with torch.no_grad():
            teacher(images)
            for _ in range(config.rounds - 1):
                model(crops[::2])  # on average half of them are refined in each earlier round
        with _autocast(config.precision, device):
            loss = refine_loss(model(crops), truth, config.dice_weight, config.cross_entropy_weight)["loss"]
        _update(loss, optimizer)

    return step


def _seconds_of_a_megapixel(params: Params, strong: Split, device: torch.device) -> float:
    """Of the student's forward pass."""
    model = SOLOv2(_bare(params.detector(params.student)), max(1, len(strong.categories))).to(device).eval()
    side = _padded(params.input.tile.side if params.input.tile is not None else params.input.short_side)
    images = torch.randint(0, 255, (1, 3, side, side), device=device)

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    return _timed(forward) / (side * side / 1e6)


def _megapixels(params: Params, facts: Facts) -> float:
    """That the network sees of an average image."""
    if params.input.tile is not None:
        overlap = 1 - params.input.tile.overlap / params.input.tile.side
        return float((facts.short_sides * facts.long_sides).mean()) / overlap**2 / 1e6
    return (
        params.input.short_side**2 * float((facts.long_sides / np.maximum(facts.short_sides, 1)).mean()) / 1e6
    )


def _padded(side: int) -> int:
    return -(-side // 32) * 32


def _autocast(precision: str, device: torch.device) -> Any:
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return contextlib.nullcontext() if kind is None else torch.autocast(device.type, kind)


def _update(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 10.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
