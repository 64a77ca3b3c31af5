"""Setup and results of all trainings: network, data, resume key, output files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from data.images.content import sha256
from data.samples.dataset import Batch, EndSampler, InstanceDataset, Key, MixedSampler, StepSampler
from data.samples.sharding import StepDataset
from data.samples.transforms import AugmentConfig
from data.tables import Split
from models.backbones.base import BackboneError
from models.backbones.build import weights_file
from models.backbones.config import BackboneConfig
from models.checkpoint import FORMAT, kind_of, save_checkpoint
from models.config import RefineNetConfig, SOLOv2Config
from models.queries.config import QueryConfig
from tasks.common import processes
from tasks.common.config import ROUNDING, DetectorTrainConfig, Params, RefinerConfig, TrainConfig
from tasks.common.device import hardware
from tasks.common.errors import TaskError
from tasks.common.stage_main import fingerprint, write_manifest
from tasks.training.loop import Job, write_history

Network = TypeVar("Network", bound=nn.Module)
SPLIT_TABLES = ("images.arrow", "instances.arrow", "categories.json")


class StepBatch(Batch):
    """A batch and the number of its step, the seed of the step's random draws."""

    step: int


def new_network(
    section: str, backbone: BackboneConfig, build: Callable[[], Network]
) -> tuple[Network, str | None]:
    """The network to train, and the hash of its published weights (None without).

    Raises:
        TaskError: they are missing or don't fit, or there is no such network; names `section`, where params.yaml has
            the backbone.
    """
    try:
        return build(), weights_sha256(backbone)
    except BackboneError as error:
        raise TaskError(f"{section}.backbone.{error}") from None
    except (ValueError, OSError) as error:
        raise TaskError(f"{section}.backbone.weights: {error}") from None


def weights_sha256(backbone: BackboneConfig) -> str | None:
    """The hash of the file of the published weights; None without.

    DVC depends on the file's name only; the hash is part of the resume key and of manifest.json.

    Raises:
        OSError: the file doesn't exist, or can't be downloaded.
    """
    return None if backbone.weights is None else sha256(weights_file(backbone.name, backbone.weights))


def training_data(
    splits: Sequence[Split],
    params: Params,
    training: DetectorTrainConfig | RefinerConfig,
    leave_out: frozenset[int],
) -> InstanceDataset:
    """The usable images of the splits, augmented; without the ids in `leave_out`."""
    return InstanceDataset(
        splits,
        short_side=params.input.short_side,
        max_side=params.input.max_side,
        enlarge=params.input.enlarge,
        augment=AugmentConfig(**training.augment.model_dump()),
        cache_images=params.runtime.cache_images,
        leave_out=leave_out,
    )


def step_batches(
    dataset: InstanceDataset,
    params: Params,
    training: TrainConfig,
    section: str,
    first_share: float | None = None,
    first_end: float = 0.0,
) -> Callable[[int], Iterable[StepBatch]]:
    """From a step's number to this process's parts of the batches of that and all later steps; see `StepSampler`.

    With `first_share`, about that fraction of each batch, at least one sample and not all, is from the first split; see
    `MixedSampler`. The last steps, a share of `first_end`, have images of the first split alone. Neither has an effect
    with a single split.

    Raises:
        TaskError: a batch is too small for an image in every piece of every process; names `section` of params.yaml.
    """
    n, own, size = len(dataset), dataset.samples_of(0), training.batch_size
    if size < training.accumulate * processes.count():
        raise TaskError(
            f"{section}.batch_size: found {size} images per step, expected at least {training.accumulate} "
            f"({section}.accumulate) x {processes.count()} (processes): each needs one in every piece. Lower "
            "accumulate, use fewer processes, or raise batch_size"
        )

    def batches(first: int) -> Iterable[StepBatch]:
        sampler: StepSampler | MixedSampler | EndSampler
        if first_share is None or own == n or size == 1:
            sampler = StepSampler(n, size, params.seed, training.steps, first)
        else:
            own_size = min(max(1, round(first_share * size)), size - 1)
            sampler = MixedSampler(own, n, own_size, size, params.seed, training.steps, first)
        turn = round(training.steps * (1 - first_end))
        if own < n and turn < training.steps:
            sampler = EndSampler(sampler, turn, own, size, params.seed, training.steps, first)
        mine = StepDataset(dataset, processes.index(), processes.count())
        made: Iterable[Batch] = loader(mine, sampler, params.runtime.workers)
        for step, batch in enumerate(made, start=first):
            yield {**batch, "step": step}

    return batches


def loader(dataset: StepDataset, sampler: Sampler[list[Key]], workers: int) -> DataLoader[Batch]:
    """The batches of a sampler, prefetched by `workers` processes; their number doesn't affect them."""
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,  # the data set returns batches
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # A forked worker can't use CUDA or threads of the parent.
        multiprocessing_context="forkserver" if workers else None,
        # Each batch is in shared memory, with its masks: workers x 2 of them.
        prefetch_factor=2 if workers else None,
        # Not the global one, whose state a resumed run restores.
        generator=torch.Generator(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def resume_key(
    stage: str,
    params: Params,
    training: TrainConfig,
    splits: Sequence[Split],
    leave_out: frozenset[int],
    device: torch.device,
    settings: Sequence[Any],
    files: Iterable[Path] = (),
) -> str:
    """A hash of all that an interrupted run must have in common to be resumed: params, data, initial weights.

    `settings` and `files` are the stage's further dependencies. The number of processes and the keys of `ROUNDING` are
    left out: after days a training that runs out of memory can be resumed with another value.
    """
    tables = [split.root / name for split in splits for name in SPLIT_TABLES]
    shared = [stage, params.seed, params.threads, params.input.model_dump(), sorted(leave_out)]
    own = training.model_dump(mode="json", exclude=ROUNDING)
    return fingerprint(stage, [*tables, *files], shared, own, list(settings), machine=hardware(device))


def write_training(
    folder: Path,
    job: Job,
    params: Params,
    config: SOLOv2Config | RefineNetConfig | QueryConfig,
    split: Split,
    weights: Mapping[str, dict[str, Tensor]],
    counts: dict[str, int],
    backbone_weights: str | None,
    **facts: Any,
) -> None:
    """Writes into `folder` checkpoints, log.jsonl and manifest.json.

    Args:
        split: its categories are the network's classes.
        weights: by the checkpoint's folder inside `folder`, "" for itself.
        counts: for the manifest, in addition to the steps.
        backbone_weights: the hash from `new_network`.
        facts: further keys of model.json.
    """
    meta = {
        "format": FORMAT,
        "kind": kind_of(config),
        "config": config.model_dump(mode="json"),
        "categories": [{"id": category.id, "name": category.name} for category in split.categories],
        "training": {"stage": job.name, "seed": params.seed, **job.config.model_dump(mode="json")},
        **facts,
    }
    for name, state in weights.items():
        save_checkpoint(folder / name, state, meta)
    write_history(job, folder / "log.jsonl")
    write_manifest(
        folder, job.name, {**counts, "steps": job.config.steps},
        seed=params.seed, loss=job.history[-1]["loss"], backbone_weights=backbone_weights,
    )  # fmt: skip
