"""The student's labels on weak images: pseudo masks, masks of reviewers, and regions to ignore."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.masks.rle import BoolArray, IntArray, area, bbox_xywh, decode, encode
from data.tables import DECISIONS, INSTANCES, POINT_COLUMNS, Split, concat_instances, write_split
from tasks.common.config import StudentConfig
from tasks.common.errors import TaskError

_BATCH = 10_000


def with_pseudo_masks(
    weak: Split,
    strong: Split,
    points: pa.Table,
    pseudo: pa.Table,
    config: StudentConfig,
    folder: Path,
    decisions: pa.Table | None = None,
) -> Split:
    """Writes a split to `folder`: the weak images with usable pseudo masks, and these as their instances.

    With `masks: refined` the refined mask is used if there is one, else the rough one. Weak images without a usable
    mask are left out: the student would learn them as background.

    Masks that reviewers accepted or drew (`decisions`, table DECISIONS) take the place of pseudo masks. They have no
    score, as an annotator's. A rejected object is a region to ignore, whatever `unusable` is; on an image that is
    complete it is background. A complete image is used even if it has no mask.

    A point without a usable mask, on an image that has others, still shows that an object is there. With `unusable:
    ignore` its surroundings become a crowd, which is trained neither as object nor as background: its rough mask, if
    any, and a disc around the point with the area of the class's median mask on the strong images.

    Raises:
        TaskError: pseudo labels of points that aren't in `points`.
    """
    codes, good = _masks_of(pseudo, config)
    review = _Review.of(DECISIONS.empty_table() if decisions is None else decisions)
    is_rejected = pc.is_in(pseudo["point_id"], review.rejected)
    decided = pc.or_(is_rejected, pc.is_in(pseudo["point_id"], review.drawn["object_id"]))
    good = pc.and_(good, pc.invert(decided))
    usable = pseudo.select(["point_id", "image_id", "category_id", "score"]).filter(good)
    rles = codes.filter(good)
    scores = (
        usable["score"]
        if config.weight_by_score != "none"
        else pa.chunked_array([np.ones(len(rles), np.float32)])
    )
    parts = [_rows(weak, usable, rles, scores, crowd=False)]
    if len(review.drawn):
        drawn, none = review.drawn, pa.nulls(len(review.drawn), pa.float32())
        parts.append(_rows(weak, drawn, drawn["rle_counts"], none, crowd=False, source="review"))
    held = pa.concat_arrays(
        [
            pc.unique(column).cast(pa.int64())
            for column in (usable["image_id"], review.drawn["image_id"], review.complete)
        ]
    )
    ignored = pc.and_(is_rejected, pc.invert(pc.is_in(pseudo["image_id"], review.complete)))
    if config.unusable == "ignore":
        ignored = pc.or_(ignored, pc.invert(pc.or_(good, decided)))
    if config.unusable == "ignore" or pc.any(ignored).as_py():
        rest = pc.and_(pc.is_in(pseudo["image_id"], held), ignored)
        lost = pseudo.select(["point_id", "image_id", "category_id", "rough_rle"]).filter(rest)
        regions = pa.chunked_array([_regions(weak, strong, points, lost)], pa.binary())
        parts.append(_rows(weak, lost, regions, pa.nulls(len(lost), pa.float32()), crowd=True))
    if config.classes_from == "click":
        parts = [_clicked(parts[0], usable, points), *parts[1:]]
        instances = concat_instances(parts)
    else:
        instances = pa.concat_tables(parts)
    numbers = pa.array(np.arange(len(instances)))
    instances = instances.set_column(INSTANCES.get_field_index("instance_id"), "instance_id", numbers)
    images = weak.images.filter(pc.is_in(weak.images["image_id"], held))
    write_split(folder, images, instances, weak.categories, weak.image_root)
    return Split.open(folder)


class _Review(NamedTuple):
    """What reviewers decided about masks and images.

    Attributes:
        drawn: DECISIONS rows of objects with a mask that was accepted or drawn.
        rejected: ids of objects.
        complete: ids of images that have all their objects.
    """

    drawn: pa.Table
    rejected: pa.ChunkedArray
    complete: pa.ChunkedArray

    @classmethod
    def of(cls, decisions: pa.Table) -> _Review:
        honoured = decisions.filter(pc.equal(decisions["state"], "honoured"))

        def of_action(action: str, column: str) -> pa.ChunkedArray:
            return honoured.filter(pc.equal(honoured["action"], action))[column]

        drawn = honoured.filter(pc.is_valid(honoured["rle_counts"]))
        return cls(drawn, of_action("reject", "object_id"), of_action("complete", "image_id"))


def _masks_of(pseudo: pa.Table, config: StudentConfig) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """The mask of each pseudo label, null where it has none, and whether it is usable."""
    codes = pseudo["rough_rle"]
    if config.masks == "refined":
        refined = pseudo["refined_rle"]
        codes = pc.if_else(pc.fill_null(pc.greater(pc.binary_length(refined), 0), False), refined, codes)
    scored = pc.greater_equal(pseudo["score"], pa.scalar(config.min_score, pa.float64()))
    good = pc.and_(pc.is_in(pseudo["status"], pa.array(["ok", "rough"])), pc.fill_null(scored, False))
    return codes, pc.and_(good, codes.is_valid())


def _rows(
    weak: Split, labels: pa.Table, rles: pa.ChunkedArray, scores: Any, *, crowd: bool, source: str = "pseudo"
) -> pa.Table:
    """INSTANCES rows of labels with these masks; instance_id is 0."""
    sizes = _sizes(weak, labels["image_id"])
    boxes, areas = np.zeros((len(rles), 4), np.float32), np.zeros(len(rles), np.float32)
    for at in range(0, len(rles), _BATCH):  # RLEs as Python objects take much memory
        for n, rle in enumerate(rles.slice(at, _BATCH).to_pylist(), start=at):
            height, width = sizes[n].tolist()
            boxes[n], areas[n] = bbox_xywh(rle, height, width), area(rle, height, width)
    return pa.table(
        {
            "instance_id": np.zeros(len(rles), np.int64),
            "image_id": labels["image_id"],
            "category_id": labels["category_id"],
            "bbox_xywh": pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4),
            "area": areas,
            "iscrowd": np.full(len(rles), crowd),
            "rle_counts": rles,
            "source": pa.array([source] * len(rles), pa.string()),
            "score": scores,
        },
        schema=INSTANCES,
    )


def _clicked(rows: pa.Table, labels: pa.Table, points: pa.Table) -> pa.Table:
    """INSTANCES rows with the clicks of their pseudo labels."""
    at = pc.index_in(labels["point_id"], points["point_id"])
    if at.null_count:
        raise _unknown_points(labels["point_id"].filter(at.is_null()).to_pylist())
    for name, column in zip(POINT_COLUMNS, ("x", "y"), strict=True):
        rows = rows.append_column(name, points[column].take(at))
    return rows


def _sizes(weak: Split, image_ids: pa.ChunkedArray) -> IntArray:
    """(height, width) of each image, int64 [n, 2]; `write_split` refuses images that aren't in the split."""
    known = weak.images["image_id"].to_numpy()
    at = np.minimum(np.searchsorted(known, image_ids.to_numpy()), len(known) - 1)
    sides = [weak.images[name].to_numpy().astype(np.int64)[at] for name in ("height", "width")]
    return np.stack(sides, axis=1)


def _regions(weak: Split, strong: Split, points: pa.Table, lost: pa.Table) -> list[bytes]:
    """RLEs of the surroundings of points without a usable mask."""
    rows = lost.to_pylist()
    sizes = _sizes(weak, lost["image_id"])
    places = _places(points, rows)
    radii = _radii(strong)
    typical = float(np.median(list(radii.values()))) if radii else 0.0
    regions = []
    for row, (height, width) in zip(rows, sizes.tolist(), strict=True):
        region = disc(places[row["point_id"]], radii.get(row["category_id"], typical), height, width)
        if row["rough_rle"] is not None:
            region |= decode(row["rough_rle"], height, width)
        regions.append(encode(region))
    return regions


def disc(centre: tuple[float, float], radius: float, height: int, width: int) -> BoolArray:
    """Bool [height, width]: pixels whose centre is at most `radius` pixels from `centre` (x, y), and the centre's own
    pixel; a centre outside the image is moved to its edge."""
    x, y = min(max(centre[0], 0.0), width), min(max(centre[1], 0.0), height)
    rows, columns = np.ogrid[:height, :width]
    held: BoolArray = (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2
    held[min(int(y), height - 1), min(int(x), width - 1)] = True
    return held


def _places(points: pa.Table, rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """x, y of the points of pseudo labels, by point id."""
    ids = pa.array([row["point_id"] for row in rows], points.schema.field("point_id").type)
    named = points.select(["point_id", "x", "y"]).filter(pc.is_in(points["point_id"], ids)).to_pylist()
    places = {point["point_id"]: (point["x"], point["y"]) for point in named}
    unknown = sorted({str(row["point_id"]) for row in rows} - places.keys())
    if unknown:
        raise _unknown_points(unknown)
    return places


def _unknown_points(ids: list[str]) -> TaskError:
    return TaskError(
        f"pseudo labels of {len(ids)} points that points.parquet doesn't have ({', '.join(ids[:5])}"
        f"{', ...' * (len(ids) > 5)}); run `dvc repro pseudo_label`"
    )


def _radii(strong: Split) -> dict[int, float]:
    """For each class the radius, in pixels, of a disc with the area of its median mask; crowds don't count."""
    instances = strong.instances
    pixels = instances["area"].to_numpy()
    counts = ~instances["iscrowd"].to_numpy() & (pixels > 0)
    pixels, classes = pixels[counts].astype(np.float64), instances["category_id"].to_numpy()[counts]
    return {
        category: math.sqrt(float(np.median(pixels[classes == category])) / math.pi)
        for category in np.unique(classes).tolist()
    }
