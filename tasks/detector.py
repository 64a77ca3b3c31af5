"""Training a SOLOv2 on splits: what train_teacher and train_student share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data.dataset import Batch, InstanceDataset, StepSampler, collate
from data.storage import atomic_dir
from data.tables import Category, Split
from data.transforms import AugmentConfig
from models.checkpoint import FORMAT, save_checkpoint
from models.config import SOLOv2Config
from models.losses import solov2_loss
from models.solov2 import SOLOv2
from models.targets import assign_targets, random_inner_points, sample_pairs
from tasks.config import DetectorTrainConfig, Params
from tasks.device import set_up
from tasks.engine import Job, finish, milestone_path, train, write_history
from tasks.errors import TaskError
from tasks.holdout import write_held_out
from tasks.step import fingerprint, run_folder, write_manifest
from tasks.weights import weights_sha256

log = logging.getLogger(__name__)


class StepBatch(Batch):
    """A batch and the number of its step, from which the step's draws are seeded."""

    step: int


def detector_loss(
    config: SOLOv2Config, device: torch.device, training: DetectorTrainConfig, seed: int
) -> Callable[[nn.Module, StepBatch], dict[str, Tensor]]:
    """The SOLOv2 loss of a batch as the loader gives it.

    Every object is learnt in the cells of `training.inner_points` random pixels of its mask too: a network that is
    prompted by clicks anywhere on an object must know the object there. All draws depend on (seed, step) alone.
    """

    def loss(model: nn.Module, batch: StepBatch) -> dict[str, Tensor]:
        images = batch["images"].to(device, non_blocking=True)
        outputs = model(images, batch["content_sizes"], batch["crop_origins"])
        # On the CPU, so that all devices draw alike.
        generator = torch.Generator().manual_seed(seed * 1_000_003 + batch["step"])
        inner = None
        if training.inner_points:
            inner = [
                random_inner_points(masks, training.inner_points, generator).to(device)
                for masks in batch["masks"]
            ]
        targets = assign_targets(
            [masks.to(device) for masks in batch["masks"]],
            [labels.to(device) for labels in batch["labels"]],
            [weights.to(device) for weights in batch["weights"]],
            (images.shape[2], images.shape[3]),
            config,
            points_xy=inner,
            ignore=[None if crowd is None else crowd.to(device) for crowd in batch["crowds"]],
        )
        if training.mask_pairs is not None:
            targets = sample_pairs(targets, training.mask_pairs, generator)
        return solov2_loss(outputs, targets, config)

    return loss


def train_detector(
    stage: str,
    params: Params,
    training: DetectorTrainConfig,
    splits: Sequence[Split],
    workspace: Path,
    out: Path,
    milestones: tuple[int, ...] = (),
    held_out: frozenset[int] | None = None,
) -> None:
    """Trains from the weights that `params.seed` draws and writes `out`: checkpoint, milestones, log, manifest.

    Teacher and student of one seed and one `model` section start from the same weights. The images whose ids are in
    `held_out` are not trained on, and named in held_out.json; None writes no such file.
    """
    leave_out = held_out or frozenset()
    device = set_up(params.runtime, params.threads, params.seed)
    config = params.detector(training)
    categories = splits[0].categories
    try:
        model = SOLOv2(config, len(categories))
        weights = weights_sha256(config.backbone)
    except (ValueError, OSError) as error:
        raise TaskError(f"model.backbone.weights: {error}") from None
    dataset = InstanceDataset(
        splits,
        short_side=params.input.short_side,
        max_side=params.input.max_side,
        enlarge=params.input.enlarge,
        augment=AugmentConfig(**training.augment.model_dump()),
        cache_images=params.runtime.cache_images,
        leave_out=leave_out,
    )
    job = Job(
        name=stage,
        model=model,
        loss=detector_loss(config, device, training, params.seed),
        batches=_batches(dataset, params, training),
        config=training,
        device=device,
        run_folder=run_folder(workspace, stage),
        key=_key(stage, params, training, splits, leave_out, weights, device),
        milestones=milestones,
    )
    train(job)
    meta = {
        "format": FORMAT,
        "kind": "solov2",
        "config": config.model_dump(mode="json"),
        "categories": [{"id": category.id, "name": category.name} for category in categories],
        "input": params.input.model_dump(),
        "training": {"stage": stage, "seed": params.seed, **training.model_dump(mode="json")},
    }
    instances = sum(int(_learnt(split, leave_out).sum()) for split in splits)
    with atomic_dir(out) as folder:
        save_checkpoint(folder, model.state_dict(), meta)
        for step in milestones:
            save_checkpoint(folder / "milestones" / f"{step:07d}", load_file(milestone_path(job, step)), meta)
        write_history(job, folder / "log.jsonl")
        counts = {"images": len(dataset), "instances": instances, "steps": training.steps}
        if held_out is not None:
            write_held_out(folder, held_out)
            counts["held_out"] = len(held_out)
        loss = job.history[-1]["loss"]
        write_manifest(folder, stage, counts, seed=params.seed, loss=loss, backbone_weights=weights)
    finish(job)


def _batches(
    dataset: InstanceDataset, params: Params, training: DetectorTrainConfig
) -> Callable[[int], Iterable[StepBatch]]:
    def batches(first: int) -> Iterable[StepBatch]:
        sampler = StepSampler(
            len(dataset), training.batch_size, seed=params.seed, steps=training.steps, start_step=first
        )
        made: Iterable[Batch] = loader(dataset, sampler, collate, params.runtime.workers)
        for step, batch in enumerate(made, start=first):
            yield {**batch, "step": step}

    return batches


def loader(dataset: Any, sampler: Any, collate_samples: Any, workers: int) -> DataLoader[Any]:
    """Batches of a sampler of batches, made by `workers` processes ahead of need; the same whatever `workers` is."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate_samples,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # A forked worker can't use CUDA or threads of the parent; one that starts afresh can.
        multiprocessing_context="forkserver" if workers else None,
        prefetch_factor=4 if workers else None,
    )


def _key(
    stage: str,
    params: Params,
    training: DetectorTrainConfig,
    splits: Sequence[Split],
    leave_out: frozenset[int],
    weights: str | None,
    device: torch.device,
) -> str:
    """What an interrupted run must share to be resumed: params, data, and the weights that it began with."""
    tables = ("images.arrow", "instances.arrow", "categories.json")
    shared = [stage, params.seed, params.threads, params.input.model_dump(), params.model]
    settings = [*shared, weights, training.model_dump(mode="json"), sorted(leave_out)]
    files = [split.root / table for split in splits for table in tables]
    return fingerprint(files, settings, str(device))


def _learnt(split: Split, leave_out: frozenset[int]) -> NDArray[np.bool_]:
    """Bool, one an instance: crowds aren't learnt, nor what lies on images left out."""
    crowd = split.instances["iscrowd"].to_numpy(zero_copy_only=False).astype(bool)
    return ~crowd & ~np.isin(split.instances["image_id"].to_numpy(), list(leave_out))


def check_trainable(split: Split, categories: Sequence[Category]) -> list[str]:
    """Names of the classes that have no mask in `split`: nothing can be learnt of them."""
    held = set(split.instances["category_id"].unique().to_pylist())
    return [category.name for category in categories if category.id not in held]
