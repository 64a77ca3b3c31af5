"""The commands `points2model predict` and `import-checkpoint`: single models, outside the pipeline."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import JsonOption, command_console, print_json

IMPORT_EXAMPLE = (
    "Example: points2model import-checkpoint SOLOv2_R101_coco10p.pth --out models/coco10p --categories coco"
)
EXAMPLE = (
    "Example: points2model predict images/ --out predicted --min-score 0.5   |   "
    "points2model predict a.jpg --model models/coco10p --compat --points clicks.json --out predicted"
)


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help=".pth, .pt or .pkl; nothing in it is executed.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, or for a backbone's weights.")],
    categories: Annotated[
        str | None,
        typer.Option(help="coco, bdd100k, a COCO JSON file, or a list of {id, name}. Default: numbers 1..C."),
    ] = None,
    settings: Annotated[
        str | None,
        typer.Option(
            help="student or teacher: whose grids and size ranges, which the tensors don't have. Default: those of a "
            "config.yaml next to FILE, else student, which are SOLOv2's own."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The config.yaml that the reference's training wrote.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert published weights: the reference's SOLOv2 or MaskRefineNet, or an MSRA backbone (R-50.pkl, R-101.pkl).

    The kind and size of the network are inferred from its tensors; each one's name and shape is checked.
    """
    from tasks.tools import import_checkpoint as task

    with _logged():
        done = task.import_checkpoint(file, out, categories=categories, settings=settings, config=config)
    if as_json:
        print_json({"kind": done.kind, "path": str(done.path), "text": done.text})
    else:
        command_console().text(f"{done.path}: {done.text}")


def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Image files, folders, patterns in quotes, or s3://BUCKET/PREFIX."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results.json and pictures.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="A version (v3), or the folder of a SOLOv2: trained, or imported by import-checkpoint. Default: the "
            "promoted model, see `points2model models`."
        ),
    ] = None,
    compat: Annotated[
        bool,
        typer.Option("--compat", help="Follow the reference's conventions, not ours. See docs/method.md."),
    ] = False,
    points: Annotated[
        Path | None, typer.Option(help="Clicks to predict masks at, in any format of import_points.")
    ] = None,
    refiner: Annotated[
        Path | None, typer.Option(help="Folder of a MaskRefineNet, for the masks at clicks.")
    ] = None,
    params: Annotated[
        Path | None,
        typer.Option(
            help="For `evaluate.inference` and `prompt`. Default: those in the model, else params.yaml."
        ),
    ] = None,
    short_side: Annotated[
        int | None, typer.Option(min=1, help="Resize images to this short side. Default: the model's own.")
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            min=1, help="... or less, so that the long side is at most this. Default: the model's own."
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            help="Leave instances with a lower score out, but no mask at a click. Default: results.json has all, "
            "pictures and label files those from the score on that was chosen on the validation images (best F1), "
            "else 0.3."
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option(help="Draw the instances over each image, and a contact sheet of the first 48.")
    ] = True,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Write label files too: coco, yolo-seg, cvat, label-maps, scalabel or bdd-bitmask; may be given "
            "several times. They are in a folder of that name in OUT.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find instances in images, or predict a mask at each click; results.json has COCO results with compressed RLE.

    pictures/ has each image with its instances, contact-sheet.jpg the first ones. image_id is 1, 2, ... in the order
    of the images; label files name them by their paths below the folder that all have in common. With --points each
    click has one row, and points.json has the status of each.
    """
    from data.annotations.export import EXPORTS
    from flows.registry.current import promoted_model
    from tasks.reporting.figures import count
    from tasks.tools.label_files import NAME
    from tasks.tools.model_source import find_model
    from tasks.tools.pictures import FOLDER, SHEET
    from tasks.tools.predict_images import RESULTS, predict_images

    console, version = command_console(as_json), None
    with _logged():
        if model is None:
            promoted = promoted_model(Path.cwd())
            folder, version = promoted.folder, promoted.entry.version
            console.text(promoted.description())
        else:
            folder = find_model(model, Path()).folder
        counts = predict_images(
            images, folder, out,
            compat=compat, points=points, refiner=refiner, params=params, short_side=short_side,
            max_side=max_side, device=device, min_score=min_score, pictures=pictures,
            formats=list(dict.fromkeys(formats or ())),
        )  # fmt: skip
    if as_json:
        facts = {"results": str(out / RESULTS), "model": str(folder), "version": version}
        print_json({**counts, **facts, "contact_sheet": str(out / SHEET) if pictures else None})
    else:
        inputs = f"{count(counts['points'], 'point')} on " if points else ""
        masks = count(counts["masks"], "mask")
        console.text(f"{out / RESULTS}: {masks} for {inputs}{count(counts['images'], 'image')}")
        if pictures:
            console.text(f"{out / SHEET}: the first of {out / FOLDER}")
        for format, labels in counts["labels"].items():
            hidden = len(labels.get("hidden_labels", []))
            lost = f"; {hidden:,} more are covered by others" if hidden else ""
            console.text(f"{out / format / NAME}{EXPORTS[format]}: {count(labels['labels'], 'mask')}{lost}")
        if (pictures or formats) and not points:
            why = "; best F1 on the validation images" if counts["chosen"] else ""
            console.text(
                f"pictures and label files have scores from {counts['min_score']:g} on{why} (--min-score)"
            )


@contextmanager
def _logged() -> Iterator[None]:
    """Log lines go to stderr meanwhile."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
