"""Disk and memory that a run needs, compared with what is free: estimates, to a factor of two."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.tables import Fault, Split
from tasks.common.config import DetectorTrainConfig, Params, TrainConfig
from tasks.doctor.finding import Diagnosis

BYTES = 4
"""Of a weight."""
ROW_BYTES = 120
"""Of a pseudo label without its masks."""
RESULT_BYTES = 300
"""Of a detection in a COCO results file."""


class Needs(NamedTuple):
    """The needs of a whole run, in bytes and as a text; they depend on data and params alone."""

    disk: int
    disk_text: str
    memory: int
    memory_text: str


def estimate(params: Params, splits: Mapping[str, Split], points: int) -> Needs:
    """The needs of a run on these splits, with so many points."""
    return Needs(*disk_need(params, splits, points), *memory_need(params, splits))


def check_needs(needs: Needs, params: Params, root: Path, diagnosis: Diagnosis) -> None:
    """Warns where free disk or memory is too small; always notes the estimates."""
    free = shutil.disk_usage(root).free
    diagnosis.notes.append(
        f"disk: a whole run writes about {_size(needs.disk)} ({needs.disk_text}); {_size(free)} are free"
    )
    if needs.disk > free:
        fault = Fault(
            str(root),
            "disk",
            f"{_size(free)} free",
            f"about {_size(needs.disk)} for a whole run: {needs.disk_text}",
            "free some (`dvc gc -w` removes results of old runs), or move the project to a larger disk",
        )
        diagnosis.warn("disk", fault)
    memory = memory_free()
    diagnosis.notes.append(
        f"memory: {needs.memory_text}" + ("" if memory is None else f"; {_size(memory)} are free")
    )
    if memory is not None and needs.memory > memory:
        fault = Fault(
            "params.yaml",
            "runtime.cache_images",
            f"true, and {_size(memory)} of memory free",
            needs.memory_text,
            "set runtime.cache_images to false"
            + (", or runtime.workers to fewer" if params.runtime.workers > 1 else ""),
        )
        diagnosis.warn("memory", fault)


def disk_need(params: Params, splits: Mapping[str, Split], points: int) -> tuple[int, str]:
    """Bytes, and a text with their parts. Files that DVC tracks are in the workspace and again in its cache."""
    detector, refiner = weights(params, len(splits["strong"].categories))
    tables = sum(path.stat().st_size for split in splits.values() for path in split.root.rglob("*.arrow"))
    networks = BYTES * (detector * (2 + len(params.teacher.milestones)) + refiner)
    rles = splits["strong"].instances["rle_counts"]
    rle = float(np.mean([len(counts) for counts in rles.slice(0, 10_000).to_pylist()] or [60]))
    pseudo = int(points * (ROW_BYTES + 2 * rle))
    found = 2 * RESULT_BYTES * len(splits["val"]) * params.evaluate.inference.max_detections
    states = max(
        _state(detector, params.teacher),
        _state(detector, params.student),
        _state(refiner, params.refiner) + BYTES * refiner * len(params.refiner.milestones),
    )
    # What came from S3 is here already, under names that share one content; DVC's cache copies it once.
    came = splits["strong"].root.parents[1] / "fetched"
    fetched = sum(path.stat().st_size for path in came.rglob("*") if path.is_file()) if came.is_dir() else 0
    tracked = tables + networks + pseudo + found
    text = (
        f"networks {_size(networks)}, tables {_size(tables)}, pseudo labels {_size(pseudo)}, predictions "
        f"{_size(found)}, each twice with DVC's cache, pseudo labels once more in their ledger; a training's state "
        f"{_size(states)}"
    )
    return 2 * tracked + pseudo + states + fetched, text + (
        f"; images from S3 {_size(fetched)}" if fetched > 10**6 else ""
    )


def _state(count: int, training: TrainConfig) -> int:
    """Bytes of what a training resumes from, twice: the old one goes when the new one is whole."""
    copies = 1 + {"adamw": 2, "adam": 2, "sgd": 1}[training.optimizer] + (training.ema is not None)
    return 2 * BYTES * count * copies


def weights(params: Params, classes: int) -> tuple[int, int]:
    """Number of weights of a SOLOv2 and of a MaskRefineNet of these params; no memory is allocated.

    0 and 0 if a backbone can't be built, which the check of weights reports.
    """
    import torch

    from models.backbones.base import BackboneError
    from models.refiner.network import MaskRefineNet
    from models.solov2.network import SOLOv2

    def plain(config: dict[str, object]) -> dict[str, object]:
        backbone = config["backbone"]
        assert isinstance(backbone, dict)
        return {**config, "backbone": {**backbone, "weights": None}}

    training: DetectorTrainConfig = params.teacher
    detector = params.detector(training)
    refiner = params.refiner.net
    try:
        with torch.device("meta"):
            networks = (
                SOLOv2(type(detector).model_validate(plain(detector.model_dump())), max(1, classes)),
                MaskRefineNet(type(refiner).model_validate(plain(refiner.model_dump()))),
            )
    except BackboneError:
        return 0, 0
    first, second = (sum(value.numel() for value in network.state_dict().values()) for network in networks)
    return first, second


def memory_need(params: Params, splits: Mapping[str, Split]) -> tuple[int, str]:
    """Bytes of decoded images that a training keeps in memory, and a text."""
    if not params.runtime.cache_images:
        return 0, "no images are kept decoded (runtime.cache_images: false)"
    pixels = sum(
        int((split.images["width"].to_numpy().astype(np.int64) * split.images["height"].to_numpy()).sum())
        for split in (splits["strong"], splits["weak"])
    )
    copies = max(1, params.runtime.workers)
    each = f", in each of {copies} loader processes" if copies > 1 else ""
    need = 3 * pixels * copies
    return need, f"{_size(need)} of decoded images are kept by the student's training{each}"


def memory_free(proc: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Free bytes of this machine or container; None where they can't be read."""
    try:
        lines = dict(line.split(":", 1) for line in proc.read_text(encoding="ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        free = min(free, limit - int((group / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):
        pass  # no limit: "max", or another system
    return max(0, free)


def note_gpu(params: Params, diagnosis: Diagnosis) -> None:
    """Notes the memory of the GPU. The need of a training depends on its kernels and isn't estimated."""
    import torch

    if params.runtime.device == "cpu" or not torch.cuda.is_available():
        if params.runtime.device != "cpu":
            diagnosis.notes.append("device: no GPU here; trainings run on the CPU")
        return
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    diagnosis.notes.append(
        f"device: {torch.cuda.get_device_name()} of {_size(total)}; if a training runs out of it, lower batch_size, "
        "input.short_side or augment.crop_side"
    )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
