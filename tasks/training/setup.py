"""What the trainings share around the loop of tasks/training/loop.py: data, resume key, and the files that they
leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from data.samples.dataset import Batch, InstanceDataset, Key, MixedSampler, StepSampler
from data.samples.sharding import StepDataset
from data.samples.transforms import AugmentConfig
from data.tables import Split
from models.backbones.config import BackboneConfig
from models.checkpoint import FORMAT, save_checkpoint
from models.config import RefineNetConfig, SOLOv2Config
from tasks.common import processes
from tasks.common.config import DetectorTrainConfig, Params, RefinerConfig, TrainConfig
from tasks.common.device import hardware
from tasks.common.errors import TaskError
from tasks.common.stage_main import fingerprint, write_manifest
from tasks.training.loop import Job, write_history
from tasks.training.weights import weights_sha256

Network = TypeVar("Network", bound=nn.Module)
ROUNDING = {"accumulate", "checkpoint_every", "channels_last", "fused", "compile"}
"""Of a training's section: what changes its result by rounding at most."""
SPLIT_TABLES = ("images.arrow", "instances.arrow", "categories.json")


class StepBatch(Batch):
    """A batch and the number of its step, from which the step's draws are seeded."""

    step: int


def new_network(
    section: str, backbone: BackboneConfig, build: Callable[[], Network]
) -> tuple[Network, str | None]:
    """The network to train, and the hash of the published weights that it starts from (None without).

    Raises:
        TaskError: they aren't there or don't fit; names `section`, where params.yaml has the backbone.
    """
    try:
        return build(), weights_sha256(backbone)
    except (ValueError, OSError) as error:
        raise TaskError(f"{section}.backbone.weights: {error}") from None


def training_data(
    splits: Sequence[Split],
    params: Params,
    training: DetectorTrainConfig | RefinerConfig,
    leave_out: frozenset[int],
) -> InstanceDataset:
    """The usable images of the splits, augmented, without those whose ids are in `leave_out`."""
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
) -> Callable[[int], Iterable[StepBatch]]:
    """From the first step wanted to this process's share of the batches of that step and all later ones; see
    `StepSampler`.

    With `first_share`, about that share of each batch, at least one sample and not all, comes from the data set's first
    split; see `MixedSampler`. It means nothing where there is only one split.

    Raises:
        TaskError: a batch is too small for an image in every piece of every process; names `section` of params.yaml.
    """
    n, own, size = len(dataset), dataset.samples_of(0), training.batch_size
    if size < training.accumulate * processes.count():
        raise TaskError(
            f"{section}.batch_size: found {size} images a step, expected at least {training.accumulate} "
            f"({section}.accumulate) x {processes.count()} (processes): each needs one in every piece. Lower "
            "accumulate, use fewer processes, or raise batch_size"
        )

    def batches(first: int) -> Iterable[StepBatch]:
        sampler: StepSampler | MixedSampler
        if first_share is None or own == n or size == 1:
            sampler = StepSampler(n, size, params.seed, training.steps, first)
        else:
            own_size = min(max(1, round(first_share * size)), size - 1)
            sampler = MixedSampler(own, n, own_size, size, params.seed, training.steps, first)
        mine = StepDataset(dataset, processes.index(), processes.count())
        made: Iterable[Batch] = loader(mine, sampler, params.runtime.workers)
        for step, batch in enumerate(made, start=first):
            yield {**batch, "step": step}

    return batches


def loader(dataset: StepDataset, sampler: Sampler[list[Key]], workers: int) -> DataLoader[Batch]:
    """The batches of a sampler, made by `workers` processes ahead of need; the same whatever `workers` is."""
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,  # the data set makes batches itself
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # A forked worker can't use CUDA or threads of the parent; one that starts afresh can.
        multiprocessing_context="forkserver" if workers else None,
        # Each batch lies in shared memory, masks and all: workers x 2 of them.
        prefetch_factor=2 if workers else None,
        # Else it would draw from the global one, whose state a resumed run takes over.
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
    """What an interrupted run must share to be resumed: params, data, and what it began with.

    `settings` and `files` are what the stage depends on beside its training's section and its splits. How many
    processes share the work isn't part of it, nor are the knobs of `ROUNDING`: who runs out of memory after days turns
    one and goes on.
    """
    tables = [split.root / name for split in splits for name in SPLIT_TABLES]
    shared = [stage, params.seed, params.threads, params.input.model_dump(), sorted(leave_out)]
    own = training.model_dump(mode="json", exclude=ROUNDING)
    return fingerprint(stage, [*tables, *files], shared, own, list(settings), machine=hardware(device))


def write_training(
    folder: Path,
    job: Job,
    params: Params,
    kind: Literal["solov2", "refinenet"],
    config: SOLOv2Config | RefineNetConfig,
    split: Split,
    weights: Mapping[str, dict[str, Tensor]],
    counts: dict[str, int],
    backbone_weights: str | None,
    **facts: Any,
) -> None:
    """Writes into `folder` checkpoints, log.jsonl and manifest.json.

    Args:
        split: whose categories are the network's classes.
        weights: by the checkpoint's folder inside `folder`, "" being itself.
        counts: for the manifest, beside the steps.
        backbone_weights: the hash that `new_network` gave.
        facts: what model.json holds further.
    """
    meta = {
        "format": FORMAT,
        "kind": kind,
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
