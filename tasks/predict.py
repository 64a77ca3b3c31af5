"""Instances of every image of a split, without points: what a trained SOLOv2 finds, as COCO results."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from data import masks as mask_codec
from data.tables import Split
from models.config import InferenceConfig, TileConfig
from models.solov2 import SOLOv2
from models.tiles import look, predict
from tasks.config import InputConfig
from tasks.errors import TaskError
from tasks.images import ImageBatch, load_batches
from tasks.progress import Bar

SCORE_DECIMALS = 6
_MAX_LISTED = 50


def predict_split(
    model: SOLOv2,
    split: Split,
    *,
    size: InputConfig,
    inference: InferenceConfig,
    batch_size: int,
    device: torch.device,
    workers: int,
    name: str,
) -> list[dict[str, Any]]:
    """COCO results of all images of `split` whose status is "ok".

    Args:
        model: in eval mode, with `categories` as checkpoints carry them: class i is categories[i].
        split: its images are read; its instances aren't looked at.
        size: how large images come in.
        inference: how detections are picked.
        batch_size: images at a time, all of one padded size.
        device: where the network runs; the model is moved there.
        workers: processes that read images; 0 reads them here.
        name: what the progress counts for, e.g. "student".

    Returns:
        Dicts of image_id, category_id, score, bbox [x, y, width, height] and segmentation (compressed RLE
        of the original image, counts as str), sorted by image_id, the best first.

    Raises:
        TaskError: images that are missing, unreadable or not of the size ingested; all of them are listed.
    """
    rows = [i for i, status in enumerate(split.images["status"].to_pylist()) if status == "ok"]
    image_ids = split.images["image_id"].to_pylist()
    model = model.to(device)
    results: list[dict[str, Any]] = []
    faults: list[str] = []
    with Bar(f"predict with {name}", len(rows), "image") as bar:
        for batch, failed in load_batches(split, rows, size, batch_size, workers):
            faults += [str(one.fault) for one in failed]
            if batch is not None and not faults:  # after a fault, go on only to list the others
                results += _predict_batch(
                    model, batch, [image_ids[row] for row in batch.rows], inference, size.tile, device
                )
            bar.advance((len(batch.rows) if batch else 0) + len(failed))
    if faults:
        more = f"\n  and {len(faults) - _MAX_LISTED} more" if len(faults) > _MAX_LISTED else ""
        listed = "\n".join(f"  - {fault}" for fault in faults[:_MAX_LISTED])
        raise TaskError(f"{split.root}: {len(faults)} images can't be predicted:\n{listed}{more}")
    # Stable: an image's detections stay in the order of their scores.
    return sorted(results, key=lambda result: result["image_id"])


@torch.inference_mode()
def _predict_batch(
    model: SOLOv2,
    batch: ImageBatch,
    image_ids: list[int],
    inference: InferenceConfig,
    tile: TileConfig | None,
    device: torch.device,
) -> list[dict[str, Any]]:
    images = batch.images.to(device, non_blocking=True)
    outputs = look(model, images, batch.content_sizes, tile)
    results = []
    for n, original in enumerate(batch.originals):
        found = predict(
            outputs,
            n,
            inference,
            input_size=(images.shape[2], images.shape[3]),
            content_size=batch.content_sizes[n],
            original_size=(original.shape[1], original.shape[2]),
        )
        category_ids = [model.categories[label]["id"] for label in found.labels.tolist()]
        results += _as_coco(image_ids[n], category_ids, found.scores, found.masks)
    return results


def _as_coco(image_id: int, category_ids: list[int], scores: Tensor, masks: Tensor) -> list[dict[str, Any]]:
    """COCO result dicts of one image's detections; masks bool [D, H, W]. Empty masks are left out."""
    height, width = masks.shape[-2:]
    results = []
    for category_id, score, mask in zip(category_ids, scores.tolist(), masks.cpu().numpy(), strict=True):
        if not mask.any():  # all of it lay in the padding, which is cut off
            continue
        counts = mask_codec.encode(mask)
        results.append(
            {
                "image_id": image_id,
                "category_id": category_id,
                "score": round(score, SCORE_DECIMALS),
                "bbox": list(mask_codec.bbox_xywh(counts, height, width)),
                "segmentation": {"size": [height, width], "counts": counts.decode("ascii")},
            }
        )
    return results
