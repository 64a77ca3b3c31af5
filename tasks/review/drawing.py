"""Masks at a reviewer's clicks, drawn as pseudo_label would draw them after the same decision.

Networks, gate, judge and settings are those of the project. Masks exclude each other, so the masks that may reach the
object's are drawn too, at their own clicks. An object that nobody touched gets its pseudo mask. Masks differ from
pseudo_label's

- on another processor or GPU than the pseudo masks', where networks round differently;
- if networks, settings or points are newer than the pseudo masks;
- near objects whose decision was undone after `import_points` had read it.

An image is encoded once, which may take seconds. Crops that didn't change aren't refined again.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.images.read import read_ingested
from data.tables import Split, class_indices
from models.masks.clicks import FurtherClicks
from models.masks.exclusive import groups_of
from models.refiner.network import MaskRefineNet
from models.solov2.network import RawOutputs
from tasks.common.config import Params
from tasks.common.device import set_up
from tasks.inference.batches import prepare, stack
from tasks.labelling.compute import MASK_PIXELS
from tasks.labelling.crowded import label_crowd
from tasks.labelling.judge import DRAWN_BY
from tasks.labelling.labeller import Plan, load_labeller
from tasks.labelling.proposer import draw
from tasks.labelling.rows import rows_of
from tasks.labelling.types import Clicks, ImageContext, PointMasks, PointStats

ENCODED_BYTES = 1 << 30
"""Memory of encoded images; the latest one stays even if it takes more."""
CROP_BYTES = 1 << 26
"""Memory of what the refiner drew in crops."""
WAITING = 4
"""Images that may wait to be encoded; a reviewer who skips many needs only the latest."""
STUDENT = Path("rounds", "student")
"""In the workspace, as train_rounds leaves it."""

Boxes = NDArray[np.float64]
"""[K, 4], xyxy in pixels of the image"""


class Drawing(NamedTuple):
    """What the networks draw at an object's clicks."""

    counts: bytes | None
    """the mask, compressed RLE of the whole image; None if there is none"""
    reason: str | None
    """why there is no mask, or why it isn't refined"""
    score: float | None
    """as in the pseudo labels"""
    drawn_by: str | None
    """the proposer's name; None if there is one proposer"""


@dataclass
class _Encoded:
    """An image, and where its masks are."""

    context: ImageContext
    boxes: dict[tuple[Any, ...], list[int]] = field(default_factory=dict)
    """xyxy of what a proposer draws at an object's clicks (see `_keys`), before overlaps are removed"""

    @property
    def nbytes(self) -> int:
        return self.context.original.nbytes + _nbytes(self.context.encoding)


class Drawer:
    """The networks of a project, for several threads.

    Attributes:
        weak: the split whose images it draws on.
    """

    def __init__(self, params: Params, workspace: Path, encoded_bytes: int = ENCODED_BYTES) -> None:
        """Reads the networks.

        Raises:
            TaskError, CheckpointError, DataError: some of them are missing or can't be used.
        """
        self.weak = Split.open(workspace / "dataset" / "weak")
        self._params, self._most_bytes = params, encoded_bytes
        device = set_up(params.runtime, params.threads)
        plan = Plan(STUDENT if params.rounds > 1 else None)
        if plan.names(params) != ["teacher"]:
            plan = plan._replace(decided=Path("pseudo"))
        labeller = load_labeller(params, workspace, device, plan)
        refiner = replace(
            labeller.refiner, network=cast(MaskRefineNet, _Remembering(labeller.refiner.network))
        )
        self._labeller = replace(labeller, refiner=refiner)
        self._class_of = class_indices(self.weak.categories)
        sam = params.proposers.used_sam
        self._alone = sam is None or sam.negatives == 0
        """Masks don't depend on other clicks, until overlaps are removed."""
        self._images: OrderedDict[int, Future[_Encoded]] = OrderedDict()
        self._lock = threading.Lock()  # of `_images`
        self._drawing = threading.Lock()  # masks of an image take memory: one mask after another
        self._ahead = ThreadPoolExecutor(1, "encode", _lower_priority)
        self._waiting: list[Future[None]] = []

    def close(self) -> None:
        """Ends the thread that encodes ahead."""
        self._ahead.shutdown(wait=True, cancel_futures=True)

    def ahead(self, image: int, clicks: Clicks, row: int) -> Future[None]:
        """Does in the background what is needed before the first `draw` with these; a future of its end.

        Faults aren't raised: `draw` meets them again.
        """
        job = partial(self._prepare, image, clicks, row)
        try:
            future = self._ahead.submit(job)
        except RuntimeError:  # closed meanwhile, since a run has made other networks
            future = Future()
            future.set_result(None)
            return future
        with self._lock:
            self._waiting = [one for one in self._waiting if not one.done()]
            for one in self._waiting[: max(0, len(self._waiting) - WAITING)]:
                one.cancel()
            self._waiting.append(future)
        return future

    def _prepare(self, image: int, clicks: Clicks, row: int) -> None:
        with suppress(Exception):
            self.draw(image, clicks, row)

    def draw(self, image: int, clicks: Clicks, row: int) -> Drawing:
        """The mask of one of an image's objects.

        Args:
            image: row in the split.
            clicks: of all objects of the image, in their order; see `tasks.review.clicked`.
            row: the object's among them.

        Raises:
            DataError: the image can't be read, or isn't as it was ingested.
            CheckpointError: the networks' outputs aren't finite.
        """
        encoded = self._encoded(image)
        context, labeller = encoded.context, self._labeller
        points_xy, labels = clicks.tensors(self._class_of, labeller.device)
        further = clicks.further_tensors(labeller.device)
        height, width = context.sizes.original
        most = max(1, MASK_PIXELS // (height * width * labeller.masks_a_click))
        with self._drawing, torch.inference_mode():
            near = list(range(len(clicks)))
            if self._alone:
                boxes = self._boxes(encoded, clicks, points_xy, labels, further, most)
                near = self._near(boxes, points_xy, groups_of(labels, labeller.prompt.exclusive), row)
            at = near.index(row)
            xy, classes = points_xy[near], labels[near]
            more = None if further is None else further.take(torch.tensor(near, device=labels.device))
            if len(near) <= most:
                drawn = draw(
                    labeller.proposer, context, xy, classes, labeller.prompt, (points_xy, labels), more
                )
                masks = _only(labeller.refiner.refine(context, drawn, xy, classes, labeller.prompt), at)
            else:
                parts = label_crowd(labeller, context, xy, classes, most, more)
                masks = next(_only(part, rows.index(at)) for rows, part in parts if at in rows)
        found = rows_of(clicks.take([row]), masks, labeller.refiner).to_pylist()[0]
        by, reason = None if masks.stats.drawn_by is None else masks.stats.drawn_by[0], found["reason"]
        if by is not None and reason is not None:
            reason = reason.removesuffix(f"{DRAWN_BY}{by}").removesuffix("; ") or None
        return Drawing(found["refined_rle"] or found["rough_rle"], reason, found["score"], by)

    def _boxes(
        self,
        encoded: _Encoded,
        clicks: Clicks,
        points_xy: Tensor,
        labels: Tensor,
        further: FurtherClicks | None,
        most: int,
    ) -> Boxes:
        """Where all masks of the image are before overlaps are removed; zeros for an empty one."""
        keys = _keys(clicks)
        new = [n for n, key in enumerate(keys) if key not in encoded.boxes]
        free = self._labeller.prompt.model_copy(update={"exclusive": "none"})
        for begin in range(0, len(new), most):
            rows = torch.tensor(new[begin : begin + most], device=labels.device)
            more = None if further is None else further.take(rows)
            drawn = draw(
                self._labeller.proposer, encoded.context, points_xy[rows], labels[rows], free, (points_xy, labels), more
            )  # fmt: skip
            encoded.boxes |= dict(
                zip((keys[n] for n in rows.tolist()), drawn.rough.boxes_xyxy.tolist(), strict=True)
            )
        return np.array([encoded.boxes[key] for key in keys], np.float64).reshape(-1, 4)

    def _near(self, boxes: Boxes, points_xy: Tensor, groups: Tensor, row: int) -> list[int]:
        """The objects on which the mask of `row` depends, with itself, ascending.

        Its refined mask loses pixels to refined masks that it overlaps; these depend on the rough masks that theirs
        overlap.
        """
        gate = self._labeller.refiner.gate
        reach = _grown(boxes, points_xy.cpu().numpy().astype(np.float64), gate.enlarge, gate.rounds)
        same = (groups == groups[row]).cpu().numpy() & (boxes[:, 2] > boxes[:, 0])
        rivals = same & _overlap(reach, reach[row])
        near = rivals.copy()
        for n in np.flatnonzero(rivals):
            near |= same & _overlap(boxes, boxes[n])
        near[row] = True
        found: list[int] = np.flatnonzero(near).tolist()
        return found

    def _encoded(self, image: int) -> _Encoded:
        """The encoded image. One that another thread encodes is waited for."""
        with self._lock:
            future = self._images.get(image)
            mine = future is None
            if future is None:
                future = self._images[image] = Future()
            self._images.move_to_end(image)
        if not mine:
            return future.result()
        try:
            encoded = self._encode(image)
        except BaseException as error:
            with self._lock:  # not kept: the file may come back
                self._images.pop(image, None)
            future.set_exception(error)
            raise
        future.set_result(encoded)
        with self._lock:
            done = [(key, one.result().nbytes) for key, one in self._images.items() if one.done()]
            held = sum(size for _, size in done)
            for key, size in done[:-1]:
                if held > self._most_bytes:
                    del self._images[key]
                    held -= size
        return encoded

    @torch.inference_mode()
    def _encode(self, image: int) -> _Encoded:
        batch = stack([image], [prepare(read_ingested(self.weak, image), self._params.input)])
        (context,) = self._labeller.proposer.encode(batch)
        return _Encoded(context._replace(encoding=_single(context.encoding)))


class _Remembering:
    """A refiner that computes each crop once: a moved click changes only the crops around it."""

    def __init__(self, network: MaskRefineNet) -> None:
        self.config, self.spare_channels = network.config, network.spare_channels
        self._network = network
        self._held: OrderedDict[bytes, Tensor] = OrderedDict()
        self._size = 0

    def __call__(self, crops: Tensor) -> Tensor:
        """As the network: crops [M, C, S, S] to logits [M, 2, S, S]."""
        keys = [hashlib.blake2b(one.contiguous().numpy().data).digest() for one in crops.cpu()]
        new = [n for n, key in enumerate(keys) if key not in self._held]
        if new:
            for n, logits in zip(new, self._network(crops[new]), strict=True):
                self._held[keys[n]] = logits.clone()
                self._size += logits.nbytes
        for key in keys:
            self._held.move_to_end(key)
        found = torch.stack([self._held[key] for key in keys])
        while self._size > CROP_BYTES and self._held:
            self._size -= self._held.popitem(last=False)[1].nbytes
        return found


def _lower_priority() -> None:
    """Of this thread, on Linux: who waits for a mask comes first."""
    if hasattr(os, "setpriority"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _keys(clicks: Clicks) -> list[tuple[Any, ...]]:
    """Of each object what its mask depends on, but for other objects."""
    places = zip(clicks.category_ids.tolist(), clicks.xy.tolist(), strict=True)
    further = clicks.further or [None] * len(clicks)
    return [
        (category, *xy, *((one["x"], one["y"], one["inside"]) for one in more or ()))
        for (category, xy), more in zip(places, further, strict=True)
    ]


def _grown(boxes: Boxes, points_xy: Boxes, enlarge: float, rounds: int) -> Boxes:
    """What refinement may reach from masks within `boxes`: crops around mask and click, each of the one before."""
    empty = (boxes[:, 2] <= boxes[:, 0])[:, None]
    pixel = np.floor(points_xy)
    low = np.where(empty, pixel, np.minimum(boxes[:, :2], pixel))
    high = np.where(empty, pixel + 1, np.maximum(boxes[:, 2:], pixel + 1))
    for _ in range(rounds):
        context = (high - low) * max(0.0, enlarge - 1) / 2
        low, high = np.floor(low - context), np.ceil(high + context)
    return np.concatenate([low, high], 1)


def _overlap(boxes: Boxes, box: Boxes) -> NDArray[np.bool_]:
    """bool [K]: whether boxes [K, 4] overlap a box [4]."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    found: NDArray[np.bool_] = np.all(high > low, axis=1)
    return found


def _only(masks: PointMasks, row: int) -> PointMasks:
    """Of K objects one."""

    def one(column: Any) -> Any:
        return None if column is None else column[row : row + 1]

    return PointMasks(PointStats(*map(one, masks.stats)), one(masks.rough), one(masks.final))


def _single(encoding: Any) -> Any:
    """An encoding without the other images of its batch, such as those that fill it up."""
    if isinstance(encoding, tuple) and len(encoding) == 2 and isinstance(encoding[0], RawOutputs):
        outputs, n = encoding

        def own(one: Tensor) -> Tensor:
            return one[n : n + 1].clone()

        alone = RawOutputs(
            [own(one) for one in outputs.category_logits], [own(one) for one in outputs.kernels],
            own(outputs.mask_features), outputs.strides,
        )  # fmt: skip
        return alone, 0
    if isinstance(encoding, ImageContext):
        return encoding._replace(encoding=_single(encoding.encoding))
    return [_single(one) for one in encoding] if isinstance(encoding, list) else encoding


def _nbytes(value: Any) -> int:
    """Of all tensors in it."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, list | tuple):
        return sum(map(_nbytes, value))
    return sum(map(_nbytes, vars(value).values())) if hasattr(value, "__dict__") else 0
