"""Weak images of the report: their clicks and pseudo masks, and their ranking from the best to the worst."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from data.tables import POINTS, PSEUDO, Split, read_parquet
from tasks.reporting.figures import count, figure
from tasks.reporting.gallery import LONGEST_SIDE, Dot, Panel, Shape, hex_colour, spread
from tasks.reporting.rows import Canvas, Gallery, Records, Row, by_image, evenly, instances
from tasks.scoring.pseudo_quality import QUALITY


class WeakImage(NamedTuple):
    """A weak image with clicks."""

    image_id: int
    clicks: int
    masks: int
    """clicks that have one"""
    score: float
    """mean of its masks; a click without a mask counts 0"""
    lowest: float
    """score of a click"""
    iou: float | None
    """mean of the refined masks with the true ones, in percent, where those were kept aside"""


class WeakImages:
    """The weak images with their pseudo masks, read from a workspace up to stage `evaluate`.

    Attributes:
        split: `weak`.
        pseudo: table PSEUDO of all their clicks.
        images: those with clicks, the lowest mean score first; ties by image id.
        measured: whether true masks were kept aside.
    """

    def __init__(self, workspace: Path) -> None:
        self.split = Split.open(workspace / "dataset" / "weak")
        self._kept_aside = Split.open(workspace / "dataset" / "kept_aside")
        self.pseudo = pa.concat_tables(
            [read_parquet(path, PSEUDO) for path in sorted((workspace / "pseudo").glob("part-*.parquet"))]
            or [PSEUDO.empty_table()]
        )
        self._quality = read_parquet(workspace / "evaluation" / "pseudo_quality.parquet", QUALITY)
        self._points = read_parquet(workspace / "points" / "points.parquet", POINTS)
        self.measured = self._quality.num_rows > 0
        self.images = sorted(self._summaries(), key=lambda one: (one.score, one.image_id))

    def _summaries(self) -> list[WeakImage]:
        iou = _means(self._quality.select(["image_id", "refined_iou"]), "refined_iou")
        ids, first = np.unique(self.pseudo["image_id"].to_numpy(), return_inverse=True)
        scores = self.pseudo["score"].fill_null(0.0).to_numpy().astype(np.float64)
        drawn = self.pseudo["rough_rle"].is_valid().to_numpy(zero_copy_only=False)
        counts = np.bincount(first, minlength=len(ids))
        means = np.bincount(first, scores, minlength=len(ids)) / np.maximum(counts, 1)
        lowest = np.full(len(ids), np.inf)
        np.minimum.at(lowest, first, scores)
        columns = (ids, counts, np.bincount(first, drawn, minlength=len(ids)).astype(int), means, lowest)
        return [
            WeakImage(image_id, clicks, masks, round(mean, 6), round(low, 6), iou.get(image_id))
            for image_id, clicks, masks, mean, low in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def rows(self, images: list[WeakImage], longest: int = LONGEST_SIDE) -> list[Row]:
        """Rows of a gallery, with a panel for each step from click to mask."""
        content = self._content(images)
        return [self._row(one, *content[one.image_id], longest) for one in images]

    def _content(
        self, images: list[WeakImage]
    ) -> dict[int, tuple[Records, Mapping[str, Any], Mapping[str, Any]]]:
        """Pseudo masks of each image, and by point id its point and its quality."""
        ids = [one.image_id for one in images]
        pseudo, points, quality = (by_image(t, ids) for t in (self.pseudo, self._points, self._quality))

        def by_point(records: Records) -> dict[str, Any]:
            return {row["point_id"]: row for row in records}

        return {id: (pseudo[id], by_point(points[id]), by_point(quality[id])) for id in ids}

    def _row(
        self,
        image: WeakImage,
        pseudo: Records,
        points: Mapping[str, Any],
        quality: Mapping[str, Any],
        longest: int,
    ) -> Row:
        canvas = Canvas(self.split, image.image_id, longest)
        clicks, rough, refined, missing = _shapes(canvas, pseudo, points, quality)
        panels = [
            Panel("clicks", [], [*clicks, *_further(pseudo, points)]),
            Panel("rough", rough, missing),
            Panel("refined", refined, missing),
        ]
        facts = facts_of(image)
        if image.iou is not None:
            before = 100 * float(np.mean([row["rough_iou"] for row in quality.values()]))
            facts.append(f"mean IoU {figure(before)} rough, {figure(image.iou)} refined")
            panels.append(Panel("true masks", self._true(canvas, pseudo, quality), []))
        return canvas.row("", facts, panels, "weak")

    def _true(self, canvas: Canvas, pseudo: Records, quality: Mapping[str, Any]) -> list[Shape]:
        """True masks in the colours of their clicks; further ones have colours of their own."""
        clicked = {
            quality[row["point_id"]]["instance_id"]: n
            for n, row in enumerate(pseudo)
            if row["point_id"] in quality
        }
        rows = instances(self._kept_aside, canvas.facts["image_id"])
        numbers = [clicked.get(row["instance_id"], len(pseudo) + n) for n, row in enumerate(rows)]
        return [
            canvas.shape(row["rle_counts"], row["category_id"], hex_colour(n))
            for row, n in zip(rows, numbers, strict=True)
        ]

    def page_rows(self, images: list[WeakImage], longest: int) -> list[Row]:
        """Rows of a page: the masks that training gets, with their clicks."""
        rows = []
        content = self._content(images)
        for one in images:
            canvas, (pseudo, points, quality) = (
                Canvas(self.split, one.image_id, longest),
                content[one.image_id],
            )
            clicks, _, refined, missing = _shapes(canvas, pseudo, points, quality)
            with_mask = [dot for dot, row in zip(clicks, pseudo, strict=True) if row["rough_rle"] is not None]
            facts = [f"id {one.image_id}", *facts_of(one), f"score {one.score:.2f}"]
            facts += [] if one.iou is None else [f"IoU {figure(one.iou)}"]
            rows.append(canvas.row("", facts, [Panel("masks", refined, [*with_mask, *missing])], "weak"))
        return rows


def facts_of(image: WeakImage) -> list[str]:
    """Its clicks, in words."""
    lost = image.clicks - image.masks
    return [count(image.clicks, "click")] + ([f"{lost:,} without a mask"] if lost else [])


def pseudo_gallery(weak: WeakImages, shown: int, longest: int = LONGEST_SIDE) -> Gallery:
    """Weak images at even distances in a ranking from the best pseudo masks to the worst.

    Images are ranked by the mean IoU of their refined masks with the true ones or, if no masks were kept aside, by the
    mean score of their masks; ties by image id.
    """
    if weak.measured:
        ranking = [one for one in weak.images if one.iou is not None]
        ranking.sort(key=lambda one: (-(one.iou or 0.0), one.image_id))
        rule = "images are ranked by the mean IoU of their refined masks with the true ones"
    else:
        ranking = sorted(weak.images, key=lambda one: (-one.score, one.image_id))
        rule = "no true masks were kept aside, so images are ranked by the mean score of their masks"
    rule += f"; shown are {evenly(len(ranking), shown)}, from the best to the worst"
    chosen = spread(len(ranking), shown)
    rows = []
    for rank, row in zip(chosen, weak.rows([ranking[i] for i in chosen], longest), strict=True):
        place = f"rank {rank + 1:,} of {len(ranking):,}"
        place = {0: f"best, {place}", len(ranking) - 1: f"worst, {place}"}.get(rank, place)
        rows.append(row._replace(rank=place))
    return Gallery(rows, rule)


def _shapes(
    canvas: Canvas, pseudo: Records, points: Mapping[str, Any], quality: Mapping[str, Any]
) -> tuple[list[Dot], list[Shape], list[Shape], list[Dot]]:
    """Clicks, rough masks, refined masks, and clicks without a mask, in a colour for each click."""
    clicks, rough, refined, missing = [], [], [], []
    for n, row in enumerate(pseudo):
        colour, category = hex_colour(n), row["category_id"]
        point, measured = points[row["point_id"]], quality.get(row["point_id"])
        name, x, y = canvas.names[category], point["x"], point["y"]
        clicks.append(Dot(x, y, colour, f"{name}: click at {x:.1f}, {y:.1f}"))
        if row["rough_rle"] is None:
            missing.append(Dot(x, y, colour, f"{name}: no mask ({row['reason']})", missing=True))
            continue
        iou = {
            kind: f", IoU {measured[f'{kind}_iou']:.2f}" if measured else "" for kind in ("rough", "refined")
        }
        score = f", score {row['score']:.2f}"
        rough.append(canvas.shape(row["rough_rle"], category, colour, f": rough{score}{iou['rough']}"))
        final = row["refined_rle"] if row["refined_rle"] is not None else row["rough_rle"]
        kept = "" if row["refined_rle"] is not None else " (the rough mask stays)"
        note = f": refined{score}{iou['refined']}{kept}"
        refined.append(canvas.shape(final, category, colour, note))
    return clicks, rough, refined, missing


def _further(pseudo: Records, points: Mapping[str, Any]) -> list[Dot]:
    """The further clicks of objects, in the colours of their first ones; those outside of it without a fill."""
    return [
        Dot(click["x"], click["y"], hex_colour(n), f"{side}the object", missing=not click["inside"])
        for n, row in enumerate(pseudo)
        for click in points[row["point_id"]]["further"] or ()
        for side in ["inside " if click["inside"] else "outside "]
    ]


def _means(table: pa.Table, column: str) -> dict[int, float]:
    """Mean of a column by image, in percent."""
    means = table.group_by("image_id").aggregate([(column, "mean")])
    pairs = zip(means["image_id"].to_pylist(), means[f"{column}_mean"].to_pylist(), strict=True)
    return {image_id: round(100 * mean, 3) for image_id, mean in pairs}
