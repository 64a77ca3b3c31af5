"""The command `points2model evaluate`: COCO mask AP of any file of results."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from flows.cli.console import Console, JsonOption, command_console, print_json
from tasks.scoring.metrics import MODEL_METRICS, keys_at

EXAMPLE = (
    "Example: points2model evaluate --ground-truth val.json --results predicted/results.json --json   |   "
    "... --max-detections 300 --per-class"
)


class Evaluator(StrEnum):
    """The values of `evaluate.evaluator`."""

    PYCOCOTOOLS = "pycocotools"
    FASTER_COCO_EVAL = "faster_coco_eval"


def evaluate(
    ground_truth: Annotated[Path, typer.Option(help="Masks in any format of docs/masks.md.")],
    results: Annotated[Path, typer.Option(help="COCO results with masks: of `predict`, or any other tool.")],
    max_detections: Annotated[
        int, typer.Option(min=1, help="Detections that count, for each image and class. COCO's own: 100.")
    ] = 100,
    size_bounds: Annotated[
        tuple[float, float],
        typer.Option(metavar="A B", help="Sides in pixels that separate small, medium and large objects."),
    ] = (32.0, 96.0),
    images: Annotated[
        Path | None, typer.Option(help="The image root, if the ground truth lacks sizes or names.")
    ] = None,
    evaluator: Annotated[
        Evaluator,
        typer.Option(
            help="The implementation: the figures are the same; the one in C++ is for large data sets."
        ),
    ] = Evaluator.PYCOCOTOOLS,
    per_class: Annotated[bool, typer.Option("--per-class", help="Show the AP of each class too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Score masks as COCO does (pycocotools): AP over IoU 0.50:0.95, AP50, AP75, by size, and recall; in percent.

    Both files are checked first, and all their faults are listed. The pipeline's own models are scored on the val
    images by its stage `evaluate`: `points2model run --target evaluate`.
    """
    from tasks.tools.evaluate_files import evaluate_files

    scores = evaluate_files(
        ground_truth, results, max_detections=max_detections, size_bounds=size_bounds, images=images,
        evaluator=evaluator.value,
    )  # fmt: skip
    if not per_class:
        del scores["per_class"]
    if as_json:
        print_json(scores)
    else:
        _show(scores, command_console())


def _show(scores: dict[str, Any], console: Console) -> None:
    from rich.table import Table

    from tasks.reporting.figures import count

    small, medium = scores["size_bounds"]
    limit = scores["max_detections"]
    console.print(
        f"{count(scores['detections'], 'detection')} against {count(scores['objects'], 'object')} on "
        f"{count(scores['images'], 'image')}; the best {limit:,} detections per image and class "
        f"count{' (COCO: 100)' * (limit != 100)}; "
        f"small ends at {small:g} x {small:g} pixels, medium at {medium:g} x {medium:g}"
    )
    if lost := scores["objects_beyond_limit"]:
        console.note(
            f"{lost:,} objects can't be found: some images have more than {limit:,} of a class; raise --max-detections"
        )
    table = Table("", "percent", title="mask AP and AR", title_justify="left")
    for key in keys_at(limit).values():
        table.add_row(key, _percent(scores[key]))
    console.print(table)
    if "per_class" in scores:
        by_class = [metric for metric in MODEL_METRICS if metric.by_class]
        labels = [metric.label for metric in by_class]
        table = Table("class", "objects", *labels, title="by class", title_justify="left")
        for row in scores["per_class"]:
            cells = (_percent(row[metric.key]) for metric in by_class)
            table.add_row(escape(row["name"]), f"{row['instances']:,}", *cells)
        console.print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
