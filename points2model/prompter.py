"""Masks at clicks, by a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from models.checkpoint import load_teacher
from models.config import PromptConfig
from models.solov2.network import SOLOv2
from points2model.images import pixels_of
from points2model.instances import Instances
from points2model.predictor import as_instances
from tasks.common.config import InputConfig
from tasks.common.device import resolve_device
from tasks.inference.batches import prepare, stack
from tasks.labelling.gate import read_gate
from tasks.labelling.labeller import CROP_BATCH, GatedRefiner, load_refiner
from tasks.labelling.proposer import draw
from tasks.labelling.solov2_proposer import SOLOv2Proposer
from tasks.labelling.types import ImageContext, further_clicks
from tasks.tools.model_source import PathLike, find_model

if TYPE_CHECKING:
    from points2model.images import Picture


class Prompter:
    """Draws masks at clicks on an image, which is encoded once.

    Attributes:
        names: of the classes, by their ids.
    """

    def __init__(
        self, network: SOLOv2, size: InputConfig, prompt: PromptConfig, refiner: GatedRefiner | None
    ) -> None:
        """Use `load`."""
        device = network.pixel_mean.device
        self.names: dict[int, str] = {row["id"]: row["name"] for row in network.categories}
        self._size, self._prompt, self._refiner, self._device = size, prompt, refiner, device
        self._proposer = SOLOv2Proposer(network, prompt, size.tile, device)
        self._context: ImageContext | None = None

    @classmethod
    def load(
        cls,
        model: PathLike,
        *,
        refiner: PathLike | None = None,
        device: str = "auto",
        project: PathLike = ".",
        params: PathLike | None = None,
    ) -> Self:
        """Loads a model, most often a teacher.

        Args:
            model, device, project, params: as for `Predictor.load`; rules are those of section `prompt`.
            refiner: the folder of a refiner, such as workspace/refiner; None: masks aren't refined.

        Raises:
            TaskError, CheckpointError: there is no such model or device, or it can't be used.
        """
        source, where = find_model(model, project), resolve_device(device)
        prompt = source.prompt(params)
        gated = None
        if refiner is not None:
            folder = Path(refiner)
            gated = GatedRefiner(load_refiner(folder, where), read_gate(folder), CROP_BATCH)
        return cls(load_teacher(source.folder, where), source.size, prompt, gated)

    @torch.inference_mode()
    def set_image(self, image: Picture) -> None:
        """Encodes an image, for calls of `predict`.

        Raises:
            DataError: it can't be read.
            TypeError, ValueError: an array of another type or shape.
        """
        batch = stack([0], [prepare(pixels_of(image), self._size)])
        (self._context,) = self._proposer.encode(batch)

    @torch.inference_mode()
    def predict(
        self,
        points_xy: ArrayLike,
        classes: str | int | Sequence[str | int],
        further: Sequence[Sequence[tuple[float, float, bool]]] | None = None,
    ) -> Instances:
        """One instance for each click, in their order; a mask may be empty. Give all clicks of an image at once: masks
        of a class exclude each other.

        Args:
            points_xy: [K, 2], pixels of the image as shown, (0, 0) its outer top-left corner.
            classes: the name or id of each click's class, or of all.
            further: of each object any number of further clicks: x, y, and whether the place is on the object.

        Raises:
            RuntimeError: no image was set.
            ValueError: a click outside the image or of an unknown class, or other numbers of classes, or of lists of
                further clicks, than of clicks.
        """
        if self._context is None:
            raise RuntimeError("predict: no image is set; call set_image first")
        height, width = self._context.original.shape[1:]
        points = np.asarray(points_xy, np.float32).reshape(-1, 2)
        others = [[{"x": x, "y": y, "inside": inside} for x, y, inside in one] for one in further or []]
        if further is not None and len(others) != len(points):
            raise ValueError(f"further: found {len(others)} lists, expected {len(points)} as points_xy has")
        more = [[one["x"], one["y"]] for clicks in others for one in clicks]
        all_points = np.concatenate([points, np.asarray(more, np.float32).reshape(-1, 2)])
        outside = ~((all_points >= 0) & (all_points <= [width, height])).all(1)
        if outside.any():
            listed = ", ".join(f"({x:g}, {y:g})" for x, y in all_points[outside][:5].tolist())
            raise ValueError(
                f"clicks: found {int(outside.sum())} outside of the image's {width} x {height} pixels: {listed}"
            )
        given = [classes] * len(points) if isinstance(classes, str | int) else list(classes)
        if len(given) != len(points):
            raise ValueError(f"classes: found {len(given)}, expected one, or {len(points)} as points_xy has")
        labels = torch.tensor([self._label(one) for one in given], dtype=torch.long, device=self._device)
        xy = torch.from_numpy(points).to(self._device)
        drawn = draw(
            self._proposer, self._context, xy, labels, self._prompt,
            further=further_clicks(others, self._device) if others else None,
        )  # fmt: skip
        masks = drawn.rough.masks
        if self._refiner is not None:
            masks = self._refiner.refine(self._context, drawn, xy, labels, self._prompt).final
        return as_instances(masks, drawn.best.score, labels, self.names)

    def _label(self, one: str | int) -> int:
        """The contiguous class."""
        for n, (number, name) in enumerate(self.names.items()):
            if one in (number, name):
                return n
        known = ", ".join(f"{number} {name}" for number, name in self.names.items())
        raise ValueError(f"classes: found {one!r:.100}, expected one of {known:.500}")
