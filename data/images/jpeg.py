"""Pictures as JPEG, for pages."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def to_jpeg(image: NDArray[np.uint8], longest: int, quality: int) -> bytes:
    """The JPEG of an image uint8 RGB [H, W, 3], made smaller to at most `longest` pixels a side.

    Raises:
        ValueError: it can't be encoded, as without pixels.
    """
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    done, code = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise ValueError(f"an image of shape {image.shape} can't be encoded as JPEG")
    return code.tobytes()
