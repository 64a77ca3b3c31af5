"""The report's two galleries: weak images with their pseudo masks, val images with the models' detections."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from data.images.read import read_ingested
from data.masks import rle
from data.tables import POINTS, PREDICTIONS, PSEUDO, DataError, Split, read_parquet, stream_parquet
from tasks.reporting.figures import count
from tasks.reporting.gallery import LONGEST_SIDE, Dot, Panel, Shape, colours, image_definition, panel, spread
from tasks.scoring.pseudo_quality import QUALITY

Records = list[dict[str, Any]]


class Row(NamedTuple):
    """An image of a gallery: rank, name, facts, and its panels (caption, picture)."""

    rank: str
    name: str
    facts: list[str]
    definition: Markup
    panels: list[tuple[str, Markup]]
    fault: str | None


class Gallery(NamedTuple):
    """Rows, the colours of the classes, and the rule by which the rows were chosen."""

    rows: list[Row]
    legend: list[tuple[str, str]]
    rule: str


def pseudo_rows(
    workspace: Path, weak: Split, kept_aside: Split, shown: int, longest: int = LONGEST_SIDE
) -> Gallery:
    """Weak images at even distances in a ranking from the best pseudo masks to the worst.

    Images are ranked by the mean IoU of their refined masks with the true ones or, if no masks were kept aside, by the
    mean score of their masks; ties by image id.
    """
    pseudo = pa.concat_tables(
        [read_parquet(path, PSEUDO) for path in sorted((workspace / "pseudo").glob("part-*.parquet"))]
        or [PSEUDO.empty_table()]
    )
    quality = read_parquet(workspace / "evaluation" / "pseudo_quality.parquet", QUALITY)
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    if quality.num_rows:
        value_of = _means(quality, "refined_iou")
        rule = "images are ranked by the mean IoU of their refined masks with the true ones"
    else:
        value_of = _means(pseudo, "score")
        rule = "no true masks were kept aside, so images are ranked by the mean score of their masks"
    ranking = sorted(value_of, key=lambda id: (-value_of[id], id))
    rule += f"; shown are {_evenly(len(ranking), shown)}, from the best to the worst"
    chosen = spread(len(ranking), shown)
    ids = [ranking[i] for i in chosen]
    by_image = {name: _by_image(table, ids) for name, table in (("pseudo", pseudo), ("points", points))}
    iou_of = {row["point_id"]: row for row in _among(quality, ids).to_pylist()}
    rows = []
    for rank, id in zip(chosen, ids, strict=True):
        place = f"rank {rank + 1} of {len(ranking)}"
        place = {0: f"best, {place}", len(ranking) - 1: f"worst, {place}"}.get(rank, place)
        facts, panels = _pseudo_panels(
            id, by_image["pseudo"][id], by_image["points"][id], iou_of, kept_aside, weak
        )
        rows.append(_row(weak, id, place, facts, panels, longest))
    return Gallery(rows, _legend(weak), rule)


def val_rows(
    workspace: Path, val: Split, shown: int, score_threshold: float, longest: int = LONGEST_SIDE
) -> Gallery:
    """Val images at even distances in the order of their ids: true masks, teacher's masks, student's masks."""
    ids = [id for id, status in zip(*_lists(val.images, "image_id", "status"), strict=True) if status == "ok"]
    chosen = [ids[i] for i in spread(len(ids), shown)]
    found = {
        name: _predictions(
            workspace / "evaluation" / "predictions" / f"{name}.parquet", chosen, score_threshold
        )
        for name in ("teacher", "student")
    }
    rows = []
    for id in chosen:
        true = [_true_shape(row, val) for row in _instances(val, id)]
        panels = [Panel("image", [], []), Panel("true masks", true, [])]
        facts = [count(len(true), "object")]
        for name in ("teacher", "student"):
            shapes = [_found_shape(row, val) for row in found[name][id]]
            panels.append(Panel(name, shapes, []))
            facts.append(f"{name} {len(shapes)}")
        rows.append(_row(val, id, "", facts, panels, longest))
    rule = f"{_evenly(len(ids), shown)} in the order of their ids, whatever the results"
    return Gallery(rows, _legend(val), rule)


def _pseudo_panels(
    id: int,
    pseudo: Records,
    points: Records,
    iou_of: Mapping[str, dict[str, Any]],
    kept_aside: Split,
    weak: Split,
) -> tuple[list[str], list[Panel]]:
    palette, names = _palette(weak)
    xy = {point["point_id"]: (point["x"], point["y"]) for point in points}
    clicks, rough, refined, missing = [], [], [], []
    for row in pseudo:
        colour, name = palette[row["category_id"]], names[row["category_id"]]
        (x, y), quality = xy[row["point_id"]], iou_of.get(row["point_id"])
        clicks.append(Dot(x, y, colour, f"{name}: click at {x:.1f}, {y:.1f}"))
        if row["rough_rle"] is None:
            missing.append(Dot(x, y, colour, f"{name}: no mask ({row['reason']})", missing=True))
            continue
        iou = {
            kind: f", IoU {quality[f'{kind}_iou']:.2f}" if quality else "" for kind in ("rough", "refined")
        }
        rough.append(Shape(_decode(weak, id, row["rough_rle"]), colour, f"{name}: rough{iou['rough']}"))
        final = row["refined_rle"] if row["refined_rle"] is not None else row["rough_rle"]
        kept = "" if row["refined_rle"] is not None else " (the rough mask stays)"
        refined.append(Shape(_decode(weak, id, final), colour, f"{name}: refined{iou['refined']}{kept}"))
    panels = [Panel("clicks", [], clicks), Panel("rough", rough, missing), Panel("refined", refined, missing)]
    facts = [count(len(pseudo), "click")] + ([f"{len(missing)} without a mask"] if missing else [])
    measured = [iou_of[row["point_id"]] for row in pseudo if row["point_id"] in iou_of]
    if measured:
        means = [
            100 * float(np.mean([row[f"{kind}_iou"] for row in measured])) for kind in ("rough", "refined")
        ]
        facts.append(f"mean IoU {means[0]:.1f} rough, {means[1]:.1f} refined")
        panels.append(
            Panel("true masks", [_true_shape(row, kept_aside) for row in _instances(kept_aside, id)], [])
        )
    return facts, panels


def _row(split: Split, id: int, rank: str, facts: list[str], panels: list[Panel], longest: int) -> Row:
    i = _position(split, id)
    facts_of_image = split.image(i)
    name, size = facts_of_image["file_name"], (facts_of_image["height"], facts_of_image["width"])
    key = f"image-{facts_of_image['split']}-{id}"
    try:
        definition, fault = image_definition(read_ingested(split, i), key, longest), None
    except DataError as error:  # the page shows the fault in place of the image
        definition, fault = Markup(""), str(error)
    return Row(rank, name, facts, definition, [(one.caption, panel(key, size, one)) for one in panels], fault)


def _true_shape(row: dict[str, Any], split: Split) -> Shape:
    palette, names = _palette(split)
    mask = _decode(split, row["image_id"], row["rle_counts"])
    return Shape(mask, palette[row["category_id"]], names[row["category_id"]])


def _found_shape(row: dict[str, Any], split: Split) -> Shape:
    palette, names = _palette(split)
    mask = _decode(split, row["image_id"], row["rle_counts"])
    return Shape(mask, palette[row["category_id"]], f"{names[row['category_id']]}: score {row['score']:.2f}")


def _decode(split: Split, id: int, counts: bytes) -> Any:
    row = split.image(_position(split, id))
    return rle.decode(counts, row["height"], row["width"])


def _instances(split: Split, id: int) -> Records:
    rows: Records = split.instances_of(_position(split, id)).to_pylist()
    return [row for row in rows if not row["iscrowd"]]


def _position(split: Split, id: int) -> int:
    return int(np.searchsorted(split.images["image_id"].to_numpy(), id))


def _palette(split: Split) -> tuple[dict[int, str], dict[int, str]]:
    """Colours and names of a split's classes."""
    return colours([c.id for c in split.categories]), {c.id: c.name for c in split.categories}


def _legend(split: Split) -> list[tuple[str, str]]:
    palette, names = _palette(split)
    return [(names[id], colour) for id, colour in palette.items()]


def _predictions(path: Path, ids: Sequence[int], score_threshold: float) -> dict[int, Records]:
    by_image: dict[int, Records] = defaultdict(list)
    columns = ["image_id", "category_id", "score", "rle_counts"]
    shown = pa.array(ids, pa.int64())
    for batch in stream_parquet(path, PREDICTIONS, columns, 1 << 16):
        mine = pc.is_in(batch["image_id"], shown)
        for row in batch.filter(pc.and_(mine, pc.greater_equal(batch["score"], score_threshold))).to_pylist():
            by_image[row["image_id"]].append(row)
    return by_image


def _means(table: pa.Table, column: str) -> dict[int, float]:
    """Mean of a column by image; a null counts as 0."""
    filled = table.set_column(0, column + "_", pc.fill_null(table[column], 0.0))
    means = filled.group_by("image_id").aggregate([(column + "_", "mean")])
    return dict(zip(*_lists(means, "image_id", column + "__mean"), strict=True))


def _among(table: pa.Table, ids: Iterable[int]) -> pa.Table:
    return table.filter(pc.is_in(table["image_id"], pa.array(list(ids), pa.int64())))


def _by_image(table: pa.Table, ids: Iterable[int]) -> dict[int, Records]:
    by_image: dict[int, Records] = defaultdict(list)
    for row in _among(table, ids).to_pylist():
        by_image[row["image_id"]].append(row)
    return by_image


def _lists(table: pa.Table, *columns: str) -> list[list[Any]]:
    return [table[column].to_pylist() for column in columns]


def _evenly(count: int, shown: int) -> str:
    return f"all {count}" if count <= shown else f"{shown} of {count} at even distances"
