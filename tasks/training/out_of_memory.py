"""What to say when a training doesn't fit in memory: what was asked for, and which knob to turn, to what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from tasks.common import processes
from tasks.common.config import TrainConfig
from tasks.common.errors import TaskError


@contextlib.contextmanager
def explained(stage: str, config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Turns an error of the memory allocator into one that a user can act on.

    Raises:
        TaskError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        asked = str(error).splitlines()[0] if str(error) else "no memory left"
        raise TaskError(
            f"{stage}: out of memory on {device} ({asked}). {advice(stage.removeprefix('train_'), config)}"
        ) from None


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether memory ran out. On a CPU torch has no type of its own for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def advice(section: str, config: TrainConfig) -> str:
    """The knobs that make a step smaller, the harmless ones first, with the values to try next."""
    images = -(-config.batch_size // (config.accumulate * processes.count()))
    lines = [
        f"A step of batch_size {config.batch_size} goes through the network in pieces of {images} "
        f"image{'s' * (images > 1)} at {config.precision}. In {section} of params.yaml, try in this order:"
    ]
    more = next_accumulate(config)
    if more is not None:
        lines.append(
            f"accumulate: {more} (smaller pieces, the same training but for rounding: it goes on where it was)"
        )
    if config.precision == "fp32":
        lines.append("precision: bf16 (half the activations)")
    if hasattr(config, "mask_pairs"):
        pairs = config.mask_pairs
        lines.append(
            f"mask_pairs: {512 if pairs is None else max(1, pairs // 2)} (fewer masks a step, in crowded images)"
        )
    if hasattr(config, "crops"):
        lines.append(f"crops: {max(1, config.crops // 2)}")
    least = config.accumulate * processes.count()
    if config.batch_size > least:
        lines.append(
            f"batch_size: {max(least, config.batch_size // 2)}, with lr smaller alike (this trains anew)"
        )
    lines.append("or smaller images: input.short_side and input.max_side, or augment.crop_side")
    return "\n  - ".join(lines)


def next_accumulate(config: TrainConfig) -> int | None:
    """The next number of pieces that makes the largest one smaller; None where they are of one image."""
    each = -(-config.batch_size // processes.count())
    now = -(-each // config.accumulate)
    return next((k for k in range(config.accumulate + 1, each + 1) if -(-each // k) < now), None)
