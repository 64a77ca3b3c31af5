"""A small Scalabel data set as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from data.masks import rle

HEIGHT, WIDTH = 8, 9
SIZE = {"width": WIDTH, "height": HEIGHT}
SQUARE = [[1.0, 1.0], [5.0, 1.0], [5.0, 5.0], [1.0, 5.0]]
CORNER = [[6.0, 5.0], [9.0, 5.0], [9.0, 8.0], [6.0, 8.0]]
HOLE = np.zeros((HEIGHT, WIDTH), dtype=bool)
HOLE[1:7, 1:7] = True
HOLE[3:5, 3:5] = False
RLE = {"counts": rle.encode(HOLE).decode(), "size": [HEIGHT, WIDTH]}


def poly(*parts: list[list[float]]) -> list[dict[str, Any]]:
    """A poly2d of straight edges."""
    return [{"vertices": part, "types": "L" * len(part), "closed": True} for part in parts]


def label(**change: Any) -> dict[str, Any]:
    """A car of two parts."""
    return {"id": "a", "category": "car", "poly2d": poly(SQUARE, CORNER)} | change


def frames() -> list[dict[str, Any]]:
    """Two frames of BDD100K's classes, one without labels."""
    attributes = {"crowd": True, "Occluded": True, "truncated": False, "ignored": False}
    labels = [
        label(),
        label(id="b", category="person", poly2d=None, rle=RLE, attributes=attributes),
        label(id="c", category="trailer", poly2d=None, box2d={"x1": 2, "y1": 1, "x2": 4, "y2": 3}),
    ]
    return [
        {"name": "b.jpg", "size": SIZE, "labels": labels},
        {"name": "a.jpg", "size": SIZE, "labels": None},
    ]


def written(path: Path, value: Any) -> Path:
    """`value` as JSON, or text as it is, at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path
