"""Training of a network that finds instances, used by train_teacher and train_student."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.samples.dataset import InstanceDataset
from data.samples.sharding import share
from data.storage import atomic_dir, atomic_write, discard_partials
from data.tables import Split
from models.checkpoint import META, WEIGHTS
from models.config import SOLOv2Config
from models.masks.geometry import inner_points
from models.queries.config import QueryConfig
from models.solov2.losses import Totals, solov2_loss
from models.solov2.network import SOLOv2
from models.solov2.targets import Targets, assign_targets, draw_pairs, keep_pairs
from tasks.common import processes
from tasks.common.config import DetectorTrainConfig, Params
from tasks.common.device import set_up
from tasks.common.stage_main import run_folder
from tasks.training.holdout import write_held_out
from tasks.training.loop import Job, Piece, Pieces, read_milestone, train
from tasks.training.out_of_memory import section_of
from tasks.training.setup import (
    StepBatch,
    new_network,
    resume_key,
    step_batches,
    training_data,
    write_training,
)
from tasks.training.start import start_from

log = logging.getLogger(__name__)


def detector_pieces(
    config: SOLOv2Config, device: torch.device, training: DetectorTrainConfig, seed: int
) -> Callable[[StepBatch], list[Piece]]:
    """From a step's batch to its `training.accumulate` pieces with the SOLOv2 loss.

    The cells of `training.inner_points` random pixels of an object's mask learn it too, since users click anywhere on
    an object. All draws depend on (seed, step) only, and are made for the whole step's batch, of which this process
    takes its part.
    """

    def pieces(batch: StepBatch) -> list[Piece]:
        # On the CPU, so that all devices draw the same.
        generator = torch.Generator().manual_seed(seed * 1_000_003 + batch["step"])
        clicks = _clicks(batch)
        inner = _inner_points(batch, clicks, training.inner_points, generator)
        images = batch["images"].to(device, non_blocking=True)
        origins = torch.tensor(batch["crop_origins"], dtype=torch.float32, device=device)
        parts = [share(len(images), n, training.accumulate) for n in range(training.accumulate)]
        targets = [
            assign_targets(
                _on(device, batch["masks"][part]),
                _on(device, batch["labels"][part]),
                _on(device, batch["weights"][part]),
                (images.shape[2], images.shape[3]),
                config,
                points_xy=None if inner is None else _on(device, inner[part]),
                clicks_xy=None if clicks is None else _on(device, clicks[part]),
                ignore=[None if crowd is None else crowd.to(device) for crowd in batch["crowds"][part]],
                weigh_categories=training.weighs_categories,
            )
            for part in parts
        ]
        targets = _sampled(targets, training.mask_pairs, generator)
        sums = [Totals.of(one) for one in targets]
        totals = Totals(
            processes.add(torch.stack([one.pairs for one in sums]).sum()),
            processes.add(torch.stack([one.positives for one in sums]).sum()),
        )

        def piece(part: slice, targets: Targets) -> Piece:
            def loss(model: nn.Module) -> dict[str, Tensor]:
                outputs = model(images[part], batch["content_sizes"][part], origins[part])
                return solov2_loss(outputs, targets, config, totals)

            return Piece(loss, batch["image_ids"][part])

        return [piece(part, one) for part, one in zip(parts, targets, strict=True)]

    return pieces


def _on(device: torch.device, tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.to(device) for tensor in tensors]


def _inner_points(
    batch: StepBatch, clicks: list[Tensor] | None, count: int, generator: torch.Generator
) -> list[Tensor] | None:
    """For each image float32 [K, count, 2]: random pixels of true masks, NaN for pseudo masks; None without any.

    Any pixel of a pseudo mask may be another object's; its click is trained instead.
    """
    if not count:
        return None
    objects = [len(masks) for masks in batch["masks"]]
    before, total = processes.place(sum(objects))
    draws = torch.rand(total, count, generator=generator)
    mine = draws[before : before + sum(objects)].split(objects)
    inner = [inner_points(masks, draw) for masks, draw in zip(batch["masks"], mine, strict=True)]
    if clicks is None:
        return inner
    return [
        torch.where(one.isnan().any(1)[:, None, None], points, torch.nan)
        for one, points in zip(clicks, inner, strict=True)
    ]


def _clicks(batch: StepBatch) -> list[Tensor] | None:
    """For each image float32 [K, 2], see `assign_targets`; None if no image has pseudo masks."""
    if all(points is None for points in batch["points_xy"]):
        return None
    clicks = []
    for points, labels, (h, w) in zip(
        batch["points_xy"], batch["labels"], batch["content_sizes"], strict=True
    ):
        if points is None:
            clicks.append(torch.full((len(labels), 2), torch.nan))
        else:
            inside = ((points >= 0) & (points < points.new_tensor([w, h]))).all(1) | points.isnan().any(1)
            clicks.append(torch.where(inside[:, None], points, torch.inf))
    return clicks


def _sampled(targets: list[Targets], limit: int | None, generator: torch.Generator) -> list[Targets]:
    """The targets of this process's pieces, limited to `limit` pairs in the whole step."""
    counts = [len(one.cell) for one in targets]
    before, total = processes.place(sum(counts))
    kept = None if limit is None else draw_pairs(total, limit, generator)
    if kept is None:
        return targets
    sampled = []
    for one, count in zip(targets, counts, strict=True):
        mine = kept[(kept >= before) & (kept < before + count)] - before
        sampled.append(keep_pairs(one, mine))
        before += count
    return sampled


class Learner(NamedTuple):
    """A network to train."""

    config: SOLOv2Config | QueryConfig
    model: nn.Module
    pieces: Pieces
    weights: str | None
    """the hash of its published weights; None without"""
    settings: list[Any]
    """what it depends on besides"""


MakeLearner = Callable[
    [str, Params, DetectorTrainConfig, Sequence[Split], Path | None, torch.device], Learner
]
"""From the stage, its training, its data, and the checkpoint to start from."""


def solov2_learner(
    stage: str, params: Params, training: DetectorTrainConfig, splits: Sequence[Split], initial: Path | None,
    device: torch.device,
) -> Learner:  # fmt: skip
    """A SOLOv2; random weights are those of `params.seed`, the same for teacher and student.

    Raises:
        TaskError: `initial` is another network, or published weights don't fit.
    """
    config = params.detector(training)
    names = [category.name for category in splits[0].categories]
    model, weights = new_network("model", config.backbone, lambda: SOLOv2(config, len(names)))
    if initial is not None:
        start_from(stage, model, initial, names)
    pieces = detector_pieces(config, device, training, params.seed)
    return Learner(config, model, pieces, weights, [params.model])


def train_detector(
    stage: str,
    params: Params,
    training: DetectorTrainConfig,
    splits: Sequence[Split],
    workspace: Path,
    out: Path,
    milestones: tuple[int, ...] = (),
    held_out: frozenset[int] | None = None,
    first_share: float | None = None,
    first_end: float = 0.0,
    initial: Path | None = None,
    runs: Path | None = None,
    once: bool = False,
    make: MakeLearner = solov2_learner,
) -> None:
    """Trains and writes `out`: checkpoint, milestones, log, manifest.

    Args:
        held_out: ids of images that are excluded from training and listed in held_out.json; None writes no such file.
        first_share: fraction of each batch from the first split; None: all images are drawn equally often.
        first_end: fraction of the steps, at the end, with images of the first split alone.
        initial: the checkpoint to start from (tasks/training/start.py); None: random or published weights.
        runs: the folder of what an interrupted run resumes from; None: workspace/runs/STAGE.
        once: if the same training wrote `out` before, it isn't run again.
        make: makes the network.

    Raises:
        TaskError: see `make`, and `loop.train`.
    """
    leave_out = held_out or frozenset()
    device = set_up(params.runtime, params.threads, params.seed)
    learner = make(stage, params, training, splits, initial, device)
    dataset = training_data(splits, params, training, leave_out)
    job = Job(
        name=stage,
        model=learner.model,
        pieces=learner.pieces,
        batches=step_batches(dataset, params, training, section_of(stage), first_share, first_end),
        config=training,
        device=device,
        run_folder=runs or run_folder(workspace, stage),
        key=resume_key(
            stage, params, training, splits, leave_out, device, [*learner.settings, learner.weights],
            [] if initial is None else [initial / WEIGHTS, initial / META],
        ),
        keep_checkpoints=params.runtime.keep_checkpoints,
        milestones=milestones,
    )  # fmt: skip
    # Keys that change rounding alone aren't in the key, but in model.json.
    ended, this = job.run_folder / "ended", f"{job.key} {training.model_dump_json()}"
    if once and processes.gather(out.is_dir() and ended.is_file() and ended.read_text() == this)[0]:
        return
    if processes.is_first():
        ended.unlink(missing_ok=True)
    train(job)
    with processes.first_alone() as first:
        if first:
            _write(job, out, params, learner, splits, dataset, held_out)
            if once:
                with atomic_write(ended) as path:
                    path.write_text(this, encoding="utf-8")
            job.states.clear()


def _write(
    job: Job,
    out: Path,
    params: Params,
    learner: Learner,
    splits: Sequence[Split],
    dataset: InstanceDataset,
    held_out: frozenset[int] | None,
) -> None:
    """Writes `out` after the training."""
    states = {f"milestones/{step:07d}": read_milestone(job, step) for step in job.milestones}
    instances = sum(int(_learnt(split, held_out or frozenset()).sum()) for split in splits)
    counts = {"images": len(dataset), "instances": instances}
    discard_partials(out.parent, out.name)
    with atomic_dir(out) as folder:
        if held_out is not None:
            write_held_out(folder, held_out)
            counts["held_out"] = len(held_out)
        write_training(
            folder, job, params, learner.config, splits[0], {"": job.model.state_dict(), **states}, counts,
            learner.weights, input=params.input.model_dump(),
        )  # fmt: skip


def _learnt(split: Split, leave_out: frozenset[int]) -> NDArray[np.bool_]:
    """Bool per instance: false for crowds, and on images in `leave_out`."""
    crowd = split.instances["iscrowd"].to_numpy(zero_copy_only=False).astype(bool)
    return ~crowd & ~np.isin(split.instances["image_id"].to_numpy(), list(leave_out))
