"""Outlines of masks as polygons along the edges of their pixels."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

FINE = 4
"""Small masks are traced on a map this much finer, so that outlines follow the pixels' edges rather than centres."""
FINE_UP_TO = 256
"""Pixels of the longer side of a small mask."""


def outlines(mask: npt.NDArray[np.bool_], tolerance: float) -> list[npt.NDArray[np.float64]]:
    """The rings around a mask bool [H, W] and around its holes, each float64 [corners, 2] x, y; none if it is empty.

    Args:
        mask: its pixels.
        tolerance: by how many pixels corners that are left out may deviate.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.uint8)
    fine = FINE if max(part.shape) <= FINE_UP_TO else 1
    part = np.kron(part, np.ones((fine, fine), dtype=np.uint8))
    contours, _ = cv2.findContours(np.pad(part, 1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = []
    for contour in contours:
        corners = cv2.approxPolyDP(contour, tolerance * fine, closed=True)[:, 0, :]
        if len(corners) < 3:
            corners = contour[:, 0, :]
        # Contours run through the centres of border pixels of the padded map.
        rings.append((corners - 0.5) / fine + (left, top))
    return rings
