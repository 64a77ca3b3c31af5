"""Commands on single models, outside the pipeline: importing published weights, predicting."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from data.errors import DataError
from flows.cli.console import Console, print_json
from tasks.common.errors import TaskError

IMPORT_EXAMPLE = (
    "Example: points2model import-checkpoint SOLOv2_R101_coco10p.pth --out models/coco10p --categories coco"
)
PREDICT_EXAMPLE = (
    "Example: points2model predict images/*.jpg --out predicted   |   "
    "points2model predict a.jpg --model models/coco10p --compat --points clicks.json --out predicted"
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


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
            help="student or teacher: whose grids and size ranges, which no tensor tells. Default: those of a "
            "config.yaml beside FILE, else student, as are SOLOv2's own."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The config.yaml that the reference's training wrote.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a published file ours: the reference's SOLOv2 or MaskRefineNet, or an MSRA backbone (R-50.pkl, R-101.pkl).

    What it is and how large is found from its tensors; each one's name and shape is checked.
    """
    from tasks.tools import import_checkpoint as task  # torch takes seconds that --help shouldn't

    with _console(as_json) as console:
        done = task.import_checkpoint(file, out, categories=categories, settings=settings, config=config)
        if as_json:
            _print({"kind": done.kind, "path": str(done.path), "text": done.text})
        else:
            console.print(escape(f"{done.path}: {done.text}"))


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json.")],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a SOLOv2: trained, or of import-checkpoint. Default: the promoted model, see "
            "`points2model models`."
        ),
    ] = None,
    compat: Annotated[
        bool,
        typer.Option(
            "--compat", help="The reference's conventions; the default is ours. See docs/method.md."
        ),
    ] = False,
    points: Annotated[
        Path | None, typer.Option(help="Clicks to draw masks at, in any format of import_points.")
    ] = None,
    refiner: Annotated[
        Path | None, typer.Option(help="Folder of a MaskRefineNet, for the masks at clicks.")
    ] = None,
    params: Annotated[
        Path | None,
        typer.Option(
            help="For `evaluate.inference` and `prompt`. Default: what the model carries, params.yaml."
        ),
    ] = None,
    short_side: Annotated[
        int | None, typer.Option(min=1, help="Resize images to this short side. Default: the model's own.")
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(min=1, help="... unless the long one would pass this. Default: the model's own."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find instances in images, or draw a mask at each click; results.json has COCO results with compressed RLE.

    image_id is 1, 2, ... in the order of the images. With --points each click has one row, and points.json says
    what became of it.
    """
    from flows.registry.current import promoted_model
    from tasks.tools.predict_images import RESULTS, predict_images

    with _console(as_json) as console:
        version = None
        if model is None:
            promoted = promoted_model(Path.cwd())
            model, version = promoted.folder, promoted.entry.version
            console.print(escape(promoted.told()))
        counts = predict_images(
            images, model, out,
            compat=compat, points=points, refiner=refiner, params=params, short_side=short_side,
            max_side=max_side, device=device,
        )  # fmt: skip
        if as_json:
            _print({**counts, "results": str(out / RESULTS), "model": str(model), "version": version})
        else:
            asked = f"{counts['points']} points on " if points else ""
            console.print(
                escape(f"{out / RESULTS}: {counts['masks']} masks for {asked}{counts['images']} images")
            )


@contextmanager
def _console(as_json: bool) -> Iterator[Console]:
    """Where a command talks to people; its log lines go to stderr. What a user can mend ends it with code 1."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield console
    except (TaskError, DataError) as error:
        console.print(f"[red]failed[/] {escape(str(error))}")
        raise typer.Exit(1) from None
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def _print(summary: dict[str, Any]) -> None:
    print_json(summary)
