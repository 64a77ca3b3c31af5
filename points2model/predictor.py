"""What a trained model finds in images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Self, overload

import numpy as np
import torch
from torch import Tensor

from data.errors import DataError
from models.checkpoint import load_detector
from models.config import InferenceConfig
from models.inference.detector import Detector, detect
from models.masks.boxes import mask_boxes
from points2model.images import pixels_of
from points2model.instances import Instances
from tasks.common.config import InputConfig
from tasks.common.device import resolve_device
from tasks.inference.batches import InputImage, prepare, stack
from tasks.scoring.outcomes import USUAL_MIN_SCORE
from tasks.tools.chosen_score import chosen_min_score
from tasks.tools.model_source import PathLike, find_model

if TYPE_CHECKING:
    from points2model.images import Picture, Pixels, Several


class Predictor:
    """A trained model. It isn't safe to use one in several threads at once.

    Attributes:
        names: of the classes, by their ids.
        min_score: the score from which on instances are returned unless a call says otherwise: the one that was chosen
            on the validation images, else 0.3.
    """

    def __init__(
        self, network: Detector, size: InputConfig, inference: InferenceConfig, min_score: float
    ) -> None:
        """Use `load`."""
        self.min_score = min_score
        self.names: dict[int, str] = {row["id"]: row["name"] for row in network.categories}
        self._network, self._size, self._inference = network, size, inference
        self._device = network.pixel_mean.device

    @classmethod
    def load(
        cls,
        model: PathLike,
        *,
        device: str = "auto",
        project: PathLike = ".",
        params: PathLike | None = None,
    ) -> Self:
        """Loads a model.

        Args:
            model: the folder of a model (model.safetensors and model.json), such as workspace/student; or a model of
                the project's registry: `promoted`, or a version such as `v3`.
            device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, ...
            project: the folder with the registry.
            params: a params file with rules (`evaluate.inference`) in place of the model's and its project's.

        Raises:
            TaskError, CheckpointError: there is no such model or device, or the model can't be used.
        """
        source = find_model(model, project)
        inference = source.inference(params)
        chosen = chosen_min_score(source.folder)
        least = USUAL_MIN_SCORE if chosen is None else chosen
        return cls(load_detector(source.folder, resolve_device(device)), source.size, inference, least)

    @overload
    def __call__(
        self, images: Picture, *, min_score: float | None = ..., batch_size: int = ...
    ) -> Instances: ...

    @overload
    def __call__(
        self, images: Several, *, min_score: float | None = ..., batch_size: int = ...
    ) -> list[Instances]: ...

    def __call__(
        self, images: Picture | Several, *, min_score: float | None = None, batch_size: int = 1
    ) -> Instances | list[Instances]:
        """Instances on an image, or on each of several, the best first.

        Args:
            images: files, uint8 RGB arrays [H, W, 3], or Pillow's images.
            min_score: instances of lower scores are left out; None: `self.min_score`, 0 keeps all.
            batch_size: so many images at a time, where neighbours have one padded size. Results may differ by rounding.

        Raises:
            DataError: images can't be read; all are listed.
            TypeError, ValueError: arrays of another type or shape; a `batch_size` below 1.
        """
        _check(batch_size)
        if not isinstance(images, list | tuple):
            return next(self._found([pixels_of(images)], min_score))
        faults: list[DataError] = []
        found = []
        for one in self.stream(images, min_score=min_score, batch_size=batch_size):
            if isinstance(one, DataError):
                faults.append(one)
            elif not faults:
                found.append(one)
        if faults:
            raise DataError([fault for error in faults for fault in error.faults])
        return found

    def stream(
        self, images: Iterable[Picture], *, min_score: float | None = None, batch_size: int = 1
    ) -> Iterator[Instances | DataError]:
        """As a call with several images, one after another: of an image that can't be read the error, in its place."""
        _check(batch_size)
        return self._streamed(images, min_score, batch_size)

    def _streamed(
        self, images: Iterable[Picture], min_score: float | None, batch_size: int
    ) -> Iterator[Instances | DataError]:
        waiting: list[Pixels | DataError] = []
        for image in images:
            try:
                waiting.append(pixels_of(image))
            except DataError as error:
                waiting.append(error)
            if len(waiting) == batch_size:
                yield from self._flush(waiting, min_score)
                waiting = []
        yield from self._flush(waiting, min_score)

    def _flush(
        self, waiting: list[Pixels | DataError], min_score: float | None
    ) -> Iterator[Instances | DataError]:
        found = self._found([one for one in waiting if not isinstance(one, DataError)], min_score)
        for one in waiting:
            yield one if isinstance(one, DataError) else next(found)

    def _found(self, images: Sequence[Pixels], min_score: float | None) -> Iterator[Instances]:
        """Neighbours of one size at a time."""
        batch: list[InputImage] = []
        for image in images:
            one = prepare(image, self._size)
            if batch and one.resized.shape != batch[0].resized.shape:
                yield from self._forward(batch, min_score)
                batch = []
            batch.append(one)
        if batch:
            yield from self._forward(batch, min_score)

    @torch.inference_mode()
    def _forward(self, images: list[InputImage], min_score: float | None) -> list[Instances]:
        batch = stack(list(range(len(images))), images)
        found_in = detect(
            self._network, batch.images.to(self._device), batch.content_sizes, self._size.tile, self._inference,
            [batch.sizes(n) for n in range(len(images))],
        )  # fmt: skip
        least = self.min_score if min_score is None else min_score
        made = []
        for found in found_in:
            kept = (found.scores >= least) & found.masks.flatten(1).any(1)
            made.append(as_instances(found.masks[kept], found.scores[kept], found.labels[kept], self.names))
        return made


def _check(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size: found {batch_size}, expected 1 or more images at a time")


def as_instances(masks: Tensor, scores: Tensor, labels: Tensor, names: dict[int, str]) -> Instances:
    """From masks [N, H, W], scores and contiguous classes [N]."""
    ids, texts = np.array(list(names), np.int64), np.array(list(names.values()), np.str_)
    of = labels.cpu().numpy()
    boxes = mask_boxes(masks).float().numpy()
    return Instances(masks.cpu().numpy(), boxes, scores.float().cpu().numpy(), ids[of], texts[of])
