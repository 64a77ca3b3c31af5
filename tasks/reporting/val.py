"""Val images of the report: what teacher and student find, and the student's false alarms and misses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from data.images.read import read_ingested
from data.tables import PREDICTIONS, DataError, Split, stream_parquet
from tasks.common.config import ReportConfig
from tasks.common.stage_main import read_json
from tasks.reporting.figures import count
from tasks.reporting.gallery import (
    LONGEST_SIDE,
    Panel,
    Shape,
    Window,
    hex_colour,
    image_definition,
    panel,
    spread,
)
from tasks.reporting.rows import Canvas, Gallery, Row, evenly, position
from tasks.scoring.outcomes import OVERLAP, USUAL_MIN_SCORE, Outcome, outcomes

MODELS = ("teacher", "student")
DETECTION = "number"
"""Column of a detection's row in predictions/MODEL.parquet, from 0."""
NEAR = 0.1
"""IoU from which on a false alarm counts as an attempt at an object."""
CROP, CROP_SIDE = 24, 200
"""Pixels: the least margin around an object that is cut out, and the most that are stored of a side."""
_WRONG, _MISS = "#ff3b30", "#ffffff"


class Error(NamedTuple):
    """A false alarm or a missed object of the student."""

    kind: Literal["false alarm", "missed"]
    image_id: int
    file_name: str
    id: int
    """of a detection its row in predictions/student.parquet, of an object its instance_id"""
    category: str
    score: float | None
    """of a detection"""
    area: float
    """pixels"""
    why: str


class ClassCounts(NamedTuple):
    """A class, or all of them: true objects, detections, and how many of these are correct."""

    name: str
    objects: int
    found: int
    false_alarms: int

    @property
    def missed(self) -> int:
        """Objects without a detection."""
        return self.objects - self.found

    @property
    def precision(self) -> float | None:
        """Correct detections among all, in percent."""
        return _percent(self.found, self.found + self.false_alarms)

    @property
    def recall(self) -> float | None:
        """Objects found, in percent."""
        return _percent(self.found, self.objects)


class ValImages:
    """The val images and what both models find on them at the scores from `min_scores` on.

    Attributes:
        split: `val`.
        ids: usable images.
        min_scores: by model.
    """

    def __init__(self, workspace: Path, config: ReportConfig) -> None:
        """Reads the outputs of the stages up to `evaluate`."""
        self.split = Split.open(workspace / "dataset" / "val")
        metrics, details = (
            read_json(workspace / "evaluation" / f"{name}.json", "evaluate")
            for name in ("metrics", "details")
        )
        self.min_scores = {name: _min_score(metrics[name], config) for name in MODELS}
        status = self.split.images["status"].to_pylist()
        self._rows = [i for i, one in enumerate(status) if one == "ok"]
        all_ids = self.split.images["image_id"].to_pylist()
        self.ids = [all_ids[i] for i in self._rows]
        self._names = {category.id: category.name for category in self.split.categories}
        self._outcomes: dict[str, dict[int, Outcome]] = {}
        for name in MODELS:
            path = workspace / "evaluation" / "predictions" / f"{name}.parquet"
            table = _detections(path, self.min_scores[name])
            self._outcomes[name] = {
                one.image_id: one
                for one in outcomes(table, self.split, self._rows, details["max_detections"])
            }

    @property
    def student(self) -> Mapping[int, Outcome]:
        """By image id."""
        return self._outcomes["student"]

    def worst(self) -> list[int]:
        """Image ids, those first on which the student's F1 at IoU 0.50 is lowest; then by the number of errors."""

        def key(id: int) -> tuple[float, int, int]:
            one = self.student[id]
            return quality(one), -len(one.missed()) - len(one.false_alarms()), id

        return sorted(self.ids, key=key)

    def counts(self) -> list[ClassCounts]:
        """Of all classes together, then of each one."""
        objects: Counter[int] = Counter()
        missed: Counter[int] = Counter()
        wrong: Counter[int] = Counter()
        for one in self.student.values():
            objects.update(row["category_id"] for row in one.objects)
            missed.update(one.objects[n]["category_id"] for n in one.missed())
            wrong.update(one.detections[n]["category_id"] for n in one.false_alarms())
        rows = [
            ClassCounts(name, objects[id], objects[id] - missed[id], wrong[id])
            for id, name in self.split.categories
        ]
        sums = (
            sum(row.objects for row in rows),
            sum(row.found for row in rows),
            sum(row.false_alarms for row in rows),
        )
        return [ClassCounts("all", *sums), *rows]

    def errors(self) -> list[Error]:
        """False alarms, the highest score first; then missed objects, the largest first. Ties by image and id."""
        found = [error for one in self.student.values() for error in self._errors(one)]
        found.sort(key=lambda e: (e.kind, -(e.score if e.score is not None else e.area), e.image_id, e.id))
        return found

    def _errors(self, one: Outcome) -> Iterator[Error]:
        name = self.split.image(position(self.split, one.image_id))["file_name"]
        for n in one.false_alarms():
            row = one.detections[n]
            yield Error(
                "false alarm", one.image_id, name, row[DETECTION], self._names[row["category_id"]], row["score"],
                row["area"], self._why_wrong(one, n),
            )  # fmt: skip
        for n in one.missed():
            row = one.objects[n]
            yield Error(
                "missed", one.image_id, name, row["instance_id"], self._names[row["category_id"]], None, row["area"],
                self._why_missed(one, n),
            )  # fmt: skip

    def _why_wrong(self, one: Outcome, n: int) -> str:
        overlap = one.overlap[n]
        best = int(np.argmax(overlap)) if overlap.size else -1
        if best < 0 or overlap[best] < NEAR:
            return "no object there"
        row, own = one.objects[best], one.detections[n]["category_id"]
        name = f"object {row['instance_id']}"
        if overlap[best] < OVERLAP:
            return f"IoU {overlap[best]:.2f} with {name} ({self._names[row['category_id']]})"
        if row["category_id"] != own:
            return f"{name} is of class {self._names[row['category_id']]}"
        return f"a second detection of {name}"

    def _why_missed(self, one: Outcome, n: int) -> str:
        overlap = one.overlap[:, n]
        best = int(np.argmax(overlap)) if overlap.size else -1
        if best < 0 or overlap[best] < NEAR:
            return "no detection there"
        row = one.detections[best]
        return f"IoU {overlap[best]:.2f} with detection {row[DETECTION]} ({self._names[row['category_id']]})"

    def rows(self, ids: list[int], place: str, longest: int = LONGEST_SIDE) -> list[Row]:
        """Rows of a gallery: true masks, teacher's masks, student's masks."""
        found = []
        for id in ids:
            canvas = Canvas(self.split, id, longest)
            objects = self.student[id].objects
            true = [
                canvas.shape(
                    row["rle_counts"], row["category_id"], hex_colour(n), f", object {row['instance_id']}"
                )
                for n, row in enumerate(objects)
            ]
            panels = [Panel("image", [], []), Panel("true masks", true, [])]
            panels += [Panel(name, _shapes(canvas, self._outcomes[name][id]), []) for name in MODELS]
            facts = [f"id {id}", count(len(objects), "object"), *_facts(self.student[id])]
            found.append(canvas.row("", facts, panels, place))
        return found

    def page_rows(self, ids: list[int], longest: int) -> list[Row]:
        """Rows of a page: the student's masks and errors."""
        rows = []
        for id in ids:
            canvas, one = Canvas(self.split, id, longest), self.student[id]
            facts = [f"id {id}", count(len(one.objects), "object"), *_facts(one)]
            rows.append(canvas.row("", facts, [Panel("student", _shapes(canvas, one), [])], "val"))
        return rows

    def crops(self, errors: list[Error]) -> list[Row]:
        """A picture of each error, cut out of its image."""
        return [self._crop(error, n) for n, error in enumerate(errors)]

    def _crop(self, error: Error, n: int) -> Row:
        one, canvas = self.student[error.image_id], Canvas(self.split, error.image_id)
        is_missed = error.kind == "missed"
        rows, key = (one.objects, "instance_id") if is_missed else (one.detections, DETECTION)
        index = next(n for n, row in enumerate(rows) if row[key] == error.id)
        detections, objects = _around(one, index, is_missed)
        shapes = [_detection(canvas, one, d) for d in detections] + [_object(canvas, one, o) for o in objects]
        window = _window(rows[index]["bbox_xywh"], *canvas.size)
        name = f"{error.kind.replace(' ', '-')}-{n}"
        definition, fault = Markup(""), None
        try:
            pixels = read_ingested(self.split, canvas.i)
            x, y = int(window.x), int(window.y)
            cut = pixels[y : y + int(window.height), x : x + int(window.width)]
            definition = image_definition(cut, name, CROP_SIDE, (x, y))
        except DataError as problem:
            fault = str(problem)
        picture = panel(name, canvas.size, Panel(error.kind, shapes, []), window)
        what = error.category if error.score is None else f"{error.category} {error.score:.2f}"
        who = f"{'object' if is_missed else 'detection'} {error.id}"
        facts = [error.why, who, f"{error.file_name}, id {error.image_id}"]
        return Row("", what, facts, definition, [(error.kind, picture)], fault)


def val_gallery(val: ValImages, shown: int, longest: int = LONGEST_SIDE) -> Gallery:
    """Val images at even distances in the order of their ids."""
    chosen = [val.ids[i] for i in spread(len(val.ids), shown)]
    rule = f"{evenly(len(val.ids), shown)} in the order of their ids, whatever the results"
    return Gallery(val.rows(chosen, "val", longest), rule)


def _min_score(metrics: Mapping[str, Any], config: ReportConfig) -> float:
    """The score from which on detections are shown; without one that was chosen on val, a usual one."""
    if config.score_threshold is not None:
        return config.score_threshold
    chosen: float | None = metrics.get("min_score")
    return USUAL_MIN_SCORE if chosen is None else chosen


def _detections(path: Path, min_score: float) -> pa.Table:
    """Detections with this score or more, with the column DETECTION; read batch by batch."""
    columns = ["image_id", "category_id", "score", "bbox_xywh", "area", "rle_counts"]
    parts, begin = [], 0
    for batch in stream_parquet(path, PREDICTIONS, columns, 1 << 16):
        numbers = pa.array(range(begin, begin + len(batch)), pa.int64())
        table = pa.Table.from_batches([batch]).append_column(DETECTION, numbers)
        parts.append(table.filter(pc.greater_equal(table["score"], min_score)))
        begin += len(batch)
    empty = PREDICTIONS.empty_table().select(columns).append_column(DETECTION, pa.array([], pa.int64()))
    return pa.concat_tables([empty, *parts])


def quality(one: Outcome) -> float:
    """F1 of an image at IoU 0.50, 0 to 1; 1 where nothing is to be found and nothing is."""
    found = sum(match is not None for match in one.match)
    total = 2 * found + len(one.missed()) + len(one.false_alarms())
    return 2 * found / total if total else 1.0


def _facts(one: Outcome) -> list[str]:
    return [f"{len(one.missed()):,} missed", count(len(one.false_alarms()), "false alarm")]


def _shapes(canvas: Canvas, one: Outcome) -> list[Shape]:
    """All detections, and the missed objects."""
    detections = [_detection(canvas, one, n) for n in range(len(one.detections))]
    return detections + [_object(canvas, one, n) for n in one.missed()]


def _detection(canvas: Canvas, one: Outcome, n: int) -> Shape:
    """A detection in the colour of its object, or as a false alarm."""
    row, match = one.detections[n], one.match[n]
    note = f", score {row['score']:.2f}, detection {row[DETECTION]}"
    if n in one.false_alarms():
        return canvas.shape(row["rle_counts"], row["category_id"], _WRONG, f", false alarm{note}", "wrong")
    colour = hex_colour(len(one.objects) + n if match is None else match)
    return canvas.shape(row["rle_counts"], row["category_id"], colour, note)


def _object(canvas: Canvas, one: Outcome, n: int) -> Shape:
    """A true object as a dashed outline."""
    row = one.objects[n]
    note = f", {'missed, ' * (n in one.missed())}object {row['instance_id']}"
    return canvas.shape(row["rle_counts"], row["category_id"], _MISS, note, "miss")._replace(label="")


def _around(one: Outcome, n: int, is_missed: bool) -> tuple[list[int], list[int]]:
    """The detections and objects to draw for an error: its own, and those of the other kind that it overlaps."""
    if is_missed:
        return np.flatnonzero(one.overlap[:, n] >= NEAR).tolist(), [n]
    return [n], np.flatnonzero(one.overlap[n] >= NEAR).tolist()


def _window(box_xywh: list[float], height: int, width: int) -> Window:
    """A square around a box, moved into the image; as much of it as the image has."""
    x, y, w, h = box_xywh
    side = int(1.4 * max(w, h)) + 2 * CROP
    left = max(0, min(int(x + w / 2) - side // 2, width - side))
    top = max(0, min(int(y + h / 2) - side // 2, height - side))
    return Window(left, top, min(side, width), min(side, height))


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
