"""Training a SOLOv2 on splits: what train_teacher and train_student share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from data.storage import atomic_dir
from data.tables import Category, Split
from models.checkpoint import WEIGHTS, CheckpointError, load_checkpoint
from models.config import SOLOv2Config
from models.losses import solov2_loss
from models.solov2 import SOLOv2
from models.targets import assign_targets, random_inner_points, sample_pairs
from tasks.config import DetectorTrainConfig, Params
from tasks.device import set_up
from tasks.engine import Job, finish, milestone_path, train
from tasks.errors import TaskError
from tasks.holdout import write_held_out
from tasks.step import run_folder
from tasks.training import StepBatch, new_network, resume_key, step_batches, training_data, write_training

log = logging.getLogger(__name__)


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
    first_share: float | None = None,
    initial: Path | None = None,
) -> None:
    """Trains and writes `out`: checkpoint, milestones, log, manifest.

    Args:
        held_out: ids of images that are not trained on, and named in held_out.json; None writes no such file.
        first_share: of each batch, from the first split; None: each image comes as often as any other.
        initial: the checkpoint to start from; None: the weights that `params.seed` draws, the same for teacher and
            student of one `model` section.

    Raises:
        TaskError: `initial` is another network, or published weights don't fit; see also `engine.train`.
    """
    leave_out = held_out or frozenset()
    device = set_up(params.runtime, params.threads, params.seed)
    config = params.detector(training)
    categories = splits[0].categories
    model, weights = new_network("model", config.backbone, lambda: SOLOv2(config, len(categories)))
    if initial is not None:
        start_from(model, initial)
    dataset = training_data(splits, params, training, leave_out)
    job = Job(
        name=stage,
        model=model,
        loss=detector_loss(config, device, training, params.seed),
        batches=step_batches(dataset, params, training, first_share),
        config=training,
        device=device,
        run_folder=run_folder(workspace, stage),
        key=resume_key(
            stage, params, training, splits, leave_out, device, [params.model, weights],
            [] if initial is None else [initial / WEIGHTS],
        ),
        milestones=milestones,
    )  # fmt: skip
    train(job)
    states = {f"milestones/{step:07d}": load_file(milestone_path(job, step)) for step in milestones}
    instances = sum(int(_learnt(split, leave_out).sum()) for split in splits)
    counts = {"images": len(dataset), "instances": instances}
    with atomic_dir(out) as folder:
        if held_out is not None:
            write_held_out(folder, held_out)
            counts["held_out"] = len(held_out)
        write_training(
            folder, job, params, "solov2", config, splits[0], {"": model.state_dict(), **states}, counts, weights,
            input=params.input.model_dump(),
        )  # fmt: skip
    finish(job)


def start_from(model: nn.Module, folder: Path) -> None:
    """Loads a checkpoint's weights into a network of the same shapes.

    Raises:
        TaskError: it isn't there, is damaged, or of another network.
    """
    try:
        model.load_state_dict(load_checkpoint(folder)[0])
    except CheckpointError as error:
        raise TaskError(str(error)) from None
    except RuntimeError as error:
        raise TaskError(
            f"{folder}: another network than params.yaml's `model` section says ({error}); train it anew, or "
            "start from scratch"
        ) from None


def _learnt(split: Split, leave_out: frozenset[int]) -> NDArray[np.bool_]:
    """Bool, one an instance: crowds aren't learnt, nor what lies on images left out."""
    crowd = split.instances["iscrowd"].to_numpy(zero_copy_only=False).astype(bool)
    return ~crowd & ~np.isin(split.instances["image_id"].to_numpy(), list(leave_out))


def check_trainable(split: Split, categories: Sequence[Category]) -> list[str]:
    """Names of the classes that have no mask in `split`: nothing can be learnt of them."""
    held = set(split.instances["category_id"].unique().to_pylist())
    return [category.name for category in categories if category.id not in held]
