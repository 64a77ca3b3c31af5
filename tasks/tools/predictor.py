"""What a checkpoint finds in an image, or draws at clicks on it, as rows of COCO results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data.masks import rle as mask_codec
from data.masks.rle import encode_many
from data.tables import Category
from models.checkpoint import build_model, load_detector
from models.config import InferenceConfig, PromptConfig
from models.inference.detector import Detector, detect
from models.inference.tiles import Outputs, forward_tiled
from models.masks.resize import resize_masks
from models.reference.compat import predict_as_reference, prompt_as_reference, rounded_points
from models.reference.compat_refine import refine_as_reference
from models.refiner.network import MaskRefineNet
from models.solov2.network import RawOutputs, SOLOv2
from models.weights import CheckpointError
from tasks.common.config import InputConfig
from tasks.common.errors import TaskError
from tasks.inference.batches import ImageBatch
from tasks.inference.predict import SCORE_DECIMALS
from tasks.labelling.gate import read_gate
from tasks.labelling.labeller import CROP_BATCH, GatedRefiner
from tasks.labelling.proposer import draw
from tasks.labelling.solov2_proposer import SOLOv2Proposer
from tasks.labelling.types import further_clicks
from tasks.tools.predict_inputs import Rows

Predicted = tuple[Rows, Rows]
"""Rows of results, and of what happened to each click."""
Job = tuple[int, Callable[[], Predicted]]
"""Bytes that it holds, and what turns masks into rows: work for another thread."""


class Rules(NamedTuple):
    """How masks are made of a network's outputs."""

    size: InputConfig
    inference: InferenceConfig
    prompt: PromptConfig | None
    """None with `compat`."""
    compat: bool
    """By the reference's conventions."""
    mask_nms: bool
    """Without clicks, with `compat`: the reference's mask NMS instead of matrix NMS."""


class Predictor:
    """A detector, its rules, and a refiner if there is one."""

    def __init__(self, model: Path, rules: Rules, refiner: Path | None, device: torch.device) -> None:
        self.rules, self.device = rules, device
        self.network = _load(model, device)
        self.tile = None if rules.compat else rules.size.tile
        self.refiner: GatedRefiner | None = None
        if refiner is not None:
            network = _refiner(refiner).to(device)
            self.refiner = GatedRefiner(network, read_gate(refiner), CROP_BATCH)
        self.categories = [Category(row["id"], row["name"]) for row in self.network.categories]
        self.class_of = {category.id: n for n, category in enumerate(self.categories)}

    @torch.inference_mode()
    def find(self, image: ImageBatch) -> Job:
        """Instances of the only image of a batch, the best first: category_id, score, bbox, segmentation."""
        inference, sizes = self.rules.inference, image.sizes(0)
        if self.rules.mask_nms and isinstance(outputs := self._outputs(image), RawOutputs):
            found = predict_as_reference(outputs, 0, inference, sizes)
        else:
            images = image.images.to(self.device)
            (found,) = detect(self.network, images, image.content_sizes, self.tile, inference, [sizes])
        scores = found.scores.tolist()
        rows = partial(_found_rows, self._ids(found.labels), scores, found.masks, found.boxes_xyxy)
        return found.masks.nbytes, rows

    @torch.inference_mode()
    def draw(self, image: ImageBatch, points: Rows) -> Job:
        """A row per click on the only image of a batch, in their order; `compat`: a row per mask, the best first.

        Rows are as those of `find`, with point_id, record and point [x, y], and `status`: `ok`, `rough` where a
        refiner kept the rough mask, `empty` where there is no mask. The second list has the fate of each click:
        point_id, record, fate.
        """
        if not points:
            return 0, lambda: ([], [])
        xy = torch.tensor([[point["x"], point["y"]] for point in points], device=self.device)
        labels = torch.tensor([self.class_of[point["category_id"]] for point in points], device=self.device)
        if self.rules.prompt is None:
            return self._draw_as_reference(image, points, xy, labels)
        return self._draw(image, points, xy, labels, self.rules.prompt)

    def _draw(self, image: ImageBatch, points: Rows, xy: Tensor, labels: Tensor, prompt: PromptConfig) -> Job:
        proposer = SOLOv2Proposer(self._solov2, prompt, self.tile, self.device)
        (context,) = proposer.encode(image)
        further = further_clicks([point["further"] for point in points], self.device)
        drawn = draw(proposer, context, xy, labels, prompt, further=further)
        masks, status = drawn.rough.masks, ["ok"] * len(points)
        if self.refiner is not None:
            stats, _, masks = self.refiner.refine(context, drawn, xy, labels, prompt)
            status = ["rough" if stays else "ok" for stays in (stats.kept_rough | stats.taken).tolist()]
        clicks = [
            _click(point, [point["x"], point["y"]], state)
            for point, state in zip(points, status, strict=True)
        ]
        ids = [point["category_id"] for point in points]
        return masks.nbytes, partial(_click_rows, ids, drawn.best.score.tolist(), masks, clicks, None)

    def _draw_as_reference(self, image: ImageBatch, points: Rows, xy: Tensor, labels: Tensor) -> Job:
        outputs, config = self._outputs(image), self.rules.inference
        assert isinstance(outputs, RawOutputs)  # not tiled
        sizes = image.sizes(0)
        (ch, cw), (height, width) = sizes.content, sizes.original
        scaled = xy * xy.new_tensor([cw / width, ch / height])
        found = prompt_as_reference(outputs, 0, scaled, labels, sizes.input, config)
        masks = resize_masks(found.mask_prob, sizes, config.mask_threshold)
        carried = rounded_points(xy[found.carried], sizes.original)
        status = ["ok"] * len(masks)
        if self.refiner is not None:
            masks, kept_rough = refine_as_reference(
                self.refiner.network, image.originals[0].to(self.device), masks, carried, found.labels, CROP_BATCH,
                enlarge=self.refiner.gate.enlarge,
            )  # fmt: skip
            status = ["rough" if stays else "ok" for stays in kept_rough.tolist()]
        clicks = [
            _click(points[k], place, state)
            for k, place, state in zip(found.carried.tolist(), carried.tolist(), status, strict=True)
        ]
        fates = [_fate(point, fate) for point, fate in zip(points, found.fates, strict=True)]
        ids, scores = self._ids(found.labels), found.scores.tolist()
        return masks.nbytes, partial(_click_rows, ids, scores, masks, clicks, fates)

    def _outputs(self, image: ImageBatch) -> Outputs:
        return forward_tiled(self._solov2, image.images.to(self.device), image.content_sizes, self.tile)

    @property
    def _solov2(self) -> SOLOv2:
        assert isinstance(self.network, SOLOv2)  # `predict_images` refuses clicks and `compat` for others
        return self.network

    def _ids(self, labels: Tensor) -> list[int]:
        return [self.categories[label].id for label in labels.tolist()]


def _load(folder: Path, device: torch.device) -> Detector:
    try:
        return load_detector(folder, device)
    except CheckpointError as error:
        raise TaskError(str(error)) from None


def _refiner(folder: Path) -> MaskRefineNet:
    try:
        network = build_model(folder)
    except CheckpointError as error:
        raise TaskError(str(error)) from None
    if not isinstance(network, MaskRefineNet):
        raise TaskError(f"{folder}: found a {type(network).__name__}, expected a MaskRefineNet")
    return network


def _rows(
    category_ids: Sequence[int], scores: Sequence[float], masks: Tensor, boxes_xyxy: Tensor | None = None
) -> list[tuple[bool, dict[str, Any]]]:
    """For each of bool masks [D, H, W], empty outside boxes [D, 4], whether it has a pixel, and its row."""
    height, width = masks.shape[1:]
    codes = encode_many(masks, boxes_xyxy)
    return [
        (
            mask_codec.area(counts, height, width) > 0,
            {
                "category_id": category_id,
                "score": round(score, SCORE_DECIMALS),
                "bbox": list(mask_codec.bbox_xywh(counts, height, width)),
                "segmentation": {"size": [height, width], "counts": counts.decode("ascii")},
            },
        )
        for category_id, score, counts in zip(category_ids, scores, codes, strict=True)
    ]


def _found_rows(
    category_ids: Sequence[int], scores: Sequence[float], masks: Tensor, boxes_xyxy: Tensor
) -> Predicted:
    return [row for has_pixels, row in _rows(category_ids, scores, masks, boxes_xyxy) if has_pixels], []


def _click_rows(
    category_ids: Sequence[int], scores: Sequence[float], masks: Tensor, clicks: Rows, fates: Rows | None
) -> Predicted:
    """Rows of masks with their clicks; without `fates`, a click's fate is the status of its row."""
    rows = [
        row | click | ({} if has_pixels else {"status": "empty"})
        for click, (has_pixels, row) in zip(clicks, _rows(category_ids, scores, masks), strict=True)
    ]
    if fates is None:
        names = ("point_id", "record")
        fates = [{**{name: row[name] for name in names}, "fate": row["status"]} for row in rows]
    return rows, fates


def _click(point: dict[str, Any], place: list[float], status: str) -> dict[str, Any]:
    names = {"point_id": point["point_id"], "record": point["source_record"]}
    return {**names, "point": place, "status": status}


def _fate(point: dict[str, Any], fate: str) -> dict[str, Any]:
    return {"point_id": point["point_id"], "record": point["source_record"], "fate": fate}
