"""The command `points2model export`: writes labels for other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import JsonOption, command_console, print_json
from flows.cli.export_onnx import export_model
from tasks.common.errors import TaskError

EXAMPLE = (
    "Example: points2model export --format coco --out labels   |   points2model export --what predictions --format "
    "scalabel --out found   |   points2model export --what training --format "
    "yolo-seg --out set   |   points2model export --what file --annotations bitmasks/train --images images/10k "
    "--format coco --out converted   |   points2model export --to cvat --out to-cvat   |   points2model "
    "export --onnx promoted --out model.onnx"
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
    label_studio = "label-studio"


class Tool(StrEnum):
    """Label tools, or formats that they read, whose corrections `review --import` reads."""

    cvat = "cvat"
    label_studio = "label-studio"
    coco = "coco"
    yolo_seg = "yolo-seg"


class What(StrEnum):
    """The labels to write."""

    pseudo = "pseudo"
    dataset = "dataset"
    predictions = "predictions"
    file = "file"
    training = "training"


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
    out: Annotated[
        Path,
        typer.Option(help="The folder to write, or the file with --onnx; an earlier export is replaced."),
    ],
    format: Annotated[Format | None, typer.Option(help="The format of the files.")] = None,
    to: Annotated[
        Tool | None,
        typer.Option(
            help="Instead of --format: the pseudo masks, with all decisions of reviewers, to be corrected in a label "
            "tool and read back by `points2model review --import`."
        ),
    ] = None,
    onnx: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Instead of --format: a model as an ONNX file: `promoted`, a version (v3), or a folder; docs/onnx.md.",
        ),
    ] = None,
    torch: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Instead of --format: a model's network alone as a program of torch.export, OUT.pt2, which torch runs "
            "without points2model; docs/onnx.md.",
        ),
    ] = None,
    what: Annotated[
        What,
        typer.Option(
            help="Pseudo labels, the masks ingested, predictions on the val images, a file; or training, a folder with "
            "images, masks and pseudo labels for other trainers (docs/other-trainers.md)."
        ),
    ] = What.pseudo,
    masks: Annotated[
        Masks | None,
        typer.Option(
            help="Which mask of a pseudo label. Default: refined if there is one; with --what training, student.masks."
        ),
    ] = None,
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
    image_url: Annotated[
        str | None,
        typer.Option(
            help="With label-studio: what precedes an image's name in its address, e.g. s3://bucket/images/. Default: "
            "files that Label Studio's server reads from its own disk."
        ),
    ] = None,
    params: Annotated[
        Path,
        typer.Option(
            help="The settings: with --to, which name the folder of decisions; with --what training, of the student."
        ),
    ] = Path("params.yaml"),
    raw: Annotated[
        bool,
        typer.Option("--raw", help="With --onnx: the network alone, without what is before and after it."),
    ] = False,
    clicks: Annotated[
        bool,
        typer.Option(
            "--clicks",
            help="With --onnx: masks at clicks instead of instances, for label tools: a folder with image.onnx and "
            "clicks.onnx; most often of a teacher.",
        ),
    ] = False,
    refiner: Annotated[
        Path | None,
        typer.Option(help="With --clicks: the folder of a refiner, such as workspace/refiner."),
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="With --onnx: the version of ONNX's operators. Default: 18.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            help="With --onnx and --torch: keep the file only if it equals the model on the val images.",
        ),
    ] = True,
    workspace: Annotated[Path, typer.Option(help="The pipeline's workspace.")] = Path("workspace"),
    as_json: JsonOption = False,
) -> None:
    """Write masks for other tools: COCO, YOLO, CVAT, Label Studio and others; or convert a file of labels.

    Pseudo labels have their score and point_id, where the format has a place for them. Masks are exact in all formats
    but YOLO's polygons. In bitmasks and label maps they can't overlap: the mask with the higher score, else the later
    one, is on top, and covered pixels are counted. See docs/masks.md; for --to, docs/round-trip.md.
    """
    from data.annotations.export import EXPORTS
    from data.annotations.writers.label_studio import LOCAL_FILES
    from flows.registry.current import promoted_predictions
    from tasks.common.config import load_params
    from tasks.reporting.figures import count
    from tasks.tools.export_labels import LABELS_FILE, ExportRequest, export_labels
    from tasks.tools.label_files import SUMMARY

    console = command_console(as_json)
    of_onnx = clicks or refiner is not None or raw or opset is not None
    _check_options(format, to, onnx, torch, of_onnx=of_onnx, scored=min_score is not None)
    if onnx is not None or torch is not None:
        export_model(
            onnx, out, workspace, torch=torch, clicks=clicks, refiner=refiner, raw=raw, opset=opset, verify=verify,
            min_score=min_score, console=console, as_json=as_json,
        )  # fmt: skip
        return
    chosen = str(to or format)
    decisions = None if to is None else Path(load_params(params).review.decisions)
    student = load_params(params).student if what is What.training else None
    if student is not None and masks is not None:
        student = student.model_copy(update={"masks": masks.value})
    try:
        whose = model.value
        if what is What.predictions and model is Model.promoted:
            whose, explanation = promoted_predictions(workspace)
            console.text(explanation)
        request = ExportRequest(
            what=what.value, format=chosen, masks=(masks or Masks.refined).value, min_score=min_score, model=whose,
            annotations=annotations, images=images, decisions=decisions, student=student,
            image_url=image_url or LOCAL_FILES,
        )  # fmt: skip
        summary = export_labels(request, out, workspace)
    except OSError as error:
        raise TaskError(f"{out}: {error}; choose another folder with --out") from None
    if as_json:
        print_json(summary)
    if what is What.training:
        for name, counts in summary["parts"].items():
            lost = (
                ", left out: the format has none" if chosen == Format.yolo_seg and counts["ignored"] else ""
            )
            console.text(
                f"{name}: {count(counts['labels'], 'mask')} on {count(counts['images'], 'image')}, "
                f"{counts['pseudo']:,} of them pseudo; {count(counts['ignored'], 'region')} to ignore{lost}"
            )
        console.text(f"{out}: images are links to their files; docs/other-trainers.md has recipes")
        return
    for name, counts in summary["parts"].items():
        target = out / f"{name}{EXPORTS[chosen]}"
        facts = f"{count(counts['labels'], 'mask')} on {count(counts['images'], 'image')}"
        least = f" with a score of {summary['min_score']:g} or more" if summary["min_score"] else ""
        console.text(f"{target}: {facts}{least}")
        if crowds := counts.get("crowds_left_out"):
            console.note(f"{chosen} has no regions to ignore: {count(crowds, 'crowd')} left out")
        hidden = counts.get("hidden_labels")
        if hidden or counts.get("covered_pixels"):
            lost = f"; {len(hidden):,} masks are covered completely, {SUMMARY} lists them" if hidden else ""
            console.note(
                f"masks overlap, which {chosen} can't: {counts['covered_pixels']:,} pixels went to the mask on "
                f"top{lost}"
            )
    if to is not None:
        also = f", and {LABELS_FILE} has the task's labels" if to is Tool.cvat else ""
        console.note(
            f"keep {out} until the corrections are read: `points2model review --import FILE --sent {out}`{also}"
        )


def _check_options(
    format: str | None, to: str | None, onnx: str | None, torch: str | None, *, of_onnx: bool, scored: bool
) -> None:
    """One kind of export is asked for, with none of the options of another.

    Args:
        of_onnx: whether --clicks, --refiner, --raw or --opset is given.
        scored: whether --min-score is.
    """
    if sum(one is not None for one in (format, to, onnx, torch)) != 1:
        raise TaskError(
            "expected one of --format, for labels as they are, --to, for a label tool, and --onnx or --torch, for a "
            "model"
        )
    if torch is not None and (of_onnx or scored):
        raise TaskError(
            "--torch writes the network alone: it goes with none of --raw, --clicks, --refiner, --opset and "
            "--min-score"
        )
    if of_onnx and onnx is None:
        raise TaskError("--clicks, --refiner, --raw and --opset go with --onnx")
