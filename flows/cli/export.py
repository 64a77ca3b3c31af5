"""The command `points2model export`: writes labels for other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import JsonOption, command_console, print_json
from tasks.common.errors import TaskError

EXAMPLE = (
    "Example: points2model export --format coco --out labels   |   points2model export --what predictions --format "
    "scalabel --out found   |   points2model export --what file --annotations bitmasks/train --images images/10k "
    "--format coco --out converted"
)


class Format(StrEnum):
    """The formats to write."""

    coco = "coco"
    coco_results = "coco-results"
    scalabel = "scalabel"
    bdd_bitmask = "bdd-bitmask"
    yolo_seg = "yolo-seg"
    cvat = "cvat"
    label_maps = "label-maps"


class What(StrEnum):
    """The labels to write."""

    pseudo = "pseudo"
    dataset = "dataset"
    predictions = "predictions"
    file = "file"


class Masks(StrEnum):
    """Which mask of a pseudo label."""

    refined = "refined"
    rough = "rough"


class Model(StrEnum):
    """Whose predictions."""

    promoted = "promoted"
    student = "student"
    teacher = "teacher"


def export(
    format: Annotated[Format, typer.Option(help="The format of the files.")],
    out: Annotated[Path, typer.Option(help="The folder to write; an earlier export in it is replaced.")],
    what: Annotated[
        What,
        typer.Option(help="Pseudo labels, the masks ingested, predictions on the val images, or a file."),
    ] = What.pseudo,
    masks: Annotated[
        Masks, typer.Option(help="Which mask of a pseudo label; refined if there is one.")
    ] = Masks.refined,
    min_score: Annotated[
        float | None,
        typer.Option(
            help="Leave out pseudo labels and predictions with a lower score. Default: all pseudo labels; predictions "
            "from the score on that was chosen on the val images (best F1), but all as coco-results."
        ),
    ] = None,
    model: Annotated[
        Model,
        typer.Option(help="Whose predictions: the promoted model, the current student, or the teacher."),
    ] = Model.promoted,
    annotations: Annotated[
        Path | None, typer.Option(help="With --what file: masks in any format of docs/masks.md.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="With --what file: the image root, where sizes or names are missing.")
    ] = None,
    workspace: Annotated[Path, typer.Option(help="The pipeline's workspace.")] = Path("workspace"),
    as_json: JsonOption = False,
) -> None:
    """Write masks as COCO, Scalabel, BDD100K bitmasks, YOLO, CVAT XML or label maps; or convert a file of labels.

    Pseudo labels have their score and point_id, where the format has a place for them. Masks are exact in all formats
    but YOLO's polygons. In bitmasks and label maps they can't overlap: the mask with the higher score, else the later
    one, is on top, and covered pixels are counted. See docs/masks.md.
    """
    from data.annotations.export import EXPORTS
    from flows.registry.current import promoted_predictions
    from tasks.reporting.figures import count
    from tasks.tools.export_labels import ExportRequest, export_labels
    from tasks.tools.label_files import SUMMARY

    console = command_console(as_json)
    try:
        whose = model.value
        if what is What.predictions and model is Model.promoted:
            whose, explanation = promoted_predictions(workspace)
            console.text(explanation)
        request = ExportRequest(
            what=what.value, format=format.value, masks=masks.value, min_score=min_score, model=whose,
            annotations=annotations, images=images,
        )  # fmt: skip
        summary = export_labels(request, out, workspace)
    except OSError as error:
        raise TaskError(f"{out}: {error}; choose another folder with --out") from None
    if as_json:
        print_json(summary)
    for name, counts in summary["parts"].items():
        target = out / f"{name}{EXPORTS[format.value]}"
        facts = f"{count(counts['labels'], 'mask')} on {count(counts['images'], 'image')}"
        least = f" with a score of {summary['min_score']:g} or more" if summary["min_score"] else ""
        console.text(f"{target}: {facts}{least}")
        if crowds := counts.get("crowds_left_out"):
            console.note(f"{format.value} has no regions to ignore: {count(crowds, 'crowd')} left out")
        hidden = counts.get("hidden_labels")
        if hidden or counts.get("covered_pixels"):
            lost = f"; {len(hidden):,} masks are covered completely, {SUMMARY} lists them" if hidden else ""
            console.note(
                f"masks overlap, which {format.value} can't: {counts['covered_pixels']:,} pixels went to the mask on "
                f"top{lost}"
            )
