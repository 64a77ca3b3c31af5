"""IoU of each point's pseudo mask with the true mask, if true masks of weak images were kept aside.

The true mask of a point is the smallest kept-aside mask of its class and image that contains it: where objects overlap,
a click usually means the one in front. A point on no such mask is `unmatched`. Unmatched points and points without a
pseudo mask count with IoU 0, so that every point is in the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.masks import rle as masks
from data.tables import Split
from tasks.scoring.metrics import KINDS, PSEUDO_METRICS, SIZES

QUALITY = pa.schema(
    [
        ("point_id", pa.string()),
        ("image_id", pa.int64()),
        ("category_id", pa.int64()),
        ("category", pa.string()),
        ("status", pa.string()),  # as in the pseudo labels: "ok", "rough", "empty", "failed"
        ("instance_id", pa.int64()),  # the kept-aside mask that it is compared with; null if unmatched
        ("true_area", pa.float32()),  # pixels of that mask
        ("size", pa.string()),  # "small", "medium", "large" by true_area
        ("rough_iou", pa.float32()),  # 0 without a mask or a match
        # of the mask that training gets, which is the rough one if refinement left nothing
        ("refined_iou", pa.float32()),
    ]
)


def point_quality(
    pseudo: pa.Table, points: pa.Table, truth: Split, size_bounds: tuple[float, float]
) -> pa.Table:
    """Table QUALITY: a row for each pseudo label whose image is in `truth`, in the order of `pseudo`.

    Args:
        pseudo: PSEUDO rows; masks are compressed RLE of the original image.
        points: POINTS rows; x, y in pixels, (0, 0) the outer corner of the top-left pixel.
        truth: the kept-aside split; crowds in it match no point.
        size_bounds: sides in pixels between small and medium, and between medium and large masks.
    """
    where = {
        point_id: (x, y)
        for point_id, x, y in zip(*(points[name].to_pylist() for name in ("point_id", "x", "y")), strict=True)
    }
    names = {category.id: category.name for category in truth.categories}
    image_ids = pseudo["image_id"].to_numpy()
    order = np.argsort(image_ids, kind="stable")
    by_image = np.split(order, np.flatnonzero(np.diff(image_ids[order])) + 1) if len(order) else []
    index_of = {image_id: i for i, image_id in enumerate(truth.images["image_id"].to_pylist())}
    columns: dict[str, list[Any]] = {name: [] for name in QUALITY.names}
    measured: list[int] = []
    for rows in by_image:
        image = index_of.get(int(image_ids[rows[0]]))
        if image is None:
            continue
        table = pseudo.take(pa.array(rows))
        xy = [where[point_id] for point_id in table["point_id"].to_pylist()]
        for record in _image_quality(table.to_pylist(), xy, truth, image, names, size_bounds):
            for name, value in record.items():
                columns[name].append(value)
        measured.extend(rows.tolist())
    found = pa.table(columns, schema=QUALITY)
    return found.take(pa.array(np.argsort(measured, kind="stable"), pa.int64()))


def _image_quality(
    pseudo: list[dict[str, Any]],
    xy: list[tuple[float, float]],
    truth: Split,
    image: int,
    names: dict[int, str],
    size_bounds: tuple[float, float],
) -> list[dict[str, Any]]:
    """Records of QUALITY for the points of one image, in the order given."""
    row = truth.image(image)
    height, width = row["height"], row["width"]
    true = [instance for instance in truth.instances_of(image).to_pylist() if not instance["iscrowd"]]
    true_rles = [instance["rle_counts"] for instance in true]
    # The areas of the masks: `area` in a data set may be that of the polygon.
    areas = np.array([masks.area(rle, height, width) for rle in true_rles])
    same_class = np.array([[t["category_id"] == p["category_id"] for t in true] for p in pseudo], dtype=bool)
    inside = _contains(true_rles, xy, height, width) & same_class.reshape(len(pseudo), len(true))

    rough = [p["rough_rle"] for p in pseudo]
    refined = [p["refined_rle"] if p["refined_rle"] is not None else p["rough_rle"] for p in pseudo]
    rough_iou = _iou(rough, true_rles, height, width)
    refined_iou = _iou(refined, true_rles, height, width)
    records = []
    for k, point in enumerate(pseudo):
        candidates = np.flatnonzero(inside[k])
        match = int(candidates[np.argmin(areas[candidates])]) if candidates.size else None
        records.append(
            {
                "point_id": point["point_id"],
                "image_id": point["image_id"],
                "category_id": point["category_id"],
                "category": names.get(point["category_id"], str(point["category_id"])),
                "status": point["status"],
                "instance_id": None if match is None else true[match]["instance_id"],
                "true_area": None if match is None else float(areas[match]),
                "size": None if match is None else size_group(float(areas[match]), size_bounds),
                "rough_iou": 0.0 if match is None else float(rough_iou[k, match]),
                "refined_iou": 0.0 if match is None else float(refined_iou[k, match]),
            }
        )
    return records


def size_group(area: float, size_bounds: tuple[float, float]) -> str:
    """The one of SIZES that an area in pixels belongs to."""
    return SIZES[sum(area >= side**2 for side in size_bounds)]


def _contains(rles: list[bytes], xy: list[tuple[float, float]], height: int, width: int) -> NDArray[np.bool_]:
    """[K points, M masks]: whether the point's pixel is in the mask.

    Each point becomes a one-pixel mask, since pycocotools intersects run-length codes without decoding them.
    """
    pixels = []
    for x, y in xy:
        column, row = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
        before = column * height + row
        pixels.append(masks.from_runs([before, 1, height * width - before - 1], height, width))
    share = masks.iou_matrix(pixels, rles, height, width, crowd=True)  # of the one pixel's area
    return share > 0.5


def _iou(found: list[bytes | None], true: list[bytes], height: int, width: int) -> NDArray[np.float64]:
    """IoU [K, M]; rows of points without a mask are 0."""
    iou = np.zeros((len(found), len(true)))
    there = [k for k, rle in enumerate(found) if rle is not None]
    iou[there] = masks.iou_matrix([rle for rle in found if rle is not None], true, height, width)
    return iou


def summarise(quality: pa.Table) -> dict[str, Any]:
    """`points`, and PSEUDO_METRICS of rough and of refined masks in percent, over the rows of a QUALITY table.

    They are None over no points.
    """
    result: dict[str, Any] = {"points": quality.num_rows}
    for kind in KINDS:
        iou = np.asarray(quality[f"{kind}_iou"].to_numpy(), np.float64)
        for metric in PSEUDO_METRICS:
            share = metric.compute(iou) if len(iou) else None
            result[f"{kind}_{metric.key}"] = None if share is None else round(100 * float(share), 3)
    return result


def by_group(quality: pa.Table, column: str, groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`summarise` for each value of a column; groups without points are kept."""
    return {group: summarise(quality.filter(pc.equal(quality[column], group))) for group in groups}
