"""Scalabel's outlines (poly2d), of straight edges and cubic Bezier curves, as COCO polygons (`data.masks.polygons`).

``types`` has a letter a vertex: "L" is a point of the outline, "C" a control point. A curve has two control points
between its ends. An outline that ends with two control points is closed by a curve to its first point (BDD100K has
both).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

TOLERANCE = 0.1  # pixels; a polygon this close to the curve covers the same pixels except for a few
MAX_SEGMENTS = 256  # of one curve
MAX_POINTS = 1_000_000  # of one flattened outline; a real one has a few hundred
_TYPES = re.compile(r"L(?:L|CCL)*(?:CC)?")


def polygons(poly2d: Any, height: int, width: int) -> list[list[float]]:
    """A label's ``poly2d`` as COCO polygon parts, flat lists x0, y0, x1, y1, ...

    Args:
        poly2d: a list of closed outlines {vertices, types, closed}, or one outline as BDD100K wrote it in 2018,
            a list of [x, y, type].
        height: of the image, pixels.
        width: of the image, pixels.

    Raises:
        ValueError: what is wrong with it. Sizes are checked before anything is allocated.
    """
    if not isinstance(poly2d, list) or not poly2d:
        raise ValueError("no outline in poly2d")
    if isinstance(poly2d[0], list):
        poly2d = [_of_triples(poly2d)]
    return [_outline(part, n, height, width) for n, part in enumerate(poly2d)]


def _of_triples(rows: list[Any]) -> dict[str, Any]:
    if not all(isinstance(row, list) and len(row) == 3 and row[2] in ("L", "C") for row in rows):
        raise ValueError("poly2d with a vertex that is not [x, y, 'L' or 'C']")
    return {"vertices": [row[:2] for row in rows], "types": "".join(row[2] for row in rows), "closed": True}


def _outline(part: Any, n: int, height: int, width: int) -> list[float]:
    if not isinstance(part, dict) or not isinstance(part.get("vertices"), list):
        raise ValueError(f"outline {n} without a list of vertices")
    if part.get("closed") is not None and part["closed"] is not True:
        raise ValueError(f"outline {n} with closed {part['closed']!r}: a line, which holds no area")
    points = _points(part["vertices"], n, height, width)
    types = "L" * len(points) if part.get("types") is None else part["types"]
    if not isinstance(types, str) or len(types) != len(points):
        given = f"{len(types)} types" if isinstance(types, str) else f"types {types!r}"[:80]
        raise ValueError(f"outline {n} with {len(points)} vertices and {given}")
    if not _TYPES.fullmatch(types):
        raise ValueError(
            f"outline {n} with types {types[:80]!r}, not points L and pairs of control points C between them"
        )
    if len(points) < 3:
        raise ValueError(f"outline {n} with {len(points)} vertices, not 3 or more")
    flat: list[float] = flatten(points, types).ravel().tolist()
    return flat


def _points(vertices: list[Any], n: int, height: int, width: int) -> npt.NDArray[np.float64]:
    """float64 [K, 2], the vertices x, y; not far outside of the image."""
    try:
        points = np.asarray(vertices)
    except (OverflowError, ValueError):  # such as lists of different lengths
        points = np.asarray(None)
    if points.shape != (len(vertices), 2) or points.dtype.kind not in "iuf" or not np.isfinite(points).all():
        raise ValueError(f"outline {n} with a vertex that is not two finite numbers x, y")
    if np.abs(points).max(initial=0) > 3 * max(height, width):
        raise ValueError(f"outline {n} with a vertex far outside the {width} x {height} image")
    return points.astype(np.float64)


def flatten(points: npt.NDArray[np.float64], types: str) -> npt.NDArray[np.float64]:
    """float64 [P, 2]: the outline's points x, y; each curve is replaced by edges at most `TOLERANCE` from it.

    Args:
        points: float64 [K, 2], points and control points.
        types: K letters, "L" or "C", as in a valid outline.

    Raises:
        ValueError: more than `MAX_POINTS` points.
    """
    if "C" not in types:
        return points
    starts = [match.start() - 1 for match in re.finditer("CC", types)]
    ends = [(start + 3) % len(points) for start in starts]
    begin, first, second, end = (
        points[[start + step for start in starts]] if step < 3 else points[ends] for step in range(4)
    )
    # A chord of 1/n of a curve is at most max|B''| / (8 n^2) from it, and |B''| <= 6 max of these two.
    bend = np.maximum(np.linalg.norm(begin - 2 * first + second, axis=1),
                      np.linalg.norm(first - 2 * second + end, axis=1))  # fmt: skip
    segments = np.clip(np.ceil(np.sqrt(6 * bend / (8 * TOLERANCE))), 1, MAX_SEGMENTS).astype(np.int64)
    total = len(points) + int(segments.sum())
    if total > MAX_POINTS:
        raise ValueError(f"curves of {total} points when drawn, more than {MAX_POINTS}")
    pieces, at = [], 0
    for k, start in enumerate(starts):
        # Without the ends, which are points of the outline.
        t = (np.arange(1, segments[k]) / segments[k])[:, None]
        u = 1 - t
        curve = u**3 * begin[k] + 3 * u**2 * t * first[k] + 3 * u * t**2 * second[k] + t**3 * end[k]
        pieces += [points[at : start + 1], curve]
        at = start + 3
    return np.concatenate([*pieces, points[at:]])
