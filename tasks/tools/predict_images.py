"""Masks on images outside the pipeline: what a checkpoint finds in them, or draws at clicks.

`compat` keeps to the reference's conventions from the image to the mask (models/reference/compat.py), so that
published weights give what they gave there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from data.masks import rle as mask_codec
from data.masks.rle import encode_many
from data.storage import atomic_write
from data.tables import Category, Split
from models.checkpoint import build_model, load_meta
from models.config import MAX_SIDE, InferenceConfig, PromptConfig
from models.inference.coarse_masks import rough_masks
from models.inference.tiles import Outputs, forward_tiled, predict
from models.masks.boxes import areas_in
from models.masks.resize import resize_masks
from models.reference.compat import predict_as_reference, prompt_as_reference, rounded_points
from models.reference.compat_refine import refine_as_reference
from models.reference.published_config import STUDENT
from models.refiner.network import MaskRefineNet
from models.refiner.refine import refined_masks
from models.solov2.network import RawOutputs, SOLOv2
from models.weights import CheckpointError, check_outputs
from tasks.common.config import InputConfig, load_params, model_input
from tasks.common.device import resolve_device
from tasks.common.errors import TaskError
from tasks.common.ordered_threads import ordered_thread_map
from tasks.common.progress import Bar
from tasks.common.stage_main import write_json
from tasks.inference.predict import SCORE_DECIMALS
from tasks.labelling.gate import Gate, read_gate
from tasks.tools.predict_inputs import Ready, Rows, load, points_by_image, split_of
from tasks.training.out_of_memory import is_out_of_memory

log = logging.getLogger(__name__)
Network = TypeVar("Network", SOLOv2, MaskRefineNet)

RESULTS, FATES = "results.json", "points.json"
CROP_BATCH = 16
"""Crops at a time; it doesn't alter results."""
READ_AHEAD = 1 << 27
"""Bytes of images that are read before their turn."""
Answer = tuple[Rows, Rows]
"""Rows of results and fates of clicks of an image."""
Job = tuple[int, Callable[[], Answer]]
"""Bytes that it holds, and what turns masks into rows: work for another thread."""


class Rules(NamedTuple):
    """How masks are made from raw outputs."""

    size: InputConfig
    inference: InferenceConfig
    prompt: PromptConfig | None
    """None under `compat`."""
    compat: bool
    mask_nms: bool
    """Of plain inference under `compat`, in place of matrix NMS."""


class Predictor:
    """A detector, its rules, and a refiner if there is one."""

    def __init__(self, model: Path, rules: Rules, refiner: Path | None, device: torch.device) -> None:
        self.rules, self.device = rules, device
        self.network = _build(model, SOLOv2).to(device)
        self.refiner: MaskRefineNet | None = None
        self.gate: Gate | None = None
        if refiner is not None:
            self.refiner = _build(refiner, MaskRefineNet).to(device)
            self.gate = read_gate(refiner)
        self.categories = [Category(row["id"], row["name"]) for row in self.network.categories]
        self.class_of = {category.id: n for n, category in enumerate(self.categories)}

    @torch.inference_mode()
    def find(self, image: Ready) -> Job:
        """Instances of an image without clicks, the best first: category_id, score, bbox, segmentation."""
        sizes = (image.input_size, image.content_size, image.original_size)
        if self.rules.compat and self.rules.mask_nms:
            found = predict_as_reference(self._whole(image), 0, self.rules.inference, *sizes)
        else:
            found = predict(self._seen(image), 0, self.rules.inference, *sizes)
        ids = [self.categories[label].id for label in found.labels.tolist()]
        return found.masks.nbytes, partial(_found, ids, found.scores.tolist(), found.masks, found.boxes_xyxy)

    @torch.inference_mode()
    def draw(self, image: Ready, points: Rows) -> Job:
        """A row for each click, in their order; `compat`: for each mask that comes out, the best first.

        Rows are as those of `find`, with point_id, record and point [x, y], and `status`: `ok`, `rough` where a
        refiner left the mask as it was, `empty` where there is none.
        The second list has the fate of each click: point_id, record, fate.
        """
        if not points:
            return 0, lambda: ([], [])
        xy = torch.tensor([[point["x"], point["y"]] for point in points], device=self.device)
        labels = torch.tensor([self.class_of[point["category_id"]] for point in points], device=self.device)
        if self.rules.prompt is None:
            return self._draw_as_reference(image, self._whole(image), points, xy, labels)
        return self._draw(image, self._seen(image), points, xy, labels, self.rules.prompt)

    def _whole(self, image: Ready) -> RawOutputs:
        outputs: RawOutputs = self.network(image.padded.to(self.device), [image.content_size])
        check_outputs(outputs.tensors)
        return outputs

    def _seen(self, image: Ready) -> Outputs:
        tile = None if self.rules.compat else self.rules.size.tile
        return forward_tiled(self.network, image.padded.to(self.device), [image.content_size], tile)

    def _draw(
        self,
        image: Ready,
        outputs: Outputs,
        points: Rows,
        xy: Tensor,
        labels: Tensor,
        prompt: PromptConfig,
    ) -> Job:
        content, size = image.content_size, image.original_size
        rough = rough_masks(outputs, 0, xy, labels, image.input_size, content, size, prompt)
        drawn, status = rough.masks, ["ok"] * len(points)
        if self.refiner is not None and self.gate is not None:
            areas = areas_in(rough.masks, rough.boxes_xyxy) * (content[0] * content[1] / (size[0] * size[1]))
            refusals = self.gate.refusals(areas.tolist())
            final = refined_masks(
                self.refiner, image.original.to(self.device), rough, xy, labels, prompt, CROP_BATCH,
                enlarge=self.gate.enlarge, rounds=self.gate.rounds,
                selected=torch.tensor([refusal is None for refusal in refusals], device=self.device),
            )  # fmt: skip
            drawn = final.masks
            stays = (final.kept_rough | final.taken).tolist()
            status = ["rough" if stay else "ok" for stay in stays]
        return drawn.nbytes, partial(_drawn, points, rough.prompted.score.tolist(), status, drawn)

    def _draw_as_reference(
        self, image: Ready, outputs: RawOutputs, points: Rows, xy: Tensor, labels: Tensor
    ) -> Job:
        content, size, config = image.content_size, image.original_size, self.rules.inference
        scaled = xy * xy.new_tensor([content[1] / size[1], content[0] / size[0]])
        found = prompt_as_reference(outputs, 0, scaled, labels, image.input_size, config)
        masks = resize_masks(found.mask_prob, image.input_size, content, size, config.mask_threshold)
        carried = rounded_points(xy[found.carried], size)
        status = ["ok"] * len(masks)
        if self.refiner is not None and self.gate is not None:
            masks, kept_rough = refine_as_reference(
                self.refiner, image.original.to(self.device), masks, carried, found.labels, CROP_BATCH,
                enlarge=self.gate.enlarge,
            )  # fmt: skip
            status = ["rough" if stays else "ok" for stays in kept_rough.tolist()]
        ids = [self.categories[label].id for label in found.labels.tolist()]
        said = [
            _said(points[k], place, state)
            for k, place, state in zip(found.carried.tolist(), carried.tolist(), status, strict=True)
        ]
        fates = [_fate(point, fate) for point, fate in zip(points, found.fates, strict=True)]
        return masks.nbytes, partial(_carried, ids, found.scores.tolist(), said, fates, masks)


def predict_images(
    images: Sequence[Path],
    model: Path,
    out: Path,
    *,
    compat: bool,
    points: Path | None,
    refiner: Path | None,
    params: Path | None,
    short_side: int | None,
    max_side: int | None,
    device: str,
) -> dict[str, int]:
    """Writes `out`/results.json: COCO results with compressed RLE, an image's rows together, each with file_name.

    With clicks there is a row a click, or under `compat` a row a mask that the reference would report, and
    `out`/points.json tells each click's fate.

    Args:
        images: files; image_id is 1, 2, ... in this order.
        model: a SOLOv2 checkpoint folder.
        out: folder; its other files stay.
        compat: keep to the reference's conventions.
        points: clicks, in any format that import_points knows; None finds instances without them.
        refiner: a MaskRefineNet checkpoint folder, for the masks at clicks.
        params: a params file, for `evaluate.inference` and `prompt`; None takes the inference settings that an
            imported checkpoint carries, and the rest from ./params.yaml.
        short_side, max_side: how large images come in; None as the checkpoint says.
        device: as `runtime.device`.

    Returns:
        Counts of images, points and masks.

    Raises:
        TaskError, DataError: images, clicks, checkpoints or params that can't be used; all of a kind are listed.
    """
    if refiner is not None and points is None:
        raise TaskError("--refiner: found no --points; masks are refined at clicks alone")
    if not images:
        raise TaskError("IMAGE: found none, expected one or more")
    torch.use_deterministic_algorithms(True, warn_only=True)
    rules = _rules(model, compat=compat, prompted=points is not None, params=params)
    sides = {"short_side": short_side, "max_side": max_side}
    chosen = {key: value for key, value in sides.items() if value is not None}
    for side, value in chosen.items():
        if not 2 <= value <= MAX_SIDE:
            raise TaskError(f"--{side.replace('_', '-')}: found {value}, expected 2 to {MAX_SIDE}")
    rules = rules._replace(size=rules.size.model_copy(update=chosen))
    predictor = Predictor(model, rules, refiner, resolve_device(device))
    split = split_of(images, predictor.categories)
    clicks = None if points is None else points_by_image(points, split)
    fates: Rows = []
    drawn = 0
    out.mkdir(parents=True, exist_ok=True)
    with (
        Bar("predict", len(images), "image") as bar,
        atomic_write(out / RESULTS) as unfinished,
        unfinished.open("w", encoding="utf-8") as file,
    ):
        # One row a line, written as it comes: long files stay diffable and can be read in part.
        file.write("[")
        between = ""
        for ids, (rows, told) in ordered_thread_map(_jobs(predictor, split, images, clicks)):
            for row in rows:
                file.write(between + json.dumps(ids | row, allow_nan=False, separators=(",", ":")))
                between = ",\n"
            fates += [ids | fate for fate in told]
            drawn += sum(row.get("status") != "empty" for row in rows)
            bar.advance(1)
        file.write("]\n")
    (out / FATES).unlink(missing_ok=True)  # an earlier run's
    if clicks is not None:
        write_json(out / FATES, fates)
    return {"images": len(images), "points": len(fates), "masks": drawn}


def _jobs(
    predictor: Predictor, split: Split, images: Sequence[Path], clicks: dict[int, Rows] | None
) -> Iterator[tuple[int, Callable[[], tuple[dict[str, Any], Answer]]]]:
    """For each image what makes its rows. The next images are read beside."""
    rules = predictor.rules
    sizes = zip(split.images["width"].to_pylist(), split.images["height"].to_pylist(), strict=True)
    reading = (
        (2 * 3 * width * height, partial(load, path, rules.size, like_reference=rules.compat))
        for path, (width, height) in zip(images, sizes, strict=True)
    )
    for n, (path, image) in enumerate(
        zip(images, ordered_thread_map(reading, most_bytes=READ_AHEAD), strict=True), start=1
    ):
        with _told_of(path, predictor):
            size, job = predictor.find(image) if clicks is None else predictor.draw(image, clicks[n])
        yield size, partial(_with_ids, {"image_id": n, "file_name": path.as_posix()}, job)


@contextmanager
def _told_of(path: Path, predictor: Predictor) -> Iterator[None]:
    """Faults of a network at an image, which may be too large for the memory."""
    try:
        yield
    except CheckpointError as error:
        raise TaskError(f"{path}: {error}") from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = predictor.rules.size
        raise TaskError(
            f"{path}: out of memory on {predictor.device} with a short side of {size.short_side} pixels and a long one "
            f"of up to {size.max_side}; give smaller ones with --short-side and --max-side"
        ) from None


def _with_ids(ids: dict[str, Any], job: Callable[[], Answer]) -> tuple[dict[str, Any], Answer]:
    return ids, job()


def _rules(model: Path, *, compat: bool, prompted: bool, params: Path | None) -> Rules:
    try:
        meta = load_meta(model)
    except CheckpointError as error:
        raise TaskError(str(error)) from None
    size = model_input(model, meta)
    own = None if meta.get("inference") is None else InferenceConfig.model_validate(meta["inference"])
    if compat:
        nms = (meta.get("imported") or {}).get("nms")
        return Rules(size, own or STUDENT.inference, None, True, nms == "mask")
    if not prompted and own is not None and params is None:
        return Rules(size, own, None, False, False)
    try:
        loaded = load_params(params or Path("params.yaml"))
    except TaskError as error:
        raise TaskError(
            f"{error}\npredict takes its rules from a params file: name one with --params"
        ) from None
    return Rules(size, loaded.evaluate.inference, loaded.prompt, False, False)


def _build(folder: Path, kind: type[Network]) -> Network:
    try:
        network = build_model(folder)
    except CheckpointError as error:
        raise TaskError(str(error)) from None
    if not isinstance(network, kind):
        raise TaskError(f"{folder}: found a {type(network).__name__}, expected a {kind.__name__}")
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


def _found(category_ids: Sequence[int], scores: Sequence[float], masks: Tensor, boxes_xyxy: Tensor) -> Answer:
    return [row for drawn, row in _rows(category_ids, scores, masks, boxes_xyxy) if drawn], []


def _drawn(points: Rows, scores: Sequence[float], status: Sequence[str], masks: Tensor) -> Answer:
    made = _rows([point["category_id"] for point in points], scores, masks)
    rows = [
        row | _said(point, [point["x"], point["y"]], state if drawn else "empty")
        for point, state, (drawn, row) in zip(points, status, made, strict=True)
    ]
    return rows, [_fate(point, row["status"]) for point, row in zip(points, rows, strict=True)]


def _carried(
    category_ids: Sequence[int], scores: Sequence[float], said: Rows, fates: Rows, masks: Tensor
) -> Answer:
    made = _rows(category_ids, scores, masks)
    rows = [
        row | one | ({} if drawn else {"status": "empty"})
        for one, (drawn, row) in zip(said, made, strict=True)
    ]
    return rows, fates


def _said(point: dict[str, Any], place: list[float], status: str) -> dict[str, Any]:
    names = {"point_id": point["point_id"], "record": point["source_record"]}
    return {**names, "point": place, "status": status}


def _fate(point: dict[str, Any], fate: str) -> dict[str, Any]:
    return {"point_id": point["point_id"], "record": point["source_record"], "fate": fate}
