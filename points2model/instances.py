"""Instances on an image: what a model finds, or draws at clicks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.annotations.coco.file import result
from data.masks import rle

if TYPE_CHECKING:
    from PIL.Image import Image

Rows = int | slice | Sequence[int] | NDArray[np.bool_] | NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Instances:
    """N instances on an image of H x W pixels, of the image as shown, (0, 0) its outer top-left corner.

    Attributes:
        masks: bool [N, H, W].
        boxes_xyxy: float32 [N, 4], the outer edges of each mask's pixels; zeros for an empty mask.
        scores: float32 [N], 0..1.
        class_ids: int64 [N], as in the annotations that the model learnt from.
        names: of the classes, N.
    """

    masks: NDArray[np.bool_]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    names: NDArray[np.str_]

    def __len__(self) -> int:
        """N."""
        return len(self.scores)

    def __getitem__(self, rows: Rows) -> Instances:
        """Some of them, by numbers, a slice or a bool [N]; a single number gives one instance.

        Raises:
            IndexError: there is no such instance.
        """
        everything = np.arange(len(self))
        if isinstance(rows, slice):
            chosen = everything[rows]
        else:
            wanted = np.atleast_1d(np.asarray(rows))
            chosen = everything[wanted if wanted.size else wanted.astype(np.int64)]
        return Instances(**{one.name: getattr(self, one.name)[chosen] for one in fields(self)})

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.masks.shape[1], self.masks.shape[2]

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """COCO results: image_id, category_id, score, bbox XYWH, segmentation as compressed RLE; instances with an
        empty mask are left out."""
        height, width = self.image_size
        like = {"image_id": image_id, "height": height, "width": width}
        codes = rle.encode_many(self.masks)
        return [
            result({**like, "category_id": category_id, "score": score, "rle_counts": counts})
            for category_id, score, counts in zip(self.class_ids, self.scores, codes, strict=True)
            if rle.area(counts, height, width) > 0
        ]

    def to_supervision(self) -> Any:
        """As `supervision.Detections`, with the names in `data["class_name"]`.

        Raises:
            ImportError: the package supervision isn't installed.
        """
        try:
            from supervision import Detections
        except ImportError:
            raise ImportError(
                "to_supervision: found no package supervision; `pip install supervision`"
            ) from None
        return Detections(
            xyxy=self.boxes_xyxy, mask=self.masks, confidence=self.scores, class_id=self.class_ids,
            data={"class_name": self.names},
        )  # fmt: skip

    def plot(self, image: Any) -> Image:
        """The image with the instances over it, each in a colour of its own with class and score, its longest side 640
        to 1,600 pixels.

        Args:
            image: the one that they are on; as for `Predictor`.

        Raises:
            DataError: it can't be read.
            ValueError: it is of another size.
        """
        from points2model.images import pixels_of
        from tasks.tools.pictures import draw

        pixels = pixels_of(image)
        if pixels.shape[:2] != self.image_size:
            raise ValueError(
                f"image: found {pixels.shape[0]} x {pixels.shape[1]} pixels (H x W), expected "
                f"{self.image_size[0]} x {self.image_size[1]}, of the image with these instances"
            )
        names = dict(zip(self.class_ids.tolist(), self.names.tolist(), strict=True))
        return draw(pixels, self.to_coco(0), names)
