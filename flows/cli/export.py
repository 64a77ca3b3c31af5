"""The command `points2model export`: labels for other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from data.errors import DataError
from flows.cli.console import Console, print_json
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
        Masks, typer.Option(help="Of pseudo labels: refined where there is one.")
    ] = Masks.refined,
    min_score: Annotated[float, typer.Option(help="Leave out pseudo labels and predictions below.")] = 0.0,
    model: Annotated[
        Model, typer.Option(help="Of predictions: the promoted model, the present student, or the teacher.")
    ] = Model.promoted,
    annotations: Annotated[
        Path | None, typer.Option(help="With --what file: COCO, Scalabel, or a folder of bitmasks.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="With --what file: the image root, where sizes or names are missing.")
    ] = None,
    workspace: Annotated[Path, typer.Option(help="The pipeline's.")] = Path("workspace"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Write masks as COCO instances or results, Scalabel frames or BDD100K bitmasks; or convert a file of labels.

    Pseudo labels carry their score and point_id. Masks are exact in all formats, but in bitmasks none can overlap:
    the higher score, or the later one, lies on top, and what is covered is counted. See docs/masks.md.
    """
    from flows.registry.current import promoted_predictions
    from tasks.tools.export_labels import SUMMARY, ExportRequest, export_labels

    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    try:
        whose = model.value
        if what is What.predictions and model is Model.promoted:
            whose, told = promoted_predictions(workspace)
            console.print(escape(told))
        request = ExportRequest(
            what=what.value, format=format.value, masks=masks.value, min_score=min_score, model=whose,
            annotations=annotations, images=images,
        )  # fmt: skip
        summary = export_labels(request, out, workspace)
    except (DataError, TaskError) as error:
        console.print(f"[red]failed[/] {escape(str(error))}")
        raise typer.Exit(1) from None
    except OSError as error:
        console.print(f"[red]failed[/] {escape(f'{out}: {error}')}; choose another folder with --out")
        raise typer.Exit(1) from None
    if as_json:
        print_json(summary)
    for name, counts in summary["parts"].items():
        console.print(escape(_said(out, name, format, counts)))
        hidden = counts.get("hidden_labels")
        if hidden or counts.get("covered_pixels"):
            lost = (
                f"; {len(hidden):,} masks are not to be seen at all, {SUMMARY} lists them" if hidden else ""
            )
            console.print(
                f"[yellow]note[/] masks overlap, which bitmasks can't: {counts['covered_pixels']:,} pixels went to "
                f"the mask on top{lost}"
            )


def _said(out: Path, name: str, format: Format, counts: dict[str, Any]) -> str:
    target = out / name if format is Format.bdd_bitmask else out / f"{name}.json"
    return f"{target}: {counts['labels']:,} masks on {counts['images']:,} images"
