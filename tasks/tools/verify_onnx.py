"""Whether an ONNX file finds in images what the model finds, by onnxruntime and torch on the same CPU.

Legend: K instances, H x W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from data.images.read import read_ingested
from data.tables import Split
from models.config import InferenceConfig
from models.inference.detect import Predictions
from models.inference.tiles import forward_tiled, predict
from models.solov2.network import SOLOv2
from tasks.common.config import InputConfig
from tasks.common.errors import TaskError
from tasks.common.progress import Bar
from tasks.inference.batches import prepare, stack
from tasks.tools.verify_network import Arrays, chosen_rows, verify_network

MIN_IOU = 0.999
ROUNDED_PIXELS = 2
"""So many pixels of a mask may differ whatever its size: values at the threshold differ by rounding."""
SCORE_TOLERANCE = 1e-3
TOGETHER = 4
"""Images that are tried as one batch."""


class Difference(Exception):
    """What differs, for an error's text."""


def verify_instances(
    file: Path, network: SOLOv2, split: Split, size: InputConfig, inference: InferenceConfig
) -> dict[str, Any]:
    """Compares instances on up to 50 of a split's images, spread over it, on one without objects, and on a batch.

    Returns:
        Counts, the least IoU, the greatest difference of scores.

    Raises:
        TaskError: a mask or score differs on an image; or cells were left out.
    """
    session, names = open_session(file)
    rows = chosen_rows(split)
    worst = {"iou": 1.0, "score": 0.0}
    counts = Counter[str]()
    shapes: dict[tuple[int, ...], list[tuple[str, np.ndarray, Predictions]]] = {}
    with Bar("verifying", len(rows) + 1, "image") as bar:
        for row in [*rows, None]:
            if row is None:
                name, pixels = "a grey image", np.full_like(next(iter(shapes.values()))[0][1], 128)
            else:
                name, pixels = str(split.image(row)["file_name"]), read_ingested(split, row)
            (expected,) = by_torch(network, pixels[None], size, inference)
            found = dict(zip(names, session.run(None, {"images": pixels[None]}), strict=True))
            _compare(name, expected, found, 0, inference, worst)
            counts["images"] += 1
            counts["instances"] += len(expected.scores)
            alike = shapes.setdefault(pixels.shape, [])
            if len(alike) < TOGETHER:
                alike.append((name, pixels, expected))
            bar.advance()
    batch = max(shapes.values(), key=len)
    found = dict(zip(names, session.run(None, {"images": np.stack([one[1] for one in batch])}), strict=True))
    for n, (name, _, expected) in enumerate(batch):
        _compare(f"{name}, in a batch of {len(batch)}", expected, found, n, inference, worst)
    return {
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
        **counts,
        "batch": len(batch),
        "sizes": len(shapes),
        "least_iou": round(worst["iou"], 6),
        "greatest_score_difference": float(f"{worst['score']:.2g}"),
    }


def open_session(file: Path, threads: int = 0) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """A file on the CPU, and its outputs' names."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # beside torch's threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return session, [one.name for one in session.get_outputs()]


@torch.inference_mode()
def by_torch(
    network: SOLOv2, images: np.ndarray, size: InputConfig, inference: InferenceConfig
) -> list[Predictions]:
    """Of images [N, H, W, 3]."""
    batch = stack(list(range(len(images))), [prepare(pixels, size) for pixels in images])
    outputs = forward_tiled(network, batch.images, batch.content_sizes, size.tile)
    return [predict(outputs, n, inference, batch.sizes(n)) for n in range(len(images))]


def instances_by_torch(
    network: SOLOv2, images: np.ndarray, size: InputConfig, inference: InferenceConfig
) -> Arrays:
    """Of images [N, H, W, 3] what the file returns (models/export/graph.py), but boxes that may not be tight."""
    found = by_torch(network, images, size, inference)
    most = max(len(one.scores) for one in found)

    def padded(name: str, nothing: float) -> np.ndarray:
        parts = [getattr(one, name).numpy() for one in found]
        made = np.full((len(parts), most, *parts[0].shape[1:]), nothing, parts[0].dtype)
        for n, part in enumerate(parts):
            made[n, : len(part)] = part
        return made

    masks = padded("masks", False)
    return {
        "masks": masks, "scores": padded("scores", 0), "labels": padded("labels", -1),
        "boxes_xyxy": padded("boxes_xyxy", 0), "valid": np.asarray(masks.any((2, 3))),
    }  # fmt: skip


def _compare(
    name: str,
    expected: Predictions,
    found: Arrays,
    n: int,
    inference: InferenceConfig,
    worst: dict[str, float],
) -> None:
    """Each instance has its like, but for those about to be left out anyway."""
    if found["left_out"][n]:
        raise TaskError(
            f"{name}: the file has no room for {found['left_out'][n]} cells above the score threshold"
        )
    masks, scores, labels = expected.masks.numpy(), expected.scores.numpy(), expected.labels.numpy()
    there = masks.any((1, 2))
    masks, scores, labels = masks[there], scores[there], labels[there]
    valid = found["valid"][n]
    other = [found[key][n][valid] for key in ("masks", "scores", "labels")]
    for own, theirs, who in (
        ((masks, scores, labels), other, "the file"),
        (other, (masks, scores, labels), "torch"),
    ):
        cut = inference.nms_threshold
        if len(expected.scores) >= inference.max_detections:
            cut = max(cut, float(expected.scores[-1]))
        free = np.ones(len(theirs[1]), bool)
        for mask, score, label in zip(*own, strict=True):
            near = np.flatnonzero(free & (theirs[2] == label) & (abs(theirs[1] - score) <= SCORE_TOLERANCE))
            best, least = _most_alike(mask, theirs[0], near)
            if best is not None:
                free[best] = False
                worst["iou"] = min(worst["iou"], least)
                worst["score"] = max(worst["score"], float(abs(theirs[1][best] - score)))
            elif score - cut > SCORE_TOLERANCE:
                raise TaskError(_fault(name, who, mask, score, label, theirs))


def _most_alike(mask: np.ndarray, others: np.ndarray, near: np.ndarray) -> tuple[int | None, float]:
    """The first of `near` that is the same mask but for rounding, and its IoU."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    area = int(mask[box].sum())
    for k in near:
        both = int((mask[box] & others[k][box]).sum())
        if area - both > ROUNDED_PIXELS and both <= MIN_IOU * area:
            continue
        either = area + int(others[k].sum()) - both
        if both / either > MIN_IOU or either - both <= ROUNDED_PIXELS:
            return int(k), both / either
    return None, 0.0


def _fault(
    name: str, who: str, mask: np.ndarray, score: float, label: int, theirs: Sequence[np.ndarray]
) -> str:
    alike = np.flatnonzero(theirs[2] == label)
    if not len(alike):
        what = "none of its class"
    else:
        ious = [(mask & theirs[0][k]).sum() / max((mask | theirs[0][k]).sum(), 1) for k in alike]
        best = int(np.argmax(ious))
        what = f"at best a mask of IoU {ious[best]:.4f} with it and score {theirs[1][alike[best]]:.4f}"
    return (
        f"{name}: for a mask of {mask.sum()} pixels, class {label} and score {score:.4f}, {who} has {what}; expected "
        f"an IoU above {MIN_IOU} and a score within {SCORE_TOLERANCE}. Nothing was written"
    )


def verify_raw(file: Path, network: SOLOv2, split: Split, size: InputConfig) -> dict[str, Any]:
    """The network's outputs by onnxruntime, see `verify_network`."""
    session, names = open_session(file)
    inputs = [one.name for one in session.get_inputs()]
    found = verify_network(
        lambda given: session.run(None, {name: given[name] for name in inputs}), names, network, split, size
    )
    return {"onnxruntime": onnxruntime.__version__, **found}
