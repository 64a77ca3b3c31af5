"""Errors for a training that doesn't fit in memory, with the settings to change and values to try."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from tasks.common import processes
from tasks.common.config import TrainConfig
from tasks.common.errors import TaskError


@contextlib.contextmanager
def explain_out_of_memory(stage: str, config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Replaces an error of the memory allocator by one that names the settings to change.

    Raises:
        TaskError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "no memory left"
        raise TaskError(
            f"{stage}: out of memory on {device} ({reason}). {advice(section_of(stage), config)}"
        ) from None


def section_of(stage: str) -> str:
    """The section of params.yaml with the settings of a stage's training."""
    return "student" if stage == "train_rounds" else stage.removeprefix("train_")


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether memory ran out. For the CPU torch has no error type of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def advice(section: str, config: TrainConfig) -> str:
    """The settings that make a step smaller, those with the least effect first, with the values to try next."""
    images = -(-config.batch_size // (config.accumulate * processes.count()))
    lines = [
        f"A step of batch_size {config.batch_size} goes through the network in pieces of {images} "
        f"image{'s' * (images > 1)} at {config.precision}. In {section} of params.yaml, try in this order:"
    ]
    more = next_accumulate(config)
    if more is not None:
        lines.append(
            f"accumulate: {more} (smaller pieces, the same training except for rounding: it is resumed)"
        )
    if config.precision == "fp32":
        lines.append("precision: bf16 (half the activations)")
    if getattr(config, "network", None) is not None:
        lines.append("network.config.train_num_points: 3136, or less (points of a mask that its loss takes)")
    elif hasattr(config, "mask_pairs"):
        pairs = config.mask_pairs
        lines.append(
            f"mask_pairs: {512 if pairs is None else max(1, pairs // 2)} (fewer masks a step, in crowded images)"
        )
    if hasattr(config, "crops"):
        lines.append(f"crops: {max(1, config.crops // 2)}")
    least = config.accumulate * processes.count()
    if config.batch_size > least:
        lines.append(
            f"batch_size: {max(least, config.batch_size // 2)}, and lower lr in proportion (this restarts the training)"
        )
    lines.append("or smaller images: input.short_side and input.max_side, or augment.crop_side")
    return "\n  - ".join(lines)


def next_accumulate(config: TrainConfig) -> int | None:
    """The next number of pieces that makes the largest one smaller; None where pieces have one image."""
    each = -(-config.batch_size // processes.count())
    now = -(-each // config.accumulate)
    return next((k for k in range(config.accumulate + 1, each + 1) if -(-each // k) < now), None)
